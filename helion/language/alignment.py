"""Operands of different rank go together by tile: `a[t0, t1] + b[t0]` has `b` along the dimension of `t0`.

PyTorch aligns dimensions from the right, which is what is done wherever those fit.  Where they do not, a dimension of a
tile stands where the other operand has one of the same tile, others where the sizes are equal.  What the tile of a
dimension is, is the handler's to say.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from .. import exc


@dataclasses.dataclass(frozen=True)
class Dim:
    """A dimension of an operand.

    Attributes:
        size: its size, by which it is told apart from others.
        tile: identity of the tile that it has the elements of, None for other dimensions.
    """

    size: Any
    tile: Any = None

    @property
    def is_one(self) -> bool:
        return self.tile is None and isinstance(self.size, int) and self.size == 1

    def fits(self, other: Dim) -> bool:
        """Whether the two are one dimension of a result."""
        if self.is_one or other.is_one:
            return True
        if self.tile is not None and other.tile is not None:
            return self.tile is other.tile
        return bool(self.size == other.size)


def places(value: Sequence[Dim], target: Sequence[Dim]) -> list[int | None] | None:
    """For each dimension of the operand of higher rank, the dimension of the other one that goes with it.

    Returns:
        None where dimensions align from the right, or in no way.

    Raises:
        exc.ShapeMismatch: tiles align in several ways, none of them from the right.
    """
    if not value or len(value) >= len(target):
        return None
    at = places_of_tiles(value, target)
    if at is not None or all(a.fits(b) for a, b in zip(reversed(value), reversed(target))):
        return at
    return _chosen(value, target, _ways(value, target))


def places_of_tiles(value: Sequence[Dim], target: Sequence[Dim]) -> list[int | None] | None:
    """The same where an operand's tile is one of the other's too, but not the one that it meets from the right: sizes
    that are equal by chance, of `:` and a block say, are no reason to put it elsewhere.

    Raises:
        exc.ShapeMismatch: the tiles of both align in several ways.
    """
    if len(value) >= len(target):
        return None
    own = [dim.tile is not None and any(dim.tile is other.tile for other in target) for dim in value]
    right = range(len(target) - len(value), len(target))

    def kept(at: Sequence[int]) -> bool:
        return all(dim.tile is target[place].tile for dim, place, of_both in zip(value, at, own) if of_both)

    return None if kept(right) else _chosen(value, target, [at for at in _ways(value, target) if kept(at)])


def _ways(value: Sequence[Dim], target: Sequence[Dim]) -> list[tuple[int, ...]]:
    """The dimensions of the operand of higher rank that those of the other one may go with, in each way."""
    return [
        at
        for at in itertools.combinations(range(len(target)), len(value))
        if all(dim.fits(target[place]) for dim, place in zip(value, at)) and _by_tile(value, target, at)
    ]


def _chosen(value: Sequence[Dim], target: Sequence[Dim], found: Sequence[tuple[int, ...]]) -> list[int | None] | None:
    """The one of these ways that is meant, as `places` gives it; None without one."""
    if not found:
        return None
    # Of several places for a dimension of a plain size the last one is meant, as in PyTorch.
    tiles = {tuple(place for dim, place in zip(value, at) if dim.tile is not None) for at in found}
    if len(tiles) > 1:
        raise exc.ShapeMismatch(
            "an operand has fewer dimensions than the other, and its tile is several of those",
            fix="say where it goes with None: `b[:, None]`.",
        )
    at = found[-1]
    return [at.index(place) if place in at else None for place in range(len(target))]


def two_tiles(one: str, other: str, location: exc.SourceLocation | None = None) -> exc.ShapeMismatch:
    """Elements of tiles of two loops, taken together one by one: partial tiles of the two have different sizes, though
    the loops may share a block size."""
    return exc.ShapeMismatch(
        f"elements of tile {one!r} and elements of tile {other!r} do not go together one by one: each loop has a range "
        "and partial tiles of its own",
        fix=f"read both through one tile, as in x[{other} + ({one}.begin - {other}.begin)], or make every combination, "
        "as in a[:, None] * b[None, :]; what has one lane for each element of a full tile begins with "
        "hl.zeros([block]), of the registered block size.",
        location=location,
    )


def vector_beside_its_tile(tile: str) -> str:
    """What to mind where a vector of a tile is an index beside that tile."""
    return f"`x[{tile}, y[{tile}]]` is every row with every column; `x[{tile}.index, y[{tile}]]` is one element a row."


def _by_tile(value: Sequence[Dim], target: Sequence[Dim], at: Sequence[int]) -> bool:
    """Whether at least one dimension has met its own tile or size, and none a dimension of size 1 for want of it."""
    return all(dim.is_one or not target[place].is_one for dim, place in zip(value, at))
