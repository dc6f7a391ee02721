"""Masks of `hl.jagged_tile`: positions at or beyond their row's length are not accessed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ... import exc
from ...language.eager_tile import EagerTile
from .torch_mode import axes_of
from .torch_mode import axes_of_index


def ragged_mask(tensor: torch.Tensor, index: Any, mask: Any, active: Sequence[EagerTile]) -> Any:
    """`mask` narrowed to the elements inside their row, for an access inside ragged loops.

    Args:
        tensor: what is accessed.
        index: the access's index.
        mask: its `extra_mask` (None, bool or tensor).
        active: tiles of the enclosing loops.

    Returns:
        `mask` itself when no ragged loop is involved, else a bool tensor of the access's rank.

    Raises:
        exc.InvalidAPIUsage: which dimensions the row lengths run over is not known.
    """
    ragged = [tile for tile in active if tile.lengths is not None]
    if not ragged:
        return mask
    axes = axes_of_index(tensor.shape, index)
    for tile in ragged:
        if tile.axis not in axes:
            continue
        assert tile.lengths is not None
        rows = axes_of(tile.lengths)
        if None in rows:
            raise exc.InvalidAPIUsage(
                "hl.jagged_tile: the dimensions of the row lengths are not those of a tile",
                fix="compute the lengths elementwise from values loaded with a tile.",
            )
        if not all(axis in axes for axis in rows):
            continue
        inside = _inside(tile, rows, axes)
        mask = inside if mask is None or mask is True else inside & mask
    return mask


def _inside(tile: EagerTile, rows: Sequence[Any], axes: list[Any]) -> torch.Tensor:
    """Whether each element of an access with these axes lies inside its row, size 1 in other dimensions."""
    lengths = tile.lengths
    assert lengths is not None
    base = tile.base
    positions = torch.arange(int(base.begin), int(base.end), device=lengths.device)
    shape = [1] * len(axes)
    shape[axes.index(tile.axis)] = len(positions)
    order = sorted(range(len(rows)), key=lambda dim: axes.index(rows[dim]))
    placed = [1] * len(axes)
    for dim in order:
        placed[axes.index(rows[dim])] = lengths.shape[dim]
    return positions.reshape(shape) < lengths.permute(order).reshape(placed)
