"""What traced accesses show about dimensions of size 1 (`language.broadcasts`)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import torch

from ..language.broadcasts import Use
from ..language.indexing import normalize_index
from ..language.op import Access

if TYPE_CHECKING:
    from .tracer import Tracer


def note_broadcasts(tracer: Tracer, access: Access, args: tuple[Any, ...], bounded: tuple[int, ...]) -> None:
    """Take notice of the dimensions that tiles index in an access without a mask.

    Args:
        args: the access's arguments.
        bounded: dimensions that a tile's range may leave.

    Raises:
        exc.ShapeMismatch: a dimension of size 1 of which it is not clear whether it broadcasts.
    """
    tensor, space = args[0], tracer.env.space
    for item in normalize_index(tensor.shape, args[access.index_at], "indexing"):
        if item.kind != "tile" or not isinstance(item.value.offset, int) or item.value.offset != 0:
            continue
        axis = item.value.axis
        begin, end = (None if isinstance(b, torch.Tensor) else space.hint(b) for b in (axis.begin, axis.end))
        size = space.hint(tensor.shape[item.dim])
        if begin is None or end is None or not size:
            continue  # a range of what is in memory, or of another tile
        name = tracer.name_of_host_tensor(tensor) or "tensor"
        site = (tracer.location, *tracer.call_sites)
        shorter = item.dim in bounded and 1 < size < end
        tracer.broadcasts.note(axis, Use(name, item.dim, axis.name, item.repeats, shorter, site))
