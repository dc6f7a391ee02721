"""Products that are rounded and then added up in a loop: added an iteration later than they are made.

`acc = acc * shrink + torch.einsum("mn,nd->md", weights, values)` of bfloat16 rounds each product before it is added.
On tensor cores that work while the program goes on (wgmma), a product that is only carried to the next iteration is in
work beside that one's first product; one that is rounded has to be waited for where it is.  So the loop carries the
product as it was summed, in float32, and its factor; the next iteration rounds and adds it where its own product
begins, and what comes after the loop does so for the last one.  Bits are the same: the same numbers are multiplied,
rounded and added in the same order, and before the first there is 0 * 1 + 0.

Not here: which products are worth the registers (the backend's `generate`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.fx

from ..language.creation import full
from .device_ir import DeviceIR
from .device_ir import GraphInfo
from .device_ir import GraphKind
from .nodes import GETITEM
from .nodes import Dot
from .nodes import ForLoop
from .nodes import Full
from .nodes import Item
from .nodes import copy_of
from .nodes import operand
from .nodes import tensor_of
from .pointwise import CONVERT
from .symbols import symbols_of

_aten = torch.ops.aten
_NARROW = frozenset({torch.bfloat16, torch.float16})

Table = dict[torch.fx.Node, torch.fx.Node]


def rounded_products(ir: DeviceIR) -> list[torch.fx.Node]:
    """The products of 16-bit results that nothing is added to."""
    return [dot.node for dot in ir.views(Dot) if dot.acc is None and dot.result.dtype in _NARROW]


def delay_products(ir: DeviceIR, wanted: Callable[[torch.fx.Node], bool]) -> DeviceIR:
    """An IR whose loops add rounded products an iteration later.

    Args:
        ir: the device IR.
        wanted: which products it is done to, if it can be.

    Returns:
        `ir` itself if there is none, else a copy; each node's `meta["origin"]` is the node it was made from.
    """
    while found := _first(ir, wanted):
        graphs = list(ir.graphs)
        graphs[found.body.id], graphs[found.outer.id] = found.new_body(), found.new_outer()
        ir = dataclasses.replace(ir, graphs=graphs)
    return ir


def _first(ir: DeviceIR, wanted: Callable[[torch.fx.Node], bool]) -> _Sum | None:
    for outer in ir.graphs:
        for loop in filter(None, map(ForLoop.match, outer.graph.nodes)):
            body = ir.graphs[loop.graph_id]
            for position in body.carried if body.kind is GraphKind.LOOP else ():
                found = _match(outer, loop, body, position)
                if found is not None and wanted(found.product):
                    return found
    return None


def _match(outer: GraphInfo, loop: ForLoop, body: GraphInfo, position: int) -> _Sum | None:
    """A carried value that starts with 0 and is `old + rounded`, or `old * factor + rounded`, and nothing else's."""
    start, old, new = loop.inputs[position], body.placeholders[position], body.outputs[body.carried[position]]
    zeros = Full.match(start)
    if zeros is None or not _is_zero(zeros.value) or not _is_call(new, _aten.add.Tensor) or body.outputs.count(new) > 1:
        return None
    wide = next((arg for arg in new.args if _is_call(arg, CONVERT)), None)
    kept = next((arg for arg in new.args if arg is not wide), None)
    if not isinstance(wide, torch.fx.Node) or not isinstance(kept, torch.fx.Node):
        return None
    product = operand(wide)
    dot = Dot.match(product)
    if (
        tensor_of(new).dtype is not torch.float32
        or dot is None
        or dot.acc is not None
        or dot.result.dtype not in _NARROW
    ):
        return None
    scaled = kept if kept is not old and _is_call(kept, _aten.mul.Tensor) and old in kept.args else None
    if kept is not old and (scaled is None or all(arg is old for arg in scaled.args)):
        return None
    chain = [node for node in (old, product, wide, scaled, new) if node is not None]
    same = all(tensor_of(node).shape == tensor_of(new).shape for node in chain)
    if not same or any(len(node.users) != 1 for node in chain):
        return None
    factor = next((arg for arg in scaled.args if arg is not old), None) if scaled is not None else None
    views: list[torch.fx.Node] = []
    while isinstance(factor, torch.fx.Node) and factor.target is _aten.unsqueeze.default:
        views.insert(0, factor)
        factor = operand(factor)
    if isinstance(factor, torch.fx.Node) and factor.op != "call_function":
        return None
    carried = [product, *([factor] if isinstance(factor, torch.fx.Node) else [])]
    own = {axis.block.symbol for axis in body.axes}
    if any(symbols_of(size) & own for node in carried for size in tensor_of(node).shape):
        return None
    return _Sum(outer, loop, body, position, old, product, wide, scaled, factor, views, new)


def _is_call(value: Any, target: Any) -> bool:
    return isinstance(value, torch.fx.Node) and value.target is target and not value.kwargs


def _is_zero(value: Any) -> bool:
    return isinstance(value, (int, float)) and str(float(value)) == "0.0"


@dataclasses.dataclass(frozen=True)
class _Sum:
    """One such carried value.

    Attributes:
        outer, loop: the graph that has the loop, and the loop.
        body, position: the loop's graph, and which of its placeholders the value is.
        old, product, wide, scaled, factor, views, new: `product` is what is rounded, `wide` float32 of it again,
            `scaled` = `old` times `factor`, by way of `views`, if there is one; `new` their sum.
    """

    outer: GraphInfo
    loop: ForLoop
    body: GraphInfo
    position: int
    old: torch.fx.Node
    product: torch.fx.Node
    wide: torch.fx.Node
    scaled: torch.fx.Node | None
    factor: Any
    views: list[torch.fx.Node]
    new: torch.fx.Node

    @property
    def carries_factor(self) -> bool:
        return isinstance(self.factor, torch.fx.Node)

    def _sum(
        self, graph: torch.fx.Graph, old: torch.fx.Node, product: torch.fx.Node, factor: torch.fx.Node | None
    ) -> torch.fx.Node:
        """The sum with one product more, which is as it was summed."""
        kept = old
        if self.scaled is not None:
            by: Any = factor
            for view in self.views:
                by = copy_of(graph, view, (by, *view.args[1:]))
            by = self.factor if factor is None else by
            kept = copy_of(graph, self.scaled, tuple(old if arg is self.old else by for arg in self.scaled.args))
        rounded = graph.create_node(
            "call_function", CONVERT, (product, tensor_of(self.product).dtype), {}, name="rounded"
        )
        rounded.meta.update(self.wide.meta, val=self.product.meta["val"])
        wide = copy_of(graph, self.wide, (rounded, *self.wide.args[1:]))
        return copy_of(graph, self.new, tuple(wide if arg is self.wide else kept for arg in self.new.args))

    def new_body(self) -> GraphInfo:
        """The loop's graph, which adds the product of the iteration before."""
        graph, table = torch.fx.Graph(), Table()
        placeholders = self.body.placeholders
        for node in placeholders:
            table[node] = copy_of(graph, node, ())
        before = self._placeholder(graph, "product_before", self.wide)
        factor = self._placeholder(graph, "factor_before", self.factor) if self.carries_factor else None
        left_out = {self.scaled, self.wide, self.new}
        for view in reversed(self.views):
            left_out |= {view} if left_out.issuperset(view.users) else set()
        for node in self.body.graph.nodes:
            if node is self.product:
                table[self.new] = self._sum(graph, table[self.old], before, factor)
                args = list(torch.fx.node.map_arg(node.args, lambda n: table[n]))
                args[Dot.of(node).op.positions["out_dtype"]] = torch.float32
                table[node] = copy_of(graph, node, tuple(args))
                table[node].meta["val"] = self.wide.meta["val"]
            elif node.op == "output":
                also = [table[self.product], *([table[self.factor]] if self.carries_factor else [])]
                graph.output([*torch.fx.node.map_arg(node.args[0], lambda n: table[n]), *also])
            elif node.op != "placeholder" and node not in left_out:
                table[node] = copy_of(graph, node, torch.fx.node.map_arg(node.args, lambda n: table[n]))
        inputs, outputs = len(placeholders), len(self.body.outputs)
        more = {inputs + i: outputs + i for i in range(1 + self.carries_factor)}
        return dataclasses.replace(self.body, graph=graph, carried={**self.body.carried, **more})

    @staticmethod
    def _placeholder(graph: torch.fx.Graph, name: str, like: torch.fx.Node) -> torch.fx.Node:
        node = graph.create_node("placeholder", name, (), {}, name=name)
        node.meta.update(val=like.meta["val"], location=like.meta.get("location"))
        return node

    def new_outer(self) -> GraphInfo:
        """The graph that has the loop, which adds the last product behind it."""
        graph, table = torch.fx.Graph(), Table()
        output, outputs = self.body.carried[self.position], len(self.body.outputs)
        carried = [self.wide, *([self.factor] if self.carries_factor else [])]
        for node in self.outer.graph.nodes:
            if node.op == "output":
                graph.output(torch.fx.node.map_arg(node.args[0], lambda n: table[n]))
                continue
            args = torch.fx.node.map_arg(node.args, lambda n: table[n])
            if node is self.loop.node:
                starts = [self._start(graph, like, value) for like, value in zip(carried, (0, 1))]
                graph_id, begins, ends, inputs = args
                table[node] = copy_of(graph, node, (graph_id, begins, ends, [*inputs, *starts]))
                table[node].meta["val"] = (*node.meta["val"], *(like.meta["val"] for like in carried))
                continue
            table[node] = copy_of(graph, node, args)
            item = Item.match(node)
            if item is not None and item.source is self.loop.node and item.index == output:
                last = [self._item(graph, table[self.loop.node], outputs + i, like) for i, like in enumerate(carried)]
                table[node] = self._sum(graph, table[node], last[0], last[1] if self.carries_factor else None)
        return dataclasses.replace(self.outer, graph=graph)

    def _start(self, graph: torch.fx.Graph, like: torch.fx.Node, value: int) -> torch.fx.Node:
        name = "factor_before" if value else "product_before"
        node = graph.create_node("call_function", full, (), {}, name=name)
        node.args = (list(tensor_of(like).shape), value, tensor_of(like).dtype, None)
        node.meta.update(val=like.meta["val"], location=self.loop.node.meta.get("location"))
        return node

    @staticmethod
    def _item(graph: torch.fx.Graph, loop: torch.fx.Node, index: int, like: torch.fx.Node) -> torch.fx.Node:
        node = graph.create_node("call_function", GETITEM, (loop, index), {}, name=f"last_{like.name}")
        node.meta.update(val=like.meta["val"], location=loop.meta.get("location"))
        return node
