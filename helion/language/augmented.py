"""`x += y` and its like on device values.

As in PyTorch the result keeps x's dtype and shape.  Other than in PyTorch it is a new value: device values live in
registers, so a second name for the old one keeps the old one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch

from .. import exc
from .shapes import is_one
from .shapes import shape_text

#: The operator of each augmented assignment, by the name under which PyTorch's function modes see it.
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "add_": operator.add,
    "sub_": operator.sub,
    "mul_": operator.mul,
    "div_": operator.truediv,
    "floor_divide_": operator.floordiv,
    "remainder_": operator.mod,
    "pow_": operator.pow,
    "__iand__": operator.and_,
    "__ior__": operator.or_,
    "__ixor__": operator.xor,
    "__ilshift__": operator.lshift,
    "__irshift__": operator.rshift,
}


def keep_type(left: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """The result of `left <op>= ...` as PyTorch types it.

    Args:
        left: what was assigned to.
        result: `left <op> ...`, of the promoted dtype.

    Returns:
        The result in `left`'s dtype.

    Raises:
        exc.InvalidAPIUsage: PyTorch does not cast the result to that dtype (float to int, int to bool).
        exc.ShapeMismatch: the result is larger than `left`.
    """
    grows = result.dim() != left.dim() or any(is_one(a) and not is_one(b) for a, b in zip(left.shape, result.shape))
    if grows:
        raise exc.ShapeMismatch(
            f"an augmented assignment would change the shape from {shape_text(left.shape)} to "
            f"{shape_text(result.shape)}",
            fix="write `x = x + y`.",
        )
    if result.dtype is left.dtype:
        return result
    if not torch.can_cast(result.dtype, left.dtype):
        raise exc.InvalidAPIUsage(
            f"an augmented assignment keeps the dtype, and a result of {result.dtype} does not fit into {left.dtype}",
            fix="write `x = x + y`, or cast y.",
        )
    return result.to(left.dtype)
