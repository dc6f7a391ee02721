"""Integer helpers for host code."""

from __future__ import annotations

from typing import Any


def cdiv(a: Any, b: Any) -> Any:
    """`a / b` rounded up, for ints and symbolic ints.

    >>> cdiv(10, 4)
    3
    """
    return (a + b - 1) // b


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is at least `n`; 1 for `n` below 1.

    >>> next_power_of_2(5)
    8
    """
    return 1 << max(n - 1, 0).bit_length()
