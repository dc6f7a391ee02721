"""Whether a value is the same in every tile of a loop, so that all tiles may store it to one place.

It is if nothing it is computed from knows the tile: no index, offset or random number of it, no load at its place, and
no sum over its lanes, of which the last tile may have fewer.  What is not known to be the same is not.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
import torch.fx

from .axes import index_items
from .device_ir import Axis
from .device_ir import DeviceIR
from .device_ir import TracedTile
from .effects import touches_of
from .nodes import Full
from .nodes import Load
from .nodes import Reduction
from .nodes import tensor_of
from .pointwise import CONVERT
from .pointwise import POINTWISE
from .symbols import expr_of
from .symbols import is_symbolic
from .symbols import symbols_of

_aten = torch.ops.aten
_VIEWS = frozenset({_aten.unsqueeze.default, _aten.expand.default, _aten.permute.default, _aten.squeeze.dims})


class Sameness:
    """What is the same for all tiles of an axis.

    Args:
        ir: the graphs.
        axis: the axis.
        written: memory that the kernel writes (`Touch.storage`), which may change between two tiles.
        given: nodes and numbers that are the same for the tiles in question.
    """

    def __init__(self, ir: DeviceIR, axis: Axis, written: Collection[int], given: Collection[Any] = ()) -> None:
        self._axis, self._written = axis, written
        self._given = {expr_of(number) for number in given if is_symbolic(number)}
        roots = [a for root in ir.roots for a in ir.graphs[root.graph_id].axes]
        varying = [a for a in ir.space.axes if a is axis or all(a is not root for root in roots)]
        self._varying = {id(a) for a in varying}
        self._symbols = {s.node.expr for a in varying for s in (a.offset, a.tile_id, a.clipped_end)}
        self._known = {node: True for node in given if isinstance(node, torch.fx.Node)}

    def of(self, value: Any) -> bool:
        """Whether a node or a number is the same for all tiles."""
        if not isinstance(value, torch.fx.Node):
            return not symbols_of(value) & self._symbols or expr_of(value) in self._given
        if value not in self._known:
            self._known[value] = self._computed(value)
        return self._known[value]

    def _computed(self, node: torch.fx.Node) -> bool:
        load = Load.match(node)
        if load is not None:
            if any(touch.storage in self._written for touch in touches_of(node)):
                return False
            fixed = (item.repeats or self._fixed(item.value) for item in index_items(load))
            return all(fixed) and (load.extra_mask is None or self.of(load.extra_mask))
        if Full.match(node):
            return self.of(Full.of(node).value)
        if Reduction.match(node):
            return self._axis.block.symbol not in _size_symbols(Reduction.of(node).source) and self._operands(node)
        known = node.target in POINTWISE or node.target in _VIEWS or node.target is CONVERT
        return known and self._operands(node)

    def _operands(self, node: torch.fx.Node) -> bool:
        return all(map(self.of, node.all_input_nodes)) and all(
            self.of(arg) for arg in node.args if isinstance(arg, torch.SymInt | torch.SymFloat)
        )

    def _fixed(self, element: Any) -> bool:
        """Whether an index element is the same for all tiles."""
        if isinstance(element, TracedTile):
            return id(element.axis) not in self._varying and self.of(element.offset)
        if isinstance(element, tuple):
            return all(map(self.of, element))
        return element is None or self.of(element)


def _size_symbols(node: torch.fx.Node) -> set[Any]:
    return {symbol for size in tensor_of(node).shape for symbol in symbols_of(size)}
