"""Which loop axis each dimension of each value runs over.

Block sizes tell tiles apart by size; when two loops share a block size only the axis says whose range masks a
dimension.  The answer flows from tile indices through the graphs; where a shape is made, a tile's size in it says
whose it is (`Space.axis_of`).  A dimension made from a bare size (`hl.zeros([block])`) is taken for one of the
innermost enclosing axis with that block size, unless it meets a dimension that is known to be another's.

Dimensions that are known to be of two axes do not go together: each loop has partial tiles of its own, so one mask
would be wrong for the other's elements.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import torch
import torch.fx

from ..language.alignment import two_tiles
from ..language.indexing import IndexItem
from ..language.indexing import normalize_index
from ..language.op import Op
from .device_ir import Axis
from .device_ir import AxisKind
from .device_ir import DeviceIR
from .device_ir import GraphInfo
from .device_ir import TracedTile
from .nodes import ForLoop
from .nodes import IfElse
from .nodes import Item
from .nodes import Memory
from .nodes import Product
from .nodes import Reduction
from .nodes import TileIndex
from .nodes import View
from .nodes import number
from .nodes import numbers
from .nodes import tensor_of
from .symbols import expr_of

#: For each dimension the loop axis it runs over, or None.
Axes = tuple[Axis | None, ...]


@dataclasses.dataclass(frozen=True)
class _Guess:
    """The axis of a dimension of a bare size: it gives way to one that is known."""

    axis: Axis


@dataclasses.dataclass(frozen=True)
class _Lanes:
    """A dimension with one lane per element of a tile, after the tile's loop: it runs over no axis."""


#: While the answers are looked for; None where nothing is known.
_Dim = Axis | _Guess | _Lanes | None
_Found = tuple[_Dim, ...]
_aten = torch.ops.aten


def find_axes(ir: DeviceIR) -> Mapping[torch.fx.Node, Axes]:
    """The axes of every node that holds a tensor.

    Raises:
        exc.ShapeMismatch: elements of two loops' tiles are taken together, one by one.
    """
    found = _Pass(ir)
    for root in ir.roots:
        info = ir.graphs[root.graph_id]
        found.graph(info, list(info.axes), [])
    return {node: tuple(map(_axis, axes)) for node, axes in found.axes.items()}


def check_axes(ir: DeviceIR) -> None:
    """Raise as `find_axes` does: of tiles that share no block size, shapes have told already."""
    blocks = [axis.block for axis in ir.space.axes if axis.kind is AxisKind.TILE]
    if len(set(blocks)) < len(blocks):
        find_axes(ir)


def _axis(found: _Dim) -> Axis | None:
    return found.axis if isinstance(found, _Guess) else found if isinstance(found, Axis) else None


class _Pass:
    def __init__(self, ir: DeviceIR) -> None:
        self.ir = ir
        self.axes: dict[torch.fx.Node, _Found] = {}
        self.results: dict[torch.fx.Node, list[_Found]] = {}  # of loops and branches

    def of(self, node: Any) -> _Found:
        """The axes of a node's dimensions; empty for numbers."""
        return self.axes.get(node, ()) if isinstance(node, torch.fx.Node) else ()

    def graph(self, info: GraphInfo, scope: list[Axis], inputs: Sequence[Any]) -> list[_Found]:
        """Go through a graph; the axes of its outputs."""
        for placeholder, node in zip(info.placeholders, inputs):
            self.axes[placeholder] = node if isinstance(node, tuple) else self.of(node)
        for node in info.graph.nodes:
            if node.op != "call_function":
                continue
            rule = _rule_of(node.target)
            if rule is _accessed:
                self._check_written(Memory.of(node))
            if rule is None:
                self._control(node, scope)
            elif isinstance(value := node.meta.get("val"), torch.Tensor):
                self.axes[node] = self._fill(value.shape, rule(self, node, value), scope)
        return [self.of(output) for output in info.outputs]

    def _control(self, node: torch.fx.Node, scope: list[Axis]) -> None:
        """Go through the graphs of a loop or a branch."""
        if loop := ForLoop.match(node):
            body = self.ir.graphs[loop.graph_id]
            self.results[node] = self._loop(node, body, [*scope, *body.axes], loop.inputs)
            return
        branch = IfElse.of(node)
        left = self.graph(self.ir.graphs[branch.then_id], scope, branch.then_inputs)
        right = self.graph(self.ir.graphs[branch.else_id], scope, branch.else_inputs)
        self.results[node] = [_together(node, a, b) for a, b in zip(left, right)]

    def _loop(self, node: torch.fx.Node, body: GraphInfo, scope: list[Axis], inputs: Sequence[Any]) -> list[_Found]:
        """Go through a loop's body; the axes of its results."""
        starts = [self.of(value) for value in inputs]
        results = self.graph(body, scope, starts)
        for taken, output in body.carried.items():
            results[output] = _together(node, starts[taken], results[output])
        known = [
            _merge(start, results[body.carried[i]]) if i in body.carried else start for i, start in enumerate(starts)
        ]
        if known != starts:  # what is carried has met a tile of the loop, so it has had that one's lanes all along
            results = self.graph(body, scope, known)
        # Outside the loop a dimension no longer runs over the loop's axis: its lanes are partial results.
        inside = set(map(id, body.axes))
        return [tuple(_Lanes() if id(_axis(a)) in inside else a for a in axes) for axes in results]

    def _fill(self, shape: Sequence[Any], axes: _Found, scope: list[Axis]) -> _Found:
        """The axes of a value, with those that its sizes name or, for bare ones, suggest: the innermost axis of the
        block size that no other dimension has. Of `[block, block]` the last is the innermost tile's."""
        filled = [self._named(size, scope) if axis is None else axis for size, axis in zip(shape, axes)]
        for place in reversed(range(len(filled))):
            size = shape[place]
            if filled[place] is None and isinstance(size, torch.SymInt) and self.ir.space.axis_of(size) is None:
                taken = [axis for found in filled if (axis := _axis(found)) is not None]
                around = (a for a in reversed(scope) if a.kind is not AxisKind.GRID and a not in taken)
                innermost = next((a for a in around if size.node.expr == a.block.symbol), None)
                if innermost is not None:
                    filled[place] = _Guess(innermost)
        return tuple(filled)

    def _named(self, size: Any, scope: list[Axis]) -> Axis | None:
        """The axis that a size names, if it is one around."""
        named = self.ir.space.axis_of(size)
        return named if named is not None and any(named is axis for axis in scope) else None

    def _check_written(self, memory: Memory) -> None:
        """What is written has along each dimension the elements of the tile that its place has there."""
        if memory.addresses is not None:
            return
        axes = self.indexed(memory)
        for value in (*memory.values, memory.extra_mask):
            width = max(len(self.of(value)), len(axes))
            _together(memory.node, _align(axes, width), _align(self.of(value), width))

    def indexed(self, memory: Memory) -> _Found:
        """The axes of the dimensions that an index gives."""
        axes: list[_Dim] = []
        placed = False
        for item in normalize_index(memory.tensor.shape, with_values(memory.index), memory.op.name):
            if item.kind == "tile":
                axes.append(item.value.axis)
            elif item.kind in ("slice", "new"):
                axes.append(None)
            elif item.kind == "tensor" and not placed:
                placed = True
                axes.extend(self._gathered(memory))
        return tuple(axes)

    def _gathered(self, memory: Memory) -> _Found:
        merged: _Found = ()
        for element in memory.index:
            if isinstance(element, torch.fx.Node) and tensor_of(element).dim():
                axes = self.of(element)
                width = max(len(axes), len(merged))
                merged = _merge(_align(merged, width), _align(axes, width))
        return merged

    def by_size(self, shape: Sequence[Any], sources: Sequence[torch.fx.Node]) -> _Found:
        """Axes of a reshaped value: its dimensions of one symbolic size have, in their order, the axes of those of an
        operand, unless the sizes themselves name them."""
        known: dict[Any, list[_Dim]] = {}
        for source in sources:
            value = source.meta.get("val")
            if isinstance(value, torch.Tensor):
                mine: dict[Any, list[_Dim]] = {}
                for size, axis in zip(value.shape, self.of(source)):
                    if axis is not None:
                        mine.setdefault(expr_of(size), []).append(axis)
                for expr, axes in mine.items():
                    known.setdefault(expr, axes)
        found: list[_Dim] = []
        for size in shape:
            axes = known.get(expr_of(size), []) if isinstance(size, torch.SymInt) else []
            named = next((a for a in axes if _axis(a) is self.ir.space.axis_of(size)), None)
            found.append(named if named is not None else axes[0] if axes else None)
            if len(axes) > 1:
                axes.remove(found[-1])
        return tuple(found)


# -- what ops say: the axes of a node's value, as far as they do not follow from its shape ----------------------------


def _item(found: _Pass, node: torch.fx.Node, value: torch.Tensor) -> _Found:
    item = Item.of(node)
    results = found.results.get(item.source)
    return results[item.index] if results is not None else found.by_size(value.shape, [item.source])


def _tile(found: _Pass, node: torch.fx.Node, value: torch.Tensor) -> _Found:
    tile = TileIndex.of(node).tile
    assert isinstance(tile, TracedTile)
    return (tile.axis,)


def _accessed(found: _Pass, node: torch.fx.Node, value: torch.Tensor) -> _Found:
    memory = Memory.of(node)
    if memory.addresses is not None:
        return found.by_size(value.shape, node.all_input_nodes)
    axes = found.indexed(memory)
    return axes if len(axes) == value.dim() else (None,) * value.dim()


def _product(found: _Pass, node: torch.fx.Node, value: torch.Tensor) -> _Found:
    product = Product.of(node)
    a, b = found.of(product.a), found.of(product.b)
    _together(node, a[-1:], b[-2:-1])
    return (*a[:-1], b[-1])


def _reduction(found: _Pass, node: torch.fx.Node, value: torch.Tensor) -> _Found:
    reduction = Reduction.of(node)
    axes = list(found.of(reduction.source))
    axes[reduction.dim : reduction.dim + 1] = [None] if reduction.keepdim else []
    return tuple(axes)


def _unsqueeze(found: _Pass, node: torch.fx.Node, value: torch.Tensor) -> _Found:
    axes = list(found.of(node.args[0]))
    axes.insert(number(node, 1) % value.dim(), None)
    return tuple(axes)


def _squeeze(found: _Pass, node: torch.fx.Node, value: torch.Tensor) -> _Found:
    axes = found.of(node.args[0])
    rank = len(axes)
    dropped = {d % rank for d in numbers(node, 1)} if rank else set()
    return tuple(a for d, a in enumerate(axes) if d not in dropped) if value.dim() != rank else axes


def _permute(found: _Pass, node: torch.fx.Node, value: torch.Tensor) -> _Found:
    axes = found.of(node.args[0])
    return tuple(axes[d] for d in numbers(node, 1))


def _by_size(found: _Pass, node: torch.fx.Node, value: torch.Tensor) -> _Found:
    return found.by_size(value.shape, node.all_input_nodes)


def _joined(found: _Pass, node: torch.fx.Node, value: torch.Tensor) -> _Found:
    """Those of the operands; elements of a pointwise op go together one by one."""
    target: Any = node.target
    pointwise = torch.Tag.pointwise in getattr(target, "tags", ())
    merged: _Found = (None,) * value.dim()
    for arg in node.all_input_nodes:
        if isinstance(arg.meta.get("val"), torch.Tensor):
            axes = _align(found.of(arg), value.dim())
            merged = _together(node, merged, axes) if pointwise else _merge(merged, axes)
    return merged


_Rule = Callable[[_Pass, torch.fx.Node, torch.Tensor], _Found]

#: The first that fits.
_KINDS: tuple[tuple[type[View], _Rule | None], ...] = (
    (ForLoop, None),
    (IfElse, None),
    (Item, _item),
    (TileIndex, _tile),
    (Memory, _accessed),
    (Product, _product),
    (Reduction, _reduction),
)
_TARGETS: dict[Any, _Rule] = {
    _aten.unsqueeze.default: _unsqueeze,
    _aten.squeeze.dims: _squeeze,
    _aten.permute.default: _permute,
    _aten.view.default: _by_size,
}


@functools.cache
def _rule_of(target: Any) -> _Rule | None:
    """What nodes that call a target say; None of loops and branches."""
    for view, rule in _KINDS:
        if view.knows(target):
            return rule
    if target in _TARGETS:
        return _TARGETS[target]
    return _by_size if isinstance(target, Op) else _joined


def index_items(memory: Memory) -> list[IndexItem]:
    """The normalized index of a memory node; elements that are values are nodes, not FakeTensors."""
    # Asked by one analysis after the other; a copy of the node, or the node with another index, has other arguments.
    arguments, items = memory.node.meta.get("index_items", (None, ()))
    if arguments is not memory.node.args:
        arguments, items = memory.node.args, _index_items(memory)
        memory.node.meta["index_items"] = arguments, items
    return list(items)


def _index_items(memory: Memory) -> list[IndexItem]:
    items = normalize_index(memory.tensor.shape, with_values(memory.index), memory.op.name)
    # In the same order; two of them may have one FakeTensor.
    nodes = (e for e in memory.index if isinstance(e, torch.fx.Node) and isinstance(e.meta["val"], torch.Tensor))
    return [
        IndexItem(item.kind, next(nodes), item.dim) if isinstance(item.value, torch.Tensor) else item for item in items
    ]


def constant_places(item: IndexItem) -> range | None:
    """Numbers known while compiling among which are all that an index element names."""
    if item.repeats:
        return range(1)
    if item.kind == "scalar" and isinstance(item.value, int):
        return range(item.value, item.value + 1)
    if item.kind == "slice" and all(isinstance(n, int) for n in item.value):
        start, length, step = item.value
        return range(start, start + max(length, 0) * step, step)
    if item.kind == "tile" and all(isinstance(n, int) for n in (item.value.range_begin, item.value.range_end)):
        offset = expr_of(item.value.offset)
        if offset.is_Integer:
            return range(item.value.range_begin + int(offset), item.value.range_end + int(offset))
    return None


def are_constants_apart(a: IndexItem, b: IndexItem) -> bool:
    """Whether two index elements of one dimension name no number both, as far as constants say."""
    first, second = constant_places(a), constant_places(b)
    if first is None or second is None:
        return False
    bounds = first.stop <= second.start or second.stop <= first.start
    return bounds or (second.start - first.start) % math.gcd(first.step, second.step) != 0


def with_values(index: Any) -> list[Any]:
    """An index list with nodes replaced by their FakeTensors, as the language's index rules take it."""
    return [e.meta["val"] if isinstance(e, torch.fx.Node) else e for e in index]


def _align(axes: _Found, rank: int) -> _Found:
    return (*((None,) * (rank - len(axes))), *axes)


def _together(node: torch.fx.Node, a: _Found, b: _Found) -> _Found:
    """The axes of dimensions that go together.

    Raises:
        exc.ShapeMismatch: two of them are of different axes.
    """
    for one, other in zip(a, b):
        if isinstance(one, Axis) and isinstance(other, Axis) and one is not other:
            first, second = sorted((one, other), key=lambda axis: axis.id)
            raise two_tiles(first.name, second.name, node.meta.get("location"))
    return _merge(a, b)


def _merge(a: _Found, b: _Found) -> _Found:
    return tuple(y if _certainty(y) > _certainty(x) else x for x, y in zip(a, b))


def _certainty(found: _Dim) -> int:
    return 0 if found is None else 2 if isinstance(found, Axis) else 1
