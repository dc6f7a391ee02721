"""AOTOptions: what `helion.aot_kernel` is told beside the kernel.  Data only, so that making a kernel imports no
tuner.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

Batched = Sequence[int | Sequence[int] | None] | None
"""For each argument the dimension(s) that are a batch, or None."""


@dataclasses.dataclass(frozen=True)
class AOTOptions:
    """What `helion.aot_kernel` knows beside the kernel.

    Attributes:
        batched: dimensions that no decision may depend on, see `cache.features_of`.
        collect_fn: returns the argument tuples to tune for.
        measure_fn: returns the argument tuples on which all Configs are compared; default: those of `collect_fn`.
    """

    batched: Batched = None
    collect_fn: Callable[[], Iterable[Sequence[Any]]] | None = None
    measure_fn: Callable[[], Iterable[Sequence[Any]]] | None = None
