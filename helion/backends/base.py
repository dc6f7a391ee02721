"""What a backend must provide, and what it gives back."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import sympy

from ..config import Config
from ..config_spec import ConfigSpec
from ..ir.device_ir import KernelIR
from ..settings import Settings


@dataclasses.dataclass(frozen=True)
class GeneratedSource:
    """A module of generated source.

    Attributes:
        text: the module, the same for the same kernel, specialization and Config.
        function: name of the host function in it.
        injected: names the module reads that its text does not define (the user's own helpers and constants).
    """

    text: str
    function: str
    injected: dict[str, Any]


class Backend(abc.ABC):
    """Turns one traced specialization into source.

    Args:
        ir: the specialization.
        settings: the kernel's settings.
        target: compute capability as major * 10 + minor (80, 90, 100), None when there is no GPU to ask.
    """

    name: str

    def __init__(self, ir: KernelIR, settings: Settings, target: int | None) -> None:
        self.ir = ir
        self.settings = settings
        self.target = target

    @abc.abstractmethod
    def config_spec(self) -> ConfigSpec:
        """The schedules this backend knows for the kernel."""

    def guards(self) -> list[sympy.Basic]:
        """Conditions on host values, beyond the trace's own, under which the generated code holds."""
        return []

    @abc.abstractmethod
    def generate(self, config: Config) -> GeneratedSource:
        """Source for one Config that `config_spec().normalize` has accepted."""
