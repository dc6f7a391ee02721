"""What a launch of a binary of our own needs to know, as data: a code generator makes it, the launchers read it."""

from __future__ import annotations

import dataclasses
from typing import Literal

__all__ = ["LaunchFacts", "Parameter", "TensorMap"]


@dataclasses.dataclass(frozen=True)
class TensorMap:
    """Arguments of cuTensorMapEncodeTiled, but for the address.

    Args:
        data_type: CUtensorMapDataType.
        dims: extents in elements, contiguous axis first.
        strides: in bytes, of every axis but the contiguous one.
        box: extents in elements of what one TMA instruction copies.
        swizzle: bytes of the shared memory swizzle: 32, 64 or 128, or 0 for none.
    """

    data_type: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    swizzle: int


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
