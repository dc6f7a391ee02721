"""Graphs of the device IR as lists of steps, and what a step needs while it runs.

A node becomes a `Step`: a function and getters for its arguments.  Getters are made once per node, so that
running a tile does no tree walking.  Symbolic numbers become compiled Python expressions over the
frame's symbol values.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import sympy
import torch
import torch.fx

from ... import exc
from ..._compat_sympy import PythonPrinter
from ...ir.axes import Axes
from ...ir.axes import find_axes
from ...ir.device_ir import Axis
from ...ir.device_ir import AxisKind
from ...ir.device_ir import DeviceIR
from ...ir.device_ir import GraphInfo
from ...ir.device_ir import GraphKind
from ...ir.device_ir import TracedTile
from ...ir.nodes import Atomic
from ...ir.nodes import Combining
from ...ir.nodes import ForLoop
from ...ir.nodes import HostTensorNode
from ...ir.nodes import IfElse
from ...ir.nodes import Load
from ...ir.nodes import Memory
from ...ir.nodes import for_loop
from ...ir.nodes import host_tensor
from ...ir.nodes import if_else
from ...ir.pointwise import CONVERT
from ...ir.symbols import expr_of
from ...ir.symbols import is_symbolic
from ...language.atomics import ATOMIC_OPS
from ...language.creation import full
from ...language.eager_access import EagerAccess
from ...language.eager_atomics import update
from ...language.eager_tile import EagerInt
from ...language.eager_tile import EagerTile
from ...language.memory import load
from ...language.op import Effect
from ...language.op import Op
from .handler import iterate_tiles
from .lanes import repeated
from .lanes import widened
from .unsigned import called
from .unsigned import of_these

_aten = torch.ops.aten

Getter = Callable[["State", list[Any]], Any]


class State:
    """State of one launch.

    Args:
        program: the compiled graphs.
        tensors: host tensors by name.
        numbers: value of each symbol: host scalars, block sizes, tunables; tiles add theirs.

    Attributes:
        nominal: symbol name -> value in arithmetic.
        clipped: symbol name -> value in shapes; differs in the block sizes of partial tiles.
        tiles: axis id -> current tile.
        read_only: names of tensors whose memory no store or atomic of the kernel writes.
    """

    def __init__(self, program: Program, tensors: dict[str, torch.Tensor], numbers: dict[sympy.Symbol, Any]) -> None:
        self.tensors = tensors
        self.nominal: dict[str, Any] = {str(symbol): value for symbol, value in numbers.items()}
        self.clipped = dict(self.nominal)
        self.tiles: dict[int, EagerTile] = {}
        written = {_storage(tensors[name]) for name in program.written}
        self.read_only: frozenset[str] = frozenset()
        if not program.writes_anywhere:
            self.read_only = frozenset(name for name, tensor in tensors.items() if _storage(tensor) not in written)

    def enter(self, axis: Axis, tile: EagerTile) -> None:
        """Make `tile` the current one of `axis`."""
        begin, end = int(tile.begin), int(tile.end)
        for numbers in (self.nominal, self.clipped):
            numbers[str(axis.offset)] = begin
            numbers[str(axis.clipped_end)] = end
            numbers[str(axis.tile_id)] = int(tile.id)
        self.clipped[str(axis.block.symbol)] = end - begin
        self.tiles[axis.id] = tile


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@dataclasses.dataclass
class Step:
    """One node, ready to run: `values[out] = run(frame, values)`."""

    out: int
    run: Getter
    node: torch.fx.Node


@dataclasses.dataclass
class CompiledGraph:
    """The steps of a graph; placeholders are the first values.

    Attributes:
        info: the graph.
        steps, outputs: its nodes and results, ready to run.
        slots: number of values.
        lanes: per placeholder, the dimensions that have the block size of one of the graph's own axes, with that axis:
            values made outside of the loop with one lane per element of a tile.  A partial tile sees and changes only
            the first of them.
    """

    info: GraphInfo
    steps: list[Step]
    outputs: list[Getter]
    slots: int
    lanes: list[list[tuple[int, Axis]]]


class Program:
    """All graphs of a device IR, compiled.

    Args:
        ir: the device IR.
    """

    def __init__(self, ir: DeviceIR) -> None:
        self.ir = ir
        writes = [memory for memory in ir.views(Memory) if memory.effect is not Effect.READ]
        self.written: set[str] = {memory.name for memory in writes}
        #: Addresses may point into any tensor.
        self.writes_anywhere = any(memory.addresses for memory in writes)
        self._graphs: dict[int, CompiledGraph] = {}
        #: The loop axis of each dimension of each value.
        self.axes = find_axes(ir)

    def graph(self, graph_id: int) -> CompiledGraph:
        """The compiled form of a graph."""
        if graph_id not in self._graphs:
            self._graphs[graph_id] = _GraphCompiler(self, self.ir.graphs[graph_id]).compile()
        return self._graphs[graph_id]

    # -- running -------------------------------------------------------------------------------------------

    def run_body(self, graph: CompiledGraph, frame: State, inputs: Sequence[Any]) -> list[Any]:
        """One pass over a graph; the values of its outputs."""
        values: list[Any] = [None] * graph.slots
        values[: len(inputs)] = inputs
        for step in graph.steps:
            try:
                values[step.out] = step.run(frame, values)
            except exc.Base as error:
                if error.location is None:
                    error.location = step.node.meta.get("location")
                raise
            except (RuntimeError, TypeError) as error:
                raise exc.BackendUnsupported(
                    backend="tile executor",
                    reason=f"{_target_name(step.node)}: {error}",
                    location=step.node.meta.get("location"),
                    fix="convert the operands to a dtype that PyTorch supports on this device.",
                ) from error
        return [output(frame, values) for output in graph.outputs]

    def run_tiles(
        self, info: GraphInfo, frame: State, inputs: Sequence[Any], begins: Any = None, ends: Any = None
    ) -> list[Any]:
        """A loop: one pass for each tile; the carried values after the last.

        Args:
            info: a graph of kind ROOT or LOOP.
            frame: the launch.
            inputs: initial values of the placeholders.
            begins, ends: bounds of each axis, evaluated; None: those of the axes themselves.
        """
        graph = self.graph(info.id)
        state = [_all_lanes(value, dims, frame) for value, dims in zip(inputs, graph.lanes, strict=True)]
        results: list[Any] = [None] * len(graph.outputs)
        for placeholder, output in info.carried.items():
            results[output] = state[placeholder]
        if begins is None:
            begins = [_number(axis.begin, frame) for axis in info.axes]
            ends = [_number(axis.end, frame) for axis in info.axes]
        blocks = [int(frame.nominal[str(axis.block.symbol)]) for axis in info.axes]
        saved = [(str(axis.block.symbol), frame.clipped[str(axis.block.symbol)]) for axis in info.axes]
        if not info.axes:
            return self.run_body(graph, frame, state)
        for tiles in iterate_tiles(info.axes, [int(b) for b in begins], [int(e) for e in ends], blocks):
            for axis, tile in zip(info.axes, tiles, strict=True):
                frame.enter(axis, tile)
            narrowed = [_narrow(value, dims, frame) for value, dims in zip(state, graph.lanes, strict=True)]
            results = self.run_body(graph, frame, narrowed)
            for placeholder, output in info.carried.items():
                if narrowed[placeholder] is not state[placeholder]:
                    results[output] = _with_lanes(state[placeholder], graph.lanes[placeholder], frame, results[output])
                state[placeholder] = results[output]
        frame.clipped.update(saved)
        return results

    def run_while(self, info: GraphInfo, frame: State, inputs: Sequence[Any]) -> list[Any]:
        """A `while`: passes as long as its first value is true; the carried values after the last.

        Raises:
            exc.InvalidAPIUsage: it waits for another tile, which runs only after this one.
        """
        graph = self.graph(info.id)
        state = list(inputs)
        results: list[Any] = [None] * len(graph.outputs)
        for placeholder, output in info.carried.items():
            results[output] = state[placeholder]
        idle = 0
        while bool(state[0]):
            results = self.run_body(graph, frame, state)
            before = list(state)
            for placeholder, output in info.carried.items():
                state[placeholder] = results[output]
            same = all(torch.equal(state[i], before[i]) for i in info.carried)
            idle = idle + 1 if same else 0
            if idle >= _IDLE_ITERATIONS:
                raise exc.InvalidAPIUsage(
                    f"a `while` has gone round {idle} times and changed nothing",
                    fix="without a GPU tiles run in turn: let a tile wait for one before it only.",
                    location=info.location,
                )
        return results


#: Iterations of a `while` that change no variable after which it is taken to wait for a tile that has not run.
_IDLE_ITERATIONS = 200_000


def _lanes(placeholder: torch.fx.Node, info: GraphInfo, known: Axes) -> list[tuple[int, Axis]]:
    value = placeholder.meta.get("val")
    if not isinstance(value, torch.Tensor) or info.kind is not GraphKind.LOOP:
        return []
    found = []
    for dim, (size, axis) in enumerate(zip(value.shape, known)):
        own = [a for a in info.axes if a.kind is not AxisKind.GRID and a.block.symbol == expr_of(size)]
        own = own if axis is None else [a for a in own if a is axis]  # of another axis: not this loop's lanes
        found += [(dim, a) for a in own[-1:]]
    return found


def _all_lanes(value: Any, lanes: list[tuple[int, Axis]], frame: State) -> Any:
    """A value with one lane per element of the loop's tiles, where it is a fill that was taken for another tile."""
    for dim, axis in lanes:
        if value.stride(dim) == 0:
            value = widened(value, dim, int(frame.nominal[str(axis.block.symbol)]))
    return value


def _narrow(value: Any, lanes: list[tuple[int, Axis]], frame: State) -> Any:
    """The lanes of a value that the current tile has."""
    for dim, axis in lanes:
        extent = frame.tiles[axis.id].extent
        if value.shape[dim] > extent:
            value = value.narrow(dim, 0, extent)
    return value


def _with_lanes(value: torch.Tensor, lanes: list[tuple[int, Axis]], frame: State, new: torch.Tensor) -> torch.Tensor:
    """`value` with the current tile's lanes replaced by `new`."""
    result = value.clone()
    _narrow(result, lanes, frame).copy_(new)
    return result


#: PyTorch's give int64 for any integers; those of the IR are of the dtype that the program asks for.
_WIDENED = {torch.ops.aten.sum.dim_IntList, torch.ops.aten.prod.dim_int}


def _target_name(node: torch.fx.Node) -> str:
    target = node.target
    if isinstance(target, Op):
        return f"hl.{target.name}"
    name = target.name() if isinstance(target, torch._ops.OpOverload) else str(target)
    return "torch." + name.split("::")[-1].split(".")[0]


# -- numbers -------------------------------------------------------------------------------------------------

_NAMES = {
    "math": math,
    "torch": torch,
    "min": min,
    "max": max,
    "abs": abs,
    "round": round,
    "float": float,
    "int": int,
    "__builtins__": {},
}
_printer = PythonPrinter()
_code: dict[str, Any] = {}


def _evaluator(value: Any) -> Callable[[dict[str, Any]], Any]:
    """A symbolic number as a function of symbol values."""
    expr = expr_of(value)
    if isinstance(expr, sympy.Symbol):
        return operator.itemgetter(str(expr))
    text = _printer.doprint(expr)
    code = _code.get(text)
    if code is None:
        code = _code[text] = compile(text, "<size>", "eval")
    return lambda numbers: eval(code, _NAMES, numbers)


def _number(value: Any, frame: State) -> Any:
    return _evaluator(value)(frame.nominal) if is_symbolic(value) else value


# -- compiling -------------------------------------------------------------------------------------------------


class _GraphCompiler:
    def __init__(self, program: Program, info: GraphInfo) -> None:
        self.program = program
        self.info = info
        self.slot: dict[torch.fx.Node, int] = {}

    def compile(self) -> CompiledGraph:
        steps: list[Step] = []
        for node in self.info.placeholders:
            self.slot[node] = len(self.slot)
        for node in self.info.graph.nodes:
            if node.op != "call_function":
                continue
            run = self._node(node)
            self.slot[node] = len(self.slot)
            steps.append(Step(self.slot[node], run, node))
        outputs = [self.getter(value) for value in self.info.outputs]
        axes = self.program.axes
        lanes = [_lanes(node, self.info, axes.get(node, ())) for node in self.info.placeholders]
        return CompiledGraph(self.info, steps, outputs, len(self.slot), lanes)

    # -- arguments ------------------------------------------------------------------------------------------

    def getter(self, value: Any, *, shape: bool = False, index: bool = False) -> Getter:
        """How to get an argument at run time.

        Args:
            value: a node argument.
            shape: symbolic numbers are sizes of dimensions, so clipped.
            index: the argument is an index list, whose numbers do not count from the end.
        """
        if isinstance(value, torch.fx.Node):
            slot = self.slot[value]
            return lambda frame, values: values[slot]
        if isinstance(value, TracedTile):
            return self._tile(value)
        if is_symbolic(value):
            evaluate = _evaluator(value)
            if shape:
                return lambda frame, values: evaluate(frame.clipped)
            if index:
                return lambda frame, values: EagerInt(evaluate(frame.nominal))
            return lambda frame, values: evaluate(frame.nominal)
        if isinstance(value, (list, tuple)) and _has_parts(value):
            parts = [self.getter(v, shape=shape, index=index) for v in value]
            return lambda frame, values: [part(frame, values) for part in parts]
        return lambda frame, values: value

    def _sizes(self, node: torch.fx.Node, sizes: Any) -> Getter:
        """The sizes of a node's dimensions: that of a tile is the current tile's, clipped at the end of the range."""
        axes = self.program.axes.get(node, ())
        if not isinstance(sizes, (list, tuple)):
            axis = axes[0] if len(axes) == 1 else None
            whose = axis if axis is not None and axis.block.symbol == expr_of(sizes) else None
            return self.getter(sizes, shape=True) if whose is None else self._extent(whose)
        parts = [
            self._extent(axis)
            if axis is not None and axis.block.symbol == expr_of(size)
            else self.getter(size, shape=self.program.ir.space.block_of(size) is None)  # one lane per element
            for size, axis in zip(sizes, axes if len(axes) == len(sizes) else [None] * len(sizes), strict=True)
        ]
        return lambda frame, values: [part(frame, values) for part in parts]

    def _extent(self, axis: Axis) -> Getter:
        axis_id = axis.id
        return lambda frame, values: frame.tiles[axis_id].extent

    def _tile(self, tile: TracedTile) -> Getter:
        axis_id = tile.axis.id
        if isinstance(tile.offset, int) and tile.offset == 0:
            return lambda frame, values: frame.tiles[axis_id]
        offset = self.getter(tile.offset)
        return lambda frame, values: frame.tiles[axis_id].shifted(offset(frame, values))

    def _call(self, function: Callable[..., Any], args: Sequence[Getter], kwargs: dict[str, Getter]) -> Getter:
        if kwargs:
            return lambda frame, values: function(
                *(a(frame, values) for a in args), **{k: v(frame, values) for k, v in kwargs.items()}
            )
        if len(args) == 1:
            (only,) = args
            return lambda frame, values: function(only(frame, values))
        if len(args) == 2:
            first, second = args
            return lambda frame, values: function(first(frame, values), second(frame, values))
        return lambda frame, values: function(*[a(frame, values) for a in args])

    # -- nodes ----------------------------------------------------------------------------------------------

    def _node(self, node: torch.fx.Node) -> Getter:
        target: Any = node.target
        special = _SPECIAL.get(target)
        if special is not None:
            return special(self, node)
        index_at = -1
        if isinstance(target, Op):
            if target in ATOMIC_OPS:
                return self._atomic(node)
            if target.combine_at is not None:
                return self._combining(Combining.of(node))
            function, places = target.eager_rule, target.shape_args
            if target.access is not None:
                index_at = target.access.index_at
        else:
            function = _REPLACED.get(target, target)
            if of_these(n.meta["val"].dtype for n in node.all_input_nodes if isinstance(n.meta["val"], torch.Tensor)):
                plain, function = function, lambda *args, **kwargs: called(plain, args, kwargs)
            places = _SHAPE_ARGUMENTS.get(target, ())
        args = [
            self._sizes(node, arg) if i in places else self._as_long(node, self.getter(arg, index=i == index_at), arg)
            for i, arg in enumerate(node.args)
        ]
        kwargs = {key: self.getter(value) for key, value in node.kwargs.items()}
        if target in _WIDENED and not node.meta["val"].dtype.is_floating_point:
            kwargs["dtype"] = self.getter(node.meta["val"].dtype)
        if target is full:
            return self._fill(node, self._call(function, args, kwargs))
        return self._call(function, args, kwargs)

    def _as_long(self, node: torch.fx.Node, value: Getter, operand: Any) -> Getter:
        """An operand; of a fill that was taken for another tile's, as many elements as the result has."""
        if not isinstance(operand, torch.fx.Node):
            return value
        known, axes = (self.program.axes.get(n, ()) for n in (operand, node))
        pairs = zip(reversed(known), reversed(axes))
        other = {place: b for place, (a, b) in enumerate(pairs, 1) if a is not None and b is not None and a is not b}

        def run(frame: State, values: list[Any]) -> Any:
            result = value(frame, values)
            for place, axis in other.items():
                if result.stride(-place) == 0:
                    result = widened(result, result.dim() - place, frame.tiles[axis.id].extent)
            return result

        return run if other and torch.Tag.pointwise in getattr(node.target, "tags", ()) else value

    def _fill(self, node: torch.fx.Node, run: Getter) -> Getter:
        """`hl.full`; a dimension of a bare size may turn out to be longer (`lanes`)."""
        space, shape = self.program.ir.space, node.meta["val"].shape
        dims = [d for d, size in enumerate(shape) if space.block_of(size) is not None and space.axis_of(size) is None]
        return (lambda frame, values: repeated(run(frame, values), dims)) if dims else run

    def _host_tensor(self, node: torch.fx.Node) -> Getter:
        name = HostTensorNode.of(node).name
        return lambda frame, values: frame.tensors[name]

    def _load(self, node: torch.fx.Node) -> Getter:
        load = Load.of(node)
        tensor, index, mask = self._access(load)
        name = load.name

        def run(frame: State, values: list[Any]) -> Any:
            access = EagerAccess(tensor(frame, values), index(frame, values), mask(frame, values), "load")
            return access.read(may_alias=name in frame.read_only)

        return run

    def _access(self, memory: Memory) -> tuple[Getter, Getter, Getter]:
        return (
            self.getter(memory.host.node),
            self.getter(memory.index, index=True),
            self.getter(memory.extra_mask),
        )

    def _atomic(self, node: torch.fx.Node) -> Getter:
        atomic = Atomic.of(node)
        tensor, index, mask = self._access(atomic)
        operands = [self.getter(value) for value in atomic.values]
        op, want_old = atomic.op, bool(node.users)

        def run(frame: State, values: list[Any]) -> Any:
            return update(
                op,
                tensor(frame, values),
                index(frame, values),
                tuple(operand(frame, values) for operand in operands),
                mask(frame, values),
                want_old=want_old,
            )

        return run

    def _combining(self, combining: Combining) -> Getter:
        """A reduction or scan: its combine function is a graph, run on whole tensors at once."""
        program, graph_id, op, at = self.program, combining.graph_id, combining.op, combining.at
        args = [self.getter(arg) for arg in combining.node.args]

        def run(frame: State, values: list[Any]) -> Any:
            graph = program.graph(graph_id)
            given = [arg(frame, values) for arg in args]
            given[at] = lambda *scalars: tuple(program.run_body(graph, frame, scalars))
            return op.eager_rule(*given)

        return run

    def _for_loop(self, node: torch.fx.Node) -> Getter:
        loop = ForLoop.of(node)
        info = self.program.ir.graphs[loop.graph_id]
        bounds = [self.getter(loop.begins), self.getter(loop.ends)]
        initial = [self.getter(value) for value in loop.inputs]
        if info.kind is GraphKind.WHILE:
            run_while = self.program.run_while
            return lambda frame, values: run_while(info, frame, [value(frame, values) for value in initial])
        run_tiles = self.program.run_tiles

        def run(frame: State, values: list[Any]) -> list[Any]:
            begin, end = (bound(frame, values) for bound in bounds)
            return run_tiles(info, frame, [value(frame, values) for value in initial], begin, end)

        return run

    def _if_else(self, node: torch.fx.Node) -> Getter:
        branch = IfElse.of(node)
        test = self.getter(branch.test)
        program = self.program
        sides = [
            (graph_id, [self.getter(value) for value in inputs])
            for graph_id, inputs in ((branch.then_id, branch.then_inputs), (branch.else_id, branch.else_inputs))
        ]

        def run(frame: State, values: list[Any]) -> list[Any]:
            graph_id, inputs = sides[0 if bool(test(frame, values)) else 1]
            return program.run_body(program.graph(graph_id), frame, [value(frame, values) for value in inputs])

        return run


def _has_parts(value: Sequence[Any]) -> bool:
    """Whether anything in a (nested) list is known only at run time."""
    return any(
        isinstance(v, (torch.fx.Node, TracedTile)) or is_symbolic(v) or (isinstance(v, (list, tuple)) and _has_parts(v))
        for v in value
    )


#: Nodes that are compiled in a way of their own.
_SPECIAL: dict[Any, Callable[[_GraphCompiler, torch.fx.Node], Getter]] = {
    host_tensor: _GraphCompiler._host_tensor,
    for_loop: _GraphCompiler._for_loop,
    if_else: _GraphCompiler._if_else,
    load: _GraphCompiler._load,
}
#: Targets that run as another function: values need not be contiguous here, so a view may have to copy.
_REPLACED: dict[Any, Callable[..., Any]] = {
    _aten.view.default: torch.reshape,
    CONVERT: torch.Tensor.to,
}
#: Target -> positions of arguments that are sizes of dimensions.
_SHAPE_ARGUMENTS: dict[Any, tuple[int, ...]] = {_aten.view.default: (1,), _aten.expand.default: (1,)}
