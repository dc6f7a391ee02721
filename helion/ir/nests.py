"""Loops with nothing between them: a top-level loop whose body is one more loop is a top-level loop over both.

`for b in hl.grid(B): for rows in hl.tile(N): ...` says the same as a loop over `hl.tile([B, N], block_size=[1, None])`,
but has B programs where that has many: with a batch of 64 half of a GPU is idle.  What stands between the two loops may
stay if it is cheap to repeat: constants, indices, scalars from memory.

The inner loop ran its iterations one after the other, so they may run at the same time only where nobody can tell:
each iteration stores to elements of its own, which no other one reads.  What cannot be judged stays as it is: index
tensors and atomics in the inner loop, bounds that are not known on the host, values that it carries.

Not here: whether tiles of the top-level loop may run at the same time, which the user has said (`dependencies`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import sympy
import torch
import torch.fx

from .axes import index_items
from .device_ir import Axis
from .device_ir import AxisKind
from .device_ir import DeviceIR
from .device_ir import GraphInfo
from .device_ir import GraphKind
from .device_ir import TracedTile
from .device_ir import has_side_effect
from .effects import Touch
from .effects import touches
from .nodes import Combining
from .nodes import ForLoop
from .nodes import IfElse
from .nodes import Load
from .nodes import Memory
from .nodes import Product
from .nodes import Reduction
from .nodes import Store
from .spans import overlaps_itself
from .symbols import expr_of
from .symbols import symbols_of


def merge_nests(ir: DeviceIR) -> None:
    """Make one loop of each top-level loop and the loop that is all of its body, again and again."""
    for root in ir.roots:
        while (loop := _only_loop(ir, ir.graphs[root.graph_id])) is not None:
            _merge(ir, ir.graphs[root.graph_id], loop)


# -- where it is allowed ---------------------------------------------------------------------------------------------


def _only_loop(ir: DeviceIR, root: GraphInfo) -> ForLoop | None:
    """The loop that is all of a top-level loop's body and whose iterations may run at the same time."""
    nodes = [node for node in root.graph.nodes if node.op == "call_function"]
    loops = [loop for loop in map(ForLoop.match, nodes) if loop is not None]
    if len(loops) != 1 or not all(_repeats_cheaply(node) for node in nodes if node is not loops[0].node):
        return None
    body = ir.graphs[loops[0].graph_id]
    known = all(_on_host(ir, axis) and axis.lengths is None for axis in body.axes)
    if not known or not body.axes or body.outputs or not _apart(ir, root, body):
        return None
    return loops[0]


def _on_host(ir: DeviceIR, axis: Axis) -> bool:
    bounds = axis.begin, axis.end
    return all(isinstance(bound, int | torch.SymInt) and ir.space.is_host_value(bound) for bound in bounds)


def _repeats_cheaply(node: torch.fx.Node) -> bool:
    """Whether a node between the loops has no effect, and costs next to nothing in each tile of the inner one."""
    if has_side_effect(node) or any(kind.match(node) for kind in (IfElse, Combining, Product, Reduction)):
        return False
    value = node.meta.get("val")
    return Memory.match(node) is None or (Load.match(node) is not None and _is_scalar(value))


def _is_scalar(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and not value.dim()


def _apart(ir: DeviceIR, root: GraphInfo, body: GraphInfo) -> bool:
    """Whether no iteration of the inner loop touches what another one stores."""
    for info in ir.inside(body):
        for node in info.graph.nodes:
            if node.op == "call_function" and (has_side_effect(node) or Memory.match(node)):
                if not (Load.match(node) or Store.match(node)):
                    return False  # atomics, waiting for others, printing: their order can be seen
    used = list(touches(ir, root))
    stored = {touch.storage for touch in used if touch.writes}
    return all(_place(touch, body.axes) for touch in used if touch.writes) and all(
        len({_place(touch, body.axes) for touch in used if touch.storage == storage}) == 1 for storage in stored
    )


def _place(touch: Touch, axes: Iterable[Axis]) -> tuple[Any, ...] | None:
    """The tensor, and where in it an iteration's own elements are: a dimension and a distance for each axis.  None if
    they may be others' too."""
    memory = touch.memory
    if memory is None or memory.addresses is not None or overlaps_itself(memory.tensor):
        return None
    items = [item for item in index_items(memory) if item.kind != "new"]
    if any(isinstance(item.value, torch.fx.Node) for item in items):
        return None
    found: list[Any] = [memory.name]
    for axis in axes:
        shifts = {item.dim: _shift(item.value, axis) for item in items if not item.repeats}
        own = tuple((dim, shift) for dim, shift in shifts.items() if shift is not None)
        if not own:
            return None
        found.append(own)
    return tuple(found)


def _shift(element: Any, axis: Axis) -> sympy.Expr | None:
    """How far from an axis' place an index element is, if it is a constant distance."""
    if isinstance(element, TracedTile) and element.axis is axis:
        shift = expr_of(element.offset)
    elif axis.kind is AxisKind.GRID and symbols_of(element) >= {axis.offset.node.expr}:
        shift = sympy.expand(expr_of(element) - axis.offset.node.expr)
    else:
        return None
    return shift if not shift.free_symbols else None


# -- how it is done --------------------------------------------------------------------------------------------------


def _merge(ir: DeviceIR, root: GraphInfo, loop: ForLoop) -> None:
    body = ir.graphs[loop.graph_id]
    graph = torch.fx.Graph()
    table: dict[torch.fx.Node, torch.fx.Node] = {}

    def copy(nodes: Iterable[torch.fx.Node]) -> None:
        for node in nodes:
            if node.op == "call_function" and node is not loop.node:
                made = graph.create_node(node.op, node.target, (), {}, name=node.name)
                made.args = torch.fx.node.map_arg(node.args, lambda source: table[source])
                made.kwargs, made.meta = dict(node.kwargs), dict(node.meta)
                table[node] = made

    copy(root.graph.nodes)
    for placeholder, given in zip(body.placeholders, loop.inputs):
        table[placeholder] = table[given]
    copy(body.graph.nodes)
    graph.output([])
    axes = [*root.axes, *body.axes]
    statements = root.statements + 1
    ir.graphs[root.id] = dataclasses.replace(root, graph=graph, axes=axes, statements=statements)
    _remove(ir, body)


def _remove(ir: DeviceIR, info: GraphInfo) -> None:
    """Take a graph that nothing holds any more out of the list; those behind it get the number before theirs."""
    assert info.kind is GraphKind.LOOP
    del ir.graphs[info.id]

    def moved(number: int) -> int:
        return number - (number > info.id)

    for graph in ir.graphs:
        graph.id = moved(graph.id)
        for node in graph.graph.nodes:
            held = _held_at(node)
            if held:
                node.args = tuple(moved(arg) if at in held else arg for at, arg in enumerate(node.args))
    for root in ir.roots:
        root.graph_id = moved(root.graph_id)


def _held_at(node: torch.fx.Node) -> tuple[int, ...]:
    """Positions of a node's arguments that are numbers of graphs."""
    combining = Combining.match(node)
    if combining is not None:
        return (combining.at,)
    return (0,) if ForLoop.match(node) else (1, 2) if IfElse.match(node) else ()
