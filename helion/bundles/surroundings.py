"""What else than the kernel decides which binary a call gets: the compilers, the environment, the GPU.

Compilers count by the names, sizes and modification times of their files, as Python counts a source that it has
compiled; an edited one is another one. Reading them would take longer than what is saved.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import torch

from ..runtime import device

__all__ = ["Unknown", "of_gpu", "of_process"]


class Unknown(Exception):
    """What cannot be compared between processes; the message names it."""


#: Package -> the parts of it that code is made by; "" is all of it.
_PACKAGES: dict[str, tuple[str, ...]] = {
    "helion": ("",),
    "triton": ("",),
    "torch": ("_decomp", "_refs", "_prims", "_prims_common", "_subclasses", "_meta_registrations.py", "version.py"),
    "cutlass": ("",),
}

#: Beginnings of the names of variables that compilers read.
_PREFIXES = (
    "TRITON_", "HELION_", "LLVM_", "MLIR_", "NVPTX_", "PTXAS_", "NVVM_", "AMDGCN_", "DISABLE_", "ENABLE_", "ALLOW_",
    "USE_", "STORE_", "SWAP_", "CUTE_", "CUTLASS_", "CUDA_TOOLKIT_PATH", "CUDA_HOME", "PYTHONOPTIMIZE", "TORCH_LOGS",
    "TORCHDYNAMO_", "TORCH_COMPILE_",
)  # fmt: skip

#: Those of them that say where something is kept or shown, and change no code.
_HARMLESS = frozenset({
    "TRITON_CACHE_DIR", "TRITON_HOME", "TRITON_DUMP_DIR", "TRITON_LIBCUDA_PATH", "TRITON_PRINT_AUTOTUNING",
    "HELION_CACHE_DIR", "HELION_LOGS", "HELION_OUTPUT_POOL", "HELION_OUTPUT_POOL_ENTRIES", "HELION_OUTPUT_POOL_BYTES",
    "HELION_PLAN_CACHE", "HELION_BUILD_EXTENSION",
    "HELION_AUTOTUNE_LOG", "HELION_AUTOTUNE_PROGRESS_BAR", "HELION_VERIFY_IR",
})  # fmt: skip

#: With one of these somebody wants the compiler to run, to see what it does or to put something in its place.
_WATCHING = (
    "TRITON_KERNEL_DUMP", "TRITON_KERNEL_OVERRIDE", "TRITON_ALWAYS_COMPILE", "TRITON_INTERPRET", "MLIR_ENABLE_DUMP",
    "LLVM_IR_ENABLE_DUMP", "NVPTX_ENABLE_DUMP", "HELION_MEASURE_COMPILE_TIME", "HELION_ASSERT_CACHE_HIT",
)  # fmt: skip


def of_process() -> Any:
    """Compilers, variables of the environment, and what tracing reads of PyTorch's state.

    Raises:
        Unknown: a part of it cannot be compared.
    """
    watching = [name for name in _WATCHING if os.environ.get(name, "0") not in ("", "0")]
    if watching:
        raise Unknown(f"{watching[0]}, which asks for the compiler")
    python = (sys.implementation.cache_tag, sys.flags.optimize)
    state = (str(torch.get_default_dtype()), str(torch.get_default_device()))
    return (_compilers(), python, state, torch.__version__, torch.version.git_version, torch.version.cuda, _variables())


def of_gpu(index: int) -> Any:
    """The GPU that a binary, and a grid, are for.

    Raises:
        Unknown: it is none that is known.
    """
    provider = device.get_provider()
    return (type(provider).__name__, provider.name, str(device.target_of(index)), provider.sm_count(index))


def _variables() -> Any:
    found = []
    for name, value in sorted(os.environ.items()):
        if name.startswith(_PREFIXES) and name not in _HARMLESS:
            # A compiler, or a plugin of one, that stands outside of the packages.
            found.append((name, value, _stamp(Path(value)) if os.path.isfile(value) else None))
    return found


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return (status.st_size, status.st_mtime_ns)


@functools.cache
def _compilers() -> Any:
    return tuple([(name, _package(name, parts)) for name, parts in _PACKAGES.items()])


def _package(name: str, parts: tuple[str, ...]) -> Any:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        raise Unknown(f"where {name} is") from None
    if spec is None:
        return None  # not installed: what needs it cannot have been compiled
    places = spec.submodule_search_locations
    if places is None or len(places) != 1:
        raise Unknown(f"a {name} in several places")
    root = os.fspath(places[0])
    found: list[tuple[str, int, int]] = []
    for part in parts:
        place = os.path.join(root, part) if part else root
        if os.path.isfile(place):
            found.append((part, *_stamp(Path(place))))
        else:
            _files(place, found)
    return tuple(sorted(found))


def _files(directory: str, found: list[tuple[str, int, int]], prefix: str = "") -> None:
    """(name, size, modification time) of every file, but for what is made of others, or comes and goes."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name == "__pycache__" or entry.name.startswith("."):
                continue
            if entry.is_dir():
                _files(entry.path, found, f"{prefix}{entry.name}/")
            else:
                status = entry.stat()
                found.append((f"{prefix}{entry.name}", status.st_size, status.st_mtime_ns))
