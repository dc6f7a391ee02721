"""What a backend must provide, and what it gives back.

A backend is a port: whoever is above (a BoundKernel, the autotuner, cross compilation) asks these methods and never
which backend it is. Not here: which backends there are (`registry.py`).
"""

from __future__ import annotations

import abc
import dataclasses
import types
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import ClassVar
from typing import Protocol
from typing import runtime_checkable

import sympy

from .. import exc
from ..config import Config
from ..config_spec import ConfigSpec
from ..ir.device_ir import KernelIR
from ..runtime.native.binary import Binary
from ..runtime.stats import KernelStats
from ..settings import Settings
from ..target import Target


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


@dataclasses.dataclass(frozen=True)
class Launch:
    """One call of the launcher by a generated host function.

    Attributes:
        kernel: what is launched, an object of the backend's.
        grid: one to three ints.
        args: its run-time arguments.
        options: num_warps, num_stages and other launch options.
    """

    kernel: Any
    grid: tuple[int, ...]
    args: tuple[Any, ...]
    options: dict[str, Any]


@runtime_checkable
class Recipe(Protocol):
    """One compiled candidate, described.  Picklable and hashable: it is built in the tuner's worker processes.

    Two equal recipes are the same code: they are measured once.
    """

    def build(self, args: Sequence[Any]) -> Callable[..., Any]:
        """The callable that runs the candidate on arguments like `args`."""

    def precompile(self, fn: Callable[..., Any], args: Sequence[Any]) -> None:
        """Do all the compilation that a first call of `fn` (what `build` returned) would do, without running the
        kernel, and leave the result where other processes find it (a cache on disk)."""


class Backend(abc.ABC):
    """Turns one traced specialization into source, and says how that source is run, compiled and tuned.

    Args:
        ir: the specialization.
        settings: the kernel's settings.
        target: what the source is for.

    Attributes:
        name: in the registry, in messages and in the caches' keys.
        vendors: of the targets on which its host functions run. On others (CPU tensors, for a backend for GPUs) calls
            go to the tile executor, and the source can still be read.
        language: of the kernels in its source: "Triton", "CuTe DSL", "Python", ...
        layer: of `launch_stats()`, for calls on CPU tensors; launches on a GPU are counted by their launchers.
    """

    name: ClassVar[str]
    vendors: ClassVar[frozenset[str]]
    language: ClassVar[str]
    layer: ClassVar[str] = "cpu_backend"

    def __init__(self, ir: KernelIR, settings: Settings, target: Target) -> None:
        self.ir = ir
        self.settings = settings
        self.target = target

    @property
    @abc.abstractmethod
    def spec(self) -> ConfigSpec:
        """The schedules this backend knows for the kernel."""

    def guards(self) -> list[sympy.Basic]:
        """Conditions on host values, beyond the trace's own, under which the generated code holds."""
        return []

    @abc.abstractmethod
    def generate(self, config: Config) -> GeneratedSource:
        """Source for one Config that `spec.normalize` has accepted.

        Raises:
            exc.BackendUnsupported: the kernel uses what this backend, or the target, does not have.
        """

    def launcher(
        self, host: types.FunctionType, name: str, device: int | None, stats: KernelStats
    ) -> Callable[..., Any] | None:
        """What the `_launcher` parameter of a host function shall be; None leaves the default that its text gives.

        Args:
            host: a host function of `generate`, a copy of this caller's own.
            name: the kernel's, for messages.
            device: index of the device to launch on; None for whichever is current.
            stats: where launches are counted.
        """
        return None

    def recipe(self, source: GeneratedSource, name: str) -> Recipe | None:
        """A tuning candidate that needs nothing but its source; None where it cannot be built from that alone."""
        return None

    def stages(self, launch: Launch) -> Mapping[str, Any]:
        """Compile what a host function would launch, on a machine that need not have the target.

        Returns:
            Each stage of the compilation by name: text, or bytes of a binary.

        Raises:
            exc.BackendUnsupported: this backend compiles nothing ahead of a launch.
        """
        raise exc.BackendUnsupported(
            backend=self.name,
            reason="it has no compiled form to make ahead of a call",
            fix='use backend="triton" to compile for a GPU.',
        )

    def binary(self, launch: Launch) -> Binary:
        """Compile what a host function would launch into a binary that is launched without this backend.

        Raises:
            exc.BackendUnsupported: this backend makes none, or a launch of it needs more than a binary.
        """
        raise exc.BackendUnsupported(
            backend=self.name, reason="it makes no binaries", fix='use backend="triton" or "cute" for a bundle.'
        )
