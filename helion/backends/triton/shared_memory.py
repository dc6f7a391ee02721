"""How much shared memory Triton takes for the products of a kernel: what it loads ahead.

The loads of a loop that feed its products are in flight for as many iterations as the loop has stages.  What a Config
comes to is known exactly only from the binary; this is what makes up nearly all of it, so that a search does not spend
seconds on compiling what the driver will refuse.  Not here: registers (`limits.py`).
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
    """

    place: int
    root: int
    static: int | None
    info: GraphInfo
    ahead: list[_Tile]
    once: list[_Tile]
    products: list[tuple[_Tile, _Tile]]
    results: list[_Tile]


def _loops(ir: KernelIR, products: Sequence[Product]) -> list[_Loop]:
    found = []
    static = {info.id: place for place, info in enumerate(device_loops(ir.device))}
    root = 0
    for place, info in enumerate(loop_statements(ir.device)):
        if info.kind is not GraphKind.LOOP:
            root = place
        own = [product for product in products if product.node.graph is info.graph]
        origins = {_origin(operand) for product in own for operand in (product.a, product.b)}
        once = [n for n in origins if n.op == "placeholder" and isinstance(n.meta.get("val"), torch.Tensor)]
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
                )
            )
    return found


def too_large_for_shared_memory(ir: KernelIR, products: Sequence[Product], tiles: TileSizes, features: Features) -> Any:
    """More than a program may have, by the loads of one loop, as often as they are in flight."""
    loops = _loops(ir, products)
    places = {block.id: i for i, block in enumerate(tunable_blocks(ir.device))}
    loads = [Load.match(node) is not None for node in memory_accesses(ir.device)]

    def size(values: Sequence[_Tile], config: dict[str, Any]) -> int:
        return sum(tiles.elements(shape, config) * itemsize for shape, itemsize in values)

    def option(key: str, place: int, config: dict[str, Any]) -> int:
        given = config.get(key)
        return given[place] if given else 0

    def is_asynchronous(loop: _Loop, config: dict[str, Any]) -> bool:
        """Whether all products read their operands from shared memory while the next ones are loaded."""
        return (
            features.asynchronous_products
            and config["num_warps"] % 4 == 0
            and all(
                a[1] <= 2 and tiles.elements(a[0][:-2], config) == 1 and tiles.elements(a[0][-2:-1], config) >= _ROWS
                for a, _ in loop.products
            )
        )

    def needed(loop: _Loop, config: dict[str, Any]) -> int:
        persistent = config["pid_type"] not in ("flat", "xyz")
        unrolled = loop.static is not None and config["static_ranges"][loop.static]
        # A loop that is unrolled completely is part of the one over the program's tiles, if that is there.
        at = loop.root if unrolled or loop.static is None else loop.place
        stages, copies = 1, 1
        if persistent or at != loop.root:
            stages = option("range_num_stages", at, config) or config["num_stages"]
        if stages > 1:
            copies = trips(loop.info, config, places) if unrolled else option("range_unroll_factors", at, config) or 1
        asynchronous = is_asynchronous(loop, config)
        buffers = copies * (stages if asynchronous and stages > 1 else max(stages - 1, 1))
        total = buffers * size(loop.ahead, config) + (size(loop.once, config) if asynchronous else 0)
        indexing = config.get("indexing")
        each = indexing if isinstance(indexing, list) else [indexing] * len(loads)
        if persistent and all(how == "tensor_descriptor" for how, load in zip(each, loads) if load):
            # The last tile is on its way out, in half as many bytes, while the next one is loaded.
            total += size(loop.results, config) // 2 // (config.get("epilogue_subtile") or 1)
        return total

    def check(config: dict[str, Any]) -> str | None:
        for loop in loops:
            single = max(size(pair, config) for pair in loop.products)
            if max(single, needed(loop, config)) > features.shared_bytes:
                return "the operands of a product, as often as they are in flight, do not fit into shared memory"
        return None

    return check
