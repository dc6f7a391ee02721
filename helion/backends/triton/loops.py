"""Loops and branches: a control node becomes a `for` or `if` statement around the lines of its graphs.

A carried value is one variable, updated where its next value is computed when nothing reads the old one later.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.fx

from ...ir import device_ir
from ...ir.device_ir import Axis
from ...ir.device_ir import AxisKind
from ...ir.device_ir import GraphInfo
from ...ir.device_ir import GraphKind
from ...ir.nodes import ForLoop
from ...ir.nodes import IfElse
from ...ir.nodes import Item
from ...ir.nodes import Reduction
from ...ir.nodes import Store
from ...ir.nodes import tensor_of
from ...ir.pointwise import CONVERT
from ...ir.pointwise import POINTWISE
from ...ir.symbols import expr_of
from ...ir.symbols import shape_exprs
from ..text import Text
from ..text import as_text
from ..text import call
from .axes import along
from .dtypes import triton_dtype
from .emitter import KernelEmitter
from .emitter import Rules
from .emitter import pretty_name
from .ops import MOVES
from .reductions import may_follow_product
from .scope import Scope

_aten = torch.ops.aten


def emit_for_loop(k: KernelEmitter, node: torch.fx.Node) -> None:
    """A loop over tiles inside the kernel, one `for` per axis; or a `while`."""
    loop = ForLoop.of(node)
    body = k.ir.device.graphs[loop.graph_id]
    olds = {output: body.placeholders[position] for position, output in body.carried.items()}
    carried = _enter(k, loop, body)
    headers: list[str] = []
    outer = k.scope
    inner = Scope(outer)
    with k.inside(inner):
        for axis, begin, end in zip(body.axes, loop.begins, loop.ends):
            for bound, given in ((axis.begin, begin), (axis.end, end)):
                if isinstance(bound, torch.Tensor):
                    k.axes.bounds[id(bound)] = _signed(k, given)
            if _is_static(k, body, axis) and axis.kind is AxisKind.GRID:
                # To Triton a number of the compiler, which has no dtype to cast from, as of a tensor its index has.
                step = Text(k.axes.name(axis, "step_"))
                headers.append(_loop_header(k, body, axis, step, _bound(k, begin), _bound(k, end)))
                k.scope.define(str(k.axes.offset(axis)), call("tl.full", "[]", step, "tl.int32"))
            elif body.backwards:
                headers.append(_backwards(k, body, axis, _bound(k, end)))
            else:
                headers.append(_loop_header(k, body, axis, k.axes.offset(axis), _bound(k, begin), _bound(k, end)))
            k.axes.open(axis, inner)
        if body.kind is GraphKind.WHILE:
            headers = [f"while {k.text(body.placeholders[0])}:"]
        _plan_updates(k, body, olds, carried)
        again = int(str(k.loop_options(body).get("loop_unroll_factor", 0))) > 1
        for i, old in olds.items():
            out = body.outputs[i]
            if _accumulates_reduction(out) and (again or len(old.users) > 1 or not _is_combined_once(old, out)):
                k.settle.update(_reductions_in(out))
        k.graph(body)
        _assign_together(k, [(carried[i], _lanes(k, body, olds[i], out)) for i, out in enumerate(body.outputs)])
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
            outer.add(f"{carried[i]} = {k.helper('hlt_settled', carried[i])}")
    k.results[node] = [carried[i] for i in range(len(body.outputs))]


def _enter(k: KernelEmitter, loop: ForLoop, body: GraphInfo) -> dict[int, Text]:
    """Say what the placeholders of a loop are called; the variables that it carries, by output.

    The condition of a `while` is the last variable to be made. Triton carries them in that order, and leaves out of a
    loop's results what nothing reads after it, such as the condition; a pass of 3.6 and 3.7 (RemoveLayoutConversions)
    takes the places of the results for those of the variables, and asserts where there are fewer.
    """
    carried: dict[int, Text] = {}
    entering = list(enumerate(zip(body.placeholders, loop.inputs)))
    is_while = body.kind is GraphKind.WHILE
    for position, (placeholder, source) in [*entering[1:], entering[0]] if is_while else entering:
        name = k.text(source)
        if is_while and position == 0 and position in body.carried:
            name = carried[body.carried[0]] = k.define("goes_on", name)
        elif position in body.carried:
            name = _carried_variable(k, source, loop.node, placeholder)
            if _is_taken_over(body.outputs[body.carried[position]], placeholder):
                name = k.define(pretty_name(placeholder), _distinct(name, tensor_of(placeholder).dtype))
            carried[body.carried[position]] = name
        if position in body.carried:
            k.carried.add(placeholder)
        else:
            k.sources[placeholder] = source
        k.set_text(placeholder, name)
    return carried


def _signed(k: KernelEmitter, bound: Any) -> Text:
    """A loop's bound; Triton's ranges take those of unsigned dtypes as signed ones of that width."""
    text = k.number(bound)
    unsigned = isinstance(bound, torch.fx.Node) and not tensor_of(bound).dtype.is_signed
    return text.to("tl.int64" if k.axes.wide else "tl.int32") if unsigned else text


def _bound(k: KernelEmitter, bound: Any) -> Text:
    """A loop's bound; one that was loaded as int64 would make the loop's index int64 too, which the IR calls int32."""
    text = _signed(k, bound)
    if not isinstance(bound, torch.fx.Node):
        return text
    text = text.to("tl.int32") if tensor_of(bound).dtype is torch.int64 and not k.axes.wide else text
    return k.helper("hlt_bound", text) if _is_carried(k, bound) else text


def _is_carried(k: KernelEmitter, value: torch.fx.Node) -> bool:
    """Whether a value is made of a variable that a loop around it carries."""
    seen: set[torch.fx.Node] = set()
    found = [value]
    while found:
        node = found.pop()
        if node in k.carried:
            return True
        if node not in seen:
            seen.add(node)
            found += [k.sources[node]] if node in k.sources else node.all_input_nodes
    return False


def _carried_variable(k: KernelEmitter, source: torch.fx.Node, loop: torch.fx.Node, placeholder: torch.fx.Node) -> Text:
    """The variable a loop updates: the initial value's own when nothing else reads it, else a copy.

    The loop itself may read it elsewhere: in its body as a value that stays, as the first value of another variable or
    as a bound of an inner axis, which is asked for in each iteration of the outer one.
    """
    text = k.text(source)
    read: list[torch.fx.Node] = []
    torch.fx.map_arg(loop.args, read.append)
    own = list(source.users) == [loop] and read.count(source) == 1
    own = own and source.op == "call_function" and text.is_name and not Item.match(source)
    return text if own else k.define(pretty_name(placeholder), text)


#: What may be the very value that it is made of, to Triton.
_SAME = {*MOVES, _aten.clone.default, _aten.alias.default}


def _is_taken_over(output: torch.fx.Node, placeholder: torch.fx.Node) -> bool:
    """Whether a carried variable may get what another variable had before the iteration, as in a delay line."""
    while output.target in _SAME:
        output = output.all_input_nodes[-1]
    return output.op == "placeholder" and output is not placeholder


def _distinct(value: Text, dtype: torch.dtype) -> Text:
    """The value as another one to Triton 3.6 and 3.7, which go through a loop once and carry the variables that have
    other values in the end: not `last = now` where both begin with one value.
    """
    if dtype is torch.bool:
        return value.to("tl.int8").differs(0)
    sizes = {1: ("tl.int8", "tl.float8e5"), 2: ("tl.int16", "tl.float16"), 4: ("tl.int32", "tl.float32")}
    integer, number = sizes.get(dtype.itemsize, ("tl.int64", "tl.float64"))
    other = integer if dtype.is_floating_point else number
    return value.to(other, bitcast=True).to(triton_dtype(dtype), bitcast=True)


def _partial_lanes(k: KernelEmitter, body: GraphInfo, old: torch.fx.Node, new: torch.fx.Node) -> list[tuple[int, Text]]:
    """Dimensions of a carried value with one lane per element of the loop's own tile, when that may be partial.

    The last tile may change only the lanes it has.  Left out where the others do not change anyway: the value is
    combined with an operand whose padding is the operation's neutral element (0 for a sum).
    """
    found: list[tuple[int, Text]] = []
    own = {axis.block.symbol for axis in body.axes}
    if own.isdisjoint(shape_exprs(tensor_of(new).shape)):
        return found
    for dim, axis in enumerate(k.facts.axes_of(new)):
        mask = k.axes.mask(axis) if axis in body.axes else None
        if mask is not None and not _keeps_padding(k, old, new, dim):
            found.append((dim, mask))
    return found


def _lanes(k: KernelEmitter, body: GraphInfo, old: torch.fx.Node, new: torch.fx.Node) -> Text:
    """The next value of a carried variable."""
    text, rank = k.text(new), new.meta["val"].dim()
    for dim, mask in _partial_lanes(k, body, old, new):
        text = call("tl.where", along(mask, dim, rank), text, k.text(old))
    return text


def _plan_updates(k: KernelEmitter, body: GraphInfo, olds: dict[int, torch.fx.Node], carried: dict[int, Text]) -> None:
    """Let a carried variable be assigned where its new value is computed, when nothing reads the old one later."""
    order = {node: i for i, node in enumerate(body.graph.nodes)}
    outputs = body.outputs
    for i, new in enumerate(outputs):
        old = olds[i]
        own = new.op == "call_function" and not Item.match(new) and outputs.count(new) == 1
        last_read = max((order[user] for user in old.users if user.op != "output"), default=-1)
        if own and last_read <= order[new] and old not in outputs and not _partial_lanes(k, body, old, new):
            k.updates[new] = carried[i]


def _assign_together(k: KernelEmitter, pairs: list[tuple[Text, Text]]) -> None:
    """`names = values`, when a value may be another of the names (a swap)."""
    targets = {name for name, _ in pairs}
    pairs = [(name, value) for name, value in pairs if name != value]
    saved: dict[Text, Text] = {}
    for _, value in pairs:
        if value in targets and value not in saved:
            saved[value] = k.define(f"{value}_before", value)
    for name, value in pairs:
        k.scope.add(f"{name} = {saved.get(value, value)}")


def _may_end_first(k: KernelEmitter, axis: Axis) -> bool:
    """Whether a range may end before it begins: the host's do not (the front end sees to it), nor do tiles."""
    if any(isinstance(bound, (torch.fx.Node, torch.Tensor)) for bound in (axis.begin, axis.end)):
        return True
    if isinstance(axis.begin, int) and axis.begin == 0 and k.numbers.is_nonnegative(axis.end):
        return False
    space = k.ir.device.space
    tile = next((a for a in space.axes if expr_of(a.offset) == expr_of(axis.begin)), None)
    if tile is not None and expr_of(tile.clipped_end) == expr_of(axis.end):
        return False
    return space.depends_on_device(axis.begin) or space.depends_on_device(axis.end)


def _backwards(k: KernelEmitter, body: GraphInfo, axis: Axis, end: Text) -> str:
    """The header of a loop from the last chunk of 0 to `end` to the first; the block says where a chunk begins."""
    step, block = Text(k.axes.name(axis, "step_")), k.axes.block(axis)
    until = as_text(end.number - 1) if end.number else end - 1
    k.scope.define(str(k.axes.offset(axis)), until // block * block - step)
    return _loop_header(k, body, axis, step, as_text(0), end)


def _is_static(k: KernelEmitter, body: GraphInfo, axis: Axis) -> bool:
    return body.id in k.schedule.static_loops and axis.static_extent is not None


def _loop_header(k: KernelEmitter, body: GraphInfo, axis: Axis, variable: Text, begin: Text, end: Text) -> str:
    static = _is_static(k, body, axis)
    if static:  # of a range that is empty for this sign of an argument the node has the argument
        begin, end = as_text(axis.begin), as_text(axis.end)
    options = {} if static else k.loop_options(body)
    name = "tl.static_range" if static else "tl.range"
    if int(str(options.get("loop_unroll_factor", 0))) > 1 and _may_end_first(k, axis):
        end = call("tl.maximum", begin, end)  # Triton's unrolling goes through such a range, which is empty
    return f"for {variable} in {call(name, begin, end, k.axes.block(axis), **options)}:"


def emit_if_else(k: KernelEmitter, node: torch.fx.Node) -> None:
    """A branch on a scalar; both sides assign the same variables."""
    branch = IfElse.of(node)
    results = [Text(k.names.unique(_result_name(node, i))) for i in range(len(node.meta["val"]))]
    outer = k.scope
    k.comment(node)
    for header, graph_id, inputs in (
        (f"if {k.number(branch.test)}:", branch.then_id, branch.then_inputs),
        ("else:", branch.else_id, branch.else_inputs),
    ):
        body = k.ir.device.graphs[graph_id]
        for placeholder, source in zip(body.placeholders, inputs):
            k.sources[placeholder] = source
            k.set_text(placeholder, k.text(source))
        with k.inside(Scope(outer)) as inner:
            k.graph(body)
            for name, value in zip(results, body.outputs):
                inner.add(f"{name} = {k.text(value)}")
        if header != "else:" or inner.lines():
            outer.nest(header, inner)
    k.results[node] = results


_NEUTRAL: dict[Any, float] = {
    _aten.add.Tensor: 0,
    _aten.sub.Tensor: 0,
    _aten.mul.Tensor: 1,
    _aten.maximum.default: float("-inf"),
    _aten.minimum.default: float("inf"),
}


def _keeps_padding(k: KernelEmitter, old: torch.fx.Node, new: torch.fx.Node, dim: int) -> bool:
    """Whether `new = op(old, operand)` leaves `old` as it is where the operand is padding."""
    if "neutral" in new.meta:
        return True
    neutral = _NEUTRAL.get(new.target)
    if neutral is None or len(new.args) != 2 or new.args[0] is not old or new.kwargs:
        return False
    operand = new.args[1]
    if not isinstance(operand, torch.fx.Node) or tensor_of(operand).shape != tensor_of(new).shape:
        return False
    return k.facts.padding_is(operand, dim, neutral)


def _items(node: torch.fx.Node, i: int) -> list[torch.fx.Node]:
    """The nodes that take a result of a loop or branch."""
    return [user for user in node.users if (item := Item.match(user)) and item.index == i]


def _result_name(node: torch.fx.Node, i: int) -> str:
    return next(map(pretty_name, _items(node, i)), "value")


def _reductions_in(node: torch.fx.Node) -> list[torch.fx.Node]:
    return [arg for arg in node.all_input_nodes if Reduction.match(arg)]


def _accumulates_reduction(out: Any) -> bool:
    """Whether a carried float is combined with a reduction in each iteration: what `hlt_settled` is about."""
    if not isinstance(out, torch.fx.Node) or out.target not in POINTWISE or not out.meta["val"].is_floating_point():
        return False
    return bool(_reductions_in(out))


def _is_combined_once(old: torch.fx.Node, out: torch.fx.Node) -> bool:
    """Whether a carried value is combined with one reduction in an iteration, in either order: what Triton's pass takes
    any loop for that ends so (`x.sum(1) - total` was a sum).  Layouts of products it leaves alone.
    """
    found = _reductions_in(out)
    if set(out.all_input_nodes) == {old, *found} and len(found) == 1 and out.target in _EITHER_ORDER and not out.kwargs:
        return True
    grows_twice = any(map(_accumulates_reduction, out.all_input_nodes))
    return not grows_twice and all(may_follow_product(Reduction.of(reduction).source) for reduction in found)


_EITHER_ORDER = (_aten.add.Tensor, _aten.mul.Tensor, _aten.maximum.default, _aten.minimum.default)


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
    users = [(user, result) for result in _items(loop, output) for user in result.users]
    if not users:
        return True
    (user, result), *others = users
    mentions = sum(arg is result for arg in user.args)
    return not others and mentions == 1 and (user.target in _ONE_MENTION or Store.match(user) is not None)


def emit_item(k: KernelEmitter, node: torch.fx.Node) -> None:
    """One of several results."""
    item = Item.of(node)
    k.set_text(node, k.results[item.source][item.index])


RULES: Rules = {
    device_ir.for_loop: emit_for_loop,
    device_ir.if_else: emit_if_else,
    device_ir.GETITEM: emit_item,
}
