"""Tiles and integers of eager modes: real bounds, clipped at the end of the range.

The last tile of a range has `end - begin` elements in eager modes, on a GPU always `block_size` (masked).
So a block size means two numbers: the nominal size in arithmetic (`tile.begin // tile.block_size`), the
clipped extent in shapes (`torch.zeros([tile.block_size])`).  `EagerInt` carries both.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from .tile import Tile


class EagerInt(int):
    """An integer of device code that is not a Python constant: a tile's bound, a grid index, a block size.

    Arithmetic with it gives an `EagerInt` again.  Its value is the nominal one; `extent()` is what it stands
    for in a shape.
    """

    _extent: Callable[[], int] | None
    #: What this is the block size of: an `EagerTile`, or a handler's record of a registered size; else None.
    source: Any

    def __new__(cls, value: int, extent: Callable[[], int] | None = None, source: Any = None) -> EagerInt:
        self = super().__new__(cls, value)
        self._extent = extent
        self.source = source
        return self

    def extent(self) -> int:
        """The number of elements a dimension of this size has right now."""
        return int(self) if self._extent is None else self._extent()

    def __reduce__(self) -> tuple[Any, ...]:
        return (int, (int(self),))

    # `list[tile.block_size]`, `range(...)` and torch's size arguments see the nominal value through
    # __index__; handlers replace sizes by extents before torch sees them.


def extent_of(size: Any) -> int:
    """The size of a dimension given by an element of a shape: a tile, an `EagerInt` or an int."""
    if isinstance(size, EagerTile):
        return size.extent
    if isinstance(size, EagerInt):
        return size.extent()
    return int(size)


def is_length_of_tile(size: Any) -> bool:
    """Whether a tile's block size has a part in a size, but is not all of it: the last tile's is shorter."""
    return isinstance(size, EagerInt) and size.source is None and size._extent is not None


def _combined(name: str, left: int, right: int) -> Any:
    function: Callable[[Any, Any], Any] = getattr(operator, name)
    value = function(int(left), int(right))
    if not isinstance(value, int):
        return value
    if getattr(left, "_extent", None) is None and getattr(right, "_extent", None) is None:
        return EagerInt(value)
    return EagerInt(value, lambda: function(extent_of(left), extent_of(right)))


def _install_arithmetic() -> None:
    def forward(name: str) -> Callable[[Any, Any], Any]:
        def method(self: int, other: Any) -> Any:
            return _combined(name, self, other) if isinstance(other, int) else NotImplemented

        return method

    def reflected(name: str) -> Callable[[Any, Any], Any]:
        def method(self: int, other: Any) -> Any:
            return _combined(name, other, self) if isinstance(other, int) else NotImplemented

        return method

    for name in ("add", "sub", "mul", "floordiv", "mod", "lshift", "rshift"):
        setattr(EagerInt, f"__{name}__", forward(name))
        setattr(EagerInt, f"__r{name}__", reflected(name))
    setattr(EagerInt, "__neg__", lambda self: _combined("sub", 0, self))  # noqa: B010 - beside its siblings


_install_arithmetic()


class EagerTile(Tile):
    """A tile with real bounds.

    Args:
        axis: identity of the loop dimension, the same for all tiles of one loop (any object).
        begin, end: bounds, clipped at the end of the range.
        block_size: nominal size; its extent is this tile's.
        range_begin, range_end: bounds of the loop.
        offset: what was added to the loop variable.
    """

    def __init__(
        self, axis: Any, begin: int, end: int, block_size: int, range_begin: int, range_end: int, offset: int = 0
    ) -> None:
        self.axis = axis
        self._begin = begin
        self._end = end
        self._block_size = int(block_size)
        self._range = (range_begin, range_end)
        self._offset = offset

    @property
    def extent(self) -> int:
        """Number of elements of this tile."""
        return self._end - self._begin

    @property
    def begin(self) -> EagerInt:
        return EagerInt(self._begin + self._offset)

    @property
    def end(self) -> EagerInt:
        return EagerInt(self._end + self._offset)

    @property
    def block_size(self) -> EagerInt:
        return EagerInt(self._block_size, lambda: self.extent, source=self)

    @property
    def id(self) -> EagerInt:
        return EagerInt((self._begin - self._range[0]) // self._block_size)

    @property
    def count(self) -> EagerInt:
        return EagerInt(-((self._range[0] - self._range[1]) // self._block_size))

    @property
    def range_begin(self) -> EagerInt:
        return EagerInt(self._range[0])

    @property
    def range_end(self) -> EagerInt:
        return EagerInt(self._range[1])

    @property
    def offset(self) -> int:
        return self._offset

    @property
    def base(self) -> EagerTile:
        return self if self._offset == 0 else self._moved(0)

    def shifted(self, offset: Any) -> EagerTile:
        return self._moved(self._offset + int(offset))

    def _moved(self, offset: int) -> EagerTile:
        tile = EagerTile(self.axis, self._begin, self._end, self._block_size, *self._range, offset)
        tile.lengths = self.lengths
        return tile

    def __index__(self) -> int:
        """The tile's size where torch asks for an integer: `torch.zeros([tile, 4])`, `x.view(tile, -1)`."""
        return self.extent

    def __repr__(self) -> str:
        return f"tile[{int(self.begin)}:{int(self.end)}]"
