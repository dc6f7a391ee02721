"""`NativeLauncher`: loads a compiled kernel and launches it through the CUDA driver, in Python.

The kernel's binary is launched as it is, with tensor maps of our own: nothing of a toolkit runs at a call. This file
is the complete path by itself; `helion._C` does the same in C from the same `LaunchFacts`.
"""

from __future__ import annotations

import collections
import ctypes
import struct
from typing import Any

import torch

from ... import exc
from ..._locks import new_lock
from .driver import SWIZZLES
from .driver import Driver
from .driver import LaunchAttribute
from .driver import LaunchConfig
from .driver import default_driver
from .facts import LaunchFacts
from .facts import Parameter
from .facts import TensorMap

__all__ = ["NativeLauncher", "parameters_of"]

_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION = 4  # CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
_TYPE_NAMES = {"": "*i8", "f": "fp32", "i": "i32", "q": "i64"}  # of parameters, as Triton names them
# Tensor maps kept by one kernel: weights, activations and outputs of a model come back at the same few addresses.
_MAPS_KEPT = 256


def parameters_of(facts: LaunchFacts) -> tuple[tuple[tuple[int, str], ...], tuple[tuple[Any, ...], ...]]:
    """Parameters and tensor maps in the terms of `helion._C.LaunchSpec`: see `runtime.launch.native_kernel`."""
    maps = [
        (i, m.data_type, m.dims, m.strides, m.box, SWIZZLES[m.swizzle])
        for i, m in enumerate(p.tensor_map for p in facts.parameters)
        if m is not None
    ]
    return tuple((p.argument, _TYPE_NAMES[p.format]) for p in facts.parameters), tuple(maps)


class NativeLauncher:
    """A loaded kernel: call it with its arguments, the number of clusters, and a stream.

    Args:
        facts: of the kernel.
        cubin: its binary.
        symbol: its name in the binary.
        driver: entry points; the machine's driver by default.

    It belongs to the context that is current at its first call, where the binary is loaded.
    """

    def __init__(self, facts: LaunchFacts, cubin: bytes, symbol: str, driver: Driver | None = None) -> None:
        self.facts = facts
        self.cubin = cubin
        self.symbol = symbol
        self._driver = driver
        self._function: ctypes.c_void_p | None = None
        self._maps: collections.OrderedDict[tuple[int, int], ctypes.Array[ctypes.c_char]] = collections.OrderedDict()
        self._lock = new_lock()

    def __call__(self, *arguments: torch.Tensor | int | float, clusters: int, stream: int) -> None:
        """Launch on ``stream`` (a CUstream as an integer); returns once the launch is queued.

        Any number of ``clusters`` computes everything; one a tile (``facts.tiles``) is the most that is of use.

        Raises:
            InvalidAPIUsage: a tensor's address is less aligned than the binary was compiled for.
            RuntimeError: the driver refused, with its own words.
        """
        driver = self._driver or default_driver()
        function = self._loaded(driver)
        facts = self.facts
        # Everything the driver reads must stay alive until it returns.
        held = [self._parameter(driver, p, arguments[p.argument]) for p in facts.parameters]
        pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(h) for h in held))
        attribute = LaunchAttribute(id=_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION)
        attribute.value[0:3] = facts.cluster
        config = LaunchConfig(
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
        facts, function = self.facts, self._function
        if function is None or function.value is None:
            raise exc.InternalError(reason=f"kernel {facts.name!r} has not been launched yet")
        params, maps = parameters_of(facts)
        return {
            "name": facts.name,
            "function": function.value,
            "num_warps": facts.block[0] // 32,
            "cluster": facts.cluster,
            "shared": facts.shared_bytes,
            "params": params,
            "maps": maps,
        }

    def _loaded(self, driver: Driver) -> ctypes.c_void_p:
        with self._lock:
            if self._function is None:
                facts = self.facts
                function = driver.load(self.cubin, self.symbol, facts.name)
                driver.prepare(function, facts.shared_bytes, True, facts.name)
                self._function = function
            return self._function

    def _parameter(self, driver: Driver, parameter: Parameter, argument: torch.Tensor | int | float) -> Any:
        if not isinstance(argument, torch.Tensor):
            data = struct.pack(parameter.format, argument)
            return ctypes.create_string_buffer(data, len(data))
        address = argument.data_ptr()
        if address % parameter.alignment:
            raise exc.InvalidAPIUsage(
                reason=f"argument {parameter.argument} of kernel {self.facts.name!r} is at address {address:#x},"
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
                kept = self._maps[key] = driver.encode(tensor_map, address, self.facts.name)
                if len(self._maps) > _MAPS_KEPT:
                    self._maps.popitem(last=False)
            else:
                self._maps.move_to_end(key)
            return kept
