"""The output pool: output tensors that nobody holds any more are handed out again instead of being freed and allocated.

Off unless ``HELION_OUTPUT_POOL=1``. It serves tensors that the kernel function allocates uninitialised, passes to a
launch that writes them, and returns: those of calls that run as a plan in C (``docs/launch.md``), and those of host
functions, where generated code asks ``helion.runtime.empty_like`` and its like for them. A tensor is handed out again
only if no reference to it, to a view of it or to its memory exists and it was not changed in place, so a program cannot
tell it from a new one.

Two uses hold no reference, so the pool cannot see them, and a program that relies on them keeps the tensor itself
alive: raw pointers (``data_ptr()``), and work on another stream that is announced only by ``Tensor.record_stream``.
Inside ``torch.cuda.use_mem_pool`` an output may come from memory outside of that pool: PyTorch does not tell which is
active.

Environment:
    HELION_OUTPUT_POOL          1: on. Host functions are generated for it, so it is set before kernels are compiled.
    HELION_OUTPUT_POOL_ENTRIES  most tensors to keep (default 256).
    HELION_OUTPUT_POOL_BYTES    most bytes to keep (default 1 GiB). The least recently used go first.
"""

from __future__ import annotations

import os
from typing import TypedDict

from .. import _extension
from .._environment import is_set

__all__ = ["Statistics", "clear", "configure", "configure_from_environment", "enabled", "statistics"]

DEFAULT_ENTRIES = 256
DEFAULT_BYTES = 1 << 30


class Statistics(TypedDict):
    """What ``statistics()`` gives: the pool's state and limits, and how outputs came about since the process began.

    ``kinds``: of how many shapes, dtypes, devices and streams the entries are.
    """

    enabled: bool
    entries: int
    kinds: int
    bytes: int
    most_entries: int
    most_bytes: int
    reused: int
    allocated: int
    evicted: int


def enabled() -> bool:
    """Whether outputs come from the pool now."""
    return statistics()["enabled"]


def configure(enabled: bool, *, entries: int = DEFAULT_ENTRIES, bytes: int = DEFAULT_BYTES) -> None:
    """Switch the pool, for all kernels of the process. Forgets the tensors it holds.

    Args:
        enabled: whether outputs come from the pool.
        entries: most tensors to keep.
        bytes: most bytes to keep.

    Raises:
        ValueError: a limit is negative.
        RuntimeError: there is no extension to pool for.
    """
    if _extension.C is None:
        if enabled:
            raise RuntimeError(f"the output pool needs helion._C: {_extension.why_not}")
        return
    _extension.C.output_pool_configure(enabled, entries, bytes)


def clear() -> None:
    """Forget all tensors. Those in use live on with their users; the others are freed."""
    if _extension.C is not None:
        _extension.C.output_pool_clear()


def statistics() -> Statistics:
    """State, limits and counts."""
    if _extension.C is None:
        return Statistics(
            enabled=False, entries=0, kinds=0, bytes=0, most_entries=0, most_bytes=0, reused=0, allocated=0, evicted=0
        )
    found: Statistics = _extension.C.output_pool_statistics()
    return found


def configure_from_environment() -> None:
    """What importing helion does."""
    enabled = is_set("HELION_OUTPUT_POOL")
    if enabled and _extension.C is not None:
        configure(
            True,
            entries=int(os.environ.get("HELION_OUTPUT_POOL_ENTRIES", DEFAULT_ENTRIES)),
            bytes=int(os.environ.get("HELION_OUTPUT_POOL_BYTES", DEFAULT_BYTES)),
        )
