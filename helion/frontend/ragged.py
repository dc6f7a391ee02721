"""Jagged loops, written into the IR as masks: of each access, and of what is reduced, scanned and multiplied.

A value whose shape has both the dimensions of the row lengths and the ragged dimension has elements inside rows only.
An access touches no others (its `extra_mask`), and where elements are combined the others are neutral.  Nothing after
the front end knows about ragged loops.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import torch
import torch.fx

from .. import exc
from ..ir.device_ir import Axis
from ..ir.device_ir import AxisKind
from ..ir.device_ir import TracedTile
from ..ir.nodes import Load
from ..ir.nodes import operand
from ..ir.pointwise import CONVERT
from ..ir.reduction_ops import REDUCTIONS
from ..ir.symbols import expr_of
from ..language.creation import full
from ..language.indexing import index_list
from ..language.indexing import indexed_shape
from ..language.op import Op
from ..language.ragged import with_rows_only
from ..language.shapes import same_size

if TYPE_CHECKING:
    from .tracer import Tracer


def check_lengths(lengths: torch.Tensor, around: Sequence[Axis]) -> None:
    """Check that the dimensions of row lengths are tiles of the loops around.

    Raises:
        exc.InvalidJaggedTileUsage: one is not.
    """
    tiles = {axis.block.symbol for axis in around if axis.kind is AxisKind.TILE}
    for dim, size in enumerate(lengths.shape):
        if expr_of(size) not in tiles:
            raise exc.InvalidJaggedTileUsage(
                f"dimension {dim} of the row lengths is not the tile of a loop around hl.jagged_tile"
            )


def ragged_axes(axes: Sequence[Axis]) -> list[Axis]:
    """The jagged ones among the axes of the loops around."""
    return [axis for axis in axes if axis.lengths is not None]


def with_ragged_mask(op: Op, args: tuple[Any, ...], axes: Sequence[Axis]) -> tuple[Any, ...]:
    """The arguments of a memory op with its `extra_mask` narrowed to rows.

    Args:
        op: a load, store or atomic.
        args: its arguments in signature order.
        axes: the jagged axes of the loops around.

    Raises:
        exc.InvalidJaggedTileUsage: a jagged tile in an index without the rows it belongs to.
    """
    if not axes:
        return args
    assert op.access is not None
    at = op.access.mask_at
    mask = args[at]
    index = args[op.access.index_at]
    shape = indexed_shape(args[0], index, op.name)
    for axis in axes:
        inside = inside_rows(axis, shape)
        if inside is not None:
            mask = inside if mask is None else inside & mask
        elif any(isinstance(e, TracedTile) and e.axis is axis for e in index_list(index)):
            raise exc.InvalidJaggedTileUsage(
                f"{op.name}: the jagged tile {axis.name!r} stands in an index without the rows it belongs to",
                fix=f"index with the tile of the rows too, or with `{axis.name}.index` where all rows share a place.",
            )
    return (*args[:at], mask, *args[at + 1 :])


def with_rows_of_operands(tracer: Tracer, op: Op, args: tuple[Any, ...], axes: Sequence[Axis]) -> tuple[Any, ...]:
    """The arguments of any other language op, neutral past the ends of rows where it combines elements."""
    if not axes:
        return args
    return with_rows_only(op, args, lambda value, dims, neutral: _rows_only(tracer, value, dims, neutral, axes))


def with_rows_of_reduction(
    tracer: Tracer, op: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], axes: Sequence[Axis]
) -> tuple[Any, ...]:
    """The positional arguments of a reduction of ATen's, its operand neutral past the ends of rows."""
    x = args[0]
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    dims = [dim] if isinstance(dim, int) else list(dim if dim else range(x.dim()))
    neutral = REDUCTIONS[op].neutral(x.dtype)
    return (_rows_only(tracer, x, [d % max(x.dim(), 1) for d in dims], neutral, axes), *args[1:])


def _rows_only(
    tracer: Tracer, value: torch.Tensor, dims: Sequence[int], neutral: Any, axes: Sequence[Axis]
) -> torch.Tensor:
    """`value` with `neutral` where combining it along `dims` would take what is in no row."""
    for axis in axes:
        inside = inside_rows(axis, value.shape)
        if inside is None or not set(dims) & set(_places(axis, value.shape) or ()):
            continue
        if neutral == 0 and _reads_zero(tracer.operand(value)):
            continue
        value = torch.where(inside, value, full([], neutral, dtype=value.dtype))
    return value


def _reads_zero(node: torch.fx.Node) -> bool:
    """Whether a value was just loaded: it is 0 past the ends of rows already."""
    while node.target is CONVERT:
        node = operand(node)
    return Load.match(node) is not None


def only_inside(axes: Sequence[Axis], new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """What a loop carries: lanes outside of their row stay as they were."""
    for axis in axes:
        inside = inside_rows(axis, new.shape)
        if inside is not None:
            new = torch.where(inside, new, old)
    return new


def _places(axis: Axis, shape: Sequence[Any]) -> list[int] | None:
    """The dimensions of a shape that are the ragged one (first) and the rows'; None where one is missing."""
    found = [_place(size, shape) for size in (axis.size, *axis.lengths.shape)]
    return None if None in found else [place for place in found if place is not None]


def inside_rows(axis: Axis, shape: Sequence[Any]) -> torch.Tensor | None:
    """Whether each element of a value of `shape` lies inside its row; None when the value is not by rows."""
    lengths: torch.Tensor = axis.lengths
    found = _places(axis, shape)
    if found is None:
        return None
    columns, *places = found
    order = sorted(range(len(places)), key=places.__getitem__)
    bound = lengths.permute(order) if order != sorted(order) else lengths
    return _spread(TracedTile(axis).index, [columns], len(shape)) < _spread(bound, sorted(places), len(shape))


def _place(size: Any, shape: Sequence[Any]) -> int | None:
    own = (i for i, s in enumerate(shape) if isinstance(s, torch.SymInt) and s.node is size.node)  # not another tile's
    return next(own, next((i for i, s in enumerate(shape) if same_size(s, size)), None))


def _spread(value: torch.Tensor, places: list[int], rank: int) -> torch.Tensor:
    """`value` with its dimensions at `places` of a shape of `rank` dimensions, size 1 elsewhere."""
    for place in range(rank):
        if place not in places:
            value = value.unsqueeze(place)
    return value
