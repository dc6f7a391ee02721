"""Which numbers a dtype holds: PyTorch refuses to write others (`torch.full`, `masked_fill`, `x[0] = 1e39`), so that a
fill of -1e9 does not become -inf in float16 unseen.

Not here: numbers beside a tensor in arithmetic, which PyTorch rounds to infinity.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from .. import exc


def is_held(value: Any, dtype: torch.dtype) -> bool:
    """Whether a constant becomes one of the dtype without overflow; integers as negative numbers of an unsigned one."""
    if type(value) not in (int, float) or dtype is torch.bool or dtype.is_complex:
        return True
    if dtype.is_floating_point:
        # Infinity and nan are held; float8 saturates.
        return not math.isfinite(value) or dtype.itemsize == 1 or abs(value) <= torch.finfo(dtype).max
    info = torch.iinfo(dtype)
    low = min(info.min, -info.max) if type(value) is int else info.min
    return bool(low <= value <= info.max)


def check_held(value: Any, dtype: torch.dtype, what: str, *, alone: bool = False) -> None:
    """Check a constant that becomes an element of a tensor.

    Args:
        value: the constant.
        dtype: of the tensor.
        what: the op, for the message.
        alone: it becomes a tensor of no dimension first, which PyTorch rounds to infinity in 16 bits.

    Raises:
        exc.InvalidAPIUsage: the dtype does not hold it.
    """
    if alone and dtype in (torch.float16, torch.bfloat16):
        return
    if not is_held(value, dtype):
        name = str(dtype).removeprefix("torch.")
        kinds = torch.finfo if dtype.is_floating_point else torch.iinfo
        raise exc.InvalidAPIUsage(
            f"{what}: {name} does not hold {value}",
            fix=f"use a number from {kinds(dtype).min} to {kinds(dtype).max}"
            + (', or float("inf").' if dtype.is_floating_point else ", or another dtype."),
        )
