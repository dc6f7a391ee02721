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
from ...language.eager_tile import extent_of
from ...language.indexing import IndexItem
from ...language.indexing import indexed_shape
from ...language.indexing import normalize_index


class StoredTwice:
    """What the tiles of the current top-level loop have stored where their place is not their own."""

    def __init__(self) -> None:
        self._stored: dict[Any, tuple[tuple[Any, ...], Any]] = {}

    def clear(self) -> None:
        """A new top-level loop begins."""
        self._stored.clear()

    def check(
        self, tensor: torch.Tensor, index: Any, value: Any, mask: Any, tiles: Sequence[EagerTile], name: str
    ) -> None:
        """Check one store.

        Args:
            tensor, index, value, mask: the store.
            tiles: the tiles of the top-level loop.
            name: what the user calls the tensor.

        Raises:
            exc.LoopDependencyError: another tile, or another lane of this one, has stored something else to the same
                place.
        """
        items = normalize_index(tensor.shape, index, "store")
        if any(isinstance(item.value, (torch.Tensor, EagerInt)) for item in items):
            return  # made of any number of tiles: cannot be judged
        own = [item.value for item in items if item.kind == "tile" and not (item.repeats and mask is None)]
        for place, item in enumerate(item for item in items if item.kind != "scalar"):
            if item.repeats and mask is None and isinstance(value, torch.Tensor):
                if not _is_even(value, place, tensor, index):
                    raise self._error(name)
        used = [tile.axis for tile in own]
        left_out = [tile for tile in tiles if tile.axis not in used and int(tile.count) > 1]
        if not left_out or any(_may_follow(tile, outer) for tile in own for outer in left_out):
            return
        where = (tensor.data_ptr(), tuple(_place(item) for item in items))
        now = tuple(int(tile.begin) for tile in left_out)
        before, known = self._stored.setdefault(where, (now, value))
        if before != now and not _equal(known, value):
            raise self._error(name)

    def _error(self, name: str) -> exc.LoopDependencyError:
        return exc.LoopDependencyError(
            reason=f"several tiles of one loop store to the same elements of {name!r}, and not the same values",
            fix="give the loop a block size that covers the range, or every tile its own place in the output.",
        )


def _is_even(value: torch.Tensor, place: int, tensor: torch.Tensor, index: Any) -> bool:
    """Whether what is stored is the same all along a dimension of the access."""
    shape = [extent_of(size) for size in indexed_shape(tensor, index)]
    if not shape[place] or value.dim() > len(shape):
        return True
    wide = value.expand(shape)
    return bool(torch.isclose(wide, wide.narrow(place, 0, 1), rtol=0, atol=0, equal_nan=True).all())


def _may_follow(tile: EagerTile, outer: EagerTile) -> bool:
    """Whether a tile of an inner loop may begin where an outer one does."""
    return int(tile.range_begin) == int(outer.begin) != 0


def _place(item: IndexItem) -> Any:
    if item.kind == "tile":
        return None if item.repeats else (int(item.value.begin), int(item.value.end))
    return item.value


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        same_kind = left.shape == right.shape and left.dtype is right.dtype
        return same_kind and bool(torch.allclose(left, right, rtol=0, atol=0, equal_nan=True))
    return type(left) is type(right) and bool(left == right)
