"""Numbers as text."""

from __future__ import annotations

import sympy
from torch.utils._sympy.functions import PowByNatural

from helion.backends.expressions import ExpressionPrinter


def test_powers_of_two_by_a_symbol() -> None:
    """A shift by a symbol is either of the two, by PyTorch's release."""
    n = sympy.Symbol("n", integer=True, nonnegative=True)
    printer = ExpressionPrinter(str)
    for power in (sympy.Pow(2, n), PowByNatural(sympy.Integer(2), n)):
        assert [eval(printer.doprint(3 * power), {"n": value}) for value in (0, 1, 5)] == [3, 6, 96]
    assert printer.doprint(n**2) == "n*n"
