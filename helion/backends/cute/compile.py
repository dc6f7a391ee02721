"""One matrix kernel from spec and schedule to a binary with everything its launch needs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from ...runtime.native.driver import Driver
from ...runtime.native.facts import LaunchFacts
from ...runtime.native.facts import Parameter
from ...runtime.native.launcher import NativeLauncher
from . import _compat
from . import cache
from .printer import entry_name
from .printer import print_module
from .schedule import MatmulSchedule
from .spec import MatmulSpec
from .tensormap import tensor_maps

__all__ = ["CompiledMatmul", "compile_matmul", "compile_source", "launch_facts"]


@dataclasses.dataclass(frozen=True)
class CompiledMatmul:
    """A kernel ready to be loaded."""

    facts: LaunchFacts
    assembly: _compat.Assembly
    source_path: Path

    def launcher(self, driver: Driver | None = None) -> NativeLauncher:
        """What loads it at the first call and launches it, through `driver` (the machine's by default)."""
        return NativeLauncher(self.facts, self.assembly.cubin, self.assembly.symbol, driver)


_VALUE_FORMATS = {
    torch.float32: "f",
    torch.int32: "i",
    torch.int64: "q",
}


def launch_facts(spec: MatmulSpec, s: MatmulSchedule) -> LaunchFacts:
    """The launch of ``spec`` under ``s``; needs no compiler."""
    maps = tensor_maps(spec, s)
    parameters = [Parameter("map", i, 16, m) for i, m in enumerate(maps)]
    if not spec.store_through_tma:
        parameters.append(Parameter("pointer", 2, min(spec.out.alignment, spec.out.dtype.itemsize)))
    for argument, aux in enumerate(spec.epilogue.aux, start=3):
        if aux.kind == "value":
            parameters.append(Parameter("value", argument, format=_VALUE_FORMATS[aux.dtype]))
        else:
            parameters.append(Parameter("pointer", argument, aux.alignment))
    threads = 192 if s.blackwell else 128 * (1 + s.consumer_warpgroups)
    return LaunchFacts(
        name=spec.name,
        block=(threads, 1, 1),
        cluster=(s.cluster_m, s.cluster_n, 1),
        tiles=s.tile_count(spec),
        shared_bytes=s.shared_bytes(spec),
        arch=s.arch,
        parameters=tuple(parameters),
    )


def compile_matmul(spec: MatmulSpec, schedule: MatmulSchedule, directory: Path) -> CompiledMatmul:
    """Print ``spec`` under ``schedule`` and compile it, or load what an earlier process compiled.

    Args:
        spec, schedule: what and how; raises BackendUnsupported or InvalidConfig as they do.
        directory: root of the disk cache.
    """
    return compile_source(print_module(spec, schedule), spec, schedule, directory)


def compile_source(source: str, spec: MatmulSpec, schedule: MatmulSchedule, directory: Path) -> CompiledMatmul:
    """As `compile_matmul`, of a module that is printed already."""
    place = cache.Entry.of(source, schedule.arch, directory)
    assembly = place.load()
    if assembly is None:
        assembly = _compat.compile_entry(place.import_source(source), entry_name(spec), schedule.arch)
        place.store(assembly)
    return CompiledMatmul(launch_facts(spec, schedule), assembly, place.source_path)
