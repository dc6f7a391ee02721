"""One matrix kernel from spec and schedule to a binary with everything its launch needs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import torch

from helion.backends.cute import _compat
from helion.backends.cute import cache
from helion.backends.cute.printer import entry_name
from helion.backends.cute.printer import print_module
from helion.backends.cute.schedule import MatmulSchedule
from helion.backends.cute.spec import MatmulSpec
from helion.backends.cute.tensormap import TensorMap
from helion.backends.cute.tensormap import tensor_maps

__all__ = ["CompiledMatmul", "LaunchFacts", "Parameter", "compile_matmul", "compile_source", "launch_facts"]


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of the kernel, and the launch argument it is made from.

    Args:
        kind: ``map`` a tensor map of the argument's address; ``pointer`` the address; ``value`` the number itself.
        argument: position among the launch arguments: A, B, output, then the epilogue's operands.
        alignment: bytes that must divide the address.
        tensor_map: for ``map``.
        format: for ``value``, its `struct` format.
    """

    kind: Literal["map", "pointer", "value"]
    argument: int
    alignment: int = 1
    tensor_map: TensorMap | None = None
    format: str = ""


@dataclasses.dataclass(frozen=True)
class LaunchFacts:
    """What `cuLaunchKernelEx` is told, but for addresses and stream.

    Args:
        name: kernel function's name, for messages.
        block, cluster: dimensions; the grid is ``cluster`` times a number of clusters that the launch chooses.
        tiles: cluster tiles; more clusters than this would idle.
        shared_bytes: dynamic shared memory of one CTA.
        arch: what the binary is for.
        parameters: in the kernel's order.
    """

    name: str
    block: tuple[int, int, int]
    cluster: tuple[int, int, int]
    tiles: int
    shared_bytes: int
    arch: str
    parameters: tuple[Parameter, ...]


@dataclasses.dataclass(frozen=True)
class CompiledMatmul:
    """A kernel ready to be loaded."""

    facts: LaunchFacts
    assembly: _compat.Assembly
    source_path: Path


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
