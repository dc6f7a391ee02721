"""Dimensions of size 1 under a tile of a longer loop: whether they broadcast, or are as long as they are.

`bias[tile_m, tile_n]` of a bias of size [1, n] broadcasts along the rows, as in PyTorch.  A tensor that is shorter than
the loop reads as 0 past its end, whatever its length; one of size 1 would too, if it did not broadcast.  Both cannot be
meant of one tile: `for p in params: total += p[t].sum()` with a tile over the longest of them would count a parameter
of one element once for each index.  So a dimension of size 1 broadcasts unless the kernel shows that the tile is longer
than its tensors are: by the same expression for tensors of other sizes, or by one that ends before the tile's range.
Then it is an error.  Not here: which accesses broadcast (`indexing`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Any

from .. import exc


@dataclasses.dataclass(frozen=True)
class Use:
    """A dimension of a host tensor that a tile indexes.

    Attributes:
        name: what the user calls the tensor.
        dim: the dimension.
        tile: what messages call the tile.
        broadcasts: it has size 1 where the tile's range has more.
        ends_before: it is shorter than the tile's range, and longer than 1.
        site: the expression, with the calls around it.
    """

    name: str
    dim: int
    tile: str
    broadcasts: bool
    ends_before: bool
    site: Hashable


class Broadcasts:
    """The uses of the tiles of one top-level loop."""

    def __init__(self) -> None:
        self._uses: dict[int, tuple[Any, list[Use]]] = {}  # by the axis' id, which the axis keeps valid

    def clear(self) -> None:
        """Another top-level loop begins."""
        self._uses.clear()

    def note(self, axis: Any, use: Use) -> None:
        """Take notice of a use.

        Raises:
            exc.ShapeMismatch: one dimension of size 1 broadcasts along the tile, and another use shows that the tile is
                longer than its tensors.
        """
        uses = self._uses.setdefault(id(axis), (axis, []))[1]
        if use in uses:
            return
        for other in uses:
            one, longer = (use, other) if use.broadcasts else (other, use)
            if one.broadcasts and not longer.broadcasts and (longer.ends_before or one.site == longer.site):
                raise _ambiguous(one, longer)
        uses.append(use)


def _ambiguous(one: Use, longer: Use) -> exc.ShapeMismatch:
    why = "ends before the tile's range does" if longer.ends_before else "is read by the same expression"
    size = f"{one.name}.size({one.dim})"
    return exc.ShapeMismatch(
        f"dimension {one.dim} of {one.name!r} has size 1 and would broadcast along {one.tile!r}; but {longer.name!r}, "
        f"of another size, {why}, and reads as 0 past its end",
        fix=f"say which is meant: a loop of its own, hl.tile({size}); hl.load with "
        f"extra_mask={one.tile}.index < {size}, which reads one element; or {one.name}.expand(...) in host code.",
    )
