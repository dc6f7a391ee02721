"""Which device is current, on which stream, and what it can do.

This is the one seam between helion and the device: every question about devices, streams, contexts and
capabilities is asked here, and answered by a *provider*. There are two: ``CudaProvider`` (PyTorch's CUDA) and
``NoCuda`` (a PyTorch without). ``set_provider`` replaces the provider; nothing else has to change, and code that uses
this module never asks which provider it talks to.

Not here: launching kernels (``launcher.py``), allocating outputs (``allocation.py``).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING
from typing import Protocol

import torch

from .. import _compat_torch
from ..target import Target

if TYPE_CHECKING:
    from typing import TypeAlias

__all__ = [
    "CudaProvider",
    "DeviceProvider",
    "NoCuda",
    "current_device",
    "current_stream",
    "device_guard",
    "device_index_of",
    "get_num_sm",
    "get_provider",
    "is_available",
    "is_capturing",
    "owns",
    "set_provider",
    "target_of",
    "torch_device",
]

DeviceLike: TypeAlias = torch.device | int | str | None


class DeviceProvider(Protocol):
    """What helion asks of a device runtime. Device indices are ordinals as in ``cuda:<index>``.

    ``current_device``, ``current_stream`` and ``device_tag`` are asked on every kernel launch, so they are plain
    callables (a C function where there is one), looked up on the provider each time and never kept.
    """

    #: ``() -> int``, the index of the calling thread's current device.
    current_device: Callable[[], int]
    #: ``(index) -> int``, the raw ``CUstream`` that is current on device ``index`` in the calling thread.
    current_stream: Callable[[int], int]
    #: ``(tensor) -> int``, a number that is equal for two tensors exactly if they live on the same device. It need
    #: not be the device's index: launchers only compare it with the value they saw when they were primed.
    device_tag: Callable[[torch.Tensor], int]

    #: For messages: "cuda", "none", ...
    name: str

    def available(self) -> bool:
        """Whether there is a device to launch on."""
        ...

    def device_count(self) -> int: ...

    def target(self, index: int) -> Target:
        """What code for device ``index`` is generated for, e.g. ``Target("nvidia", 90)``."""
        ...

    def sm_count(self, index: int) -> int:
        """Number of streaming multiprocessors."""
        ...

    def guard(self, index: int) -> AbstractContextManager[object]:
        """Make device ``index`` current inside the block and restore the previous one after it."""
        ...

    def owns(self, tensor: torch.Tensor) -> bool:
        """Whether ``tensor.data_ptr()`` is an address that a kernel on this provider's devices can use."""
        ...

    def device_index_of(self, tensor: torch.Tensor) -> int:
        """The index of the device that ``tensor`` lives on. Only for tensors that ``owns`` accepts."""
        ...

    def torch_device(self, index: int) -> torch.device:
        """Where PyTorch allocates memory that device ``index`` can use."""
        ...

    def is_capturing(self) -> bool:
        """Whether the current stream is being captured into a graph."""
        ...

    def synchronize(self, index: int) -> None:
        """Wait until device ``index`` has finished all work."""
        ...


def _no_device() -> RuntimeError:
    return RuntimeError(
        "no CUDA device is available. Tensors on the CPU run through helion's tile executor, which needs none; "
        "compiling for a GPU without having one needs an explicit capability"
    )


class CudaProvider:
    """PyTorch's CUDA. Whether there is a GPU is asked when one is needed, and not before."""

    name = "cuda"

    def __init__(self) -> None:
        # torch.cuda initialises itself lazily; the raw C functions below must not be called before it has.
        self.current_device: Callable[[], int] = self._first_current_device
        self.current_stream: Callable[[int], int] = self._first_current_stream
        self.device_tag: Callable[[torch.Tensor], int] = torch.Tensor.get_device

    def _use_raw_functions(self) -> None:
        self._require()
        torch.cuda.init()
        self.current_device = _compat_torch.cuda_current_device
        self.current_stream = _compat_torch.cuda_current_raw_stream

    def _first_current_device(self) -> int:
        self._use_raw_functions()
        return self.current_device()

    def _first_current_stream(self, index: int) -> int:
        self._use_raw_functions()
        return self.current_stream(index)

    def _require(self) -> None:
        if not self.available():
            raise _no_device()

    def available(self) -> bool:
        return torch.cuda.is_available()

    def device_count(self) -> int:
        return torch.cuda.device_count()

    def target(self, index: int) -> Target:
        self._require()
        major, minor = torch.cuda.get_device_capability(index)
        return Target("nvidia", major * 10 + minor)

    def sm_count(self, index: int) -> int:
        self._require()
        return torch.cuda.get_device_properties(index).multi_processor_count

    def guard(self, index: int) -> AbstractContextManager[object]:
        return torch.cuda.device(index)

    def owns(self, tensor: torch.Tensor) -> bool:
        return tensor.is_cuda

    def device_index_of(self, tensor: torch.Tensor) -> int:
        return tensor.get_device()

    def torch_device(self, index: int) -> torch.device:
        return torch.device("cuda", index)

    def is_capturing(self) -> bool:
        return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()

    def synchronize(self, index: int) -> None:
        torch.cuda.synchronize(index)


class NoCuda:
    """A PyTorch without CUDA: nothing is owned, and asking for a device is an error that says so."""

    name = "none"

    def __init__(self) -> None:
        self.current_device: Callable[[], int] = self._no_device
        self.current_stream: Callable[[int], int] = self._no_device
        self.device_tag: Callable[[torch.Tensor], int] = torch.Tensor.get_device

    def _no_device(self, *_: object) -> int:
        raise _no_device()

    def available(self) -> bool:
        return False

    def device_count(self) -> int:
        return 0

    def target(self, index: int) -> Target:
        raise _no_device()

    def sm_count(self, index: int) -> int:
        raise _no_device()

    def guard(self, index: int) -> AbstractContextManager[object]:
        return contextlib.nullcontext()

    def owns(self, tensor: torch.Tensor) -> bool:
        return False

    def device_index_of(self, tensor: torch.Tensor) -> int:
        raise _no_device()

    def torch_device(self, index: int) -> torch.device:
        raise _no_device()

    def is_capturing(self) -> bool:
        return False

    def synchronize(self, index: int) -> None:
        raise _no_device()


def _default_provider() -> DeviceProvider:
    # How PyTorch was built, and not `torch.cuda.is_available()`: that asks the driver, which takes up to 0.2 s while
    # helion is imported, and CUDA could not be used any more in a child that is forked later.
    return CudaProvider() if torch.backends.cuda.is_built() else NoCuda()


#: The provider in use. Hot code reads it as ``device.provider`` on every call; everyone else uses the functions below.
provider: DeviceProvider = _default_provider()


def get_provider() -> DeviceProvider:
    """The provider in use."""
    return provider


def set_provider(new: DeviceProvider | None) -> DeviceProvider:
    """Replace the provider; ``None`` restores the default. Returns the previous one.

    Kernels bound before keep what they were compiled for; bind anew after replacing the provider.
    """
    global provider
    previous = provider
    provider = new if new is not None else _default_provider()
    _target_of.cache_clear()
    _sm_count_of.cache_clear()
    return previous


def is_available() -> bool:
    """Whether there is a device to launch on."""
    return provider.available()


def current_device() -> int:
    """Index of the calling thread's current device."""
    return provider.current_device()


def current_stream(index: int | None = None) -> int:
    """Raw handle (``CUstream`` as an int) of the stream that is current on device ``index`` now.

    Ask at every launch: the answer changes under ``torch.cuda.stream`` and during graph capture.
    """
    return provider.current_stream(provider.current_device() if index is None else index)


def device_guard(index: int) -> AbstractContextManager[object]:
    """Context manager that makes device ``index`` current and restores the previous one."""
    return provider.guard(index)


def owns(tensor: torch.Tensor) -> bool:
    """Whether a kernel can use ``tensor``'s memory. False for CPU tensors, unless the provider is a software device."""
    return provider.owns(tensor)


def device_index_of(tensor: torch.Tensor) -> int:
    """Index of the device that ``tensor`` lives on."""
    return provider.device_index_of(tensor)


def torch_device(index: int | None = None) -> torch.device:
    """Where PyTorch allocates memory that device ``index`` (default: the current one) can use."""
    return provider.torch_device(provider.current_device() if index is None else index)


def is_capturing() -> bool:
    """Whether the current stream is being captured into a graph."""
    return provider.is_capturing()


@functools.cache
def _target_of(index: int) -> Target:
    return provider.target(index)


@functools.cache
def _sm_count_of(index: int) -> int:
    return provider.sm_count(index)


def _index(device: DeviceLike) -> int:
    """Device index meant by ``device``; no index given means the current device, resolved now."""
    if device is None:
        return provider.current_device()
    if isinstance(device, int):
        return device
    index = torch.device(device).index
    return provider.current_device() if index is None else index


def target_of(device: DeviceLike = None) -> Target:
    """What code for ``device`` is generated for, e.g. ``Target("nvidia", 90)`` for Hopper.

    ``None`` and a device without an index mean the *current* device, resolved on every call: only the target of
    an index is remembered, never which index was current.
    """
    return _target_of(_index(device))


def get_num_sm(device: DeviceLike = None, *, reserved_sms: int = 0) -> int:
    """Number of streaming multiprocessors a persistent kernel may occupy on ``device``.

    Args:
        device: ``None`` for the current device.
        reserved_sms: how many to leave to others (``Settings.persistent_reserved_sms``).

    Returns:
        The device's count less ``reserved_sms``, and at least 1.
    """
    if reserved_sms < 0:
        raise ValueError(f"reserved_sms must be >= 0, got {reserved_sms}")
    return max(1, _sm_count_of(_index(device)) - reserved_sms)
