"""Which numbers that involve a tile's place may leave int32, so that they are computed in int64.

Places of tiles and sizes are int32 (or all indices are int64), and sums of them and products with sizes are places in
tensors, which are smaller than 2**31 there.  What else Python would compute is looked at: a product with a constant,
where the range of the loop is known, and with an argument, which may have any value.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import sympy

from ... import exc
from ...ir.space import Axis
from ...ir.symbols import Origin
from ...ir.symbols import OriginKind

__all__ = ["PLACES", "Magnitudes"]

PLACES = (OriginKind.TILE_BEGIN, OriginKind.TILE_END, OriginKind.TILE_ID)
#: Sizes and strides, as host code writes them.
_SIZE = re.compile(r"\.(size|stride|numel|shape)\b")
_LIMIT = 2**31
#: What a place or a size that is not known may be: any that int32 holds.
_ANY = _LIMIT - 1
_BOUNDED = frozenset(["Mod", "PythonMod"])  # by their second operand
_SHRINKING = frozenset(["FloorDiv", "CleanDiv", "IntTrueDiv", "Abs", "Min", "Max"])


class Magnitudes:
    """Upper bounds of the absolute values of numbers.

    Args:
        origin_of: symbol -> what it stands for, None if unknown.
        axis_of: axis number -> the axis.
        constant_of: symbol -> its value under the Config, None if it has none.
    """

    def __init__(
        self,
        origin_of: Callable[[sympy.Symbol], Origin | None],
        axis_of: Callable[[int], Axis],
        constant_of: Callable[[sympy.Symbol], int | None],
    ) -> None:
        self._origin_of, self._axis_of, self._constant_of = origin_of, axis_of, constant_of

    def fits(self, expr: sympy.Expr) -> bool:
        """Whether each step of computing a number, of those that are not the host's, stays within int32."""
        if not any(self._is_place(symbol) for symbol in expr.free_symbols):
            return True
        if expr.is_Symbol:
            return True
        return self._bound(expr) < _LIMIT and all(map(self.fits, expr.args))

    def check(self, expr: sympy.Expr) -> None:
        """Refuse what leaves 64 bits in any loop of a few iterations: Python's integers have no end.

        Raises:
            exc.BackendUnsupported: a place is multiplied with too large a constant.
        """
        for product in expr.atoms(sympy.Mul):
            constants = sympy.prod([abs(factor) for factor in product.args if factor.is_Integer])
            if constants * 2 >= 2**63 and not self.fits(product):
                raise exc.BackendUnsupported(
                    backend="triton",
                    reason="an integer made of a tile's place leaves 64 bits, which Python's do not",
                    fix="make a tensor of the place, whose products wrap: torch.tensor(i, dtype=torch.int64) * FACTOR.",
                )

    def _is_place(self, symbol: sympy.Symbol) -> bool:
        origin = self._origin_of(symbol)
        return origin is not None and origin.kind in PLACES

    def _bound(self, expr: sympy.Expr) -> int:
        """No element is larger, as far as that is known; `_LIMIT` for what may be anything."""
        if expr.is_Integer or expr.is_Float:
            return int(abs(expr)) + bool(expr.is_Float)
        if expr.is_Symbol:
            return self._bound_of_symbol(expr)
        name, args = type(expr).__name__, expr.args
        if expr.is_Add:  # where a place and what it is moved by are not known, the sum is a place too
            bounds = list(map(self._bound, args))
            return max(*bounds, sum(bound for bound in bounds if bound != _ANY))
        if expr.is_Mul:
            return self._product(args)
        if name in ("Pow", "PowByNatural") and args[1].is_Integer and args[1] >= 0:
            return self._product([args[0]] * int(args[1]))
        if name in ("Pow", "PowByNatural"):
            base, exponent = map(self._bound, args)
            return base if base <= 1 else base**exponent if exponent < _LIMIT.bit_length() else _LIMIT
        if name in _BOUNDED:
            return self._bound(args[1])
        if name in _SHRINKING:
            return max(map(self._bound, args))
        if name.endswith("ToInt") or name == "ToFloat":
            return self._bound(args[0])
        if name in ("FloatTrueDiv", "FloatPow"):
            return _LIMIT
        return 0  # printed as a function of its operands, each of which is asked for

    def _product(self, factors: list[sympy.Expr] | tuple[sympy.Expr, ...]) -> int:
        product, sizes = 1, 0
        for factor in factors:
            if self._is_size(factor):
                sizes += 1
            else:
                product *= self._bound(factor)
        # A place times sizes is a place in a tensor.
        return max(product, _ANY) if sizes else product

    def _is_size(self, expr: sympy.Expr) -> bool:
        origin = self._origin_of(expr) if expr.is_Symbol else None
        return origin is not None and origin.kind is OriginKind.HOST and bool(_SIZE.search(origin.text))

    def _bound_of_symbol(self, symbol: sympy.Symbol) -> int:
        origin = self._origin_of(symbol)
        constant = self._constant_of(symbol)
        if constant is not None:
            return abs(int(constant))
        if origin is not None and origin.kind in PLACES:
            axis = self._axis_of(origin.index)
            known = isinstance(axis.begin, int) and isinstance(axis.end, int)
            return max(abs(axis.begin), abs(axis.end)) if known else _ANY
        return _ANY if self._is_size(symbol) else _LIMIT
