"""PyTorch's CPU allocator for tests (``storages.cpp``): the software GPU knows every live storage, and fresh memory is
poison.

From `install` on a fresh tensor (``torch.empty``, or whatever an operation allocates and does not fill) holds NaN in
every floating-point type and an extreme number in every integer type: what reads it shows. Storages lie apart from each
other, so that an index which runs past the end of a tensor meets no other tensor.

Not here: what a launch does with it (``src/bounds.h``).
"""

from __future__ import annotations

import ctypes
import functools
import gc
import weakref
from collections.abc import Callable

import torch

from .build import build_storages

__all__ = ["install", "is_installed", "known_to", "poison"]

_installed = False


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(str(build_storages()))


def install() -> None:
    """Make it the allocator of this process's CPU tensors, for good."""
    global _installed
    if not _installed:
        library = _library()
        library.storages_install()
        library.storages_allocator.restype = ctypes.c_uint64
        _make_storages_with(library.storages_allocator())
        _installed = True


def _make_storages_with(allocator: int) -> None:
    """``torch.UntypedStorage(n)``, which copies and unpickled tensors are made of, takes this allocator too; what it
    maps from another process is known from then on.
    """
    kind = torch.UntypedStorage
    new = kind.__new__

    def allocated(cls: type, *args: object, **options: object) -> object:
        device = options.get("device")
        if "allocator" not in options and all(isinstance(arg, int) for arg in args):
            if device is None or torch.device(device).type == "cpu":  # type: ignore[arg-type]
                options = {**options, "allocator": allocator}
                options.pop("device", None)
        return new(cls, *args, **options)

    kind.__new__ = staticmethod(allocated)  # type: ignore[method-assign, assignment]
    for name in ("_new_shared_filename_cpu", "_new_shared_fd_cpu"):
        setattr(kind, name, classmethod(functools.partial(_mapped, getattr(kind, name))))


def _mapped(make: Callable[..., torch.UntypedStorage], cls: type, *args: object) -> torch.UntypedStorage:
    storage = make(*args)
    _mapped_storages.add(storage)
    for driver in _told:
        _share_storage(storage, driver)
    return storage


#: Of other processes, for drivers that are loaded later.
_mapped_storages: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()


def is_installed() -> bool:
    return _installed


def poison(dtype: torch.dtype) -> torch.Tensor:
    """What an element of fresh memory of this type holds, as a tensor without dimensions."""
    return torch.tensor([0x7FFF] * 8, dtype=torch.int16).view(torch.uint8)[: dtype.itemsize].view(dtype)[0]


_told: list[ctypes.CDLL] = []


def known_to(driver: ctypes.CDLL) -> None:
    """Let the software GPU's driver ask for the live storages at every launch, and know those that are older."""
    if driver in _told:
        return
    install()
    library = _library()
    driver.softgpu_storages(
        ctypes.cast(library.storages_version, ctypes.c_void_p), ctypes.cast(library.storages_each, ctypes.c_void_p)
    )
    _told.append(driver)
    for storage in _mapped_storages:
        _share_storage(storage, driver)
    # Tensors made before: PyTorch allocated them elsewhere.
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter) and thing.is_cpu and thing.layout == torch.strided:
            share(thing, driver)


def share(tensor: torch.Tensor, driver: ctypes.CDLL) -> None:
    """Let kernels touch the storage of a tensor whose memory PyTorch did not allocate, as long as it lives."""
    _share_storage(tensor.untyped_storage(), driver)


def _share_storage(storage: torch.UntypedStorage, driver: ctypes.CDLL) -> None:
    start, nbytes = storage.data_ptr(), storage.nbytes()
    if start and nbytes:
        driver.softgpu_foreign(start, nbytes)
        weakref.finalize(storage, driver.softgpu_foreign, start, 0)
