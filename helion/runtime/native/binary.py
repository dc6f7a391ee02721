"""`Binary`: a compiled kernel as data, with all that a launch of it needs but the arguments."""

from __future__ import annotations

import dataclasses

from .facts import LaunchFacts
from .launcher import parameters_of

__all__ = ["Binary", "TensorMapData"]

#: (parameter index, CUtensorMapDataType, dims, strides in bytes, box, CUtensorMapSwizzle).
TensorMapData = tuple[int, int, tuple[int, ...], tuple[int, ...], tuple[int, ...], int]


@dataclasses.dataclass(frozen=True)
class Binary:
    """What a backend compiles for one launch; the fields are those of `helion._C.LaunchSpec`.

    Attributes:
        name: of the kernel, for messages.
        symbol: its name in the binary.
        cubin: the binary.
        num_warps: warps of a thread block.
        shared: bytes of dynamic shared memory.
        params: (argument index, Triton's name of the type) of each parameter, in order.
        scratch: null pointers that follow the last parameter.
        cluster: thread blocks of a cluster along x, y, z.
        maps: of each pointer parameter that is passed as a tensor map.
        cooperative: whether all programs must be on the GPU at the same time.
        scratch_bytes: of global scratch memory a program; if there is some, its address is the last parameter.
    """

    name: str
    symbol: str
    cubin: bytes = dataclasses.field(repr=False)
    num_warps: int
    shared: int
    params: tuple[tuple[int, str], ...]
    scratch: int = 0
    cluster: tuple[int, int, int] = (1, 1, 1)
    maps: tuple[TensorMapData, ...] = ()
    cooperative: bool = False
    scratch_bytes: int = 0

    @classmethod
    def of_facts(cls, facts: LaunchFacts, symbol: str, cubin: bytes) -> Binary:
        """A kernel that is launched as its `LaunchFacts` say."""
        params, maps = parameters_of(facts)
        return cls(
            name=facts.name,
            symbol=symbol,
            cubin=cubin,
            num_warps=facts.block[0] // 32,
            shared=facts.shared_bytes,
            params=params,
            cluster=facts.cluster,
            maps=maps,
        )
