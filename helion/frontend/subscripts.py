"""How a trace moves the elements of device values that are indexed: what `language.subscripts` asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import torch

from .. import exc
from ..ir.symbols import symbols_of
from ..language.shapes import constant_fix
from ..language.subscripts import of_a_tile
from ..language.windows import lanes_of_window
from . import rearranging
from .outer_index import TracedLanes
from .rearranging import placed
from .rearranging import take

if TYPE_CHECKING:
    from .tracer import Tracer


class TracedMoves:
    """Moves that are recorded.

    Args:
        tracer: records them.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._lanes = TracedLanes(tracer)

    def check_constant(self, x: torch.Tensor, dim: int) -> None:
        size = x.size(dim)
        if not symbols_of(size):
            return
        if not self._tracer.env.space.is_host_value(size):
            raise of_a_tile(dim)
        raise exc.InvalidAPIUsage(
            f"dimension {dim} of this device value has a size that varies from call to call, so no part can be taken",
            fix=constant_fix(size, "index the host tensor, or make its size constant with hl.specialize."),
        )

    def select(self, x: torch.Tensor, dim: int, index: Any) -> torch.Tensor:
        return rearranging.select(x, dim, index)

    def stretch(self, x: torch.Tensor, dim: int, start: int, length: int, step: int) -> torch.Tensor:
        return rearranging.stretch(x, dim, start, start + length * step, step)

    def window(self, x: torch.Tensor, dim: int, item: slice) -> torch.Tensor:
        n = int(x.size(dim))
        places, inside = lanes_of_window(item, n, self._lanes, "a device value")
        if inside is None:
            return take(x, places, dim)
        found = take(x, torch.clamp(places, 0, max(n - 1, 0)), dim)
        return torch.where(placed(inside, dim, x.dim()), found, torch.zeros((), dtype=x.dtype))

    def gather(self, x: torch.Tensor, places: Sequence[torch.Tensor | None]) -> torch.Tensor:
        return rearranging.index(x, places)
