"""Buffers with guard zones, and checking that kernels touch nothing but registered memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .native import library

#: Bytes of each guard zone: more than the widest vector access, and a multiple of every alignment in use.
GUARD_BYTES = 4096


def guarded(source: torch.Tensor) -> torch.Tensor:
    """A contiguous copy of ``source`` between two zones that no kernel may touch.

    An access that starts or ends in a zone is an ``out_of_bounds`` fault at the instruction that does it. The zones are
    released with the tensor's storage.
    """
    data = source.contiguous()
    nbytes = data.numel() * data.element_size()
    whole = torch.empty(nbytes + 2 * GUARD_BYTES + 256, dtype=torch.uint8)
    start = (whole.data_ptr() + GUARD_BYTES + 255) // 256 * 256
    offset = start - whole.data_ptr()
    inner = whole[offset : offset + nbytes].view(data.dtype).view(data.shape)
    inner.copy_(data)
    lib = library()
    label = f"a {tuple(data.shape)} {data.dtype} buffer"
    lib.softgpu_forbid(start - GUARD_BYTES, GUARD_BYTES, f"the guard zone before {label}".encode())
    lib.softgpu_forbid(start + nbytes, GUARD_BYTES, f"the guard zone after {label}".encode())

    def release() -> None:
        lib.softgpu_forget(start - GUARD_BYTES)
        lib.softgpu_forget(start + nbytes)

    weakref.finalize(whole.untyped_storage(), release)
    inner._softgpu_owner = whole  # type: ignore[attr-defined]  # the storage's finalizer must not run before
    return inner


@contextmanager
def only(*tensors: torch.Tensor) -> Iterator[None]:
    """Inside the block, a kernel that touches global memory outside these tensors faults, be it in another live tensor.

    Each tensor allows the span from its first to its last element. Driver allocations and module variables stay
    allowed.
    """
    lib = library()
    starts = []
    for i, tensor in enumerate(tensors):
        last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()) if size)
        nbytes = (last + 1) * tensor.element_size()
        label = f"tensor {i}, {tuple(tensor.shape)} {tensor.dtype}"
        lib.softgpu_allow(tensor.data_ptr(), nbytes, label.encode())
        starts.append(tensor.data_ptr())
    lib.softgpu_strict(1)
    try:
        yield
    finally:
        lib.softgpu_strict(0)
        for start in starts:
            lib.softgpu_forget(start)
