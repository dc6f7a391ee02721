"""CacheKey: what a tuned Config depends on, with a hash that is the same in every process and on every host.

Built from plain strings, numbers, tuples and dicts; objects whose repr holds an address are refused, since such a
key would never be found again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import re
from collections.abc import Mapping
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import torch

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def plain(value: Any) -> Any:
    """A JSON-able form of a key part, equal for equal values in every process.

    Raises:
        TypeError: the value has no stable form (its repr holds a memory address).
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return ["float", value.hex()]
    if isinstance(value, Mapping):
        return {"dict": sorted(([plain(k), plain(v)] for k, v in value.items()), key=json.dumps)}
    if isinstance(value, (set, frozenset)):
        return {"set": sorted((plain(v) for v in value), key=json.dumps)}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return f"{value.__module__}.{value.__qualname__}"
    text = repr(value)
    if _ADDRESS.search(text):
        raise TypeError(f"{type(value).__name__} has no stable representation: {text}")
    return [type(value).__name__, text]


def device_name(device: torch.device) -> str:
    """The model of a device: what a schedule depends on, not which of several equal devices it is."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name} sm_{properties.major}{properties.minor} {properties.multi_processor_count}"
    if device.type == "cpu":
        return f"cpu {platform.machine()} {torch.get_num_threads()} threads"
    return device.type


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def toolchain(exact: bool) -> dict[str, str]:
    """Versions of what turns a Config into machine code.

    Args:
        exact: full version strings; else major.minor, since a patch release seldom changes which Config is best.
    """
    versions = {"torch": str(torch.__version__), "triton": _version("triton")}
    if exact:
        return {**versions, "cuda": str(torch.version.cuda), "python": platform.python_version(), "helion": _version("helion")}
    return {name: ".".join(v.split(".")[:2]) for name, v in versions.items()}


@dataclasses.dataclass(frozen=True)
class CacheKey:
    """What a tuned Config depends on.

    Attributes:
        kernel_name: for the file name; not enough by itself.
        source: the kernel function's source text (with what it inlines).
        specialization: dtypes, shapes, strides, constants: the BoundKernel's specialization key.
        device: model of the device, see `device_name`.
        backend: code generator.
        settings: the settings that change generated code, as (name, value) pairs.
        versions: see `toolchain`.
    """

    kernel_name: str
    source: str
    specialization: Any
    device: str
    backend: str = "triton"
    settings: Sequence[tuple[str, Any]] = ()
    versions: Mapping[str, str] = dataclasses.field(default_factory=lambda: toolchain(exact=False))

    def fields(self) -> dict[str, Any]:
        """The key as JSON-able data: what is hashed, and what a cache file shows a reader."""
        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    def digest(self) -> str:
        """64 hexadecimal digits, equal for equal keys in every process."""
        return hashlib.sha256(json.dumps(self.fields(), sort_keys=True).encode()).hexdigest()
