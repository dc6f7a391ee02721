"""Triton on the software GPU: its own driver class with devices and streams of ours, and compilation that ends at PTX."""

from __future__ import annotations

import gc
import os
from typing import Any

import torch

from . import native
from . import streams


def _driver_class() -> type:
    # Imported late: Triton finds the driver library when this module's class is first used, after native.library().
    from triton.backends.nvidia.driver import CudaDriver

    class SoftGpuDriver(CudaDriver):
        """CudaDriver with the questions that it would ask ``torch.cuda`` answered here."""

        def __init__(self, capability: int) -> None:
            super().__init__()
            self._capability = capability
            self.get_current_device = streams.current_device
            self.set_current_device = streams.set_device
            self.get_current_stream = streams.current_stream
            self.get_device_capability = lambda device=None: divmod(self._capability, 10)

        def get_active_torch_device(self) -> torch.device:
            return torch.device("cpu")

        def get_device_interface(self) -> Any:
            return streams

        def get_empty_cache_for_benchmark(self) -> torch.Tensor:
            return torch.empty(1024, dtype=torch.int)

    return SoftGpuDriver


_originals: dict[str, Any] = {}


def _stop_at_ptx() -> None:
    """Make Triton's last stage hand on the PTX instead of running ptxas, under a cache key of its own."""
    from triton.backends.nvidia.compiler import CUDABackend

    if _originals:
        return
    _originals.update(make_cubin=CUDABackend.make_cubin, hash=CUDABackend.hash)

    def make_cubin(self: Any, src: str, metadata: Any, opt: Any, capability: int) -> bytes:
        return src.encode() + b"\0"

    def key(self: Any) -> str:
        return f"softgpu-ptx-{self.target.arch}"

    CUDABackend.make_cubin = make_cubin
    CUDABackend.hash = key


def _run_ptxas() -> None:
    from triton.backends.nvidia.compiler import CUDABackend

    for name, value in _originals.items():
        setattr(CUDABackend, name, value)
    _originals.clear()


def forget_compiled_kernels() -> None:
    """Drop every JIT function's binaries: they were compiled for, and loaded into, another configuration."""
    from triton.runtime.jit import JITFunction

    for thing in gc.get_objects():
        if type(thing) is JITFunction:  # isinstance would ask every proxy object in the process
            thing.device_caches.clear()


def activate(capability: int, *, ptxas: bool) -> None:
    """Make the software GPU Triton's active driver."""
    os.environ["TRITON_LIBCUDA_PATH"] = native.directory()
    from triton.runtime.driver import driver

    if ptxas:
        _run_ptxas()
    else:
        _stop_at_ptx()
    driver.set_active(_driver_class()(capability))
    forget_compiled_kernels()


def deactivate() -> None:
    """Give Triton its default driver back (found anew when it is next needed)."""
    from triton.runtime.driver import driver

    _run_ptxas()
    driver._active = None
    forget_compiled_kernels()
