"""Loops and branches: a control node becomes a `for` or `if` statement around the lines of its graphs.

A carried value is one variable, updated where its next value is computed when nothing reads the old one later.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.fx

from ...ir import device_ir
from ...ir.axes import axes_of
from ...ir.device_ir import Axis
from ...ir.device_ir import GraphInfo
from ...ir.masking import padding_is
from ...ir.pointwise import CONVERT
from ...ir.pointwise import POINTWISE
from ...ir.reduction_ops import REDUCTIONS
from ..expressions import wrap
from .emitter import KernelEmitter
from .emitter import Rules
from .emitter import pretty_name
from .scope import Scope

_aten = torch.ops.aten


def emit_for_loop(k: KernelEmitter, node: torch.fx.Node) -> None:
    """A loop over tiles inside the kernel; one `for` per axis."""
    graph_id, begins, ends, inputs = node.args
    body = k.ir.device.graphs[graph_id]  # type: ignore[index]
    placeholders = body.placeholders
    carried_names: dict[int, str] = {}  # output index -> variable
    for position, placeholder in enumerate(placeholders):
        source = inputs[position]  # type: ignore[index]
        if position not in body.carried:
            k.texts[placeholder] = k.texts[source]  # type: ignore[index]
            continue
        name = _carried_variable(k, source, node, placeholder)  # type: ignore[arg-type]
        k.texts[placeholder] = name
        carried_names[body.carried[position]] = name
    outer = k.scope
    headers: list[str] = []
    inner = Scope(outer)
    k.scope = inner
    for axis, begin, end in zip(body.axes, begins, ends):  # type: ignore[arg-type]
        for bound, given in ((axis.begin, begin), (axis.end, end)):
            if isinstance(bound, torch.Tensor):
                k.bound_nodes[id(bound)] = given
        headers.append(_loop_header(k, body, axis, _bound(k, begin), _bound(k, end)))
        k.open_axis(axis, inner)
    k.last_location = None
    _plan_updates(k, body, carried_names)
    for position, i in body.carried.items():
        if _accumulates_reduction(body.outputs[i]) and len(body.placeholders[position].users) > 1:
            k.settle.update(a for a in body.outputs[i].args if isinstance(a, torch.fx.Node) and a.target in REDUCTIONS)
    k.graph(body)
    placeholders = {body.carried[p]: body.placeholders[p] for p in body.carried}  # type: ignore[assignment]
    _assign_together(
        k, [(carried_names[i], _lanes(k, body, placeholders[i], out)) for i, out in enumerate(body.outputs)]
    )
    k.scope = outer
    k.last_location = None
    for header in reversed(headers[1:]):
        wrapper = Scope(outer)
        wrapper.nest(header, inner)
        inner = wrapper
    location = body.location
    if location is not None and k.settings.output_origin_lines:
        outer.add(f"# {location.short()}: {location.text.strip()}")
    outer.nest(headers[0], inner)
    for i, out in enumerate(body.outputs):
        if _accumulates_reduction(out) and not _used_once(node, i):
            outer.add(f"{carried_names[i]} = {k.module.helper('hlt_settled')}({carried_names[i]})")
    k.results[node] = [carried_names[i] for i in range(len(body.outputs))]


def _bound(k: KernelEmitter, bound: Any) -> str:
    """A loop's bound; one that was loaded as int64 would make the loop's index int64 too, which the IR calls int32."""
    text = k.number(bound)
    wide = isinstance(bound, torch.fx.Node) and bound.meta["val"].dtype is torch.int64
    return f"{wrap(text)}.to(tl.int32)" if wide and not k.wide_index else text


def _carried_variable(k: KernelEmitter, source: torch.fx.Node, loop: torch.fx.Node, placeholder: torch.fx.Node) -> str:
    """The variable a loop updates: the initial value's own when nothing else reads it, else a copy."""
    text = k.texts[source]
    only_here = list(source.users) == [loop] and source.op == "call_function" and text.isidentifier()
    if only_here and source.target is not device_ir.GETITEM:
        return text
    name = k.names.unique(pretty_name(placeholder))
    k.scope.add(f"{name} = {text}")
    return name


def _partial_lanes(k: KernelEmitter, body: GraphInfo, old: torch.fx.Node, new: torch.fx.Node) -> list[tuple[int, str]]:
    """Dimensions of a carried value with one lane per element of the loop's own tile, when that may be partial.

    The last tile may change only the lanes it has.  Left out where the others do not change anyway: the value is
    combined with an operand whose padding is the operation's neutral element (0 for a sum).
    """
    found = []
    for dim, axis in enumerate(axes_of(new)):
        if axis is None or axis not in body.axes:
            continue
        mask = k.mask(axis)
        if mask is not None and not _keeps_padding(old, new, dim):
            found.append((dim, mask))
    return found


def _lanes(k: KernelEmitter, body: GraphInfo, old: torch.fx.Node, new: torch.fx.Node) -> str:
    """The next value of a carried variable."""
    text = k.text(new)
    rank = new.meta["val"].dim()
    for dim, mask in _partial_lanes(k, body, old, new):
        text = f"tl.where({k.along(mask, dim, rank)}, {text}, {k.text(old)})"
    return text


def _plan_updates(k: KernelEmitter, body: GraphInfo, carried_names: dict[int, str]) -> None:
    """Let a carried variable be assigned where its new value is computed, when nothing reads the old one later."""
    order = {node: i for i, node in enumerate(body.graph.nodes)}
    placeholders = {body.carried[p]: body.placeholders[p] for p in body.carried}
    outputs = body.outputs
    for i, new in enumerate(outputs):
        old = placeholders[i]
        own = new.op == "call_function" and new.target is not device_ir.GETITEM and outputs.count(new) == 1
        last_read = max((order[user] for user in old.users if user.op != "output"), default=-1)
        if own and last_read <= order[new] and old not in outputs and not _partial_lanes(k, body, old, new):
            k.updates[new] = carried_names[i]


def _assign_together(k: KernelEmitter, pairs: list[tuple[str, str]]) -> None:
    """`names = values`, when a value may be another of the names (a swap)."""
    targets = {name for name, _ in pairs}
    pairs = [(name, value) for name, value in pairs if name != value]
    saved = {}
    for name, value in pairs:
        if value in targets and value not in saved:
            saved[value] = k.names.unique(f"{value}_before")
    for value, copy in saved.items():
        k.scope.add(f"{copy} = {value}")
    for name, value in pairs:
        k.scope.add(f"{name} = {saved.get(value, value)}")


def _loop_header(k: KernelEmitter, body: GraphInfo, axis: Axis, begin: str, end: str) -> str:
    step = k.block_name(axis.block)
    arguments = [begin, end, step]
    options = k.schedule.loop_options.get(body.id, {})
    if body.id in k.schedule.static_loops and axis.static_extent is not None:
        return f"for {k.offset(axis)} in tl.static_range({', '.join(arguments)}):"
    arguments += [f"{key}={value!r}" for key, value in options.items()]
    return f"for {k.offset(axis)} in tl.range({', '.join(arguments)}):"


def emit_if_else(k: KernelEmitter, node: torch.fx.Node) -> None:
    """A branch on a scalar; both sides assign the same variables."""
    test, then_id, else_id, then_inputs, else_inputs = node.args
    results = [k.names.unique(_result_name(node, i)) for i in range(len(node.meta["val"]))]
    outer = k.scope
    k.comment(node)
    for header, graph_id, inputs in (
        (f"if {k.number(test)}:", then_id, then_inputs),
        ("else:", else_id, else_inputs),
    ):
        body = k.ir.device.graphs[graph_id]  # type: ignore[index]
        for placeholder, source in zip(body.placeholders, inputs):  # type: ignore[arg-type]
            k.texts[placeholder] = k.texts[source]
        inner = k.scope = Scope(outer)
        k.last_location = None
        k.graph(body)
        for name, value in zip(results, body.outputs):
            inner.add(f"{name} = {k.text(value)}")
        k.scope = outer
        if header != "else:" or inner.lines():
            outer.nest(header, inner)
    k.last_location = None
    k.results[node] = results


_NEUTRAL = {
    _aten.add.Tensor: 0,
    _aten.sub.Tensor: 0,
    _aten.mul.Tensor: 1,
    _aten.maximum.default: float("-inf"),
    _aten.minimum.default: float("inf"),
}


def _keeps_padding(old: torch.fx.Node, new: torch.fx.Node, dim: int) -> bool:
    """Whether `new = op(old, operand)` leaves `old` as it is where the operand is padding."""
    if "neutral" in new.meta:
        return True
    neutral = _NEUTRAL.get(new.target)  # type: ignore[arg-type, call-overload]
    if neutral is None or len(new.args) != 2 or new.args[0] is not old or new.kwargs:
        return False
    operand = new.args[1]
    if not isinstance(operand, torch.fx.Node) or operand.meta["val"].shape != new.meta["val"].shape:
        return False
    return padding_is(operand, dim, neutral)


def _result_name(node: torch.fx.Node, i: int) -> str:
    for user in node.users:
        if user.target is device_ir.GETITEM and user.args[1] == i:
            return pretty_name(user)
    return "value"


def _accumulates_reduction(out: Any) -> bool:
    """Whether a carried float is combined with a reduction in each iteration: what `hlt_settled` is about."""
    if not isinstance(out, torch.fx.Node) or out.target not in POINTWISE or not out.meta["val"].is_floating_point():
        return False
    return any(isinstance(arg, torch.fx.Node) and arg.target in REDUCTIONS for arg in out.args)


# Ops whose text mentions each operand once.
_ONE_MENTION = frozenset(
    {
        CONVERT,
        _aten.unsqueeze.default,
        _aten.add.Tensor,
        _aten.sub.Tensor,
        _aten.mul.Tensor,
        _aten.div.Tensor,
        _aten.maximum.default,
        _aten.minimum.default,
    }
)


def _used_once(loop: torch.fx.Node, output: int) -> bool:
    """Whether generated code mentions a loop's result at most once."""
    results = [user for user in loop.users if user.target is device_ir.GETITEM and user.args[1] == output]
    users = [(user, result) for result in results for user in result.users]
    if not users:
        return True
    (user, result), *others = users
    mentions = sum(arg is result for arg in user.args)
    return not others and mentions == 1 and (user.target in _ONE_MENTION or getattr(user.target, "name", "") == "store")


def emit_getitem(k: KernelEmitter, node: torch.fx.Node) -> None:
    """One of several results."""
    k.texts[node] = k.results[node.args[0]][node.args[1]]  # type: ignore[index]


RULES: Rules = {
    device_ir.for_loop: emit_for_loop,
    device_ir.if_else: emit_if_else,
    device_ir.GETITEM: emit_getitem,
}
