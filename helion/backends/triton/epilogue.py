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

from ...ir import device_ir
from ...ir.axes import axes_of
from ...ir.device_ir import Axis
from ...ir.device_ir import AxisKind
from ...ir.device_ir import DeviceIR
from ...ir.device_ir import GraphInfo
from ...ir.device_ir import TracedTile
from ...ir.pointwise import BITCAST
from ...ir.pointwise import CONVERT
from ...ir.pointwise import POINTWISE
from ...ir.symbols import expr_of
from ...language.op import Op
from .emitter import KernelEmitter

_aten = torch.ops.aten

#: A part has at least this many columns.
SMALLEST_PART = 16
#: Nodes that give a part of their result from the same part of their operands.
_COLUMNWISE = frozenset({CONVERT, BITCAST, _aten.unsqueeze.default, _aten.expand.default, _aten.permute.default})
_COLUMNWISE_OPS = frozenset({"load", "tile_index", "full", "philox_rand", "philox_bits"})
_WRITES = frozenset({"store", *(f"atomic_{n}" for n in ("add", "and", "or", "xor", "max", "min", "xchg", "cas"))})


@dataclasses.dataclass(eq=False)
class Epilogue:
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


def has_products(ir: DeviceIR) -> bool:
    """Whether a kernel multiplies matrices: only then `epilogue_subtile` is worth a key."""
    return any(isinstance(n.target, Op) and n.target.name in ("dot", "dot_scaled") for _, n in ir.nodes())


def epilogues(ir: DeviceIR, info: GraphInfo) -> list[Epilogue]:
    """The stores of a graph that can be done in parts."""
    stores = [n for n in info.graph.nodes if isinstance(n.target, Op) and n.target.name == "store"]
    found = [_epilogue(ir, info, store) for store in stores]
    return [e for e in found if e is not None and e.whole]


def _epilogue(ir: DeviceIR, info: GraphInfo, store: torch.fx.Node) -> Epilogue | None:
    value = store.args[2]
    axes = axes_of(value)
    axis = axes[-1] if axes else None
    if axis is None or axis.kind is not AxisKind.TILE or sum(a.block is axis.block for a in ir.axes) != 1:
        return None
    if sum(isinstance(e, TracedTile) and e.axis is axis for e in store.args[1]) != 1:  # type: ignore[union-attr]
        return None
    if _place(value, axis) != axis_dim(value):
        return None
    written = _written(ir)
    inside = {store}
    whole: dict[torch.fx.Node, int] = {}
    for node in reversed(info.graph.nodes):
        if node.op not in ("call_function", "placeholder") or not inside.intersection(node.users):
            continue
        if not isinstance(node.meta.get("val"), torch.Tensor) or node.target is device_ir.host_tensor:
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
    steps = [n for n in info.graph.nodes if n in inside and n is not store]
    return Epilogue(store, axis, steps, whole)


def axis_dim(value: Any) -> int:
    """The dimension that is taken apart in what is stored: the last."""
    return int(value.meta["val"].dim()) - 1


def _place(node: Any, axis: Axis) -> int | None:
    """The dimension of a value that is the axis' tile, -1 if none is, None where the tile's size is part of another."""
    exprs = [expr_of(size) for size in node.meta["val"].shape]
    using = [d for d, expr in enumerate(exprs) if axis.block.symbol in expr.free_symbols]
    if not using:
        return -1
    return using[0] if len(using) == 1 and exprs[using[0]] == axis.block.symbol else None


def _written(ir: DeviceIR) -> set[str]:
    """Host tensors that the kernel writes: reading them may not move behind a write."""
    return {
        n.args[0].args[0]  # type: ignore[union-attr,misc]
        for _, n in ir.nodes()
        if isinstance(n.target, Op) and n.target.name in _WRITES
    }


def _is_columnwise(node: torch.fx.Node, written: set[str]) -> bool:
    if isinstance(node.target, Op):
        name = node.target.name
        return name in _COLUMNWISE_OPS and not (name == "load" and node.args[0].args[0] in written)  # type: ignore[union-attr,operator]
    return node.op == "call_function" and (node.target in _COLUMNWISE or node.target in POINTWISE)


def emit_epilogue(k: KernelEmitter, epilogue: Epilogue, parts: int) -> None:
    """Take the whole values apart; then, part by part, the steps and the store."""
    k.comment(epilogue.store)
    texts = {node: _taken_apart(k, node, dim, parts) for node, dim in epilogue.whole.items()}
    before = {node: k.text(node) for node in epilogue.whole}
    for part in range(parts):
        with k.part_of(epilogue.axis, part, parts):
            for node, pieces in texts.items():
                k.set_text(node, pieces[part])
            for node in [*epilogue.steps, epilogue.store]:
                k.node(node)
    for node, text in before.items():
        k.set_text(node, text)


def _taken_apart(k: KernelEmitter, node: torch.fx.Node, dim: int, parts: int) -> list[str]:
    """Names of the parts of a value along a dimension, first columns first."""
    value = node.meta["val"]
    extents = [k.extent(size) for size in value.shape]
    text = k.text(node)
    base = text if text.isidentifier() else "value"
    pieces = [f"{text}.to(tl.int8)" if value.dtype is torch.bool else text]  # tl.split takes no tensors of i1
    while (count := 2 * len(pieces)) <= parts:
        shape = [*extents[:dim], "2", f"{extents[dim]} // {count}", *extents[dim + 1 :]]
        order = [d for d in range(len(shape)) if d != dim] + [dim]
        names = [k.names.unique(f"{base}_{i + 1}of{count}") for i in range(count)]
        for i, piece in enumerate(pieces):
            text = f"tl.split(tl.permute(tl.reshape({piece}, [{', '.join(shape)}]), {order}))"
            k.scope.add(f"{names[2 * i]}, {names[2 * i + 1]} = {text}")
        pieces = names
    return [f"({p} != 0)" for p in pieces] if value.dtype is torch.bool else pieces
