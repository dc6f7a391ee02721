"""Operands in ref mode: aligned by tile (`language.alignment`), by the marks that values carry."""

from __future__ import annotations

import functools
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves
from torch.utils._pytree import tree_map

from ...language.alignment import Dim
from ...language.alignment import places

#: Operators whose ATen op has another name.
_OPERATORS = {"truediv": "div", "floordiv": "floor_divide", "sub": "sub", "invert": "bitwise_not"}
#: Gives the loop axis of each dimension of a value.
AxesOf = Callable[[torch.Tensor], Sequence[Any]]
#: Makes a view of a value with its dimensions in an order, None for new ones.
Arranged = Callable[[torch.Tensor, Sequence[int | None]], torch.Tensor]


@functools.cache
def is_pointwise(name: str) -> bool:
    """Whether a torch function, by its name, works element by element on operands that broadcast."""
    plain = name.strip("_")
    plain = _OPERATORS.get(plain, plain)
    if name.startswith("__r") and not hasattr(torch.ops.aten, plain):
        plain = _OPERATORS.get(plain[1:], plain[1:])
    packet = getattr(torch.ops.aten, plain, None)
    return packet is not None and any(torch.Tag.pointwise in getattr(packet, o).tags for o in packet.overloads())


def to_shape(
    value: torch.Tensor, shape: Sequence[int], axes: Sequence[Any], axes_of: AxesOf, arranged: Arranged
) -> torch.Tensor:
    """A device value as one whose dimensions align from the right with those of `shape`, which run over `axes`."""
    if not 0 < value.dim() < len(shape):
        return value
    at = places(
        [Dim(size, axis) for size, axis in zip(value.shape, axes_of(value), strict=True)],
        [Dim(size, axis) for size, axis in zip(shape, axes, strict=True)],
    )
    return value if at is None else arranged(value, at)


def aligned(name: str, args: Any, kwargs: Any, axes_of: AxesOf, arranged: Arranged) -> tuple[Any, Any]:
    """The arguments of a torch function; those of a pointwise one, or of `expand_as`, aligned by tile."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    if len({t.dim() for t in tensors if t.dim()}) < 2 or not (name == "expand_as" or is_pointwise(name)):
        return args, kwargs
    largest = max(tensors, key=torch.Tensor.dim)

    def align(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return to_shape(leaf, largest.shape, axes_of(largest), axes_of, arranged)

    return tree_map(align, args), tree_map(align, kwargs)
