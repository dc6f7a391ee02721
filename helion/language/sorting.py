"""Sorting of device values: what torch.sort, argsort, topk and kthvalue mean in device code.

A value and its place become one 64-bit key whose integer order is PyTorch's order of the values (nan largest, -0.0
equal to 0.0) with ties in their original order, so that every backend gives the same places.  Keys are sorted; their
low halves say where each value came from.  Values of 64 bits are sorted by their low halves first, and then by their
high halves, which keeps the order of equal ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .. import exc
from .creation import iota
from .op import device_op
from .shapes import constant_fix
from .shapes import normalize_dim
from .views import take_along_dim

#: dtypes whose values fit into the upper half of a key.
_NARROW = frozenset(
    {
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.uint16,
        torch.bool,
    }
)
#: dtypes whose values take two keys.
_WIDE = frozenset({torch.float64, torch.int64, torch.uint32})
_INDEX_BITS = 32


@device_op()
def sort_keys(keys: torch.Tensor) -> torch.Tensor:
    """int64 keys in ascending order along the last dimension.

    Args:
        keys: int64 tensor of at least one dimension, the last of constant size.

    Returns:
        A tensor of the same shape and dtype.
    """
    raise NotImplementedError


@sort_keys.set_shape_rule
def _(keys: torch.Tensor) -> torch.Tensor:
    if keys.dtype is not torch.int64 or keys.dim() == 0:
        raise exc.InvalidAPIUsage("hl.sort_keys needs int64 keys of one dimension or more")
    return torch.empty(keys.shape, dtype=torch.int64, device=keys.device)


@sort_keys.set_eager_rule
def _(keys: torch.Tensor) -> torch.Tensor:
    return torch.sort(keys, dim=-1).values


def _constant_size(x: torch.Tensor, dim: int, what: str) -> int:
    size = x.shape[dim]
    if isinstance(size, torch.SymInt) and size.node.expr.is_Integer:
        return int(size)
    if not isinstance(size, int):
        raise exc.TorchOpTracingError(
            op=what,
            reason=f"dimension {dim} has no constant size",
            fix=constant_fix(size, "sort along a whole dimension (`:`)."),
        )
    return size


def _places(n: int, rank: int) -> torch.Tensor:
    """0, 1, ..., n - 1 along the last of `rank` dimensions."""
    places: torch.Tensor = iota(0, n, 1, torch.int64)
    for _ in range(rank - 1):
        places = places.unsqueeze(0)
    return places


def _order(x: torch.Tensor, what: str) -> torch.Tensor:
    """Integers, of 32 bits or of 64, that are in the order of the values."""
    if x.dtype not in _NARROW | _WIDE:
        raise exc.UnsupportedDtype(
            f"{what} on tiles takes floats of 16 bits or more, ints and bools, got {x.dtype}",
            fix="sort numbers in the same order, `x.to(torch.int64) ^ (-1 << 63)`, and turn them back by the same."
            if x.dtype is torch.uint64
            else "convert them first, `.to(torch.float32)`.",
        )
    width = torch.int64 if x.dtype in _WIDE else torch.int32
    if not x.dtype.is_floating_point:
        return x.to(width)
    wide = x if x.dtype is torch.float64 else x.to(torch.float32)
    wide = torch.where(wide == 0, 0.0, torch.where(wide == wide, wide, float("nan")))
    bits = wide.view(width)
    return torch.where(bits < 0, bits ^ torch.iinfo(width).max, bits)


def _places_by(order: torch.Tensor, what: str) -> torch.Tensor:
    """Where the elements of ascending 32-bit integers, held in int64, are along the last dimension."""
    numbers = _places(_constant_size(order, order.dim() - 1, what), order.dim())
    result: torch.Tensor = sort_keys(order * (1 << _INDEX_BITS) + numbers) & ((1 << _INDEX_BITS) - 1)
    return result


def _sorted_places(x: torch.Tensor, descending: bool, what: str) -> torch.Tensor:
    order = _order(x, what)
    if descending:
        order = ~order
    if order.dtype is not torch.int64:
        return _places_by(order.to(torch.int64), what)
    low = (order & ((1 << _INDEX_BITS) - 1)) - (1 << (_INDEX_BITS - 1))
    first = _places_by(low, what)
    high: torch.Tensor = take_along_dim(order >> _INDEX_BITS, first, -1)
    places: torch.Tensor = take_along_dim(first, _places_by(high, what), -1)
    return places


def _sorted(
    x: torch.Tensor, dim: int, descending: bool, what: str, count: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and places of the first `count` elements (default: all) along a dimension."""
    if x.dim() == 0:
        return x, torch.zeros_like(x, dtype=torch.int64)
    at = normalize_dim(dim, x.dim(), what)
    moved = x if at == x.dim() - 1 else x.transpose(at, -1)
    places = _sorted_places(moved, descending, what)
    if count is not None and count < _constant_size(moved, moved.dim() - 1, what):
        first = _places(count, x.dim()).expand([*moved.shape[:-1], count])
        places = take_along_dim(places, first, -1)
    values = take_along_dim(moved, places, -1)
    if at != x.dim() - 1:
        values, places = values.transpose(at, -1), places.transpose(at, -1)
    return values, places


def sort(input: torch.Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """torch.sort on tiles; always stable."""
    return torch.return_types.sort(_sorted(input, dim, descending, "torch.sort"))


def argsort(input: torch.Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> torch.Tensor:
    """torch.argsort on tiles; always stable."""
    return _sorted(input, dim, descending, "torch.argsort")[1]


def msort(input: torch.Tensor) -> torch.Tensor:
    """torch.msort on tiles: sorted along the first dimension."""
    return _sorted(input, 0, False, "torch.msort")[0]


def topk(input: torch.Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """torch.topk on tiles: always sorted, of equal values the first ones."""
    if input.dim():
        size = _constant_size(input, normalize_dim(dim, input.dim(), "torch.topk"), "torch.topk")
        if not isinstance(k, int) or not 0 < k <= size:
            raise exc.InvalidAPIUsage(
                f"torch.topk: k = {k} of {size} elements", fix="k is a constant from 1 to the size."
            )
    return torch.return_types.topk(_sorted(input, dim, largest, "torch.topk", k))


def kthvalue(input: torch.Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """torch.kthvalue on tiles: the k-th smallest element, of equal ones in their order."""
    if input.dim() == 0:
        return torch.return_types.kthvalue(_sorted(input, dim, False, "torch.kthvalue"))
    at = normalize_dim(dim, input.dim(), "torch.kthvalue")
    size = _constant_size(input, at, "torch.kthvalue")
    if not isinstance(k, int) or not 0 < k <= size:
        raise exc.InvalidAPIUsage(
            f"torch.kthvalue: k = {k} of {size} elements", fix="k is a constant from 1 to the size."
        )
    values, places = (part.select(at, k - 1) for part in _sorted(input, at, False, "torch.kthvalue"))
    if keepdim:
        values, places = values.unsqueeze(at), places.unsqueeze(at)
    return torch.return_types.kthvalue((values, places))


def also_methods(**meanings: Callable[..., Any]) -> dict[Callable[..., Any], Callable[..., Any]]:
    """Functions of torch that are methods of tensors too, both with one meaning."""
    return {getattr(owner, name): fn for name, fn in meanings.items() for owner in (torch, torch.Tensor)}


#: torch callable -> what it means in device code.
SORTING = also_methods(sort=sort, argsort=argsort, msort=msort, topk=topk, kthvalue=kthvalue)
