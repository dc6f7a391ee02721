"""What the generator knows of a value before it runs: dtype, dimensions, range, and how far off a right result may be.

A float whose values are all multiples of a power of two `step`, with a range that its mantissa holds, is computed
without rounding by any right implementation, in any order: its `error` is 0 and results are compared for equality.  A
value that rounds has an absolute bound `error` on the difference from exact arithmetic; operations with jumps
(comparisons, rounding to integers, places of maxima) take only values without error.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
INTS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

#: Of these PyTorch itself has loads, stores and conversions, and little else.
UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)

#: Bits of the mantissa with the implied one.
_BITS = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}
#: Largest magnitude that the generator lets a float have.
_LARGEST = {torch.float64: 1e12, torch.float32: 1e12, torch.float16: 2e4, torch.bfloat16: 1e12}


class Invalid(Exception):
    """The program means nothing definite, or leaves the space of programs."""


@dataclasses.dataclass(frozen=True)
class Dim:
    """One dimension of a value.

    Attributes:
        size: number of elements over the whole loop, or a constant.
        axis: the loop variable of the tile, or None for a constant dimension.
    """

    size: int
    axis: str | None = None


ONE = Dim(1)


@dataclasses.dataclass(frozen=True)
class Value:
    """A value of device code.

    Attributes:
        dtype: its dtype; a Python number (`weak`) has int64, float64 or bool.
        dims: its dimensions.
        low, high: all elements lie in between.
        step: all elements are multiples of it; None if that is not known.
        error: bound on the absolute error of a right implementation.
        weak: a Python number, or a device scalar that counts as one in type promotion.
    """

    dtype: torch.dtype
    dims: tuple[Dim, ...]
    low: float
    high: float
    step: float | None = 1
    error: float = 0.0
    weak: bool = False

    @property
    def kind(self) -> str:
        return kind_of(self.dtype)

    @property
    def magnitude(self) -> float:
        return max(abs(self.low), abs(self.high))


def kind_of(dtype: torch.dtype) -> str:
    if dtype is torch.bool:
        return "bool"
    return "float" if dtype.is_floating_point else "int"


def unit(dtype: torch.dtype) -> float:
    """Largest relative error of one rounding."""
    return 2.0 ** -_BITS[dtype]


def settle(
    dtype: torch.dtype,
    dims: Sequence[Dim],
    low: float,
    high: float,
    step: float | None = 1,
    error: float = 0.0,
    roundings: float = 1,
) -> Value:
    """The value of an operation, given its exact result: wrapped or rounded to `dtype`.

    Args:
        low, high, step: of the exact result.
        error: what the operands' errors make of it.
        roundings: how many units in the last place the operation itself may be off.

    Raises:
        Invalid: too large.
    """
    dims = tuple(dims)
    if dtype is torch.bool:
        return Value(dtype, dims, 0, 1)
    if not dtype.is_floating_point:
        info = torch.iinfo(dtype)
        if math.isnan(low) or low < info.min or high > info.max:
            low, high = info.min, info.max
        return Value(dtype, dims, low, high)
    magnitude = max(abs(low), abs(high))
    if not magnitude < _LARGEST[dtype]:
        raise Invalid("too large")
    fits = step is not None and step >= 2.0**-14 and magnitude <= step * 2.0 ** _BITS[dtype]
    if fits and error == 0:
        return Value(dtype, dims, low, high, step)
    tiny = 2.0**-24 if dtype is torch.float16 else 0.0  # where its steps become absolute
    error += roundings * (unit(dtype) * (magnitude + error) + tiny)
    if error > 0.05 * max(magnitude, 1e-3) + 0.02:
        raise Invalid("a result of which nothing is left but error says nothing")
    return Value(dtype, dims, low, high, None, error)


def join(a: Value, b: Value) -> Value:
    """What holds of a value that is one or the other."""
    if a.dtype is not b.dtype or a.dims != b.dims:
        raise Invalid("two types")
    step = None if a.step is None or b.step is None else min(a.step, b.step)
    return dataclasses.replace(
        a, low=min(a.low, b.low), high=max(a.high, b.high), step=step, error=max(a.error, b.error)
    )


def broadcast(shapes: Sequence[tuple[Dim, ...]]) -> tuple[Dim, ...]:
    """PyTorch's rule, where dimensions of different loops never match."""
    rank = max(len(s) for s in shapes)
    dims = []
    for place in range(rank):
        found = {s[place - rank] for s in shapes if len(s) >= rank - place} - {ONE}
        if len(found) > 1:
            raise Invalid(f"{found} do not broadcast")
        dims.append(found.pop() if found else ONE)
    return tuple(dims)


def elements(dims: Sequence[Dim]) -> int:
    return math.prod(d.size for d in dims)
