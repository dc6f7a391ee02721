"""What accesses in ref mode show about dimensions of size 1 (`language.broadcasts`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from ...language.broadcasts import Broadcasts
from ...language.broadcasts import Use
from ...language.eager_tile import EagerTile
from ...language.indexing import normalize_index
from ...language.op import Access
from ..reads import check_read
from .torch_mode import call_sites
from .torch_mode import name_of


@dataclasses.dataclass(eq=False)
class LoopAxis:
    """The identity of a dimension of a loop.

    Attributes:
        known: its bounds are numbers of the host.
        is_one: the kernel gives 1 for its block size.
    """

    known: bool
    is_one: bool = False


def note_broadcasts(
    known: Broadcasts, access: Access, args: tuple[Any, ...], selected: Mapping[int, torch.Tensor]
) -> None:
    """Take notice of the dimensions that tiles index in an access without a mask.

    Args:
        selected: host tensors whose sizes follow from values (see `selections`).

    Raises:
        exc.InvalidAPIUsage: such a tensor is shorter than the loop, which a compiled kernel is not for.
        exc.ShapeMismatch: a dimension of size 1 of which it is not clear whether it broadcasts.
    """
    tensor = args[0]
    if not isinstance(tensor, torch.Tensor) or args[access.mask_at] is not None:
        return
    for item in normalize_index(tensor.shape, args[access.index_at], "indexing"):
        tile, size = item.value, tensor.shape[item.dim] if item.kind == "tile" else 0
        if not isinstance(tile, EagerTile) or int(tile.offset) != 0:
            continue
        if not isinstance(tile.axis, LoopAxis) or not tile.axis.known:
            continue  # a range of what is in memory, or of another tile
        if id(tensor) in selected and size < int(tile.range_end):
            check_read(False, f"{name_of(tensor)}.size({item.dim}) >= {int(tile.range_end)}")
        if size == 0:
            continue
        shorter = 1 < size < int(tile.range_end)
        named = name_of(tensor), item.dim, name_of(tile, "tile")
        known.note(tile.axis, Use(*named, item.repeats, shorter, call_sites()))
