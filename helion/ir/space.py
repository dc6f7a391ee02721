"""The iteration space of a kernel: block sizes, loop axes, and what every symbol stands for.

Extents of tiles are symbols: one per `BlockSize`.  An `Axis` is one dimension of one loop; several axes may share a
block size.  The front end adds to a `Space` while it traces and closes it; after that it is a value that backends
and threads share.

Not here: making symbols, which takes the front end's ShapeEnv.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterable
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import sympy
import torch
from torch.fx.experimental.sym_node import SymNode

from .symbols import Origin
from .symbols import symbols_of


@dataclasses.dataclass(eq=False)
class BlockSize:
    """How many elements of an axis one tile covers.

    Attributes:
        id: index into `Space.blocks`.
        symbol: its symbol in tile shapes; `var` is the same as a SymInt.
        name: for generated code and messages, from the loop variable.
        fixed: the size when the kernel gives it (an int or a host SymInt); None: the Config's `block_sizes` does.
        low: smallest size allowed.
        high: largest size allowed, None for no limit of the kernel's own.
        extent: how far the longest axis with this block size goes, when known (a hint under dynamic shapes).
        again: its loop has been met before, in another iteration of an unrolled loop.
        site: file and line of the loop that it was made for, and which of its dimensions; None: of no loop's own.
    """

    id: int
    symbol: sympy.Symbol
    var: torch.SymInt
    name: str
    fixed: int | torch.SymInt | None = None
    low: int = 1
    high: int | None = None
    extent: int | None = None
    again: bool = False
    site: tuple[str, int, int] | None = None

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.name} again" if self.again else self.name


class AxisKind(enum.Enum):
    TILE = "tile"
    GRID = "grid"
    REDUCTION = "reduction"  # made by `ir.reductions` when it turns a whole-dimension reduction into a loop


@dataclasses.dataclass(eq=False)
class Axis:
    """One dimension of one loop.

    Attributes:
        id: index into `Space.axes`.
        block: its block size (1 for an `hl.grid` axis without a step).
        kind: tile, grid or reduction.
        begin, end: bounds; a number, or the fx node / FakeTensor of a 0-d integer tensor in device loops.
        name: from the loop variable, for generated code.
        offset, tile_id, clipped_end: symbols for the first index of the current tile, its number, and the end
            of the tile clipped to the range.
        lengths: for `hl.jagged_tile`, the FakeTensor of the per-row lengths (`frontend.ragged` makes masks of it).

    `size` is the size of its tiles in shapes: the same symbol as `block.var`, but a SymNode of its own, which
    PyTorch hands on from shape to shape. By it `Space.axis_of` tells tiles of one block size apart.
    """

    id: int
    block: BlockSize
    kind: AxisKind
    begin: Any
    end: Any
    name: str
    offset: torch.SymInt
    tile_id: torch.SymInt
    clipped_end: torch.SymInt
    lengths: Any = None
    size: torch.SymInt = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        node = self.block.var.node
        self.size = torch.SymInt(SymNode(node._expr, node.shape_env, int, node.hint))

    @property
    def static_extent(self) -> int | None:
        """Length of the range when it is a compile-time constant."""
        if isinstance(self.begin, int) and isinstance(self.end, int):
            return max(self.end - self.begin, 0)
        return None


class Space:
    """Block sizes, axes and symbols of one kernel.

    Attributes:
        blocks, axes: in the order they were made.
        origins: what each symbol stands for.
        index_dtype: dtype of offsets, `tile.index` and `hl.arange`.
    """

    def __init__(self) -> None:
        self.blocks: tuple[BlockSize, ...] = ()
        self.axes: tuple[Axis, ...] = ()
        self._block_of_symbol: dict[sympy.Expr, BlockSize] = {}
        self._axis_of_size: dict[int, Axis] = {}  # by id of the SymNode, which the axis keeps alive
        self._origins: dict[sympy.Symbol, Origin] = {}
        self.origins: Mapping[sympy.Symbol, Origin] = MappingProxyType(self._origins)
        self.index_dtype = torch.int32
        self._closed = False

    def define(self, symbol: sympy.Symbol, origin: Origin) -> None:
        """Say what a symbol stands for."""
        assert not self._closed, "the IR is closed"
        self._origins[symbol] = origin

    def add_block(self, block: BlockSize) -> None:
        assert not self._closed, "the IR is closed"
        self.blocks = (*self.blocks, block)
        self._block_of_symbol.setdefault(block.symbol, block)

    def add_axis(self, axis: Axis) -> None:
        assert not self._closed, "the IR is closed"
        self.axes = (*self.axes, axis)
        self._axis_of_size[id(axis.size.node)] = axis

    def close(self) -> None:
        """From here on nothing is added."""
        self._closed = True

    @property
    def is_closed(self) -> bool:
        return self._closed

    def block_of(self, size: Any) -> BlockSize | None:
        """The block whose size `size` is, or None."""
        return self._block_of_symbol.get(size.node.expr) if isinstance(size, torch.SymInt) else None

    def axis_of(self, size: Any) -> Axis | None:
        """The axis whose tiles a size is of, as far as the size itself tells: None for `block.var`, or a number."""
        return self._axis_of_size.get(id(size.node)) if isinstance(size, torch.SymInt) else None

    def is_host_value(self, value: Any) -> bool:
        """Whether a number is known on the host (made of constants and host symbols only)."""
        return not self.depends_on_device(value)

    def depends_on_device(self, value: Any) -> bool:
        """Whether a number involves block sizes, tile offsets or other device values."""
        return any(self.origins[s].on_device for s in symbols_of(value) if s in self.origins)

    def made_of(self, symbols: Iterable[sympy.Symbol]) -> set[sympy.Symbol]:
        """Some symbols, and those that they are computed from."""
        found: set[sympy.Symbol] = set()
        open_ = set(symbols)
        while open_:
            found |= open_
            origins = [self.origins[symbol] for symbol in open_ if symbol in self.origins]
            open_ = {part for origin in origins for arg in origin.args for part in arg.free_symbols} - found
        return found

    def written_out(self, expr: sympy.Expr) -> sympy.Expr:
        """An expression with each number that only stands for one (`Environment.sized`) replaced by what that is."""
        origins = {symbol: origin for symbol in expr.free_symbols if (origin := self.origins.get(symbol)) is not None}
        named = {
            symbol: origin.args[0] for symbol, origin in origins.items() if origin.args and origin.function is None
        }
        return expr.xreplace(named) if named else expr

    def hint(self, value: Any) -> int | None:
        """The value a host number has in the traced call, None for device values."""
        if isinstance(value, bool):
            return None
        if isinstance(value, int):
            return value
        if isinstance(value, torch.SymInt) and self.is_host_value(value):
            return int(value.node.hint)
        return None

    def constant_text(self, number: Any) -> str | None:
        """What makes a number a constant, as host code; None where that does not follow from arguments alone."""
        origins = [self.origins.get(symbol) for symbol in sorted(symbols_of(number), key=str)]
        known = [origin for origin in origins if origin is not None and not origin.on_device and not origin.args]
        if not known or len(known) != len(origins):
            return None
        return "; ".join(f"hl.specialize({origin.text})" for origin in known)

    def readable(self, text: str) -> str:
        """A message with symbols replaced by what the user calls them: a loop's name, `x.size(0)`."""
        names = {str(symbol): origin.host_text(str) for symbol, origin in self.origins.items() if origin.text}
        names.update((str(block.symbol), block.name) for block in self.blocks)
        for axis in self.axes:
            begin = axis.name if axis.kind is AxisKind.GRID else f"{axis.name}.begin"
            names.update({str(axis.offset): begin, str(axis.clipped_end): f"{axis.name}.end"})
        return re.sub(r"\b[a-z]+\d+\b", lambda match: names.get(match[0], match[0]), text)
