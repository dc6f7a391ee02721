"""The Config of a kernel that goes over the first dimension of what it reads, of rows that lie side by side in memory.

A program that reads a part of a sector of memory in each row moves the whole sector, so it has at least that, and takes
many rows at a time: sums over 16384 rows of 1024 columns (bfloat16) took 3904 us on an H100 with 128 columns and two
rows at a time, 139 with a column a program, and 33 as it is done here (PyTorch 39).

Not here: rows that are reduced along memory (`defaults`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.fx

from ...config_spec import ConfigSpec
from ...fragments import EnumFragment
from ...fragments import ListOf
from ...ir.device_ir import GraphKind
from ...ir.nodes import Load
from .default_facts import KernelFacts
from .default_facts import has_exponentials
from .default_facts import nearest_size
from .default_facts import root_axes
from .default_facts import tiles_of
from .schedule import loop_statements

#: What is moved of memory at a time; and what a tile has of a line, at least, if there are enough tiles.
SECTOR_BYTES = 32
LINE_BYTES = 64
#: The same of columns in chunks.
_LONG_LINE_BYTES = 128
#: The most elements of columns that are held whole.
_MOST_WHOLE = 16384
#: Elements of a chunk of columns, and of what a loop over rows takes at a time, and stages of such a loop: few programs
#: have to have enough bytes under way.  Where exponentials are computed of a chunk, twice as many and 16 warps (softmax
#: of columns on an H100, bfloat16, 32768 x 512: 113 us instead of 164, 16384 x 1024: 66 instead of 92, 8192 x 4096: 104
#: instead of 106).
ROWS_ELEMENTS = 8192
_ROWS_ELEMENTS_OF_EXPONENTIALS = 16384
_AHEAD = 3


def loops_over_rows(facts: KernelFacts) -> bool:
    """Whether each program goes over the rows of a few columns, in a loop whose block size is another one.

    Not where how many there are is read from memory: of groups of a few rows there are many programs.
    """
    roots = {axis.block.id for axis in root_axes(facts)}
    columns = {id_ for id_ in facts.contiguous if id_ in roots and facts.depths.get(id_) == 0}
    inner = [
        axis for axis in facts.device.space.axes if axis.block.id not in roots and facts.own_shapes.get(axis.block.id)
    ]
    is_loaded = any(
        isinstance(bound, (torch.Tensor, torch.fx.Node)) for axis in inner for bound in (axis.begin, axis.end)
    )
    is_other = facts.reductions or facts.shared_out or facts.waits_between_loops or is_loaded
    return bool(columns and inner) and not is_other


def ahead_of_rows(facts: KernelFacts, config: dict[str, Any]) -> list[int]:
    """`range_num_stages`: loops over rows load the next ones while they compute, as far as shared memory has room for
    two programs."""
    roots = {axis.block.id for axis in root_axes(facts)}
    stages = list(config["range_num_stages"])
    for place, info in enumerate(loop_statements(facts.device)):
        held = facts.loaded_bytes(map(Load.match, info.graph.nodes), config)
        of_rows = info.kind is GraphKind.LOOP and roots.isdisjoint(axis.block.id for axis in info.axes)
        if of_rows and 0 < held <= facts.shared_bytes // 2:
            stages[place] = min(1 + facts.shared_bytes // 2 // held, _AHEAD)
    return stages


def _columns_at_once(facts: KernelFacts, size: int) -> int:
    """How many columns have so many bytes."""
    return max(size // min(facts.contiguous.values(), default=size), 1)


def longest_whole(facts: KernelFacts, place: int) -> int:
    """How long a dimension may be that stays whole: so that a program can have a sector's width of columns, or half of
    it where chunks would be read several times and there are no exponentials (softmax of 2048 x 16384 with half a
    sector's took 154 us on an H100, in chunks 102)."""
    times = 1 if facts.row_passes[place] == 1 or has_exponentials(facts) else 2
    return _MOST_WHOLE * times // _columns_at_once(facts, SECTOR_BYTES)


def chunk_elements(facts: KernelFacts) -> int:
    """Elements of a chunk of columns."""
    return _ROWS_ELEMENTS_OF_EXPONENTIALS if has_exponentials(facts) else ROWS_ELEMENTS


def first_chunk(facts: KernelFacts) -> int:
    """Rows of a chunk where programs have a sector's width of columns."""
    return chunk_elements(facts) // _columns_at_once(facts, SECTOR_BYTES)


def grow_columns(spec: ConfigSpec, facts: KernelFacts, config: dict[str, Any]) -> bool:
    """The block of columns that are reduced, as wide as lines while every multiprocessor has some.

    Columns in chunks have a sector in any case.  Those that are held whole have parts of one where fewer programs would
    do as much each.

    Args:
        spec, facts: the kernel's.
        config: has the smallest block sizes and how the reductions are done, and gets the others.

    Returns:
        Whether this is such a kernel.
    """
    lines = [i for i, block in enumerate(facts.blocks) if block.id in facts.contiguous]
    if not facts.columns or len(lines) != 1:
        return False
    (i,) = lines
    sizes, loops = config["block_sizes"], config["reduction_loops"]
    itemsize, shapes = facts.contiguous[facts.blocks[i].id], facts.own_shapes[facts.blocks[i].id]
    chunked = [place for place in facts.columns if loops[place] is not None]
    while sizes[i] * itemsize < (_LONG_LINE_BYTES if chunked else LINE_BYTES):
        before, programs, in_sector = sizes[i], tiles_of(facts, config), sizes[i] * itemsize < SECTOR_BYTES
        sizes[i] = nearest_size(spec, i, 2 * before)
        if in_sector:
            enough = bool(chunked) or programs > facts.multiprocessors
        else:
            enough = tiles_of(facts, config) >= facts.multiprocessors
        too_many = not chunked and any(facts.elements(shape, config) > _MOST_WHOLE for shape in shapes)
        if sizes[i] == before or too_many or not enough:
            sizes[i] = before
            break
    for place in chunked:
        fragments = spec.fields["reduction_loops"]
        assert isinstance(fragments, ListOf)
        fragment = fragments.items[place]
        assert isinstance(fragment, EnumFragment)
        most = chunk_elements(facts) // sizes[i]
        choices = [choice for choice in fragment.choices if choice is not None and choice <= most]
        loops[place] = max(choices, default=loops[place])
    return True
