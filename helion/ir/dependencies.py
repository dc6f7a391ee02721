"""Data races between tiles that run at the same time, found at compile time.

Tiles of a top-level loop run at the same time and in any order.  A plain store must therefore go to a place of the
tile's own, and a load may not read what another tile stores.  Atomics are exempt; so are stores through index
tensors and under conditions on the loop's own position, which cannot be judged here.

So do the tiles of several top-level loops, unless `hl.barrier()` stands between them: no loop may touch a tensor that
another one of its phase stores, wherever in the tensor that is.  Only atomics of both may meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.fx

from .. import exc
from ..language.op import Op
from . import device_ir
from .device_ir import Axis
from .device_ir import DeviceIR
from .device_ir import GraphInfo
from .device_ir import TracedTile
from .symbols import symbols_of


def check_dependencies(ir: DeviceIR) -> None:
    """Raise if two tiles that run at the same time touch the same element and one of them stores it.

    Raises:
        exc.LoopDependencyError: with the place of the access.
    """
    for root in ir.roots:
        info = ir.graphs[root.graph_id]
        axes = [axis for axis in info.axes if axis.static_extent != 1]
        stores = [(node, excused) for node, excused in _accesses(ir, info, "store", set())]
        for node, excused in stores:
            _check_store(node, [a for a in axes if a.id not in excused])
        for node, _ in _accesses(ir, info, "load", set()):
            _check_load(node, [s for s, _ in stores], axes)
    for i, later in enumerate(ir.roots):
        for earlier in ir.roots[:i]:
            if earlier.phase == later.phase:
                _check_pair(ir, ir.graphs[earlier.graph_id], ir.graphs[later.graph_id])


def _check_pair(ir: DeviceIR, earlier: GraphInfo, later: GraphInfo) -> None:
    """Two loops of one phase."""
    before = list(_touched(ir, earlier))
    for tensor, how, node in _touched(ir, later):
        for other, other_how, _ in before:
            same = tensor.fake.untyped_storage()._cdata == other.fake.untyped_storage()._cdata
            if same and (how != other_how or how == "store"):
                did, does = _VERBS[other_how], _VERBS[how]
                raise exc.LoopDependencyError(
                    reason=(
                        f"{tensor.name!r} is {does} here and {did} in an earlier top-level loop, "
                        "which runs at the same time"
                    ),
                    location=node.meta.get("location"),
                    fix="put hl.barrier() between the two loops.",
                )


_VERBS = {"load": "read", "store": "stored to", "atomic": "updated"}


def _touched(ir: DeviceIR, info: GraphInfo) -> Iterator[tuple[device_ir.HostTensor, str, torch.fx.Node]]:
    """Uses of host tensors in a graph and its subgraphs: the tensor, how it is used (as in `_VERBS`), and the node."""
    for node in info.graph.nodes:
        atomic = isinstance(node.target, Op) and node.target.name.startswith("atomic_")
        how = "atomic" if atomic else "store" if device_ir.has_side_effect(node) else "load"
        for source in node.all_input_nodes:
            if source.target is device_ir.host_tensor:
                yield ir.host_tensors[source.args[0]], how, node  # type: ignore[index]
        for sub in ir.subgraphs_of(node):
            yield from _touched(ir, sub)


def _accesses(ir: DeviceIR, info: GraphInfo, name: str, excused: set[int]) -> Iterator[tuple[torch.fx.Node, set[int]]]:
    """Memory nodes of a graph and its subgraphs, with the axes that a condition around them speaks of."""
    for node in info.graph.nodes:
        if isinstance(node.target, Op) and node.target.name == name:
            yield node, excused
        inner = excused
        if node.target is device_ir.if_else:
            test = node.args[0]
            spoken = {a.id for a in ir.axes} if isinstance(test, torch.fx.Node) else _axes_in(ir, test)
            inner = excused | spoken
        for sub in ir.subgraphs_of(node):
            yield from _accesses(ir, sub, name, inner)


def _axes_in(ir: DeviceIR, number: Any) -> set[int]:
    """Axes whose position a number depends on."""
    return {
        ir.origins[s].index
        for s in symbols_of(number)
        if s in ir.origins and ir.origins[s].kind.name.startswith("TILE_")
    }


def _uses(element: Any, axis: Axis) -> bool:
    """Whether an index element is different for different tiles of an axis (or may be)."""
    if isinstance(element, TracedTile):
        # A loop that begins where an outer tile does covers that tile's part: hl.tile(outer.begin, outer.end).
        return element.axis is axis or _uses(element.axis.begin, axis)
    if isinstance(element, torch.fx.Node):
        return True
    mine = {axis.offset.node.expr, axis.tile_id.node.expr, axis.clipped_end.node.expr}
    return bool(symbols_of(element) & mine)


def _check_store(node: torch.fx.Node, axes: list[Axis]) -> None:
    index: Any = node.args[1]
    if any(isinstance(e, TracedTile) and _from_data(e) for e in index):
        return
    for axis in axes:
        if not any(_uses(element, axis) for element in index):
            name = node.args[0].args[0]  # type: ignore[union-attr]
            raise exc.LoopDependencyError(
                reason=(
                    f"every tile of loop {axis.name!r} stores to the same elements of {name!r}: the index "
                    f"does not use {axis.name!r}"
                ),
                location=node.meta.get("location"),
            )


def _from_data(tile: TracedTile) -> bool:
    """A tile of an inner loop whose bounds come from memory: ranges of different outer tiles are the user's to keep
    apart.
    """
    return isinstance(tile.axis.begin, torch.Tensor)


def _check_load(node: torch.fx.Node, stores: list[torch.fx.Node], axes: list[Axis]) -> None:
    for store in stores:
        if store.args[0].args != node.args[0].args:  # type: ignore[union-attr]
            continue
        written: Any = store.args[1]
        read: Any = node.args[1]
        if len(written) != len(read):
            continue
        for axis in axes:
            for w, r in zip(written, read):
                if not _uses(w, axis) or isinstance(w, torch.fx.Node) or isinstance(r, torch.fx.Node):
                    continue
                if not _same(w, r):
                    name = node.args[0].args[0]  # type: ignore[union-attr]
                    raise exc.LoopDependencyError(
                        reason=(
                            f"{name!r} is read at {r} and stored at {w} in the same loop: a tile of {axis.name!r} "
                            "reads what another tile writes"
                        ),
                        location=node.meta.get("location"),
                    )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, TracedTile) or isinstance(b, TracedTile):
        return isinstance(a, TracedTile) and a == b
    return str(a) == str(b)
