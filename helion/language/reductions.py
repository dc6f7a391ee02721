"""`hl.reduce`: reductions with a combine function of your own.

Ordinary reductions are torch's (`x.sum(-1)`, `torch.amax(x, 1)`, ...).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .. import exc
from .combine import as_flat_combine
from .combine import cast_results
from .combine import operands
from .op import device_op
from .shapes import normalize_dim

Tensors = Any  # a tensor or a tuple of them


@device_op()
def reduce(
    combine_fn: Callable[..., Any],
    x: Tensors,
    dim: int,
    other: float | tuple[float, ...] = 0,
    keep_dims: bool = False,
) -> Tensors:
    """Reduce along a dimension with an associative function.

    Args:
        combine_fn: associative; `(left, right) -> value` for one operand, `(left_tuple, right_tuple) -> tuple`
            or `(l0, l1, ..., r0, r1, ...) -> tuple` for several.  Called with tensors or scalars of the
            operands' dtypes: elementwise code only.
        x: tensor, or tuple of tensors of one shape reduced together.
        dim: dimension to reduce.
        other: identity of `combine_fn`, used for the padding of partial tiles and for empty dimensions; a
            number or one per operand.
        keep_dims: keep the reduced dimension with size 1.

    Returns:
        Reduced tensor(s) of the operands' dtypes; a tuple when `x` is one.  The order in which elements are
        combined is not specified, but neighbours are: `left` stands before `right`.
    """
    raise NotImplementedError


@reduce.set_shape_rule
def _(combine_fn: Callable[..., Any], x: Tensors, dim: int, other: Any, keep_dims: bool) -> Tensors:
    values = operands(x, "hl.reduce")
    identities(other, len(values))
    if not callable(combine_fn):
        raise exc.InvalidAPIUsage(f"hl.reduce: combine_fn must be a function, got {type(combine_fn).__name__}")
    at = normalize_dim(dim, values[0].dim(), "hl.reduce")
    shape = list(values[0].shape)
    shape[at : at + 1] = [1] if keep_dims else []
    results = tuple(torch.empty(shape, dtype=v.dtype, device=v.device) for v in values)
    return results if isinstance(x, (tuple, list)) else results[0]


@reduce.set_eager_rule
def _(combine_fn: Callable[..., Any], x: Tensors, dim: int, other: Any, keep_dims: bool) -> Tensors:
    values = operands(x, "hl.reduce")
    at = normalize_dim(dim, values[0].dim(), "hl.reduce")
    empty = identities(other, len(values))
    combine = as_flat_combine(combine_fn, len(values), "hl.reduce")
    dtypes = [v.dtype for v in values]
    size = values[0].shape[at]
    if size == 0:
        values = tuple(
            torch.full([1 if d == at else n for d, n in enumerate(v.shape)], e, dtype=v.dtype, device=v.device)
            for v, e in zip(values, empty, strict=True)
        )
    # Neighbours are combined pairwise: order is kept and there are log2(size) calls of combine_fn.
    while size > 1:
        pairs = size // 2
        left = [v.narrow(at, 0, 2 * pairs).unflatten(at, (pairs, 2)).select(at + 1, 0) for v in values]
        right = [v.narrow(at, 0, 2 * pairs).unflatten(at, (pairs, 2)).select(at + 1, 1) for v in values]
        combined = cast_results(combine(*left, *right), dtypes)
        rest = [v.narrow(at, 2 * pairs, size % 2) for v in values]
        values = tuple(torch.cat(parts, dim=at) for parts in zip(combined, rest, strict=True))
        size = pairs + size % 2
    results = values if keep_dims else tuple(v.squeeze(at) for v in values)
    return results if isinstance(x, (tuple, list)) else results[0]


def identities(other: Any, n: int) -> tuple[float, ...]:
    """`other` as one number per operand."""
    result = tuple(other) if isinstance(other, (tuple, list)) else (other,) * n
    if len(result) != n:
        raise exc.InvalidAPIUsage(f"hl.reduce: other has {len(result)} entries for {n} operands")
    if not all(isinstance(v, (bool, int, float)) for v in result):
        raise exc.InvalidAPIUsage("hl.reduce: other must be constants")
    return result
