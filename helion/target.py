"""`Target`: the processor that code is generated for."""

from __future__ import annotations

import dataclasses

__all__ = ["CPU", "Target"]


@dataclasses.dataclass(frozen=True)
class Target:
    """A vendor and one of its architectures.

    Attributes:
        vendor: "nvidia", "cpu", ...; which ones a backend has code for is in its `vendors`.
        arch: in the vendor's own numbering. NVIDIA: the compute capability as major * 10 + minor (80, 90, 100).

    >>> str(Target("nvidia", 90)), str(CPU)
    ('sm_90', 'cpu')
    """

    vendor: str
    arch: int | str = ""

    def __str__(self) -> str:
        return f"sm_{self.arch}" if self.vendor == "nvidia" else f"{self.arch}" or self.vendor


#: Host memory and no GPU: what code generated for it may take for granted holds on every GPU of a backend.
CPU = Target("cpu")
