"""Data races between tiles that run at the same time, found at compile time.

Tiles of a top-level loop run at the same time and in any order.  A plain store must therefore go to a place of the
tile's own, or else the tile that its place leaves out must cover its range (`BlockSize.low` is raised to that); and a
load may not read what another tile stores.  Both go by memory and not by names: through two views of a tensor, or two
arguments that overlap, a program touches the same elements.  Atomics are exempt; so are accesses under conditions that
elect one of the tiles, by its position or by what an atomic has told it, and those through index tensors that are
loaded, which cannot be judged here.

A loop with `hl.wait` in it sees to the order of its loads and stores itself; so do the accesses that come after an
atomic which acquires, a lock perhaps, to that of the others that do.

The tiles of several top-level loops run at the same time too, unless `hl.barrier()` stands between them: no loop may
touch a tensor that another one of its phase stores, wherever in the tensor that is.  Only atomics of both may meet.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection
from collections.abc import Iterator
from typing import Any

import torch
import torch.fx

from .. import exc
from ..language.distributed import wait
from ..language.indexing import IndexItem
from ..language.op import Effect
from ..numbers import next_power_of_2
from .axes import are_constants_apart
from .axes import constant_places
from .axes import index_items
from .device_ir import Axis
from .device_ir import AxisKind
from .device_ir import DeviceIR
from .device_ir import GraphInfo
from .device_ir import TracedTile
from .effects import Touch
from .effects import conflict
from .effects import matched
from .effects import same_storage
from .effects import touches
from .elections import elects
from .nodes import Full
from .nodes import IfElse
from .nodes import Load
from .nodes import Memory
from .nodes import Store
from .nodes import TileIndex
from .own_places import OwnPlaces
from .positions import VIEWS
from .positions import Positions
from .sameness import Sameness
from .space import Space
from .spans import parts_meet
from .spans import spans_meet
from .symbols import expr_of
from .symbols import is_symbolic
from .symbols import symbols_of

#: Longest range of a tile that a store leaves out, and which one tile therefore covers.
_LARGEST_COVER = 1 << 16
_OF_LOCKS = (
    'if the atomic_cas takes a lock, say so, sem="acquire" there and sem="release" in the atomic that gives it back; '
    "else give every tile its own place in the output, or use hl.atomic_add."
)


def check_dependencies(ir: DeviceIR) -> None:
    """Raise if two tiles that run at the same time touch the same element and one of them stores it.

    Raises:
        exc.LoopDependencyError: with the place of the access.
    """
    for root in ir.roots:
        info = ir.graphs[root.graph_id]
        if _never_runs(info):
            continue
        axes = [axis for axis in info.axes if axis.static_extent != 1]
        accesses = list(_accesses(ir, info, any(touch.effect is Effect.UPDATE for touch in touches(ir, info))))
        excuses = {store: excused for memory, excused in accesses if (store := Store.match(memory.node))}
        stores = list(excuses)
        acquired = _after_acquiring([memory for memory, _ in accesses])
        fix = _OF_LOCKS if any(memory.op.name == "atomic_cas" for memory, _ in accesses) else None
        for store, excused in excuses.items():
            left = [a for a in axes if a.id not in excused.alone and store.node not in acquired]
            _check_store(ir, info, store, left, fix)
        waits = any(memory.op is wait for memory, _ in accesses)
        for store, excused in excuses.items() if not waits else ():
            left = [a for a in axes if a.id not in excused.alone and store.node not in acquired]
            _check_computed(ir, info, store, left, fix)
        if waits or not axes:
            continue  # the kernel sees to the order of its programs, or there is only one
        for load, excused in [(load, excused) for memory, excused in accesses if (load := Load.match(memory.node))]:
            for store in stores:
                if load.node in acquired and store.node in acquired:
                    continue
                _check_load(ir, load, store, axes)
                apart = excused.apart | excuses[store].apart
                _check_positions(ir, load, store, [axis for axis in axes if axis.id not in apart])
        for first, second in itertools.combinations(stores, 2):
            apart = excuses[first].apart | excuses[second].apart
            if matched(first, second) is None:
                _check_views(second, first, "stored")
            elif not (first.node in acquired and second.node in acquired):
                _check_stores(ir, first, second, [axis for axis in axes if axis.id not in apart])
    for i, later in enumerate(ir.roots):
        for earlier in ir.roots[:i]:
            if earlier.phase == later.phase:
                _check_pair(ir, ir.graphs[earlier.graph_id], ir.graphs[later.graph_id])


def _check_pair(ir: DeviceIR, earlier: GraphInfo, later: GraphInfo) -> None:
    """Two loops of one phase."""
    before = list(touches(ir, earlier))
    for touch in touches(ir, later):
        for other in before:
            if conflict(other, touch) and not (_are_rows_apart(other, touch) or _are_views_apart(other, touch)):
                raise exc.LoopDependencyError(
                    reason=f"{touch.name!r} is {touch.effect.value} here and {other.effect.value} in an earlier "
                    "top-level loop, which runs at the same time",
                    location=touch.node.meta.get("location"),
                    fix=f"put hl.barrier() between the two loops{_or_constants(touch, other)}.",
                )


def _or_constants(touch: Touch, other: Touch) -> str:
    """What else to do where views may have nothing in common, of which one cannot tell for all calls."""
    views = [memory.tensor for memory in (touch.memory, other.memory) if memory is not None]
    numbers = [n for view in views for n in (*view.shape, *view.stride(), view.storage_offset())]
    if touch.name == other.name or all(isinstance(n, int) for n in numbers):
        return ""
    return (
        "; or, where the views have nothing in common, make the numbers that they begin and end at constants, by the "
        "annotation hl.constexpr or with hl.specialize"
    )


def _are_rows_apart(first: Touch, second: Touch) -> bool:
    """Whether two accesses of one tensor name different numbers along some dimension: `out[0, t]` and `out[1, t]`, or
    `out[t, :4]` and `out[t, 4:]`."""
    if first.memory is None or second.memory is None or first.name != second.name:
        return False
    return any(are_constants_apart(a, b) for a, b in matched(first.memory, second.memory) or [])


def _are_views_apart(first: Touch, second: Touch) -> bool:
    """Whether two accesses of views have no element in common: of `x[:, :4]` and `x[:, 4:]`, made before, or of
    `x[4:]` and the rows of `hl.tile(4)` of x."""
    one, other = first.memory, second.memory
    if one is None or other is None or any(memory.access.addresses_at is not None for memory in (one, other)):
        return False
    return one.name != other.name and not spans_meet(one.tensor, other.tensor, _part(one), _part(other))


def _part(memory: Memory) -> dict[int, range]:
    """The dimensions along which an access keeps to places that constants say."""
    found = {item.dim: constant_places(item) for item in index_items(memory) if item.kind != "new"}
    return {dim: places for dim, places in found.items() if places is not None}


@dataclasses.dataclass(frozen=True)
class _Excused:
    """Axes that the conditions around an access speak of, so that they may keep it apart from others.

    Attributes:
        alone: those of whose tiles one at most comes to the access.
        apart: those whose tiles need not all come to it: two accesses of one element may be those of one tile.
    """

    alone: frozenset[int] = frozenset()
    apart: frozenset[int] = frozenset()

    def within(self, ir: DeviceIR, node: torch.fx.Node, side: GraphInfo, by_data: bool) -> _Excused:
        """On a side of a branch.

        Args:
            ir, node: the branch, or another node with graphs of its own.
            side: the graph.
            by_data: whether data can elect a tile, as where an atomic tells one of them from the others.
        """
        branch = IfElse.match(node)
        if branch is None:
            return self
        everything = {axis.id for axis in ir.space.axes}
        if isinstance(branch.test, torch.fx.Node):
            return _Excused(self.alone | everything if by_data else self.alone, self.apart | everything)
        holds, speaks_of = side is ir.graphs[branch.then_id], _axes_in(ir, branch.test)
        elected = {a.id for a in ir.space.axes if a.id in speaks_of and elects(ir, a, branch.test, holds)}
        return _Excused(self.alone | elected, self.apart | speaks_of)


def _accesses(
    ir: DeviceIR, info: GraphInfo, by_data: bool, excused: _Excused = _Excused()
) -> Iterator[tuple[Memory, _Excused]]:
    """Memory nodes of a graph and its subgraphs."""
    for node in info.graph.nodes:
        if memory := Memory.match(node):
            yield memory, excused
        for sub in ir.subgraphs_of(node):
            if not _never_runs(sub):
                yield from _accesses(ir, sub, by_data, excused.within(ir, node, sub, by_data))


def _after_acquiring(accesses: list[Memory]) -> set[torch.fx.Node]:
    """Those of a loop's accesses, in order, that come after one which acquires what other programs have released."""
    first = next((i for i, memory in enumerate(accesses) if _acquires(memory)), len(accesses))
    return {memory.node for memory in accesses[first:]}


def _acquires(memory: Memory) -> bool:
    at = memory.op.positions.get("sem")
    return memory.op is wait or (at is not None and memory.node.args[at] in ("acquire", "acq_rel"))


def _never_runs(info: GraphInfo) -> bool:
    """Whether a loop has no tiles, as one over the interior of a tensor that has none: nobody stores anything."""
    return any(axis.static_extent == 0 for axis in info.axes)


def _axes_in(ir: DeviceIR, number: Any) -> set[int]:
    """Axes whose position a number depends on."""
    return {
        ir.space.origins[s].index
        for s in symbols_of(number)
        if s in ir.space.origins and ir.space.origins[s].kind.name.startswith("TILE_")
    }


def _axes_of(ir: DeviceIR, element: Any) -> list[Axis]:
    """The axes whose tiles or positions an index element is made of."""
    if isinstance(element, TracedTile):
        return [element.axis]
    ids = set() if isinstance(element, torch.fx.Node) else _axes_in(ir, element)
    return [axis for axis in ir.space.axes if axis.id in ids]


def _uses(element: Any, axis: Axis) -> bool:
    """Whether an index element is different for different tiles of an axis (or may be)."""
    if isinstance(element, TracedTile):
        # A loop that begins where an outer tile does covers that tile's part: hl.tile(outer.begin, outer.end).
        return element.axis is axis or _uses(element.axis.begin, axis)
    if isinstance(element, torch.fx.Node):
        return True
    mine = {axis.offset.node.expr, axis.tile_id.node.expr, axis.clipped_end.node.expr}
    return bool(symbols_of(element) & mine)


def _check_store(ir: DeviceIR, root: GraphInfo, store: Store, axes: list[Axis], fix: str | None) -> None:
    items = index_items(store)
    repeated = [item for item in items if item.repeats]
    for item in repeated:
        axis = item.value.axis
        if _from_data(axis) or _ends_at_one(ir, axis) or _is_masked(ir, store, axis):
            continue
        if not _same_in_all_tiles(ir, root, store, axis):
            raise one_element(store.name, item.dim, axis.name, store.node.meta.get("location"))
    if any(isinstance(axis.begin, torch.Tensor) for item in items for axis in _axes_of(ir, item.value)):
        return  # ranges of different outer tiles are the user's to keep apart
    elements = [item.value for item in items if not item.repeats]
    apart = {item.dim for item in items if any(_uses(item.value, axis) for axis in axes)}
    if parts_meet(store.tensor, apart) and not all(_same_in_all_tiles(ir, root, store, axis) for axis in axes):
        raise exc.LoopDependencyError(
            reason=f"{store.name!r} has several indices for one element, and a tile may store what another tile stores",
            location=store.node.meta.get("location"),
            fix="store to a tensor whose elements are apart, or use hl.atomic_add for a sum.",
        )
    for axis in axes:
        if any(item.value.axis is axis for item in repeated):
            continue
        if any(_uses(element, axis) for element in elements) or _same_in_all_tiles(ir, root, store, axis):
            continue
        if not _covered(ir.space, axis):
            raise exc.LoopDependencyError(
                reason=f"every tile of loop {axis.name!r} stores to the same elements of {store.name!r}: "
                f"the index does not use {axis.name!r}",
                location=store.node.meta.get("location"),
                fix=fix,
            )


def _check_computed(ir: DeviceIR, root: GraphInfo, store: Store, axes: list[Axis], fix: str | None) -> None:
    """A store to a place that is computed from the loop's: `out[i % 2]`."""
    items = [item for item in index_items(store) if item.kind != "new"]
    places = OwnPlaces(ir, axes, [item for item in items if not item.repeats], store.extra_mask)
    if not axes or not places.computed:
        return
    found = places.shared()
    if found is None or all(_same_in_all_tiles(ir, root, store, axis, places.computed) for axis in axes):
        return
    one, other = (" and ".join(f"{name} = {place[at]}" for name, *place in found.places) for at in (0, 1))
    numbers = iter(found.element)
    text = [":" if item.kind == "slice" else str(0 if item.repeats else next(numbers)) for item in items]
    raise exc.LoopDependencyError(
        reason=f"{store.name}[{', '.join(text)}] is stored for {one} and for {other}, which run at the same time",
        location=store.node.meta.get("location"),
        fix=fix
        or "use hl.atomic_add for a sum, give every tile its own place in the output, or let one tile do all "
        "that goes to one place, in a loop of its own.",
    )


def one_element(name: str, dim: int, tile: str, location: exc.SourceLocation | None = None) -> exc.LoopDependencyError:
    """The error for a store of a whole tile to a dimension of size 1."""
    return exc.LoopDependencyError(
        reason=f"every tile of {tile!r} stores to the one element that dimension {dim} of {name!r} has, and not the "
        "same value",
        location=location,
        fix=f"loop over that dimension, hl.tile({name}.size({dim})), or leave out what is past its end: "
        f"hl.load and hl.store with extra_mask={tile}.index < {name}.size({dim}).",
    )


def _covered(space: Space, axis: Axis) -> bool:
    """Whether one tile of an axis covers its range, whatever the Config says: its block size is made to, if it can."""
    if axis.kind is not AxisKind.TILE or any(
        isinstance(b, (torch.Tensor, torch.fx.Node)) for b in (axis.begin, axis.end)
    ):
        return False
    block, extent = axis.block, space.hint(axis.end - axis.begin)
    if extent is None:
        return False
    size = block.fixed if isinstance(block.fixed, int) else next_power_of_2(max(extent, 1))
    if not bool(axis.end - axis.begin <= size):  # a guard under dynamic shapes
        return False
    if block.fixed is not None:
        return isinstance(block.fixed, int)
    if size > _LARGEST_COVER or (block.high is not None and size > next_power_of_2(block.high)):
        return False
    block.low = max(block.low, size)
    return True


def _same_in_all_tiles(ir: DeviceIR, root: GraphInfo, store: Store, axis: Axis, given: Collection[Any] = ()) -> bool:
    """Whether all tiles of an axis store the same, if they have in common what is given, and none could see that
    another one has."""
    used = list(touches(ir, root))
    (own,) = (touch for touch in used if touch.node is store.node)
    if any(touch.storage == own.storage and touch.node is not store.node for touch in used):
        return False
    same = Sameness(ir, axis, {touch.storage for touch in used if touch.writes}, given)
    return same.of(store.value)


def _is_masked(ir: DeviceIR, access: Load | Store, axis: Axis) -> bool:
    """Whether a mask chooses among the tiles of an axis: which of them store is the user's to say."""
    return access.extra_mask is not None and not Sameness(ir, axis, ()).of(access.extra_mask)


def _ends_at_one(ir: DeviceIR, axis: Axis) -> bool:
    """Whether a loop has no index but 0 in this call, which is a guard: `hl.tile(n)` where n is 1.

    So has one that ends where a tile of such a loop does: the rows of a block, of a matrix of one row.
    """
    for outer in ir.space.axes:
        if is_symbolic(axis.end) and expr_of(axis.end) == expr_of(outer.clipped_end):
            return outer.static_extent == 1 or _ends_at_one(ir, outer)
    known = isinstance(axis.end, torch.SymInt) and ir.space.is_host_value(axis.end)
    from_zero = not isinstance(axis.begin, int) or axis.begin >= 0
    return from_zero and known and bool(axis.end == 1)


def _from_data(axis: Axis) -> bool:
    """Whether bounds of an inner loop come from memory: that they stay inside the tensor is the user's to see to, of
    one that happens to have one row as of a longer one.
    """
    return isinstance(axis.begin, torch.Tensor) or isinstance(axis.end, torch.Tensor)


def _check_load(ir: DeviceIR, load: Load, store: Store, axes: list[Axis]) -> None:
    """A load and a store of one loop, through whatever views of one memory."""
    pairs = matched(store, load)
    if pairs is None:
        _check_views(load, store, "read")
        return
    for w, r in pairs:
        repeated = [r.value.axis] if w.repeats and r.repeats and any(r.value.axis is a for a in axes) else []
        if any(_is_masked(ir, store, axis) and not _is_masked(ir, load, axis) for axis in repeated):
            raise exc.LoopDependencyError(
                reason=f"every tile of {r.value.axis.name!r} reads the one element that dimension {r.dim} of "
                f"{load.name!r} has, and one of them stores it",
                location=load.node.meta.get("location"),
                fix=f"give hl.load the extra_mask that hl.store has: hl.load({load.name}, ..., extra_mask=...).",
            )
    for axis in axes:
        for w, r in ((w.value, r.value) for w, r in pairs):
            if not _uses(w, axis) or isinstance(w, torch.fx.Node) or isinstance(r, torch.fx.Node):
                continue
            if not _same(w, r):
                raise exc.LoopDependencyError(
                    reason=f"{_as_written(ir, load)} is read and {_as_written(ir, store)} stored in the same loop: "
                    f"a tile of {axis.name!r} reads what another tile writes",
                    location=load.node.meta.get("location"),
                    fix=_apart(ir, load.name),
                )


def _differing(one: Memory, other: Memory) -> list[tuple[IndexItem, IndexItem]]:
    """The elements of two indices that are not the same place."""
    return [(a, b) for a, b in matched(one, other) or [] if not _same(_as_tile(a.value), _as_tile(b.value))]


def _apart(ir: DeviceIR, name: str) -> str:
    """What to do about a loop that reads and stores one tensor."""
    if all(root.phase == ir.roots[0].phase for root in ir.roots):
        return f"read from a copy made before the loop ({name}.clone()), or store to another tensor."
    return (
        "store to another tensor, and take the two in turns from phase to phase; or read and store views that have no "
        f"element in common, made before the first loop: `even, odd = {name}[::2], {name}[1::2]`."
    )


def _check_positions(ir: DeviceIR, load: Load, store: Store, axes: list[Axis]) -> None:
    """A load and a store of one loop of which one goes through an index tensor that the loop's positions make."""
    pairs = _differing(store, load)
    # Dimensions that differ as well may keep the two apart.
    if not all(isinstance(w.value, torch.fx.Node) or isinstance(r.value, torch.fx.Node) for w, r in pairs):
        return
    for axis in axes:
        for w, r in pairs:
            clash = Positions(ir, axis).clash(load, r.value, store, w.value)
            if clash is None or not all(_meet(ir, axes, load, a.value, store, b.value) for b, a in pairs if a is not r):
                continue
            reader, writer, element = clash
            raise exc.LoopDependencyError(
                reason=f"index {reader} of {axis.name!r} reads element {element} of {load.name!r} (dimension {r.dim}), "
                f"which index {writer} stores in the same loop: a tile reads what another writes",
                location=load.node.meta.get("location"),
                fix=_apart(ir, load.name),
            )


def _check_stores(ir: DeviceIR, first: Store, second: Store, axes: list[Axis]) -> None:
    """Two stores of one loop at places that lie a distance apart, `out[t]` and `out[t + 1]`."""
    pairs = _differing(first, second)
    if len(pairs) != 1 or _store_one_constant(first, second):
        return
    ((one, other),) = pairs
    for axis in axes:
        clash = Positions(ir, axis).clash(second, other.value, first, one.value)
        if clash is not None:
            later, earlier, element = clash
            raise exc.LoopDependencyError(
                reason=f"element {element} of {second.name!r} (dimension {other.dim}) is stored for index {earlier} of "
                f"{axis.name!r} and, by another store, for index {later}, which run at the same time",
                location=second.node.meta.get("location"),
                fix="give each store a tensor or a part of its own, or use hl.atomic_add for a sum.",
            )


def _store_one_constant(first: Store, second: Store) -> bool:
    one, other = (Full.of(v).value if Full.match(v) else v for v in (first.value, second.value))
    return isinstance(one, (bool, int, float)) and isinstance(other, (bool, int, float)) and one == other


def _meet(ir: DeviceIR, axes: list[Axis], load: Load, read: Any, store: Store, written: Any) -> bool:
    """Whether two index elements of one dimension name one element for some index of one of these axes."""
    return any(Positions(ir, axis).clash(load, read, store, written, any_tile=True) for axis in axes)


def _as_tile(element: Any) -> Any:
    """The tile of an index tensor that is just its index, `t.index[:, None]`."""
    node = element
    while isinstance(node, torch.fx.Node) and node.target in VIEWS:
        node = node.args[0]
    return TileIndex.of(node).tile if isinstance(node, torch.fx.Node) and TileIndex.match(node) else element


def _as_written(ir: DeviceIR, access: Load | Store) -> str:
    """An access in the words of the source, `x[t, i]`."""

    def text(element: Any) -> str:
        if isinstance(element, TracedTile):
            shift = "" if str(element.offset) == "0" else f" + {text(element.offset)}"
            return element.axis.name + shift
        if isinstance(element, slice):
            return ":".join("" if end is None else text(end) for end in (element.start, element.stop))
        if isinstance(element, torch.fx.Node):
            return "<tensor>" if element.meta["val"].dim() else "<number>"
        return "..." if element is Ellipsis else ir.space.readable(str(element))

    return f"{access.name}[{', '.join(map(text, access.index))}]"


def _check_views(access: Load | Store, store: Store, how: str) -> None:
    """Two accesses of one loop whose indices cannot be compared: other tensors, or other views of one."""
    if not same_storage(access.tensor, store.tensor) or not spans_meet(access.tensor, store.tensor):
        return
    if any(isinstance(element, torch.fx.Node) for element in (*access.index, *store.index)):
        return  # through index tensors: cannot be judged
    raise exc.LoopDependencyError(
        reason=f"{access.name!r} is {how} and {store.name!r}, which overlaps it in memory, is stored in the same loop: "
        "a tile may touch what another tile writes",
        location=access.node.meta.get("location"),
        fix=f"use a copy ({access.name}.clone()), or access both through one tensor.",
    )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, TracedTile) or isinstance(b, TracedTile):
        return isinstance(a, TracedTile) and a == b
    return str(a) == str(b)
