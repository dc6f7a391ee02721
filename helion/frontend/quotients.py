"""Reshapes of dimensions that are parts of a block size: ``[block // 2, 2, n]`` as ``[block, n]``.

PyTorch's symbolic sizes do not know that ``block // 2 * 2`` is ``block``. It is, where the block size is at least 2,
since block sizes are powers of two.
"""

from __future__ import annotations

from typing import Any

import sympy
import torch

from .. import exc
from .._compat_sympy import FloorDiv
from ..ir.symbols import expr_of
from .environment import Environment
from .fake_values import fake_value

_aten = torch.ops.aten
_RESHAPES = (_aten.view.default, _aten._unsafe_view.default, _aten.reshape.default)


def regrouped(env: Environment, op: torch._ops.OpOverload, args: tuple[Any, ...]) -> torch.Tensor | None:
    """The reshaped value, where its number of elements is the same only since block sizes are powers of two.

    None: PyTorch's own rule serves.

    Raises:
        exc.InvalidAPIUsage: it is the same for block sizes from some number on, and smaller ones are allowed.
    """
    if op not in _RESHAPES:
        return None
    value, shape = args
    parts = {part for size in (*value.shape, *shape) for part in expr_of(size).atoms(FloorDiv)}
    exact, least = _exact_quotients(env, parts)
    if not exact:
        return None
    have = sympy.Mul(*(expr_of(size) for size in value.shape))
    rest = sympy.Mul(*(expr_of(size) for size in shape if not _is_open(size)))
    blocks = {block.symbol: block.var for block in env.space.blocks}
    # A size that is left open, or written as `block // 2 * 2`, is the block size itself.
    exprs = [have / rest if _is_open(size) else expr_of(size) for size in shape]
    closed = [blocks.get(sympy.expand(expr.xreplace(exact)), size) for expr, size in zip(exprs, shape, strict=True)]
    wanted = sympy.Mul(*map(expr_of, closed))
    if any(map(_is_open, closed)) or have == wanted or sympy.expand((have - wanted).xreplace(exact)) != 0:
        return None
    if least and any(map(_is_open, shape)):
        return None  # PyTorch's size: block // 2 * 2
    if least:
        name, number = next(iter(least.items()))
        raise exc.InvalidAPIUsage(
            f"a reshape that takes {name} // {number} * {number} for {name}, which may be less than {number}",
            fix=f"register the block size with {number} as its minimum, `hl.register_block_size({number}, 64)`, and "
            "give it to the loop as block_size=.",
        )
    return fake_value(value, closed, value.dtype)


def _is_open(size: Any) -> bool:
    return isinstance(size, int) and size == -1


def _exact_quotients(env: Environment, parts: set[FloorDiv]) -> tuple[dict[FloorDiv, sympy.Expr], dict[str, int]]:
    """Quotients of block sizes without their rounding, and how large named block sizes must be for that."""
    exact: dict[FloorDiv, sympy.Expr] = {}
    least: dict[str, int] = {}
    for part in parts:
        over, under = part.args
        block = next((block for block in env.space.blocks if block.symbol == over), None)
        if block is None or not under.is_Integer or int(under).bit_count() != 1:
            continue
        exact[part] = over / under
        least_size = block.low if block.fixed is None else block.fixed
        fits = isinstance(least_size, int) and least_size % int(under) == 0  # sizes above it are powers of two
        if not fits:
            least[block.name] = int(under)
    return exact, least
