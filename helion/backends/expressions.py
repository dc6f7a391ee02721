"""Printing symbolic sizes and scalars as Python text, on the host and in kernels."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import sympy

from .._compat_sympy import PythonPrinter
from .._parsing import parse_expression
from ..ir.symbols import expr_of


class ExpressionPrinter(PythonPrinter):
    """PyTorch's printer of size expressions, with symbols spelled by a function.

    Args:
        name_of: symbol -> text.
        minimum, maximum: names of two-argument min and max in the printed language.
    """

    def __init__(self, name_of: Callable[[sympy.Symbol], str], minimum: str = "min", maximum: str = "max") -> None:
        super().__init__()
        self._name_of = name_of
        self._minimum = minimum
        self._maximum = maximum

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        return self._name_of(expr)

    def _nested(self, name: str, args: tuple[sympy.Basic, ...]) -> str:
        text = self._print(args[0])
        for arg in args[1:]:
            text = f"{name}({text}, {self._print(arg)})"
        return str(text)

    def _print_Max(self, expr: sympy.Basic) -> str:
        return self._nested(self._maximum, expr.args)

    def _print_Min(self, expr: sympy.Basic) -> str:
        return self._nested(self._minimum, expr.args)

    def _print_Float(self, expr: sympy.Float) -> str:
        return repr(float(expr))

    def _print_Pow(self, expr: sympy.Basic) -> str:
        # PyTorch 2.11 writes a shift by a symbol as a power of two, and prints none.
        return str(super()._print_Pow(expr) if expr.args[1].is_Integer else self._print_PowByNatural(expr))

    def _print_ToFloat(self, expr: sympy.Basic) -> str:
        return f"float({self._print(expr.args[0])})"

    def _helper_sqrt(self, expr: sympy.Basic) -> str:
        return f"math.sqrt({self._print(expr)})"


def print_number(value: Any, printer: ExpressionPrinter) -> str:
    """A number, plain or symbolic, as text."""
    if isinstance(value, bool):
        return repr(value)
    if isinstance(value, (int, float)):
        return literal(value)
    return str(printer.doprint(expr_of(value)))


def literal(value: float) -> str:
    """A Python number as source text that means the same number."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return f"float('{value}')"
    # Not as a subclass writes itself: NumPy's numbers and members of enums are no source text.
    kind = next(kind for kind in (bool, float, int) if isinstance(value, kind))
    return kind.__repr__(value)


def names_in(text: str) -> set[str]:
    """The names that an expression reads."""
    return {node.id for node in ast.walk(parse_expression(text)) if isinstance(node, ast.Name)}
