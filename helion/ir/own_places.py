"""Whether programs store to elements of their own where an index is computed from their place: `out[i % 2]`.

A number that follows from the places of loops (`i // 4`, `tile.id % 2`, `i * 4 + j`), or an index tensor that one
loop's positions make, is worked out for those loops with the numbers of the traced call, and the elements are compared.
So is a window beside such a place, `out[i * 4 + hl.arange(8)]`, each of whose elements is one of the program's.

Not here: indices that are loaded, of which nothing is known while compiling.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import sympy
import torch
import torch.fx
from torch.utils import _pytree as pytree

from .._compat_sympy import CleanDiv
from .._compat_sympy import FloorDiv
from .._compat_sympy import Max
from .._compat_sympy import Min
from .._compat_sympy import Mod
from .._compat_sympy import PowByNatural
from .._compat_sympy import PythonMod
from ..language.creation import iota
from ..language.indexing import IndexItem
from ..numbers import next_power_of_2
from .device_ir import Axis
from .device_ir import AxisKind
from .device_ir import DeviceIR
from .device_ir import TracedTile
from .nodes import Full
from .nodes import TileIndex
from .pointwise import POINTWISE
from .positions import VIEWS
from .positions import Positions
from .symbols import expr_of
from .symbols import is_symbolic
from .symbols import symbols_of

#: Most places of loops that are compared; of longer loops the first ones.
_MOST = 1 << 14

_FUNCTIONS: Mapping[Any, Callable[..., Any]] = {
    sympy.Add: lambda *args: functools.reduce(operator.add, args),
    sympy.Mul: lambda *args: functools.reduce(operator.mul, args),
    sympy.Pow: operator.pow,
    PowByNatural: operator.pow,
    FloorDiv: operator.floordiv,
    CleanDiv: operator.floordiv,
    Mod: operator.mod,
    PythonMod: operator.mod,
    Max: lambda *args: functools.reduce(torch.maximum, args),
    Min: lambda *args: functools.reduce(torch.minimum, args),
}


class _Unknown(Exception):
    """It does not follow from places of loops that the host knows."""


@dataclasses.dataclass(frozen=True)
class Shared:
    """An element that two programs store: the loops in whose place they differ, each with its name and the two
    positions, and the numbers that both have as indices.
    """

    places: tuple[tuple[str, int, int], ...]
    element: tuple[int, ...]


class OwnPlaces:
    """The elements that the programs of a top-level loop store in one place of the code.

    Args:
        ir: the graphs.
        axes: of the top-level loop, those whose programs may meet.
        items: the index of the store; elements that are values are nodes.
        mask: of the store, if it has one: a slice's says which of its elements the tensor has.
    """

    def __init__(
        self, ir: DeviceIR, axes: Sequence[Axis], items: Sequence[IndexItem], mask: torch.fx.Node | None = None
    ) -> None:
        self._ir, self._axes, self._mask = ir, axes, mask
        self._elements = [item.value for item in items if item.kind in ("scalar", "tensor", "tile")]
        #: Nodes that count the elements of windows: start, length and step of each.
        self._windows: dict[torch.fx.Node, Sequence[Any]] = {}
        self._follows: dict[torch.fx.Node, Axis] = {}
        self._by_symbol: dict[sympy.Symbol, Axis] = {}
        for axis in ir.space.axes:
            self._by_symbol.update({s.node.expr: axis for s in (axis.offset, axis.tile_id, axis.clipped_end)})
        self.computed = [element for element in self._elements if not self._is_plain(element)]

    def shared(self) -> Shared | None:
        """An element that two programs store, whatever the Config says; None if there is none, or that is unknown.

        Where only small tiles make programs meet the smallest block size is raised. That a loop whose length varies
        from call to call is no longer than now is a guard, where longer ones would meet.
        """
        if not self.computed:
            return None
        try:
            indexed = self._indexed()
            used = {axis.id: axis for axis in indexed}
            nodes = [node for node in (*self._elements, self._mask) if isinstance(node, torch.fx.Node)]
            inside = [part for node in nodes for part in self._numbers_in(node)]
            for element in [*self._elements, *inside]:
                used.update((axis.id, axis) for axis in self._axes_in(element))
            return self._compared(list(used.values()), {axis.id for axis in indexed})
        except _Unknown:
            return None

    def _is_plain(self, element: Any) -> bool:
        """Whether an index element is a constant, a tile, or a constant distance from the place of one loop."""
        if isinstance(element, TracedTile):
            return not self._axes_in(element.offset)
        if isinstance(element, torch.fx.Node):
            return False
        used = symbols_of(element) & self._by_symbol.keys()
        return not used or any(sympy.expand(expr_of(element) - symbol).is_number for symbol in used)

    def _axes_in(self, number: Any) -> list[Axis]:
        return [self._by_symbol[s] for s in sorted(symbols_of(number), key=str) if s in self._by_symbol]

    def _indexed(self) -> list[Axis]:
        """Axes of which an index element has every index, not only the place of the tile."""
        found = [element.axis for element in self._elements if isinstance(element, TracedTile)]
        for node in self._elements:
            if isinstance(node, torch.fx.Node):
                follows = [axis for axis in self._ir.space.axes if Positions(self._ir, axis).of(node) is not None]
                if len(follows) == 1:
                    self._follows[node] = follows[0]
                else:
                    tiles: list[Any] = [TileIndex.of(n).tile for n in self._made_of(node) if TileIndex.match(n)]
                    follows = [tile.axis for tile in tiles]
                found += follows
        return found

    def _made_of(self, node: torch.fx.Node) -> list[torch.fx.Node]:
        """The nodes that a window is computed from; those that count its elements are noted."""
        found, waiting = [], [node]
        while waiting:
            part = waiting.pop()
            if part.target is iota:
                self._windows[part] = part.args[:3]
            elif not (TileIndex.match(part) or Full.match(part) or part.target in VIEWS or part.target in POINTWISE):
                raise _Unknown
            found.append(part)
            waiting += part.all_input_nodes
        return found

    def _numbers_in(self, node: torch.fx.Node) -> list[Any]:
        """The numbers that a window is computed from."""
        if node in self._follows:
            return []
        args = (arg for part in self._made_of(node) for arg in pytree.tree_leaves(part.args))
        return [arg for arg in args if is_symbolic(arg)]

    # -- comparing ---------------------------------------------------------------------------------------------------

    def _compared(self, used: list[Axis], indexed: set[int]) -> Shared | None:
        free = [a for a in used if a.kind is AxisKind.TILE and a.block.fixed is None and a.id not in indexed]
        lengths = {axis.id: self._length(axis) for axis in used}
        found = self._clash(used, indexed, lengths)
        if found is not None and len(free) == 1:
            block, before, meeting = free[0].block, free[0].block.low, found
            while found is not None and block.low < min(lengths[free[0].id], block.high or _MOST):
                block.low = next_power_of_2(block.low + 1)
                found = self._clash(used, indexed, lengths)
            if found is None and block.low >= lengths[free[0].id]:
                found = meeting  # one tile alone meets no other
            block.low = block.low if found is None else before
        varying = [axis for axis in used if is_symbolic(axis.end - axis.begin)]
        if found is None and varying:
            longer = {axis.id: 4 * max(lengths[axis.id], 16) if axis in varying else lengths[axis.id] for axis in used}
            if self._clash(used, indexed, longer) is not None:
                assert all(bool(axis.end - axis.begin == lengths[axis.id]) for axis in varying)  # guards
        return found

    def _length(self, axis: Axis) -> int:
        begin, end = self._ir.space.hint(axis.begin), self._ir.space.hint(axis.end)
        if begin is None or end is None:
            raise _Unknown
        return end - begin

    def _clash(self, used: list[Axis], indexed: set[int], lengths: Mapping[int, int]) -> Shared | None:
        """Two programs that store one element, with the smallest tiles."""
        counts = {}
        for axis in used:
            size = 1 if axis.id in indexed else self._block(axis)
            counts[axis.id] = max(-(-lengths[axis.id] // size), 1)
        while math.prod(counts.values()) > _MOST:
            longest = max(counts, key=lambda axis: counts[axis])
            counts[longest] = -(-counts[longest] // 2)
        sizes = {axis.block.symbol: torch.tensor(self._block(axis)) for axis in used if axis.kind is AxisKind.TILE}
        lanes = [int(self._of(expr_of(length), sizes)) for _, length, _ in self._windows.values()]
        if math.prod([*counts.values(), *lanes]) > 16 * _MOST:
            raise _Unknown
        ranges = [*(counts[axis.id] for axis in used), *lanes]
        grid = torch.meshgrid(*map(torch.arange, ranges), indexing="ij")
        values: dict[Any, torch.Tensor] = dict(sizes)
        places = {}
        for axis, count in zip(used, grid):
            begin, size = self._ir.space.hint(axis.begin) or 0, self._block(axis)
            number = count // size if axis.id in indexed else count
            places[axis.id] = begin + (count if axis.id in indexed else number * size)
            values[axis.offset.node.expr] = begin + number * size
            values[axis.tile_id.node.expr] = number
            values[axis.clipped_end.node.expr] = (begin + number * size + size).clamp(max=begin + lengths[axis.id])
        for (node, (start, _, step)), lane in zip(self._windows.items(), grid[len(used) :]):
            first = self._in_window(start, values, places) if isinstance(start, torch.fx.Node) else None
            values[node] = (self._of(expr_of(start), values) if first is None else first) + lane * step
        keys = torch.stack([self._numbers(e, values, places).expand(grid[0].shape).flatten() for e in self._elements])
        judged = [axis for axis in used if any(axis is a for a in self._axes)]
        owners = torch.stack([places[axis.id].flatten() for axis in judged])
        if self._mask is not None:
            stored = self._in_window(self._mask, values, places).expand(grid[0].shape).flatten()
            keys, owners = keys[:, stored], owners[:, stored]
        return _first_meeting(keys, owners, [axis.name for axis in judged])

    def _block(self, axis: Axis) -> int:
        fixed = axis.block.fixed
        if fixed is not None and not isinstance(fixed, int):
            raise _Unknown
        return axis.block.low if fixed is None else fixed

    def _numbers(self, element: Any, values: Mapping[Any, torch.Tensor], places: Mapping[int, Any]) -> torch.Tensor:
        if isinstance(element, TracedTile):
            return places[element.axis.id] + self._of(expr_of(element.offset), values)
        if isinstance(element, torch.fx.Node) and element in self._follows:
            axis = self._follows[element]
            found = Positions(self._ir, axis).of(element)
            assert found is not None
            at = places[axis.id] - (self._ir.space.hint(axis.begin) or 0)
            return found[at.clamp(max=len(found) - 1)].long()
        if isinstance(element, torch.fx.Node):
            return self._in_window(element, values, places)
        return self._of(expr_of(element), values)

    def _in_window(self, node: torch.fx.Node, values: Mapping[Any, torch.Tensor], places: Mapping[int, Any]) -> Any:
        def of(value: Any) -> Any:
            if isinstance(value, torch.fx.Node):
                return self._in_window(value, values, places)
            return self._of(expr_of(value), values) if is_symbolic(value) else value

        if node in values:
            return values[node]
        if TileIndex.match(node):
            return self._numbers(TileIndex.of(node).tile, values, places)
        if Full.match(node):
            return torch.as_tensor(of(Full.of(node).value))
        if node.target in VIEWS:
            return of(node.args[0])
        args, kwargs = pytree.tree_map(of, (node.args, node.kwargs))
        target: Any = node.target
        # A number may be of the place, a tensor here: `lt.Scalar` takes none.
        return getattr(target, "overloadpacket", target)(*args, **kwargs)

    def _of(self, expr: Any, values: Mapping[Any, torch.Tensor]) -> torch.Tensor:
        if expr in values:
            return values[expr]
        if expr.is_Integer:
            return torch.tensor(int(expr))
        if expr.is_Symbol:
            origin = self._ir.space.origins.get(expr)
            hints = self._axes[0].offset.node.shape_env.backed_var_to_val
            if origin is None or origin.on_device or expr not in hints:
                raise _Unknown
            return torch.tensor(int(hints[expr]))
        function = _FUNCTIONS.get(expr.func)
        if function is None:
            raise _Unknown
        found: torch.Tensor = function(*(self._of(arg, values) for arg in expr.args))
        return found


def _first_meeting(keys: torch.Tensor, owners: torch.Tensor, names: Sequence[str]) -> Shared | None:
    """Two columns with the same keys and different owners."""
    _, group = torch.unique(keys, dim=1, return_inverse=True)
    order = torch.argsort(group, stable=True)
    same = group[order[1:]] == group[order[:-1]]
    differ = (owners[:, order[1:]] != owners[:, order[:-1]]).any(0)
    meeting = torch.nonzero(same & differ)
    if not len(meeting):
        return None
    first, second = int(order[meeting[0]]), int(order[meeting[0] + 1])
    pairs = ((name, int(row[first]), int(row[second])) for name, row in zip(names, owners))
    return Shared(tuple(pair for pair in pairs if pair[1] != pair[2]), tuple(keys[:, first].tolist()))
