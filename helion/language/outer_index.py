"""Index vectors of different tiles: `x[rows[tile_m], cols[tile_n]]` is every row with every column.

Each such vector is a dimension of its own where it stands, as a tile is; vectors of one tile pair, as PyTorch's do.  An
access with vectors of several tiles is made of one whose index tensors broadcast, `x[rows[:, None], cols[None, :]]`,
before anything else sees it; so this is the only place that knows the rule.  Whose lanes a vector has is the
handler's to say.  Slices with bounds of the kernel are such vectors too (`windows`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import Protocol

import torch

from .indexing import expand_ellipsis
from .op import Access
from .op import Op
from .windows import Windows
from .windows import with_mask
from .windows import without_windows

#: A view of a value: for each dimension the one of the value that it is, None for a new one of size 1.
Arrange = Callable[[torch.Tensor, Sequence[int | None]], torch.Tensor]


class Lanes(Windows, Protocol):
    """Whose lanes index vectors have, and the lanes of slices."""

    def same(self, left: torch.Tensor, right: torch.Tensor) -> bool:
        """Whether two vectors are of one tile, or both of none."""

    def is_single(self, vector: torch.Tensor) -> bool:
        """Whether a vector has one element whatever the tiles are, and so broadcasts with any."""


@dataclasses.dataclass(frozen=True)
class _Outer:
    """An index whose vectors broadcast with each other.

    Attributes:
        index: the index.
        places: for each dimension of the access as the user wrote it, the dimension that it is of this index's.
        masks: masks of single dimensions of the access as the user wrote it.
    """

    index: list[Any]
    places: list[int]
    masks: list[tuple[int, torch.Tensor]]


def outer_access(
    op: Op,
    args: tuple[Any, ...],
    lanes: Lanes,
    arrange: Arrange,
    call: Callable[[tuple[Any, ...]], Any],
) -> Any:
    """A memory op whose index has vectors of different tiles, or slices with bounds of the kernel; NotImplemented for
    any other.

    Args:
        op, args: the call.
        lanes: whose lanes vectors have.
        arrange: makes views.
        call: makes the call with other arguments.
    """
    access = op.access
    if access is None or access.addresses_at is not None or not isinstance(args[0], torch.Tensor):
        return NotImplemented
    outer = _outer(args[0], args[access.index_at], lanes, arrange, op.name)
    if outer is None:
        return NotImplemented
    args = with_mask(args, access, outer.masks, len(outer.places), arrange, lanes)
    result = call(_rearranged(args, access, outer, arrange))
    moved = outer.places != sorted(outer.places)
    return arrange(result, outer.places) if moved and isinstance(result, torch.Tensor) else result


def _outer(tensor: torch.Tensor, index: Any, lanes: Lanes, arrange: Arrange, what: str) -> _Outer | None:
    windowed = without_windows(tensor.shape, expand_ellipsis(index, tensor.dim(), what), lanes, what)
    elements = windowed.elements
    vectors = [e for e in elements if isinstance(e, torch.Tensor) and e.dim()]
    if not windowed.vectors and (len(vectors) < 2 or any(v.dim() > 1 or v.dtype is torch.bool for v in vectors)):
        return None
    group_of, count = _groups(vectors, windowed.vectors, lanes)
    if count < 2 and not windowed.vectors:
        return None
    dims = [e for e in elements if _is_dimension(e)]
    first = next(i for i, e in enumerate(dims) if id(e) in group_of)
    # The broadcast of the vectors stands where the first of them does; other dimensions keep their order around it.
    others = [i for i, e in enumerate(dims) if id(e) not in group_of]
    after = {i: count + place for place, i in enumerate(others)}
    before = {i: place for place, i in enumerate(others) if i < first}
    places: list[int] = []
    masks: list[tuple[int, torch.Tensor]] = []
    for i, element in enumerate(dims):
        group = group_of.get(id(element))
        place = (before.get(i, after.get(i, -1))) if group is None else first + group
        if place not in places:
            places.append(place)
        if id(element) in windowed.inside:
            masks.append((places.index(place), windowed.inside[id(element)]))
    spread = {
        id(v): arrange(v, [0, *[None] * (count - 1 - group_of[id(v)])]) for v in vectors if group_of[id(v)] < count - 1
    }
    return _Outer([spread.get(id(e), e) for e in elements], places, masks)


def _groups(vectors: Sequence[torch.Tensor], windows: frozenset[int], lanes: Lanes) -> tuple[dict[int, int], int]:
    """For each vector, by id, which dimension of the product it is; and how many there are.  A window is one alone."""
    groups: list[torch.Tensor] = []
    group_of: dict[int, int] = {}
    for vector in vectors:
        if id(vector) in windows:
            group_of[id(vector)] = len(groups)
            groups.append(vector)
            continue
        if lanes.is_single(vector):
            group_of[id(vector)] = 0
            continue
        same = (i for i, other in enumerate(groups) if id(other) not in windows and lanes.same(vector, other))
        known = next(same, len(groups))
        group_of[id(vector)] = known
        groups[known:] = groups[known:] or [vector]
    return group_of, len(groups)


def _is_dimension(element: Any) -> bool:
    """Whether an element of an index gives the access a dimension, or is one of the vectors."""
    if isinstance(element, torch.Tensor):
        return element.dim() > 0
    return not isinstance(element, (int, torch.SymInt))


def _rearranged(args: tuple[Any, ...], access: Access, outer: _Outer, arrange: Arrange) -> tuple[Any, ...]:
    """The arguments with that index, and what broadcasts to the access in the order of its dimensions."""
    changed = list(args)
    changed[access.index_at] = outer.index
    rank = len(outer.places)
    for at in (access.mask_at, *access.values_at):
        value = args[at]
        if isinstance(value, torch.Tensor) and 0 < value.dim() <= rank:
            missing = rank - value.dim()
            dims = [outer.places.index(place) - missing for place in range(rank)]
            if dims != list(range(rank)):
                changed[at] = arrange(value, [d if d >= 0 else None for d in dims])
    return tuple(changed)
