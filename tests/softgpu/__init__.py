"""A GPU in software: real kernels, compiled by the real compilers, run without a GPU.

    from tests import softgpu

    softgpu.install(capability=90)          # Triton and helion are on it from here on
    kernel[grid](x, y, out)                 # CPU tensors: their memory is the device's
    softgpu.launches()                      # 1

``src/`` is a ``libcuda.so.1`` in C++ whose launches interpret the kernel's PTX. What it models and what it does not:
``docs/softgpu.md``.
"""

from __future__ import annotations

import json
import sys

import torch

from . import native
from . import provider
from . import storages
from . import streams
from . import triton_driver
from .buffers import guarded
from .buffers import only
from .faults import FaultReport
from .faults import faults
from .faults import last_fault
from .native import DriverError
from .provider import place
from .streams import Event
from .streams import Graph
from .streams import Stream
from .streams import device
from .streams import set_device

__all__ = [
    "CAPABILITIES", "DriverError", "Event", "FaultReport", "Graph", "Stream", "device", "faults", "guarded", "inject",
    "install", "instructions", "last_fault", "launches", "only", "opcode_families", "place", "printed",
    "register", "reset", "set_device", "share", "streams", "uninstall", "unknown_entry_points", "warp_instructions",
]  # fmt: skip

#: Compute capabilities that can be installed, as 10 * major + minor.
CAPABILITIES = (80, 90, 100)

#: Warp instructions of one launch before it is called endless: minutes of interpretation.
_MAX_INSTRUCTIONS = 20_000_000_000


def install(
    capability: int = 90,
    devices: int = 1,
    execute: bool = True,
    *,
    seed: int = 0,
    threads: int = 0,
    max_instructions: int = _MAX_INSTRUCTIONS,
    uninitialised: str = "fault",
    races: bool = True,
    ptxas: bool = False,
    triton: bool = True,
) -> None:
    """Put Triton and helion on the software GPU, in this process. May be called again with other arguments.

    Args:
        capability: 80, 90 or 100.
        devices: how many devices there are, 0 to 16. Each has its own context and streams; memory is shared.
        execute: False counts launches and does nothing else, at negligible cost: for measuring what the host does.
        seed: of everything that hardware leaves open: the order of warps, when asynchronous operations complete.
        threads: host threads that run a launch; 0 for one per processor.
        max_instructions: warp instructions after which a launch counts as endless; 0 for no limit.
        uninitialised: what a read of shared memory that nobody wrote does: ``"fault"``, or ``"poison"`` to go on with
            bytes of 0xff.
        races: look for data races: two accesses to the same bytes that nothing orders, whichever came first.
        ptxas: run ptxas as Triton does on a GPU. The result is the same PTX, later.
        triton: False leaves Triton alone, and out of the process: for binaries that are launched without it.

    Raises:
        ValueError: an argument out of range.
    """
    if capability not in CAPABILITIES:
        raise ValueError(f"capability {capability}: the software GPU models {CAPABILITIES}")
    if not 0 <= devices <= 16:
        raise ValueError(f"devices {devices}: from 0 to 16")
    if uninitialised not in ("fault", "poison"):
        raise ValueError(f"uninitialised {uninitialised!r}: 'fault' or 'poison'")
    if ptxas and execute:
        raise ValueError("ptxas=True needs execute=False: the software GPU runs PTX, not what ptxas makes of it")
    lib = native.library()
    if execute:  # not for measuring: an allocator that keeps books costs time
        storages.known_to(lib)
    lib.softgpu_configure(capability, devices, int(execute))
    lib.softgpu_options(seed, threads, max_instructions, int(uninitialised == "fault"), int(races))
    reset()
    if devices:
        set_device(0)
    if triton:
        triton_driver.activate(capability, ptxas=ptxas)
    from helion.runtime import device as helion_device

    from . import helion_kernels

    helion_device.set_provider(provider.SoftGpuProvider(capability, devices))
    helion_kernels.move(to_gpu=True)


def share(tensor: torch.Tensor) -> torch.Tensor:
    """Let kernels touch ``tensor``'s memory though PyTorch did not allocate it (NumPy's, say); returns the tensor.

    The storages of all other live tensors are known, and an access outside them is a fault.
    """
    storages.share(tensor, native.library())
    return tensor


def uninstall() -> None:
    """Give Triton and helion their own devices back. The library stays loaded."""
    if "triton" in sys.modules:
        triton_driver.deactivate()
    from helion.runtime import device as helion_device

    from . import helion_kernels

    helion_device.set_provider(None)
    helion_kernels.move(to_gpu=False)


def reset() -> None:
    """Zero the counters, forget faults, printed text and injections."""
    native.library().softgpu_reset()


def launches() -> int:
    """Kernel launches since the last `reset`, replays of captured ones included."""
    return int(native.library().softgpu_launches())


def instructions() -> int:
    """Warp instructions executed since the last `reset`."""
    return int(native.library().softgpu_instructions())


def printed() -> str:
    """What kernels printed since the last call. (It went to standard output too.)"""
    return str(native.library().softgpu_printed(), errors="replace")


def inject(what: str, nth: int, code: int) -> None:
    """Make the ``nth`` call from now on fail, once.

    Args:
        what: ``"launch"``, ``"graph_launch"``, ``"allocation"``, ``"module_load"``, ``"context"``, ``"tensor_map"`` or
            ``"pointer_attribute"``.
        nth: 1 for the next call.
        code: the ``CUresult`` it returns, e.g. 2 (out of memory), 700 (illegal address), 999 (unknown).
    """
    native.library().softgpu_inject(what.encode(), nth, code)


def register(binary: bytes, ptx: str) -> None:
    """Say what PTX a binary was made from: loading the binary then loads that."""
    native.library().softgpu_register_binary(binary, len(binary), ptx.encode())


def warp_instructions() -> list[list[int]]:
    """Warp instructions executed since the last `reset`, by rank of the CTA in its cluster and number of the warp in
    its CTA.

    Of clusters that ran to their end; a fault leaves those out that it stopped.
    """
    found: list[list[int]] = json.loads(native.library().softgpu_warp_instructions())
    return found


def opcode_families() -> list[str]:
    """The rows of all opcode tables."""
    names: list[str] = json.loads(native.library().softgpu_opcode_families())
    return names


def unknown_entry_points() -> list[str]:
    """Driver functions that were called and are not implemented."""
    return str(native.library().softgpu_unknown_entry_points(), "ascii").split()
