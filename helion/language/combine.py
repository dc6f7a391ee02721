"""Combine functions of `hl.reduce` and `hl.associative_scan`: how they are called.

For one operand: `combine_fn(left, right) -> value`.  For n operands: either
`combine_fn(left_tuple, right_tuple) -> tuple` (two parameters) or
`combine_fn(left_0, ..., left_n-1, right_0, ..., right_n-1) -> tuple` (2 n parameters).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import cast

import torch

from .. import exc
from .._annotations import signature_of
from .shapes import same_size
from .shapes import shape_text

Values = tuple[Any, ...]


def as_flat_combine(combine_fn: Callable[..., Any], n: int, what: str) -> Callable[..., Values]:
    """`combine_fn` as a function of 2 n positional values that returns a tuple of n.

    Args:
        combine_fn: the user's function, in any of the forms of the module docstring.
        n: number of operands.
        what: the op's name, for messages.

    Raises:
        exc.InvalidAPIUsage: not callable, wrong number of parameters, or (when called) of results.
    """
    if type(combine_fn).__module__ == "helion.kernel":
        combine_fn = cast(Any, combine_fn).fn  # decorated, to be called from the host too
    if not callable(combine_fn):
        raise exc.InvalidAPIUsage(f"{what}: combine_fn must be a function, got {type(combine_fn).__name__}")
    takes_tuples = n > 1 and _parameter_count(combine_fn, n, what) == 2

    def combine(*values: Any) -> Values:
        left, right = values[:n], values[n:]
        result = combine_fn(left, right) if takes_tuples else combine_fn(*left, *right)
        if n == 1 and not isinstance(result, (tuple, list)):
            return (result,)
        if not isinstance(result, (tuple, list)) or len(result) != n:
            raise exc.InvalidAPIUsage(f"{what}: combine_fn must return {n} value{'s' if n > 1 else ''}, got {result!r}")
        return tuple(result)

    return combine


def _parameter_count(fn: Callable[..., Any], n: int, what: str) -> int:
    try:
        parameters = signature_of(fn).parameters.values()
    except (TypeError, ValueError):  # a built-in without a signature, such as torch.maximum
        return 2 * n
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 2 * n
    required = sum(p.default is p.empty for p in positional)
    for count in (2 * n, 2):
        if required <= count <= len(positional):
            return count
    raise exc.InvalidAPIUsage(
        f"{what}: combine_fn takes {len(positional)} parameters, expected 2" + (f" or {2 * n}" if n > 1 else "")
    )


def operands(x: Any, what: str) -> tuple[torch.Tensor, ...]:
    """The operands of a reduction or scan as a tuple of tensors of one shape.

    Raises:
        exc.InvalidAPIUsage: not a tensor or a non-empty tuple of tensors.
        exc.ShapeMismatch: the shapes differ.
    """
    values: Sequence[Any] = x if isinstance(x, (tuple, list)) else (x,)
    if not values or not all(isinstance(v, torch.Tensor) for v in values):
        raise exc.InvalidAPIUsage(f"{what} needs a tensor or a tuple of tensors")
    first = values[0].shape
    for value in values[1:]:
        if value.dim() != len(first) or not all(map(same_size, value.shape, first)):
            raise exc.ShapeMismatch(
                f"{what}: operands have different shapes: {shape_text(first)} and {shape_text(value.shape)}"
            )
    return tuple(values)


def cast_results(results: Values, dtypes: Sequence[torch.dtype]) -> tuple[torch.Tensor, ...]:
    """What a combine function returned, in the operands' dtypes (eager modes)."""
    return tuple(r.to(d) for r, d in zip(results, dtypes, strict=True))
