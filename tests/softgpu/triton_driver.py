"""Triton on the software GPU: its own driver class with devices and streams of ours, and compilation that ends at
PTX.
"""

from __future__ import annotations

import gc
import os
import weakref
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


#: Functions of Triton that are replaced here, as they were.
_originals: dict[str, Any] = {}


def _stop_at_ptx() -> None:
    """Make Triton's last stage hand on the PTX instead of running ptxas, under a cache key of its own."""
    from triton.backends.nvidia.compiler import CUDABackend

    if "make_cubin" in _originals:
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

    if "make_cubin" in _originals:
        CUDABackend.make_cubin = _originals.pop("make_cubin")
        CUDABackend.hash = _originals.pop("hash")


#: By identity: a JIT function's hash is the key of its binaries, made of the functions that it calls, which may not be
#: there yet when it is defined.  Asked then, it would never change with them.
_jit_functions: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
#: What the binaries in every JIT function's cache were compiled for: (capability, whether ptxas ran).
_compiled_for: tuple[int, bool] | None = None


def _watch_jit_functions() -> None:
    """Keep track of all JIT functions: those that exist already, and from now on each new one."""
    from triton.runtime.jit import JITFunction

    if "init" in _originals:
        return
    _originals["init"] = JITFunction.__init__
    # type() and not isinstance(), which would ask every proxy object in the process what it stands for.
    _jit_functions.update({id(thing): thing for thing in gc.get_objects() if type(thing) is JITFunction})

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        _originals["init"](self, *args, **kwargs)
        _jit_functions[id(self)] = self

    JITFunction.__init__ = init


def forget_compiled_kernels() -> None:
    """Drop every JIT function's binaries: Triton looks them up by device number alone, whatever that device was
    then.
    """
    for function in list(_jit_functions.values()):
        function.device_caches.clear()


def activate(capability: int, *, ptxas: bool) -> None:
    """Make the software GPU Triton's active driver."""
    os.environ["TRITON_LIBCUDA_PATH"] = native.directory()
    from triton.runtime.driver import driver

    global _compiled_for
    _watch_jit_functions()
    if ptxas:
        _run_ptxas()
    else:
        _stop_at_ptx()
    driver.set_active(_driver_class()(capability))
    if _compiled_for != (capability, ptxas):
        forget_compiled_kernels()
        _compiled_for = (capability, ptxas)


def deactivate() -> None:
    """Give Triton its default driver back (found anew when it is next needed)."""
    global _compiled_for
    from triton.runtime.driver import driver

    _run_ptxas()
    driver._active = None
    if torch.cuda.is_available():  # else nobody can launch until the next activate(), which compares
        forget_compiled_kernels()
        _compiled_for = None
