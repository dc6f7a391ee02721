"""Loops: `hl.tile`, `hl.grid`, `hl.jagged_tile`, `hl.static_range`, and `hl.barrier` between them.

Here the calls are checked and normalized to `LoopRanges`; what iterating means is the handler's business.
The loop variable of `hl.tile` is in `tile`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from .. import exc
from .op import LoopRanges
from .op import current_handler
from .shapes import constant_fix
from .tile import Tile

_MISSING: Any = object()


def tile(begin_or_end: Any = _MISSING, end: Any = _MISSING, block_size: Any = None) -> Iterable[Any]:
    """Iterate over a range in tiles: `for t in hl.tile(n)`, `for tm, tn in hl.tile([m, n])`.

    A top-level loop is the kernel's grid: its tiles run in parallel, in no order.  A loop inside another is
    a loop inside the kernel, in order.  Bounds may be values loaded from tensors.

    Args:
        begin_or_end: the end; or the begin, when `end` is given. An integer, a 0-d integer tensor, or a list
            of these for several dimensions at once.
        end: one past the last index, of the same form.
        block_size: size of the tiles: an integer, a size of `hl.register_block_size`, or a list of these;
            None lets the config choose.

    Yields:
        A `Tile`; a tuple of them when the bounds are lists.

    Raises:
        exc.InvalidTileRange: bounds that are not integers, or lists of different length.
        exc.TileOfTile: a bound is a tile.
    """
    handler = current_handler("hl.tile")
    return handler.tile(_ranges("hl.tile", begin_or_end, end, block_size, default_step=None))


def grid(begin_or_end: Any = _MISSING, end: Any = _MISSING, step: Any = None) -> Iterable[Any]:
    """Iterate over single indices: like `hl.tile` with a scalar index instead of a tile.

    Args:
        begin_or_end: the end; or the begin, when `end` is given. An integer, a 0-d integer tensor, or a list
            of these for several dimensions at once.
        end: one past the last index, of the same form.
        step: distance of neighbours (positive), 1 if left out; or a list.

    Yields:
        An integer scalar; a tuple of them when the bounds are lists.
    """
    handler = current_handler("hl.grid")
    return handler.grid(_ranges("hl.grid", begin_or_end, end, step, default_step=1))


def jagged_tile(lengths: torch.Tensor, block_size: Any = None) -> Iterable[Tile]:
    """Iterate over the columns of rows of different length.

    The tiles run over `[0, max(lengths))`.  A value that has the dimensions of `lengths` and the dimension of this
    tile has in each row as many elements as the row is long: loads, stores and atomics touch no others, and
    reductions, scans and products of matrices take no others.

    Args:
        lengths: integer tensor of row lengths, one or more dimensions (usually loaded with a row tile).
        block_size: size of the tiles; None lets the config choose.

    Yields:
        A `Tile` whose `lengths` is the argument.

    Raises:
        exc.InvalidJaggedTileUsage: `lengths` is no tensor of integers; it has no dimension, or one that is not an
            enclosing loop's tile; or the loop is not inside another one.
    """
    if not isinstance(lengths, torch.Tensor) or lengths.dtype.is_floating_point or lengths.dtype is torch.bool:
        raise exc.InvalidJaggedTileUsage("hl.jagged_tile needs a tensor of integer row lengths")
    if lengths.dim() == 0:
        raise exc.InvalidJaggedTileUsage(
            "hl.jagged_tile needs a tensor of row lengths", fix="use hl.tile(n) for one row."
        )
    if block_size is not None:
        check_step("hl.jagged_tile", block_size)
    if lengths.dtype in (torch.uint16, torch.uint32, torch.uint64):  # which PyTorch compares with no other
        lengths = lengths.to(torch.int64)
    return current_handler("hl.jagged_tile").jagged_tile(lengths, block_size)


def static_range(begin_or_end: int, end: int = _MISSING, step: int = 1) -> Iterable[int]:
    """Like Python's `range`, unrolled at compile time.

    Args:
        begin_or_end: the end; or the begin, when `end` is given. Compile-time constants.
        end: one past the last index.
        step: distance of neighbours, not 0.

    Yields:
        Compile-time integers.

    Raises:
        exc.SizeNotConstant: a bound is known only at run time.
    """
    handler = current_handler("hl.static_range")
    begin, end = (0, begin_or_end) if end is _MISSING else (begin_or_end, end)
    for bound in (begin, end, step):
        if not isinstance(bound, int):
            fix = constant_fix(bound, exc.SizeNotConstant.fix)
            raise exc.SizeNotConstant(what="a bound of hl.static_range", value=bound, fix=fix)
    if step == 0:
        raise exc.InvalidAPIUsage("hl.static_range: step must not be 0")
    return handler.static_range(begin, end, step)


def barrier() -> None:
    """End a phase of a kernel: the top-level loops before are done, and their writes seen, before those after begin.

    Stands between top-level loops in the kernel function.  Loops without a barrier between them run at the same time.

    Raises:
        exc.InvalidAPIUsage: it stands anywhere else.
    """
    current_handler("hl.barrier").barrier()


def _ranges(name: str, first: Any, second: Any, steps: Any, *, default_step: int | None) -> LoopRanges:
    if second is None:
        raise exc.InvalidTileRange(name=name, reason="the end is None")
    given = [bound for bound in (first, second) if bound is not _MISSING]
    if not given:
        raise exc.InvalidTileRange(name=name, reason="it has no end")
    begin, end = given if len(given) == 2 else (None, given[0])
    is_sequence = isinstance(end, (list, tuple))
    if begin is not None and isinstance(begin, (list, tuple)) != is_sequence:
        raise exc.InvalidTileRange(name=name, reason="begin and end must both be lists or both be single values")
    ends = tuple(end) if is_sequence else (end,)
    if not ends:
        raise exc.InvalidTileRange(name=name, reason="the list of ends is empty")
    begins = _spread(name, "begin", begin, len(ends), default=0, scalar_ok=not is_sequence)
    sizes = _spread(name, "block_size" if name == "hl.tile" else "step", steps, len(ends), default=default_step)
    for bound in (*begins, *ends):
        _check_bound(name, bound)
    ends = tuple(
        first_index if isinstance(first_index, int) and isinstance(last, int) and first_index > last else last
        for first_index, last in zip(begins, ends)
    )  # as Python's range: one that ends before it begins is empty
    for size in sizes:
        if size is not None:
            check_step(name, size)
    return LoopRanges(name, begins, ends, sizes, is_sequence)


def _spread(name: str, what: str, value: Any, n: int, *, default: Any, scalar_ok: bool = True) -> tuple[Any, ...]:
    if value is None:
        return (default,) * n
    if isinstance(value, (list, tuple)):
        if len(value) != n:
            raise exc.InvalidTileRange(
                name=name, reason=f"{what} has {len(value)} entries for {n} dimension{'s' if n > 1 else ''}"
            )
        return tuple(default if v is None else v for v in value)
    if n > 1 and what == "begin" and not scalar_ok:
        raise exc.InvalidTileRange(name=name, reason=f"{what} must be a list of {n} entries")
    return (value,) * n


def _check_bound(name: str, bound: Any) -> None:
    if isinstance(bound, Tile):
        raise exc.TileOfTile()
    if isinstance(bound, torch.Tensor):
        if bound.dim() == 0 and not bound.dtype.is_floating_point and bound.dtype is not torch.bool:
            return
        raise exc.InvalidTileRange(
            name=name, reason=f"a bound is a tensor of shape {list(bound.shape)} and dtype {bound.dtype}"
        )
    if isinstance(bound, bool) or not isinstance(bound, (int, torch.SymInt)):
        raise exc.InvalidTileRange(name=name, reason=f"a bound is a {type(bound).__name__}, not an integer")


def check_step(name: str, size: Any) -> None:
    if isinstance(size, bool) or not isinstance(size, (int, torch.SymInt)):
        raise exc.InvalidTileRange(name=name, reason=f"a block size or step is a {type(size).__name__}")
    if isinstance(size, int) and size < 1:
        raise exc.InvalidTileRange(name=name, reason=f"a block size or step is {size}, must be positive")
