"""Expressions of host code over numbers that are read from tensors: `max(v, 1.0)`, `not v`, `(v > 1) + 1`.

PyTorch's symbolic numbers would decide on them for all calls.  The host function computes such an expression at each
call, as the user wrote it; what a trace needs is its type, which is that of its values for some numbers.

Not here: conditions, each way of which is a variant (`host_decisions`), and numbers of the Config.
"""

from __future__ import annotations

import ast
import itertools
import math
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import torch

from .. import exc
from ..ir.symbols import is_symbolic
from ..ir.symbols import symbols_of
from .frames import Frames
from .host_decisions import Decisions

#: Values of numbers of a type that a trace does not know.  What a call's numbers give may be of another type: the host
#: function checks that.
_SAMPLES: dict[type, tuple[Any, ...]] = {
    torch.SymInt: (-2, 0, 1, 3, 1000),
    torch.SymFloat: (-2.5, 0.0, 1.0, 3.25, 1e4),
    torch.SymBool: (False, True),
}
_FUNCTIONS = (min, max, abs, round, int, float, bool, sum, pow)
_OPERATORS = (
    *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.List, ast.Tuple),
    *(ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context, ast.Constant),
)
#: Most numbers of an expression, each of which is tried with each value, and most trials.
_MOST_NUMBERS = 4
_MOST_TRIALS = 2000


def types_of(node: ast.expr, value_of: Callable[[ast.expr], Any], reads: Mapping[ast.AST, Any]) -> set[type]:
    """The types that an expression of numbers may have, of int, float and bool; none if it is anything but arithmetic.

    Args:
        node: the expression.
        value_of: gives what a part of it is in the trace.
        reads: the numbers that parts of it read from tensors.
    """
    parts = _Parts(value_of, reads)
    try:
        named = parts.named(node)
    except _NoNumber:
        return set()
    numbers = [name for name, value in parts.found.items() if type(value) in _SAMPLES]
    if not 0 < len(numbers) <= _MOST_NUMBERS:
        return set()
    code = compile(ast.fix_missing_locations(ast.Expression(named)), "<expression>", "eval")
    constants = [part.value for part in ast.walk(named) if isinstance(part, ast.Constant)]
    found = {type(value) for value in _values(code, parts.found, numbers, [*constants, *parts.found.values()])}
    return found if found <= {int, float, bool} else set()


def _values(code: Any, parts: dict[str, Any], numbers: list[str], constants: list[Any]) -> Iterator[Any]:
    most = int(_MOST_TRIALS ** (1 / len(numbers)))
    samples = [_samples(type(parts[name]), constants)[:most] for name in numbers]
    for given in itertools.product(*samples):
        values = dict(zip(numbers, given, strict=True))
        try:
            yield eval(code, {"__builtins__": {}, **parts, **values})
        except (ArithmeticError, ValueError, TypeError):
            continue  # what fails for a call's numbers fails in that call


def _samples(kind: type, constants: list[Any]) -> list[Any]:
    """Values of a number, among them those around what it may be compared with."""
    found = list(_SAMPLES[kind])
    if kind is not torch.SymBool:
        known = [c for c in constants if type(c) in (int, float) and math.isfinite(c)]
        found += [type(found[0])(c) + step for c in known for step in (-1, 0, 1)]
    return list(dict.fromkeys(found))


class _NoNumber(Exception):
    """There is more in an expression than numbers."""


class _Parts:
    """Gives what an expression computes with names of its own.

    Args:
        value_of: gives what a part of it is in the trace.
        reads: the numbers that parts of it read from tensors.

    Attributes:
        found: the value of each name.
    """

    def __init__(self, value_of: Callable[[ast.expr], Any], reads: Mapping[ast.AST, Any]) -> None:
        self._value_of, self._reads = value_of, reads
        self.found: dict[str, Any] = {}

    def named(self, node: Any) -> Any:
        """A copy of an expression with such names.

        Raises:
            _NoNumber: there is something else in it.
        """
        if node in self._reads:
            return self._name(self._reads[node])
        if isinstance(node, _OPERATORS):
            fields = {
                field: [self.named(v) for v in value]
                if isinstance(value, list)
                else self.named(value)
                if isinstance(value, ast.AST)
                else value
                for field, value in ast.iter_fields(node)
            }
            made: Any = type(node)
            return made(**fields)
        if not isinstance(node, ast.expr):
            raise _NoNumber
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)) and not node.keywords:
            function = self._value_of(node.func)
            if function in _FUNCTIONS or getattr(function, "__module__", "") == "math":
                return ast.Call(self._name(function), [self.named(arg) for arg in node.args], [])
        value = self._value_of(node)
        if not isinstance(value, (int, float, *_SAMPLES)):
            raise _NoNumber
        return self._name(value)

    def _name(self, value: Any) -> ast.Name:
        name = f"_{len(self.found)}"
        self.found[name] = value
        return ast.Name(name, ast.Load())


class ReadExpressions(Frames):
    """The part of an interpreter that takes an expression as one of each call where a trace cannot compute it."""

    decisions: Decisions
    numbers_read: dict[ast.AST, Any]
    _failed: set[ast.expr]

    def expr(self, node: ast.expr) -> Any:
        raise NotImplementedError  # in expressions

    def is_repeated(self) -> bool:
        raise NotImplementedError  # in statements

    def read_at_each_call(self, node: ast.expr, kind: type) -> Any:
        raise NotImplementedError  # in calls

    def of_call(self, kind: type | None, node: ast.expr) -> Any:
        raise NotImplementedError  # in calls

    @property
    def decides(self) -> bool:
        """Whether this is host code whose conditions a call may answer: the kernel function's own, before its loops."""
        return self.frame.is_kernel and not self.tracer.on_device and not self.env.ir.roots

    def read_expression(self, node: ast.expr) -> Any:
        """The number that an expression of host code gives which a trace cannot compute, since some number in it is
        read from a tensor: it is read at each call, as that is. None where it is none.

        Raises:
            exc.InvalidAPIUsage: it is an int for some numbers and a float for others; conditional expressions have a
                variant for each then.
        """
        if not self.decides or self.is_repeated() or node in self._failed or not self.mentions_read(node):
            return None
        self._failed.update(part for part in ast.walk(node) if isinstance(part, ast.expr))
        kinds = types_of(node, self.expr, self.numbers_read)
        if len(kinds) == 1:
            return self.read_at_each_call(node, *kinds)
        if kinds and not isinstance(node, ast.IfExp):
            raise exc.InvalidAPIUsage(
                f"{ast.unparse(node)!r} of a number that host code reads from a tensor is an int for some numbers and "
                "a float, or a bool, for others",
                fix=f"make it one of them for all: `float({ast.unparse(node)})`.",
            )
        return None

    def mentions_read(self, node: ast.AST) -> bool:
        """Whether an expression of host code reads a number from a tensor, or names one, or one computed so."""
        if any(part in self.numbers_read for part in ast.walk(node)):
            return True
        names = (part.id for part in ast.walk(node) if isinstance(part, ast.Name))
        values = (self.frame.host.get(name) for name in names)
        symbols = {symbol for value in values if is_symbolic(value) for symbol in symbols_of(value)}
        return self.env.is_read(symbols) and not self.env.is_of_config(symbols)
