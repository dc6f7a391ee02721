"""Rewrites a device IR without the dimensions of one that `unit_dims` finds.

Loads and stores get a number where the dimension's tile or slice stood, as if the kernel had indexed with it; products
become those of matrices; views and reductions that only changed such a dimension are no more.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence
from typing import Any

import sympy
import torch
import torch.fx

from ..language.creation import full
from ..language.creation import iota
from ..language.indexing import IndexItem
from .device_ir import DeviceIR
from .device_ir import GraphInfo
from .device_ir import TracedTile
from .nodes import Full
from .nodes import Memory
from .nodes import Reduction
from .nodes import TileIndex
from .nodes import copy_of
from .nodes import number
from .nodes import numbers
from .nodes import operand
from .nodes import tensor_of
from .pointwise import POINTWISE
from .symbols import shape_exprs
from .unit_dims import UnitDims
from .unit_dims import squeezed

_aten = torch.ops.aten


def drop_unit_dims(ir: DeviceIR, ones: Collection[sympy.Expr] = ()) -> DeviceIR:
    """An IR without dimensions of one, where it can do without them.

    Args:
        ir: the device IR.
        ones: the sizes that are one under the Config, besides the number.

    Returns:
        `ir` itself if there is nothing to drop, else a copy; each node's `meta["origin"]` is the node it was made from.
    """
    dims = UnitDims(ir, ones)
    return _Squeezer(ir, dims).run() if dims.found else ir


class _Squeezer:
    def __init__(self, ir: DeviceIR, dims: UnitDims) -> None:
        self.ir, self.dims = ir, dims
        self.table: dict[torch.fx.Node, torch.fx.Node] = {}
        self.graph = torch.fx.Graph()
        self._smaller: dict[Any, torch.Tensor] = {}

    def run(self) -> DeviceIR:
        return dataclasses.replace(self.ir, graphs=[self._graph(info) for info in self.ir.graphs])

    def _graph(self, info: GraphInfo) -> GraphInfo:
        if not any(map(self.dims.concerns, info.graph.nodes)):
            return info
        self.graph = torch.fx.Graph()
        for node in info.graph.nodes:
            if node.op == "output":
                self.graph.output(self._args(node)[0])
            else:
                self.table[node] = self._node(node)
        return dataclasses.replace(info, graph=self.graph)

    def _node(self, node: torch.fx.Node) -> torch.fx.Node:
        rewrite = _REWRITES.get(node.target)
        if rewrite is None and node in self.dims.accesses:
            rewrite = _access
        return self.copy(node, self._args(node)) if rewrite is None else rewrite(self, node)

    def _args(self, node: torch.fx.Node) -> tuple[Any, ...]:
        args: tuple[Any, ...] = torch.fx.node.map_arg(node.args, lambda n: self.table[n])
        return args

    def copy(self, node: torch.fx.Node, args: Sequence[Any], target: Any = None) -> torch.fx.Node:
        """A node that computes what `node` does, less the dimensions that go."""
        copy = copy_of(self.graph, node, tuple(args), target)
        if self.dims.concerns(node):
            copy.meta["val"] = self._value(node)
        if "neutral" in node.meta:  # an operand's dimension, which a reduction in chunks goes over
            which, dim, neutral = node.meta["neutral"]
            copy.meta["neutral"] = (which, self.dims.places(operand(node, which)).index(dim), neutral)
        return copy

    def with_args(self, node: torch.fx.Node, *args: Any) -> torch.fx.Node:
        """`node` with its first operand as it is now, and these arguments behind it."""
        return self.copy(node, (self.source(node), *args))

    def source(self, node: torch.fx.Node) -> torch.fx.Node:
        """The first operand as it is now."""
        return self.table[operand(node)]

    def shape(self, node: torch.fx.Node) -> list[Any]:
        """What is left of the shape of a node's value."""
        return _picked(tensor_of(node).shape, self.dims.places(node))

    def same_shape(self, one: torch.fx.Node, other: torch.fx.Node) -> bool:
        """Whether what is left of two values has one shape, of more than one element."""
        shape = self.shape(one)
        return not all(map(self.dims.is_one, shape)) and shape_exprs(shape) == shape_exprs(self.shape(other))

    def _value(self, node: torch.fx.Node) -> Any:
        value = node.meta.get("val")
        if isinstance(value, (tuple, list)):
            parts = zip(value, self.dims.results(node))
            return tuple(self._shrunk(v, left) if isinstance(v, torch.Tensor) else v for v, left in parts)
        return self._shrunk(value, self.dims.places(node)) if isinstance(value, torch.Tensor) else value

    def _shrunk(self, value: torch.Tensor, places: list[int]) -> torch.Tensor:
        if len(places) == value.dim():
            return value
        shape = _picked(value.shape, places)
        # Most values of a kernel have one of a few shapes.
        key = (value.dtype, *shape_exprs(shape))
        if (made := self._smaller.get(key)) is None:
            # Not a fake tensor: `torch.empty` in the mode takes half a millisecond, and a mode is of one thread at a
            # time, while several generate code at once.  A value of the kernel has a shape and a dtype, no strides, and
            # where it would be is not asked any more.
            made = self._smaller[key] = _element(value.dtype).as_strided(shape, [0] * len(places))
        return made


@functools.cache
def _element(dtype: torch.dtype) -> torch.Tensor:
    return torch.empty((), dtype=dtype, device="meta")


def _picked(values: Sequence[Any], places: Sequence[int]) -> list[Any]:
    return [values[place] for place in places]


# -- rewrites: the node that takes a node's place -------------------------------------------------------------------


def _full(s: _Squeezer, node: torch.fx.Node) -> torch.fx.Node:
    (_, value, *rest) = s._args(node)
    sizes = _picked(Full.of(node).shape, s.dims.places(node))
    return s.copy(node, (sizes, value, *rest))


def _constant(s: _Squeezer, node: torch.fx.Node, value: Any) -> torch.fx.Node:
    return s.copy(node, (s.shape(node), value, tensor_of(node).dtype, None), full)


def _tile_index(s: _Squeezer, node: torch.fx.Node) -> torch.fx.Node:
    if s.dims.places(node):
        return s.copy(node, s._args(node))
    tile = TileIndex.of(node).tile
    assert isinstance(tile, TracedTile)
    return _constant(s, node, tile.axis.offset)


def _iota(s: _Squeezer, node: torch.fx.Node) -> torch.fx.Node:
    args = s._args(node)
    return s.copy(node, args) if s.dims.places(node) else _constant(s, node, args[0])


def _unsqueeze(s: _Squeezer, node: torch.fx.Node) -> torch.fx.Node:
    at, places = number(node, 1) % tensor_of(node).dim(), s.dims.places(node)
    if at not in places or (not tensor_of(s.source(node)).dim() and _only_broadcasts(s, node)):
        return s.source(node)
    return s.with_args(node, places.index(at))


def _only_broadcasts(s: _Squeezer, node: torch.fx.Node) -> bool:
    """Whether a number with dimensions of one is only used beside values that have them all, as a number would be."""
    return all(
        _only_broadcasts(s, user)
        if user.target is _aten.unsqueeze.default
        else user.target in POINTWISE and any(s.same_shape(other, user) for other in user.all_input_nodes)
        for user in node.users
    )


def _squeeze(s: _Squeezer, node: torch.fx.Node) -> torch.fx.Node:
    places = s.dims.places(operand(node))
    left = [places.index(d) for d in squeezed(node) if d in places]
    return s.with_args(node, left) if left else s.source(node)


def _permute(s: _Squeezer, node: torch.fx.Node) -> torch.fx.Node:
    source = operand(node)
    places, rank = s.dims.places(source), tensor_of(source).dim()
    order = [places.index(d % rank) for d in numbers(node, 1) if d % rank in places]
    return s.source(node) if order == sorted(order) else s.with_args(node, order)


def _reshape(s: _Squeezer, node: torch.fx.Node) -> torch.fx.Node:
    """aten.view and aten.expand."""
    shape = s.shape(node)
    source = s.source(node)
    same = list(map(str, tensor_of(source).shape)) == list(map(str, shape))
    return source if same else s.with_args(node, shape)


def _reduction(s: _Squeezer, node: torch.fx.Node) -> torch.fx.Node:
    reduction = Reduction.of(node)
    places = s.dims.places(reduction.source)
    if reduction.dim not in places:  # of one element
        return _constant(s, node, 0) if reduction.kind.returns_index else s.source(node)
    at = places.index(reduction.dim)
    keepdim = reduction.keepdim and reduction.dim in s.dims.places(node)
    return s.with_args(node, [at] if reduction.kind.dim_is_list else at, keepdim, *node.args[3:])


def _access(s: _Squeezer, node: torch.fx.Node) -> torch.fx.Node:
    memory = Memory.of(node)
    dims, items = s.dims.accesses[node]
    at = memory.access.index_at
    args = list(s._args(node))
    given = _without_ellipsis(args[at], len(items))
    ranks = [len(s.dims.of(item.value)) for item in items if item.kind == "tensor"]
    index: list[Any] = []
    place = 0
    for item, element in zip(items, given):
        if item.kind == "tensor":
            place += max(ranks, default=0)  # all of them stand where the first does
            ranks = []
        elif item.kind != "scalar":
            place += 1
            if s.dims.is_dropped(dims[place - 1]):
                if item.kind == "new":
                    continue
                element = _first(item)
        index.append(element)
    args[at] = index
    return s.copy(node, args)


def _without_ellipsis(index: Sequence[Any], count: int) -> list[Any]:
    """An index with `:` for what its `...` stands for."""
    places = [i for i, element in enumerate(index) if element is Ellipsis]
    if not places:
        return list(index)
    (at,) = places
    return [*index[:at], *[slice(None)] * (count - len(index) + 1), *index[at + 1 :]]


def _first(item: IndexItem) -> Any:
    """The number that an index element names, of one."""
    if item.kind == "slice":
        return item.value[0]
    return 0 if item.repeats else item.value.begin


_REWRITES: dict[Any, Callable[[_Squeezer, torch.fx.Node], torch.fx.Node]] = {
    **dict.fromkeys(Reduction.targets, _reduction),
    full: _full,
    iota: _iota,
    TileIndex.targets[0]: _tile_index,
    _aten.unsqueeze.default: _unsqueeze,
    _aten.squeeze.dims: _squeeze,
    _aten.permute.default: _permute,
    _aten.view.default: _reshape,
    _aten.expand.default: _reshape,
}
