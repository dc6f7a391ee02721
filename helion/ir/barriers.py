"""Where the threads of one program must wait for each other, because one of them may touch what another has stored.

The lanes of a tile belong to many threads, and a backend may give an element of a load to another thread than the
same element of a store.  So between a store and a later load of the same memory stands a barrier, and between a load
and a later store as well, wherever the two stand: in one body, in sibling loops, in two iterations of one loop.  No
barrier is needed

* where the elements are provably different: other constants, slices that do not meet, the tiles of two iterations;
* between a load and the store that updates the same elements from it (`x[t] = x[t] + 1`).  What is stored at a place
  is computed from what was loaded there.  A thread that stores an element which another one loaded was handed it by
  that one, through shared memory or a shuffle, and both come after the load.  That holds if no two threads load the
  same element, which a backend knows (`one_thread_each`): a thread that holds a copy hands nothing to anybody, and may
  load it when it is stored to already;
* between two runs of one store at one place, which are the same thread's;
* between updates that commute and whose results nobody reads.

Not here: tiles that run in other programs (`dependencies`), and what a barrier is called.
"""

from __future__ import annotations

import dataclasses
import types
from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import sympy
import torch
import torch.fx

from ..language.indexing import IndexItem
from ..language.op import Effect
from .axes import are_constants_apart
from .device_ir import Axis
from .device_ir import DeviceIR
from .device_ir import GraphInfo
from .effects import Touch
from .effects import matched
from .effects import touches_of
from .nodes import Atomic
from .nodes import ForLoop
from .nodes import IfElse
from .nodes import Memory
from .nodes import host_tensor
from .nodes import tensor_of
from .pointwise import POINTWISE
from .spans import overlaps_itself
from .spans import spans_meet
from .symbols import expr_of


@dataclasses.dataclass(frozen=True)
class Barriers:
    """What one top-level loop needs.

    Attributes:
        before: nodes that a barrier stands before.
        loops: ids of the graphs, the top-level loop's included, around a barrier between a load and a store: a load of
            a later iteration may not be made ahead of the stores of an earlier one.
        storages: memory that needs one (`Touch.storage`).
    """

    before: frozenset[torch.fx.Node]
    loops: frozenset[int]
    storages: frozenset[int]

    def __bool__(self) -> bool:
        return bool(self.before)


def find_barriers(ir: DeviceIR, root: GraphInfo, one_thread_each: Callable[[Memory], bool]) -> Barriers:
    """The barriers of a top-level loop.

    Args:
        ir: the graphs.
        root: the loop's.
        one_thread_each: whether no two threads load the same element in this load of distinct elements.
    """
    found = _Pass(ir, root, one_thread_each)
    if found.touches:
        found.graph(root, frozenset())
    return Barriers(frozenset(found.before), frozenset(found.loops), frozenset(found.storages))


@dataclasses.dataclass(frozen=True)
class _Open:
    """A touch that no barrier has followed yet.

    Attributes:
        touch: the touch.
        later: ids of the graphs of loops that are at a later iteration now.
        left: ids of the graphs of loops that were left since: their tiles may come again.
    """

    touch: Touch
    later: frozenset[int] = frozenset()
    left: frozenset[int] = frozenset()


class _Pass:
    """Goes through the graphs in the order in which they run, with the touches that no barrier has followed."""

    def __init__(self, ir: DeviceIR, root: GraphInfo, one_thread_each: Callable[[Memory], bool]) -> None:
        self.ir = ir
        self.touches = _relevant(ir, root)
        self.before: set[torch.fx.Node] = set()
        self.loops: set[int] = set()
        self.storages: set[int] = set()
        self._one_thread_each = one_thread_each
        self._around = [root.id]

    def graph(self, info: GraphInfo, open_: frozenset[_Open]) -> frozenset[_Open]:
        """Go through a graph; what is open behind it."""
        for node in info.graph.nodes:
            open_ = self._node(node, open_)
        return open_

    def _node(self, node: torch.fx.Node, open_: frozenset[_Open]) -> frozenset[_Open]:
        if own := self.touches.get(node):
            open_ = self._ordered(node, self._released(node, open_), own) | {_Open(touch) for touch in own}
        if not isinstance(node.target, types.FunctionType):
            return open_  # holds no graphs
        if branch := IfElse.match(node):
            then, else_ = (self.graph(self.ir.graphs[i], open_) for i in (branch.then_id, branch.else_id))
            return then | else_
        loop = ForLoop.match(node)
        return open_ if loop is None else self._loop(node, self.ir.graphs[loop.graph_id], open_)

    def _loop(self, node: torch.fx.Node, body: GraphInfo, open_: frozenset[_Open]) -> frozenset[_Open]:
        # One barrier before the loop rather than one in each iteration.
        nodes = (inner for info in self.ir.inside(body) for inner in info.graph.nodes)
        before = self._ordered(node, open_, [touch for inner in nodes for touch in self.touches.get(inner, ())])
        self._around.append(body.id)
        inside = before
        while True:
            end = self.graph(body, inside)
            again = inside | {dataclasses.replace(o, later=o.later | {body.id}) for o in end}
            if again == inside:
                break
            inside = again
        self._around.pop()
        return before | {dataclasses.replace(o, later=o.later - {body.id}, left=o.left | {body.id}) for o in end}

    def _released(self, node: torch.fx.Node, open_: frozenset[_Open]) -> frozenset[_Open]:
        """What is open before an atomic that lets other programs see what this one has done: nothing, as one thread
        makes it and the others may be behind.  Without the barrier a lock was given back before all had stored."""
        if not _orders(node, "release") or not open_:
            return open_
        self.before.add(node)
        self.storages.update(o.touch.storage for o in open_)
        self.loops.update(self._around)
        return frozenset()

    def _ordered(self, node: torch.fx.Node, open_: frozenset[_Open], coming: Sequence[Touch]) -> frozenset[_Open]:
        """What is open before `node`, where a barrier stands if a touch that comes with it needs one."""
        meeting = [(o.touch, touch) for touch in coming for o in open_ if self._matters(o, touch)]
        if meeting:
            self.before.add(node)
            self.storages.update(touch.storage for pair in meeting for touch in pair)
            if any(touch.effect is Effect.READ for pair in meeting for touch in pair):
                self.loops.update(self._around)
        return frozenset() if node in self.before else open_

    def _matters(self, earlier: _Open, later: Touch) -> bool:
        """Whether a thread may see, or make, the wrong one of two touches first."""
        first = earlier.touch
        if _orders(first.node, "acquire"):
            return True  # the one thread that made it may not be behind the others
        if not (first.writes or later.writes) or not _same_memory(first, later) or _commute(first, later):
            return False
        if first.memory is None or later.memory is None or first.memory.addresses or later.memory.addresses:
            return True
        items = matched(first.memory, later.memory)
        if items is None:
            return spans_meet(first.memory.tensor, later.memory.tensor)
        if overlaps_itself(first.memory.tensor):
            return True
        pairs = _Pairs(self.ir, earlier, items)
        return pairs.may_meet() and not self._is_one_threads(earlier, later, pairs)

    def _is_one_threads(self, earlier: _Open, later: Touch, pairs: _Pairs) -> bool:
        """Whether the two are ordered already: see the module's docstring."""
        first = earlier.touch
        assert first.memory is not None and later.memory is not None
        if not pairs.same_distinct():
            return False
        if first.node is later.node:
            return first.effect is Effect.WRITE
        updates = first.effect is Effect.READ and later.effect is Effect.WRITE and not (earlier.later or earlier.left)
        return updates and _computed_from(later.memory, first.node) and self._one_thread_each(first.memory)


def _orders(node: torch.fx.Node, how: str) -> bool:
    """Whether a node is an atomic that orders what other programs see, by "acquire" or "release".

    Not hl.signal and hl.wait, which have no order to choose: what they call waits for the program's threads itself.
    """
    atomic = Atomic.match(node)
    return atomic is not None and "sem" in atomic.op.positions and atomic.sem in (how, "acq_rel")


def _relevant(ir: DeviceIR, root: GraphInfo) -> dict[torch.fx.Node, list[Touch]]:
    """The touches in a top-level loop that another one may have to wait for, or that may have to wait, by their nodes:
    those of memory that the loop writes; all of them, if an atomic orders what comes before or after it."""
    graphs = {info.graph for info in ir.inside(root)}
    users = dict.fromkeys(user for host in ir.calling(lambda target: target is host_tensor) for user in host.users)
    touches = [touch for user in users if user.graph in graphs for touch in touches_of(user)]
    ordering = any(_orders(touch.node, how) for touch in touches if touch.writes for how in ("acquire", "release"))
    count = Counter(memory for touch in touches for memory in _memories(touch))
    written = {memory for touch in touches if touch.writes for memory in _memories(touch)}
    found: dict[torch.fx.Node, list[Touch]] = {}
    for touch in touches:
        again = touch.node.graph is not root.graph  # it comes after itself
        if ordering or any(memory in written and (again or count[memory] > 1) for memory in _memories(touch)):
            found.setdefault(touch.node, []).append(touch)
    return found


def _memories(touch: Touch) -> list[Any]:
    """What a touch may be of.  Of what lies at an address only another address is known to."""
    through = touch.memory is not None and touch.memory.addresses is not None
    return [touch.storage, "addresses"] if through else [touch.storage]


def _same_memory(a: Touch, b: Touch) -> bool:
    """Whether two touches may be of one storage."""
    return not set(_memories(a)).isdisjoint(_memories(b))


def _commute(a: Touch, b: Touch) -> bool:
    """Whether nobody can tell which of two updates came first."""
    updates = a.effect is b.effect is Effect.UPDATE and a.node.target is b.node.target
    if not updates or a.memory is None or b.memory is None:
        return False
    return a.memory.op.commutes and not a.node.users and not b.node.users


def _computed_from(store: Memory, load: torch.fx.Node) -> bool:
    """Whether each element that is stored is computed from the element that was loaded at its place."""
    shape = list(map(expr_of, tensor_of(load).shape))
    seen: set[torch.fx.Node] = set()
    waiting = [value for value in store.values if isinstance(value, torch.fx.Node)]
    while waiting:
        node = waiting.pop()
        if node is load:
            return True
        if node in seen or node.target not in POINTWISE or list(map(expr_of, tensor_of(node).shape)) != shape:
            continue
        seen.add(node)
        waiting.extend(node.all_input_nodes)
    return False


class _Pairs:
    """The indices of two accesses of one view, element by element."""

    def __init__(self, ir: DeviceIR, earlier: _Open, pairs: list[tuple[IndexItem, IndexItem]]) -> None:
        self._pairs = pairs
        self._earlier = earlier
        self._later_axes = {loop: ir.graphs[loop].axes for loop in earlier.later - earlier.left}
        moved = [axis for loop in earlier.later | earlier.left for axis in ir.graphs[loop].axes]
        self._moved = {s for axis in moved for s in _symbols(axis)}
        self._left = {s for loop in earlier.left for axis in ir.graphs[loop].axes for s in _symbols(axis)}

    def may_meet(self) -> bool:
        """Whether they may name a common element."""
        if any(self._apart(a, b) for a, b in self._pairs):
            return False
        # Another iteration has another tile of at least one of its loop's axes: which one is not known.  A `while` has
        # no axes that could tell its iterations apart.
        return not any(
            axes and all(any(self._follows(a, b, axis) for a, b in self._pairs) for axis in axes)
            for axes in self._later_axes.values()
        )

    def same_distinct(self) -> bool:
        """Whether they name the same elements in the same order, no element twice."""
        return all(self._equal(a, b) and _distinct(a) for a, b in self._pairs)

    def _apart(self, a: IndexItem, b: IndexItem) -> bool:
        """Whether two index elements are never the same number."""
        if are_constants_apart(a, b):
            return True
        if a.kind == b.kind == "tile" and expr_of(a.value.offset) == expr_of(b.value.offset) == 0:
            return self._one_ends_where_other_begins(a.value.axis, b.value.axis)
        if a.kind == b.kind == "scalar" and _is_number(a.value) and _is_number(b.value):
            difference = sympy.expand(expr_of(a.value) - expr_of(b.value))
            still = not self._moved & expr_of(a.value).free_symbols
            return bool(still and difference.is_number and difference != 0)
        return False

    def _one_ends_where_other_begins(self, a: Axis, b: Axis) -> bool:
        """Whether two loops meet at a bound that was loaded once for both."""
        bounds = ((a.end, b.begin), (b.end, a.begin))
        loaded = any(isinstance(end, torch.Tensor) and end is begin for end, begin in bounds)
        return loaded and all(a in axes or b in axes for axes in self._later_axes.values())

    def _follows(self, a: IndexItem, b: IndexItem, axis: Axis) -> bool:
        """Whether two index elements name different numbers for different tiles of an axis."""
        if a.repeats or b.repeats:
            return False
        if a.kind == b.kind == "tile":
            shift = expr_of(a.value.offset)
            same = a.value == b.value and not self._moved & shift.free_symbols
            return same and a.value.axis is axis and not self._left & _symbols(axis)
        if a.kind != "scalar" or b.kind != "scalar" or not _is_number(a.value) or not _is_number(b.value):
            return False
        expr = expr_of(a.value)
        if expr != expr_of(b.value):
            return False
        mine = expr.free_symbols & self._moved
        if len(mine) != 1:
            return False
        (symbol,) = mine
        slope = sympy.diff(expr, symbol)
        steps = {axis.offset.node.expr, axis.tile_id.node.expr}
        return symbol in steps and bool(slope.is_number and slope != 0)

    def _equal(self, a: IndexItem, b: IndexItem) -> bool:
        if a.kind != b.kind:
            return False
        if a.kind == "tile":
            return a.value == b.value and not self._moved & (
                _symbols(a.value.axis) | expr_of(a.value.offset).free_symbols
            )
        if a.kind == "slice":
            return list(map(expr_of, a.value)) == list(map(expr_of, b.value))
        if _is_number(a.value) and _is_number(b.value):
            expr = expr_of(a.value)
            return expr == expr_of(b.value) and not self._moved & expr.free_symbols
        # A value of the same iteration is the same; which iteration's a node holds is not known otherwise.
        return a.value is b.value and not (self._earlier.later or self._earlier.left)


def _symbols(axis: Axis) -> set[Any]:
    return {axis.offset.node.expr, axis.tile_id.node.expr, axis.clipped_end.node.expr}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, torch.SymInt))


def _distinct(item: IndexItem) -> bool:
    """Whether an index element names no number twice."""
    return item.kind != "tensor" and not item.repeats
