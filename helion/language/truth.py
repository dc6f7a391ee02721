"""What Python asks to be true or false must be one number: `if`, `while`, `and`, `or`, `not`, `low < x < high`."""

from __future__ import annotations

import torch

from .. import exc


def scalar(value: torch.Tensor, what: str, shape: str | None = None) -> torch.Tensor:
    """A value that is asked for its truth.

    Args:
        value: 0-d, of any dtype.
        what: the statement or operator that asks, for the message.
        shape: how the message writes the value's shape.

    Raises:
        exc.ShapeMismatch: the value has dimensions, so it is true here and false there.
    """
    if value.dim():
        raise exc.ShapeMismatch(
            f"{what} needs a scalar condition, got a tensor of shape {shape or list(value.shape)}",
            fix="go element by element with `&`, `|`, `~` and torch.where, as in `(low < x) & (x < high)`, or reduce "
            "the condition with .any()/.all().",
        )
    return value
