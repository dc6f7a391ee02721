"""Masks of `hl.jagged_tile`, written into the IR as the `extra_mask` of each access.

An access whose shape has both the dimensions of the row lengths and the ragged dimension only touches
elements inside their row.  Nothing after the front end knows about ragged loops.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..ir.device_ir import Axis
from ..ir.device_ir import TracedTile
from ..language.indexing import indexed_shape
from ..language.op import Op
from ..language.shapes import same_size


def with_ragged_mask(op: Op, args: tuple[Any, ...], axes: Sequence[Axis]) -> tuple[Any, ...]:
    """The arguments of a memory op with its `extra_mask` narrowed to rows.

    Args:
        op: a load, store or atomic.
        args: its arguments in signature order.
        axes: all loop axes so far; the ragged ones have `lengths`.
    """
    ragged = [axis for axis in axes if axis.lengths is not None]
    if not ragged:
        return args
    assert op.access is not None
    at = op.access.mask_at
    mask = args[at]
    shape = indexed_shape(args[0], args[op.access.index_at], op.name)
    for axis in ragged:
        inside = _inside(axis, shape)
        if inside is not None:
            mask = inside if mask is None else inside & mask
    return (*args[:at], mask, *args[at + 1 :])


def _inside(axis: Axis, shape: Sequence[Any]) -> torch.Tensor | None:
    """Whether each element of an access of `shape` lies inside its row; None when the access is not by rows."""
    lengths: torch.Tensor = axis.lengths
    columns = _place(axis.block.var, shape)
    rows = [_place(size, shape) for size in lengths.shape]
    if columns is None or None in rows:
        return None
    places = [place for place in rows if place is not None]
    order = sorted(range(len(places)), key=places.__getitem__)
    bound = lengths.permute(order) if order != sorted(order) else lengths
    return _spread(TracedTile(axis).index, [columns], len(shape)) < _spread(bound, sorted(places), len(shape))


def _place(size: Any, shape: Sequence[Any]) -> int | None:
    return next((i for i, s in enumerate(shape) if same_size(s, size)), None)


def _spread(value: torch.Tensor, places: list[int], rank: int) -> torch.Tensor:
    """`value` with its dimensions at `places` of a shape of `rank` dimensions, size 1 elsewhere."""
    for place in range(rank):
        if place not in places:
            value = value.unsqueeze(place)
    return value
