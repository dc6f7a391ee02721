"""Block sizes of ref mode: what the Config says for a place in the code, or a size that gives a few tiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from ... import exc
from ...config import Config
from ...language.eager_tile import EagerInt
from ...numbers import next_power_of_2
from .torch_mode import user_frame

#: Without a config a loop has about this many tiles, so that stepping through it sees more than one ...
_TILES_PER_LOOP = 4
#: ... but tiles of at least this many elements.
_SMALLEST_BLOCK = 16

#: A dimension of a loop: file, line, which dimension.
Site = tuple[str, int, int]


class Block:
    """One block size of the kernel: a loop's own, or one of `hl.register_block_size`.

    Args:
        size: what it is.
        is_constant: whether the kernel says so, and not the Config.
    """

    def __init__(self, size: int, is_constant: bool = False) -> None:
        self.size = size
        self.is_one = is_constant and size == 1


class BlockSizes:
    """Those of one run.

    Args:
        config: its `block_sizes` count.
        smallest: for each block size of the Config, what it is at least.
        sites: for each block size of the Config the loop that it is for, None for registered ones; without, they are
            for the loops in the order in which they are met.
    """

    def __init__(self, config: Mapping[str, Any], smallest: Sequence[int], sites: Sequence[Site | None]) -> None:
        self._configured = list(Config(**config).block_sizes)
        self._smallest = smallest
        self._blocks: dict[Any, Block] = {}
        self._tunable_blocks = 0
        # A loop that stands in an unrolled one has several: they take turns.
        self._places: dict[Site | None, list[int]] = {}
        for place, site in enumerate(sites):
            self._places.setdefault(site, []).append(place)
        self._visits: Counter[Site | None] = Counter()

    def of(self, dim: int, given: Any, extent: int) -> Block:
        """The block size of a loop's dimension: given in the loop, or the config's for this place in the code."""
        if given is not None:
            source = given.source if isinstance(given, EagerInt) else None
            return source if isinstance(source, Block) else Block(int(given), not isinstance(given, EagerInt))
        frame = user_frame()
        assert frame is not None
        place = self._next_place((frame.f_code.co_filename, frame.f_lineno, dim))
        key = (frame.f_code, frame.f_lasti, dim) if place is None else place
        if key not in self._blocks:
            self._blocks[key] = Block(self._next_size(1, extent, place))
        return self._blocks[key]

    def registered(self, low: int, high: int) -> Block:
        """A new block size of `hl.register_block_size`."""
        return Block(self._next_size(low, high, self._next_place(None)))

    def _next_place(self, site: Site | None) -> int | None:
        """Where the Config has the size for a loop, or the next registered one; None where the code is not known."""
        places = self._places.get(site)
        if not places:
            return None
        self._visits[site] += 1
        return places[(self._visits[site] - 1) % len(places)]

    def _next_size(self, low: int, extent: int, place: int | None) -> int:
        """The block size of the config at a place, or the next one; without one, a size that gives a few tiles."""
        if place is None:
            place = self._tunable_blocks
            self._tunable_blocks += 1
        low = max([low, *self._smallest[place : place + 1]])
        if place < len(self._configured):
            return max(int(self._configured[place]), next_power_of_2(low))
        if self._configured:
            raise exc.InvalidConfig(
                reason=f"block_sizes={self._configured!r} has no item for this block size, which is number {place + 1}",
                fix="give each tile and each registered block size an item, or leave the key out.",
            )
        return next_power_of_2(max(-(-extent // _TILES_PER_LOOP), _SMALLEST_BLOCK, low))
