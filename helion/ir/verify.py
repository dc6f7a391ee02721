"""What a well-formed device IR is: a table of rules, each with the check that finds who breaks it.

Every trace and every rewrite is checked where the setting `verify_ir` (HELION_VERIFY_IR=1) asks for it, as all tests
do.

Not here: what users may write; a kernel that is wrong has had its error before there is an IR.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import torch
import torch.fx

from .. import exc
from .device_ir import DeviceIR
from .device_ir import GraphInfo
from .device_ir import GraphKind
from .device_ir import TracedTile
from .nodes import ForLoop
from .nodes import HostTensorNode
from .nodes import IfElse
from .nodes import Item
from .nodes import Memory
from .nodes import op_of
from .symbols import shape_exprs
from .symbols import symbols_of

Check = Callable[[DeviceIR, GraphInfo, torch.fx.Node], bool]


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _leaves(part)
    elif isinstance(value, TracedTile):
        yield value
        yield from _leaves(value.offset)
    else:
        yield value


def _defined(ir: DeviceIR, info: GraphInfo, node: torch.fx.Node) -> bool:
    symbols = set().union(*map(symbols_of, _leaves((node.args, tuple(node.kwargs.values())))))
    return all(symbol in ir.space.origins for symbol in symbols)


def _known_axes(ir: DeviceIR, info: GraphInfo, node: torch.fx.Node) -> bool:
    tiles = [leaf for leaf in _leaves(node.args) if isinstance(leaf, TracedTile)]
    return all(tile.axis.id < len(ir.space.axes) and ir.space.axes[tile.axis.id] is tile.axis for tile in tiles)


def _own_operands(ir: DeviceIR, info: GraphInfo, node: torch.fx.Node) -> bool:
    return all(source.graph is node.graph for source in node.all_input_nodes)


def _has_value(ir: DeviceIR, info: GraphInfo, node: torch.fx.Node) -> bool:
    return node.op == "output" or "val" in node.meta


def _complete(ir: DeviceIR, info: GraphInfo, node: torch.fx.Node) -> bool:
    op = op_of(node)
    return op is None or (len(node.args) == len(op.positions) and not node.kwargs)


def _host_is_named(ir: DeviceIR, info: GraphInfo, node: torch.fx.Node) -> bool:
    host, memory = HostTensorNode.match(node), Memory.match(node)
    if host is not None:
        return host.name in ir.host_tensors
    return memory is None or HostTensorNode.match(node.args[0]) is not None


def _alike(a: Any, b: Any) -> bool:
    one, other = (node.meta.get("val") if isinstance(node, torch.fx.Node) else None for node in (a, b))
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
        return True
    return one.dtype is other.dtype and shape_exprs(one.shape) == shape_exprs(other.shape)


def _loop_fits(ir: DeviceIR, info: GraphInfo, node: torch.fx.Node) -> bool:
    loop = ForLoop.match(node)
    if loop is None:
        return True
    body = ir.graphs[loop.graph_id]
    placeholders, outputs = body.placeholders, body.outputs
    return (
        body.kind is (GraphKind.LOOP if body.axes else GraphKind.WHILE)
        and len(loop.begins) == len(loop.ends) == len(body.axes)
        and len(loop.inputs) == len(placeholders)
        and all(_alike(given, taken) for given, taken in zip(loop.inputs, placeholders))
        and all(_alike(placeholders[i], outputs[o]) for i, o in body.carried.items())
    )


def _branch_fits(ir: DeviceIR, info: GraphInfo, node: torch.fx.Node) -> bool:
    branch = IfElse.match(node)
    if branch is None:
        return True
    sides = [(ir.graphs[branch.then_id], branch.then_inputs), (ir.graphs[branch.else_id], branch.else_inputs)]
    (then, _), (other, _) = sides
    return (
        all(len(side.placeholders) == len(inputs) and side.kind is GraphKind.BRANCH for side, inputs in sides)
        and len(then.outputs) == len(other.outputs)
        and all(map(_alike, then.outputs, other.outputs))
    )


def _item_exists(ir: DeviceIR, info: GraphInfo, node: torch.fx.Node) -> bool:
    item = Item.match(node)
    return item is None or item.index < len(item.source.meta["val"])


#: What holds of every node, and the check of it.
RULES: dict[str, Check] = {
    "has an abstract value": _has_value,
    "takes nodes of its own graph": _own_operands,
    "uses symbols that stand for something": _defined,
    "uses tiles of the kernel's axes": _known_axes,
    "has all arguments of its op, by position": _complete,
    "accesses a host tensor that the IR knows": _host_is_named,
    "enters a loop with what its body takes, and carries values of one kind": _loop_fits,
    "enters branches with what they take, which give alike results": _branch_fits,
    "takes one of the results there are": _item_exists,
}


def verify(ir: DeviceIR) -> None:
    """Check an IR by all rules.

    Raises:
        exc.InternalError: with the rule and the node.
    """
    for info in ir.graphs:
        info.graph.lint()
        for node in info.graph.nodes:
            for rule, holds in RULES.items():
                if not holds(ir, info, node):
                    raise exc.InternalError(
                        reason=f"graph {info.id}: {node.name} is not a node that {rule}",
                        location=node.meta.get("location"),
                    )
