"""Eager counterpart of `indexing`: the elements of a real tensor that an index names.

`EagerAccess` turns (tensor, index, mask) into either a strided view (tiles, integers and slices inside the
tensor) or one index tensor per dimension with a validity mask; reading, writing and updating work on
either.  Dtypes that PyTorch's CPU kernels hardly support (fp8, unsigned 16 to 64 bits) are moved as integers
of the same width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import exc
from .eager_tile import EagerTile
from .held import check_held
from .indexing import IndexItem
from .indexing import check_mask
from .indexing import normalize_index
from .indexing import surplus_dims

#: dtype -> dtype of the same width that gather, scatter and where work on.
_MOVED_AS: dict[torch.dtype, torch.dtype] = {
    torch.uint16: torch.int16,
    torch.uint32: torch.int32,
    torch.uint64: torch.int64,
    torch.float8_e4m3fn: torch.uint8,
    torch.float8_e5m2: torch.uint8,
    torch.float8_e4m3fnuz: torch.uint8,
    torch.float8_e5m2fnuz: torch.uint8,
}


def as_moved(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory in a dtype that all PyTorch kernels support."""
    moved = _MOVED_AS.get(tensor.dtype)
    return tensor if moved is None else tensor.view(moved)


class EagerAccess:
    """The elements `tensor[index]` where `extra_mask` is True.

    Args:
        tensor: real tensor.
        index: as in `helion.language.indexing`, with eager tiles.
        extra_mask: bool tensor that broadcasts to the access's shape, a bool, or None.
        what: op name for messages.

    Attributes:
        shape: shape of the access.

    Raises:
        exc.IndexOutOfRange: an integer or index tensor points outside where the mask is True.
        exc.RankMismatch, exc.ShapeMismatch, exc.InvalidAPIUsage: as `normalize_index`.
    """

    def __init__(self, tensor: torch.Tensor, index: Any, extra_mask: Any, what: str) -> None:
        self.tensor = tensor
        self._what = what
        self._moved = as_moved(tensor)
        items = normalize_index(tensor.shape, index, what)
        self.view = self._strided_view(items)
        self.index: tuple[torch.Tensor, ...] | None = None
        if self.view is not None:
            self.shape: list[int] = list(self.view.shape)
            self.valid = self._mask(extra_mask)
            return
        self.shape, positions = self._positions(items)
        self.valid = self._mask(extra_mask)
        self.index = self._checked(items, positions)

    def _mask(self, extra_mask: Any) -> torch.Tensor | None:
        if extra_mask is None or extra_mask is True:
            return None
        if isinstance(extra_mask, bool):
            return torch.full(self.shape, extra_mask, device=self.tensor.device)
        check_mask(extra_mask, self.shape, self._what)
        mask: torch.Tensor = extra_mask.to(self.tensor.device).expand(self.shape)
        return mask

    def _strided_view(self, items: Sequence[IndexItem]) -> torch.Tensor | None:
        """The access as a view of the tensor; None when it is none."""
        elements: list[Any] = []
        for item in items:
            size = -1 if item.dim < 0 else self.tensor.shape[item.dim]
            if item.kind == "new":
                elements.append(None)
            elif item.kind == "tile":
                begin, end = _bounds(item.value)
                if begin < 0 or end > size or item.repeats:
                    return None
                elements.append(slice(begin, end))
            elif item.kind == "slice":
                start, length, step = item.value
                elements.append(slice(start, start + length * step, step))
            elif item.kind == "scalar":
                position = int(item.value)
                if not 0 <= position < size:
                    return None
                elements.append(position)
            else:
                return None
        return self._moved[tuple(elements)]

    def _positions(self, items: Sequence[IndexItem]) -> tuple[list[int], list[torch.Tensor]]:
        """Shape of the access, and for each tensor dimension the positions, shaped to broadcast to it."""
        device = self.tensor.device
        tensors = [item.value for item in items if item.kind == "tensor"]
        try:
            gathered = torch.broadcast_shapes(*(t.shape for t in tensors)) if tensors else torch.Size()
        except RuntimeError:
            raise exc.ShapeMismatch(
                f"{self._what}: index tensors do not broadcast: " + " and ".join(str(list(t.shape)) for t in tensors),
                fix="add dimensions so that they broadcast: `x[rows[:, None], cols[None, :]]`.",
            ) from None
        shape: list[int] = []
        own: list[tuple[int, torch.Tensor]] = []  # (place of the last own dimension, positions)
        gather_end = -1
        for item in items:
            if item.kind == "new":
                shape.append(1)
            elif item.kind == "scalar":
                own.append((-1, torch.as_tensor(item.value, device=device).long()))
            elif item.kind == "tile":
                begin, end = _bounds(item.value)
                lanes = torch.arange(begin, end, device=device)
                own.append((len(shape), torch.zeros_like(lanes) if item.repeats else lanes))
                shape.append(end - begin)
            elif item.kind == "slice":
                start, length, step = item.value
                own.append((len(shape), torch.arange(start, start + length * step, step, device=device)))
                shape.append(length)
            else:
                if gather_end < 0:
                    shape.extend(gathered)
                    gather_end = len(shape)
                own.append((-2, item.value.to(device=device, dtype=torch.int64)))
        positions: list[torch.Tensor] = []
        for place, value in own:
            if place == -1:
                positions.append(value)
                continue
            last = gather_end - 1 if place == -2 else place
            positions.append(value.reshape(*value.shape, *[1] * (len(shape) - 1 - last)))
        return shape, positions

    def _checked(self, items: Sequence[IndexItem], positions: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The positions broadcast to the access's shape and clamped; narrows `valid` to tile bounds."""
        consuming = [item for item in items if item.kind != "new"]
        for item, position in zip(consuming, positions, strict=True):
            if item.kind == "tile":
                inside = (position >= 0) & (position < self.tensor.shape[item.dim])
                self._narrow(inside)
        clamped: list[torch.Tensor] = []
        for item, position in zip(consuming, positions, strict=True):
            size = self.tensor.shape[item.dim]
            if item.kind in ("tensor", "scalar"):
                self._check_range(position, item.dim, size)
            clamped.append(position.clamp(0, max(size - 1, 0)).expand(self.shape))
        return tuple(clamped)

    def _narrow(self, inside: torch.Tensor) -> None:
        if bool(inside.all()):
            return
        self.valid = (inside if self.valid is None else self.valid & inside).expand(self.shape)

    def _check_range(self, position: torch.Tensor, dim: int, size: int) -> None:
        outside = (position < 0) | (position >= size)
        if self.valid is not None:
            outside = outside & self.valid
        if 0 in self.shape or not bool(outside.any()):
            return
        bad = position.expand(outside.shape)[outside]
        raise exc.IndexOutOfRange(
            f"{self._what}: index out of range: dimension {dim} has size {size}, "
            f"the index reaches from {int(bad.min())} to {int(bad.max())}"
        )

    @property
    def _nowhere(self) -> bool:
        """The tensor has no element, so that no position can be read, or the access has none."""
        return self._moved.numel() == 0 or 0 in self.shape

    # -- using it ----------------------------------------------------------------------------------------

    def read(self, *, may_alias: bool = False) -> torch.Tensor:
        """The elements, 0 where not valid.

        Args:
            may_alias: the result may share memory with the tensor (nobody writes either of them).
        """
        if self.view is not None:
            value = self.view if may_alias or self.valid is not None else self.view.clone()
        elif self._nowhere:
            value = self._moved.new_zeros(self.shape)
        else:
            assert self.index is not None
            value = self._moved[self.index]
        if self.valid is not None:
            value = torch.where(self.valid, value, torch.zeros((), dtype=value.dtype, device=value.device))
        return value if value.dtype is self.tensor.dtype else value.view(self.tensor.dtype)

    def converted(self, value: Any) -> torch.Tensor:
        """`value` in the tensor's dtype (as moved), broadcast to the access's shape."""
        if not isinstance(value, torch.Tensor):
            check_held(value, self.tensor.dtype, f"hl.{self._what}", alone=True)
            kinds = {bool: torch.bool, float: torch.float64}
            value = torch.tensor(value, dtype=kinds.get(type(value), torch.int64), device=self.tensor.device)
        moved = as_moved(value.to(device=self.tensor.device, dtype=self.tensor.dtype))
        moved = moved.reshape(moved.shape[surplus_dims(moved.shape, self.shape) :])
        try:
            return moved.expand(self.shape)
        except RuntimeError:
            raise exc.ShapeMismatch(
                f"{self._what}: value of shape {list(value.shape)} does not broadcast to {self.shape}"
            ) from None

    def write(self, value: Any) -> None:
        """Set the valid elements to `value` (converted to the tensor's dtype)."""
        self.write_moved(self.converted(value))

    def write_moved(self, value: torch.Tensor) -> None:
        """`write` for a value that already is as `converted` makes it."""
        if self.view is not None:
            if self.valid is not None:
                value = torch.where(self.valid, value, self.view)
            self.view.copy_(value)
            return
        if self._nowhere:
            return
        assert self.index is not None
        if self.valid is None:
            self._moved.index_put_(self.index, value)
        else:
            self._moved.index_put_(tuple(i[self.valid] for i in self.index), value[self.valid])

    def check_distinct(self, value: Any, name: str) -> None:
        """Check that elements which index tensors name several times are given one value.

        Args:
            value: what `write` is to store.
            name: what the user calls the tensor.

        Raises:
            exc.DuplicateStoreIndicesError: an element is given several, of which a GPU keeps any.
        """
        if self.index is None or self._nowhere:
            return
        ids, wanted = self.element_ids().flatten(), self.converted(value).flatten()
        if self.valid is not None:
            inside = self.valid.flatten()
            ids, wanted = ids[inside], wanted[inside]
        elements, element_of = ids.unique(return_inverse=True)
        if len(elements) == len(ids):
            return
        kept = wanted.new_empty(len(elements)).index_put_((element_of,), wanted)[element_of]
        if bool(((kept != wanted) & ~((kept != kept) & (wanted != wanted))).any()):
            raise exc.DuplicateStoreIndicesError(name=name)

    def element_ids(self) -> torch.Tensor:
        """For each element of the access, which element of the tensor it is: int64, equal for equal ones."""
        if self.index is not None:
            ids = torch.zeros(self.shape, dtype=torch.int64, device=self.tensor.device)
            for position, size in zip(self.index, self.tensor.shape, strict=True):
                ids = ids * size + position
            return ids
        assert self.view is not None
        count = self.view.numel()
        return torch.arange(count, device=self.tensor.device).reshape(self.shape)


def _bounds(tile: EagerTile) -> tuple[int, int]:
    return int(tile.begin), int(tile.end)
