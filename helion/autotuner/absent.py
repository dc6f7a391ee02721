"""AbsentGpu: what a compile worker knows of the GPU that it compiles for and does not use."""

from __future__ import annotations

import contextlib
import dataclasses
from contextlib import AbstractContextManager

import torch

from .. import _compat_triton
from ..backends.triton.targets import features_of
from ..runtime import device
from ..target import Target


@dataclasses.dataclass(frozen=True)
class AbsentGpu:
    """A GPU of another process.

    Attributes:
        target: what code for it is generated for.
        multiprocessors: how many it has.
    """

    target: Target
    multiprocessors: int

    @classmethod
    def like(cls, index: int) -> AbsentGpu | None:
        """Device `index` of this process; None if Triton compiles nothing for it."""
        target = device.target_of(index)
        return None if features_of(target).platform is None else cls(target, device.get_num_sm(index))

    def pretend(self) -> None:
        """Answer this process's questions about its current device as that GPU would, for good."""
        platform = features_of(self.target).platform
        assert platform is not None
        device.set_provider(_Absent(self))
        _compat_triton.compile_for_absent_device(platform)


class _Absent(device.NoCuda):
    """A provider that knows a device's properties, and has none."""

    name = "absent"

    def __init__(self, gpu: AbsentGpu) -> None:
        super().__init__()
        self._gpu = gpu
        self.current_device = lambda: 0
        self.current_stream = lambda index: 0

    def target(self, index: int) -> Target:
        return self._gpu.target

    def sm_count(self, index: int) -> int:
        return self._gpu.multiprocessors

    def guard(self, index: int) -> AbstractContextManager[object]:
        return contextlib.nullcontext()

    def torch_device(self, index: int) -> torch.device:
        return torch.device("meta")
