"""Subtiled epilogues, the Config key `epilogue_subtile`: what is computed of an accumulator and stored, in column
blocks.

An accumulator of [M, N] lives in registers.  Its epilogue (casts, bias, activation, the store's own staging) needs room
for as many values again.  Taking the accumulator apart along N and finishing one part after the other needs that room
for one part only, so that tiles can be larger or more stages fit.  The numbers are the same.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.fx

from ...ir.device_ir import Axis
from ...ir.device_ir import AxisKind
from ...ir.device_ir import DeviceIR
from ...ir.device_ir import GraphInfo
from ...ir.device_ir import TracedTile
from ...ir.effects import touches_of
from ...ir.effects import written_storages
from ...ir.facts import Facts
from ...ir.nodes import HostTensorNode
from ...ir.nodes import Store
from ...ir.nodes import op_of
from ...ir.nodes import tensor_of
from ...ir.pointwise import POINTWISE
from ...ir.symbols import expr_of
from ..text import Text
from ..text import call
from ..text import listed
from .emitter import KernelEmitter
from .extents import Part

_aten = torch.ops.aten

#: A part has at least this many columns.
SMALLEST_PART = 16
#: Nodes that give a part of their result from the same part of their operands.
_COLUMNWISE = frozenset({*POINTWISE, _aten.unsqueeze.default, _aten.expand.default, _aten.permute.default})


@dataclasses.dataclass(eq=False)
class SplitEpilogue:
    """What leads to one store and can be done in parts.

    Attributes:
        store: the store.
        axis: the loop whose tile is taken apart: the last dimension of what is stored.
        steps: nodes computed once per part, in order; nothing but the store needs them.
        whole: values computed before and taken apart, each with the dimension to split.
    """

    store: torch.fx.Node
    axis: Axis
    steps: list[torch.fx.Node]
    whole: dict[torch.fx.Node, int]


def epilogues(ir: DeviceIR, facts: Facts, info: GraphInfo) -> list[SplitEpilogue]:
    """The stores of a graph that can be done in parts."""
    found = [_epilogue(ir, facts, info, store) for node in info.graph.nodes if (store := Store.match(node))]
    return [e for e in found if e is not None and e.whole]


def _epilogue(ir: DeviceIR, facts: Facts, info: GraphInfo, store: Store) -> SplitEpilogue | None:
    value = store.value
    axes = facts.axes_of(value)
    axis = axes[-1] if axes else None
    if axis is None or axis.kind is not AxisKind.TILE or sum(a.block is axis.block for a in ir.space.axes) != 1:
        return None
    if sum(isinstance(e, TracedTile) and e.axis is axis for e in store.index) != 1:
        return None
    if _place(value, axis) != tensor_of(value).dim() - 1:
        return None
    written = written_storages(ir)
    inside = {store.node}
    whole: dict[torch.fx.Node, int] = {}
    for node in reversed(info.graph.nodes):
        if node.op not in ("call_function", "placeholder") or not inside.intersection(node.users):
            continue
        if not isinstance(node.meta.get("val"), torch.Tensor) or HostTensorNode.match(node):
            continue
        place = _place(node, axis)
        if place is None:
            return None
        if place < 0:
            continue  # the same for every part
        if _is_columnwise(node, written) and inside.issuperset(node.users):
            inside.add(node)
        else:
            whole[node] = place
    steps = [n for n in info.graph.nodes if n in inside and n is not store.node]
    return SplitEpilogue(store.node, axis, steps, whole)


def _place(node: Any, axis: Axis) -> int | None:
    """The dimension of a value that is the axis' tile, -1 if none is, None where the tile's size is part of another."""
    exprs = [expr_of(size) for size in node.meta["val"].shape]
    using = [d for d, expr in enumerate(exprs) if axis.block.symbol in expr.free_symbols]
    if not using:
        return -1
    return using[0] if len(using) == 1 and exprs[using[0]] == axis.block.symbol else None


def _is_columnwise(node: torch.fx.Node, written: frozenset[int]) -> bool:
    op = op_of(node)
    if op is None:
        return node.op == "call_function" and node.target in _COLUMNWISE
    moved = any(touch.storage in written for touch in touches_of(node))
    return op.elementwise and not op.has_side_effect and not moved


def emit_epilogue(k: KernelEmitter, epilogue: SplitEpilogue, parts: int) -> None:
    """Take the whole values apart; then, part by part, the steps and the store."""
    k.comment(epilogue.store)
    texts = {node: _taken_apart(k, node, dim, parts) for node, dim in epilogue.whole.items()}
    before = {node: k.text(node) for node in epilogue.whole}
    for part in range(parts):
        with k.extents.part_of(Part(epilogue.axis, part, parts)):
            for node, pieces in texts.items():
                k.set_text(node, pieces[part])
            for node in [*epilogue.steps, epilogue.store]:
                k.node(node)
    for node, text in before.items():
        k.set_text(node, text)


def _taken_apart(k: KernelEmitter, node: torch.fx.Node, dim: int, parts: int) -> list[Text]:
    """Names of the parts of a value along a dimension, first columns first."""
    value, text = tensor_of(node), k.text(node)
    extents = [k.extents(size) for size in value.shape]
    base = text if text.is_name else "value"
    pieces = [text.to("tl.int8") if value.dtype is torch.bool else text]  # tl.split takes no tensors of i1
    while (count := 2 * len(pieces)) <= parts:
        shape = listed([*extents[:dim], 2, extents[dim] // count, *extents[dim + 1 :]])
        order = [d for d in range(value.dim() + 1) if d != dim] + [dim]
        names = [k.names.unique(f"{base}_{i + 1}of{count}") for i in range(count)]
        for i, piece in enumerate(pieces):
            halves = call("tl.split", call("tl.permute", call("tl.reshape", piece, shape), order))
            k.scope.add(f"{names[2 * i]}, {names[2 * i + 1]} = {halves}")
        pieces = list(map(Text, names))
    return [piece.differs(0) for piece in pieces] if value.dtype is torch.bool else pieces
