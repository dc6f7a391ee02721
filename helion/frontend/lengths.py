"""Sizes that PyTorch's own functions calculate with: the lengths of tiles, not those of the blocks that hold them.

`F.kl_div(x, y, reduction="batchmean")` divides by `x.size(0)`.  A block's size is that number only where no tile is
partial, so what a function of PyTorch asked a tensor for becomes the number of its elements, counted on the device.  A
size that the user's code wrote stays what the language says it is.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING
from typing import Any

import sympy
import torch
from torch.utils import _pytree as pytree

from .. import exc
from ..ir.symbols import OriginKind
from ..ir.symbols import symbols_of

if TYPE_CHECKING:
    from .tracer import Tracer

_aten = torch.ops.aten

#: ATen ops that take a number beside a tensor.
_ARITHMETIC = frozenset(
    overload
    for packet in (_aten.add, _aten.sub, _aten.rsub, _aten.mul, _aten.div, _aten.true_divide)
    for overload in (getattr(packet, name) for name in packet.overloads() if name in ("Tensor", "Scalar"))
)


def given_symbols(*arguments: Any) -> frozenset[sympy.Symbol]:
    """The symbols of the numbers that the user's code passed to a function."""
    return frozenset(symbol for leaf in pytree.tree_leaves(arguments) for symbol in symbols_of(leaf))


def with_lengths(tracer: Tracer, func: Any, args: tuple[Any, ...], given: frozenset[sympy.Symbol]) -> tuple[Any, Any]:
    """An ATen op that a function of PyTorch called, and its arguments, with block sizes as lengths.

    Args:
        given: symbols that the user's code passed to that function.

    Raises:
        exc.TorchOpTracingError: a number that is computed from block sizes in another way than by products.
    """
    if func not in _ARITHMETIC:
        return func, args
    lengths = tuple(_length(tracer, func, arg, given) for arg in args)
    return (func, args) if all(map(operator.is_, lengths, args)) else (func.overloadpacket.Tensor, lengths)


def _length(tracer: Tracer, func: Any, number: Any, given: frozenset[sympy.Symbol]) -> Any:
    if not isinstance(number, (torch.SymInt, torch.SymFloat)):
        return number
    space = tracer.env.space
    origins = {symbol: space.origins.get(symbol) for symbol in symbols_of(number) - given}
    blocks = {s: o.index for s, o in origins.items() if o is not None and o.kind is OriginKind.BLOCK_SIZE}
    if not blocks:
        return number
    result: Any = 1
    for base, power in number.node.expr.as_powers_dict().items():
        if base in blocks:
            base = _count(tracer, func, blocks[base])
        elif base.free_symbols or not power.is_Integer:
            raise _refusal(func)
        else:
            base = float(base)
        result = result * base ** int(power)
    return result


def _count(tracer: Tracer, func: Any, block: int) -> torch.Tensor:
    axes = [axis for axis in tracer.axes_around() if axis.block.id == block]
    if len(axes) != 1:
        raise _refusal(func)
    return _aten.sum.default(torch.ones([axes[0].size], dtype=torch.float32, device=tracer.device))


def _refusal(func: Any) -> exc.TorchOpTracingError:
    return exc.TorchOpTracingError(
        op=str(func),
        reason="a function of PyTorch calculates with the size of a tile in a way that is not known for partial tiles",
        fix="write the formula out, with `tile.end - tile.begin` for the tile's length.",
    )
