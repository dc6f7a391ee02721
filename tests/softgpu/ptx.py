"""Hand-written PTX on the software GPU: load text, launch an entry, get the fault."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any
from typing import ClassVar

import torch

from . import streams
from .native import call


class PtxKernel:
    """An entry function of PTX text.

    Args:
        text: a whole module, or only the body's module-level declarations and entries: a missing ``.version`` header
            is put in front.
        name: the entry function.
        target: ``sm_..`` for the header.
    """

    def __init__(self, text: str, name: str = "kernel", target: str = "sm_90a") -> None:
        if ".version" not in text:
            text = f".version 8.7\n.target {target}\n.address_size 64\n" + text
        self.text = text
        streams.set_device(streams.current_device())
        self._module = ctypes.c_void_p()
        call("cuModuleLoadData", ctypes.byref(self._module), ctypes.c_char_p(text.encode()))
        self._function = ctypes.c_void_p()
        call("cuModuleGetFunction", ctypes.byref(self._function), self._module, ctypes.c_char_p(name.encode()))

    def __call__(
        self,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        *args: torch.Tensor | int | float | ctypes.Structure | ctypes.Array[ctypes.c_char],
        shared: int = 0,
        cluster: Sequence[int] | None = None,
    ) -> None:
        """Launch and wait. Tensors go as pointers, ints as 64 bits (their low half serves a 32-bit parameter), floats
        as 32.

        Raises:
            DriverError: the launch failed; ``softgpu.last_fault()`` says why.
        """
        gx, gy, gz = _three(grid)
        bx, by, bz = _three(block)
        values: list[Any] = []
        for arg in args:
            if isinstance(arg, torch.Tensor):
                values.append(ctypes.c_uint64(arg.data_ptr()))
            elif isinstance(arg, int):
                values.append(ctypes.c_uint64(arg & (2**64 - 1)))
            elif isinstance(arg, float):
                values.append(ctypes.c_float(arg))
            else:
                values.append(arg)
        pointers = (ctypes.c_void_p * max(1, len(values)))(*(ctypes.addressof(v) for v in values))
        if shared > 48 * 1024:
            call("cuFuncSetAttribute", self._function, ctypes.c_int(8), ctypes.c_int(shared))
        config = _LaunchConfig(gx, gy, gz, bx, by, bz, shared, streams.current_stream() or None, None, 0)
        if cluster is not None:
            attribute = _ClusterAttribute(4, b"", *_three(cluster))
            config.attrs = ctypes.cast(ctypes.pointer(attribute), ctypes.c_void_p)
            config.num_attrs = 1
        call("cuLaunchKernelEx", ctypes.byref(config), self._function, pointers, None)


class _LaunchConfig(ctypes.Structure):
    """``CUlaunchConfig``."""

    _fields_: ClassVar[Any] = [(name, ctypes.c_uint) for name in ("gx", "gy", "gz", "bx", "by", "bz", "shared")] + [
        ("stream", ctypes.c_void_p),
        ("attrs", ctypes.c_void_p),
        ("num_attrs", ctypes.c_uint),
    ]


class _ClusterAttribute(ctypes.Structure):
    """``CUlaunchAttribute`` with id ``CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION`` (4)."""

    _fields_: ClassVar[Any] = (
        [("id", ctypes.c_int), ("pad", ctypes.c_char * 4)]
        + [(n, ctypes.c_uint) for n in "xyz"]
        + [("rest", ctypes.c_char * 52)]
    )


def _three(value: int | Sequence[int]) -> tuple[int, int, int]:
    if isinstance(value, int):
        return value, 1, 1
    x, y, z = (*value, 1, 1, 1)[:3]
    return x, y, z
