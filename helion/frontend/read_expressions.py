"""Expressions of host code over numbers that are read from tensors: `max(v, 1.0)`, `not v`, `(v > 1) + 1`.

PyTorch's symbolic numbers would decide on them for all calls.  The host function computes such an expression at each
call, as the user wrote it; what a trace needs is its type, which is that of its values for some numbers.

Not here: conditions, each way of which is a variant (`host_decisions`), and numbers of the Config.
"""

from __future__ import annotations

import ast
import copy
import itertools
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import torch

from .. import exc

_INTS = (-2, 0, 1, 3, 1000)
_FLOATS = (-2.5, 0.0, 1.0, 3.25, 1e4)
#: Values of numbers of a type that a trace does not know; as many of each.
_SAMPLES: dict[type, tuple[Any, ...]] = {
    torch.SymInt: _INTS,
    torch.SymFloat: _FLOATS,
    torch.SymBool: (False, True, False, True, True),
}
_FUNCTIONS = (min, max, abs, round, int, float, bool, sum, pow)
_OPERATORS = (
    *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.List, ast.Tuple),
    *(ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context, ast.Constant),
)
#: Most numbers of an expression, each of which is tried with each value.
_MOST_NUMBERS = 4


def type_of(node: ast.expr, value_of: Callable[[ast.expr], Any]) -> type | None:
    """The type of an expression of numbers: int, float or bool.

    Args:
        node: the expression.
        value_of: gives what a part of it is in the trace.

    Returns:
        None if it is anything but arithmetic.

    Raises:
        exc.InvalidAPIUsage: it is an int for some numbers and a float for others.
    """
    parts = _Parts(value_of)
    try:
        copied = parts.visit(copy.deepcopy(node))
    except _NoNumber:
        return None
    numbers = [name for name, value in parts.found.items() if type(value) in _SAMPLES]
    if not 0 < len(numbers) <= _MOST_NUMBERS:
        return None
    code = compile(ast.fix_missing_locations(ast.Expression(copied)), "<expression>", "eval")
    found = {type(value) for value in _values(code, parts.found, numbers)}
    if not found or not found <= {int, float, bool}:
        return None
    if len(found) > 1:
        raise exc.InvalidAPIUsage(
            f"{ast.unparse(node)!r} of a number that host code reads from a tensor is an int for some numbers and a "
            "float, or a bool, for others",
            fix=f"make it one of them for all: `float({ast.unparse(node)})`.",
        )
    return found.pop()


def _values(code: Any, parts: dict[str, Any], numbers: list[str]) -> Iterator[Any]:
    for samples in itertools.product(range(len(_INTS)), repeat=len(numbers)):
        values = {name: _SAMPLES[type(parts[name])][i] for name, i in zip(numbers, samples, strict=True)}
        try:
            yield eval(code, {"__builtins__": {}, **parts, **values})
        except (ArithmeticError, ValueError, TypeError):
            continue  # what fails for a call's numbers fails in that call


class _NoNumber(Exception):
    """There is more in an expression than numbers."""


class _Parts(ast.NodeTransformer):
    """Gives what an expression computes with names of its own.

    Args:
        value_of: gives what a part of it is in the trace.

    Attributes:
        found: the value of each name.
    """

    def __init__(self, value_of: Callable[[ast.expr], Any]) -> None:
        self._value_of = value_of
        self.found: dict[str, Any] = {}

    def _named(self, value: Any) -> ast.Name:
        name = f"_{len(self.found)}"
        self.found[name] = value
        return ast.Name(name, ast.Load())

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, _OPERATORS):
            return self.generic_visit(node)
        if not isinstance(node, ast.expr):
            raise _NoNumber
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)) and not node.keywords:
            function = self._value_of(node.func)
            if function in _FUNCTIONS or getattr(function, "__module__", "") == "math":
                return ast.Call(self._named(function), [self.visit(arg) for arg in node.args], [])
        value = self._value_of(node)
        if not isinstance(value, (int, float, *_SAMPLES)):
            raise _NoNumber
        return self._named(value)
