"""Which loop axis each dimension of each value runs over.

Block sizes tell tiles apart by size; when two loops share a block size only the axis says whose range masks a
dimension.  The answer flows from tile indices through the graphs; a dimension made from a bare size
(`hl.zeros([block])`) belongs to the innermost enclosing axis with that block size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.fx

from ..language.indexing import normalize_index
from ..language.op import Op
from . import device_ir
from .device_ir import Axis
from .device_ir import AxisKind
from .device_ir import DeviceIR
from .device_ir import GraphInfo
from .reduction_ops import REDUCTIONS
from .reduction_ops import reduced_dim
from .symbols import expr_of

Axes = tuple[Axis | None, ...]
_aten = torch.ops.aten


def assign_axes(ir: DeviceIR) -> None:
    """Set `meta["axes"]` on every node that holds a tensor."""
    for root in ir.roots:
        info = ir.graphs[root.graph_id]
        _Pass(ir)._graph(info, list(info.axes), [])


def axes_of(node: Any) -> Axes:
    """The axes of a node's dimensions; empty for numbers."""
    return node.meta.get("axes", ()) if isinstance(node, torch.fx.Node) else ()


class _Pass:
    def __init__(self, ir: DeviceIR) -> None:
        self.ir = ir

    def _graph(self, info: GraphInfo, scope: list[Axis], inputs: Sequence[torch.fx.Node]) -> list[Axes]:
        for placeholder, node in zip(info.placeholders, inputs):
            placeholder.meta["axes"] = axes_of(node)
        for node in info.graph.nodes:
            if node.op != "call_function":
                continue
            if node.target is device_ir.for_loop:
                body = self.ir.graphs[node.args[0]]
                results = self._graph(body, [*scope, *body.axes], node.args[3])
                for placeholder, output in body.carried.items():
                    results[output] = _merge(results[output], axes_of(node.args[3][placeholder]))
                # Outside the loop a dimension no longer runs over the loop's axis: its lanes are partial results.
                inside = set(map(id, body.axes))
                node.meta["result_axes"] = [tuple(None if id(a) in inside else a for a in axes) for axes in results]
            elif node.target is device_ir.if_else:
                left = self._graph(self.ir.graphs[node.args[1]], scope, node.args[3])
                right = self._graph(self.ir.graphs[node.args[2]], scope, node.args[4])
                node.meta["result_axes"] = [_merge(a, b) for a, b in zip(left, right)]
            elif isinstance(node.meta.get("val"), torch.Tensor):
                node.meta["axes"] = self._fill(node.meta["val"].shape, self._axes(node), scope)
        return [axes_of(output) for output in info.outputs]

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

    def _axes(self, node: torch.fx.Node) -> Axes:
        value = node.meta["val"]
        target = node.target
        none: Axes = (None,) * value.dim()
        if target is device_ir.GETITEM:
            source = node.args[0]
            results = source.meta.get("result_axes")  # type: ignore[union-attr]
            if results is not None:
                return results[node.args[1]]  # type: ignore[index,no-any-return]
            return _by_size(value.shape, [source])
        if isinstance(target, Op):
            return self._op_axes(node, none)
        if target in REDUCTIONS:
            axes, dim = list(axes_of(node.args[0])), reduced_dim(node)
            axes[dim : dim + 1] = [None] if node.args[2] else []
            return tuple(axes)
        if target is _aten.unsqueeze.default:
            axes = list(axes_of(node.args[0]))
            axes.insert(node.args[1] % value.dim(), None)  # type: ignore[operator]
            return tuple(axes)
        if target is _aten.squeeze.dims:
            source_axes = axes_of(node.args[0])
            rank = len(source_axes)
            dropped = {d % rank for d in node.args[1]} if rank else set()  # type: ignore[operator, union-attr]
            return (
                tuple(a for d, a in enumerate(source_axes) if d not in dropped) if value.dim() != rank else source_axes
            )
        if target is _aten.permute.default:
            source_axes = axes_of(node.args[0])
            return tuple(source_axes[d] for d in node.args[1])  # type: ignore[index, union-attr]
        if target in (_aten.view.default,):
            return _by_size(value.shape, [node.args[0]])
        merged = none
        for arg in node.all_input_nodes:
            if isinstance(arg.meta.get("val"), torch.Tensor):
                merged = _merge(merged, _align(axes_of(arg), value.dim()))
        return merged

    def _op_axes(self, node: torch.fx.Node, none: Axes) -> Axes:
        name = node.target.name  # type: ignore[union-attr]
        value = node.meta["val"]
        if name == "tile_index":
            return (node.args[0].axis,)  # type: ignore[union-attr]
        if name in ("load", "store") or name.startswith("atomic_"):
            tensor = node.args[0].meta["val"]  # type: ignore[union-attr]
            axes: list[Axis | None] = []
            placed = False
            for item in normalize_index(tensor.shape, with_values(node.args[1]), name):
                if item.kind == "tile":
                    axes.append(item.value.axis)
                elif item.kind in ("slice", "new"):
                    axes.append(None)
                elif item.kind == "tensor" and not placed:
                    placed = True
                    axes.extend(self._gather_axes(node, value.dim()))
            return tuple(axes) if len(axes) == value.dim() else none
        if name == "dot":
            a, b = axes_of(node.args[0]), axes_of(node.args[1])
            return (*a[:-1], b[-1])
        return _by_size(value.shape, node.all_input_nodes)

    def _gather_axes(self, node: torch.fx.Node, rank: int) -> Axes:
        merged: Axes = ()
        for element in node.args[1]:  # type: ignore[union-attr]
            if isinstance(element, torch.fx.Node) and element.meta["val"].dim():
                axes = axes_of(element)
                width = max(len(axes), len(merged))
                merged = _merge(_align(merged, width), _align(axes, width))
        return merged


def with_values(index: Any) -> list[Any]:
    """An index list with nodes replaced by their FakeTensors, as the language's index rules take it."""
    return [e.meta["val"] if isinstance(e, torch.fx.Node) else e for e in index]


def _align(axes: Axes, rank: int) -> Axes:
    return (*((None,) * (rank - len(axes))), *axes)


def _merge(a: Axes, b: Axes) -> Axes:
    return tuple(x if x is not None else y for x, y in zip(a, b))


def _by_size(shape: Sequence[Any], sources: Sequence[Any]) -> Axes:
    """Axes of a reshaped value: a dimension keeps the axis of an input dimension of the same symbolic size."""
    known: dict[Any, Axis] = {}
    for source in sources:
        value = source.meta.get("val")
        if isinstance(value, torch.Tensor):
            for size, axis in zip(value.shape, axes_of(source)):
                if axis is not None:
                    known.setdefault(expr_of(size), axis)
    return tuple(known.get(expr_of(size)) if isinstance(size, torch.SymInt) else None for size in shape)
