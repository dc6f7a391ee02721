"""Dimensions of ref mode with one lane per element of a full tile, and fills of which it is not known yet whether they
have such.

`hl.zeros([block])` inside of a tile of that block size has the tile's elements, unless it goes into a loop over other
tiles of the size, `acc = acc + x[k]`: then it has had one lane per element of a full tile all along (`ir.axes` finds
that when compiled).  Where values are PyTorch's own tensors, such a dimension has stride 0 until then, so that it can
be made as long as what it meets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map

from ...language.containers import tensors_of_call
from ...language.eager_tile import EagerInt
from ...language.eager_tile import EagerTile
from .alignment import AxesOf
from .alignment import JaggedAxis
from .alignment import Lanes
from .alignment import marked


@dataclasses.dataclass(frozen=True, eq=False)
class Touched(Lanes):
    """In place of the loop axis of a dimension with one lane per element of a full tile, of which a partial tile has
    changed the first ones.

    Attributes:
        tile: that tile, of one iteration.
    """

    tile: EagerTile | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Fill(Lanes):
    """In place of the loop axis of a dimension of such a fill.

    Attributes:
        axis: of the tile whose elements it has for now.
    """

    axis: Any = None


#: The tiles around, each with the block size that it has.
Active = Sequence[tuple[EagerTile, Any] | None]


def repeated(value: torch.Tensor, dims: Sequence[int]) -> torch.Tensor:
    """A value of one number, with stride 0 along these dimensions."""
    return value.as_strided(value.shape, [0 if d in dims else s for d, s in enumerate(value.stride())])


def widened(value: torch.Tensor, dim: int, size: int) -> torch.Tensor:
    """A value with `size` elements along a dimension of stride 0."""
    shape = list(value.shape)
    shape[dim] = size
    return value.as_strided(shape, value.stride())


def tiles_of(sizes: Sequence[Any], active: Active) -> list[EagerTile | None]:
    """The tiles whose elements dimensions of registered sizes have: of dimensions of one size the last has the
    innermost tile's.
    """
    sources = [size.source if isinstance(size, EagerInt) else None for size in sizes]
    taken = [source.axis for source in sources if isinstance(source, EagerTile)]
    found: list[EagerTile | None] = [None] * len(sources)
    for place, source in reversed(list(enumerate(sources))):
        tiles = (entry[0] for entry in reversed(active) if entry is not None and entry[1] is source)
        found[place] = tile = next((tile for tile in tiles if tile.axis not in taken), None)
        taken += [] if tile is None else [tile.axis]
    return found


def undecided(value: torch.Tensor, axes: Sequence[Any], sizes: Sequence[Any], active: Active) -> torch.Tensor:
    """A new value of one number, which goes by what it meets along dimensions of a bare block size.

    Args:
        value: the device value.
        axes: of its dimensions.
        sizes: its shape, as the user gave it.
        active: the tiles around.
    """
    tiles = tiles_of(sizes, active)
    found = {
        d: Fill(axis.block, t.axis)
        for d, (t, axis) in enumerate(zip(tiles, axes, strict=True))
        if t is not None and isinstance(axis, Lanes)
    }
    if not found:
        return marked(value, axes)
    return marked(repeated(value, list(found)), [found.get(d, axis) for d, axis in enumerate(axes)])


def decided(args: Any, kwargs: Any, active: Sequence[EagerTile], axes_of: AxesOf) -> tuple[Any, Any]:
    """The arguments of a pointwise function, with those that have met another tile than the one they were taken for as
    long as that one.
    """
    tensors = tensors_of_call(args, kwargs)
    if not any(isinstance(axis, Fill) for tensor in tensors for axis in axes_of(tensor)):
        return args, kwargs
    order = [tile.axis for tile in active]

    def long_enough(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        new, axes = leaf, list(axes_of(leaf))
        for place, fill in enumerate(reversed(axes), 1):
            if isinstance(fill, Fill) and leaf.stride(-place) == 0:
                met = [axes_of(other)[-place] for other in tensors if other.dim() >= place]
                known = [axis for axis in met if axis in order]
                if known and fill.axis not in known:
                    tile = active[order.index(known[0])]
                    # Of a tile around it the elements; in a loop over others, one lane per element of a full one.
                    around = fill.axis in order[order.index(known[0]) :]
                    new = widened(new, new.dim() - place, tile.extent if around else int(tile.block_size))
                    axes[-place] = tile.axis if around else Lanes(fill.block)
        return leaf if new is leaf else marked(new, axes)

    return tree_map(long_enough, args), tree_map(long_enough, kwargs)


def per_lane(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    active: Sequence[EagerTile],
    axes_of: AxesOf,
) -> torch.Tensor | None:
    """A pointwise call between an accumulator with one lane per element of a full tile and a partial tile.

    `acc = hl.zeros([block])` before the loop has `block` lanes; the last tile `x[t]` may have fewer.  It changes only
    the lanes it has, and so does what follows in its iteration.

    Returns:
        The result with all lanes; None when this is not such a call.
    """
    tensors = tensors_of_call(args, kwargs)
    if not tensors:
        return None
    rank = max(t.dim() for t in tensors)
    cuts: dict[int, tuple[int, int]] = {}  # dimension from the end -> (lanes, lanes of the partial tile)
    touched: dict[int, Any] = {}  # dimension from the end -> the axis of the result
    for place in range(1, rank + 1):
        here = [t for t in tensors if t.dim() >= place]
        tile = next((tile for t in here if (tile := _tile_of_lanes(axes_of(t)[-place], active)) is not None), None)
        if tile is not None:
            cuts[place], touched[place] = (int(tile.block_size), tile.extent), Touched(tile=tile)
            continue
        sizes = {t.shape[-place] for t in here}
        ones = {axes_of(t)[-place] for t in here if t.shape[-place] == 1}
        if not any(tile.extent == 1 < int(tile.block_size) and tile.axis in ones for tile in active):
            sizes -= {1}  # broadcasts
        if len(sizes) != 2:
            continue
        few, many = min(sizes), max(sizes)
        partial = [tile for tile in active if int(tile.block_size) == many and tile.extent == few]
        if not partial:
            return None
        if isinstance(partial[-1].axis, JaggedAxis):
            touched[place] = partial[-1].axis
        else:
            touched[place] = Touched(tile=partial[-1])
        own = {axes_of(t)[-place] for t in tensors if t.dim() >= place and t.shape[-place] == many}
        if any(tile.axis in own and tile.extent == many for tile in active):
            return None  # those are a tile's elements, not lanes: what has fewer does not fit
        cuts[place] = (many, few)
    if not cuts:
        return None

    def cut(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            for place, (many, few) in cuts.items():
                if value.dim() >= place and value.shape[-place] == many:
                    value = value.narrow(-place, 0, few)
        return value

    accumulator: torch.Tensor | None = next(
        (t for t in tensors if all(t.dim() >= p and t.shape[-p] == many for p, (many, _) in cuts.items())), None
    )
    if accumulator is None:
        return None
    result = func(*tree_map(cut, args), **tree_map(cut, kwargs))
    shape = [*result.shape[: result.dim() - accumulator.dim()], *accumulator.shape]
    full: torch.Tensor = accumulator.to(result.dtype).expand(shape).clone()
    cut(full).copy_(result)
    axes = [None] * (full.dim() - accumulator.dim()) + list(axes_of(accumulator))
    for place, axis in touched.items():
        axes[-place] = axis
    return marked(full, axes)


def has_other_lanes(args: Any, kwargs: Any, active: Sequence[EagerTile], axes_of: AxesOf) -> bool:
    """Whether an operand has lanes that are not the current tile's: those stay as they are."""
    tensors = tensors_of_call(args, kwargs)
    return any(_tile_of_lanes(axis, active) is not None for tensor in tensors for axis in axes_of(tensor))


def _tile_of_lanes(axis: Any, active: Sequence[EagerTile]) -> EagerTile | None:
    """The tile of this iteration by which some lanes of a dimension were changed."""
    return next((tile for tile in active if isinstance(axis, Touched) and axis.tile is tile), None)
