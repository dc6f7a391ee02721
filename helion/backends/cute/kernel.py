"""`CuteKernel`: what a generated host function launches; it compiles itself when it is first needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from ... import exc
from ..._locks import new_lock
from ...runtime.native.binary import Binary
from ...runtime.native.launcher import NativeLauncher
from .compile import compile_matmul
from .printer import print_module
from .schedule import MatmulSchedule
from .spec import TMA_ALIGNMENT
from .spec import MatmulSpec

__all__ = ["CuteKernel"]


class CuteKernel:
    """What a generated host function launches: one matrix kernel under one schedule.

    A binary is compiled when it is first needed, for the alignment of the output and of the epilogue's operands that
    the call has: a tensor at an odd address gets code of its own, which stores or loads its elements one by one.

    Args:
        spec, schedule: what and how, with every tensor aligned to 16 bytes.
    """

    #: For the analysis of host functions: an object that never changes and is only launched.
    is_device_kernel = True

    def __init__(self, spec: MatmulSpec, schedule: MatmulSchedule) -> None:
        self.spec = spec
        self.schedule = schedule
        self._launchers: dict[tuple[int, tuple[bool, ...]], NativeLauncher] = {}
        self._lock = new_lock()

    def __repr__(self) -> str:
        return f"<CuteKernel {self.spec.name} for {self.schedule.arch}>"

    def launch(
        self,
        grid: Sequence[int],
        arguments: Sequence[torch.Tensor | int | float],
        *,
        device: int,
        stream: int,
        directory: Path,
    ) -> NativeLauncher:
        """Launch on ``grid`` (its third number is the number of clusters).

        Args:
            grid: as `MatmulSchedule.grid` makes it.
            arguments: A, B, output, then the epilogue's operands.
            device: index of the current device.
            stream: CUstream as an integer.
            directory: root of the disk cache.

        Returns:
            What launched: the binary for this device and for the alignment of these arguments.
        """
        key = (device, tuple(_aligned(a) for a in arguments[2:]))
        launcher = self._launchers.get(key)
        if launcher is None:
            launcher = self._prepare(key, directory)
        launcher(*arguments, clusters=grid[2], stream=stream)
        return launcher

    def stages(self, arguments: Sequence[torch.Tensor | int | float], directory: Path) -> dict[str, str | bytes]:
        """Compile what a launch with these arguments would run, without a GPU, and keep it in the disk cache.

        Args:
            arguments: as for `launch`; only their alignment matters.
            directory: root of the disk cache.

        Returns:
            "source" of the toolkit's language, "ptx" (text) and "cubin" (bytes).
        """
        variant = self._variant(tuple(_aligned(a) for a in arguments[2:]))
        assembly = compile_matmul(variant, self.schedule, directory).assembly
        return {"source": print_module(variant, self.schedule), "ptx": assembly.ptx, "cubin": assembly.cubin}

    def binary(self, arguments: Sequence[torch.Tensor | int | float], directory: Path) -> Binary:
        """As `stages`, with all that a launch needs."""
        variant = self._variant(tuple(_aligned(a) for a in arguments[2:]))
        compiled = compile_matmul(variant, self.schedule, directory)
        for parameter in compiled.facts.parameters:
            argument = arguments[parameter.argument]
            if isinstance(argument, torch.Tensor) and argument.data_ptr() % parameter.alignment:
                raise exc.InvalidAPIUsage(
                    f"argument {parameter.argument} of kernel {self.spec.name!r} is at an address that"
                    f" {parameter.alignment} bytes do not divide",
                    fix="give an example whose data starts there.",
                )
        return Binary.of_facts(compiled.facts, compiled.assembly.symbol, compiled.assembly.cubin)

    def _prepare(self, key: tuple[int, tuple[bool, ...]], directory: Path) -> NativeLauncher:
        with self._lock:
            found = self._launchers.get(key)
            if found is None:
                compiled = compile_matmul(self._variant(key[1]), self.schedule, directory)
                found = self._launchers[key] = compiled.launcher()
            return found

    def _variant(self, aligned: tuple[bool, ...]) -> MatmulSpec:
        """The spec for a call whose output and epilogue operands are, or are not, at multiples of 16 bytes."""
        spec = self.spec
        if not aligned[0]:
            spec = dataclasses.replace(spec, out=dataclasses.replace(spec.out, alignment=spec.out.dtype.itemsize))
        aux = tuple(
            a if good else dataclasses.replace(a, alignment=a.dtype.itemsize)
            for a, good in zip(spec.epilogue.aux, aligned[1:])
        )
        return dataclasses.replace(spec, epilogue=dataclasses.replace(spec.epilogue, aux=aux))


def _aligned(argument: torch.Tensor | int | float) -> bool:
    return not isinstance(argument, torch.Tensor) or argument.data_ptr() % TMA_ALIGNMENT == 0
