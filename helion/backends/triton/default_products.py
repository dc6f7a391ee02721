"""The Config of a kernel that multiplies matrices and was given none.

Of a table of tiles it has the one whose *rate*, times how well the tiles fill the multiprocessors, is best; where a
product is part of something larger, as in attention, tiles of one size.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch

from ...config_spec import ConfigSpec
from ...ir.axes import index_items
from ...ir.device_ir import BlockSize
from ...ir.device_ir import GraphKind
from ...ir.nodes import Load
from ...ir.nodes import tensor_of
from ...ir.symbols import shape_exprs
from ...numbers import next_power_of_2
from .default_facts import KernelFacts
from .default_facts import has_exponentials
from .default_facts import nearest_size
from .default_facts import root_axes
from .default_facts import tiles_of
from .schedule import loop_statements


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
    Tile(128, 256, 128, 8, 4, 3.00),
    Tile(256, 128, 128, 8, 4, 2.70),
    Tile(128, 128, 128, 4, 3, 2.35),
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
#: float32 on tensor cores (tf32) whose operands lie along k, as wgmma takes them; mma below 64 rows.
_WIDE_ALONG_K = (
    Tile(128, 256, 128, 8, 4, 1.08),
    Tile(128, 128, 128, 4, 3, 1.02),
    Tile(64, 256, 128, 4, 4, 0.91),
    Tile(64, 128, 128, 4, 4, 0.77),
    Tile(128, 64, 128, 4, 4, 0.74),
    Tile(64, 64, 128, 4, 5, 0.58),
    Tile(32, 128, 128, 4, 5, 0.38),
    Tile(32, 64, 256, 4, 5, 0.30),
    Tile(32, 32, 256, 4, 5, 0.22),
    Tile(16, 64, 256, 4, 5, 0.17),
    Tile(16, 32, 256, 4, 5, 0.145),
)
#: Other float32: mma, faster with fewer warps.
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
_FEWEST_STAGES = 2
#: With so many warps or fewer a program leaves room for others.
_PARTLY_BUSY_WARPS = 4
#: Parts of the epilogue of programs that go over several tiles, of those whose epilogue loads a tile too, and of others
#: that compute exponentials and the like.
_OVERLAPPED_PARTS = 4
_LOADED_PARTS = 2
_SLOW_PARTS = 2
#: Tiles of kernels with several products, as attention is: of m, n and k alike.
_CHAIN = 64
_CHAIN_STAGES = 3
#: The least that a loop with several products goes over at a time.
_FEWEST_PASSED = 32
#: Stages of such a kernel that has a multiprocessor to itself.
_STAGES_ALONE = 4
#: Registers of a multiprocessor; accumulator elements that a thread of a chain may hold; those of several products of
#: one loop that take operands from registers; and registers for all that a chain's products take, then too: others
#: are addresses, what is loaded, and weights. On 9.0 eight warps share 64 rows by columns, and each warp group reads
#: all rows: there four warps stay up to so many registers, not all of which are in use at the same time (linear
#: attention with a state of 128 x 128: 127 us instead of 186 on an H100, with two registers spilled).
_REGISTERS = 65536
_CHAIN_REGISTERS = 128
_MIXED_REGISTERS = 96
_ALL_REGISTERS = 192
_ROWS_OF_GROUP_REGISTERS = 288
_ALL_MIXED_REGISTERS = 128


def for_products(spec: ConfigSpec, facts: KernelFacts, neutral: dict[str, Any]) -> dict[str, Any]:
    itemsize = max(facts.products)
    places = {role: i for i, own in enumerate(facts.roles) for role in own}
    # One matrix of a batch at a time: its tile is one of a matrix then.
    others = [nearest_size(spec, i, 1) if i in facts.batches else size for i, size in enumerate(neutral["block_sizes"])]
    neutral = {**neutral, "block_sizes": others}
    # Several products of one loop over the same m, n and k are as one with as many columns as all of them have: of a
    # gate and what it lets through, say, whose tiles of 64 x 64 would load twice as much for each product.
    alone = facts.memory.in_one_loop and all(len(own) <= 1 for own in facts.roles)
    if alone and len(places) == 3 and sum(map(len, facts.roles)) == 3:
        return _single_product(spec, facts, neutral, places, itemsize)
    return _chain(spec, facts, neutral, itemsize)


def _chain(spec: ConfigSpec, facts: KernelFacts, neutral: dict[str, Any], itemsize: int) -> dict[str, Any]:
    """Several products, or one of a whole dimension."""
    k = max(128 // itemsize, 16)
    sizes = [
        nearest_size(spec, i, min(k if role == "k" else _CHAIN for role in own)) if own else neutral["block_sizes"][i]
        for i, own in enumerate(facts.roles)
    ]
    found = {**neutral, "block_sizes": sizes, "num_warps": 4, "num_stages": _CHAIN_STAGES}
    if "loop_orders" in spec.fields and _batch_shares_a_matrix(facts):
        found["loop_orders"] = [
            list(reversed(order)) if i == 0 else order for i, order in enumerate(found["loop_orders"])
        ]
    largest = max(facts.elements(shape, found) for shape in facts.shapes)
    while largest > _CHAIN_REGISTERS * 32 * found["num_warps"] and found["num_warps"] < 16:
        found["num_warps"] *= 2
    # Of 16 warps a thread has 128 registers, and needs some for addresses: a value of 64 x 1024 did not compile.
    while found["num_warps"] == 16 and max(facts.elements(s, found) for s in facts.shapes) >= _REGISTERS:
        smaller = [
            nearest_size(spec, i, size // 2) if "m" in own else size
            for i, (own, size) in enumerate(zip(facts.roles, found["block_sizes"]))
        ]
        if smaller == found["block_sizes"]:
            break
        found["block_sizes"] = smaller
    while len(facts.products) > 1 and facts.memory.registers(found) > _most_registers(facts, found):
        shorter = _shorter_passes(spec, facts, found)
        if facts.warp_groups and facts.memory.reads_shared_memory(found) and found["num_warps"] == 4:
            if facts.memory.registers(found) <= _ROWS_OF_GROUP_REGISTERS:
                break
        if found["num_warps"] < 8:
            found["num_warps"] *= 2
        elif shorter != found["block_sizes"]:
            found["block_sizes"] = shorter
        else:
            break
    return _fitting(spec, facts, _for_a_program_alone(spec, facts, found))


def _fitting(spec: ConfigSpec, facts: KernelFacts, config: dict[str, Any]) -> dict[str, Any]:
    """What fits into shared memory, of several products: a loop passes over less at a time rather than load nothing
    while it computes.
    """
    found = dict(config)
    while len(facts.products) > 1 and facts.memory.shared(found) > facts.shared_bytes:
        shorter = _shorter_passes(spec, facts, found)
        if found["num_stages"] > _FEWEST_STAGES:
            found["num_stages"] -= 1
        elif shorter != found["block_sizes"]:
            found["block_sizes"] = shorter
        else:
            break
    return found


def _shorter_passes(spec: ConfigSpec, facts: KernelFacts, config: dict[str, Any]) -> list[int]:
    """Block sizes of which the summed ones are half as large; the same if they are as small as may be."""
    return [
        nearest_size(spec, i, size // 2) if "k" in own and size > _FEWEST_PASSED else size
        for i, (own, size) in enumerate(zip(facts.roles, config["block_sizes"]))
    ]


def _most_registers(facts: KernelFacts, config: dict[str, Any]) -> int:
    return _ALL_REGISTERS if facts.memory.reads_shared_memory(config) else _ALL_MIXED_REGISTERS


def _for_a_program_alone(spec: ConfigSpec, facts: KernelFacts, config: dict[str, Any]) -> dict[str, Any]:
    """Twice the rows by twice the warps, where a multiprocessor has shared memory for one program of a chain.

    Nothing else keeps it busy then, and what a loop loads serves twice as many products; a thread has as many
    registers as before.  Where two programs fit they do the same by turns.  The backward pass of attention, head 128,
    is such a kernel: it holds two tiles and loads two ahead (924 us instead of 1218 on an H100), and its forward pass
    is none there.  On 8.0 and 8.9 that is, for want of shared memory; warps then have rows of their own, whose weights
    stay in registers.

    Args:
        spec, facts: the kernel's.
        config: what is chosen so far, complete.

    Returns:
        The same if there are too few rows, or too little room.
    """
    roots = {axis.block.id for axis in root_axes(facts)}
    rows = [i for i, own in enumerate(facts.roles) if own == {"m"} and facts.blocks[i].id in roots]
    sizes = list(config["block_sizes"])
    for i in rows:
        sizes[i] = nearest_size(spec, i, 2 * sizes[i])
    wider = {**config, "block_sizes": sizes, "num_warps": 2 * config["num_warps"]}
    if (
        len(facts.products) < 2
        or config["num_warps"] > _PARTLY_BUSY_WARPS
        or 2 * facts.memory.shared(config) <= facts.shared_bytes
        or not rows
        or any(sizes[i] != 2 * config["block_sizes"][i] for i in rows)
        or sum(tiles_of(facts, wider, root=root) for root in facts.device.roots) < facts.multiprocessors
        or facts.memory.registers(wider) > _most_registers(facts, wider)
    ):
        return config
    for stages in range(_STAGES_ALONE, _FEWEST_STAGES - 1, -1):
        if facts.memory.shared({**wider, "num_stages": stages}) <= facts.shared_bytes:
            return {**wider, "num_stages": stages}
    return config


def _batch_shares_a_matrix(facts: KernelFacts) -> bool:
    """Whether a batch reads one matrix of scores, such as a bias of attention, that is too large for the L2 cache.

    Its programs for the same rows come one after the other then, and read those rows of it from memory once: attention
    with a bias took 8 to 10% less on an H100.  All keys and values must be in the cache meanwhile.
    """
    axes = root_axes(facts)
    if len(facts.device.roots) > 1 or len(axes) != 2 or axes[0].block.fixed != 1:
        return False
    loops = [info for info in facts.device.graphs if info.kind is GraphKind.LOOP]
    loads = [load for info in loops for load in map(Load.match, info.graph.nodes) if load is not None]
    shared = own = 0
    for load in loads:
        tensor, tiles = load.tensor, [item.value.axis for item in index_items(load) if item.kind == "tile"]
        if not isinstance(tensor.numel(), int):
            return False
        extents = [axis.static_extent for axis in (axes[0], *tiles)]
        is_of_rows = axes[1] in tiles and len(tiles) == 2 and axes[0] not in tiles
        if is_of_rows and None not in extents and tensor.numel() * 2 <= math.prod(extents):
            shared += tensor.numel() * tensor.element_size()
        else:
            own += tensor.numel() * tensor.element_size()
    return shared > facts.l2_bytes and own <= facts.l2_bytes // 2


def _single_product(
    spec: ConfigSpec, facts: KernelFacts, neutral: dict[str, Any], places: dict[str, int], itemsize: int
) -> dict[str, Any]:
    """One product of matrices whose three dimensions are tiled, or several of the same dimensions in one loop."""
    # A block without a loop says nothing of how many rows there are.
    looped = {axis.block.id for axis in facts.device.space.axes}
    blocks = {role: facts.blocks[i] for role, i in places.items()}
    extents = {role: (block.extent if block.id in looped else None) or 4096 for role, block in blocks.items()}
    others = tiles_of(facts, neutral, without={facts.blocks[i].id for i in places.values()})
    accumulators = next_power_of_2(facts.memory.accumulators)
    passes = max(next_power_of_2(len(facts.products)) // 2, 1)  # more products load more for each element along k

    def sizes_of(tile: Tile) -> list[int]:
        wanted = {"m": tile.m, "n": tile.n // accumulators, "k": tile.k_bytes // itemsize // passes}
        sizes = list(neutral["block_sizes"])
        for role, i in places.items():
            sizes[i] = nearest_size(spec, i, wanted[role])
        return sizes

    rows, roots = blocks["m"], {axis.block.id for axis in root_axes(facts)}
    in_loop = rows.id in looped - roots  # a program goes over all of its rows, one tile after the other
    uneven = in_loop and _bounds_are_loaded(facts, rows)

    def seconds(tile: Tile) -> float:
        m, n = (sizes_of(tile)[places[role]] for role in ("m", "n"))
        row_tiles, column_tiles = math.ceil(extents["m"] / m), math.ceil(extents["n"] / n)
        programs = (column_tiles if in_loop else row_tiles * column_tiles) * others
        # Programs that are not alike: the last one of those with the most to do begins when all are busy.
        rounds = programs / facts.multiprocessors + 1 if uneven else math.ceil(programs / facts.multiprocessors)
        return rounds * (row_tiles if in_loop else 1) * tile.m * tile.n / tile.rate

    wide = _WIDE_ALONG_K if facts.warp_groups and facts.tf32 and all(facts.along_k[0]) else _WIDE
    # Accumulators of float64 are two registers each: 64 x 128 by two warps were spilled.
    words = max(itemsize // 4, 1)
    held = [t for t in wide if t.m * t.n * words <= _CHAIN_REGISTERS * 32 * t.warps]
    tile = min(_NARROW if itemsize < 4 else held, key=seconds)
    found: dict[str, Any] = {"block_sizes": sizes_of(tile), "num_warps": tile.warps, "num_stages": tile.stages}
    # Columns of the right operand are read for each row of tiles: from memory, unless one follows the other at once.
    is_large = extents["k"] * extents["n"] * itemsize > facts.l2_bytes // 4
    least = tile.m if is_large else _GROUP * tile.m // 2
    if "l2_groupings" in spec.fields and rows.id in roots and extents["m"] > least:
        found["l2_groupings"] = [_GROUP if group == 1 else group for group in neutral["l2_groupings"]]
    if found["num_warps"] > _PARTLY_BUSY_WARPS and "epilogue_subtile" in spec.fields:
        found |= _epilogue(facts, {**neutral, **found}, tile.m * tile.n)
    if facts.warp_groups and "pid_type" not in found:
        # Stages that the loop has no iterations for keep shared memory from the next program (512 products of 128 x
        # 128: 5%); a single one would load by way of registers, and on 8.9 two were spilled.
        iterations = math.ceil(extents["k"] / found["block_sizes"][places["k"]])
        found["num_stages"] = min(found["num_stages"], max(iterations, _FEWEST_STAGES))
    if len(facts.products) > 1:
        complete = _fitting(spec, facts, {**neutral, **found})
        mixed = not facts.memory.reads_shared_memory(complete)
        if mixed and facts.memory.registers(complete) > _MIXED_REGISTERS:
            # Beside so many accumulators there are no registers for the operands of several products.
            if complete["num_warps"] < 8:
                complete["num_warps"] *= 2
            else:
                sizes = complete["block_sizes"] = list(complete["block_sizes"])
                sizes[places["n"]] = nearest_size(spec, places["n"], sizes[places["n"]] // 2)
        found = {key: complete[key] for key in found}
    return found


def _epilogue(facts: KernelFacts, config: dict[str, Any], accumulator: int) -> dict[str, Any]:
    """How the largest tiles are finished, of which a multiprocessor has one at a time: nothing else keeps it busy then.

    Programs that go over several tiles, in one loop made of that over tiles and that over k (`range_flattens`), load
    for the next tile while they finish one: bfloat16 4096 x 512 x 4096 took 7% less on an H100, and products whose
    weight lies along k 19%.  That needs loads and stores that take no registers, which are boxes: with others the code
    that Triton makes of such a loop took two to three times as long.  Parts of the epilogue leave shared memory to the
    stages.  Not for smaller tiles, of which one is computed while another one is finished (up to 25% slower), nor for
    a single round of tiles (2 to 4%), nor where the epilogue loads: it waits then (10%).  That does not matter where
    there is most to gain, with a weight that lies along k; for what has as many elements as the result (a residual) in
    fewer parts and with a stage less, which leaves shared memory to a tile of it (4 to 14% faster than without).

    Args:
        facts: the kernel's.
        config: what is chosen so far, complete.
        accumulator: elements of the tile.
    """
    loops = [info.id for info in facts.device.graphs if info.kind is GraphKind.LOOP]
    outside = [node for info, node in facts.device.nodes() if info.id not in loops]
    loads = [Load.match(node) for node in outside]
    # A result that is turned around goes through shared memory as a whole, beside all stages.
    turned = [node for node in outside if node.target is torch.ops.aten.permute.default]
    is_turned = any(facts.elements(shape_exprs(tensor_of(node).shape), config) >= accumulator for node in turned)
    loaded = [facts.elements(shape_exprs(tensor_of(load.node).shape), config) for load in loads if load is not None]
    overlapped: dict[str, Any] = {
        "indexing": "tensor_descriptor",
        "pid_type": "persistent_interleaved",
        "range_flattens": [True, None],
        "epilogue_subtile": _OVERLAPPED_PARTS,
    }
    if max(loaded, default=0) >= accumulator:
        overlapped |= {"epilogue_subtile": _LOADED_PARTS, "num_stages": config["num_stages"] - 1}
    if (
        facts.warp_groups
        and len(facts.products) == 1
        and not is_turned
        and len(loop_statements(facts.device)) == 2
        and tiles_of(facts, config) > facts.multiprocessors
        and (not loaded or facts.along_k[0][1])
        and facts.moves_boxes(config | overlapped)
    ):
        return overlapped
    # Of values that are long to compute a thread has too many at a time and spills them, also in halves beside others.
    parts = _SLOW_PARTS if max(loaded, default=0) < accumulator else _OVERLAPPED_PARTS
    return {"epilogue_subtile": parts} if has_exponentials(facts) else {}


def _bounds_are_loaded(facts: KernelFacts, block: BlockSize) -> bool:
    """Whether how far a loop goes is read from memory."""
    axes = [axis for axis in facts.device.space.axes if axis.block is block]
    return any(isinstance(bound, (torch.Tensor, torch.fx.Node)) for axis in axes for bound in (axis.begin, axis.end))
