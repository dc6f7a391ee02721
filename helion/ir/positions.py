"""Which element each index of a loop names, where an index tensor follows from the loop's own positions alone.

Worked out with the numbers of the traced call, so that two accesses can be compared element by element.  Not here:
indices that are loaded, of which nothing is known while compiling.
"""

from __future__ import annotations

from typing import Any

import sympy
import torch
import torch.fx
from torch.utils import _pytree as pytree

from .device_ir import Axis
from .device_ir import AxisKind
from .device_ir import DeviceIR
from .device_ir import TracedTile
from .nodes import Full
from .nodes import Load
from .nodes import Store
from .nodes import TileIndex
from .nodes import tensor_of
from .pointwise import POINTWISE
from .symbols import expr_of

#: Longest range whose indices are looked at one by one.
_MOST = 1 << 16
_aten = torch.ops.aten
VIEWS = frozenset({_aten.unsqueeze.default, _aten.expand.default, _aten.squeeze.dims, _aten.view.default})


class _Unknown(Exception):
    """It does not follow from positions alone."""


class Positions:
    """Values along one axis of a loop, one for each of its indices.

    Args:
        ir: the graphs.
        axis: the axis; its range is that of the traced call.
    """

    def __init__(self, ir: DeviceIR, axis: Axis) -> None:
        self._ir, self._axis = ir, axis
        begin, end = ir.space.hint(axis.begin), ir.space.hint(axis.end)
        known = begin is not None and end is not None and 0 < end - begin <= _MOST
        self._indices = torch.arange(begin or 0, end or 0) if known else torch.arange(0)

    def clash(
        self, load: Load | Store, read: Any, store: Store, written: Any, any_tile: bool = False
    ) -> tuple[int, int, int] | None:
        """An index that reads an element which one of another tile stores.

        Args:
            load: reads at the index element ``read``; or another store.
            store: writes at the index element ``written`` of the same dimension.
            any_tile: one of the same tile will do.

        Returns:
            The index that reads, the one that stores, and the element; None if there is none, or that is unknown.
        """
        if not len(self._indices):
            return None
        try:
            reads, writes = self._of(read), self._of(written)
            read_by, written_by = self._mask(load), self._mask(store)
        except _Unknown:
            return None
        if (
            not (bool(read_by.any()) and bool(written_by.any()))
            or reads.max() < writes.min()
            or writes.max() < reads.min()
        ):
            return None
        first = int(self._indices[0])
        # One place of each tile will do: a second tile is one too many.
        stored: dict[int, dict[int, int]] = {}
        for place in torch.nonzero(written_by).flatten().tolist():
            stored.setdefault(int(writes[place]), {}).setdefault(self._tile(place), place)
        for place in torch.nonzero(read_by).flatten().tolist():
            element = int(reads[place])
            for tile, other in stored.get(element, {}).items():
                if any_tile or tile != self._tile(place):
                    return first + place, first + other, element
        return None

    def of(self, node: torch.fx.Node) -> torch.Tensor | None:
        """What an index tensor holds at each index of the axis; None where that is unknown."""
        try:
            return self._of(node) if len(self._indices) else None
        except _Unknown:
            return None

    def _tile(self, place: int) -> int:
        """The tile that has an index, with the smallest blocks that a Config may choose."""
        if self._axis.kind is not AxisKind.TILE:
            return place
        block = self._axis.block
        return place // (block.fixed if isinstance(block.fixed, int) else block.low)

    def _mask(self, access: Load | Store) -> torch.Tensor:
        if access.extra_mask is None:
            return torch.ones_like(self._indices, dtype=torch.bool)
        return self._of(access.extra_mask).bool()

    def _of(self, value: Any) -> torch.Tensor:
        found = self._evaluate(value)
        if not isinstance(found, torch.Tensor) or found.shape != self._indices.shape:
            raise _Unknown
        return found

    def _evaluate(self, value: Any) -> Any:
        if isinstance(value, TracedTile):
            shift = self._ir.space.hint(value.offset)
            if value.axis is not self._axis or shift is None:
                raise _Unknown
            return self._indices + shift
        if isinstance(value, torch.SymInt):
            if self._axis.kind is AxisKind.GRID:  # its index is its place
                distance = sympy.expand(expr_of(value) - expr_of(self._axis.offset))
                if distance.is_Integer:
                    return self._indices + int(distance)
            number = self._ir.space.hint(value)
            if number is None:
                raise _Unknown
            return number
        if isinstance(value, torch.SymFloat | torch.SymBool):
            raise _Unknown
        return self._computed(value) if isinstance(value, torch.fx.Node) else value

    def _computed(self, node: torch.fx.Node) -> Any:
        if TileIndex.match(node):
            return self._evaluate(TileIndex.of(node).tile)
        # With one dimension besides those of 1 a value has one element for each index, whatever its views.
        if sum(not (isinstance(size, int) and size == 1) for size in tensor_of(node).shape) != 1:
            raise _Unknown
        if Full.match(node):
            return torch.full_like(self._indices, self._evaluate(Full.of(node).value), dtype=Full.of(node).dtype)
        if node.target in VIEWS:
            return self._evaluate(node.args[0])
        if node.target not in POINTWISE or not callable(node.target):
            raise _Unknown
        args, kwargs = pytree.tree_map(self._evaluate, (node.args, node.kwargs))
        return node.target(*args, **kwargs)
