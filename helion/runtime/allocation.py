"""Memory that generated code asks for: output tensors and Triton's scratch space."""

from __future__ import annotations

from typing import Any

import torch

from . import device as _device

__all__ = ["empty_like", "set_triton_allocator"]


def empty_like(tensor: torch.Tensor, **options: Any) -> torch.Tensor:
    """``torch.empty_like`` for a tensor that the kernel writes in full and the caller gets.

    Generated code uses this name in place of ``torch.empty_like`` exactly where an output may come from the output pool,
    so that the pool has one place to hook into. Without a pool it is one fresh allocation per call.

    Args:
        tensor: gives shape, dtype, device and memory format.
        **options: as for ``torch.empty_like``.
    """
    return torch.empty_like(tensor, **options)


def _allocate_scratch(size: int, alignment: int, stream: int | None) -> torch.Tensor:
    # PyTorch's caching allocator aligns to 512 bytes, and a block freed on a stream is reused on that stream only, so
    # the scratch of a launch outlives the launch although nobody holds it.
    return torch.empty(size, dtype=torch.int8, device=_device.torch_device())


def set_triton_allocator() -> None:
    """Give Triton an allocator for the scratch memory that some kernels need (tensor descriptors made on the device).

    Does nothing if the calling context already has one: a user's own allocator wins.
    """
    from .. import _compat_triton

    if not _compat_triton.has_allocator():
        _compat_triton.set_allocator(_allocate_scratch)
