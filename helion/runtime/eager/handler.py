"""What eager modes share: running an op's eager rule on real tensors.

`EagerHandler` answers the language's calls with real values.  Ref mode (`ref_mode`) drives it from the
user's own function, the tile executor (`tile_executor`) from the device IR.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import torch

from ... import exc
from ...language.eager_tile import EagerInt
from ...language.eager_tile import EagerTile
from ...language.eager_tile import extent_of
from ...language.op import Handler
from ...language.op import LoopRanges
from ...language.op import Op
from ...language.tile import Tile


class EagerHandler(Handler):
    """Runs eager rules; loops and registrations are left to subclasses.

    Args:
        device: where the kernel's tensors live.
        index_dtype: dtype of `tile.index` and `hl.arange`.
    """

    def __init__(self, device: torch.device, index_dtype: torch.dtype = torch.int32) -> None:
        self.device = device
        self.index_dtype = index_dtype

    def call_op(self, op: Op, args: tuple[Any, ...]) -> Any:
        return op.eager_rule(*args)

    def _not_here(self, name: str) -> exc.BaseError:
        return exc.InternalError(reason=f"{name} reached the eager handler")

    def tile(self, ranges: LoopRanges) -> Iterable[Any]:
        raise self._not_here("hl.tile")

    def grid(self, ranges: LoopRanges) -> Iterable[Any]:
        raise self._not_here("hl.grid")

    def jagged_tile(self, lengths: torch.Tensor, block_size: Any) -> Iterable[Tile]:
        raise self._not_here("hl.jagged_tile")

    def static_range(self, begin: int, end: int, step: int) -> Iterable[int]:
        return range(begin, end, step)

    def register_block_size(self, low: int, high: Any) -> Any:
        raise self._not_here("hl.register_block_size")

    def register_tunable(self, name: str, fragment: Any) -> Any:
        raise self._not_here("hl.register_tunable")

    def specialize(self, value: Any) -> Any:
        return value

    def barrier(self) -> None:
        return None

    def extents(self, sizes: Sequence[Any]) -> list[int]:
        return [extent_of(size) for size in sizes]

    def tile_of_size(self, size: Any) -> Tile | None:
        source = size.source if isinstance(size, EagerInt) else None
        return source if isinstance(source, EagerTile) else None

    def is_device_value(self, tensor: torch.Tensor) -> bool:
        return False

    def torch_seed(self) -> Any:
        raise self._not_here("torch.rand")

    def iterations(self, tiles: Sequence[Tile]) -> list[Any]:
        raise self._not_here("torch.rand")


def iterate_tiles(
    axes: list[Any], begins: list[int], ends: list[int], blocks: list[int]
) -> Iterator[tuple[EagerTile, ...]]:
    """All tiles of a loop over several dimensions, the last dimension fastest.

    Args:
        axes: identity of each dimension, see `EagerTile`.
        begins, ends: bounds of each dimension.
        blocks: nominal tile size of each dimension.
    """
    axis, begin, end, block = axes[0], begins[0], ends[0], blocks[0]
    for start in range(begin, end, block):
        tile = EagerTile(axis, start, min(start + block, end), block, begin, end)
        if len(axes) == 1:
            yield (tile,)
            continue
        for rest in iterate_tiles(axes[1:], begins[1:], ends[1:], blocks[1:]):
            yield (tile, *rest)
