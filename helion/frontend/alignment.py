"""Operands of pointwise ops while tracing, aligned by the tiles that their sizes name (`language.alignment`)."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch.utils._pytree import tree_leaves
from torch.utils._pytree import tree_map

from ..ir.symbols import expr_of
from ..language.alignment import Dim
from ..language.alignment import places
from ..language.alignment import places_of_tiles
from ..language.creation import iota
from ..language.views import lanes_of
from .outer_index import arranged
from .padding import shorter
from .rearranging import take

if TYPE_CHECKING:
    from .tracer import Tracer

#: For each dimension of an operand of higher rank, the one of another operand that goes with it.
Rule = Callable[[Sequence[Dim], Sequence[Dim]], "list[int | None] | None"]
_EXPAND = torch.ops.aten.expand.default


def dims_of(tracer: Tracer, shape: Sequence[Any]) -> list[Dim]:
    """The dimensions of a shape, with the tiles whose sizes they have; of host sizes what they are in this call."""
    space = tracer.env.space
    hints = [space.hint(size) for size in shape]
    return [Dim(expr_of(size) if hint is None else hint, space.axis_of(size)) for size, hint in zip(shape, hints)]


def aligned(tracer: Tracer, func: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: Any) -> tuple[Any, Any]:
    """The arguments of an ATen op; those of a pointwise one, or of `expand`, with their dimensions aligned by tile."""
    if func is _EXPAND:
        return (to_shape(tracer, args[0], args[1]), *args[1:]), kwargs
    if torch.Tag.pointwise not in func.tags:
        return args, kwargs
    if len({leaf.dim() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)} - {0}) > 1:
        args, kwargs = _each_to_largest(tracer, args, kwargs, places_of_tiles)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    if _differ(tensors) or any(block.fixed is not None for block in tracer.env.space.blocks):
        args, kwargs = _with_lanes(tracer, tensors, args, kwargs)
    if len({t.dim() for t in tensors if t.dim()}) < 2:
        return args, kwargs
    return _each_to_largest(tracer, args, kwargs, places)


def _each_to_largest(tracer: Tracer, args: tuple[Any, ...], kwargs: Any, rule: Rule) -> tuple[Any, Any]:
    """The arguments of a pointwise op, those of lower rank than the largest as one rule has them go with it."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    largest = max(tensors, key=torch.Tensor.dim)

    def align(leaf: Any) -> Any:
        return to_shape(tracer, leaf, largest.shape, rule) if isinstance(leaf, torch.Tensor) else leaf

    return tuple(tree_map(align, list(args))), tree_map(align, kwargs)


def _differ(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether a dimension has a constant size above 1 in one operand, and another size above 1 in another."""
    first, *others = [tuple(tensor.shape) for tensor in tensors if tensor.dim()] or [()]
    for other in others:
        for a, b in zip(reversed(first), reversed(other)):
            # Symbols are other sizes here without a look at what they are: the comparison would be a guard.
            constant = type(a) is int, type(b) is int
            if any(constant) and 1 not in (a if constant[0] else 0, b if constant[1] else 0):
                if not all(constant) or a != b:
                    return True
    return False


def _with_lanes(tracer: Tracer, tensors: list[torch.Tensor], args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Operands of which one has a tile and the other the constant that is the tile's block size: both have the tile."""
    rank = max((t.dim() for t in tensors), default=0)
    shape: list[Any] = [1] * rank
    for tensor in tensors:
        for place, size in enumerate(tensor.shape, rank - tensor.dim()):
            known = shape[place]
            if not isinstance(size, int) or (isinstance(known, int) and (known == 1 or 1 < size < known)):
                shape[place] = size

    def convert(leaf: Any) -> Any:
        return with_lanes(tracer, leaf, shape) if isinstance(leaf, torch.Tensor) else leaf

    return tuple(tree_map(convert, list(args))), tree_map(convert, kwargs)


def with_lanes(tracer: Tracer, value: torch.Tensor, shape: Sequence[Any]) -> torch.Tensor:
    """A device value with the tile of `shape`, from the right, where it has the constant that is its block size or the
    whole of what one tile covers, and without what a size of `shape` is padded to (`padding`)."""
    value = _of_covering_tiles(tracer, value, shape)
    sizes, changed = shorter(tracer, value, shape)
    for place, wanted in zip(range(value.dim() - 1, -1, -1), reversed(shape)):
        block = tracer.env.space.block_of(wanted)
        if block is not None and sizes[place] == block.fixed and isinstance(sizes[place], int) and sizes[place] > 1:
            sizes[place], changed = wanted, True
    return lanes_of(value, sizes) if changed and tracer.is_device_value(value) else value


def _of_covering_tiles(tracer: Tracer, value: torch.Tensor, shape: Sequence[Any]) -> torch.Tensor:
    """A device value with the sizes of `shape` where one of the two has a tile that covers its range, by the block size
    that the kernel gives, and the other all elements of that range: `x[t, :]` beside `for u in hl.tile(8,
    block_size=16)`."""
    for dim, wanted in zip(range(value.dim() - 1, -1, -1), reversed(shape)):
        size = value.shape[dim]
        if type(size) is type(wanted) or not tracer.is_device_value(value):
            continue
        tile, n = (size, wanted) if isinstance(wanted, int) else (wanted, size)
        axis = tracer.env.space.axis_of(tile)
        if axis is None or axis.static_extent != n or axis.begin != 0 or n < 2:
            continue
        fixed = axis.block.fixed
        if not isinstance(fixed, int) or fixed < n or (fixed == n and tile is wanted):
            continue  # of as many elements as the block has the first are the tile's
        value = take(value, torch.clamp(iota(0, wanted, 1, torch.int32), 0, n - 1), dim)
    return value


def to_shape(tracer: Tracer, value: torch.Tensor, shape: Sequence[Any], rule: Rule = places) -> torch.Tensor:
    """A device value as one whose dimensions align from the right with those of `shape`."""
    if not 0 < value.dim() < len(shape):
        return value
    at = rule(dims_of(tracer, value.shape), dims_of(tracer, shape))
    return value if at is None else arranged(value, at)
