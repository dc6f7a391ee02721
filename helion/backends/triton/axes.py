"""Ranges: where the current tile of an axis is, its indices and masks, and those of whole dimensions.

They are defined at the head of the block they belong to, when something first uses them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import torch
import torch.fx

from ..._compat_sympy import FloorDiv
from ...ir.device_ir import Axis
from ...ir.device_ir import AxisKind
from ...ir.device_ir import BlockSize
from ...ir.device_ir import DeviceIR
from ...ir.facts import Facts
from ...ir.names import Names
from ...ir.symbols import Origin
from ...ir.symbols import OriginKind
from ...ir.symbols import evaluated
from ...ir.symbols import expr_of
from ...ir.symbols import symbols_of
from ..text import Text
from ..text import as_text
from ..text import call
from .extents import Extents
from .schedule import Schedule
from .scope import Scope


class Axes:
    """The ranges of one function.

    Args:
        ir: the specialization.
        schedule: says which tiles may be partial.
        names, number, block, extents: the function's: gives names; text of a number and of a block size; extents.
        top: its outermost block.

    Attributes:
        wide: indices are int64.
        bounds: id of a bound's FakeTensor -> its text.
        flat_mask: which elements of a flattened loop exist.
    """

    def __init__(
        self,
        ir: DeviceIR,
        facts: Facts,
        schedule: Schedule,
        names: Names,
        number: Callable[[Any], Text],
        block: Callable[[BlockSize], Text],
        extents: Extents,
        top: Scope,
    ) -> None:
        self.wide = ir.space.index_dtype is torch.int64
        self.bounds: dict[int, Text] = {}
        self.flat_mask: Text | None = None
        self._space, self._facts = ir.space, facts
        self._schedule, self._names, self._extents, self._top = schedule, names, extents, top
        self._number, self._block = number, block
        self._scopes: dict[int, Scope] = {}
        self._given: dict[tuple[int, str], str] = {}

    # -- names -------------------------------------------------------------------------------------------------

    def name(self, axis: Axis, prefix: str) -> str:
        """`offset_m`, `index_m`, `mask_m`, ... for an axis named tile_m."""
        if (axis.id, prefix) not in self._given:
            suffix = axis.name.removeprefix("tile_")
            wanted = f"{prefix}{axis.id if suffix == 'tile' else suffix}"
            if prefix == "offset_" and axis.kind is AxisKind.GRID:
                wanted = axis.name
            self._given[axis.id, prefix] = self._names.unique(wanted)
        return self._given[axis.id, prefix]

    def _part_name(self, axis: Axis, prefix: str) -> str:
        part = self._extents.part
        return self.name(axis, prefix if part is None or axis is not part.axis else f"part{part.index}_{prefix}")

    def open(self, axis: Axis, scope: Scope) -> None:
        """From here on `offset_*` of the axis is a variable of `scope`."""
        self._scopes[axis.id] = scope

    def is_open(self, axis: Axis) -> bool:
        """Whether an axis has had a tile."""
        return axis.id in self._scopes

    # -- tiles -------------------------------------------------------------------------------------------------

    def block(self, axis: Axis) -> Text:
        """How many elements a tile covers."""
        return self._block(axis.block)

    def bound(self, bound: Any) -> Text:
        """The begin or end of a range."""
        return self.bounds[id(bound)] if isinstance(bound, torch.Tensor) else self._number(bound)

    def place(self, origin: Origin) -> Text:
        """A symbol that is about a tile's place."""
        axis = self._space.axes[origin.index]
        if origin.kind is OriginKind.TILE_BEGIN:
            return self.offset(axis)
        return self.clipped_end(axis) if origin.kind is OriginKind.TILE_END else self.tile_id(axis)

    def offset(self, axis: Axis) -> Text:
        """First index of the current tile."""
        return Text(self.name(axis, "offset_"))

    def start(self, axis: Axis) -> Text:
        """First index of the current tile, or of the part of it that is being done."""
        part, offset = self._extents.part, self.offset(axis)
        if part is None or axis is not part.axis or part.index == 0:
            return offset
        return offset + Text(str(part.index)) * self.block(axis) // part.count

    def clipped_end(self, axis: Axis) -> Text:
        """End of the current tile, inside the range."""
        text = call("tl.minimum", self.offset(axis) + self.block(axis), self.bound(axis.end))
        return self._scopes[axis.id].define(self.name(axis, "end_"), text)

    def tile_id(self, axis: Axis) -> Text:
        """Number of the current tile."""
        offset, begin = self.offset(axis), self.bound(axis.begin)
        from_begin = offset if begin.number == 0 else offset - begin
        return self._scopes[axis.id].define(self.name(axis, "id_"), from_begin // self.block(axis))

    def lanes(self, extent: Text | int) -> Text:
        """The numbers from 0 to below an extent."""
        lanes = call("tl.arange", 0, extent)
        return lanes.to("tl.int64") if self.wide else lanes

    def index(self, axis: Axis) -> Text:
        """Indices of the current tile: a 1-d tensor."""
        if axis in self._extents.flat:
            return Text(self.name(axis, "index_"))
        if axis.kind is AxisKind.GRID:
            return self.offset(axis)
        text = self.start(axis) + self.lanes(self._extents(axis.block.var))
        return self._scopes[axis.id].define(self._part_name(axis, "index_"), text)

    def mask(self, axis: Axis | None) -> Text | None:
        """Which indices of the current tile are inside the range; None when all are."""
        if axis is None or not self._schedule.needs_mask(axis):
            return None
        flat = self._extents.flat
        if axis in flat:
            return self.flat_mask if axis is flat[0] else None
        text = self.index(axis) < self.bound(axis.end)
        return self._scopes[axis.id].define(self._part_name(axis, "mask_"), text)

    # -- whole dimensions --------------------------------------------------------------------------------------

    def whole_range(self, size: Any) -> Text:
        """Indices of a whole dimension, defined once at the top of the kernel."""
        return self.range_of(self._extents(size))

    def range_of(self, extent: Text | int) -> Text:
        """Indices of so many elements, a power of two, defined there too."""
        return self._top.share(f"range_{extent}", self.lanes(extent))

    def whole_mask(self, size: Any) -> Text | None:
        """Which indices of a whole dimension exist; None when its size is the extent."""
        if self._extents.is_whole(size):
            return None
        text = self._number(size)
        return self._top.share(f"mask_{re.sub(r'[^a-zA-Z0-9]', '_', str(text))}", self.whole_range(size) < text)

    def dim_mask(self, node: torch.fx.Node, dim: int) -> Text | None:
        """Mask (1-d) of a value's dimension, None when it has no padding."""
        size = node.meta["val"].shape[dim]
        if isinstance(size, int):
            return None if size == 1 else self.whole_mask(size)
        if self._space.block_of(size) is not None:
            return self.mask(self._facts.axes_of(node)[dim])
        return self.whole_mask(size) if self.is_of_host(size) else self._derived_mask(size)

    def is_of_host(self, size: torch.SymInt) -> bool:
        """Whether a size is of a buffer as the host made it: one of so many tiles (`n // block`) is made of no tile."""
        expr = expr_of(size)
        if self._space.is_host_value(size):
            return True
        blocks = {block.symbol for block in self._space.blocks}
        by_blocks = any(not blocks.isdisjoint(part.args[1].free_symbols) for part in expr.atoms(FloorDiv))
        return by_blocks or (expr not in self._facts.merged and not isinstance(self._schedule.size(size), int))

    def _derived_mask(self, size: Any) -> Text | None:
        """Mask of a dimension that is made of tiles' and others: what full tiles have, or of tiles that end early the
        elements that are of theirs. Whoever needs a mask asks `KernelEmitter.check_derived` where there is none."""
        merged = self._facts.merged.get(expr_of(size))
        axes = [axis for axis in self._space.axes if self.is_open(axis) and axis.block.symbol in symbols_of(size)]
        partial = [axis for axis in axes if self._schedule.needs_mask(axis)]
        lanes = self.whole_range(size)
        full, extent = self._schedule.size(size), self._extents.known(size)
        exist = (
            (f"mask_{full}_of_{extent}", lanes < as_text(full)) if isinstance(full, int) and full != extent else None
        )
        if not partial or self._extents.part is not None:
            return self._top.share(*exist) if exist is not None else None
        blocks = [axis.block.symbol for axis in axes]
        known = merged is not None and all(
            axis.block.symbol in merged and axis.kind is AxisKind.TILE for axis in partial
        )
        if merged is None and len(axes) == 1 and axes[0].kind is AxisKind.TILE:
            return self._mask_of_slice(size, axes[0])
        if merged is None or not known or len(set(blocks)) < len(blocks):
            return None
        masks = []
        for axis in partial:
            after = evaluated(merged[axis.block.symbol], self._schedule.constants)
            name, count = f"mask_{after}_", self.clipped_end(axis) - self.offset(axis)
            if evaluated(merged[axis.block.symbol] * axis.block.symbol, self._schedule.constants) == full:
                inside = lanes < count * as_text(int(after))  # its elements are in order
            else:
                name, block = f"{name}of_{full}_", self._extents(axis.block.var)
                inside = (lanes if after == 1 else lanes // as_text(int(after))) % block < count
                masks += [self._top.share(*exist)] if exist is not None else []
            masks.append(self._scopes[axis.id].define(self.name(axis, name), inside))
        return functools.reduce(Text.__and__, dict.fromkeys(masks))

    def _gapped(self, size: Any) -> list[tuple[int, int, Axis]] | None:
        """Of a dimension that is made of several the partial tiles that are not its first, as padding of theirs stands
        between elements, from the outermost: lanes from one element of the tile to the next, block size and axis. None
        where that is not known.
        """
        if isinstance(size, int) or self._space.block_of(size) is not None or self.is_of_host(size):
            return []
        axes = [axis for axis in self._space.axes if self.is_open(axis) and axis.block.symbol in symbols_of(size)]
        partial = [axis for axis in axes if self._schedule.needs_mask(axis)]
        merged = self._facts.merged.get(expr_of(size)) or {}
        if not partial or (not merged and len(axes) == 1 and self._mask_of_slice(size, axes[0]) is not None):
            return []
        if self._derived_mask(size) is None:
            return None
        found = []
        for axis in partial:
            block = axis.block.symbol
            stride, length = (evaluated(e, self._schedule.constants) for e in (merged[block], block))
            if stride * length != self._schedule.size(size):
                found.append((int(stride), int(length), axis))
        return sorted(found, key=lambda item: item[0], reverse=True)

    def has_gaps(self, size: Any) -> bool:
        """Whether padding of a dimension may stand between its elements, and not only behind them."""
        return self._gapped(size) != []

    def positions(self, size: Any) -> Text | None:
        """What number each lane of a dimension has among its elements; None where that is not known."""
        gapped = self._gapped(size)
        if gapped is None:
            return None
        rest: Text = call("tl.arange", 0, self._extents(size))
        found, outer = as_text(0), self._extents.known(size)
        for stride, block, axis in gapped:
            number = rest // as_text(stride)
            count = self.clipped_end(axis) - self.offset(axis)
            found = found * as_text(outer // (block * stride)) + number // as_text(block)
            found = found * count + number % as_text(block)
            rest, outer = rest % as_text(stride), stride
        return found * as_text(outer) + rest if gapped else rest

    def _mask_of_slice(self, size: Any, axis: Axis) -> Text | None:
        """Mask of a dimension as long as a slice by a tile's block size, `t.begin : t.begin + 2 * t.block_size + 1`."""
        length, block = expr_of(size), axis.block.symbol
        times = length.coeff(block, 1)
        more = evaluated(length - times * block, self._schedule.constants)
        times = evaluated(times, self._schedule.constants)
        if not (times.is_Integer and more.is_Integer and times > 0):
            return None  # another function of the block size: `t.block_size // 2`
        count = (self.clipped_end(axis) - self.offset(axis)) * as_text(int(times)) + as_text(int(more))
        inside = self.whole_range(size) < count
        name = f"mask_{times}_{more}_".replace("-", "less_")
        return self._scopes[axis.id].define(self.name(axis, name), inside)


def along(text: Text, dim: int, rank: int) -> Text:
    """A 1-d value placed at dimension `dim` of `rank`."""
    return spread(text, dim, 1, rank)


def spread(text: Text, first: int, count: int, rank: int) -> Text:
    """A value of `count` dimensions placed at dimensions `first`... of `rank`."""
    if count >= rank:
        return text
    return text.at(", ".join(":" if first <= i < first + count else "None" for i in range(rank)))
