"""Whose lanes index vectors have while tracing, and views of them: what `language.outer_index` asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from .. import exc
from ..ir.symbols import expr_of
from ..ir.symbols import symbols_of

if TYPE_CHECKING:
    from .tracer import Tracer


class TracedLanes:
    """Answers by the sizes of vectors, which are those of tiles.

    Args:
        tracer: knows the loops around.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._space = tracer.env.space
        self._around = tracer.axes_around

    def is_single(self, vector: torch.Tensor) -> bool:
        size = vector.shape[0]
        return isinstance(size, int) and size == 1

    def same(self, left: torch.Tensor, right: torch.Tensor) -> bool:
        sizes = left.shape[0], right.shape[0]
        if all(map(self._space.is_host_value, sizes)):
            return True
        named = [self._space.axis_of(size) for size in sizes]
        if None not in named:
            return named[0] is named[1]
        if expr_of(sizes[0]) != expr_of(sizes[1]):
            return False
        symbols = symbols_of(sizes[0])
        if sum(axis.block.symbol in symbols for axis in self._around()) > 1:
            raise exc.InvalidAPIUsage(
                "index vectors of a block size that several tiles share: whose they are is not known",
                fix="add dimensions: `x[rows[:, None], cols[None, :]]` is every row with every column.",
            )
        return True


def arranged(value: torch.Tensor, dims: Sequence[int | None]) -> torch.Tensor:
    """A view with the dimensions of `value` in this order, and new ones."""
    kept = [d for d in dims if d is not None]
    if kept != sorted(kept):
        value = torch.permute(value, kept)
    for place, dim in enumerate(dims):
        if dim is None:
            value = torch.unsqueeze(value, place)
    return value
