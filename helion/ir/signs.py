"""Which numbers are known not to be negative, wherever tiles are."""

from __future__ import annotations

from collections.abc import Callable

import sympy
import torch

from .space import Axis
from .symbols import Origin
from .symbols import OriginKind

#: Numbers that may be negative only where the range of their loop is; block sizes are positive.
_PLACES = (OriginKind.TILE_BEGIN, OriginKind.TILE_END)
#: Functions of numbers that are not negative whose result is not either.
_KEEP_SIGN = frozenset(["Add", "Mul", "Pow", "Min", "FloorDiv", "CleanDiv", "Mod", "PythonMod", "PowByNatural"])


def is_nonnegative(
    expr: sympy.Expr, origin_of: Callable[[sympy.Symbol], Origin | None], axis_of: Callable[[int], Axis]
) -> bool:
    """Whether a number is known not to be negative.

    Args:
        expr: the number.
        origin_of: symbol -> what it stands for, None if unknown.
        axis_of: axis number -> the axis.
    """
    if expr.is_Symbol:
        origin = origin_of(expr)
        if origin is not None and origin.kind in _PLACES:
            begin = axis_of(origin.index).begin
            if isinstance(begin, torch.SymInt):
                return is_nonnegative(begin.node.expr, origin_of, axis_of)
            return isinstance(begin, int) and begin >= 0
        return bool(expr.is_nonnegative) or (
            origin is not None and origin.kind in (OriginKind.BLOCK_SIZE, OriginKind.TILE_ID)
        )
    if expr.is_number:
        return bool(expr >= 0)
    if type(expr).__name__ == "PythonMod":  # of the sign of what divides
        return is_nonnegative(expr.args[1], origin_of, axis_of)
    if type(expr).__name__ == "Max":
        return any(is_nonnegative(arg, origin_of, axis_of) for arg in expr.args)
    return type(expr).__name__ in _KEEP_SIGN and all(is_nonnegative(arg, origin_of, axis_of) for arg in expr.args)
