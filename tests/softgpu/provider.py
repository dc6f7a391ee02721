"""The software GPU as ``helion.runtime.device`` sees it: a device provider whose memory is CPU tensors."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from helion.target import Target

from . import streams

#: Multiprocessors of the modelled devices, as the driver reports them (src/driver_core.cpp).
SM_COUNT = {80: 108, 90: 132, 100: 148}

_placed: dict[int, tuple[weakref.ref[torch.UntypedStorage], int]] = {}


def place(tensor: torch.Tensor, index: int) -> torch.Tensor:
    """Say that ``tensor``'s storage is on device ``index``; tensors that nobody placed are on device 0."""
    storage = tensor.untyped_storage()
    address = storage.data_ptr()

    def forget(reference: weakref.ref[torch.UntypedStorage]) -> None:
        # While one is known all tensors are asked for their storage, and those the output pool does not hand out again.
        if address in _placed and _placed[address][0] is reference:
            del _placed[address]

    _placed[address] = (weakref.ref(storage, forget), index)
    return tensor


class SoftGpuProvider:
    """A ``DeviceProvider`` (helion/runtime/device.py)."""

    name = "softgpu"

    def __init__(self, capability: int, devices: int) -> None:
        self._capability = capability
        self._devices = devices
        self.current_device: Callable[[], int] = streams.current_device
        self.current_stream: Callable[[int], int] = streams.current_stream
        self.device_tag: Callable[[torch.Tensor], int] = self.device_index_of

    def available(self) -> bool:
        return self._devices > 0

    def device_count(self) -> int:
        return self._devices

    def target(self, index: int) -> Target:
        self._check(index)
        return Target("nvidia", self._capability)

    def sm_count(self, index: int) -> int:
        self._check(index)
        return SM_COUNT[self._capability]

    def guard(self, index: int) -> AbstractContextManager[object]:
        return streams.device(index)

    def owns(self, tensor: torch.Tensor) -> bool:
        return tensor.device.type == "cpu" and self._devices > 0

    def device_index_of(self, tensor: torch.Tensor) -> int:
        if not _placed:
            return 0
        known = _placed.get(tensor.untyped_storage().data_ptr())
        return known[1] if known is not None else 0

    def torch_device(self, index: int) -> torch.device:
        return torch.device("cpu")

    def is_capturing(self) -> bool:
        return streams.is_capturing()

    def synchronize(self, index: int) -> None:
        streams.synchronize(index)

    def _check(self, index: int) -> None:
        if not 0 <= index < self._devices:
            raise RuntimeError(f"no device {index}: the software GPU was installed with {self._devices}")
