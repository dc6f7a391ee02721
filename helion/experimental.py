"""Names whose interface may still change.

`aot_kernel` started here; it is `helion.aot_kernel` now, and both names stay.
"""

from __future__ import annotations

from .aot import aot_kernel

__all__ = ["aot_kernel"]


def __getattr__(name: str) -> object:
    if name == "backward":
        raise AttributeError(
            "helion.experimental.backward is not supported: write the backward pass as a kernel and put both into a "
            "torch.autograd.Function, as examples/attention_backward.py does"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
