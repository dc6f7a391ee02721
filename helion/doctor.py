"""`python -m helion doctor`: what is installed, what is off, and how to mend it. Asks, and changes nothing."""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import difflib
import os
import platform
import stat
import sys
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch

from . import _extension
from ._environment import INTERNAL
from ._environment import VARIABLES
from ._version import __version__
from ._version import outside_tested
from .runtime import device
from .runtime.cache_files import cache_dir
from .settings import TABLE

__all__ = ["Finding", "examine", "main"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        topic: "version", "GPU", "extension", "cache" or "environment".
        text: what was found.
        fix: how to mend it; "" where nothing is off.
    """

    topic: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        line = f"{'off' if self.fix else 'ok':4}{self.topic:12} {self.text}"
        return f"{line}\n{'':17}-> {self.fix}" if self.fix else line


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _versions() -> Iterator[Finding]:
    yield Finding("version", f"helion {__version__}, Python {platform.python_version()} on {platform.machine()}")
    cuda = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    yield _tested("torch", torch.__version__, f", {cuda}")
    triton = _version("triton")
    if triton is None:
        yield Finding("version", "Triton is not installed: no kernel can be compiled", "pip install triton")
    else:
        yield _tested("triton", triton)
    toolkit = _version("nvidia-cutlass-dsl")
    yield Finding("version", f"CuTe DSL {toolkit or 'is not installed; only the CuTe backend needs it'}")


def _tested(package: str, version: str, more: str = "") -> Finding:
    problem = outside_tested(package, version)
    if problem is None:
        return Finding("version", f"{package} {version}{more}")
    return Finding("version", f"{problem}{more}", "run your tests with it, or install a version of that range")


def _driver_version() -> str | None:
    """What the CUDA driver says of itself; None where there is none."""
    try:
        number = ctypes.c_int(0)
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number)):
            return None
    except (OSError, AttributeError):
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def _gpus() -> Iterator[Finding]:
    provider = device.get_provider()
    driver = _driver_version()
    if not provider.available():
        if driver is None:
            yield Finding("GPU", "no CUDA driver: kernels run on CPU tensors only, by the tile executor")
        elif torch.version.cuda is None:
            yield Finding(
                "GPU",
                f"there is a driver (CUDA {driver}), and torch is built without CUDA",
                "install a torch that is built for CUDA: https://pytorch.org/get-started/locally/",
            )
        else:
            yield Finding(
                "GPU",
                f"there is a driver (CUDA {driver}), and torch finds no GPU",
                "see what nvidia-smi and torch.cuda.init() say; in a container, pass the GPU through",
            )
        return
    for index in range(provider.device_count()):
        target = provider.target(index)
        text = f"{provider.name}:{index} {target}, {provider.sm_count(index)} multiprocessors, driver CUDA {driver}"
        too_old = target.vendor == "nvidia" and isinstance(target.arch, int) and target.arch < 80
        yield Finding("GPU", text, "kernels need compute capability 8.0 or later" if too_old else "")


def _extension_state() -> Iterator[Finding]:
    if _extension.C is not None:
        yield Finding("extension", f"helion._C is in use, built for torch {_extension.C.built_for_torch}")
    elif "HELION_NO_EXTENSION" in _extension.why_not:
        yield Finding("extension", f"not in use, calls are slower: {_extension.why_not}", "unset HELION_NO_EXTENSION")
    else:
        yield Finding(
            "extension",
            f"not in use, calls are slower: {_extension.why_not}",
            "in the source tree: HELION_BUILD_EXTENSION=1 pip install --no-build-isolation . (says why it fails)",
        )


def _size(directory: Path) -> str:
    files, size = 0, 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                size += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue  # another process has just removed it
            files += 1
    return f"{files} files, {size / 1e6:.1f} MB"


def _cache(what: str, directory: Path, variable: str) -> Finding:
    elsewhere = f"set {variable} to a directory of your own"
    existing = directory
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        return Finding("cache", f"{what}: {existing} is not a directory", elsewhere)
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding("cache", f"{what}: {directory} cannot be written, so nothing is kept", elsewhere)
    if existing != directory:
        return Finding("cache", f"{what}: {directory} (not there yet)")
    status = directory.stat()
    if status.st_uid not in (os.geteuid(), 0):
        return Finding("cache", f"{what}: {directory} belongs to user {status.st_uid}", elsewhere)
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(status.st_mode)
        return Finding(
            "cache",
            f"{what}: others can write to {directory} (mode {mode:o}); binaries that they wrote are not used",
            f"chmod go-w {directory}",
        )
    return Finding("cache", f"{what}: {directory} ({_size(directory)})")


def _caches() -> Iterator[Finding]:
    yield _cache("helion", cache_dir(), "HELION_CACHE_DIR")
    triton = os.environ.get("TRITON_CACHE_DIR") or os.path.join(os.path.expanduser("~"), ".triton", "cache")
    yield _cache("Triton", Path(triton), "TRITON_CACHE_DIR")


#: Variables that make something slower, and are easily forgotten: with what they do.
_COSTLY = {
    "HELION_SKIP_FAST_LAUNCHER": "every launch is Triton's own",
    "HELION_INTERPRET": "kernels run as Python, for debugging",
    "HELION_FORCE_AUTOTUNE": "every first call searches, whatever is cached",
    "HELION_SKIP_CACHE": "tuning results are not read",
    "HELION_MEASURE_COMPILE_TIME": "every call takes the Python path, to be counted",
    "TRITON_INTERPRET": "Triton kernels run as Python",
    "TRITON_ALWAYS_COMPILE": "Triton's cache is not read",
}


def _environment() -> Iterator[Finding]:
    known = {name for row in TABLE for name in (row.env, row.other_env) if name} | VARIABLES.keys() | INTERNAL
    for name, value in sorted(os.environ.items()):
        if name in _COSTLY and value.lower() not in ("", "0", "false", "off", "no"):
            yield Finding("environment", f"{name}={value}: {_COSTLY[name]}", f"unset {name}")
        elif name.startswith("HELION_TEST_") or (not name.startswith("HELION_")):
            continue
        elif name in known:
            yield Finding("environment", f"{name}={value}")
        else:
            near = difflib.get_close_matches(name, known, n=1)
            yield Finding(
                "environment",
                f"{name} is set, and helion knows no such variable",
                f"did you mean {near[0]}?" if near else "docs/settings.md has those that there are",
            )


_CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (_versions, _gpus, _extension_state, _caches, _environment)


def examine() -> list[Finding]:
    """Everything the doctor looks at, in the order of the report."""
    return [finding for check in _CHECKS for finding in check()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; returns 1 if something is off."""
    parser = argparse.ArgumentParser(
        prog="python -m helion doctor",
        description="Say what is installed, what is off, and how to mend it. The exit status is 1 if something is off.",
    )
    parser.add_argument("command", nargs="?", choices=["doctor"], default="doctor", help=argparse.SUPPRESS)
    parser.parse_args(arguments)
    found = examine()
    print("\n".join(map(str, found)))
    off = sum(bool(finding.fix) for finding in found)
    print(f"\n{off or 'no'} thing{'' if off == 1 else 's'} to mend")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
