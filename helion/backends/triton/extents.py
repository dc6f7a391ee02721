"""Extents: how many elements a dimension has in generated code, a constant power of two."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from ...ir.block_sizes import largest_size
from ...ir.device_ir import Axis
from ...ir.device_ir import BlockSize
from ...numbers import next_power_of_2
from ..text import Text
from ..text import as_text
from ..text import listed
from ..text import product
from .numbers import Numbers
from .schedule import Schedule


@dataclasses.dataclass(frozen=True)
class Part:
    """One of `count` parts of an axis' tile, which are done one after the other."""

    axis: Axis
    index: int
    count: int


class Sizes:
    """How many elements dimensions have in generated code.

    Args:
        schedule: gives block sizes their values.
        block_of: the block that a symbolic size is, None for others.
        is_of_blocks: whether a symbolic size is made of block sizes.
        minimum: sizes of whole dimensions that must be padded further (operands of tl.dot).
        flat: axes that are one dimension; none where no loop is flattened.

    Attributes:
        schedule, flat: as given.
    """

    def __init__(
        self,
        schedule: Schedule,
        block_of: Callable[[Any], BlockSize | None],
        is_of_blocks: Callable[[Any], bool],
        minimum: Mapping[Any, int],
        flat: Sequence[Axis] = (),
    ) -> None:
        self.schedule, self.flat = schedule, flat
        self._block_of, self._is_of_blocks, self._minimum = block_of, is_of_blocks, minimum

    def known(self, size: Any) -> int:
        """The extent as a number. A dynamic size stands for its bucket (a guard holds it)."""
        if isinstance(size, int):
            return self.padded(size)
        resolved = self.schedule.size(size)
        if not isinstance(resolved, int):
            # The hint of what the Config has a part in is of stand-ins for the Config's numbers.
            space = self.schedule.device.space
            known = space.is_host_value(size)
            return self.padded(size.node.hint if known else largest_size(space, size, self.schedule.constants))
        if self._block_of(size) is not None:
            return resolved
        # What block sizes make is no whole dimension: tl.dot's operands are padded on their way. A host's size is one.
        return next_power_of_2(resolved) if self._is_of_blocks(size) else self.padded(resolved)

    def padded(self, n: int) -> int:
        """The power of two a dimension of constant size is padded to."""
        return max(next_power_of_2(n), self._minimum.get(n, 1))

    def is_whole(self, size: Any) -> bool:
        """Whether a dimension is as long as its extent."""
        resolved = self.schedule.size(size)
        return isinstance(resolved, int) and resolved == self.known(size)


class Extents(Sizes):
    """Sizes as text.

    Args:
        sizes: what the text is of.
        numbers: gives block sizes their names.

    Attributes:
        part: what of a tile is done now; None for all of it.
    """

    def __init__(self, sizes: Sizes, numbers: Numbers) -> None:
        super().__init__(sizes.schedule, sizes._block_of, sizes._is_of_blocks, sizes._minimum, sizes.flat)
        self.part: Part | None = None
        self._numbers = numbers

    def __call__(self, size: Any) -> Text:
        """The extent of a dimension."""
        block = None if isinstance(size, int) else self._block_of(size)
        if block is None:
            return as_text(self.known(size))
        whole = self._numbers.block(block)
        part = self.part
        return whole // part.count if part is not None and block is part.axis.block else whole

    def shape(self, sizes: Sequence[Any]) -> Text:
        """The extents of a value's dimensions; one where its loop is flattened."""
        extents = list(map(self, sizes))
        return listed([product(extents)] if self.flat and len(sizes) == len(self.flat) else extents)

    @contextlib.contextmanager
    def part_of(self, part: Part) -> Iterator[None]:
        """In a `with` block, indices, masks and extents of an axis are those of a part of its tile."""
        self.part = part
        try:
            yield
        finally:
            self.part = None
