"""Looped reductions: a whole-dimension reduction rewritten as loops over chunks of the dimension.

`x[tile, :]` makes values that span a whole dimension.  When that is too much for one tile, the graph is cut into
stages: stage 0 holds the reductions that need no other reduction's result, stage 1 those that need stage 0's,
and so on (softmax: maximum, sum, store).  Each stage becomes a loop over chunks that loads what it needs again
and keeps a partial result per lane; the partial results are reduced once, after the loop.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.fx

from ..language.op import Op
from . import device_ir
from .device_ir import Axis
from .device_ir import DeviceIR
from .device_ir import GraphInfo
from .device_ir import GraphKind
from .device_ir import TracedTile
from .device_ir import for_loop
from .device_ir import has_side_effect
from .device_ir import host_tensor
from .pointwise import POINTWISE
from .reduction_ops import REDUCTIONS
from .reduction_ops import reduced_dim
from .symbols import expr_of

_aten = torch.ops.aten
_ELEMENTWISE_OPS = frozenset({"load", "store", "full"})
_VIEWS = frozenset({_aten.unsqueeze.default, _aten.permute.default, _aten.expand.default})


@dataclasses.dataclass(eq=False)
class RollableReduction:
    """A dimension whose reductions can be looped.

    Attributes:
        graph_id: the graph with the reductions.
        size: the dimension's size; an int, or a host SymInt under dynamic shapes.
        axis: the axis of the loops, over [0, size); its block is the chunk.
    """

    graph_id: int
    size: Any
    axis: Axis


def rollable_sizes(ir: DeviceIR, info: GraphInfo) -> list[Any]:
    """Sizes of the whole dimensions of a graph whose reductions can become loops."""
    found: dict[Any, Any] = {}
    for node in info.graph.nodes:
        if node.target in REDUCTIONS:
            size = node.args[0].meta["val"].shape[reduced_dim(node)]
            if _is_whole(size):
                found.setdefault(expr_of(size), size)
    return [size for size in found.values() if _Stages(ir, info, size).possible]


def _is_whole(size: Any) -> bool:
    """A size of the host's, as opposed to a tile's or 1."""
    if isinstance(size, int):
        return size > 1
    return isinstance(size, torch.SymInt) and str(size.node.expr).startswith("s") and size.node.expr.is_Symbol


class _Stages:
    """The analysis of one graph and size."""

    def __init__(self, ir: DeviceIR, info: GraphInfo, size: Any) -> None:
        self.ir = ir
        self.info = info
        self.size = expr_of(size)
        self.nodes = [n for n in info.graph.nodes if n.op == "call_function" and n.target is not host_tensor]
        self.inner = {n for n in self.nodes if self._spans(n)}
        self.reductions = [n for n in self.nodes if n.target in REDUCTIONS and self._reduces(n)]
        self.stage: dict[torch.fx.Node, int] = {}
        self.possible = self._possible()

    def positions(self, node: torch.fx.Node) -> list[int]:
        """Dimensions of a node's value that have the size."""
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            return []
        return [d for d, s in enumerate(value.shape) if expr_of(s) == self.size]

    def _spans(self, node: torch.fx.Node) -> bool:
        if isinstance(node.target, Op) and node.target.name == "store":
            return bool(self._sliced(node))
        return bool(self.positions(node))

    def _sliced(self, node: torch.fx.Node) -> list[int]:
        """Index elements of a load or store that are `:` over a dimension of the size."""
        tensor = node.args[0].meta["val"]  # type: ignore[union-attr]
        elements = list(node.args[1])  # type: ignore[arg-type]
        dim, places = 0, []
        for place, element in enumerate(elements):
            if element is None:
                continue
            if isinstance(element, slice) and expr_of(tensor.size(dim)) == self.size and element == slice(None):
                places.append(place)
            dim += 1
        return places

    def _reduces(self, node: torch.fx.Node) -> bool:
        return self.positions(node.args[0]) == [reduced_dim(node)] and not self.positions(node)  # type: ignore[arg-type]

    def _possible(self) -> bool:
        if not self.reductions or any(REDUCTIONS[n.target].combine is None for n in self.reductions):  # type: ignore[index]
            return False
        for node in self.info.graph.nodes:
            if node.op == "placeholder" and self.positions(node):
                return False
            if node.op == "output" and any(isinstance(a, torch.fx.Node) and self.positions(a) for a in node.args[0]):
                return False
        for node in self.nodes:
            takes_inner = any(a in self.inner for a in node.all_input_nodes)
            if not (takes_inner or node in self.inner) or node in self.reductions:
                continue
            if not self._fits(node):
                return False
        self._assign_stages()
        return self._memory_is_safe()

    def _fits(self, node: torch.fx.Node) -> bool:
        """Whether a node works chunk by chunk."""
        target = node.target
        if isinstance(target, Op):
            if target.name not in _ELEMENTWISE_OPS:
                return False
            if target.name == "full":
                return len(self.positions(node)) == 1
            sliced = self._sliced(node)
            whole = "..." in map(str, node.args[1]) or any(e is Ellipsis for e in node.args[1])  # type: ignore[union-attr, arg-type]
            value = node.args[2] if target.name == "store" else None
            if isinstance(value, torch.fx.Node) and len(self.positions(value)) > 1:
                return False
            return len(sliced) == 1 and not whole and (target.name == "store" or len(self.positions(node)) == 1)
        if target in POINTWISE or target in _VIEWS:
            return len(self.positions(node)) == 1
        if target in REDUCTIONS:  # over another dimension
            return len(self.positions(node)) == 1
        return False

    def _assign_stages(self) -> None:
        for node in self.nodes:
            stage = 0
            for source in node.all_input_nodes:
                if source in self.stage:
                    stage = max(stage, self.stage[source] + (source in self.reductions))
            self.stage[node] = stage

    def _memory_is_safe(self) -> bool:
        """Loads are repeated in later stages, so nothing they read may be written before the last of them."""
        written: dict[str, int] = {}
        for node in self.nodes:
            if self.ir.subgraphs_of(node):
                return False  # a nested loop may read or write anything between two stages
            if has_side_effect(node):
                if node not in self.inner:
                    if not self._is_alone(node):
                        return False  # its place among the loops would change
                    continue
                written[_tensor_name(node)] = min(written.get(_tensor_name(node), 1 << 30), self.stage[node])
        last = max(self.stage.values(), default=0)
        for node in self.nodes:
            name = _tensor_name(node)
            if node not in written and name in written and node.target.name == "load":  # type: ignore[union-attr]
                if node not in self.inner or written[name] < last:
                    return False
        return True

    def _is_alone(self, node: torch.fx.Node) -> bool:
        """Whether a node writes a tensor that nothing else in the graph touches, such as the results of the reductions:
        where it stands between the loops then makes no difference."""
        name = _tensor_name(node)
        writes = node.target.name == "store" or node.target.name.startswith("atomic_")  # type: ignore[union-attr]
        return bool(name) and writes and all(_tensor_name(other) != name for other in self.nodes if other is not node)

    def members(self, stage: int) -> list[torch.fx.Node]:
        """Inner nodes that the loop of a stage computes: its reductions, its stores, and what they need."""
        sinks = [n for n in self.nodes if self.stage[n] == stage and (n in self.reductions or self._is_sink(n))]
        needed: set[torch.fx.Node] = set()

        def need(node: torch.fx.Node) -> None:
            if node in needed or node not in self.inner:
                return
            needed.add(node)
            for source in node.all_input_nodes:
                need(source)

        for sink in sinks:
            need(sink)
            for source in sink.all_input_nodes:
                need(source)
        return [n for n in self.nodes if n in needed or n in sinks]

    def _is_sink(self, node: torch.fx.Node) -> bool:
        return node in self.inner and has_side_effect(node)


def _tensor_name(node: torch.fx.Node) -> str:
    if (
        isinstance(node.target, Op)
        and node.args
        and isinstance(node.args[0], torch.fx.Node)
        and node.args[0].target is host_tensor
    ):
        return str(node.args[0].args[0])
    return ""


def roll(ir: DeviceIR, reductions: list[RollableReduction]) -> DeviceIR:
    """A copy of the IR in which these reductions are loops; graphs that do not change are shared."""
    graphs = list(ir.graphs)
    rolled = dataclasses.replace(ir, graphs=graphs)
    for reduction in reductions:
        info = graphs[reduction.graph_id]
        graphs[reduction.graph_id] = _Roller(rolled, info, reduction).run()
    return rolled


class _Roller:
    def __init__(self, ir: DeviceIR, info: GraphInfo, reduction: RollableReduction) -> None:
        self.ir = ir
        self.info = info
        self.axis = reduction.axis
        self.chunk = reduction.axis.block.var
        self.stages = _Stages(ir, info, reduction.size)
        self.graph = torch.fx.Graph()
        self.copies: dict[torch.fx.Node, torch.fx.Node] = {}

    def run(self) -> GraphInfo:
        stages = self.stages
        for node in self.info.graph.nodes:
            if node.op == "placeholder" or node.target is host_tensor:
                self._copy(self.graph, node, self.copies)
        last = max(stages.stage.values(), default=0)
        for stage in range(last + 2):
            for node in stages.nodes:
                if stages.stage[node] == stage and node not in stages.inner and node not in stages.reductions:
                    self._copy(self.graph, node, self.copies)
            members = stages.members(stage)
            if members:
                self._loop(stage, members)
        outputs = [self.copies.get(a, a) for a in self.info.outputs]
        self.graph.output(outputs)
        return dataclasses.replace(self.info, graph=self.graph)

    def _copy(
        self, graph: torch.fx.Graph, node: torch.fx.Node, table: dict[torch.fx.Node, torch.fx.Node]
    ) -> torch.fx.Node:
        args = torch.fx.node.map_arg(node.args, lambda n: table[n])
        copy = graph.create_node(node.op, node.target, (), {}, name=node.name)
        copy.args, copy.kwargs = args, dict(node.kwargs)
        copy.meta = {**node.meta, "origin": node.meta.get("origin", node)}
        table[node] = copy
        return copy

    def _chunked(self, value: Any) -> Any:
        """A FakeTensor's shape with the dimension cut to a chunk."""
        shape = [self.chunk if expr_of(s) == self.stages.size else s for s in value.shape]
        with torch.no_grad(), value.fake_mode:
            return torch.empty(shape, dtype=value.dtype, device=value.device)

    def _call(
        self, graph: torch.fx.Graph, target: Any, args: tuple[Any, ...], value: Any, like: torch.fx.Node, name: str
    ) -> torch.fx.Node:
        node = graph.create_node("call_function", target, (), {}, name=name)
        node.args = args
        node.meta.update(val=value, location=like.meta.get("location"))
        return node

    def _loop(self, stage: int, members: list[torch.fx.Node]) -> None:
        from ..language import full

        stages = self.stages
        sums = [n for n in members if n in stages.reductions and stages.stage[n] == stage]
        body = torch.fx.Graph()
        table: dict[torch.fx.Node, torch.fx.Node] = {}
        inputs: list[torch.fx.Node] = []
        carried: dict[int, int] = {}
        accumulators: list[torch.fx.Node] = []
        for position, node in enumerate(sums):
            source = node.args[0]
            value = self._chunked(source.meta["val"])  # type: ignore[union-attr]
            neutral = REDUCTIONS[node.target].neutral(value.dtype)  # type: ignore[index]
            init = self._call(
                self.graph, full, (list(value.shape), neutral, value.dtype, None), value, node, f"{node.name}_acc"
            )
            placeholder = body.placeholder(f"{node.name}_acc")
            placeholder.meta.update(val=self._chunked(source.meta["val"]), location=node.meta.get("location"))  # type: ignore[union-attr]
            inputs.append(init)
            carried[position] = position
            accumulators.append(placeholder)
        outside = [
            source
            for n in members
            for source in n.all_input_nodes
            if source not in members and source.target is not host_tensor
        ]
        for source in dict.fromkeys(outside):
            placeholder = body.placeholder(source.name)
            placeholder.meta = {**self.copies[source].meta}
            table[source] = placeholder
            inputs.append(self.copies[source])
        for source in dict.fromkeys(s for n in members for s in n.all_input_nodes if s.target is host_tensor):
            self._copy(body, source, table)
        results: list[torch.fx.Node] = []
        for node in members:
            if node in sums:
                reduction = REDUCTIONS[node.target]  # type: ignore[index]
                operand = table[node.args[0]]  # type: ignore[index]
                accumulator = accumulators[len(results)]
                merged = self._call(
                    body,
                    reduction.combine,
                    (accumulator, operand),
                    self._chunked(node.args[0].meta["val"]),  # type: ignore[union-attr]
                    node,
                    f"{node.name}_next",
                )
                # The last chunk's padding must not count: backends mask the operand to the neutral element.
                merged.meta["neutral"] = (1, reduced_dim(node), reduction.neutral(operand.meta["val"].dtype))
                results.append(merged)
                continue
            copy = self._copy(body, node, table)
            if isinstance(copy.meta.get("val"), torch.Tensor):
                copy.meta["val"] = self._chunked(copy.meta["val"])
            if isinstance(node.target, Op) and node.target.name in ("load", "store"):
                index = list(copy.args[1])  # type: ignore[arg-type]
                index[stages._sliced(node)[0]] = TracedTile(self.axis)
                copy.args = (copy.args[0], index, *copy.args[2:])
            elif isinstance(node.target, Op) or node.target is _aten.expand.default:
                at = 0 if isinstance(node.target, Op) else 1
                shape = [self.chunk if expr_of(s) == stages.size else s for s in copy.args[at]]  # type: ignore[union-attr]
                copy.args = (*copy.args[:at], shape, *copy.args[at + 1 :])
        body.output(list(results))
        loop_info = GraphInfo(len(self.ir.graphs), GraphKind.LOOP, body, [self.axis], carried, self.info.location)
        self.ir.graphs.append(loop_info)
        value = tuple(r.meta["val"] for r in results)
        loop = self._call(
            self.graph,
            for_loop,
            (loop_info.id, [0], [self.axis.end], inputs),
            value,
            members[0],
            f"reduction_loop_{stage}",
        )
        for i, node in enumerate(sums):
            partial = self._call(self.graph, device_ir.GETITEM, (loop, i), value[i], node, f"{node.name}_partial")
            final = self._copy_reduction(node, partial)
            self.copies[node] = final

    def _copy_reduction(self, node: torch.fx.Node, partial: torch.fx.Node) -> torch.fx.Node:
        final = self._call(self.graph, node.target, (partial, *node.args[1:]), node.meta["val"], node, node.name)
        final.kwargs = dict(node.kwargs)
        if "user_name" in node.meta:
            final.meta["user_name"] = node.meta["user_name"]
        return final
