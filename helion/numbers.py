"""Integer helpers for host code."""

from __future__ import annotations

from collections.abc import Sequence
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


#: Most partial sums that `elements_meet` looks at.  Strides of tensors are multiples of each other, or nearly so, and
#: then a handful decides.
_MOST_STEPS = 2000
#: Sizes, strides in bytes, bytes of an element.
Box = tuple[Sequence[int], Sequence[int], int]


def elements_meet(a: Box, b: Box, distance: int) -> bool:
    """Whether two tensors share a byte; True in doubt, if deciding it took too long.

    Args:
        a: the first one.
        b: the second one.
        distance: bytes from the first element of `a` to that of `b`.
    """
    if 0 in a[0] or 0 in b[0]:
        return False
    # An element of each is at the same place if the differences of the indices, each times its stride, add up to the
    # distance.  Bytes of an element are a dimension of their own.
    steps: dict[int, list[int]] = {}
    for sign, (sizes, strides, width) in ((0, a), (1, b)):
        for size, stride in zip((*sizes, width), (*strides, 1)):
            steps.setdefault(stride, [0, 0])[sign] += size - 1
    terms = sorted(((stride, -steps[stride][1], steps[stride][0]) for stride in steps if stride), reverse=True)
    # What the terms from each one on can add up to.
    reach = [(0, 0)]
    for stride, low, high in reversed(terms):
        reach.append((reach[-1][0] + stride * low, reach[-1][1] + stride * high))
    reach.reverse()
    waiting, taken = [(0, distance)], 0
    while waiting:
        position, left = waiting.pop()
        taken += 1
        if not reach[position][0] <= left <= reach[position][1]:
            continue
        if position == len(terms) or taken > _MOST_STEPS:
            return True
        stride, low, high = terms[position]
        least, most = reach[position + 1]
        first, last = max(low, -((most - left) // stride)), min(high, (left - least) // stride)
        if last - first > _MOST_STEPS:
            return True
        waiting.extend((position + 1, left - stride * count) for count in range(first, last + 1))
    return False
