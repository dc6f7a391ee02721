"""Rules for special functions that are others in disguise; what the IR holds of them is in `ir.pointwise`."""

from __future__ import annotations

import math
from typing import Any

import torch

from .. import exc
from .decompositions import rule

_aten = torch.ops.aten

#: Functions of two operands, of which one may be a number.
_OF_TWO = [
    _aten.special_zeta,
    *(getattr(_aten, f"special_{s}chebyshev_polynomial_{letter}") for s in ("", "shifted_") for letter in "tuvw"),
    *(getattr(_aten, f"special_hermite_polynomial_{letter}") for letter in ("h", "he")),
    _aten.special_laguerre_polynomial_l,
    _aten.special_legendre_polynomial_p,
]


def _floats(x: torch.Tensor) -> torch.Tensor:
    return x if x.dtype.is_floating_point else x.to(torch.get_default_dtype())


def _with_tensors(op: Any) -> Any:
    def of_tensors(a: Any, b: Any) -> torch.Tensor:
        like = _floats(a if isinstance(a, torch.Tensor) else b)
        a, b = (v if isinstance(v, torch.Tensor) else torch.full((), v, dtype=like.dtype) for v in (a, b))
        result: torch.Tensor = op.default(a, b)
        return result

    return of_tensors


for _op in _OF_TWO:
    rule(*(getattr(_op, name) for name in _op.overloads() if name.endswith("_scalar")))(_with_tensors(_op))


@rule(_aten.polygamma.default)
def _polygamma(n: int, x: torch.Tensor) -> torch.Tensor:
    if n < 0:
        raise exc.InvalidAPIUsage(f"torch.polygamma: n = {n} is negative", fix="n is 0 or a positive constant.")
    x = _floats(x)
    if n == 0:
        return torch.digamma(x)
    if n == 1:
        return _trigamma(x)
    factor = math.factorial(n) if n < 170 else math.inf
    return torch.special.zeta(n + 1, x) * (float(factor) if n % 2 else -float(factor))


def _trigamma(x: torch.Tensor) -> torch.Tensor:
    """By reflection to x >= 0.5, the recurrence to x >= 6.5 and the asymptotic series."""
    wide = x.to(torch.float32) if x.dtype in (torch.float16, torch.bfloat16) else x
    reflected = wide < 0.5
    sine = torch.sin(wide * math.pi)
    y = torch.where(reflected, 1 - wide, wide)
    total = torch.zeros_like(wide)
    for _ in range(6):
        total = total + 1 / (y * y)
        y = y + 1
    inverse = 1 / (y * y)
    total = total + (1 + 1 / (2 * y) + inverse * (1 / 6 - inverse * (1 / 30 - inverse * (1 / 42)))) / y
    return torch.where(reflected, math.pi**2 / (sine * sine) - total, total).to(x.dtype)


@rule(_aten.special_spherical_bessel_j0.default)
def _spherical_bessel_j0(x: torch.Tensor) -> torch.Tensor:
    x = _floats(x)
    square = x * x
    series = torch.zeros_like(x)
    for k in range(6, -1, -1):  # sin(x) / x
        series = series * square + (-1) ** k / math.factorial(2 * k + 1)
    result = torch.where(torch.abs(x) < 0.5, series, torch.sin(x) / x)
    return torch.where(torch.isinf(x), torch.zeros_like(x), result)
