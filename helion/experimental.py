"""Names whose interface may still change.

`aot_kernel` started here; it is `helion.aot_kernel` now, and both names stay.
"""

from __future__ import annotations

from .aot import aot_kernel

__all__ = ["aot_kernel"]
