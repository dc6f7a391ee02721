"""A Triton driver that records launches instead of making them.

Triton compiles for real, to a cubin; loading and launching are Python functions with the signatures of Triton's C
module. A launch checks what a real driver would: the function must belong to the device that is current. Several
devices, streams, graph capture and injected failures, without a libcuda. Whether kernels compute the right thing is not
a question for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import triton
from triton.backends.nvidia import driver as nvidia
from triton.backends.nvidia.driver import CudaDriver
from triton.backends.nvidia.driver import CudaLauncher

from helion.runtime import device as helion_device
from helion.target import Target


@dataclasses.dataclass(frozen=True)
class Launch:
    kernel: str
    function: int
    device: int
    stream: int
    grid: tuple[int, int, int]
    num_warps: int
    num_ctas: int
    cooperative: bool
    pdl: bool
    pointers: tuple[int, ...]
    scalars: tuple[Any, ...]
    scratch: tuple[Any, Any]


class _State(threading.local):
    device = 0

    def __init__(self) -> None:
        self.streams: dict[int, int] = {}


class _KernelArg:
    def __init__(self, nested_tuple: Any, type: int) -> None:
        self.nested_tuple = nested_tuple
        self.type = type


class RecordingGpu:
    """``device_count`` devices of one capability. CPU tensors are device memory; `move` says on which device."""

    def __init__(self, device_count: int = 2, capability: tuple[int, int] = (9, 0)) -> None:
        self.count = device_count
        self.compute_capability = capability
        self.state = _State()
        self.launches: list[Launch] = []
        self.captured: list[Launch] | None = None
        self.functions: dict[int, tuple[str, int]] = {}
        self.failures: list[str] = []
        self.loads = 0
        self._handles = itertools.count(0x1000, 0x10)
        self._home: dict[int, int] = {}
        # One object, as a function of a C module is: helion recognises Triton's launch function by identity.
        self.launch = self._launch

    # -- for tests --

    def move(self, tensor: torch.Tensor, index: int) -> torch.Tensor:
        """Say that ``tensor``'s memory is on device ``index`` (default: 0)."""
        self._home[tensor.untyped_storage().data_ptr()] = index
        return tensor

    def fail_next(self, text: str) -> None:
        """Let the next launch return the driver error ``text``."""
        self.failures.append(text)

    @contextlib.contextmanager
    def stream(self, handle: int) -> Iterator[None]:
        previous = self.current_stream(self.state.device)
        self.state.streams[self.state.device] = handle
        try:
            yield
        finally:
            self.state.streams[self.state.device] = previous

    @contextlib.contextmanager
    def capture(self, handle: int = 0x77) -> Iterator[list[Launch]]:
        """Launches on stream ``handle`` inside are captured, not made; a launch elsewhere is made at once."""
        graph: list[Launch] = []
        self.captured = graph
        try:
            with self.stream(handle):
                yield graph
        finally:
            self.captured = None

    # -- helion's provider --

    name = "recording"

    def available(self) -> bool:
        return True

    def device_count(self) -> int:
        return self.count

    def current_device(self) -> int:
        return self.state.device

    def current_stream(self, index: int) -> int:
        return self.state.streams.get(index, 0)

    def device_index_of(self, tensor: torch.Tensor) -> int:
        return self._home.get(tensor.untyped_storage().data_ptr(), 0)

    device_tag = device_index_of

    def target(self, index: int) -> Target:
        major, minor = self.compute_capability
        return Target("nvidia", major * 10 + minor)

    def sm_count(self, index: int) -> int:
        return 132

    @contextlib.contextmanager
    def guard(self, index: int) -> Iterator[None]:
        previous, self.state.device = self.state.device, index
        try:
            yield
        finally:
            self.state.device = previous

    def owns(self, tensor: torch.Tensor) -> bool:
        return tensor.device.type == "cpu"

    def torch_device(self, index: int) -> torch.device:
        return torch.device("cpu")

    def is_capturing(self) -> bool:
        return self.captured is not None

    def synchronize(self, index: int) -> None:
        pass

    # -- Triton's C module --

    def get_device_properties(self, index: int) -> dict[str, int]:
        return {"max_shared_mem": 232448, "multiprocessor_count": 132, "warpSize": 32, "max_num_regs": 65536}

    def load_binary(self, name: str, binary: bytes, shared: int, index: int) -> tuple[int, int, int, int, int]:
        self.loads += 1
        function = next(self._handles)
        self.functions[function] = (name, index)
        return (function, function, 32, 0, 1024)

    def build_signature_metadata(self, signature: list[str]) -> bytes:
        return "\0".join(signature).encode()

    def _launch(
        self,
        x: int,
        y: int,
        z: int,
        stream: int,
        function: int,
        cooperative: bool,
        pdl: bool,
        packed: tuple[int, ...],
        metadata: Any,
        enter: Any,
        exit: Any,
        scratch: Any,
        profile_scratch: Any,
        annotations: list[_KernelArg],
        signature: bytes,
        args: Any,
    ) -> None:
        if enter is not None:
            enter(metadata)
        if self.failures:
            raise RuntimeError(f"Triton Error [CUDA]: {self.failures.pop(0)}")
        name, owner = self.functions[function]
        if owner != self.state.device:
            raise RuntimeError("Triton Error [CUDA]: invalid resource handle")
        values = [args[i] for i, annotation in enumerate(annotations) if annotation.type == nvidia.ARG_KERNEL]
        pointers, scalars = [], []
        for value, kind in zip(values, signature.decode().split("\0"), strict=True):
            if kind.startswith("*"):
                pointers.append(value.data_ptr() if isinstance(value, torch.Tensor) else int(value or 0))
            else:
                scalars.append(value)
        launch = Launch(
            name, function, owner, stream, (x, y, z), packed[0], packed[1], bool(cooperative), bool(pdl),
            tuple(pointers), tuple(scalars), (scratch, profile_scratch),
        )  # fmt: skip
        (self.launches if self.captured is None or stream != 0x77 else self.captured).append(launch)
        if exit is not None:
            exit(metadata)


class _Driver(CudaDriver):
    def __init__(self, gpu: RecordingGpu) -> None:
        # Not CudaDriver's, which loads libcuda.
        self.utils = gpu
        self.launcher_cls = CudaLauncher
        self.get_current_device = gpu.current_device
        self.get_current_stream = gpu.current_stream
        self.get_device_capability = lambda index: gpu.compute_capability
        self.set_current_device = lambda index: setattr(gpu.state, "device", index)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


@contextlib.contextmanager
def recording_gpu(**options: Any) -> Iterator[RecordingGpu]:
    """Put Triton and helion on a new ``RecordingGpu``."""
    if not hasattr(nvidia, "PyKernelArg"):
        pytest.skip("Triton 3.6 compiles a launcher for every kernel; test_guards_on_gpu.py covers it")
    gpu = RecordingGpu(**options)
    config = triton.runtime.driver
    names = ("PyKernelArg", "ARG_CONSTEXPR", "ARG_KERNEL", "ARG_TUPLE")
    saved = {name: getattr(nvidia, name) for name in names}
    active = config._active
    provider = helion_device.set_provider(gpu)
    try:
        for name, value in zip(names, (_KernelArg, 0, 1, 2)):
            setattr(nvidia, name, value)
        config.set_active(_Driver(gpu))
        yield gpu
    finally:
        for name, value in saved.items():
            setattr(nvidia, name, value)
        config._active = active
        helion_device.set_provider(provider)
