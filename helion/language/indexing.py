"""What an index means: the shape an indexed access has, shared by load, store, atomics and subscripts.

Each element of an index is one of

| element | consumes | gives |
|---|---|---|
| `Tile` (also `tile + k`) | one dimension | one dimension of the tile's size |
| int, SymInt, 0-d integer tensor | one dimension | nothing |
| `:` or a slice with constant bounds | one dimension | one dimension |
| a slice with other bounds a constant length apart (see `windows`) | one dimension | one dimension |
| `None` | nothing | one dimension of size 1 |
| integer tensor of one or more dimensions | one dimension | see below |
| `...` | all dimensions left over | the same |

All integer-tensor elements broadcast with each other as in NumPy, and the dimensions of that broadcast
stand at the place of the first of them (vectors of different tiles are made to: see `outer_index`).  Tiles and
slices always keep a dimension of their own in place, so `x[tile, idx]` is an outer product of `tile` and `idx`.

A tile over a dimension of size 1 reads its one element in all lanes, as PyTorch broadcasts such a dimension.

Bounds: positions of a tile that lie outside the tensor read as 0 and are not written (so `x[tile - 1]` is
safe).  Integers and integer tensors are not checked on a GPU; where `extra_mask` is False they may point
anywhere, elsewhere they must be in range (ref mode raises `exc.IndexOutOfRange`).  Negative integers in
device code do not count from the end unless they are Python constants.

The eager counterpart (offsets of the accessed elements) is in `helion.runtime.eager.handler`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from .. import exc
from .shapes import Size
from .shapes import broadcast_shapes
from .shapes import check_broadcasts_to
from .shapes import is_one
from .tile import Tile

#: Dtypes that index a dimension. uint8 does not: in PyTorch an index of that dtype is a mask.
INDEX_DTYPES = frozenset({torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32})


@dataclasses.dataclass(frozen=True)
class IndexItem:
    """One element of a normalized index.

    Attributes:
        kind: `tile`, `scalar`, `slice`, `new` (None) or `tensor`.
        value: the element; for `slice` a triple (start, length, step).
        dim: the tensor dimension it consumes, -1 for `new`.
        repeats: it is a tile over a dimension of size 1: all its lanes name element 0.
    """

    kind: str
    value: Any
    dim: int
    repeats: bool = False


def index_list(index: Any) -> list[Any]:
    """An index as a list of elements: a tuple or list as it is, anything else alone."""
    return list(index) if isinstance(index, (tuple, list)) else [index]


def normalize_index(sizes: Sequence[Size], index: Any, what: str) -> list[IndexItem]:
    """Classify each element of `index` into a tensor of shape `sizes`; `...` is expanded.

    Raises:
        exc.RankMismatch: the number of elements does not fit the number of dimensions.
        exc.InvalidAPIUsage: an element that is no index.
        exc.DataDependentOutputShapeNotSupported: a boolean tensor.
    """
    elements = expand_ellipsis(index, len(sizes), what)
    consumed = sum(e is not None for e in elements)
    if consumed != len(sizes):
        raise exc.RankMismatch(what=what, expected=len(sizes), actual=consumed)
    items: list[IndexItem] = []
    dim = 0
    for element in elements:
        if element is None:
            items.append(IndexItem("new", None, -1))
            continue
        items.append(_classify(element, sizes[dim], dim, what))
        dim += 1
    return items


def expand_ellipsis(index: Any, ndim: int, what: str) -> list[Any]:
    """The elements of an index into a tensor of `ndim` dimensions, `...` as so many `:`."""
    elements = index_list(index)
    places = [i for i, e in enumerate(elements) if e is Ellipsis]
    if not places:
        return elements
    if len(places) > 1:
        raise exc.TypeInferenceError(f"{what}: an index can have only one `...`")
    consumed = sum(e is not None and e is not Ellipsis for e in elements)
    if consumed > ndim:
        raise exc.TypeInferenceError(
            f"{what}: {consumed} indices beside `...` for a tensor of {ndim} dimensions", fix="leave some out."
        )
    fill = [slice(None)] * max(ndim - consumed, 0)
    return [*elements[: places[0]], *fill, *elements[places[0] + 1 :]]


def _classify(element: Any, size: Size, dim: int, what: str) -> IndexItem:
    if isinstance(element, Tile):
        return IndexItem("tile", element, dim, _repeats(element, size))
    if isinstance(element, slice):
        return IndexItem("slice", slice_extent(element, size, what), dim)
    if isinstance(element, bool):
        raise exc.InvalidAPIUsage(f"{what}: a boolean is not an index", fix="use torch.where or extra_mask=.")
    if isinstance(element, int):
        return IndexItem("scalar", element + size if element < 0 else element, dim)
    if isinstance(element, torch.SymInt):
        return IndexItem("scalar", element, dim)
    if isinstance(element, torch.Tensor):
        if element.dtype is torch.bool:
            raise exc.DataDependentOutputShapeNotSupported(op=f"{what} with a boolean index")
        if element.dtype is torch.uint8:
            raise exc.InvalidAPIUsage(
                f"{what}: a uint8 tensor is no index, since PyTorch takes it as a mask",
                fix="convert positions with `.to(torch.int32)`; hl.load and hl.store take a mask: `extra_mask=m != 0`.",
            )
        if element.dtype not in INDEX_DTYPES:
            raise exc.InvalidAPIUsage(
                f"{what}: a tensor of dtype {element.dtype} is not an index", fix="convert it with `.to(torch.int32)`."
            )
        return IndexItem("tensor" if element.dim() else "scalar", element, dim)
    raise exc.InvalidAPIUsage(
        f"{what}: {type(element).__name__} is not an index",
        fix="index with tiles, integers, `:`, None, or integer tensors.",
    )


def _repeats(tile: Tile, size: Size) -> bool:
    """Whether a dimension broadcasts along a tile: it has size 1, and the tile may be anywhere but on its one element
    (a loop that ends at 1, which may well be empty, is on that alone), nor is it moved (`x[tile - 1]` is outside for
    every index but one)."""
    if not isinstance(size, int) or size != 1 or not isinstance(tile.offset, int) or tile.offset != 0:
        return False
    end = tile.range_end
    return not (isinstance(end, int) and end <= 1)


def slice_extent(item: slice, size: Size, what: str) -> tuple[Size, Size, int]:
    """(start, length, step) of a slice of a dimension of `size`.

    Raises:
        exc.InvalidAPIUsage: bounds that are not constants, or a step below 1.
    """
    for bound in (item.start, item.stop, item.step):
        if not (bound is None or type(bound) is int):
            raise exc.InvalidAPIUsage(
                f"{what}: slice bounds must be constants, got {type(bound).__name__}",
                fix="index with the tile of a loop, `for t in hl.tile(begin, end)`, or `begin + hl.arange(length)`.",
            )
    step = 1 if item.step is None else item.step
    if step < 1:
        raise exc.InvalidAPIUsage(f"{what}: slice steps must be positive, got {step}")
    if item.start is None and item.stop is None and step == 1:
        return 0, size, 1
    if isinstance(size, int):
        start, stop, step = item.indices(size)
        return start, len(range(start, stop, step)), step
    start, stop = bounds_within(item, size)
    return start, (stop - start + (step - 1)) // step, step


def bounds_within(item: slice, size: Size) -> tuple[Size, Size]:
    """The bounds of a slice of a dimension of `size` as PyTorch takes them: negative ones count from the end, and those
    outside are the nearer end.  Of numbers that vary from call to call it is a guard which of these they are.
    """
    start, stop = (
        bound if bound is None else _within(bound + size if bound < 0 else bound, size)
        for bound in (item.start, item.stop)
    )
    start, stop = 0 if start is None else start, size if stop is None else stop
    return start, start if stop < start else stop


def _within(bound: Size, size: Size) -> Size:
    return 0 if bound < 0 else size if bound > size else bound


def items_shape(items: Sequence[IndexItem], what: str) -> list[Size]:
    """Shape of the access that normalized `items` describe."""
    tensors = [item.value.shape for item in items if item.kind == "tensor"]
    try:
        gathered = broadcast_shapes(*tensors, what=f"{what}: index tensors")
    except exc.ShapeMismatch as e:
        raise exc.ShapeMismatch(
            e.message, fix="add dimensions so that they broadcast: `x[rows[:, None], cols[None, :]]`."
        ) from None
    shape: list[Size] = []
    placed = False
    for item in items:
        if item.kind == "tile":
            shape.append(item.value.block_size)
        elif item.kind == "slice":
            shape.append(item.value[1])
        elif item.kind == "new":
            shape.append(1)
        elif item.kind == "tensor" and not placed:
            shape.extend(gathered)
            placed = True
    return shape


def indexed_shape(tensor: torch.Tensor, index: Any, what: str = "indexing") -> list[Size]:
    """Shape of `tensor[index]`; see the module docstring for the rules and `normalize_index` for errors."""
    return items_shape(normalize_index(tensor.shape, index, what), what)


def check_mask(mask: Any, shape: Sequence[Size], what: str) -> None:
    """Check an `extra_mask` argument: None, or a bool tensor (or bool) that broadcasts to `shape`."""
    if mask is None or isinstance(mask, (bool, torch.SymBool)):
        return
    if not isinstance(mask, torch.Tensor):
        raise exc.InvalidAPIUsage(f"{what}: extra_mask must be a boolean tensor, got {type(mask).__name__}")
    if mask.dtype is not torch.bool:
        raise exc.InvalidAPIUsage(f"{what}: extra_mask must be a boolean tensor, got dtype {mask.dtype}")
    check_broadcasts_to(mask.shape, shape, f"{what}: extra_mask")


def surplus_dims(value: Sequence[Size], shape: Sequence[Size]) -> int:
    """How many dimensions of size 1 a stored value has before those of the access: they are dropped, as in PyTorch
    (`out[i] = x[i : i + 1]`).
    """
    surplus = max(len(value) - len(shape), 0)
    return surplus if all(map(is_one, value[:surplus])) else 0


def check_value(value: Any, shape: Sequence[Size], what: str) -> None:
    """Check a value to be stored: a number, or a tensor that broadcasts to `shape`."""
    if isinstance(value, torch.Tensor):
        check_broadcasts_to(value.shape[surplus_dims(value.shape, shape) :], shape, f"{what}: value")
    elif not isinstance(value, (bool, int, float, torch.SymInt, torch.SymFloat, torch.SymBool)):
        raise exc.InvalidAPIUsage(f"{what}: cannot store a {type(value).__name__}", fix="store a tensor or a number.")
