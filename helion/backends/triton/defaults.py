"""The Config of a kernel that was given none: computed from the kernel and the GPU, without a search or a measurement.

Kernels that multiply matrices have rules of their own (`default_products`).  Any other kernel is limited by memory: its
tiles are grown, innermost dimension first, to as many elements as keep enough bytes in flight, and get warps by their
elements.

Only a kernel without a Config gets it: a key that a given Config leaves out is neutral (`ConfigSpec.neutral_config`).
How the numbers were found, and how good the choice is, says docs/configs.md.  Not here: what is allowed (`spec`).
"""

from __future__ import annotations

import math
from typing import Any

import torch

from ...config import Config
from ...config_spec import ConfigSpec
from ...fragments import EnumFragment
from ...fragments import ListOf
from ...ir.device_ir import GraphKind
from ...ir.device_ir import RootLoop
from ...ir.nodes import Load
from ...ir.nodes import Reduction
from ...ir.nodes import Store
from ...ir.nodes import tensor_of
from ...ir.symbols import shape_exprs
from ...ir.symbols import symbols_of
from ...language.sorting import sort_keys
from ...numbers import next_power_of_2
from .default_caching import dropped_first
from .default_columns import LINE_BYTES
from .default_columns import ROWS_ELEMENTS
from .default_columns import SECTOR_BYTES
from .default_columns import ahead_of_rows
from .default_columns import chunk_elements
from .default_columns import first_chunk
from .default_columns import grow_columns
from .default_columns import longest_whole
from .default_columns import loops_over_rows
from .default_facts import KernelFacts
from .default_facts import accepted_size
from .default_facts import has_exponentials
from .default_facts import nearest_size
from .default_facts import root_axes
from .default_facts import tiles_of
from .default_products import for_products
from .schedule import loop_statements

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
#: other one waits, as long as the cache has them both; and one then.  Loading ahead (`num_stages`) is no faster: such a
#: chunk alone is as many bytes as memory needs.
_CHUNK = 32768
_CHUNK_OF_EXPONENTIALS = 8192
_LONG_CHUNK_OF_EXPONENTIALS = 16384
#: The part of the L2 cache that rows under way may take.
_PART_OF_L2 = 0.8
#: Chunks may cover so many times a row: lanes outside of it take as long as others.
_MOST_PADDING = 1.1
#: Of a row that is read once there is nothing to find again: small chunks, and the next ones on their way, by
#: `num_stages`.
_CHUNK_ONCE = 8192
_CHUNK_STAGES = 4
#: Elements of rows that are held whole, and bytes of those that are only added up.  There a thread has one load of 16
#: bytes: more of them at a time, without anything to do meanwhile, get in each other's way in memory.
_SHORT_ROWS_ELEMENTS = 2048
_SINGLE_ROW = 1024
_SUMMED_BYTES = 2048
_BYTES_OF_WARP = 32 * 16
#: Elements of rows that are sorted, and of a thread: of more of them hundreds of bytes a thread were spilled.
_SORTED_ELEMENTS = 512
_SORTED_OF_THREAD = 4
#: Values that are stored are few if there are so many times as many others.
_FEW = 8
#: Elements of the rows that the programs of a multiprocessor have in work at a time, where each goes over a share of
#: the rows: few programs, since what adds up their sums has to read them; and most programs of a multiprocessor.
_SHARING_ELEMENTS = 8192
_SHARING_PROGRAMS = 32
#: Warps of such a program.  Eight can have all registers of a multiprocessor, and fewer wait for each other.
_MOST_SHARING_WARPS = 8
#: Elements of the rows that such a program takes at a time, if one row has fewer: one warp's, in loads of 16 bytes.  Of
#: a single row the sums over rows need no exchange between threads.  Where programs wait for each other a step is of
#: four rows, as far as registers go, by the warps of one: 8 warps a multiprocessor are enough then, and have fewer
#: instructions (256 columns: 153 us instead of 183 on an H100, a copy 141).
_STEP_ELEMENTS = 256
_STEP_ROWS = 4
_STEPS_ELEMENTS = 1024, 4096
#: Elements of the innermost dimension that a tile keeps when it is made smaller: whole cache lines, of several sectors
#: for each warp, and in phases after the first one, where dimensions behind it are added up, one line.
_COALESCED = 128
_COALESCED_PART = 32
#: Warps of a multiprocessor whose programs wait for each other: with 128 registers a thread they have all there are.
_WARPS_TOGETHER = 16
_REGISTERS = 65536
_MOST_REGISTERS = 255
#: Shared memory of a program beside the rows that it loads ahead, where all programs must fit at once: sums of its
#: warps, and what the GPU keeps of it.
_SCRATCH_BYTES = 2048
#: Programs that go over shares of the rows load the next ones while they compute: `range_num_stages` of that loop.
_AHEAD = 3


def computed_default(spec: ConfigSpec, facts: KernelFacts) -> Config:
    """The Config of a kernel that was given none.

    Args:
        spec: the kernel's, complete.
        facts: the kernel and the GPU.

    Returns:
        Every key; allowed by the spec.
    """
    neutral = {key: fragment.default() for key, fragment in spec.fields.items()}
    choice = for_products(spec, facts, neutral) if any(facts.roles) else _for_memory(spec, facts, neutral)
    config = {**neutral, **choice}
    while not spec.may_choose(config):
        larger = [i for i, size in enumerate(config.get("block_sizes", ())) if nearest_size(spec, i, size // 2) < size]
        if config["num_stages"] > 1:
            config["num_stages"] -= 1
        elif config["num_warps"] < 16 and facts.memory.shared(config) <= facts.shared_bytes:
            config["num_warps"] *= 2
        elif larger:
            # The neutral sizes may be larger: with all of a sort in the registers of 4 warps it compiled for minutes.
            sizes = config["block_sizes"] = list(config["block_sizes"])
            i = max(larger, key=lambda i: sizes[i])
            sizes[i] = nearest_size(spec, i, sizes[i] // 2)
        elif config["num_warps"] < 32:
            config["num_warps"] = 32
        else:
            break
    return Config(**config)


def _for_memory(spec: ConfigSpec, facts: KernelFacts, neutral: dict[str, Any]) -> dict[str, Any]:
    found = dict(neutral)
    if facts.reductions:
        found["reduction_loops"] = [
            _chunk(spec, i, size, _longest_whole(facts, i, uses == 1 < passes), _wanted_chunk(facts, i))
            for i, (size, uses, passes) in enumerate(zip(facts.reductions, facts.row_uses, facts.row_passes))
        ]
    if facts.blocks:
        found["block_sizes"] = [nearest_size(spec, i, 1) for i in range(len(facts.blocks))]
        if not facts.shared_out and not facts.waits_between_loops:
            if not grow_columns(spec, facts, found):
                _grow_lines(spec, facts, found)
        _grow(spec, facts, found)
        for root in facts.device.roots:
            if root is facts.device.roots[0] or root.phase > 0:
                _share_out(spec, facts, found, root)
        if facts.waits_between_loops or loops_over_rows(facts):
            _grow(spec, facts, found, inner=True)
    found["num_warps"] = _warps(facts, found)
    if loops_over_rows(facts) and "range_num_stages" in found:  # a loop that nothing needs is gone
        found["range_num_stages"] = ahead_of_rows(facts, found)
    if facts.waits_between_loops:
        _stay_together(facts, found)
    if any(found.get("reduction_loops", ())) and max(facts.row_passes) == 1 and not has_exponentials(facts):
        found["num_stages"] = _stages_of_chunks(facts, found)
    if "load_eviction_policies" in found and not _reads_again(facts, found):
        found["load_eviction_policies"] = dropped_first(
            facts.device, lambda shape: facts.elements(shape, found), facts.l2_bytes
        )
    # Loads by way of shared memory do not say what the cache may drop.
    if facts.shared_out and "range_num_stages" in found and "first" not in found.get("load_eviction_policies", ()):
        found["range_num_stages"] = _loaded_ahead(facts, found)
    return found


def _reads_again(facts: KernelFacts, config: dict[str, Any]) -> bool:
    """Whether rows are read in chunks several times."""
    return any(loop and times > 1 for loop, times in zip(config.get("reduction_loops", ()), facts.row_passes))


def _wanted_chunk(facts: KernelFacts, place: int) -> int:
    """Elements of a chunk of a row.

    Args:
        facts: the kernel's.
        place: which of the reductions.
    """
    size, passes, loaded = facts.reductions[place], facts.row_passes[place], facts.row_bytes[place]
    if place in facts.columns:
        return first_chunk(facts)
    if not has_exponentials(facts):
        # Two numbers for each element of a chunk, as in a variance, are half of the registers that there are.
        return _CHUNK // (1 if facts.lane_numbers[place] < 2 else 2) if passes > 1 else _CHUNK_ONCE
    two_rows = 2 * facts.multiprocessors * size * loaded
    is_cached = passes == 1 or two_rows <= _PART_OF_L2 * facts.l2_bytes
    return _CHUNK_OF_EXPONENTIALS if is_cached else _LONG_CHUNK_OF_EXPONENTIALS


def _longest_whole(facts: KernelFacts, place: int, saves: bool) -> int:
    """How long a dimension may be that is read at once.

    Args:
        facts: the kernel's.
        place: which of the reductions.
        saves: whether a row is read once at once, and several times in chunks, and nothing of it stored.
    """
    if place in facts.columns:
        return longest_whole(facts, place)
    return _WHOLE_ROW_ONCE if saves else _WHOLE_ROW


def _stages_of_chunks(facts: KernelFacts, config: dict[str, Any]) -> int:
    """Stages of the loops over chunks of rows: as many as shared memory has room for with two programs a
    multiprocessor, if one loop has all loads."""
    loaded = facts.loaded_bytes(facts.device.views(Load), config)
    return min(1 + facts.shared_bytes // 2 // max(loaded, 1), _CHUNK_STAGES)


def _loaded_ahead(facts: KernelFacts, config: dict[str, Any]) -> list[int]:
    """Stages of each loop: those with loads get as many as shared memory has room for, one iteration each.

    Only loops over a share of the rows.
    """
    stages = list(config["range_num_stages"])
    resident, steps = _sharing(facts, config), _steps_of_shares(facts)
    room = facts.shared_bytes - (resident * _SCRATCH_BYTES if facts.waits_between_loops else 0)
    sizes = zip(facts.blocks, config["block_sizes"])
    ahead = _AHEAD + (facts.waits_between_loops and any(block.id in steps and size > 1 for block, size in sizes))
    for place, info in enumerate(loop_statements(facts.device)):
        held = facts.loaded_bytes(map(Load.match, info.graph.nodes), config)
        of_share = info.kind is GraphKind.LOOP and not steps.isdisjoint(axis.block.id for axis in info.axes)
        if of_share and 0 < held * resident <= room:
            stages[place] = min(1 + room // (held * resident), ahead)
    return stages


def _warps(facts: KernelFacts, config: dict[str, Any]) -> int:
    """Warps of a program, by the elements of its largest value."""
    elements = facts.largest(config)
    if facts.shared_out:
        if not _stores_rows(facts, config):
            return min(max(elements * _itemsize(facts) // _BYTES_OF_WARP, 4), _MOST_SHARING_WARPS)
        # Sums of the rows are in registers too.  Rows of a step are in the same threads, which add them up.
        row = facts.longest_row(config)
        return min(max(next_power_of_2(row // 256) // (1 if row <= 1024 else 2), 1), _MOST_SHARING_WARPS)
    many_chunks = (chunk_elements(facts) if facts.columns else _CHUNK_OF_EXPONENTIALS) if has_exponentials(facts) else 0
    if elements > 16384 or (_reads_again(facts, config) and elements > many_chunks):
        return 32
    if sort_keys in facts.device.calls:
        return min(max(elements // (32 * _SORTED_OF_THREAD), 1), 16)
    row = facts.longest_row(config)
    if _holds_rows(facts, config):
        if not has_exponentials(facts) and not _stores_rows(facts, config):
            warps = elements * _itemsize(facts) // _BYTES_OF_WARP
            return 32 if warps >= 64 else min(max(warps, 4), 16)
        if has_exponentials(facts):
            # Rows that are stored: few threads with much each leave registers for more rows at a time.
            of_thread = 32 if _stores_rows(facts, config) and row >= _SINGLE_ROW else 16
            return min(max(elements // (32 * of_thread), 1), 16)
    # Threads that have all of a short row need no shared memory.
    return min(max(next_power_of_2(elements // (1024 if row <= 512 else 512)), 4), 16)


def _holds_rows(facts: KernelFacts, config: dict[str, Any]) -> bool:
    """Whether programs have a few rows each, whole, to reduce them."""
    loops = config.get("reduction_loops", ())
    return bool(loops) and not any(loops) and not facts.shared_out and not facts.waits_between_loops


def _stores_rows(facts: KernelFacts, config: dict[str, Any]) -> bool:
    """Whether about as much is stored as there is in the largest value."""
    largest = facts.largest(config)
    stores = [store.value for store in facts.device.views(Store)]
    shapes = [shape_exprs(tensor_of(value).shape) for value in stores if isinstance(value, torch.fx.Node)]
    return any(facts.elements(shape, config) * _FEW > largest for shape in shapes)


def _itemsize(facts: KernelFacts) -> int:
    """Bytes of the widest element that is loaded."""
    return max((load.result.dtype.itemsize for load in facts.device.views(Load)), default=4)


def _sharing(facts: KernelFacts, config: dict[str, Any]) -> int:
    """Programs of a multiprocessor that go over shares of the rows."""
    elements = facts.largest(config)
    programs = min(max(_SHARING_ELEMENTS // elements, 1), _SHARING_PROGRAMS)
    return max(min(programs, _WARPS_TOGETHER // _warps(facts, config)), 1) if facts.waits_between_loops else programs


def _steps_of_shares(facts: KernelFacts) -> set[int]:
    """Block ids of the loops that go over a share of the rows: they begin where a tile of another loop does."""
    begins = {axis.offset.node.expr for axis in facts.device.space.axes}
    return {axis.block.id for axis in facts.device.space.axes if symbols_of(axis.begin) & begins}


def _chunk(spec: ConfigSpec, place: int, size: int, longest: int, wanted: int) -> int | None:
    """How a reduction over a whole dimension is done: at once (None), or in chunks.

    Args:
        spec: the kernel's.
        place: which of `reduction_loops`.
        size: of the dimension.
        longest: a dimension that stays whole.
        wanted: elements of a chunk.
    """
    loops = spec.fields["reduction_loops"]
    assert isinstance(loops, ListOf)
    chunk = loops.items[place]
    assert isinstance(chunk, EnumFragment)
    choices = chunk.choices
    extent = next_power_of_2(size)
    if None in choices and extent <= longest:
        return None
    chunks = [c for c in choices if c is not None]
    if not chunks:
        return None
    small = sorted(c for c in chunks if c <= wanted) or chunks[:1]
    close = [c for c in small if math.ceil(size / c) * c <= _MOST_PADDING * size]
    return max(close, default=small[-1])


def _grow(spec: ConfigSpec, facts: KernelFacts, config: dict[str, Any], inner: bool = False) -> None:
    """Larger block sizes, from the innermost dimension outwards, while every tile stays small enough.

    Args:
        spec, facts: the kernel's.
        config: has the block sizes to begin with, and gets the others.
        inner: only those of loops inside of others.
    """
    roots = {axis.block.id for axis in root_axes(facts)}
    sizes = config["block_sizes"]
    budget = ROWS_ELEMENTS if inner and loops_over_rows(facts) else _budget(facts, config)
    narrow = _kept_beside_sums(facts)
    # What adds up the shares: many of them at a time rather than wide ones.
    later = {a.block.id for root in facts.device.roots if root.phase for a in facts.device.graphs[root.graph_id].axes}
    depth, steps = facts.depths, _steps_of_shares(facts) if facts.shared_out else set()
    for i in sorted(range(len(sizes)), key=lambda i: (depth.get(facts.blocks[i].id, 99), i)):
        block = facts.blocks[i]
        if inner and block.id in roots:
            continue
        own = facts.own_shapes[block.id]
        most = _step_elements(facts, config, own) if block.id in steps and depth.get(block.id) else budget
        if not own:  # shares of rows that an inner loop goes over
            programs = _sharing(facts, config) * facts.multiprocessors
            share = (block.extent or 1) * tiles_of(facts, config, without={block.id}) // programs
            sizes[i] = accepted_size(spec, i, next_power_of_2(share))  # no value has it: it may be large
            continue
        limit = nearest_size(spec, i, _WIDEST if block.id in roots else _WIDEST_OF_LOOP)
        if block.id in narrow or (facts.shared_out and block.id in later):
            limit = min(limit, nearest_size(spec, i, _COALESCED_PART))
        while sizes[i] * 2 <= limit:
            sizes[i] *= 2
            if any(facts.elements(shape, config) > most for shape in own):
                sizes[i] //= 2
                break


def _grow_lines(spec: ConfigSpec, facts: KernelFacts, config: dict[str, Any]) -> None:
    """Tiles that are parts of lines in memory in all that is loaded and stored.

    Of a transposition one block is the innermost of what is loaded, another one of what is stored: a tile of 1024 x 2
    moves 32 bytes for every 4.  They grow by turns.

    Args:
        spec, facts: the kernel's.
        config: has the smallest block sizes, and gets the others.
    """
    sizes = config["block_sizes"]
    lines = {i: facts.contiguous[block.id] for i, block in enumerate(facts.blocks) if block.id in facts.contiguous}
    while len(lines) > 1:
        i = min(lines, key=lambda i: sizes[i] * lines[i])
        before, sizes[i] = sizes[i], nearest_size(spec, i, 2 * sizes[i])
        too_many = any(facts.elements(shape, config) > _ROW_ELEMENTS for shape in facts.own_shapes[facts.blocks[i].id])
        if sizes[i] == before or before * lines[i] >= LINE_BYTES or too_many:
            sizes[i] = before
            return


def _step_elements(facts: KernelFacts, config: dict[str, Any], shapes: list[tuple[Any, ...]]) -> int:
    """The most elements of the rows that a program with a share of them takes at a time.

    Args:
        facts: the kernel's.
        config: has the size of a row's tile.
        shapes: of the values on the rows.
    """
    if not facts.waits_between_loops:
        return _STEP_ELEMENTS
    low, high = _STEPS_ELEMENTS
    return min(max(_STEP_ROWS * max(facts.elements(shape[-1:], config) for shape in shapes), low), high)


def _budget(facts: KernelFacts, config: dict[str, Any]) -> int:
    """The most elements of a tile.

    Args:
        facts: the kernel's.
        config: has the smallest block sizes.
    """
    row = facts.largest(config)
    if sort_keys in facts.device.calls:
        return max(row, _SORTED_ELEMENTS)
    if not _holds_rows(facts, config) or row == 1:
        return _ROW_ELEMENTS if row > 1 or len(facts.first_shapes) < len(facts.shapes) else _ELEMENTS
    if has_exponentials(facts):
        return row if row >= _SINGLE_ROW else _SHORT_ROWS_ELEMENTS
    return _ROW_ELEMENTS if _stores_rows(facts, config) else max(_SUMMED_BYTES // _itemsize(facts), row)


def _kept_beside_sums(facts: KernelFacts) -> set[int]:
    """Block ids of the innermost dimension of values that are added up over another one, for a later phase to add what
    the tiles have found: the more a tile adds up, the less there is left.
    """
    if not facts.waits_between_loops:
        return set()
    first = [root for root in facts.device.roots if root.phase == 0]
    graphs = [info for root in first for info in facts.device.inside(facts.device.graphs[root.graph_id])]
    reductions = [found for info in graphs for found in map(Reduction.match, info.graph.nodes) if found is not None]
    sources = [(tensor_of(found.source), found.dim) for found in reductions]
    symbols = {s for value, dim in sources if dim not in (-1, value.dim() - 1) for s in symbols_of(value.shape[-1])}
    return {block.id for block in facts.blocks if block.symbol in symbols}


def _share_out(spec: ConfigSpec, facts: KernelFacts, config: dict[str, Any], root: RootLoop) -> None:
    """Smaller tiles of a top-level loop where there are fewer than multiprocessors; the innermost dimension stays
    coalesced.
    """
    depth = facts.depths
    sizes = config["block_sizes"]
    first = root is facts.device.roots[0]
    axes = root_axes(facts) if first else facts.device.graphs[root.graph_id].axes
    roots = {axis.block.id for axis in axes}
    # A share of the rows is as long as it should be: a few multiprocessors have none.
    needed = facts.multiprocessors * 3 // 4 if facts.shared_out else facts.multiprocessors
    # What the phases before have left is added up by many rows of few columns.
    least = {block.id: _COALESCED if first else _COALESCED_PART for block in facts.blocks}
    if first and loops_over_rows(facts):
        least |= {id_: SECTOR_BYTES // itemsize for id_, itemsize in facts.contiguous.items()}
    while tiles_of(facts, config, root=root) < needed:
        able = [
            i
            for i, block in enumerate(facts.blocks)
            if block.id in roots
            and sizes[i] > nearest_size(spec, i, least[block.id] if depth.get(block.id) == 0 else 1)
        ]
        if not able:
            return
        sizes[max(able, key=lambda i: depth.get(facts.blocks[i].id, 99))] //= 2


def _stay_together(facts: KernelFacts, config: dict[str, Any]) -> None:
    """Several programs a multiprocessor that wait for each other, and registers for all of them: the driver refuses a
    launch whose programs do not fit at once, and how many registers they take is not known before they are compiled.
    """
    resident = _sharing(facts, config) if facts.shared_out else max(_WARPS_TOGETHER // config["num_warps"], 1)
    config["num_sm_multiplier"] = resident
    registers = _REGISTERS // (32 * config["num_warps"] * config["num_sm_multiplier"])
    config["maxnreg"] = min(registers, _MOST_REGISTERS)
