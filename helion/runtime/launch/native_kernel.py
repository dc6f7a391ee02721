"""A loaded kernel that is not Triton's, as the C launch path has to know it."""

from __future__ import annotations

import dataclasses
from typing import Any

__all__ = ["NativeKernel"]


@dataclasses.dataclass(frozen=True)
class NativeKernel:
    """What a launcher returns that launched a binary of its own; ``plan.py`` makes a step of a LaunchPlan of it.

    Attributes:
        name: for messages.
        function: the CUfunction, as an int.
        num_warps: warps of a thread block.
        cluster: thread blocks of a cluster along x, y, z.
        shared: bytes of dynamic shared memory.
        params: (argument index, type name) of each parameter in the binary's order; types as Triton names them.
        maps: (parameter index, CUtensorMapDataType, dims, strides in bytes, box, CUtensorMapSwizzle) of each pointer
            parameter that is passed as a tensor map.
        owner: kept alive as long as the kernel may be launched.
    """

    name: str
    function: int
    num_warps: int
    cluster: tuple[int, int, int]
    shared: int
    params: tuple[tuple[int, str], ...]
    maps: tuple[tuple[int, int, tuple[int, ...], tuple[int, ...], tuple[int, ...], int], ...]
    owner: Any
