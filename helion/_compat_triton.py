"""The private parts of Triton that helion uses, and nothing else (Triton 3.6 - 3.7)."""

from __future__ import annotations

from typing import Any
from typing import Callable

import triton
from triton.runtime import _allocation


def has_allocator() -> bool:
    """Whether somebody called ``triton.set_allocator`` in this context."""
    return not isinstance(_allocation._allocator.get(), _allocation.NullAllocator)


def set_allocator(allocate: Callable[[int, int, "int | None"], Any]) -> None:
    """``triton.set_allocator``: public, here beside the private question whether there is one."""
    triton.set_allocator(allocate)
