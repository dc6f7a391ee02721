"""Stores in ref mode that several tiles of a top-level loop make to one place: all of them must store the same.

On a GPU those tiles run at the same time.  Traced kernels are checked when they are compiled (`ir.dependencies`), and a
tile that a store leaves out covers its whole range there; in ref mode nothing is traced, so what is stored is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ... import exc
from ...language.eager_tile import EagerInt
from ...language.eager_tile import EagerTile
from ...language.indexing import index_list


class StoredTwice:
    """What the tiles of the current top-level loop have stored where their place is not their own."""

    def __init__(self) -> None:
        self._stored: dict[Any, tuple[tuple[Any, ...], Any]] = {}

    def clear(self) -> None:
        """A new top-level loop begins."""
        self._stored.clear()

    def check(self, tensor: torch.Tensor, index: Any, value: Any, tiles: Sequence[EagerTile], name: str) -> None:
        """Check one store.

        Args:
            tensor, index, value: the store.
            tiles: the tiles of the top-level loop.
            name: what the user calls the tensor.

        Raises:
            exc.LoopDependencyError: another tile has stored something else to the same place.
        """
        elements = index_list(index)
        if any(isinstance(e, (torch.Tensor, EagerInt)) for e in elements):
            return  # made of any number of tiles: cannot be judged
        used = [e.axis for e in elements if isinstance(e, EagerTile)]
        left_out = [tile for tile in tiles if tile.axis not in used and int(tile.count) > 1]
        if not left_out or any(_may_follow(e, tile) for e in elements for tile in left_out):
            return
        place = (tensor.data_ptr(), tuple(map(_place, elements)))
        now = tuple(int(tile.begin) for tile in left_out)
        before, known = self._stored.setdefault(place, (now, value))
        if before != now and not _equal(known, value):
            raise exc.LoopDependencyError(
                reason=f"several tiles of one loop store to the same elements of {name!r}, and not the same values",
                fix="give the loop a block size that covers the range, or every tile its own place in the output.",
            )


def _may_follow(element: Any, tile: EagerTile) -> bool:
    """Whether a tile of an inner loop may begin where an outer one does."""
    return isinstance(element, EagerTile) and int(element.range_begin) == int(tile.begin) != 0


def _place(element: Any) -> Any:
    if isinstance(element, EagerTile):
        return int(element.begin), int(element.end)
    return (element.start, element.stop, element.step) if isinstance(element, slice) else element


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        same_kind = left.shape == right.shape and left.dtype is right.dtype
        return same_kind and bool(torch.allclose(left, right, rtol=0, atol=0, equal_nan=True))
    return type(left) is type(right) and bool(left == right)
