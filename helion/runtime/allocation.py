"""Memory that generated code asks for: output tensors and Triton's scratch space."""

from __future__ import annotations

from typing import Any

import torch
from torch.compiler import is_dynamo_compiling

from .. import _compat_triton_abi as _abi
from .. import _extension
from . import device as _device

__all__ = ["empty", "empty_like", "new_empty", "set_triton_allocator"]

# With HELION_OUTPUT_POOL=1 generated code uses these names in place of torch's, exactly for tensors that host code
# allocates uninitialised, that the launch writes, and that are returned. Where the pool cannot serve an allocation (it
# is off, something watches PyTorch's operations, a graph is being captured) they are torch's functions.


def empty_like(tensor: torch.Tensor, **options: Any) -> torch.Tensor:
    """``torch.empty_like`` for an output; from the output pool if there is one.

    Args:
        tensor: gives shape, dtype, device and memory format.
        **options: as for ``torch.empty_like``.
    """
    if _extension.C is not None and not options and not is_dynamo_compiling():
        found: torch.Tensor | None = _extension.C.output_pool_empty_like(tensor)
        if found is not None:
            return found
    return torch.empty_like(tensor, **options)


def empty(*size: Any, **options: Any) -> torch.Tensor:
    """``torch.empty`` for an output; from the output pool if there is one.

    Args:
        *size: as for ``torch.empty``: ints, or one sequence of ints.
        **options: as for ``torch.empty``.
    """
    found = _pooled(size, options.get("dtype"), options.get("device")) if _PLAIN.issuperset(options) else None
    return torch.empty(*size, **options) if found is None else found


def new_empty(tensor: torch.Tensor, *size: Any, **options: Any) -> torch.Tensor:
    """``tensor.new_empty`` for an output; from the output pool if there is one.

    Args:
        tensor: gives dtype and device where ``options`` do not.
        *size: as for ``Tensor.new_empty``: ints, or one sequence of ints.
        **options: as for ``Tensor.new_empty``.
    """
    plain = type(tensor) is torch.Tensor and _PLAIN.issuperset(options)
    found = (
        _pooled(size, options.get("dtype") or tensor.dtype, options.get("device") or tensor.device) if plain else None
    )
    return tensor.new_empty(*size, **options) if found is None else found


_PLAIN = frozenset({"dtype", "device"})


def _pooled(size: tuple[Any, ...], dtype: Any, device: Any) -> torch.Tensor | None:
    """A contiguous tensor from the pool; None if it cannot come from there."""
    if _extension.C is None or is_dynamo_compiling() or type(device) is not torch.device:
        return None
    sizes = tuple(size[0]) if len(size) == 1 and isinstance(size[0], (tuple, list)) else size
    if not all([type(n) is int for n in sizes]) or not isinstance(dtype, (torch.dtype, type(None))):
        return None
    found: torch.Tensor | None = _extension.C.output_pool_empty(sizes, dtype or torch.get_default_dtype(), device)
    return found


def _allocate_scratch(size: int, alignment: int, stream: int | None) -> torch.Tensor:
    # PyTorch's caching allocator aligns to 512 bytes, and a block freed on a stream is reused on that stream only, so
    # the scratch of a launch outlives the launch although nobody holds it.
    return torch.empty(size, dtype=torch.int8, device=_device.torch_device())


def set_triton_allocator() -> None:
    """Give Triton an allocator for the scratch memory that some kernels need (tensor descriptors made on the device).

    Does nothing if the calling context already has one: a user's own allocator wins.
    """
    from .. import _compat_triton  # loads Triton, which who calls this has loaded

    if not _compat_triton.has_allocator():
        _compat_triton.set_allocator(_allocate_scratch)


def is_helions_allocator() -> bool:
    """Whether scratch memory comes from where `set_triton_allocator` says."""
    in_use: bool = _abi.allocators()[0].get() is _allocate_scratch
    return in_use


def scratch_allocators() -> tuple[Any, ...]:
    """Triton's allocator as a ContextVar, and the values with which scratch memory comes from there."""
    return _abi.allocators(_allocate_scratch)
