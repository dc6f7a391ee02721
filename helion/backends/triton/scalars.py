"""Numbers in Triton code: symbolic expressions of arguments, sizes and tiles' places.

What is known on the host is computed there, with Python's own arithmetic, and passed: integers do not overflow, `//`
and `%` round down, floats are doubles.  What involves a tile's place is computed in the kernel, where `//` and `%`
truncate and Python's functions of numbers do not exist; in int64 where a step may leave int32 (`magnitudes`).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import sympy

from ... import exc
from ...ir.signs import is_nonnegative
from ...ir.space import Axis
from ...ir.symbols import Origin
from ...ir.symbols import OriginKind
from ...ir.symbols import expr_of
from ...ir.symbols import is_symbolic
from ..expressions import ExpressionPrinter
from .magnitudes import PLACES
from .magnitudes import Magnitudes


class ScalarPrinter(ExpressionPrinter):
    """Prints numbers in a Triton kernel.

    Args:
        name_of: symbol, or expression of host symbols alone -> its name in the kernel.
        helper: name of a function of `helion.runtime.triton_helpers` -> how it is called, once it is imported.
        origin_of: symbol -> what it stands for, None if unknown.
        axis_of: axis number -> the axis.
        constant_of: symbol -> its value under the Config, None if it has none.
        in_double: whether what is printed now computes in float64.
        wide: indices are int64: a sum of arguments, which are int32 where each of them fits, may be none.
    """

    def __init__(
        self,
        name_of: Callable[[sympy.Expr], str],
        helper: Callable[[str], str],
        origin_of: Callable[[sympy.Symbol], Origin | None],
        axis_of: Callable[[int], Axis],
        constant_of: Callable[[Any], int | None],
        in_double: Callable[[], bool],
        *,
        wide: bool,
    ) -> None:
        super().__init__(name_of, "tl.minimum", "tl.maximum")
        self._helper = helper
        self._origin_of = origin_of
        self._axis_of = axis_of
        self._in_double = in_double
        self._magnitude = Magnitudes(origin_of, axis_of, constant_of)
        self._wide = wide
        self._places_are_wide = False
        self._in_python = False  # in float64, and each operation rounds

    @contextlib.contextmanager
    def as_wide_as_needed(self, value: Any) -> Iterator[None]:
        """What is printed within, `value`, computes in int64 if a step of it may leave int32."""
        expr = value if isinstance(value, sympy.Expr) else expr_of(value) if is_symbolic(value) else None
        if expr is None or self._places_are_wide or is_float(expr) or self._magnitude.fits(expr):
            yield
            return
        self._magnitude.check(expr)
        # Where indices are int64 too: those of a grid are as Triton counts, in int32 for bounds that int32 holds.
        wide, self._wide, self._places_are_wide = self._wide, True, True
        try:
            yield
        finally:
            self._wide, self._places_are_wide = wide, False

    def is_wide(self, expr: sympy.Expr) -> bool:
        """Whether a number of a tile's place is computed in int64."""
        if is_float(expr):
            return False
        origins = map(self._origin_of, expr.free_symbols)
        of_a_place = any(origin is not None and origin.kind in PLACES for origin in origins)
        return of_a_place and (self._wide or not self._magnitude.fits(expr))

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        origin = self._origin_of(expr) if self._places_are_wide else None
        widens = origin is not None and origin.kind in (*PLACES, OriginKind.HOST) and not is_float(expr)
        return f"tl.cast({self._name_of(expr)}, tl.int64)" if widens else self._name_of(expr)

    def _print_Integer(self, expr: sympy.Integer) -> str:
        # Triton makes the first number of `3000000000 * n * i` one of the width of `n`.
        fits = -(2**31) <= int(expr) < 2**31 or not -(2**63) <= int(expr) < 2**63
        return str(int(expr)) if fits or not self._places_are_wide else f"tl.full([], {int(expr)}, tl.int64)"

    def _print(self, expr: Any, **options: Any) -> str:
        if isinstance(expr, sympy.Basic) and not expr.is_Symbol and self._is_of_host(expr):
            if self._wide or not _is_simple(expr):
                return self._name_of(expr)
        return str(super()._print(expr, **options))

    def _is_of_host(self, expr: sympy.Basic) -> bool:
        origins = [self._origin_of(symbol) for symbol in expr.free_symbols]
        return bool(origins) and all(o is not None and o.kind is OriginKind.HOST for o in origins)

    # -- rounding
    # -------------------------------------------------------------------------------------------------------

    def is_nonnegative(self, expr: sympy.Expr) -> bool:
        """Whether a number is known not to be negative."""
        return is_nonnegative(expr, self._origin_of, self._axis_of)

    def _divide(self, expr: sympy.Expr, operator: str, helper: str) -> str:
        a, b = expr.args
        constants = all(
            o is not None and o.kind is OriginKind.BLOCK_SIZE for o in map(self._origin_of, expr.free_symbols)
        )
        if constants or (self.is_nonnegative(a) and self.is_nonnegative(b)):
            return f"({self.parenthesize(a, _ATOM)} {operator} {self.parenthesize(b, _ATOM)})"
        return f"{self._helper(helper)}({self._print(a)}, {self._print(b)})"

    def _print_FloorDiv(self, expr: sympy.Expr) -> str:
        return self._divide(expr, "//", "hlt_div_floor_int")

    def _print_Mod(self, expr: sympy.Expr) -> str:
        return self._divide(expr, "%", "hlt_remainder_int")

    def _print_PythonMod(self, expr: sympy.Expr) -> str:
        if any(map(is_float, expr.args)):
            return f"{self._helper('hlt_remainder_float')}({', '.join(map(self._as_float, expr.args))})"
        return self._print_Mod(expr)

    # -- functions
    # --------------------------------------------------------------------------------------------------------

    def _as_float(self, expr: sympy.Expr) -> str:
        """A number as a float, which a helper may ask for its dtype."""
        if expr.is_number:
            return f"tl.full([], {float(expr)}, {self._float()})"
        return self._print(expr) if is_float(expr) else self._print_ToFloat(sympy.Tuple(expr))

    def _float(self) -> str:
        return "tl.float64" if self._in_double() or self._in_python else "tl.float32"

    def _print_ToFloat(self, expr: sympy.Basic) -> str:
        with self.as_wide_as_needed(expr.args[0]):
            return f"tl.cast({self._print(expr.args[0])}, {self._float()})"

    def _print_IntTrueDiv(self, expr: sympy.Basic) -> str:
        """The quotient of two integers, which Triton's `/` gives in float32."""
        a, b = expr.args
        if not (self._in_double() or self._in_python):
            with self.as_wide_as_needed(a):
                return str(super()._print_IntTrueDiv(expr))
        return f"({self._print_ToFloat(sympy.Tuple(a))} / {self._as_float(b)})"

    def _print_Abs(self, expr: sympy.Expr) -> str:
        return f"tl.abs({self._print(expr.args[0])})"

    def _print_Mul(self, expr: sympy.Expr) -> str:
        if not self._in_python or not is_float(expr):
            return str(super()._print_Mul(expr))
        text = self._as_float(expr.args[0])
        for arg in expr.args[1:]:  # joined with a sum to one operation it may round to the other side of an integer
            text = f"{self._helper('hls_rounded_product')}({text}, {self._as_float(arg)})"
        return text

    def _nested(self, name: str, args: tuple[sympy.Basic, ...]) -> str:
        if not any(map(is_float, args)):
            return super()._nested(name, args)
        text = self._as_float(args[0])  # Triton would make a float32 of a number
        for arg in args[1:]:
            text = f"{name}({text}, {self._as_float(arg)})"
        return text

    def _to_integer(self, expr: sympy.Expr, function: str) -> str:
        """An integer made of a float, which is Python's in kernels without float64 too."""
        before, self._in_python = self._in_python, True
        try:
            text = self._print(expr.args[0])
        finally:
            self._in_python = before
        text = f"{function}({text})" if function else text
        return f"tl.cast({text}, {'tl.int64' if self._places_are_wide else 'tl.int32'})"

    def _print_FloorToInt(self, expr: sympy.Expr) -> str:
        return self._to_integer(expr, "tl.floor")

    def _print_CeilToInt(self, expr: sympy.Expr) -> str:
        return self._to_integer(expr, "tl.ceil")

    def _print_TruncToInt(self, expr: sympy.Expr) -> str:
        return self._to_integer(expr, "")

    def _print_RoundToInt(self, expr: sympy.Expr) -> str:
        return self._to_integer(expr, self._helper("hls_round_number"))

    def _print_PowByNatural(self, expr: sympy.Expr) -> str:
        base, exponent = expr.args
        if exponent.is_Integer and 0 < exponent <= 8:
            return " * ".join([self.parenthesize(base, _ATOM)] * int(exponent))
        texts = [self._print(base), self._print(exponent)]
        constant = [_SUM.fullmatch(text) is not None for text in texts]  # tunables are what the Config says
        if all(constant):
            least, power = (int(eval(text, {})) for text in texts)
            if power >= 0:
                return f"({least**power})"
        dtype = "tl.int64" if self._places_are_wide else "tl.int32"
        # The helper takes tensors, and Triton has a constant for `2`.
        printed = [f"tl.full([], {text}, {dtype})" if known else text for text, known in zip(texts, constant)]
        if self._places_are_wide and self._is_of_host(base):  # the helper computes in the width of the base
            printed[0] = f"tl.cast({printed[0]}, tl.int64)"
        return f"{self._helper('hlt_pow_int')}({', '.join(printed)})"

    def _print_FloatPow(self, expr: sympy.Expr) -> str:
        return f"{self._helper('hlt_pow_number')}({', '.join(map(self._as_float, expr.args))})"

    def _refuse(self, expr: sympy.Expr) -> str:
        raise exc.BackendUnsupported(
            backend="triton",
            reason=f"there is no Triton form of {type(expr).__name__} for a number that involves a tile's place",
            fix="compute it with torch's functions from a tensor, torch.round(tile.index / 3) for example.",
        )

    _print_RoundDecimal = _print_Piecewise = _refuse


#: Sums and products of integers.
_SUM = re.compile(r"[-+*()\s\d]+")
_ATOM = 999.5  # binds tighter than any operator: operands that are no single names get parentheses


def _is_simple(expr: sympy.Basic) -> bool:
    """A sum of integers and integer symbols, at most negated: as good to compute in the kernel as to pass, where all
    indices are int32.
    """
    if expr.is_Symbol or expr.is_Integer:
        return expr.is_integer is not False
    if expr.is_Mul:
        return len(expr.args) == 2 and expr.args[0] == -1 and expr.args[1].is_Symbol and bool(expr.args[1].is_integer)
    return bool(expr.is_Add) and all(map(_is_simple, expr.args))


def is_float(expr: sympy.Basic) -> bool:
    """Whether a number is a float, as opposed to an integer or a bool (sympy takes a remainder for an integer)."""
    name = type(expr).__name__
    if expr.is_Symbol or expr.is_number:
        return expr.is_integer is not True
    if name.endswith("ToInt") or expr.is_Boolean:
        return False
    return name in _GIVE_FLOATS or any(map(is_float, expr.args))


_GIVE_FLOATS = frozenset(["ToFloat", "IntTrueDiv", "FloatTrueDiv", "FloatPow"])
