"""Conditions on tiles' places as the numbers 0 and 1 that Python takes them for: `(i != 0) * dt`, `int(i < n) + 1`."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

import sympy
import torch

from .._compat_sympy import Max
from .._compat_sympy import Min
from ..ir.symbols import expr_of
from .environment import Environment


def as_number(env: Environment, value: Any) -> Any:
    """0 or 1 for a condition on integers of device code that is known only there; else the value."""
    if not isinstance(value, torch.SymBool) or not env.space.depends_on_device(value):
        return value
    return _number(env, value)


def as_numbers(env: Environment, left: Any, right: Any) -> tuple[Any, Any]:
    """Operands with conditions as numbers, if one is known in device code only: the other may be host code's."""
    both = (left, right)
    if not any(isinstance(v, (torch.SymBool, torch.SymInt)) and env.space.depends_on_device(v) for v in both):
        return both
    made = [int(v) if isinstance(v, bool) else _number(env, v) for v in both]
    return made[0], made[1]


def is_among(left: Any, items: Iterable[Any], equal: Callable[[Any, Any], Any]) -> Any:
    """Whether a number is one of several, as a condition."""
    return functools.reduce(operator.or_, [equal(left, item) for item in items], False)


def _number(env: Environment, value: Any) -> Any:
    if not isinstance(value, torch.SymBool) or env.is_configured(value):
        return value
    expr = _integer(expr_of(value))
    return value if expr is None else env.size_of(expr, 1)


def _integer(condition: sympy.Basic) -> sympy.Expr | None:
    """The integer for a condition; None for one that is not on integers."""
    if condition.is_Boolean and condition in (sympy.true, sympy.false):
        return sympy.Integer(condition == sympy.true)
    if isinstance(condition, (sympy.And, sympy.Or, sympy.Not)):
        found = [_integer(part) for part in condition.args]
        parts = [part for part in found if part is not None]
        if len(parts) < len(found):
            return None
        if isinstance(condition, sympy.Not):
            return 1 - parts[0]
        return (Min if isinstance(condition, sympy.And) else Max)(*parts)
    if not isinstance(condition, sympy.core.relational.Relational):
        return None
    left, right = condition.args
    if not (left.is_integer and right.is_integer):
        return None
    apart = Min(1, sympy.Abs(left - right))
    if isinstance(condition, sympy.Ne):
        return apart
    if isinstance(condition, sympy.Eq):
        return 1 - apart
    greater = right - left if isinstance(condition, (sympy.Lt, sympy.Le)) else left - right
    strict = isinstance(condition, (sympy.Lt, sympy.Gt))
    return Max(0, Min(1, greater if strict else greater + 1))
