"""How much shared memory, and how many registers, products take: what is loaded ahead, and accumulators.

The loads of a loop that feed its products are in flight for as many iterations as the loop has stages.  What a Config
comes to is known exactly only from the binary; this is what makes up nearly all of it, so that a search does not spend
seconds on compiling what the driver will refuse.  Not here: values that no registers could hold (`limits.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from ...ir.block_sizes import tunable_blocks
from ...ir.device_ir import GraphInfo
from ...ir.device_ir import GraphKind
from ...ir.device_ir import KernelIR
from ...ir.nodes import Load
from ...ir.nodes import Product
from ...ir.nodes import tensor_of
from ...ir.symbols import shape_exprs
from .limits import TileSizes
from .limits import is_tile_value
from .limits import trips
from .schedule import device_loops
from .schedule import loop_statements
from .schedule import memory_accesses
from .targets import Features

_Tile = tuple[tuple[Any, ...], int]
"""A shape, and the bytes of an element."""
_ROWS = 64
"""From so many rows on, and with four warps, a product is one of wgmma or tcgen05."""
_WORD = 4
"""Bytes of a register: products add up in it what they round afterwards."""
_LANES, _COLUMNS = 128, 512
"""Of tensor memory, where results of tcgen05 lie."""


def _tile(node: torch.fx.Node) -> _Tile:
    value = tensor_of(node)
    return shape_exprs(value.shape), value.dtype.itemsize


def _origin(node: torch.fx.Node) -> torch.fx.Node:
    """What an operand is before conversions and views."""
    while not Load.match(node):
        sources = [n for n in node.all_input_nodes if is_tile_value(n) or n.op == "placeholder"]
        if node.op == "placeholder" or len(sources) != 1:
            return node
        (node,) = sources
    return node


@dataclasses.dataclass(frozen=True)
class _Loop:
    """The products that stand in one loop, or directly in a program.

    Attributes:
        place: of the loop in the range_* keys.
        root: the place there of the loop that a persistent program makes over its tiles.
        static: its place in static_ranges; None for one that the Config cannot unroll.
        info: the loop.
        ahead: what it loads for the products.
        once: other operands, which lie there all the time.
        products: all operands of each product.
        results: of the products.
        kept: those of them that are not added to in the same iteration, and sums beside them.
        computed: operands that the loop computes.
        branches: whether there are branches, or loops, in it.
    """

    place: int
    root: int
    static: int | None
    info: GraphInfo
    ahead: list[_Tile]
    once: list[_Tile]
    products: list[tuple[_Tile, _Tile]]
    results: list[_Tile]
    kept: list[_Tile]
    computed: list[_Tile]
    branches: bool


def _kept(products: Sequence[Product]) -> list[_Tile]:
    """Results, and sums that a loop carries beside results that are rounded before they are added."""
    found = []
    for product in products:
        shape, itemsize = _tile(product.node)
        placeholders = (n for n in product.node.graph.nodes if n.op == "placeholder")
        carried = any(_longer_dims(n) == _longer_dims(product.node) for n in placeholders)
        rounded = itemsize < _WORD and product.acc is None and carried
        found += [(shape, max(itemsize, _WORD))] * (2 if rounded else 1)
    return found


def _longer_dims(node: torch.fx.Node) -> list[Any] | None:
    """A value's dimensions, less those of one."""
    value = node.meta.get("val")
    return [size for size in shape_exprs(value.shape) if size != 1] if isinstance(value, torch.Tensor) else None


def _loops(ir: KernelIR, products: Sequence[Product]) -> list[_Loop]:
    found = []
    static = {info.id: place for place, info in enumerate(device_loops(ir.device))}
    root = 0
    for place, info in enumerate(loop_statements(ir.device)):
        if info.kind is not GraphKind.LOOP:
            root = place
        own = [product for product in products if product.node.graph is info.graph]
        operands = {operand: _origin(operand) for product in own for operand in (product.a, product.b)}
        origins = set(operands.values())
        added_to = {product.acc for product in own}
        held = {n: node for node, n in operands.items() if n.op == "placeholder"}
        once = [node for n, node in held.items() if isinstance(n.meta.get("val"), torch.Tensor)]
        if own and (info.kind is GraphKind.LOOP or root == place):
            found.append(
                _Loop(
                    place,
                    root,
                    static[info.id] if info.kind is GraphKind.LOOP else None,
                    info,
                    [_tile(n) for n in origins if Load.match(n)],
                    list(map(_tile, once)),
                    [(_tile(product.a), _tile(product.b)) for product in own],
                    [_tile(product.node) for product in own],
                    _kept([product for product in own if product.node not in added_to]),
                    [_tile(n) for n, node in operands.items() if node.op != "placeholder" and not Load.match(node)],
                    len(list(ir.device.inside(info))) > 1,
                )
            )
    return found


class ProductMemory:
    """What the products of a kernel take under a Config.

    Args:
        ir: the kernel.
        products: all of them.
        tiles: sizes of values.
        features: of the GPU.
    """

    def __init__(self, ir: KernelIR, products: Sequence[Product], tiles: TileSizes, features: Features) -> None:
        self._loops = _loops(ir, products)
        self._places = {block.id: i for i, block in enumerate(tunable_blocks(ir.device))}
        self._loads = [Load.match(node) is not None for node in memory_accesses(ir.device)]
        self._tiles = tiles
        self._features = features
        self._count = len(products)

    @property
    def in_one_loop(self) -> bool:
        """Whether all products stand in one loop, or directly in the program."""
        return len(self._loops) == 1 and len(self._loops[0].products) == self._count

    @property
    def accumulators(self) -> int:
        """The most results that a loop keeps, each in registers of its own, or in a part of tensor memory."""
        counts = [max(len(loop.kept), len(loop.results) if self._features.tensor_memory else 0) for loop in self._loops]
        return max(counts, default=1)

    def reads_shared_memory(self, config: dict[str, Any]) -> bool:
        """Whether no product has operands in registers."""
        return all(self._is_asynchronous(loop, config) for loop in self._loops)

    def _size(self, values: Sequence[_Tile], config: dict[str, Any]) -> int:
        return sum(self._tiles.elements(shape, config) * itemsize for shape, itemsize in values)

    def _is_asynchronous(self, loop: _Loop, config: dict[str, Any]) -> bool:
        """Whether all products read their operands from shared memory while the next ones are loaded."""
        elements = self._tiles.elements
        return (
            self._features.asynchronous_products
            and config["num_warps"] % 4 == 0
            and all(
                a[1] <= 2 and elements(a[0][:-2], config) == 1 and elements(a[0][-2:-1], config) >= _ROWS
                for a, _ in loop.products
            )
        )

    def _needed(self, loop: _Loop, config: dict[str, Any]) -> int:
        persistent = config["pid_type"] not in ("flat", "xyz")
        unrolled = loop.static is not None and config["static_ranges"][loop.static]
        # A loop that is unrolled completely is part of the one over the program's tiles, if that is there.
        at = loop.root if unrolled or loop.static is None else loop.place
        stages, copies = 1, 1
        if persistent or at != loop.root:
            stages = _option("range_num_stages", at, config) or config["num_stages"]
        if stages > 1:
            unrolls = _option("range_unroll_factors", at, config) or 1
            copies = trips(loop.info, config, self._places) if unrolled else unrolls
        ahead = stages if self._is_asynchronous(loop, config) and stages > 1 else max(stages - 1, 1)
        total = copies * ahead * self._size(loop.ahead, config) + self._size(loop.once, config)
        indexing = config.get("indexing")
        each = indexing if isinstance(indexing, list) else [indexing] * len(self._loads)
        if persistent and all(how == "tensor_descriptor" for how, load in zip(each, self._loads) if load):
            # The last tile is on its way out, in half as many bytes, while the next one is loaded.
            total += self._size(loop.results, config) // 2 // (config.get("epilogue_subtile") or 1)
        return total

    def _moved(self, loop: _Loop, config: dict[str, Any]) -> int:
        """Bytes of computed operands that go to other threads by way of shared memory, one after the other.

        Where products take operands from registers, warps that have rows of their own (as Triton shares out tiles
        that are no wider than high) keep them, unless they come out of a branch.
        """
        elements = self._tiles.elements
        wide = any(elements(shape[-1:], config) > elements(shape[-2:-1], config) for shape, _ in loop.results)
        if not (wide or loop.branches) or self._is_asynchronous(loop, config):
            return 0
        return max((self._size([tile], config) for tile in loop.computed), default=0)

    def shared(self, config: dict[str, Any]) -> int:
        """Bytes of shared memory of a program; more than that by a little."""
        single = [self._size(pair, config) for loop in self._loops for pair in loop.products]
        needed = [self._needed(loop, config) + self._moved(loop, config) for loop in self._loops]
        return max(single + needed, default=0)

    def registers(self, config: dict[str, Any]) -> int:
        """Of a thread, for the results of products, and where these do not read shared memory for operands of 16 bits
        that a loop keeps."""

        def size(loop: _Loop) -> int:
            once = [] if self._is_asynchronous(loop, config) else [tile for tile in loop.once if tile[1] <= 2]
            return self._size(loop.kept + once, config)

        return max(map(size, self._loops), default=0) // _WORD // (32 * config["num_warps"])

    def columns(self, config: dict[str, Any]) -> int:
        """Of tensor memory, for the results of products; Triton makes a trap of a kernel that needs too many."""
        elements = self._tiles.elements
        results = [[shape for shape, _ in loop.results] for loop in self._loops if self._is_asynchronous(loop, config)]
        return max(
            (sum(-(-elements(s[:-1], config) // _LANES) * elements(s[-1:], config) for s in own) for own in results),
            default=0,
        )

    def check(self, config: dict[str, Any]) -> str | None:
        """More memory than a program may have."""
        if self._features.tensor_memory and self.columns(config) > _COLUMNS:
            return "the results of products do not fit into tensor memory"
        if self.shared(config) > self._features.shared_bytes:
            return "the operands of a product, as often as they are in flight, do not fit into shared memory"
        return None


def _option(key: str, place: int, config: dict[str, Any]) -> int:
    given = config.get(key)
    return given[place] if given else 0
