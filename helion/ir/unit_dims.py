"""Dimensions of one: which of them a kernel can do without, under the block sizes of a Config.

A product of [1, m, k] with [1, k, n] is one of matrices, and x[tile, :] with tiles of one row is a vector.  On a GPU
the form costs: a layout of threads is found for each value by its shape, and a dimension of one makes another of it.
So the dimension is dropped from every value that has it (`squeezing`), and the kernel is the one that indexing with a
number would have made.

Dimensions that stand in one column of an operation belong together: one of them cannot go alone.  A class of such
dimensions can be dropped if all of them are one and every op that has them can do without.  `x[:, None] * y` makes a
class of the new dimension and of y's columns, which stays.

Not here: how the graphs are rewritten.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import sympy
import torch
import torch.fx

from ..language.creation import iota
from ..language.indexing import IndexItem
from ..language.op import Op
from .axes import index_items
from .device_ir import DeviceIR
from .nodes import Atomic
from .nodes import Dot
from .nodes import ForLoop
from .nodes import Full
from .nodes import HostTensorNode
from .nodes import IfElse
from .nodes import Item
from .nodes import Load
from .nodes import Memory
from .nodes import Reduction
from .nodes import Store
from .nodes import TileIndex
from .nodes import View
from .nodes import host_tensor
from .nodes import number
from .nodes import numbers
from .nodes import operand
from .nodes import tensor_of
from .pointwise import POINTWISE
from .symbols import expr_of

_aten = torch.ops.aten

#: Names of dimensions.  0 is that of every dimension that is not one; those in its class stay.
Dims = Sequence[int]


class UnitDims:
    """The dimensions of an IR's values, and which of them can be dropped.

    Args:
        ir: the device IR.
        ones: the sizes that are one, besides the number.
    """

    def __init__(self, ir: DeviceIR, ones: Collection[sympy.Expr]) -> None:
        self.ir = ir
        self._ones = ones
        self._are_one: dict[Any, bool] = {}  # of the nodes of symbolic sizes: a kernel has few
        self._classes = [[0]]  # dimension -> those of its class
        self._dims: dict[torch.fx.Node, Dims] = {}
        self._results: dict[torch.fx.Node, list[Dims]] = {}  # of loops and branches
        #: The dimensions of what a load, store or atomic accesses, and its index, where one of them is one.
        self.accesses: dict[torch.fx.Node, tuple[Dims, list[IndexItem]]] = {}
        nodes = [node for info in ir.graphs for node in info.graph.nodes if node.target is not host_tensor]
        for node in nodes:
            value = node.meta.get("val")
            if isinstance(value, torch.Tensor):
                self._dims[node] = self._new(value.shape)
            elif isinstance(value, (tuple, list)):
                self._results[node] = [self._new(v.shape) if isinstance(v, torch.Tensor) else () for v in value]
        #: Whether any value has a dimension of one at all.
        self.found = len(self._classes) > 1
        if self.found:
            for node in nodes:
                if node.op == "call_function":
                    _rule_of(node.target)(self, node)
            stay = self._classes[0]
            self._dropped = [members is not stay for members in self._classes]
            self.found = any(self._dropped)

    # -- what is asked -------------------------------------------------------------------------------------------

    def is_one(self, size: Any) -> bool:
        """Whether a size is one."""
        if isinstance(size, int):
            return size == 1
        node = size.node
        if node not in self._are_one:
            self._are_one[node] = expr_of(size) in self._ones
        return self._are_one[node]

    def is_dropped(self, dim: int) -> bool:
        """Whether a dimension goes."""
        return self._dropped[dim]

    def concerns(self, node: torch.fx.Node) -> bool:
        """Whether a node's value, or what it accesses, has a dimension of one, which may go."""
        if any(self._dims.get(node, ())) or node in self.accesses:
            return True
        return node in self._results and any(map(any, self._results[node]))

    def of(self, node: torch.fx.Node) -> Dims:
        """The dimensions of a node's value; none for numbers."""
        return self._dims.get(node, ())

    def places(self, node: torch.fx.Node) -> list[int]:
        """Which of its dimensions a node's value keeps."""
        return self._left(self.of(node))

    def results(self, node: torch.fx.Node) -> list[list[int]]:
        """The same of a node with several results."""
        return [self._left(dims) for dims in self._results[node]]

    def _left(self, dims: Dims) -> list[int]:
        return [place for place, dim in enumerate(dims) if not self._dropped[dim]]

    # -- classes -------------------------------------------------------------------------------------------------

    def _new(self, shape: Iterable[Any]) -> Dims:
        made = []
        for size in shape:
            if self.is_one(size):
                made.append(len(self._classes))
                self._classes.append([len(self._classes)])
            else:
                made.append(0)
        return tuple(made)

    def _same(self, one: int, other: int) -> None:
        grows, joins = self._classes[one], self._classes[other]
        if grows is joins:
            return
        if len(grows) < len(joins):
            grows, joins = joins, grows
        grows += joins
        for dim in joins:
            self._classes[dim] = grows

    def _aligned(self, one: Dims, other: Dims) -> None:
        """Two values that broadcast: their last dimensions stand in one column."""
        if one != other:  # as most are, without a dimension of one
            for a, b in zip(reversed(one), reversed(other)):
                if a != b:
                    self._same(a, b)

    def _keep(self, dims: Iterable[int]) -> None:
        for dim in dims:
            self._same(dim, 0)

    # -- what ops say --------------------------------------------------------------------------------------------

    def _elementwise(self, node: torch.fx.Node) -> None:
        own = self.of(node)
        for source in node.all_input_nodes:
            self._aligned(self.of(source), own)

    def _free(self, node: torch.fx.Node) -> None:
        """Nothing holds the dimensions of what has no operands."""

    def _stays(self, node: torch.fx.Node) -> None:
        """An op that nothing is known of has its operands and its result as they are."""
        for held in (node, *node.all_input_nodes):
            for dims in (self.of(held), *self._results.get(held, ())):
                self._keep(dims)

    def _item(self, node: torch.fx.Node) -> None:
        item = Item.of(node)
        self._aligned(self.of(node), self._results[item.source][item.index])

    def _loop(self, node: torch.fx.Node) -> None:
        loop = ForLoop.of(node)
        body = self.ir.graphs[loop.graph_id]
        placeholders, outputs = body.placeholders, body.outputs
        for given, taken in zip(loop.inputs, placeholders):
            self._match(given, self.of(taken))
        for position, output in body.carried.items():
            self._match(outputs[output], self.of(placeholders[position]))
        for result, given in zip(self._results[node], outputs):
            self._match(given, result)

    def _branch(self, node: torch.fx.Node) -> None:
        branch = IfElse.of(node)
        sides = ((branch.then_id, branch.then_inputs), (branch.else_id, branch.else_inputs))
        for graph_id, inputs in sides:
            body = self.ir.graphs[graph_id]
            for given, taken in zip(inputs, body.placeholders):
                self._match(given, self.of(taken))
            for result, output in zip(self._results[node], body.outputs):
                self._match(output, result)

    def _match(self, given: Any, taken: Dims) -> None:
        if isinstance(given, torch.fx.Node):
            self._aligned(self.of(given), taken)

    def _reduction(self, node: torch.fx.Node) -> None:
        reduction = Reduction.of(node)
        source, result, dim = list(self.of(reduction.source)), list(self.of(node)), reduction.dim
        before, after = tensor_of(reduction.source), tensor_of(node)
        if before.dtype is not after.dtype and not reduction.kind.returns_index:
            self._keep([source[dim]])  # dropping it would drop the cast
        reduced = source.pop(dim)
        if reduction.keepdim:
            kept = result.pop(dim)
            if self.is_one(before.shape[dim]):
                self._same(reduced, kept)
        self._aligned(source, result)

    def _product(self, node: torch.fx.Node) -> None:
        dot, result = Dot.of(node), self.of(node)
        for source in (dot.a, dot.b):
            self._aligned(self.of(source)[:-2], result[:-2])
            self._keep(self.of(source)[-2:])
        self._keep(result[-2:])
        if dot.acc is not None:
            self._aligned(self.of(dot.acc), result)

    def _memory(self, node: torch.fx.Node) -> None:
        memory = Memory.of(node)
        items = index_items(memory)
        shape, gathered = _accessed(items)
        dims = self._new(shape)
        if any(dims):
            self.accesses[node] = dims, items
        bounded = node.meta.get("bounded_dims", ())
        for item, place in gathered:
            if item.kind == "tile" and item.dim in bounded:
                self._keep([dims[place]])  # a number has no mask
        tensors = [self.of(item.value) for item in items if item.kind == "tensor"]
        for own in tensors:
            first = next(place for item, place in gathered if item.kind == "tensor")
            width = max(map(len, tensors))
            self._aligned(own, dims[first : first + width])
            if len(own) != width:
                # The dimensions of several stand where the first of them does: none may become a number alone.
                self._keep(dims[first : first + width])
        for taken in (memory.extra_mask, *memory.values):
            self._match(taken, dims)
        if isinstance(node.meta.get("val"), torch.Tensor):
            self._aligned(self.of(node), dims)

    # -- views ---------------------------------------------------------------------------------------------------

    def _unsqueeze(self, node: torch.fx.Node) -> None:
        result = list(self.of(node))
        del result[number(node, 1) % len(result)]
        self._aligned(self.of(operand(node)), result)

    def _squeeze(self, node: torch.fx.Node) -> None:
        left = [d for d in range(tensor_of(operand(node)).dim()) if d not in squeezed(node)]
        source = self.of(operand(node))
        if len(left) != len(self.of(node)):
            self._keep((*source, *self.of(node)))
            return
        self._aligned([source[d] for d in left], self.of(node))

    def _permute(self, node: torch.fx.Node) -> None:
        source = self.of(operand(node))
        self._aligned([source[d] for d in numbers(node, 1)], self.of(node))

    def _view(self, node: torch.fx.Node) -> None:
        """Dimensions of one are free on both sides.  Others that stay one by one belong together."""

    def _expand(self, node: torch.fx.Node) -> None:
        self._aligned(self.of(operand(node)), self.of(node))


def squeezed(node: torch.fx.Node) -> list[int]:
    """The dimensions that an aten.squeeze takes away: those of its list whose size is the number 1."""
    shape = tensor_of(operand(node)).shape
    listed = {d % len(shape) for d in numbers(node, 1)} if len(shape) else set()
    return [d for d in sorted(listed) if isinstance(shape[d], int) and shape[d] == 1]


def _accessed(items: Sequence[IndexItem]) -> tuple[list[Any], list[tuple[IndexItem, int]]]:
    """The shape that an index describes; and its elements that make dimensions, each with the place of the first."""
    tensors = [tensor_of(item.value).shape for item in items if item.kind == "tensor"]
    gathered = list(torch.broadcast_shapes(*tensors)) if len(tensors) > 1 else [size for t in tensors for size in t]
    shape: list[Any] = []
    made: list[tuple[IndexItem, int]] = []
    placed = False
    for item in items:
        if item.kind == "scalar" or (item.kind == "tensor" and placed):
            continue
        made.append((item, len(shape)))
        if item.kind == "tensor":
            shape.extend(gathered)
            placed = True
        else:
            shape.append(_size(item))
    return shape, made


def _size(item: IndexItem) -> Any:
    if item.kind == "tile":
        return item.value.block_size
    return item.value[1] if item.kind == "slice" else 1


Rule = Callable[[UnitDims, torch.fx.Node], None]

#: What each kind of node says; the first that fits.
_KINDS: tuple[tuple[type[View], Rule], ...] = (
    (ForLoop, UnitDims._loop),
    (IfElse, UnitDims._branch),
    (Item, UnitDims._item),
    (Reduction, UnitDims._reduction),
    (Load, UnitDims._memory),
    (Store, UnitDims._memory),
    (Atomic, UnitDims._memory),
    (Dot, UnitDims._product),
    (Full, UnitDims._elementwise),
    (TileIndex, UnitDims._free),
    (HostTensorNode, UnitDims._free),
)
_TARGETS: dict[Any, Rule] = {
    iota: UnitDims._free,
    _aten.unsqueeze.default: UnitDims._unsqueeze,
    _aten.squeeze.dims: UnitDims._squeeze,
    _aten.permute.default: UnitDims._permute,
    _aten.view.default: UnitDims._view,
    _aten.expand.default: UnitDims._expand,
}


@functools.cache
def _rule_of(target: Any) -> Rule:
    """What nodes that call a target say about their dimensions."""
    if target in POINTWISE:
        return UnitDims._elementwise
    if target in _TARGETS:
        return _TARGETS[target]
    rule = next((rule for view, rule in _KINDS if view.knows(target)), None)
    if rule is not None:
        return rule
    elementwise = isinstance(target, Op) and target.elementwise and target.access is None
    return UnitDims._elementwise if elementwise else UnitDims._stays
