"""The device IR: torch.fx graphs of ops on tiles, with loop and branch nodes that hold subgraphs.

A node's `target` is one of

* an ATen op left over after decomposition (arguments already have the dtype the op computes in: casts are
  nodes of their own, `prims.convert_element_type`),
* a language op (`helion.language.op.Op`): load, store, dot, ...,
* one of the control targets of `ir.nodes`: `host_tensor`, `for_loop`, `if_else`, and `operator.getitem` on the
  results of the latter two.

A node's `args` hold nodes, plain numbers and symbolic numbers; tiles appear as `TracedTile` inside index
lists.  `node.meta` has

* `val`: FakeTensor (where a dimension was dropped, a meta tensor), SymInt/SymFloat, tuple of these, or None,
* `location`: `exc.SourceLocation` of the user's code, `user_name`: the name it was assigned to,
* `bounded_dims` of a memory access: dimensions of the host tensor that a tile's range may leave.

What analyses find out about a node is not written on it: it is in `ir.facts`.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import TypeVar

import sympy
import torch
import torch.fx

from .._locks import cached_property
from ..exc import SourceLocation
from ..language.tile import Tile
from .nodes import GETITEM as GETITEM
from .nodes import View
from .nodes import for_loop as for_loop
from .nodes import graph_arguments
from .nodes import host_tensor as host_tensor
from .nodes import if_else as if_else
from .nodes import number
from .nodes import op_of
from .space import Axis as Axis
from .space import AxisKind as AxisKind
from .space import BlockSize as BlockSize
from .space import Space

_T = TypeVar("_T")
_View = TypeVar("_View", bound=View)
Number = int | float | bool | torch.SymInt | torch.SymFloat | torch.SymBool


# -- tiles ----------------------------------------------------------------------------------------------------


class TracedTile(Tile):
    """A tile in traced code: an axis plus a shift of its index.

    Shape positions take `block_size`; index positions take the tile itself.
    """

    def __init__(self, axis: Axis, offset: Any = 0) -> None:
        self.axis = axis
        self._offset = offset

    @property
    def begin(self) -> Any:
        return self._moved(self.axis.offset)

    @property
    def end(self) -> Any:
        return self._moved(self.axis.clipped_end)

    @property
    def block_size(self) -> Any:
        return self.axis.size

    @property
    def id(self) -> Any:
        return self.axis.tile_id

    @property
    def count(self) -> Any:
        return (self.axis.end - self.axis.begin + self.axis.block.var - 1) // self.axis.block.var

    @property
    def range_begin(self) -> Any:
        return self.axis.begin

    @property
    def range_end(self) -> Any:
        return self.axis.end

    @property
    def offset(self) -> Any:
        return self._offset

    @property
    def base(self) -> TracedTile:
        return TracedTile(self.axis)

    def _moved(self, place: Any) -> Any:
        return place + self._offset if self._is_shifted else place

    @property
    def _is_shifted(self) -> bool:
        return not isinstance(self._offset, int) or self._offset != 0

    def shifted(self, offset: Any) -> TracedTile:
        return TracedTile(self.axis, self._offset + offset)

    def __repr__(self) -> str:
        return f"tile[{self.axis.name} + {self._offset}]" if self._is_shifted else f"tile[{self.axis.name}]"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TracedTile) and other.axis is self.axis and str(other._offset) == str(self._offset)

    def __hash__(self) -> int:
        return hash((id(self.axis), str(self._offset)))


# -- graphs --------------------------------------------------------------------------------------------------


class GraphKind(enum.Enum):
    ROOT = "root"
    LOOP = "loop"
    WHILE = "while"  # a loop without axes, which goes on while the first value that it carries is true
    BRANCH = "branch"
    COMBINE = "combine"  # combine function of hl.reduce / hl.associative_scan: scalars in, scalars out


@dataclasses.dataclass(eq=False)
class GraphInfo:
    """One graph of the device IR.

    Attributes:
        id: index into `DeviceIR.graphs`.
        kind: what the graph is the body of.
        graph: the nodes; the output node holds a list.
        axes: loop axes (ROOT and LOOP).
        carried: LOOP, WHILE: placeholder index -> output index.
        location: the `for` or `if` statement.
        statements: how many `for` statements made it: more than one where a loop was all of another one's body
            (`ir.nests`).
        backwards: LOOP over the chunks of one axis: whether it goes from the last one to the first.
    """

    id: int
    kind: GraphKind
    graph: torch.fx.Graph
    axes: list[Axis] = dataclasses.field(default_factory=list)
    carried: dict[int, int] = dataclasses.field(default_factory=dict)
    location: SourceLocation | None = None
    statements: int = 1
    backwards: bool = False

    @property
    def placeholders(self) -> list[torch.fx.Node]:
        return [n for n in self.graph.nodes if n.op == "placeholder"]

    @property
    def outputs(self) -> list[Any]:
        return list(next(n for n in reversed(self.graph.nodes) if n.op == "output").args[0])


@dataclasses.dataclass(eq=False)
class RootLoop:
    """A top-level loop: a graph whose axes make up the launch grid.

    Attributes:
        graph_id: its graph (kind ROOT).
        phase: how many `hl.barrier()` stand between the first loop and this one; loops of one phase are independent.
    """

    graph_id: int
    phase: int = 0


@dataclasses.dataclass(eq=False)
class HostTensor:
    """A tensor that exists on the host when the kernel is launched.

    Attributes:
        name: its name in generated code.
        text: host expression for it: "x", "args[0]", "epilogue.__closure__[0].cell_contents".
        fake: FakeTensor with its sizes, strides and dtype.
    """

    name: str
    text: str
    fake: torch.Tensor


@dataclasses.dataclass(eq=False)
class RollableReduction:
    """A dimension whose reductions can be looped (`ir.reductions`).

    Attributes:
        graph_id: the graph with the reductions.
        size: the dimension's size; an int, or a host SymInt under dynamic shapes.
        axis: the axis of the loops, over [0, size); its block is the chunk.
    """

    graph_id: int
    size: Any
    axis: Axis


@dataclasses.dataclass(eq=False)
class DeviceIR:
    """Everything that runs on the device."""

    graphs: list[GraphInfo] = dataclasses.field(default_factory=list)
    roots: list[RootLoop] = dataclasses.field(default_factory=list)
    host_tensors: dict[str, HostTensor] = dataclasses.field(default_factory=dict)
    space: Space = dataclasses.field(default_factory=Space)
    _phase: int = 0
    _found: dict[Any, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def add_root(self, graph_id: int) -> None:
        """A graph is the next top-level loop."""
        self.roots.append(RootLoop(graph_id, self._phase))

    def drop_loops(self) -> None:
        """Have nothing to launch: no loop has an effect."""
        self.roots.clear()
        self.graphs.clear()
        self.host_tensors.clear()

    def end_phase(self) -> None:
        """`hl.barrier()`: later loops see what the ones so far have written."""
        if self.roots:
            self._phase = self.roots[-1].phase + 1

    def nodes(self) -> Iterator[tuple[GraphInfo, torch.fx.Node]]:
        """Every node of every graph."""
        for info in self.graphs:
            for node in info.graph.nodes:
                yield info, node

    def _once(self, key: Any, look: Callable[[], _T]) -> _T:
        """What is found by looking at the nodes: once, when the IR is closed."""
        if not self.space.is_closed:
            return look()
        if key not in self._found:
            self._found[key] = look()
        found: _T = self._found[key]
        return found

    @property
    def calls(self) -> Mapping[Any, Sequence[tuple[int, torch.fx.Node]]]:
        """What nodes call -> the nodes, each after its place in the order of `nodes`: a pass about some op need not go
        through a kernel for it."""

        def look() -> dict[Any, list[tuple[int, torch.fx.Node]]]:
            found: dict[Any, list[tuple[int, torch.fx.Node]]] = {}
            for place, (_, node) in enumerate(self.nodes()):
                if node.op == "call_function":
                    found.setdefault(node.target, []).append((place, node))
            return found

        return self._once("calls", look)

    def calling(self, kind: Callable[[Any], bool]) -> list[torch.fx.Node]:
        """The nodes that call a target of a kind, in the order of `nodes`."""
        return [node for _, node in sorted(call for target, of in self.calls.items() if kind(target) for call in of)]

    @property
    def dtypes(self) -> frozenset[torch.dtype]:
        """Of all tensors that nodes compute."""

        def look() -> frozenset[torch.dtype]:
            values = (node.meta.get("val") for _, node in self.nodes())
            return frozenset(v.dtype for v in values if isinstance(v, torch.Tensor))

        return self._once("dtypes", look)

    def views(self, kind: type[_View]) -> Sequence[_View]:
        """All nodes of a kind, in the order of `nodes`."""
        return self._once(kind, lambda: list(map(kind, self.calling(kind.knows))))

    def subgraphs_of(self, node: torch.fx.Node) -> list[GraphInfo]:
        """The graphs a control node or a reduction with a combine function holds."""
        if node.op != "call_function" or isinstance(node.target, torch._ops.OpOverload):
            return []
        return [self.graphs[number(node, at)] for at in graph_arguments(node.target)]

    def held_by(self, info: GraphInfo) -> list[GraphInfo]:
        """The graphs that a graph's own nodes hold."""
        if len(self.graphs) == len(self.roots):
            return []  # each is a top-level loop
        return self._once(info, lambda: [sub for node in info.graph.nodes for sub in self.subgraphs_of(node)])

    def inside(self, info: GraphInfo) -> list[GraphInfo]:
        """A graph and those inside of it."""
        found = [info]
        for graph in found:  # which grows
            found += self.held_by(graph)
        return found

    def format(self) -> str:
        """The IR as text, for reading and for tests."""
        return "\n".join(_format_graph(info) for info in self.graphs)


def _format_graph(info: GraphInfo) -> str:
    axes = ", ".join(f"{axis.name} in [{axis.begin}, {axis.end}) by {axis.block.symbol}" for axis in info.axes)
    lines = [f"graph {info.id} ({info.kind.value}) {axes}".rstrip()]
    for node in info.graph.nodes:
        if node.op == "output":
            lines.append(f"    return {list(node.args[0])}")
            continue
        value = node.meta.get("val")
        kind = (
            f"{value.dtype}{list(value.shape)}".replace("torch.", "") if isinstance(value, torch.Tensor) else str(value)
        )
        target = getattr(node.target, "__name__", str(node.target))
        args = ", ".join(map(str, node.args)) if node.op == "call_function" else ""
        lines.append(f"    {node.name}: {kind} = {target if node.op == 'call_function' else node.op}({args})")
    return "\n".join(lines)


def has_side_effect(node: torch.fx.Node) -> bool:
    """Whether a node must stay though nobody uses its result."""
    if node.op in ("placeholder", "output"):
        return True
    op = op_of(node)
    return op is not None and op.has_side_effect


def eliminate_dead_code(ir: DeviceIR) -> None:
    """Drop nodes nobody uses; loops and branches stay when something inside them has an effect."""
    impure: dict[int, bool] = {}

    def graph_is_impure(info: GraphInfo) -> bool:
        if info.id not in impure:
            impure[info.id] = any(
                (node.op == "call_function" and has_side_effect(node))
                or any(graph_is_impure(sub) for sub in ir.subgraphs_of(node))
                for node in info.graph.nodes
            )
        return impure[info.id]

    for info in ir.graphs:
        for node in reversed(list(info.graph.nodes)):
            if node.users or node.op in ("placeholder", "output") or has_side_effect(node):
                continue
            if not any(graph_is_impure(sub) for sub in ir.subgraphs_of(node)):
                info.graph.erase_node(node)


# -- host code -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Seeds:
    """The tensor of this launch's seeds for random numbers of torch's.

    Attributes:
        name: what the host function calls it.
        count: how many places draw.
        beside: host expression of a tensor on the same device.
    """

    name: str
    count: int
    beside: str


@dataclasses.dataclass(eq=False)
class HostCode:
    """The host part of a kernel function, to be printed around the launch.

    Attributes:
        parameters: names in order, with the default as source text or None.
        prelude: the user's statements before the loops.
        epilogue: the user's statements after the loops.
        rewrites: calls the generated host function must not repeat as they are, with their kind and traced value:
            "number" (hl.register_block_size, hl.register_tunable: the Config's value), "specialize" (hl.specialize:
            its argument), "broadcast" (torch.broadcast_tensors: the shapes of its arguments), "read" (a number that is
            read from a tensor: what the host function calls it, and its type's name), "made" (a tensor whose size only
            the call knows: what the host function calls it).
        globals: names of the function's globals and closure that the statements read, with their values.
        assigned: names the host statements assign.
        seeds: what draws seeds for random numbers of torch's, right before the launch.
        checks: what the trace took for granted about numbers that the host function reads from tensors; checked before
            the launch.
        tests: conditions that only a call can answer; the host function checks that they are as they were taken.
        decisions: each time one of them was met: its number in the function, and what it was taken for.
    """

    parameters: list[tuple[str, str | None]]
    prelude: list[ast.stmt]
    epilogue: list[ast.stmt]
    rewrites: dict[ast.AST, tuple[str, Any]]
    globals: dict[str, Any]
    assigned: set[str]
    seeds: Seeds | None = None
    checks: list[sympy.Basic] = dataclasses.field(default_factory=list)
    tests: frozenset[ast.expr] = frozenset()
    decisions: tuple[tuple[int, bool], ...] = ()

    @cached_property
    def nodes(self) -> dict[ast.stmt, list[ast.AST]]:
        """What is in each statement, of all depths: looked through for every Config."""
        return {statement: list(ast.walk(statement)) for statement in (*self.prelude, *self.epilogue)}


@dataclasses.dataclass(eq=False)
class KernelIR:
    """One specialization of a kernel function, traced.

    Attributes:
        name: the kernel function's name.
        device: what runs on the device.
        host: what runs on the host.
        guards: conditions on the call's arguments under which this trace holds (dynamic shapes only), as
            expressions over host symbols.
        tunables: hl.register_tunable keys with their fragments.
        specialized: host symbols fixed by hl.specialize.
        location: the `def` line.
        reductions: reductions over whole dimensions that a Config may turn into loops.
        assumed_apart: positions of arguments, in pairs, that hold no common memory in this trace and of which one is
            stored to: for a call where they overlap the code may be wrong.
    """

    name: str
    device: DeviceIR
    host: HostCode
    guards: list[sympy.Basic]
    tunables: dict[str, Any]
    specialized: set[sympy.Symbol]
    location: SourceLocation
    reductions: list[RollableReduction]
    assumed_apart: frozenset[tuple[int, int]]
