"""Device loops and branches: each becomes a graph of its own and a node that holds it.

Which names a loop carries comes from liveness (`source.Liveness`): a name assigned in the body, bound before
it, and read in a later iteration or after the loop.  A carried value keeps its dtype and shape.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from .. import exc
from ..ir import device_ir
from ..ir.device_ir import Axis
from ..ir.device_ir import AxisKind
from ..ir.device_ir import BlockSize
from ..ir.device_ir import GraphKind
from ..ir.device_ir import TracedTile
from ..ir.symbols import OriginKind
from ..ir.symbols import is_symbolic
from ..ir.symbols import symbols_of
from ..language.loops import check_step
from ..language.shapes import same_shape
from ..language.truth import scalar
from .calls import Calls
from .carried_values import Carried
from .carried_values import blank_like
from .carried_values import describe
from .carried_values import is_number
from .environment import Environment
from .frames import Poison
from .graph_builder import GraphBuilder
from .index_width import IndexWidth
from .ragged import only_inside
from .ragged import ragged_axes
from .source import assigned_names
from .source import item_assigned_names
from .source import read_names
from .source import target_names
from .tracer import TracedLoop
from .tracer import Tracer

_MISSING = object()

#: Where the value of an expression that is worked out on one side of a branch only stands; no name of a program.
_GUARDED = "<value>"

#: What a `while` goes on by, as a variable that it carries; no name of a program.
_TEST = "<test>"


def _check_numbers(name: str, loop: ast.expr) -> None:
    """Refuse a range between two numbers in the source that ends before it begins: that is a slip of the pen, while one
    of sizes that does is empty.
    """
    try:
        given = [ast.literal_eval(bound) for bound in loop.args[:2]] if isinstance(loop, ast.Call) else []
    except ValueError:
        return
    begins, ends = ([v] if isinstance(v, int) else v for v in given) if len(given) == 2 else ([], [])
    for begin, end in zip(begins, ends):
        if begin > end:
            raise exc.InvalidTileRange(name=name, reason=f"begin={begin}, end={end}: it ends before it begins")


class ControlFlow(Calls):
    """Loops over tiles and branches on device values."""

    def __init__(self, env: Environment, tracer: Tracer) -> None:
        super().__init__(env, tracer)
        self._met: dict[tuple[ast.expr, int], BlockSize] = {}  # of the device loops so far, by target and dimension
        self._goes_on = False  # in a loop whose first rounds are traced already: its loops are those of the last one
        self.begun: dict[int, tuple[torch.Tensor, Any]] = {}  # tensors of carried variables that began as a number

    def block(self, body: list[ast.stmt]) -> None:
        raise NotImplementedError  # in statements

    # -- axes ------------------------------------------------------------------------------------------------------

    def make_axes(self, loop: TracedLoop, node: ast.For) -> list[Axis]:
        """The axes of a loop, named after its variables."""
        ranges, target = loop.ranges, node.target
        _check_numbers(ranges.name, node.iter)
        names = [t.id if isinstance(t, ast.Name) else "tile" for t in self._loop_targets(target, ranges)]
        axes = []
        bounds = zip(names, ranges.begins, ranges.ends, ranges.block_sizes)
        for dim, (name, begin, end, size) in enumerate(bounds):
            kind = AxisKind.GRID if loop.kind == "grid" else AxisKind.TILE
            known = self._met.get((target, dim)) if size is None else None
            block = known if known is not None and self._goes_on else self._block_for(name, size, kind)
            if size is None and block is not known:
                block.again = known is not None
                block.site = (self.frame.source.file, node.iter.lineno, dim)
                self._met[target, dim] = block
            axes.append(self.env.new_axis(block, kind, begin, self._not_before(begin, end), name))
        return axes

    def _not_before(self, begin: Any, end: Any) -> Any:
        """The end of a range, or its begin where the host says that it ends before that: it is empty then.

        Two negative numbers of tiles would make a positive number of programs.
        """
        known = not any(isinstance(b, torch.Tensor) or self.env.space.depends_on_device(b) for b in (begin, end))
        if known and is_symbolic(end - begin):
            return begin if bool(end < begin) else end
        if isinstance(end, torch.SymInt) and self.env.is_read(symbols_of(end) | symbols_of(begin)):
            return torch.sym_max(begin, end)
        return end

    def _loop_targets(self, target: ast.expr, ranges: Any) -> list[ast.expr]:
        if not ranges.is_sequence:
            return [target]
        if isinstance(target, (ast.Tuple, ast.List)):
            starred = [i for i, element in enumerate(target.elts) if isinstance(element, ast.Starred)]
            missing = ranges.ndim - len(target.elts)
            if len(starred) == 1 and missing >= -1:  # `for tile_m, *rest in ...`
                at = starred[0]
                return [*target.elts[:at], *[target.elts[at]] * (missing + 1), *target.elts[at + 1 :]]
            if missing:
                raise exc.InvalidTileRange(
                    name=ranges.name, reason=f"{ranges.ndim} dimensions for {len(target.elts)} loop variables"
                )
            return list(target.elts)
        return [target] * ranges.ndim

    def _block_for(self, name: str, size: Any, kind: AxisKind) -> BlockSize:
        if is_symbolic(size) and self.env.space.is_host_value(size) and size.node.has_hint():
            size = int(size)  # an argument, or a size under dynamic shapes: a guard
            check_step("hl.grid" if kind is AxisKind.GRID else "hl.tile", size)
        if kind is AxisKind.GRID:
            if is_symbolic(size) and not self._is_constant(size):
                raise exc.SizeNotConstant(what="the step of hl.grid", value=size)
            return self.env.new_block(name, fixed=size)
        if size is None:
            return self.env.new_block(name)
        known = self.env.space.block_of(size)
        if known is not None:
            known.name = name if known.name == "block" else known.name
            return known
        if is_symbolic(size) and not self._is_constant(size):
            raise exc.SizeNotConstant(what="a block size", value=size)
        return self.env.new_block(name, fixed=size)

    def _is_constant(self, size: Any) -> bool:
        constant = (OriginKind.BLOCK_SIZE, OriginKind.TUNABLE)
        return all(self.env.space.origins[s].kind in constant for s in symbols_of(size))

    def bind_loop_variables(self, target: ast.expr, loop: TracedLoop, axes: list[Axis]) -> None:
        """Give the loop variables their tiles (hl.tile) or indices (hl.grid)."""
        values: list[Any] = []
        for axis in axes:
            if axis.kind is AxisKind.GRID:
                values.append(axis.offset)
            else:
                tile = TracedTile(axis)
                if loop.lengths is not None:
                    tile.lengths = axis.lengths = loop.lengths
                values.append(tile)
        # One variable for a list of one bound is the tile itself, so that it indexes.
        group = loop.ranges.is_sequence and not (len(values) == 1 and isinstance(target, ast.Name))
        self.assign_pattern(target, tuple(values) if group else values[0])

    # -- top-level loops ---------------------------------------------------------------------------------------------

    def root_loop(self, node: ast.For, loop: TracedLoop) -> None:
        """A top-level loop: its axes make up the launch grid."""
        for bound in (*loop.ranges.begins, *loop.ranges.ends):
            if isinstance(bound, torch.Tensor):
                raise exc.InvalidTileRange(
                    name=loop.ranges.name,
                    reason="the bound of a top-level loop is a tensor, whose value the host does not know",
                    fix="pass the bound as an int argument, or make this an inner loop.",
                )
        self._check_for(node)
        if not self.env.ir.roots and self.env.space.index_dtype is not torch.int64:
            arguments = [fake for _, fake in self.env._fakes.values()]
            width = IndexWidth(self.env.settings, self.env.largest)
            with self.env.deciding():
                self.tracer.set_index_dtype(width.of_host_tensors(self.frame.host, arguments))
        with self.tracer.graph(GraphKind.ROOT) as builder:
            axes = self.make_axes(loop, node)
            builder.info.axes = axes
            self.frame.fresh = self._fresh(node)
            self.bind_loop_variables(node.target, loop, axes)
            with self._containers_stay():
                self.block(node.body)
            builder.graph.output([])
        self.env.ir.add_root(builder.info.id)

    def _fresh(self, node: ast.For) -> set[str]:
        """The names of host code that a top-level loop gives values of its own, as `Frame` has them."""
        source = self.frame.source
        names = assigned_names([node]) & self.frame.host.keys()
        if not names or node not in source.liveness.body_live_in:
            return set()
        read = source.liveness.body_live_in[node] | source.liveness.after[node]
        functions = (n for n in ast.walk(source.node) if isinstance(n, (ast.FunctionDef, ast.Lambda)))
        return names.difference(read, *(read_names(n) for n in functions if n is not source.node))

    def _check_for(self, node: ast.For) -> None:
        if node.orelse:
            raise exc.StatementNotSupported(statement="`else` on a device loop", where="device code")

    # -- inner loops ---------------------------------------------------------------------------------------------------

    def device_loop(self, node: ast.For, loop: TracedLoop) -> None:
        """A loop inside device code."""
        self._check_for(node)
        loop_names = target_names(node.target)
        carried = self._carried_by(node, loop_names)
        begins = [self.tracer.operand(b) for b in loop.ranges.begins]
        ends = [self.tracer.operand(e) for e in loop.ranges.ends]

        def body(builder: GraphBuilder) -> list[Axis]:
            axes = builder.info.axes = self.make_axes(loop, node)
            for item in carried:
                item.enter(self, builder)
            self.bind_loop_variables(node.target, loop, axes)
            with self._containers_stay():
                self.block(node.body)
            return axes

        self._loop(GraphKind.LOOP, node, carried, (begins, ends), body, loop_names)

    def device_while(self, node: ast.While, test: Any, *, goes_on: bool) -> None:
        """A `while` on a value known only while the kernel runs.

        Args:
            node: the statement.
            test: its first value, already worked out.
            goes_on: rounds whose test was known are traced already.
        """
        if node.orelse:
            raise exc.StatementNotSupported(
                statement="`else` on a `while` of a device value", where="device code", fix="put it behind the loop."
            )
        first = Carried(_TEST, pytree.tree_structure(0), [self._truth_of(test)])
        carried = [first, *self._carried_by(node, set())]

        def body(builder: GraphBuilder) -> list[Axis]:
            for item in carried:
                item.enter(self, builder)
            before, self._goes_on = self._goes_on, self._goes_on or goes_on
            with self._containers_stay():
                self.block(node.body)
                self.frame.device[_TEST] = self._truth_of(self.expr(node.test))
            self._goes_on = before
            return []

        self._loop(GraphKind.WHILE, node, carried, ([], []), body, set())
        del self.frame.device[_TEST]

    def _truth_of(self, test: Any) -> torch.Tensor:
        value = scalar(self.as_tensor(test), "`while`", describe(test))
        return value if value.dtype is torch.bool else value != 0

    def _carried_by(self, node: ast.For | ast.While, loop_names: set[str]) -> list[Carried]:
        """The variables that a loop changes and that are there before it."""
        live = self.frame.source.liveness
        assigned = assigned_names([*node.body, *([node.test] if isinstance(node, ast.While) else [])])
        assigned |= self._changed_containers(node.body)
        needed = live.body_live_in.get(node, set()) | live.after.get(node, set())
        before = self.frame.device
        found = sorted(assigned & needed - loop_names)
        return [self._carry(n, before[n]) for n in found if n in before and not isinstance(before[n], Poison)]

    def _loop(
        self,
        kind: GraphKind,
        node: ast.For | ast.While,
        carried: list[Carried],
        bounds: tuple[list[Any], list[Any]],
        body: Callable[[GraphBuilder], list[Axis]],
        loop_names: set[str],
    ) -> None:
        """Record a loop: its body into a graph of its own, and names for what it leaves behind.

        Args:
            kind: of the graph.
            node: the statement.
            carried: what goes from iteration to iteration.
            bounds: where its axes begin and end.
            body: traces the body, after it has bound the carried names; returns the axes.
            loop_names: variables that are the loop's own.
        """
        frame = self.frame
        before = dict(frame.device)
        with self.tracer.graph(kind) as builder:
            axes = body(builder)
            outputs: list[torch.fx.Node] = []
            results: list[tuple[Carried, int, int]] = []  # which leaf became which output
            for item in carried:
                for leaf, placeholder in enumerate(item.placeholders):
                    kept = [builder.node_of(v) for i in carried for v in i.tensors(frame.device[i.name])]
                    new = item.new_leaf(self, leaf, frame.device[item.name], kept)
                    if builder.node_of(new) is not placeholder:
                        new = only_inside(ragged_axes(axes), new, item.inner[leaf])
                    new_node = builder.node_of(new)
                    assert new_node is not None
                    if new_node is placeholder:
                        continue
                    builder.info.carried[builder.info.placeholders.index(placeholder)] = len(outputs)
                    results.append((item, leaf, len(outputs)))
                    outputs.append(new_node)
            builder.graph.output(list(outputs))
        # Placeholders may have been added after a carried one was counted; positions are looked up again.
        builder.info.carried = self._carried_positions(builder, results)
        with self.tracer.paused():
            values = tuple(blank_like(item.inner[leaf]) for item, leaf, _ in results)
        self.tracer.record(device_ir.for_loop, (builder.info.id, *bounds, list(builder.inputs)), {}, values)
        frame.device.clear()
        frame.device.update(before)
        for (item, leaf, _), value in zip(results, values):
            item.outer[leaf] = value
        for item in carried:
            frame.device[item.name] = item.rebuilt()
            for value in item.outer:
                self.tracer.name_value(value, item.name)
        for name in (assigned_names(node.body) | self._changed_containers(node.body) | loop_names) - set(before):
            frame.device[name] = Poison(name, "it is assigned only inside a loop: assign it before the loop as well.")
        for name in loop_names:  # also where it was something before: Python has the last iteration's
            hint = f"`last = 0` before it, `last = {name}` in it (of a tile `{name}.begin`), and read `last` behind it."
            frame.device[name] = Poison(name, f"it is the variable of a device loop: {hint}")

    @contextlib.contextmanager
    def _containers_stay(self) -> Iterator[None]:
        """The body of a device loop or branch is interpreted once, whatever it does while the kernel runs.

        Raises:
            exc.StatementNotSupported: it changed a list, dict or set from outside.
        """
        before = [
            (name, v, _items(v))
            for names in (self.frame.host, self.frame.device)
            for name, v in names.items()
            if isinstance(v, (list, dict, set))
        ]
        yield
        for name, container, items in before:
            now = _items(container)
            if len(now) != len(items) or any(a is not b for a, b in zip(now, items)):
                raise exc.StatementNotSupported(
                    statement=f"changing the {type(container).__name__} {name!r}",
                    where="a device loop or branch",
                    fix="store values in a tensor that host code makes (`out[tile] = ...`)."
                    if name in self.frame.host and self.frame.is_kernel
                    else "assign items (`x[i] = ...`) or a new object (`x = [*x, value]`): those are variables that "
                    "change.",
                )

    def _changed_containers(self, body: list[ast.stmt]) -> set[str]:
        """Variables with a list or dict that statements assign an item of."""
        return {name for name in item_assigned_names(body) if isinstance(self.frame.device.get(name), (list, dict))}

    @staticmethod
    def _carried_positions(builder: GraphBuilder, results: list[Any]) -> dict[int, int]:
        positions = {node: i for i, node in enumerate(builder.info.placeholders)}
        return {positions[item.placeholders[leaf]]: output for item, leaf, output in results}

    def _carry(self, name: str, value: Any) -> Carried:
        leaves, spec = pytree.tree_flatten(value)
        outer: list[torch.Tensor] = []
        for leaf in leaves:
            if is_number(leaf):
                number, leaf = leaf, self.tracer.scalar_tensor(leaf)
                self.begun[id(leaf)] = leaf, number
            if not isinstance(leaf, torch.Tensor):
                raise exc.CantCombineTypesInControlFlow(
                    f"variable {name!r} is assigned in a device loop but holds a {type(leaf).__name__}, "
                    "which a loop cannot carry",
                    fix="use another name inside the loop; what it carries are tensors and numbers, in tuples, lists "
                    "and dicts too.",
                )
            outer.append(leaf)
        return Carried(name, spec, outer)

    # -- branches
    # --------------------------------------------------------------------------------------------------------

    def device_branch(self, node: ast.If, test: Any) -> None:
        """An `if` on a value known only while the kernel runs."""
        if isinstance(test, torch.Tensor):
            scalar(test, "`if`", describe(test))
        names = assigned_names([*node.body, *node.orelse]) | self._changed_containers([*node.body, *node.orelse])
        wanted = names & self.frame.source.liveness.after.get(node, set())
        self._branches(test, (lambda: self.block(node.body), lambda: self.block(node.orelse)), sorted(wanted))

    def only_if(self, test: Any, node: ast.expr, when: bool = True) -> Any:
        if isinstance(test, torch.Tensor):
            scalar(test, "`if`, `and` or `or`", describe(test))
        frame = self.frame
        found: list[Any] = []

        def taken() -> None:
            found.append(self.expr(node))
            frame.device[_GUARDED] = found[0]

        def left_out() -> None:
            # A value of the other side's graph is none of this one's.
            frame.device[_GUARDED] = pytree.tree_map_only(torch.Tensor, torch.zeros_like, found[0])

        if not when:
            test = torch.logical_not(self.as_tensor(test))
        self._branches(test, (taken, left_out), sorted({_GUARDED, *assigned_names([node])}))
        return frame.device.pop(_GUARDED)

    def _branches(self, test: Any, bodies: Sequence[Callable[[], None]], wanted: list[str]) -> None:
        """Trace the two sides of a branch, and give names what either of them leaves in them."""
        if isinstance(test, torch.Tensor) and test.dtype is not torch.bool:
            test = test != 0
        frame = self.frame
        before = dict(frame.device)
        sides = []
        for body in bodies:
            frame.device.clear()
            frame.device.update(before)
            with self.tracer.graph(GraphKind.BRANCH) as builder, self._containers_stay():
                body()
            sides.append((builder, dict(frame.device)))
        frame.device.clear()
        frame.device.update(before)
        merged: list[tuple[str, torch.Tensor, torch.Tensor]] = []
        chosen: dict[str, tuple[Any, list[Any]]] = {}  # of each name its leaves: values, and places in `merged`
        for name in wanted:
            left, right = (env.get(name, _MISSING) for _, env in sides)
            if any(v is _MISSING or isinstance(v, Poison) for v in (left, right)):
                frame.device[name] = Poison(
                    name, "it is assigned on only one path of an `if`: assign it before the `if` as well."
                )
                continue
            (leaves, spec), (others, other_spec) = pytree.tree_flatten(left), pytree.tree_flatten(right)
            if spec != other_spec:
                raise exc.CantCombineTypesInControlFlow(name=name, left=describe(left), right=describe(right))
            kept: list[Any] = []
            for one, other in zip(leaves, others, strict=True):
                if one is other or (not isinstance(one, torch.Tensor) and _same_constant(one, other)):
                    kept.append(one)
                else:
                    kept.append(_Merged(len(merged)))
                    merged.append((name, *self._merge(name, one, other, sides)))
            chosen[name] = spec, kept
        outputs: list[list[Any]] = [[], []]
        for _, left, right in merged:
            for side, value in enumerate((left, right)):
                outputs[side].append(sides[side][0].node_of(value))
        for (builder, _), output in zip(sides, outputs):
            builder.graph.output(output)
        with self.tracer.paused():
            values = tuple(blank_like(left) for _, left, _ in merged)
        (then_builder, _), (else_builder, _) = sides
        arguments = (
            self.tracer.operand(test),
            then_builder.info.id,
            else_builder.info.id,
            list(then_builder.inputs),
            list(else_builder.inputs),
        )
        self.tracer.record(device_ir.if_else, arguments, {}, values)
        for (name, _, _), value in zip(merged, values):
            self.tracer.name_value(value, name)
        for name, (spec, kept) in chosen.items():
            found = [values[leaf.place] if isinstance(leaf, _Merged) else leaf for leaf in kept]
            frame.device[name] = pytree.tree_unflatten(found, spec)

    def _merge(self, name: str, left: Any, right: Any, sides: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        for value in (left, right):
            if not isinstance(value, torch.Tensor) and not is_number(value):
                raise exc.CantCombineTypesInControlFlow(name=name, left=describe(left), right=describe(right))
        dtype = next((v.dtype for v in (left, right) if isinstance(v, torch.Tensor)), None)
        if dtype is None:
            dtype = torch.float32 if any(isinstance(v, (float, torch.SymFloat)) for v in (left, right)) else torch.int64
            dtype = torch.bool if all(isinstance(v, (bool, torch.SymBool)) for v in (left, right)) else dtype
        values = []
        for (builder, _), value in zip(sides, (left, right)):
            if not isinstance(value, torch.Tensor):
                outer, self.tracer.builder = self.tracer.builder, builder
                try:
                    value = self.tracer.scalar_tensor(value, dtype)
                finally:
                    self.tracer.builder = outer
            values.append(value)
        if values[0].dtype is not values[1].dtype or not same_shape(values[0].shape, values[1].shape):
            before, after = values if id(values[0]) in self.begun else reversed(values)
            raise exc.ControlFlowTensorMismatch(
                name=name,
                where="between the two paths of an `if`",
                before=describe(before),
                after=describe(after),
                dtype=before.dtype,
                fix=self.begin_with(name, before, after),
            )
        return values[0], values[1]

    def begin_with(self, name: str, old: torch.Tensor, new: torch.Tensor) -> str | None:
        """What a variable is to begin with instead of a number (`s = 0`), whose dtype is not what anyone wants."""
        if id(old) not in self.begun:
            return None
        number = self.begun[id(old)][1]
        shape = self.tracer.env.space.readable(", ".join(map(str, new.shape)))
        return (
            f"begin with a tensor of that type, in place of a number, before the loop: `{name} = hl.full([{shape}], "
            f"{number}, dtype={new.dtype})`."
        )


@dataclasses.dataclass(frozen=True)
class _Merged:
    """In place of a value that differs on the two paths of a branch: which of those it is."""

    place: int


def _items(container: list[Any] | dict[Any, Any] | set[Any]) -> list[Any]:
    return [*container, *container.values()] if isinstance(container, dict) else list(container)


def _same_constant(a: Any, b: Any) -> bool:
    if is_symbolic(a) or is_symbolic(b):
        return is_symbolic(a) and is_symbolic(b) and a.node.expr == b.node.expr
    return type(a) is type(b) and bool(a == b)
