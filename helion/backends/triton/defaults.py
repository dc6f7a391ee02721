"""The Config of a kernel that was given none: computed from the kernel and the GPU, without a search or a measurement.

Two kinds of kernel, two rules.  A kernel that multiplies matrices gets the tile of a table whose *rate*, times how well
the tiles fill the multiprocessors, is best.  Any other kernel is limited by memory: its tiles are grown, innermost
dimension first, to as many elements as keep enough bytes in flight, and get warps by their elements.

Only a kernel without a Config gets it: a key that a given Config leaves out is neutral (`ConfigSpec.neutral_config`).
How the numbers were found, and how good the choice is, says docs/configs.md.  Not here: what is allowed (`spec`).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from collections.abc import Container
from collections.abc import Sequence
from typing import Any

import sympy
import torch

from ...config import Config
from ...config_spec import ConfigSpec
from ...config_spec import ListOf
from ...config_spec import PowerOfTwoFragment
from ...ir.device_ir import BlockSize
from ...ir.device_ir import DeviceIR
from ...ir.device_ir import GraphKind
from ...ir.nodes import Load
from ...ir.nodes import tensor_of
from ...ir.symbols import shape_exprs
from ...ir.symbols import symbols_of
from ...numbers import next_power_of_2
from .schedule import loop_statements
from .starts import nearest


@dataclasses.dataclass(frozen=True)
class Tile:
    """A schedule of a product.

    Attributes:
        m, n: rows and columns of the accumulator.
        k_bytes: bytes of a row of an operand's tile.
        warps, stages: as in a Config.
        rate: products of elements a second that a multiprocessor does, in units of 1e9, with many tiles at a time
            (measured on an H100; of one itemsize, only ratios matter).
    """

    m: int
    n: int
    k_bytes: int
    warps: int
    stages: int
    rate: float


#: Operands of one or two bytes: wgmma from 64 rows on, mma below.
_NARROW = (
    Tile(128, 256, 128, 8, 3, 3.00),
    Tile(256, 128, 128, 8, 3, 2.70),
    Tile(128, 128, 128, 4, 3, 2.60),
    Tile(64, 256, 128, 4, 4, 2.30),
    Tile(64, 128, 128, 4, 4, 1.65),
    Tile(128, 64, 128, 4, 4, 1.75),
    Tile(64, 64, 128, 4, 5, 1.25),
    Tile(32, 128, 128, 4, 5, 0.90),
    Tile(128, 32, 128, 4, 5, 0.87),
    Tile(64, 32, 256, 4, 5, 0.73),
    Tile(32, 64, 256, 4, 5, 0.72),
    Tile(16, 128, 256, 4, 4, 0.52),
    Tile(32, 32, 256, 4, 5, 0.50),
    Tile(16, 64, 256, 4, 5, 0.47),
    Tile(16, 32, 512, 4, 4, 0.36),
)
#: float32 on tensor cores (tf32).  Its operands must lie along k for wgmma, so mma with fewer warps is faster.
_WIDE = (
    Tile(64, 128, 256, 2, 2, 0.69),
    Tile(128, 64, 128, 2, 2, 0.61),
    Tile(32, 128, 128, 4, 5, 0.50),
    Tile(32, 64, 256, 4, 5, 0.37),
    Tile(32, 32, 256, 4, 5, 0.28),
    Tile(16, 64, 256, 4, 5, 0.22),
    Tile(16, 32, 256, 4, 5, 0.19),
)
#: Rows of tiles done together, so that their columns are read from the L2 cache.
_GROUP = 8
#: Tiles of kernels with several products, as attention is: of m, n and k alike.
_CHAIN = 64
_CHAIN_STAGES = 3
#: Accumulator elements that a thread of a chain may hold.
_CHAIN_REGISTERS = 128

#: Elements of a tile of kernels without products: rows in registers, and everything else.
_ROW_ELEMENTS = 4096
_ELEMENTS = 2048
#: The widest tile of a dimension that a program does not hold whole.
_WIDEST = 1024
_WIDEST_OF_LOOP = 2048
#: Rows up to this length stay whole, longer ones are read in chunks; those of which nothing is stored, and which chunks
#: would read several times, stay whole longer.
_WHOLE_ROW = 32768
_WHOLE_ROW_ONCE = 65536
#: Elements of a chunk.  The next pass over a row should find it in the L2 cache, so few rows are under way: one a
#: multiprocessor, by 32 warps.  Where exponentials and not memory are the limit, two, so that one computes while the
#: other one waits.  Loading ahead (`num_stages`) is no faster: such a chunk alone is as many bytes as memory needs.
_CHUNK = 32768
_CHUNK_OF_EXPONENTIALS = 8192
#: Of a row that is read once there is nothing to find again: small chunks, and the next ones on their way, by
#: `num_stages`.
_CHUNK_ONCE = 8192
_CHUNK_STAGES = 4
#: What takes several instructions, one of them of a unit that is an eighth as wide as the others.
_SLOW = frozenset(
    getattr(torch.ops.aten, name).default
    for name in ("exp", "exp2", "expm1", "sigmoid", "tanh", "log", "sin", "cos", "erf")
)
#: Elements of the rows that the programs of a multiprocessor have in work at a time, where each goes over a share of
#: the rows: few programs, since what adds up their sums has to read them; and most programs of a multiprocessor.
_SHARING_ELEMENTS = 8192
_SHARING_PROGRAMS = 32
#: Elements of the rows that such a program takes at a time, if one row has fewer: one warp's, in loads of 16 bytes.  Of
#: a single row the sums over rows need no exchange between threads.
_STEP_ELEMENTS = 256
#: Programs that go over shares of the rows load the next ones while they compute: `range_num_stages` of that loop.
_AHEAD = 3


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
        multiprocessors: of the GPU.
        shared_bytes: of shared memory that a program may use.
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
    multiprocessors: int
    shared_bytes: int

    @functools.cached_property
    def own_shapes(self) -> dict[int, list[tuple[sympy.Expr, ...]]]:
        """Block id -> shapes of the values that the block size is part of."""
        symbols = [(shape, {symbol for size in shape for symbol in size.free_symbols}) for shape in self.shapes]
        return {block.id: [shape for shape, own in symbols if block.symbol in own] for block in self.blocks}

    @property
    def shared_out(self) -> bool:
        """Whether programs go over shares of the rows in a loop: a block size that no value has."""
        return not all(self.own_shapes.values())


def computed_default(spec: ConfigSpec, facts: KernelFacts) -> Config:
    """The Config of a kernel that was given none.

    Args:
        spec: the kernel's, complete.
        facts: the kernel and the GPU.

    Returns:
        Every key; allowed by the spec.
    """
    neutral = {key: fragment.default() for key, fragment in spec.fields.items()}
    choice = _for_products(spec, facts, neutral) if any(facts.roles) else _for_memory(spec, facts, neutral)
    config = {**neutral, **choice}
    while not spec.may_choose(config):
        if config["num_stages"] > 1:
            config["num_stages"] -= 1
        elif config["num_warps"] < 16:
            config["num_warps"] *= 2
        else:
            return Config(**neutral)
    return Config(**config)


# -- products --------------------------------------------------------------------------------------------------------


def _for_products(spec: ConfigSpec, facts: KernelFacts, neutral: dict[str, Any]) -> dict[str, Any]:
    itemsize = max(facts.products)
    places = {role: i for i, own in enumerate(facts.roles) for role in own}
    # One matrix of a batch at a time: its tile is one of a matrix then.
    others = [_nearest(spec, i, 1) if i in facts.batches else size for i, size in enumerate(neutral["block_sizes"])]
    neutral = {**neutral, "block_sizes": others}
    alone = len(facts.products) == 1 and all(len(own) <= 1 for own in facts.roles)
    if alone and len(places) == 3 and sum(map(len, facts.roles)) == 3:
        return _single_product(spec, facts, neutral, places, itemsize)
    k = max(128 // itemsize, 16)
    sizes = [
        _nearest(spec, i, min(k if role == "k" else _CHAIN for role in own)) if own else neutral["block_sizes"][i]
        for i, own in enumerate(facts.roles)
    ]
    found = {**neutral, "block_sizes": sizes, "num_warps": 4, "num_stages": _CHAIN_STAGES}
    largest = max(facts.elements(shape, found) for shape in facts.shapes)
    while largest > _CHAIN_REGISTERS * 32 * found["num_warps"] and found["num_warps"] < 16:
        found["num_warps"] *= 2
    return found


def _single_product(
    spec: ConfigSpec, facts: KernelFacts, neutral: dict[str, Any], places: dict[str, int], itemsize: int
) -> dict[str, Any]:
    """One product of matrices whose three dimensions are tiled."""
    extents = {role: facts.blocks[i].extent or 4096 for role, i in places.items()}
    others = _programs(facts, neutral, without={facts.blocks[i].id for i in places.values()})

    def sizes_of(tile: Tile) -> list[int]:
        wanted = {"m": tile.m, "n": tile.n, "k": tile.k_bytes // itemsize}
        sizes = list(neutral["block_sizes"])
        for role, i in places.items():
            sizes[i] = _nearest(spec, i, wanted[role])
        return sizes

    def seconds(tile: Tile) -> float:
        m, n = (sizes_of(tile)[places[role]] for role in ("m", "n"))
        tiles = math.ceil(extents["m"] / m) * math.ceil(extents["n"] / n) * others
        return math.ceil(tiles / facts.multiprocessors) * tile.m * tile.n / tile.rate

    tile = min(_NARROW if itemsize < 4 else _WIDE, key=seconds)
    found = {"block_sizes": sizes_of(tile), "num_warps": tile.warps, "num_stages": tile.stages}
    if "l2_groupings" in spec.fields and extents["m"] > _GROUP * tile.m // 2:
        found["l2_groupings"] = [_GROUP if group == 1 else group for group in neutral["l2_groupings"]]
    return found


def _nearest(spec: ConfigSpec, place: int, size: int) -> int:
    """A block size that the spec allows and the loop needs, the nearest to the one wanted."""
    blocks = spec.fields["block_sizes"]
    assert isinstance(blocks, ListOf)
    return nearest(blocks.items[place], size)


def _accepted(spec: ConfigSpec, place: int, size: int) -> int:
    """A block size that a given Config may have, and a search may not, the nearest to the one wanted."""
    blocks = spec.fields["block_sizes"]
    assert isinstance(blocks, ListOf)
    fragment = blocks.items[place]
    assert isinstance(fragment, PowerOfTwoFragment)
    return min(max(size, fragment.low), max(fragment.high, fragment.accepted))


# -- everything else -------------------------------------------------------------------------------------------------


def _for_memory(spec: ConfigSpec, facts: KernelFacts, neutral: dict[str, Any]) -> dict[str, Any]:
    found = dict(neutral)
    if facts.reductions:
        found["reduction_loops"] = [
            _chunk(spec, i, size, uses == 1 < passes, _wanted_chunk(facts, passes))
            for i, (size, uses, passes) in enumerate(zip(facts.reductions, facts.row_uses, facts.row_passes))
        ]
    if facts.blocks:
        found["block_sizes"] = _grown(spec, facts, found)
        _share_out(spec, facts, found)
    found["num_warps"] = _warps(facts, found)
    if any(found.get("reduction_loops", ())) and max(facts.row_passes) == 1 and not _exponentials(facts):
        found["num_stages"] = _stages_of_chunks(facts, found)
    if facts.shared_out and "range_num_stages" in found:
        found["range_num_stages"] = _loaded_ahead(facts, found)
    return found


def _wanted_chunk(facts: KernelFacts, passes: int) -> int:
    """Elements of a chunk of a row that is gone over so many times."""
    if _exponentials(facts):
        return _CHUNK_OF_EXPONENTIALS
    return _CHUNK if passes > 1 else _CHUNK_ONCE


def _stages_of_chunks(facts: KernelFacts, config: dict[str, Any]) -> int:
    """Stages of the loops over chunks of rows: as many as shared memory has room for with two programs a
    multiprocessor, if one loop has all loads."""
    values = [tensor_of(node) for _, node in facts.device.nodes() if Load.match(node)]
    loaded = sum(facts.elements(shape_exprs(value.shape), config) * value.dtype.itemsize for value in values)
    return min(1 + facts.shared_bytes // 2 // max(loaded, 1), _CHUNK_STAGES)


def _loaded_ahead(facts: KernelFacts, config: dict[str, Any]) -> list[int]:
    """Stages of each loop: those with loads get as many as shared memory has room for, one iteration each."""
    stages = list(config["range_num_stages"])
    resident = _sharing(facts, config)
    for place, info in enumerate(loop_statements(facts.device)):
        values = [tensor_of(load.node) for load in map(Load.match, info.graph.nodes) if load is not None]
        held = sum(facts.elements(shape_exprs(value.shape), config) * value.dtype.itemsize for value in values)
        if info.kind is GraphKind.LOOP and 0 < held * resident <= facts.shared_bytes:
            stages[place] = min(1 + facts.shared_bytes // (held * resident), _AHEAD)
    return stages


def _warps(facts: KernelFacts, config: dict[str, Any]) -> int:
    """Warps of a program, by the elements of its largest value."""
    elements = max((facts.elements(shape, config) for shape in facts.shapes), default=1)
    if elements > 16384:
        return 32
    rows = max((facts.elements(shape[-1:], config) for shape in facts.shapes if shape), default=1)
    if facts.shared_out:  # sums of the rows are in registers too; a program that is alone has more warps
        alone = elements >= _SHARING_ELEMENTS
        return min(max(next_power_of_2(elements // 256) // (1 if alone or elements <= 1024 else 2), 1), 32)
    # Threads that have all of a short row need no shared memory.
    return min(max(next_power_of_2(elements // (1024 if rows <= 512 else 512)), 4), 16)


def _sharing(facts: KernelFacts, config: dict[str, Any]) -> int:
    """Programs of a multiprocessor that go over shares of the rows."""
    elements = max((facts.elements(shape, config) for shape in facts.shapes), default=1)
    return min(max(_SHARING_ELEMENTS // elements, 1), _SHARING_PROGRAMS)


def _steps_of_shares(facts: KernelFacts) -> set[int]:
    """Block ids of the loops that go over a share of the rows: they begin where a tile of another loop does."""
    begins = {axis.offset.node.expr for axis in facts.device.space.axes}
    return {axis.block.id for axis in facts.device.space.axes if symbols_of(axis.begin) & begins}


def _exponentials(facts: KernelFacts) -> bool:
    """Whether a kernel has one for every element, or something that takes as long."""
    return any(node.target in _SLOW for _, node in facts.device.nodes())


def _chunk(spec: ConfigSpec, place: int, size: int, saves: bool, wanted: int) -> int | None:
    """How a reduction over a whole dimension is done: at once (None), or in chunks.

    Args:
        spec: the kernel's.
        place: which of `reduction_loops`.
        size: of the dimension.
        saves: whether a row is read once at once, and several times in chunks, and nothing of it stored.
        wanted: elements of a chunk.
    """
    loops = spec.fields["reduction_loops"]
    assert isinstance(loops, ListOf)
    choices = loops.items[place].choices  # type: ignore[attr-defined]
    extent = next_power_of_2(size)
    if None in choices and (extent <= (_WHOLE_ROW_ONCE if saves else _WHOLE_ROW)):
        return None
    chunks = [c for c in choices if c is not None]
    return min(chunks, key=lambda c: abs(c - wanted)) if chunks else None


def _root_axes(facts: KernelFacts) -> list[Any]:
    return [axis for root in facts.device.roots for axis in facts.device.graphs[root.graph_id].axes]


def _depths(facts: KernelFacts) -> dict[int, int]:
    """Block id -> how many dimensions stand behind it in the values with most dimensions that it is part of."""
    symbols = {block.symbol: block.id for block in facts.blocks}
    depth: dict[int, int] = {}
    rank: dict[int, int] = {}
    for shape in sorted(facts.shapes, key=len, reverse=True):
        for place, size in enumerate(reversed(shape)):
            for symbol in size.free_symbols:
                id_ = symbols.get(symbol)
                if id_ is not None and rank.setdefault(id_, len(shape)) == len(shape):
                    depth[id_] = min(depth.get(id_, 99), place)
    return depth


def _grown(spec: ConfigSpec, facts: KernelFacts, config: dict[str, Any]) -> list[int]:
    """Block sizes, grown from the innermost dimension outwards while every tile stays small enough."""
    roots = {axis.block.id for axis in _root_axes(facts)}
    sizes = [_nearest(spec, i, 1) for i in range(len(facts.blocks))]
    trial = {**config, "block_sizes": sizes}
    rows = any(facts.elements(shape, trial) > 1 for shape in facts.shapes)
    budget = _ROW_ELEMENTS if rows else _ELEMENTS
    depth, steps = _depths(facts), _steps_of_shares(facts) if facts.shared_out else set()
    for i in sorted(range(len(sizes)), key=lambda i: (depth.get(facts.blocks[i].id, 99), i)):
        block = facts.blocks[i]
        most = _STEP_ELEMENTS if block.id in steps and depth.get(block.id) else budget
        own = facts.own_shapes[block.id]
        if not own:  # shares of rows that an inner loop goes over
            programs = _sharing(facts, trial) * facts.multiprocessors
            share = (block.extent or 1) * _programs(facts, trial, without={block.id}) // programs
            sizes[i] = _accepted(spec, i, next_power_of_2(share))  # no value has it: it may be large
            continue
        limit = _nearest(spec, i, _WIDEST if block.id in roots else _WIDEST_OF_LOOP)
        while sizes[i] * 2 <= limit:
            sizes[i] *= 2
            if any(facts.elements(shape, trial) > most for shape in own):
                sizes[i] //= 2
                break
    return sizes


def _programs(facts: KernelFacts, config: dict[str, Any], without: Container[int] = ()) -> int:
    """Programs of the first top-level loop, blocks left out not counted."""
    sizes = {block.id: size for block, size in zip(facts.blocks, config.get("block_sizes", []))}
    total = 1
    for axis in facts.device.graphs[facts.device.roots[0].graph_id].axes:
        if axis.block.id in without:
            continue
        size = sizes.get(axis.block.id, axis.block.fixed)
        extent = axis.static_extent if axis.static_extent is not None else axis.block.extent
        if isinstance(size, int) and isinstance(extent, int):
            total *= math.ceil(extent / size)
    return total


def _share_out(spec: ConfigSpec, facts: KernelFacts, config: dict[str, Any]) -> None:
    """Smaller tiles where there are fewer than multiprocessors; the innermost dimension stays coalesced."""
    depth = _depths(facts)
    sizes = config["block_sizes"]
    roots = {axis.block.id for axis in _root_axes(facts)}
    # A share of the rows is as long as it should be: a few multiprocessors have none.
    needed = facts.multiprocessors * 3 // 4 if facts.shared_out else facts.multiprocessors
    while _programs(facts, config) < needed:
        able = [
            i
            for i, block in enumerate(facts.blocks)
            if block.id in roots and sizes[i] > _nearest(spec, i, 128 if depth.get(block.id) == 0 else 1)
        ]
        if not able:
            return
        sizes[max(able, key=lambda i: depth.get(facts.blocks[i].id, 99))] //= 2
