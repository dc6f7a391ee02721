"""What the Config of a kernel that was given none is computed from, and questions about it that all rules ask.

Not here: the rules (`default_products`, `defaults`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Container
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any
from typing import cast

import sympy
import torch
import torch.fx

from ..._locks import cached_property
from ...config_spec import ConfigSpec
from ...fragments import BlockSizeFragment
from ...fragments import ListOf
from ...ir.axes import index_items
from ...ir.device_ir import BlockSize
from ...ir.device_ir import DeviceIR
from ...ir.device_ir import RollableReduction
from ...ir.device_ir import RootLoop
from ...ir.nodes import Load
from ...ir.nodes import Memory
from ...ir.nodes import Product
from ...ir.nodes import Store
from ...ir.nodes import operand
from ...ir.nodes import tensor_of
from ...ir.symbols import expr_of
from ...ir.symbols import shape_exprs
from .shared_memory import ProductMemory
from .starts import nearest

#: What takes several instructions, one of them of a unit that is an eighth as wide as the others.
_SLOW = frozenset(
    getattr(torch.ops.aten, name).default
    for name in ("exp", "exp2", "expm1", "sigmoid", "tanh", "log", "sin", "cos", "erf")
)


@dataclasses.dataclass(frozen=True)
class KernelFacts:
    """What the choice goes by.

    Attributes:
        device: the device IR.
        blocks: the block sizes to choose, in the order of `block_sizes`.
        roles: for each of them, which of m, n, k of products it is; empty for others.
        batches: which of them are of products' batches.
        products: itemsize of the operands of each product.
        shapes: shapes of all values on tiles.
        elements: (shape, Config) -> elements of a value, padded.
        reductions: sizes of the dimensions that `reduction_loops` is about.
        row_uses: for each of them, how many loads and stores of values with that dimension there are.
        row_passes: for each of them, how often a row is read where it is read in chunks.
        row_bytes: for each of them, bytes that are loaded for one of its elements, in all.
        lane_numbers: for each of them, how many numbers are kept for each element of a chunk.
        multiprocessors: of the GPU.
        l2_bytes: of its L2 cache.
        shared_bytes: of shared memory that a program may use.
        warp_groups: products are those of an H100 (wgmma), which has measured rules.
        tf32: float32 is multiplied as tf32.
        moves_boxes: whether operands and results of products can be boxes that the GPU copies by itself, under a
            complete Config.
        along_k: for each product, whether its two operands lie along k in memory.
        memory: what products take under a complete Config.
    """

    device: DeviceIR
    blocks: Sequence[BlockSize]
    roles: Sequence[set[str]]
    batches: set[int]
    products: Sequence[int]
    shapes: Sequence[tuple[sympy.Expr, ...]]
    elements: Callable[[Sequence[sympy.Expr], dict[str, Any]], int]
    reductions: Sequence[int]
    row_uses: Sequence[int]
    row_passes: Sequence[int]
    row_bytes: Sequence[int]
    lane_numbers: Sequence[int]
    multiprocessors: int
    l2_bytes: int
    shared_bytes: int
    warp_groups: bool
    tf32: bool
    moves_boxes: Callable[[dict[str, Any]], bool]
    along_k: Sequence[tuple[bool, bool]]
    memory: ProductMemory

    @cached_property
    def own_shapes(self) -> dict[int, list[tuple[sympy.Expr, ...]]]:
        """Block id -> shapes of the values that the block size is part of."""
        symbols = [(shape, {symbol for size in shape for symbol in size.free_symbols}) for shape in self.shapes]
        return {block.id: [shape for shape, own in symbols if block.symbol in own] for block in self.blocks}

    @cached_property
    def contiguous(self) -> dict[int, int]:
        """Blocks along which elements of a tensor of several dimensions lie side by side in memory -> bytes of the
        narrowest such element. Of a transposition these are two."""
        found: dict[int, int] = {}
        for access in self.device.views(Memory):
            items = [item for item in index_items(access) if item.kind != "scalar"]
            for item in items if len(items) > 1 else ():
                stride = access.tensor.stride(item.dim) if item.kind == "tile" else None
                if isinstance(stride, int) and stride == 1 and item.value.axis.static_extent != 1:
                    id_ = item.value.axis.block.id
                    found[id_] = min(found.get(id_, 8), access.tensor.dtype.itemsize)
        return found

    @cached_property
    def columns(self) -> set[int]:
        """Which of the reductions are over a dimension that others stand behind, in all values that have it."""
        several = [shape for shape in self.shapes if len([size for size in shape if size != 1]) > 1]
        lengths = [sympy.Integer(size) for size in self.reductions]
        return {
            place
            for place, size in enumerate(lengths)
            if (own := [shape for shape in several if size in shape]) and all(shape[-1] != size for shape in own)
        }

    @cached_property
    def depths(self) -> dict[int, int]:
        """Of the blocks, see `depths_of`."""
        return depths_of(self.blocks, self.shapes)

    @property
    def waits_between_loops(self) -> bool:
        """Whether a kernel has phases: all of its programs are on the GPU at the same time."""
        return self.device.roots[-1].phase > 0

    @cached_property
    def first_shapes(self) -> list[tuple[sympy.Expr, ...]]:
        """Shapes of the values that the phases behind the first one have no block size of their own in."""
        device = self.device
        phases: list[set[Any]] = [set(), set()]
        for root in device.roots:
            graphs = device.inside(device.graphs[root.graph_id])
            phases[root.phase > 0] |= {axis.block.symbol for info in graphs for axis in info.axes}
        later = phases[1] - phases[0]
        return [shape for shape in self.shapes if not any(size.free_symbols & later for size in shape)]

    def largest(self, config: dict[str, Any]) -> int:
        """Elements of the largest of the `first_shapes`."""
        return max((self.elements(shape, config) for shape in self.first_shapes), default=1)

    def longest_row(self, config: dict[str, Any]) -> int:
        """The most elements of the last dimension of one of them."""
        return max((self.elements(shape[-1:], config) for shape in self.first_shapes if shape), default=1)

    def loaded_bytes(self, loads: Iterable[Load | None], config: dict[str, Any]) -> int:
        """Bytes that these loads of a tile load."""
        values = [load.result for load in loads if load is not None]
        return sum(self.elements(shape_exprs(value.shape), config) * value.dtype.itemsize for value in values)

    @property
    def shared_out(self) -> bool:
        """Whether programs go over shares of the rows in a loop: a block size that no value has."""
        return not all(self.own_shapes.values())


def depths_of(blocks: Iterable[BlockSize], shapes: Iterable[tuple[sympy.Expr, ...]]) -> dict[int, int]:
    """Block id -> how many dimensions stand behind it in the values with most dimensions that it is part of: these say
    where it stands, one number per row has no columns."""
    symbols = {block.symbol: block.id for block in blocks}
    depth: dict[int, int] = {}
    rank: dict[int, int] = {}
    for shape in sorted(shapes, key=len, reverse=True):
        for place, size in enumerate(reversed(shape)):
            for symbol in size.free_symbols:
                id_ = symbols.get(symbol)
                if id_ is not None and rank.setdefault(id_, len(shape)) == len(shape):
                    depth[id_] = min(depth.get(id_, 99), place)
    return depth


def has_exponentials(facts: KernelFacts) -> bool:
    """Whether a kernel has one for every element, or something that takes as long."""
    return not _SLOW.isdisjoint(facts.device.calls)


def nearest_size(spec: ConfigSpec, place: int, size: int) -> int:
    """A block size that the spec allows and the loop needs, the nearest to the one wanted."""
    blocks = spec.fields["block_sizes"]
    assert isinstance(blocks, ListOf)
    return nearest(blocks.items[place], size)


def accepted_size(spec: ConfigSpec, place: int, size: int) -> int:
    """A block size that a given Config may have, and a search may not, the nearest to the one wanted."""
    blocks = spec.fields["block_sizes"]
    assert isinstance(blocks, ListOf)
    fragment = blocks.items[place]
    assert isinstance(fragment, BlockSizeFragment)
    return min(max(size, fragment.low), fragment.ceiling)


def root_axes(facts: KernelFacts) -> list[Any]:
    return [axis for root in facts.device.roots for axis in facts.device.graphs[root.graph_id].axes]


def tiles_of(
    facts: KernelFacts, config: dict[str, Any], without: Container[int] = (), root: RootLoop | None = None
) -> int:
    """Tiles of a top-level loop, the first if none is given; blocks left out not counted."""
    sizes = {block.id: size for block, size in zip(facts.blocks, config.get("block_sizes", []))}
    total = 1
    for axis in facts.device.graphs[(root or facts.device.roots[0]).graph_id].axes:
        if axis.block.id in without:
            continue
        size = sizes.get(axis.block.id, axis.block.fixed)
        extent = axis.static_extent if axis.static_extent is not None else axis.block.extent
        if isinstance(size, int) and isinstance(extent, int):
            total *= math.ceil(extent / size)
    return total


def row_uses(device: DeviceIR, reduction: RollableReduction) -> int:
    """How often a program loads or stores values that span a whole dimension."""
    size = expr_of(reduction.size)
    found = 0
    for node in device.graphs[reduction.graph_id].graph.nodes:
        store = Store.match(node)
        moved = store.value if store is not None else node if Load.match(node) is not None else None
        value = moved.meta["val"] if isinstance(moved, torch.fx.Node) else None
        found += isinstance(value, torch.Tensor) and value.dim() > 1 and size in shape_exprs(value.shape)
    return found


def row_bytes(device: DeviceIR, reduction: RollableReduction) -> int:
    """Bytes that are loaded for an element of a whole dimension, of all tensors that have it."""
    size = expr_of(reduction.size)
    values = [tensor_of(node) for node in device.graphs[reduction.graph_id].graph.nodes if Load.match(node) is not None]
    return sum(value.dtype.itemsize for value in values if size in shape_exprs(value.shape))


def along_k(product: Product) -> tuple[bool, bool]:
    """Whether the rows of a product's left operand, and the columns of its right one, lie in memory as such."""
    return _is_contiguous(product.a, -1), _is_contiguous(product.b, -2)


def _is_contiguous(value: torch.fx.Node, dim: int) -> bool:
    """Whether what is loaded has neighbours of a dimension side by side."""
    dim %= tensor_of(value).dim()
    while value.target is torch.ops.aten.permute.default:
        value, dim = operand(value, 0), cast(Sequence[int], value.args[1])[dim]
    load = Load.match(value)
    items = [item for item in index_items(load) if item.kind != "scalar"] if load is not None else []
    if load is None or any(item.kind not in ("tile", "slice") for item in items):
        return False
    stride = load.tensor.stride(items[dim].dim)
    return isinstance(stride, int) and stride == 1
