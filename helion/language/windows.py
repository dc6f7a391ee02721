"""Slices whose bounds are not constants: `x[i : i + 1]`, `x[tile_m, t.begin * 2 : t.begin * 2 + t.block_size * 2]`;
and tiles that a loaded number moves, `x[tile + offsets[i]]`.

Such a slice has as many lanes as its bounds are apart, which is a compile-time length; where it begins is known only
while the kernel runs.  An access with windows is made one with the vectors of their indices and a mask of the lanes
inside of the tensor, before anything else sees it; so this is the only place that knows the rule.  What a window's
lanes are is the handler's to say.  Slices with constant bounds are boxes of the tensor and stay (`indexing`); bounds
that are all numbers of the host's, `x[:, -n:]`, mean what they do there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import Protocol

import torch

from .. import exc
from .indexing import bounds_within
from .op import Access
from .tile import Tile

#: A window's indices, and which of its lanes are inside of the tensor: None if all are.
Lanes = tuple[torch.Tensor, torch.Tensor | None]


class Windows(Protocol):
    """Makes the lanes of windows."""

    def lanes(self, start: Any, stop: Any, step: int, size: Any) -> Lanes:
        """Indices `start`, `start + step`, ... below `stop` of a dimension of `size`."""

    def on_host(self, bounds: Sequence[Any]) -> bool:
        """Whether bounds are numbers of the host's, which can be compared before there is a kernel; None is one."""

    def both(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Where both of two masks hold."""


@dataclasses.dataclass(frozen=True)
class Windowed:
    """An index without windows.

    Attributes:
        elements: the index; a window is the vector of its indices.
        inside: the mask of each window that has one, by the id of its vector.
        vectors: ids of the windows' vectors: each is a dimension of its own.
    """

    elements: list[Any]
    inside: dict[int, torch.Tensor]
    vectors: frozenset[int]


def without_windows(sizes: Sequence[Any], elements: list[Any], windows: Windows, what: str) -> Windowed:
    """An index whose windows are vectors.

    Args:
        sizes: the tensor's shape.
        elements: the index, without `...`.
        windows: makes their lanes.
        what: the op's name, for messages.

    Raises:
        exc.InvalidAPIUsage: a step that is not a positive constant, or windows beside index tensors of rank 2 or more.
    """
    changed: list[Any] = []
    inside: dict[int, torch.Tensor] = {}
    vectors: list[torch.Tensor] = []
    dim = 0
    for element in elements:
        if is_window(element) and dim < len(sizes):
            vector, mask = lanes_of_window(element, sizes[dim], windows, what)
            vectors.append(vector)
            if mask is not None:
                inside[id(vector)] = mask
            element = vector
        changed.append(element)
        dim += element is not None
    if vectors and any(isinstance(e, torch.Tensor) and e.dim() > 1 for e in changed):
        raise exc.InvalidAPIUsage(
            f"{what}: a slice with bounds of the kernel, or a tile moved by a loaded number, beside an index tensor of "
            "two or more dimensions",
            fix="give it as an index tensor too, with dimensions that broadcast: `(begin + hl.arange(8))[None, :]`, "
            "`(tile.index + offset)[None, :]`.",
        )
    return Windowed(changed, inside, frozenset(map(id, vectors)))


def is_window(element: Any) -> bool:
    """Whether an element of an index is a slice whose bounds are not all constants, or a tile moved by a tensor."""
    if isinstance(element, Tile):
        return isinstance(element.offset, torch.Tensor)
    if not isinstance(element, slice):
        return False
    bounds = (element.start, element.stop, element.step)
    return any((isinstance(b, (int, torch.SymInt)) and type(b) is not int) or _is_scalar(b) for b in bounds)


def _is_scalar(bound: Any) -> bool:
    return isinstance(bound, torch.Tensor) and bound.dim() == 0 and not bound.dtype.is_floating_point


def lanes_of_window(item: slice | Tile, size: Any, windows: Windows, what: str) -> Lanes:
    """The lanes of a slice of a dimension of `size`, or of a tile there; see `without_windows`."""
    if isinstance(item, Tile):
        index = item.index
        return index, (index >= 0) & (index < size)
    step = 1 if item.step is None else item.step
    if type(step) is not int or step < 1:
        raise exc.InvalidAPIUsage(
            f"{what}: the step of a slice must be a positive constant", fix="index with `begin + step * hl.arange(n)`."
        )
    if windows.on_host((item.start, item.stop, size)):
        return windows.lanes(*bounds_within(item, size), step, size)
    start, stop = (
        bound + size if type(bound) is int and bound < 0 else bound
        for bound in (0 if item.start is None else item.start, size if item.stop is None else item.stop)
    )
    return windows.lanes(start, stop, step, size)


def unwrapped(length: int, start: Any, stop: Any) -> int:
    """How far eager bounds are apart: of `x[s : s + 11]` eleven, also where `s + 11` is beyond the largest int8."""
    if length >= 0 or not all(isinstance(bound, torch.Tensor) for bound in (start, stop)) or start.dtype != stop.dtype:
        return max(length, 0)
    bits = torch.iinfo(start.dtype).bits
    return length % (1 << bits) if bits < 32 else 0


def with_mask(
    args: tuple[Any, ...],
    access: Access,
    masks: Sequence[tuple[int, torch.Tensor]],
    rank: int,
    arrange: Callable[[torch.Tensor, Sequence[int | None]], torch.Tensor],
    windows: Windows,
) -> tuple[Any, ...]:
    """The arguments of a memory op with its mask narrowed.

    Args:
        args, access: the call.
        masks: masks of single dimensions: (dimension of the access, mask).
        rank: how many dimensions the access has.
        arrange: makes views.
        windows: combines masks.
    """
    mask = args[access.mask_at]
    for place, inside in masks:
        spread = arrange(inside, [0, *[None] * (rank - 1 - place)])
        mask = windows.both(mask, spread) if isinstance(mask, torch.Tensor) else spread if mask is not False else mask
    return (*args[: access.mask_at], mask, *args[access.mask_at + 1 :])
