"""`hl.subscript`: parts of device values, `value[:, 0]`, `value[..., 1:3]`, `value[:, None]`, `value[:, places]`.

What an index of a device value means, for every mode: PyTorch's rules, along dimensions of constant size.  A device
value has no address, so its elements are moved (`frontend.subscripts`); what has one is indexed by `memory.load`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import Protocol

import torch

from .. import exc
from .indexing import INDEX_DTYPES
from .indexing import expand_ellipsis
from .indexing import index_list
from .indexing import indexed_shape
from .indexing import slice_extent
from .op import device_op
from .tile import Tile
from .windows import is_window
from .windows import unwrapped


class Moves(Protocol):
    """Moves elements along one dimension of a device value, of constant size."""

    def select(self, x: torch.Tensor, dim: int, index: Any) -> torch.Tensor:
        """The elements at a place; the dimension goes."""

    def stretch(self, x: torch.Tensor, dim: int, start: int, length: int, step: int) -> torch.Tensor:
        """`length` elements, `step` apart, from a constant place on."""

    def window(self, x: torch.Tensor, dim: int, item: slice) -> torch.Tensor:
        """The elements between bounds that are not constants; zeros outside."""

    def gather(self, x: torch.Tensor, places: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """Elements at index tensors, one for each dimension or None, as PyTorch does."""

    def check_constant(self, x: torch.Tensor, dim: int) -> None:
        """Check that a dimension has a constant size.

        Raises:
            exc.InvalidAPIUsage: it is a tile's.
        """


@device_op(takes_tiles=True)
def subscript(tensor: torch.Tensor, index: Sequence[Any]) -> torch.Tensor:
    """A part of a device value, as PyTorch indexes: `value[:, 0]`, `value[1:3]`, `value[..., None]`.

    Args:
        tensor: a device value (not a host tensor).
        index: integers (negative ones count from the end), slices with positive steps, integer tensors with values in
            range, `:`, `...` and None; dimensions left out at the end stay as they are.  Only `:` goes with a tile's
            dimension.

    Returns:
        The elements, in the shape that PyTorch gives.

    Raises:
        exc.InvalidAPIUsage: other elements, or a part of a tile's dimension.
        exc.IndexOutOfRange: an integer out of range.
        exc.RankMismatch: there are more elements than dimensions.
    """
    raise NotImplementedError


@subscript.set_shape_rule
def _(tensor: torch.Tensor, index: Any) -> torch.Tensor:
    shape = indexed_shape(tensor, elements_of(tensor, index), "a device value")
    return torch.empty(shape, dtype=tensor.dtype, device=tensor.device)


@subscript.set_eager_rule
def _(tensor: torch.Tensor, index: Any) -> torch.Tensor:
    return part_of(tensor, index, _EagerMoves())


def part_of(tensor: Any, index: Any, moves: Moves) -> torch.Tensor:
    """`tensor[index]` of a device value; see `subscript`."""
    elements = elements_of(tensor, index)
    places: list[torch.Tensor | None] = []
    dim = 0
    for element in elements:
        if element is None:
            tensor = torch.unsqueeze(tensor, dim)
        elif not is_whole(element):
            moves.check_constant(tensor, dim)
            if is_window(element):
                tensor = moves.window(tensor, dim, element)
            elif isinstance(element, slice):
                start, length, step = slice_extent(element, tensor.size(dim), "a device value")
                tensor = moves.stretch(tensor, dim, start, length, step)
            elif isinstance(element, torch.Tensor) and element.dim():
                places.append(element)
                dim += 1
                continue
            else:
                tensor = moves.select(tensor, dim, element)
                continue
        places.append(None)
        dim += 1
    return tensor if all(place is None for place in places) else moves.gather(tensor, places)


def check_no_mask(extra_mask: Any) -> None:
    """Check that hl.load of a device value has no mask, which says what memory not to access.

    Raises:
        exc.InvalidAPIUsage: it has one.
    """
    if extra_mask is not None:
        raise exc.InvalidAPIUsage(
            "hl.load of a device value has no extra_mask", fix="index it, `torch.where(mask, value[:, 0], 0)`."
        )


def is_whole(element: Any) -> bool:
    """Whether an element of an index is `:`."""
    return isinstance(element, slice) and element == slice(None)


def elements_of(tensor: Any, index: Any) -> list[Any]:
    """The elements of an index, one for each dimension and each None; checked but for sizes.

    Raises:
        exc.InvalidAPIUsage: an element that is no index.
        exc.RankMismatch: there are more elements than dimensions.
        exc.DataDependentOutputShapeNotSupported: a boolean tensor.
        exc.TypeInferenceError: two `...`.
    """
    if not isinstance(tensor, torch.Tensor):
        raise exc.InvalidAPIUsage(f"hl.subscript needs a tensor, got {type(tensor).__name__}")
    elements = index_list(index)
    if not any(e is Ellipsis for e in elements):
        elements = [*elements, Ellipsis]
    named = sum(e is not None and e is not Ellipsis for e in elements)
    if named > tensor.dim():
        raise exc.RankMismatch(what="a device value", expected=tensor.dim(), actual=named)
    elements = expand_ellipsis(elements, tensor.dim(), "a device value")
    for element in elements:
        _check_element(element)
    return elements


def _check_element(element: Any) -> None:
    if element is None or isinstance(element, slice):
        return
    if isinstance(element, torch.Tensor):
        if element.dtype is torch.bool:
            raise exc.DataDependentOutputShapeNotSupported(op="indexing with a mask")
        if element.dtype in INDEX_DTYPES and element.dtype is not torch.uint8:  # which PyTorch takes as a mask
            return
        raise exc.InvalidAPIUsage(
            f"a tensor of dtype {element.dtype} is not an index", fix="convert it with `.to(torch.int32)`."
        )
    if isinstance(element, (int, torch.SymInt)) and not isinstance(element, bool):
        return
    raise exc.InvalidAPIUsage(f"a device value has no index of type {type(element).__name__}", fix=_fix_of(element))


def _fix_of(element: Any) -> str:
    if isinstance(element, Tile):
        return "index the host tensor with it, `x[tile]`: a value that was loaded so has the tile's elements already."
    if isinstance(element, (list, tuple)):
        return "put the parts together: `torch.stack([value[:, 0], value[:, 2]], dim=1)`."
    return "index with integers, slices, integer tensors, `:`, `...` and None; pick by a condition with torch.where."


def of_a_tile(dim: int) -> exc.InvalidAPIUsage:
    """The error for a part of a tile's dimension."""
    return exc.InvalidAPIUsage(
        f"dimension {dim} of this device value is a tile's: where it ends is not known, so no part can be taken",
        fix="index the host tensor, `x[tile.begin + 1]`; of a computed value reduce what a mask leaves, "
        "`torch.where(tile.index == i, value, 0).sum()`. Slices of constant length have parts: with block_size=16 "
        "write `x[tile.begin - 2 : tile.begin + 18]` for `x[tile.begin - 2 : tile.begin + tile.block_size + 2]`.",
    )


class _EagerMoves:
    """Moves of eager tensors."""

    def check_constant(self, x: torch.Tensor, dim: int) -> None:
        """Ref mode has looked: it knows whose dimensions are whose."""

    def select(self, x: torch.Tensor, dim: int, index: Any) -> torch.Tensor:
        return x.select(dim, int(_in_range(torch.as_tensor(index), x, dim)))

    def stretch(self, x: torch.Tensor, dim: int, start: int, length: int, step: int) -> torch.Tensor:
        return x.narrow(dim, start, x.size(dim) - start)[(*[slice(None)] * dim, slice(0, length * step, step))]

    def window(self, x: torch.Tensor, dim: int, item: slice) -> torch.Tensor:
        n = x.size(dim)
        bounds = (0 if item.start is None else item.start, n if item.stop is None else item.stop)
        start, stop = (int(b) + n if type(b) is int and b < 0 else int(b) for b in bounds)
        length = unwrapped(stop - start, *bounds)
        places = torch.arange(start, start + length, item.step or 1, device=x.device)
        inside = ((places >= 0) & (places < n)).reshape([-1, *[1] * (x.dim() - 1 - dim)])
        return torch.where(inside, x.index_select(dim, places.clamp(0, max(n - 1, 0))), torch.zeros((), dtype=x.dtype))

    def gather(self, x: torch.Tensor, places: Sequence[torch.Tensor | None]) -> torch.Tensor:
        found = [
            slice(None) if place is None else _in_range(place, x, dim).to(torch.int64)
            for dim, place in enumerate(places)
        ]
        return x[tuple(found)]


def _in_range(index: torch.Tensor, x: torch.Tensor, dim: int) -> torch.Tensor:
    n = x.size(dim)
    if index.numel() and not bool(((index >= -n) & (index < n)).all()):
        raise exc.IndexOutOfRange(name="a device value", dim=dim, size=n, low=int(index.min()), high=int(index.max()))
    return index
