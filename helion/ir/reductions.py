"""Looped reductions: a whole-dimension reduction rewritten as loops over chunks of the dimension.

`x[tile, :]` makes values that span a whole dimension.  When that is too much for one tile, the graph is cut into
stages: stage 0 holds the reductions that need no other reduction's result, stage 1 those that need stage 0's,
and so on (softmax: maximum, sum, store).  Each stage becomes a loop over chunks that loads what it needs again
and keeps a partial result per lane; the partial results are reduced once, after the loop.  A sum of exponentials
relative to a maximum is found in the maximum's stage, and one of squares of distances from the mean in the sum's
(`online`).

Every other loop goes backwards: what the one before has read last is still in a cache, and what it has read first may
not be.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.fx
from torch._subclasses.fake_tensor import FakeTensorMode

from .. import exc
from ..language.creation import full
from ..language.creation import iota
from .device_ir import DeviceIR
from .device_ir import GraphInfo
from .device_ir import GraphKind
from .device_ir import RollableReduction
from .device_ir import TracedTile
from .device_ir import has_side_effect
from .effects import Touch
from .effects import touches_of
from .nodes import GETITEM
from .nodes import Full
from .nodes import HostTensorNode
from .nodes import Load
from .nodes import Memory
from .nodes import Reduction
from .nodes import Store
from .nodes import copy_of
from .nodes import for_loop
from .nodes import op_of
from .nodes import tensor_of
from .online import Squares
from .online import next_square
from .online import next_total
from .online import online_squares
from .online import online_sums
from .online import relative_to_row
from .online import squares_of_row
from .pointwise import CONVERT
from .pointwise import POINTWISE
from .symbols import expr_of

_aten = torch.ops.aten
_VIEWS = frozenset({_aten.unsqueeze.default, _aten.squeeze.dims, _aten.permute.default, _aten.expand.default})
#: Those of them that are told the shape.
_SHAPED = frozenset({_aten.expand.default, _aten.view.default})


def rollable_sizes(ir: DeviceIR, info: GraphInfo) -> list[Any]:
    """Sizes of the whole dimensions of a graph whose reductions can become loops."""
    found: dict[Any, Any] = {}
    for node in info.graph.nodes:
        if reduction := Reduction.match(node):
            size = tensor_of(reduction.source).shape[reduction.dim]
            if _is_whole(ir, size):
                found.setdefault(expr_of(size), size)
    return [size for size in found.values() if _Stages(ir, info, size).possible]


def passes(ir: DeviceIR, reduction: RollableReduction) -> int:
    """How many loops over its chunks a looped reduction takes: how often a row is read."""
    stages = _Stages(ir, ir.graphs[reduction.graph_id], reduction.size)
    return sum(bool(stages.members(stage)) for stage in range(max(stages.stage.values(), default=0) + 2))


def lane_numbers(ir: DeviceIR, reduction: RollableReduction) -> int:
    """How many numbers a loop over chunks keeps for each element of a chunk, the one that keeps most."""
    stages = _Stages(ir, ir.graphs[reduction.graph_id], reduction.size)
    kept = collections.Counter(stages.stage[node] for node in stages.reductions)
    for squares in stages.squares.values():
        kept[stages.stage[squares.total.node] - 1] += 1
    return max(kept.values(), default=0)


def _is_whole(ir: DeviceIR, size: Any) -> bool:
    """A size of the host's, as opposed to a tile's (whose lanes past the end a loop would count) or 1."""
    if isinstance(size, int):
        return size > 1
    if not isinstance(size, torch.SymInt) or ir.space.depends_on_device(size):
        return False
    return str(size.node.expr).startswith("s") and size.node.expr.is_Symbol


def _is_view(node: torch.fx.Node) -> bool:
    """Whether a node only moves, adds or removes dimensions."""
    if node.target is not _aten.view.default:
        return node.target in _VIEWS
    shapes = [tensor_of(value).shape for value in (node, *node.all_input_nodes[:1])]
    longer, before = ([expr_of(size) for size in shape if expr_of(size) != 1] for shape in shapes)
    return longer == before


class _Stages:
    """The analysis of one graph and size."""

    def __init__(self, ir: DeviceIR, info: GraphInfo, size: Any) -> None:
        self.ir = ir
        self.info = info
        self.size = expr_of(size)
        self.nodes = [n for n in info.graph.nodes if n.op == "call_function" and not HostTensorNode.match(n)]
        self.inner = {n for n in self.nodes if self._spans(n)}
        self.reductions = {n: r for n in self.nodes if (r := Reduction.match(n)) and self._reduces(r)}
        #: Sums that the loop of their maximum finds, by the node of that.
        self.online = online_sums(self.reductions)
        self.stage: dict[torch.fx.Node, int] = {}
        #: The same of sums of squared distances, by the node of the values' sum.
        self.squares: dict[torch.fx.Node, Squares] = {}
        self.possible = self._possible()

    def positions(self, node: torch.fx.Node) -> list[int]:
        """Dimensions of a node's value that have the size."""
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            return []
        return [d for d, s in enumerate(value.shape) if expr_of(s) == self.size]

    def _spans(self, node: torch.fx.Node) -> bool:
        store = Store.match(node)
        return bool(self.sliced(store) if store else self.positions(node))

    def sliced(self, access: Memory) -> list[int]:
        """Index elements of a load or store that are `:` over a dimension of the size."""
        dim, places = 0, []
        for place, element in enumerate(access.index):
            if element is None:
                continue
            whole = isinstance(element, slice) and element == slice(None)
            if whole and expr_of(access.tensor.size(dim)) == self.size:
                places.append(place)
            dim += 1
        return places

    def _reduces(self, reduction: Reduction) -> bool:
        return self.positions(reduction.source) == [reduction.dim] and not self.positions(reduction.node)

    def _possible(self) -> bool:
        if not self.reductions or any(r.kind.combine is None for r in self.reductions.values()):
            return False
        for node in self.info.graph.nodes:
            if node.op == "placeholder" and self.positions(node):
                return False
            if node.op == "output" and any(isinstance(a, torch.fx.Node) and self.positions(a) for a in node.args[0]):
                return False
        if not self.fits:
            return False
        self._assign_stages()
        return self._memory_is_safe()

    @property
    def fits(self) -> bool:
        """Whether everything that has the dimension works chunk by chunk."""
        takers = (n for n in self.nodes if n in self.inner or any(a in self.inner for a in n.all_input_nodes))
        return all(self._fits(node) for node in takers if node not in self.reductions)

    def _fits(self, node: torch.fx.Node) -> bool:
        """Whether a node works chunk by chunk."""
        store = Store.match(node)
        if access := store or Load.match(node):
            if len(self.sliced(access)) != 1 or any(e is Ellipsis for e in access.index):
                return False
            if store:
                return not isinstance(store.value, torch.fx.Node) or len(self.positions(store.value)) <= 1
            return len(self.positions(node)) == 1
        if node.target is iota:
            return not isinstance(node.args[0], torch.fx.Node)
        # Reductions that are left run over another dimension.
        chunked = node.target in POINTWISE or _is_view(node) or Full.match(node) or Reduction.match(node)
        return bool(chunked) and len(self.positions(node)) == 1

    def _assign_stages(self) -> None:
        for node in self.nodes:
            stage = 0
            for source in node.all_input_nodes:
                if source in self.stage:
                    stage = max(stage, self.stage[source] + (source in self.reductions))
            self.stage[node] = stage
        self.squares = online_squares(self.reductions, self.stage)

    def _memory_is_safe(self) -> bool:
        """Loads are repeated in later stages, so nothing they read may be written before the last of them."""
        if any(self.ir.subgraphs_of(node) for node in self.nodes):
            return False  # a nested loop may read or write anything between two stages
        uses = {node: touches_of(node) for node in self.nodes}
        written: dict[int, int] = {}  # storage -> the first stage that writes it
        for node in filter(has_side_effect, self.nodes):
            if node in self.inner:
                for touch in uses[node]:
                    written[touch.storage] = min(written.get(touch.storage, 1 << 30), self.stage[node])
            elif not self._is_alone(node, uses):
                return False  # its place among the loops would change
        last = max(self.stage.values(), default=0)
        return not any(
            touch.storage in written and (node not in self.inner or written[touch.storage] < last)
            for node in self.nodes
            for touch in uses[node]
            if not touch.writes
        )

    def _is_alone(self, node: torch.fx.Node, uses: dict[torch.fx.Node, list[Touch]]) -> bool:
        """Whether a node writes memory that nothing else in the graph touches, such as the results of the reductions:
        where it stands between the loops then makes no difference."""
        mine = {touch.storage for touch in uses[node] if touch.memory and not touch.memory.addresses}
        others = {touch.storage for other in self.nodes if other is not node for touch in uses[other]}
        return bool(mine) and not mine & others

    def members(self, stage: int) -> list[torch.fx.Node]:
        """Inner nodes that the loop of a stage computes: its reductions, its stores, and what they need."""
        found = (*self.online.values(), *(squares.total for squares in self.squares.values()))
        own = self.reductions.keys() - {total.node for total in found}
        sinks = [n for n in self.nodes if self.stage[n] == stage and (n in own or self._is_sink(n))]
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


def roll(ir: DeviceIR, reductions: list[RollableReduction]) -> DeviceIR:
    """A copy of the IR in which these reductions are loops; graphs that do not change are shared.

    Raises:
        exc.InvalidConfig: each could be a loop, but not all of them: a sum of sums.
    """
    graphs = list(ir.graphs)
    rolled = dataclasses.replace(ir, graphs=graphs)
    for reduction in reductions:
        info = graphs[reduction.graph_id]
        if info is not ir.graphs[reduction.graph_id] and not _Stages(rolled, info, reduction.size).fits:
            raise exc.InvalidConfig(
                reason="reduction_loops asks for loops of two reductions of which one reduces the other's results",
                fix="give one of them None in reduction_loops.",
            )
        graphs[reduction.graph_id] = _Roller(rolled, info, reduction).run()
    return rolled


def rolling_constraint(ir: DeviceIR, reductions: list[RollableReduction]) -> Callable[[dict[str, Any]], str | None]:
    """What a Config is asked before anything is compiled: why its loops of reductions cannot be at once, or None."""

    @functools.cache  # searches ask for thousands of Configs
    def fit(looped: tuple[int, ...]) -> bool:
        try:
            roll(ir, [reductions[i] for i in looped])
        except exc.InvalidConfig:
            return False
        return True

    def check(config: dict[str, Any]) -> str | None:
        chunks = config.get("reduction_loops", ())
        looped = tuple(i for i, chunk in enumerate(chunks) if chunk is not None)
        if len({reductions[i].graph_id for i in looped}) == len(looped) or fit(looped):
            return None
        sizes = " and ".join(f"the one of {ir.space.readable(str(reductions[i].size))}" for i in looped)
        return (
            f"reduction_loops={chunks!r} asks for loops over dimensions of one value ({sizes}): None is allowed for "
            "all of them, and a number for one"
        )

    return check


class _Roller:
    def __init__(self, ir: DeviceIR, info: GraphInfo, reduction: RollableReduction) -> None:
        self.ir = ir
        self.info = info
        self.axis = reduction.axis
        self.chunk = reduction.axis.block.var
        # A mode of its own: the trace's is of one thread at a time, and several generate code at once.
        self.fake_mode = FakeTensorMode(shape_env=self.chunk.node.shape_env)
        self.stages = _Stages(ir, info, reduction.size)
        self.graph = torch.fx.Graph()
        self.copies: dict[torch.fx.Node, torch.fx.Node] = {}
        self.loops = 0
        #: Squared distances that are found in a loop, with the lanes' sums and squares.
        self.unfinished: list[tuple[Squares, torch.fx.Node, torch.fx.Node]] = []
        #: Of each load its copies in the loops, in their order.
        self.loads: dict[torch.fx.Node, list[torch.fx.Node]] = {}

    def run(self) -> GraphInfo:
        stages = self.stages
        for node in self.info.graph.nodes:
            if node.op == "placeholder" or HostTensorNode.match(node):
                self._copy(self.graph, node, self.copies)
        last = max(stages.stage.values(), default=0)
        for stage in range(last + 2):
            for node in stages.nodes:
                if stages.stage[node] == stage and node not in stages.inner and node not in stages.reductions:
                    self._copy(self.graph, node, self.copies)
                    self._finish_squares(node)
            members = stages.members(stage)
            if members:
                self._loop(stage, members)
        for copies in self.loads.values():
            for copy in copies if len(copies) > 1 else ():
                copy.meta["comes_again"] = copy is not copies[-1]
        outputs = [self.copies.get(a, a) for a in self.info.outputs]
        self.graph.output(outputs)
        return dataclasses.replace(self.info, graph=self.graph)

    def _copy(
        self, graph: torch.fx.Graph, node: torch.fx.Node, table: dict[torch.fx.Node, torch.fx.Node]
    ) -> torch.fx.Node:
        copy = table[node] = copy_of(graph, node, torch.fx.node.map_arg(node.args, lambda n: table[n]))
        return copy

    def _chunked(self, value: Any, dtype: torch.dtype | None = None) -> Any:
        """A FakeTensor's shape with the dimension cut to a chunk, of its dtype or another."""
        shape = [self.chunk if expr_of(s) == self.stages.size else s for s in value.shape]
        with torch.no_grad(), self.fake_mode:
            return torch.empty(shape, dtype=dtype or value.dtype, device=value.device)

    def _call(
        self, graph: torch.fx.Graph, target: Any, args: tuple[Any, ...], value: Any, like: torch.fx.Node, name: str
    ) -> torch.fx.Node:
        node = graph.create_node("call_function", target, (), {}, name=name)
        node.args = args
        node.meta.update(val=value, location=like.meta.get("location"))
        return node

    def _loop(self, stage: int, members: list[torch.fx.Node]) -> None:
        stages = self.stages
        sums = [stages.reductions[n] for n in members if n in stages.reductions and stages.stage[n] == stage]
        totals = {r.node: stages.online[r.node] for r in sums if r.node in stages.online}
        squares = {r.node: stages.squares[r.node] for r in sums if r.node in stages.squares}
        body = torch.fx.Graph()
        found = (*sums, *totals.values(), *(of.total for of in squares.values()))
        inputs = [self._accumulator(reduction) for reduction in found]
        carried = {r.node: self._placeholder(body, init, init.name) for r, init in zip(found, inputs)}
        accumulators = {r.node: carried[r.node] for r in sums}
        table: dict[torch.fx.Node, torch.fx.Node] = {}
        sources = dict.fromkeys(source for n in members for source in n.all_input_nodes)
        for source in sources:
            if source not in members and not HostTensorNode.match(source):
                table[source] = self._placeholder(body, self.copies[source], source.name)
                inputs.append(self.copies[source])
        for source in filter(HostTensorNode.match, sources):
            self._copy(body, source, table)
        results: list[torch.fx.Node] = []
        grown: dict[torch.fx.Node, torch.fx.Node] = {}
        for node in members:
            if node in accumulators:
                reduction = stages.reductions[node]
                results.append(self._merge(body, reduction, accumulators[node], table[reduction.source]))
                if total := totals.get(node):
                    make = functools.partial(self._pointwise, body, total)
                    values, so_far = table[reduction.source], carried[total.node]
                    grown[total.node] = next_total(make, values, accumulators[node], so_far)
                if of := squares.get(node):
                    # Its loop is the first one, which goes forwards: lanes that end early end in the last chunk.
                    count = self._all(body, reduction, self.axis.offset // self.chunk + 1)
                    make = functools.partial(self._pointwise, body, reduction)
                    square = next_square(make, table[reduction.source], results[-1], count)
                    grown[of.total.node] = self._merge(body, of.total, carried[of.total.node], square)
            else:
                self._chunk(copy := self._copy(body, node, table))
                if Load.match(node):
                    self.loads.setdefault(node, []).append(copy)
                elif Store.match(node):
                    copy.meta["of_chunk"] = True
        results += [grown[reduction.node] for reduction in found[len(sums) :]]
        body.output(list(results))
        places = {i: i for i in range(len(results))}
        backwards = self.loops % 2 == 1
        self.loops += 1
        info = GraphInfo(
            *(len(self.ir.graphs), GraphKind.LOOP, body, [self.axis], places, self.info.location), backwards=backwards
        )
        self.ir.graphs.append(info)
        value = tuple(r.meta["val"] for r in results)
        arguments = (info.id, [0], [self.axis.end], inputs)
        loop = self._call(self.graph, for_loop, arguments, value, members[0], f"reduction_loop_{stage}")
        partials = {
            node: self._call(self.graph, GETITEM, (loop, i), value[i], node, f"{node.name}_partial")
            for i, node in enumerate(carried)
        }
        for reduction in sums:
            self.copies[reduction.node] = self._copy_reduction(reduction.node, partials[reduction.node])
        for largest, total in totals.items():
            self.copies[total.node] = self._total(stages.reductions[largest], total, partials)
        for node, of in squares.items():
            self.unfinished.append((of, partials[node], partials[of.total.node]))
        for reduction in sums:
            self._finish_squares(reduction.node)

    def _finish_squares(self, center: torch.fx.Node) -> None:
        """Squared distances of a row, from those of its lanes, where the number that they are from is there."""
        for of, total, squares in self.unfinished:
            if of.center is center:
                self._finish(of, total, squares)

    def _finish(self, of: Squares, total: torch.fx.Node, squares: torch.fx.Node) -> None:
        make = functools.partial(self._pointwise, self.graph, of.total)
        size = tensor_of(of.total.source).shape[of.total.dim]
        last = (size - 1) // self.chunk  # chunk, of which lanes may be past the end

        def lanes(target: Any, args: tuple[Any, ...], dtype: torch.dtype) -> torch.fx.Node:
            with torch.no_grad(), self.fake_mode:
                value = torch.empty([self.chunk], dtype=dtype, device=tensor_of(of.total.source).device)
            return self._call(self.graph, target, args, value, of.total.node, "past_end")

        index = lanes(iota, (last * self.chunk, self.chunk, 1, torch.int32), torch.int32)
        past = lanes(CONVERT, (lanes(_aten.ge.Scalar, (index, size), torch.bool), torch.float32), torch.float32)
        count = make(_aten.sub.Tensor, (self._all(self.graph, of.total, last + 1), past))
        self.copies[of.total.node] = self._copy_reduction(
            of.total.node, squares_of_row(make, total, squares, count, self.copies[of.center])
        )

    def _all(self, graph: torch.fx.Graph, like: Reduction, value: Any) -> torch.fx.Node:
        """A chunk that has one number everywhere, as float32."""
        shape = self._chunked(tensor_of(like.source), torch.float32)
        return self._call(graph, full, (list(shape.shape), value, torch.float32, None), shape, like.node, "count")

    def _total(
        self, largest: Reduction, total: Reduction, partials: dict[torch.fx.Node, torch.fx.Node]
    ) -> torch.fx.Node:
        """The sum of a row, from those of its lanes."""
        of_row = self.copies[largest.node]
        if not largest.keepdim:
            with torch.no_grad(), self.fake_mode:
                shape = list(tensor_of(of_row).shape)
                shape.insert(largest.dim, 1)
                value = torch.empty(shape, dtype=tensor_of(of_row).dtype, device=tensor_of(of_row).device)
            name = f"{largest.node.name}_of_row"
            of_row = self._call(self.graph, _aten.unsqueeze.default, (of_row, largest.dim), value, total.node, name)
        make = functools.partial(self._pointwise, self.graph, total)
        lanes = relative_to_row(make, partials[largest.node], partials[total.node], of_row)
        return self._copy_reduction(total.node, lanes)

    def _pointwise(
        self,
        graph: torch.fx.Graph,
        like: Reduction,
        target: Any,
        args: tuple[Any, ...],
        dtype: torch.dtype | None = None,
        name: str = "",
    ) -> torch.fx.Node:
        """A node of a chunk's shape."""
        value = self._chunked(tensor_of(like.source), dtype)
        return self._call(graph, target, args, value, like.node, name or target._schema.name.split("::")[-1])

    def _accumulator(self, reduction: Reduction) -> torch.fx.Node:
        """The start of a partial result per lane of a chunk."""
        value = self._chunked(tensor_of(reduction.source))
        args = (list(value.shape), reduction.kind.neutral(value.dtype), value.dtype, None)
        return self._call(self.graph, full, args, value, reduction.node, f"{reduction.node.name}_acc")

    def _placeholder(self, body: torch.fx.Graph, source: torch.fx.Node, name: str) -> torch.fx.Node:
        placeholder = body.placeholder(name)
        placeholder.meta = dict(source.meta)
        return placeholder

    def _merge(
        self,
        body: torch.fx.Graph,
        reduction: Reduction,
        accumulator: torch.fx.Node,
        chunk: torch.fx.Node,
    ) -> torch.fx.Node:
        """A chunk combined with the partial result so far."""
        value = self._chunked(tensor_of(reduction.source))
        name = f"{reduction.node.name}_next"
        merged = self._call(body, reduction.kind.combine, (accumulator, chunk), value, reduction.node, name)
        # The last chunk's padding must not count: backends mask the operand to the neutral element.
        merged.meta["neutral"] = (1, reduction.dim, reduction.kind.neutral(tensor_of(chunk).dtype))
        return merged

    def _chunk(self, copy: torch.fx.Node) -> None:
        """Cut what a copied node computes, accesses or makes to a chunk."""
        if access := Load.match(copy) or Store.match(copy):
            index = list(access.index)
            index[self.stages.sliced(access)[0]] = TracedTile(self.axis)
            access.set_index(index)
        if copy.target is iota:
            start, _, step, dtype = list[Any](copy.args)
            copy.args = (start + step * self.axis.offset, self.chunk, step, dtype)
        op = None if copy.target is iota else op_of(copy)
        for at in op.shape_args if op else (1,) if copy.target in _SHAPED else ():
            sizes: Any = copy.args[at]
            shape = [self.chunk if expr_of(s) == self.stages.size else s for s in sizes]
            copy.args = (*copy.args[:at], shape, *copy.args[at + 1 :])
        if isinstance(copy.meta.get("val"), torch.Tensor):
            copy.meta["val"] = self._chunked(copy.meta["val"])

    def _copy_reduction(self, node: torch.fx.Node, partial: torch.fx.Node) -> torch.fx.Node:
        final = self._call(self.graph, node.target, (partial, *node.args[1:]), node.meta["val"], node, node.name)
        final.kwargs = dict(node.kwargs)
        if "user_name" in node.meta:
            final.meta["user_name"] = node.meta["user_name"]
        return final
