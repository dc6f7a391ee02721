"""Arguments of the traced call that overlap: fake tensors that lie in one fake storage as the real ones do in memory.

Not here: which arguments do, and when it matters (`runtime.launch.overlaps`, `ir.effects.assumed_apart`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.fake_tensor import FakeTensorMode

from .. import _compat_torch

#: Begin of a storage: any element of any dtype that is aligned in memory is aligned in it.
_ALIGNMENT = 16


class SharedMemory:
    """Tensors that overlap.

    Args:
        placed: each tensor with its address in bytes.
    """

    def __init__(self, placed: Sequence[tuple[torch.Tensor, int]]) -> None:
        self._placed = placed
        self._begin = min(address for _, address in placed) // _ALIGNMENT * _ALIGNMENT
        self._storage: torch.UntypedStorage | None = None
        self._fakes: list[tuple[torch.Tensor, torch.Tensor]] = []

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether a real tensor is one of them, or an alias of one."""
        return any(_same(tensor, other) for other, _ in self._placed)

    def place(self, fake: torch.Tensor, real: torch.Tensor, mode: FakeTensorMode) -> torch.Tensor:
        """A fake tensor like `fake`, at its place; one that is the same tensor as another has also the same sizes."""
        (address, *_) = [address for other, address in self._placed if _same(real, other)]
        with mode:
            for other, known in self._fakes:
                if _same(real, other):
                    return torch.ops.aten.alias(known)
            if self._storage is None:
                self._storage = torch.empty(0, dtype=torch.uint8, device=fake.device).untyped_storage()
            # Written to what it is told, a fake storage grows.
            offset = (address - self._begin) // fake.element_size()
            placed = torch.empty([], dtype=fake.dtype, device=fake.device)
            placed.set_(self._storage, offset, fake.size(), fake.stride())
        self._fakes.append((real, placed))
        return placed


def _memory(tensor: torch.Tensor) -> tuple[bool, int]:
    """What tells memories apart: the storage's address; of a tensor without memory, as calls are traced with
    (``torch.compile``, a FakeTensorMode), the storage itself, since all such addresses are 0.
    """
    if tensor.is_meta or isinstance(tensor, FakeTensor):
        return False, _compat_torch.storage_identity(tensor)
    return True, tensor.untyped_storage().data_ptr()


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors of the call show the same memory in the same way."""
    if a is b:
        return True
    return (
        _memory(a) == _memory(b)
        and a.dtype is b.dtype
        and a.storage_offset() == b.storage_offset()
        and a.shape == b.shape
        and a.stride() == b.stride()
    )
