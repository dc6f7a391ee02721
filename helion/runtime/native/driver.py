"""The entry points of the CUDA driver that launches in Python need, through ctypes.

Not here: the driver as `helion._C` calls it (csrc/driver.cpp).
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

from ... import exc
from .facts import TensorMap

__all__ = ["SWIZZLES", "Driver", "LaunchAttribute", "LaunchConfig", "default_driver"]

SWIZZLES = {0: 0, 32: 1, 64: 2, 128: 3}  # CUtensorMapSwizzle
_L2_PROMOTION_128B = 2  # CU_TENSOR_MAP_L2_PROMOTION_L2_128B
_MAP_BYTES = 128
_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_NON_PORTABLE_CLUSTER_SIZE_ALLOWED = 14  # CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
_PREFER_SHARED = 1  # CU_FUNC_CACHE_PREFER_SHARED
_PREFER_SHARED_FROM = 49152  # bytes


class LaunchAttribute(ctypes.Structure):
    """CUlaunchAttribute: an id, padding, and a 64-byte union."""

    _fields_ = (("id", ctypes.c_int), ("pad", ctypes.c_char * 4), ("value", ctypes.c_uint32 * 16))


class LaunchConfig(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(LaunchAttribute)),
        ("attribute_count", ctypes.c_uint),
    )


class Driver:
    """The few driver entry points a launch needs.

    Args:
        library: name or path of the driver library.
    """

    def __init__(self, library: str = "libcuda.so.1") -> None:
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise exc.BackendUnsupported(
                backend="cute",
                reason=f"there is no CUDA driver here ({error})",
                fix="run on a machine with an NVIDIA GPU, or on CPU tensors.",
            ) from error

    def call(self, function: str, kernel: str, *args: Any) -> None:
        """Call ``function``; raise RuntimeError with the driver's own name of the error and the kernel it was for."""
        status = getattr(self._library, function)(*args)
        if status:
            raise RuntimeError(f"{function} failed for kernel {kernel!r}: {self._error(status)}")

    def _error(self, status: int) -> str:
        text = ctypes.c_char_p()
        self._library.cuGetErrorString(ctypes.c_int(status), ctypes.byref(text))
        return f"{(text.value or b'unknown error').decode()} (CUDA driver error {status})"

    def load(self, cubin: bytes, symbol: str, kernel: str) -> ctypes.c_void_p:
        """The function ``symbol`` of a binary, in the current context; it stays loaded."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuModuleLoadData", kernel, ctypes.byref(module), ctypes.c_char_p(cubin))
        self.call("cuModuleGetFunction", kernel, ctypes.byref(function), module, symbol.encode())
        return function

    def ensure_context(self, device: int, kernel: str) -> None:
        """Make the primary context of ``device`` current where the calling thread has none."""
        current = ctypes.c_void_p()
        self.call("cuCtxGetCurrent", kernel, ctypes.byref(current))
        if not current.value:
            context = ctypes.c_void_p()
            self.call("cuDevicePrimaryCtxRetain", kernel, ctypes.byref(context), ctypes.c_int(device))
            self.call("cuCtxSetCurrent", kernel, context)

    def prepare(self, function: ctypes.c_void_p, shared: int, clusters: bool, kernel: str) -> None:
        """Allow launches of ``function`` with so many bytes of dynamic shared memory, and with clusters of any size."""
        wanted = [(_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)] + [(_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)] * clusters
        for attribute, value in wanted:
            self.call("cuFuncSetAttribute", kernel, function, ctypes.c_int(attribute), ctypes.c_int(value))
        if shared > _PREFER_SHARED_FROM:  # as Triton's own loader does
            self.call("cuFuncSetCacheConfig", kernel, function, ctypes.c_int(_PREFER_SHARED))

    def encode(self, tensor_map: TensorMap, address: int, kernel: str) -> ctypes.Array[ctypes.c_char]:
        """The 128-byte descriptor of ``tensor_map`` at ``address``, at a 64-byte boundary as the driver asks."""
        room = (ctypes.c_char * (_MAP_BYTES + 64))()
        offset = -ctypes.addressof(room) % 64
        out = (ctypes.c_char * _MAP_BYTES).from_buffer(room, offset)
        rank = len(tensor_map.dims)
        self.call(
            "cuTensorMapEncodeTiled",
            kernel,
            out,
            ctypes.c_int(tensor_map.data_type),
            ctypes.c_uint32(rank),
            ctypes.c_void_p(address),
            (ctypes.c_uint64 * rank)(*tensor_map.dims),
            (ctypes.c_uint64 * rank)(*tensor_map.strides),
            (ctypes.c_uint32 * rank)(*tensor_map.box),
            (ctypes.c_uint32 * rank)(*(1,) * rank),
            ctypes.c_int(0),
            ctypes.c_int(SWIZZLES[tensor_map.swizzle]),
            ctypes.c_int(_L2_PROMOTION_128B),
            ctypes.c_int(0),
        )
        return out


@functools.cache
def default_driver() -> Driver:
    return Driver()
