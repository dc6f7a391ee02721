"""Which loop axis each dimension of each value runs over.

Block sizes tell tiles apart by size; when two loops share a block size only the axis says whose range masks a
dimension.  The answer flows from tile indices through the graphs; a dimension made from a bare size
(`hl.zeros([block])`) belongs to the innermost enclosing axis with that block size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import torch
import torch.fx

from ..language.indexing import IndexItem
from ..language.indexing import normalize_index
from .device_ir import Axis
from .device_ir import AxisKind
from .device_ir import DeviceIR
from .device_ir import GraphInfo
from .device_ir import TracedTile
from .nodes import ForLoop
from .nodes import IfElse
from .nodes import Item
from .nodes import Memory
from .nodes import Product
from .nodes import Reduction
from .nodes import TileIndex
from .nodes import number
from .nodes import numbers
from .nodes import op_of
from .nodes import tensor_of
from .symbols import expr_of

#: For each dimension the loop axis it runs over, or None.
Axes = tuple[Axis | None, ...]
_aten = torch.ops.aten


def find_axes(ir: DeviceIR) -> Mapping[torch.fx.Node, Axes]:
    """The axes of every node that holds a tensor."""
    found = _Pass(ir)
    for root in ir.roots:
        info = ir.graphs[root.graph_id]
        found.graph(info, list(info.axes), [])
    return found.axes


class _Pass:
    def __init__(self, ir: DeviceIR) -> None:
        self.ir = ir
        self.axes: dict[torch.fx.Node, Axes] = {}
        self._results: dict[torch.fx.Node, list[Axes]] = {}  # of loops and branches

    def of(self, node: Any) -> Axes:
        """The axes of a node's dimensions; empty for numbers."""
        return self.axes.get(node, ()) if isinstance(node, torch.fx.Node) else ()

    def graph(self, info: GraphInfo, scope: list[Axis], inputs: Sequence[Any]) -> list[Axes]:
        """Go through a graph; the axes of its outputs."""
        for placeholder, node in zip(info.placeholders, inputs):
            self.axes[placeholder] = self.of(node)
        for node in info.graph.nodes:
            if node.op != "call_function":
                continue
            if loop := ForLoop.match(node):
                body = self.ir.graphs[loop.graph_id]
                results = self.graph(body, [*scope, *body.axes], loop.inputs)
                for taken, output in body.carried.items():
                    results[output] = _merge(results[output], self.of(loop.inputs[taken]))
                # Outside the loop a dimension no longer runs over the loop's axis: its lanes are partial results.
                inside = set(map(id, body.axes))
                self._results[node] = [tuple(None if id(a) in inside else a for a in axes) for axes in results]
            elif branch := IfElse.match(node):
                left = self.graph(self.ir.graphs[branch.then_id], scope, branch.then_inputs)
                right = self.graph(self.ir.graphs[branch.else_id], scope, branch.else_inputs)
                self._results[node] = [_merge(a, b) for a, b in zip(left, right)]
            elif isinstance(value := node.meta.get("val"), torch.Tensor):
                self.axes[node] = self._fill(value.shape, self._axes(node, value), scope)
        return [self.of(output) for output in info.outputs]

    def _fill(self, shape: Sequence[Any], axes: Axes, scope: list[Axis]) -> Axes:
        filled = []
        for size, axis in zip(shape, axes):
            if axis is None and isinstance(size, torch.SymInt):
                axis = next(
                    (a for a in reversed(scope) if a.kind is not AxisKind.GRID and size.node.expr == a.block.symbol),
                    None,
                )
            filled.append(axis)
        return tuple(filled)

    def _axes(self, node: torch.fx.Node, value: torch.Tensor) -> Axes:
        target: Any = node.target
        if item := Item.match(node):
            results = self._results.get(item.source)
            return results[item.index] if results is not None else self._by_size(value.shape, [item.source])
        if tile := TileIndex.match(node):
            assert isinstance(tile.tile, TracedTile)
            return (tile.tile.axis,)
        if memory := Memory.match(node):
            return self._accessed(memory, value)
        if product := Product.match(node):
            return (*self.of(product.a)[:-1], self.of(product.b)[-1])
        if reduction := Reduction.match(node):
            axes = list(self.of(reduction.source))
            axes[reduction.dim : reduction.dim + 1] = [None] if reduction.keepdim else []
            return tuple(axes)
        if target is _aten.unsqueeze.default:
            axes = list(self.of(node.args[0]))
            axes.insert(number(node, 1) % value.dim(), None)
            return tuple(axes)
        if target is _aten.squeeze.dims:
            source_axes = self.of(node.args[0])
            rank = len(source_axes)
            dropped = {d % rank for d in numbers(node, 1)} if rank else set()
            kept = tuple(a for d, a in enumerate(source_axes) if d not in dropped)
            return kept if value.dim() != rank else source_axes
        if target is _aten.permute.default:
            source_axes = self.of(node.args[0])
            return tuple(source_axes[d] for d in numbers(node, 1))
        if op_of(node) is not None or target is _aten.view.default:
            return self._by_size(value.shape, node.all_input_nodes)
        merged: Axes = (None,) * value.dim()
        for arg in node.all_input_nodes:
            if isinstance(arg.meta.get("val"), torch.Tensor):
                merged = _merge(merged, _align(self.of(arg), value.dim()))
        return merged

    def _accessed(self, memory: Memory, value: torch.Tensor) -> Axes:
        if memory.addresses is not None:
            return self._by_size(value.shape, memory.node.all_input_nodes)
        axes: list[Axis | None] = []
        placed = False
        for item in normalize_index(memory.tensor.shape, with_values(memory.index), memory.op.name):
            if item.kind == "tile":
                axes.append(item.value.axis)
            elif item.kind in ("slice", "new"):
                axes.append(None)
            elif item.kind == "tensor" and not placed:
                placed = True
                axes.extend(self._gathered(memory))
        return tuple(axes) if len(axes) == value.dim() else (None,) * value.dim()

    def _gathered(self, memory: Memory) -> Axes:
        merged: Axes = ()
        for element in memory.index:
            if isinstance(element, torch.fx.Node) and tensor_of(element).dim():
                axes = self.of(element)
                width = max(len(axes), len(merged))
                merged = _merge(_align(merged, width), _align(axes, width))
        return merged

    def _by_size(self, shape: Sequence[Any], sources: Sequence[torch.fx.Node]) -> Axes:
        """Axes of a reshaped value: a dimension keeps the axis of an input dimension of the same symbolic size."""
        known: dict[Any, Axis] = {}
        for source in sources:
            value = source.meta.get("val")
            if isinstance(value, torch.Tensor):
                for size, axis in zip(value.shape, self.of(source)):
                    if axis is not None:
                        known.setdefault(expr_of(size), axis)
        return tuple(known.get(expr_of(size)) if isinstance(size, torch.SymInt) else None for size in shape)


def index_items(memory: Memory) -> list[IndexItem]:
    """The normalized index of a memory node; elements that are values are nodes, not FakeTensors."""
    items = normalize_index(memory.tensor.shape, with_values(memory.index), memory.op.name)
    by_value = {id(e.meta["val"]): e for e in memory.index if isinstance(e, torch.fx.Node)}
    return [
        dataclasses.replace(item, value=by_value[id(item.value)]) if isinstance(item.value, torch.Tensor) else item
        for item in items
    ]


def with_values(index: Any) -> list[Any]:
    """An index list with nodes replaced by their FakeTensors, as the language's index rules take it."""
    return [e.meta["val"] if isinstance(e, torch.fx.Node) else e for e in index]


def _align(axes: Axes, rank: int) -> Axes:
    return (*((None,) * (rank - len(axes))), *axes)


def _merge(a: Axes, b: Axes) -> Axes:
    return tuple(x if x is not None else y for x, y in zip(a, b))
