"""What host functions read from tensors at each call: numbers, and what conditions decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.compiler import is_dynamo_compiling

from .. import _compat_torch
from .. import exc


def check_read(holds: bool, condition: str) -> None:
    """Check what a kernel was compiled for about numbers that its host code reads from tensors.

    Raises:
        exc.InvalidAPIUsage: it does not hold; nothing has been launched.
    """
    if is_dynamo_compiling():
        _compat_torch.check_in_graph(holds)  # in a graph it is a symbol, which no `if` may ask
    elif not holds:
        raise exc.InvalidAPIUsage(
            f"a number that host code reads from a tensor is not one that this kernel was compiled for: {condition}",
            fix="a tensor that is as long as values say, `y = x[x > 0]`, is indexed in a loop over its own length, or "
            "put into one that is long enough: `z = torch.zeros_like(x)`, `z[: y.size(0)] = y`."
            if ".size(" in condition
            else "use it for bounds of loops and sizes of new tensors; pass what else depends on it as an argument.",
        )


def checked_number(value: Any, kind: str, text: str) -> Any:
    """A number that host code has read, or computed from such, if it is of the type that a kernel was compiled for.

    Args:
        value: the number.
        kind: the name of the type.
        text: the expression that gave it.

    Raises:
        exc.InvalidAPIUsage: it is of another type; nothing has been launched.
    """
    if type(value).__name__ == kind:
        return value
    if type(value).__module__ == "numpy" and type(number := value.item()).__name__ == kind:
        return number
    wanted = "int" if kind == "bool" else kind
    raise exc.InvalidAPIUsage(
        f"{text!r} of a number that host code reads is {value!r} in this call, and the kernel was compiled for "
        f"{'an int' if kind == 'int' else f'a {kind}'}: it would compute with other types",
        fix=f"make it one type for all numbers: `{'float' if type(value) is float else wanted}({text})`.",
    )


def contiguous(made: Any) -> Any:
    """What an operation gives whose sizes follow from what tensors hold, laid out as it was traced.

    Args:
        made: a tensor, or several.
    """
    if isinstance(made, torch.Tensor):
        return made.contiguous()
    return type(made)(tensor.contiguous() for tensor in made)


class OtherDecision(Exception):
    """Host code has decided otherwise than where it was traced: the call is another variant's.  Nothing has been
    launched or written."""


def decisions(*taken: bool) -> Callable[[object], bool]:
    """A function that host code asks about each of its conditions.

    Args:
        taken: what they are taken for, in the order in which they are met.

    Raises (the function):
        OtherDecision: a condition is something else.
    """
    left = iter(taken)

    def decided(condition: object) -> bool:
        found = bool(condition)
        if next(left, None) is not found:
            raise OtherDecision
        return found

    return decided
