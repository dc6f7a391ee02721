"""CacheKey: what a tuned Config depends on, with a hash that is the same in every process and on every host."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import torch

from ..runtime.stable_key import stable_key

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def device_name(device: torch.device) -> str:
    """The model of a device: what a schedule depends on, not which of several equal devices it is."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name} sm_{properties.major}{properties.minor} {properties.multi_processor_count} SMs"
    if device.type == "cpu":
        return f"cpu {platform.machine()} {torch.get_num_threads()} threads"
    return device.type


@functools.cache
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
    versions = {"torch": str(torch.__version__), "triton": _version("triton"), "helion": _version("helion")}
    if exact:
        return {**versions, "cuda": str(torch.version.cuda), "python": platform.python_version()}
    return {name: ".".join(v.split(".")[:2]) for name, v in versions.items()}


@dataclasses.dataclass(frozen=True)
class CacheKey:
    """What a tuned Config depends on.

    Attributes:
        kernel_name: for the file name; not enough by itself.
        source: the kernel function's source text.
        specialization: dtypes, shapes, strides, constants: the BoundKernel's specialization key, or anything that
            `helion.runtime.stable_key` takes.
        device: model of the device, see `device_name`.
        backend: code generator.
        settings: the settings that change generated code.
        versions: see `toolchain`.
        traced: the kernel as it was traced: shows what the text does not, inlined helpers and captured constants.
        source_file: where the kernel is; not part of what is hashed.
    """

    kernel_name: str
    source: str
    specialization: Any
    device: str
    backend: str = "triton"
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=lambda: toolchain(exact=False))
    traced: str = ""
    source_file: str = ""

    def with_versions(self, versions: Mapping[str, str]) -> CacheKey:
        """The same key with other versions."""
        return dataclasses.replace(self, versions=versions)

    def fields(self) -> dict[str, Any]:
        """The key as JSON-able data: what is hashed, and what a cache file shows a reader."""
        return {
            "kernel_name": self.kernel_name,
            "source": self.source,
            "traced": self.traced,
            "specialization": stable_key(self.specialization).to_json(),
            "device": self.device,
            "backend": self.backend,
            "settings": stable_key(tuple(sorted(self.settings.items()))).to_json(),
            "versions": dict(self.versions),
        }

    def digest(self) -> str:
        """64 hexadecimal digits, equal for equal keys in every process."""
        return hashlib.sha256(json.dumps(self.fields(), sort_keys=True).encode()).hexdigest()

    def unstable_part(self) -> str | None:
        """The part of the key that would differ in the next process (it shows a memory address), if there is one."""
        found = _ADDRESS.search(json.dumps([self.fields()["specialization"], self.fields()["settings"]]))
        return None if found is None else found.group()
