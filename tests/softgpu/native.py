"""The software GPU's C functions (``src/control.cpp``) as Python callables."""

from __future__ import annotations

import ctypes
import functools
import os

from .build import build


@functools.cache
def directory() -> str:
    """Where ``libcuda.so.1`` lies, built if needed."""
    return str(build())


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded library. It is the process's ``libcuda.so.1`` from then on: whoever looks for a driver finds it."""
    path = directory()
    os.environ["TRITON_LIBCUDA_PATH"] = path
    path_of_library = os.path.join(path, "libcuda.so.1")
    with open("/proc/self/maps") as maps:
        others = {line.split()[-1] for line in maps if "/libcuda.so" in line} - {path_of_library}
    if others:
        raise RuntimeError(
            f"this process has loaded another CUDA driver, {others.pop()}, and Triton would launch through it; "
            "on a machine with a GPU run the tests on the GPU: make test-gpu"
        )
    lib = ctypes.CDLL(path_of_library, mode=ctypes.RTLD_GLOBAL)
    u64, text = ctypes.c_uint64, ctypes.c_char_p
    signatures: dict[str, tuple[object, list[object]]] = {
        "softgpu_configure": (None, [ctypes.c_int, ctypes.c_int, ctypes.c_int]),
        "softgpu_options": (None, [u64, ctypes.c_uint, u64, ctypes.c_int, ctypes.c_int]),
        "softgpu_launches": (u64, []),
        "softgpu_instructions": (u64, []),
        "softgpu_allocations": (u64, []),
        "softgpu_reset": (None, []),
        "softgpu_faults": (text, []),
        "softgpu_unknown_entry_points": (text, []),
        "softgpu_printed": (text, []),
        "softgpu_take_opcodes": (text, []),
        "softgpu_warp_instructions": (text, []),
        "softgpu_opcode_families": (text, []),
        "softgpu_inject": (None, [text, ctypes.c_int64, ctypes.c_int]),
        "softgpu_register_binary": (None, [text, u64, text]),
        "softgpu_allow": (None, [u64, u64, text]),
        "softgpu_forbid": (None, [u64, u64, text]),
        "softgpu_forget": (ctypes.c_int, [u64]),
        "softgpu_strict": (None, [ctypes.c_int]),
        "softgpu_storages": (None, [ctypes.c_void_p, ctypes.c_void_p]),
        "softgpu_foreign": (None, [u64, u64]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype = result
        function.argtypes = arguments
    return lib


class DriverError(RuntimeError):
    """A driver call returned an error. ``code`` is the ``CUresult``."""

    def __init__(self, call: str, code: int, text: str) -> None:
        super().__init__(f"{call}: {text} (CUresult {code})")
        self.code = code


def call(name: str, *arguments: object) -> None:
    """Call a driver function; raises `DriverError` unless it returns 0. Integers go as 64 bits."""
    code = getattr(library(), name)(*(ctypes.c_uint64(a) if isinstance(a, int) else a for a in arguments))
    if code != 0:
        message = ctypes.c_char_p()
        library().cuGetErrorString(code, ctypes.byref(message))
        raise DriverError(name, code, (message.value or b"").decode(errors="replace"))
