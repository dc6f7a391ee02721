"""Loads a compiled kernel and launches it through the CUDA driver, in Python.

The kernel's binary is launched as it is, with tensor maps of our own: nothing of the toolkit runs at a call. This file
is the complete path by itself; `helion._C` does the same in C from the same `LaunchFacts`.
"""

from __future__ import annotations

import collections
import ctypes
import dataclasses
import functools
import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from helion import exc
from helion.backends.cute.compile import CompiledMatmul
from helion.backends.cute.compile import Parameter
from helion.backends.cute.compile import compile_matmul
from helion.backends.cute.printer import print_module
from helion.backends.cute.schedule import MatmulSchedule
from helion.backends.cute.spec import TMA_ALIGNMENT
from helion.backends.cute.spec import MatmulSpec
from helion.backends.cute.tensormap import TensorMap

__all__ = ["CuteKernel", "CuteLauncher", "Driver", "default_driver"]

_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_NON_PORTABLE_CLUSTER_SIZE_ALLOWED = 14  # CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION = 4  # CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
_SWIZZLES = {0: 0, 32: 1, 64: 2, 128: 3}  # CUtensorMapSwizzle
_L2_PROMOTION_128B = 2  # CU_TENSOR_MAP_L2_PROMOTION_L2_128B
_MAP_BYTES = 128
_TYPE_NAMES = {"": "*i8", "f": "fp32", "i": "i32", "q": "i64"}  # of parameters, as Triton names them
# Tensor maps kept by one kernel: weights, activations and outputs of a model come back at the same few addresses.
_MAPS_KEPT = 256


class _LaunchAttribute(ctypes.Structure):
    """CUlaunchAttribute: an id, padding, and a 64-byte union."""

    _fields_ = (("id", ctypes.c_int), ("pad", ctypes.c_char * 4), ("value", ctypes.c_uint32 * 16))


class _LaunchConfig(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_LaunchAttribute)),
        ("attribute_count", ctypes.c_uint),
    )


class Driver:
    """The few driver entry points a launch needs.

    Args:
        library: name or path of the driver library.
    """

    def __init__(self, library: str = "libcuda.so.1") -> None:
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise exc.BackendUnsupported(
                backend="cute",
                reason=f"there is no CUDA driver here ({error})",
                fix="run on a machine with an NVIDIA GPU, or on CPU tensors.",
            ) from error

    def call(self, function: str, kernel: str, *args: Any) -> None:
        """Call ``function``; raise RuntimeError with the driver's own name of the error and the kernel it was for."""
        status = getattr(self._library, function)(*args)
        if status:
            raise RuntimeError(f"{function} failed for kernel {kernel!r}: {self._error(status)}")

    def _error(self, status: int) -> str:
        text = ctypes.c_char_p()
        self._library.cuGetErrorString(ctypes.c_int(status), ctypes.byref(text))
        return f"{(text.value or b'unknown error').decode()} (CUDA driver error {status})"

    def load(self, cubin: bytes, symbol: str, kernel: str) -> ctypes.c_void_p:
        """The function ``symbol`` of a binary, in the current context; it stays loaded."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuModuleLoadData", kernel, ctypes.byref(module), ctypes.c_char_p(cubin))
        self.call("cuModuleGetFunction", kernel, ctypes.byref(function), module, symbol.encode())
        return function

    def encode(self, tensor_map: TensorMap, address: int, kernel: str) -> ctypes.Array[ctypes.c_char]:
        """The 128-byte descriptor of ``tensor_map`` at ``address``, at a 64-byte boundary as the driver asks."""
        room = (ctypes.c_char * (_MAP_BYTES + 64))()
        offset = -ctypes.addressof(room) % 64
        out = (ctypes.c_char * _MAP_BYTES).from_buffer(room, offset)
        rank = len(tensor_map.dims)
        self.call(
            "cuTensorMapEncodeTiled",
            kernel,
            out,
            ctypes.c_int(tensor_map.data_type),
            ctypes.c_uint32(rank),
            ctypes.c_void_p(address),
            (ctypes.c_uint64 * rank)(*tensor_map.dims),
            (ctypes.c_uint64 * rank)(*tensor_map.strides),
            (ctypes.c_uint32 * rank)(*tensor_map.box),
            (ctypes.c_uint32 * rank)(*(1,) * rank),
            ctypes.c_int(0),
            ctypes.c_int(_SWIZZLES[tensor_map.swizzle]),
            ctypes.c_int(_L2_PROMOTION_128B),
            ctypes.c_int(0),
        )
        return out


@functools.cache
def default_driver() -> Driver:
    return Driver()


class CuteLauncher:
    """A loaded kernel: call it with A, B, output, the epilogue's operands, the number of clusters, and a stream.

    Args:
        compiled: the kernel.
        driver: entry points; the machine's driver by default.

    It belongs to the context that is current at its first call, where the binary is loaded.
    """

    def __init__(self, compiled: CompiledMatmul, driver: Driver | None = None) -> None:
        self.compiled = compiled
        self._driver = driver
        self._function: ctypes.c_void_p | None = None
        self._maps: collections.OrderedDict[tuple[int, int], ctypes.Array[ctypes.c_char]] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, *arguments: torch.Tensor | int | float, clusters: int, stream: int) -> None:
        """Launch on ``stream`` (a CUstream as an integer); returns once the launch is queued.

        Any number of ``clusters`` computes everything; one a tile (``facts.tiles``) is the most that is of use.

        Raises:
            InvalidAPIUsage: a tensor's address is less aligned than the binary was compiled for.
            RuntimeError: the driver refused, with its own words.
        """
        driver = self._driver or default_driver()
        function = self._loaded(driver)
        facts = self.compiled.facts
        # Everything the driver reads must stay alive until it returns.
        held = [self._parameter(driver, p, arguments[p.argument]) for p in facts.parameters]
        pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(h) for h in held))
        attribute = _LaunchAttribute(id=_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION)
        attribute.value[0:3] = facts.cluster
        config = _LaunchConfig(
            grid=(ctypes.c_uint * 3)(*facts.cluster[:2], clusters),
            block=(ctypes.c_uint * 3)(*facts.block),
            shared_bytes=facts.shared_bytes,
            stream=stream,
            attributes=ctypes.pointer(attribute),
            attribute_count=1,
        )
        driver.call("cuLaunchKernelEx", facts.name, ctypes.byref(config), function, pointers, None)

    def description(self) -> dict[str, Any]:
        """What a launch of the loaded binary needs, in the terms of `helion._C.LaunchSpec`: see
        `runtime.launch.native_kernel`.
        """
        facts, function = self.compiled.facts, self._function
        if function is None or function.value is None:
            raise exc.InternalError(reason=f"kernel {facts.name!r} has not been launched yet")
        maps = [
            (i, m.data_type, m.dims, m.strides, m.box, _SWIZZLES[m.swizzle])
            for i, m in enumerate(p.tensor_map for p in facts.parameters)
            if m is not None
        ]
        return {
            "name": facts.name,
            "function": function.value,
            "num_warps": facts.block[0] // 32,
            "cluster": facts.cluster,
            "shared": facts.shared_bytes,
            "params": tuple((p.argument, _TYPE_NAMES[p.format]) for p in facts.parameters),
            "maps": tuple(maps),
        }

    def _loaded(self, driver: Driver) -> ctypes.c_void_p:
        with self._lock:
            if self._function is None:
                facts, assembly = self.compiled.facts, self.compiled.assembly
                function = driver.load(assembly.cubin, assembly.symbol, facts.name)
                for attribute, value in (
                    (_MAX_DYNAMIC_SHARED_SIZE_BYTES, facts.shared_bytes),
                    (_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1),
                ):
                    driver.call(
                        "cuFuncSetAttribute", facts.name, function, ctypes.c_int(attribute), ctypes.c_int(value)
                    )
                self._function = function
            return self._function

    def _parameter(self, driver: Driver, parameter: Parameter, argument: torch.Tensor | int | float) -> Any:
        if not isinstance(argument, torch.Tensor):
            data = struct.pack(parameter.format, argument)
            return ctypes.create_string_buffer(data, len(data))
        address = argument.data_ptr()
        if address % parameter.alignment:
            raise exc.InvalidAPIUsage(
                reason=f"argument {parameter.argument} of kernel {self.compiled.facts.name!r} "
                f"is at address {address:#x},"
                f" which {parameter.alignment} bytes do not divide",
                fix='pass a tensor whose data starts there (a clone), or use backend="triton".',
            )
        if parameter.tensor_map is None:
            return ctypes.c_uint64(address)
        return self._map(driver, parameter.tensor_map, parameter.argument, address)

    def _map(self, driver: Driver, tensor_map: TensorMap, argument: int, address: int) -> Any:
        key = (argument, address)
        with self._lock:
            kept = self._maps.get(key)
            if kept is None:
                # A descriptor depends on the address alone (sizes and strides are the specialization's), so it never
                # goes stale.
                kept = self._maps[key] = driver.encode(tensor_map, address, self.compiled.facts.name)
                if len(self._maps) > _MAPS_KEPT:
                    self._maps.popitem(last=False)
            else:
                self._maps.move_to_end(key)
            return kept


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
        self._launchers: dict[tuple[int, tuple[bool, ...]], CuteLauncher] = {}
        self._lock = threading.Lock()

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
    ) -> CuteLauncher:
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

    def _prepare(self, key: tuple[int, tuple[bool, ...]], directory: Path) -> CuteLauncher:
        with self._lock:
            found = self._launchers.get(key)
            if found is None:
                compiled = compile_matmul(self._variant(key[1]), self.schedule, directory)
                found = self._launchers[key] = CuteLauncher(compiled)
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
