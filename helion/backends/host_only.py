"""Specializations that launch nothing.

`if x.numel() == 0: return out` is decided while a specialization is traced, and so is `if n > 0:` around all that a
device loop stores.  What is left of the function is host statements, which run as they are, on any device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._locks import cached_property
from ..config import Config
from ..config_spec import ConfigSpec
from ..ir.block_sizes import resolve_constants
from .base import Backend
from .base import GeneratedSource
from .host import HostPrinter
from .tiles import block_size_fields


class HostOnlySpec(ConfigSpec):
    """The registered block sizes and the user's own tunables, which host code may compute with.  A Config is for the
    specializations that launch, so what it says of their loops is passed over.
    """

    def normalize(self, config: Config | Mapping[str, Any]) -> Config:
        kept = {key: value for key, value in config.items() if key in self.fields}
        # Loops come after what is registered.
        sizes = Config(**config).block_sizes[: len(self.block_sizes)]
        return super().normalize({**kept, "block_sizes": sizes} if sizes else kept)


class HostOnlyBackend(Backend):
    """Host statements alone, as a module of source.  Takes the place of whichever backend the settings name."""

    name = "host_only"
    vendors = frozenset({"cpu", "nvidia", "amd"})
    language = "Python"
    layer = "host_only"

    @cached_property
    def spec(self) -> ConfigSpec:
        fields = {**block_size_fields(self.ir.device), **self.ir.tunables}
        return HostOnlySpec(kernel_name=self.ir.name, fields=fields, location=self.ir.location)

    def generate(self, config: Config) -> GeneratedSource:
        """The module of the host function."""
        tunables = {key: config[key] for key in self.ir.tunables}
        constants = resolve_constants(self.ir.device, config.get("block_sizes"), tunables)
        printer = HostPrinter(self.ir, constants)
        host = printer.function([], "None")
        imports, injected = printer.imports_and_globals()
        lines = [
            f'"""{self.ir.name}, of which there is nothing to launch."""',
            "",
            "import torch",
            *dict.fromkeys([*imports, *printer.runtime_imports()]),
            "",
            *host,
            "",
        ]
        return GeneratedSource("\n".join(lines), self.ir.name, injected)
