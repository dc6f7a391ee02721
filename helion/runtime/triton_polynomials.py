"""Orthogonal polynomials of computed degree that generated Triton code calls: those of `torch.special`.

They are computed by their recurrences, those of Chebyshev from a degree on by their closed form, as in PyTorch.  The
recurrence runs for the highest degree of a tile.  As in `triton_helpers`, only generated modules import this file.
Functions are of floats, the degree included; names begin with `hlp_`.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice

from .triton_special import hls_any
from .triton_special import hls_zero


@triton.jit
def hlp_degree(n):
    """A degree as an integer; none for nan and infinities."""
    return tl.where(tl.abs(n) < 9.0e18, n, -1.0).to(tl.int64)


@triton.jit
def hlp_chebyshev(x, n, kind: tl.constexpr, shifted: tl.constexpr):
    """torch.special.chebyshev_polynomial_{t, u, v, w} for kinds 0 to 3, and the shifted ones."""
    x, n = tl.broadcast(x, n)
    if shifted:
        x = x + x - 1.0
    degree = hlp_degree(n)
    order = degree.to(x.dtype)
    sign = tl.where(degree % 2 == 0, hls_zero(x) + 1.0, hls_zero(x) - 1.0)
    angle = libdevice.acos(x)
    if kind == 0:
        first, one, closed = x, hls_zero(x) + 1.0, tl.cos(order * angle)
        minus_one = sign
    elif kind == 1:
        first, one, closed = x + x, order + 1.0, tl.sin((order + 1.0) * angle) / tl.sin(angle)
        minus_one = sign * (order + 1.0)
    elif kind == 2:
        first, one, closed = x + x - 1.0, hls_zero(x) + 1.0, tl.cos((order + 0.5) * angle) / tl.cos(angle * 0.5)
        minus_one = sign * (order + order + 1.0)
    else:
        first, one, closed = x + x + 1.0, order + order + 1.0, tl.sin((order + 0.5) * angle) / tl.sin(angle * 0.5)
        minus_one = sign
    use_closed = (degree > 8) & (tl.abs(x) < 1.0)
    before = hls_zero(x) + 1.0
    last = first
    k = 2
    more = (degree >= k) & ~use_closed & (tl.abs(x) != 1.0) & (last == last)
    while hls_any(more):
        new = (x + x) * last - before
        before = tl.where(more, last, before)
        last = tl.where(more, new, last)
        k += 1
        more = more & (degree >= k) & (last == last)
    result = tl.where(degree == 0, hls_zero(x) + 1.0, tl.where(use_closed, closed, last))
    result = tl.where(x == 1.0, one, tl.where(x == -1.0, minus_one, result))
    return tl.where(degree < 0, 0.0, result)


@triton.jit
def hlp_orthogonal(x, n, kind: tl.constexpr):
    """torch.special's hermite_polynomial_h and _he, laguerre_polynomial_l and legendre_polynomial_p: kinds 0 to 3."""
    x, n = tl.broadcast(x, n)
    degree = hlp_degree(n)
    before = hls_zero(x) + 1.0
    limit = (1 << 62) + 0 * degree
    if kind == 0:
        last = x + x
    elif kind == 2:
        last = 1.0 - x
    else:
        last = x
    if kind < 2:  # PyTorch's limits
        if x.dtype.primitive_bitwidth == 64:
            limit = 512 + 0 * degree
        else:
            limit = 128 + 0 * degree
    k = 1
    more = (degree > k) & (degree <= limit)
    while hls_any(more):
        number = (degree * 0 + k).to(x.dtype)
        if kind == 0:
            new = (x + x) * last - 2.0 * number * before
        elif kind == 1:
            new = x * last - number * before
        elif kind == 2:
            new = ((number + number + (1.0 - x)) * last - number * before) / (number + 1.0)
        else:
            new = ((number + number + 1.0) * x * last - number * before) / (number + 1.0)
        before = tl.where(more, last, before)
        last = tl.where(more, new, last)
        k += 1
        more = more & (degree > k) & (last == last)
    result = tl.where(degree == 0, hls_zero(x) + 1.0, last)
    result = tl.where(degree > limit, float("nan"), result)
    if kind == 2:
        result = tl.where(x == 0, 1.0, result)
    if kind == 3:
        ends = tl.where((x > 0) | (degree % 2 == 0), hls_zero(x) + 1.0, hls_zero(x) - 1.0)
        result = tl.where(tl.abs(x) == 1.0, ends, result)
    return tl.where(degree < 0, 0.0, result)
