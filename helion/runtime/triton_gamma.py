"""Functions of the gamma family that generated Triton code calls: digamma, zeta, the incomplete gamma functions.

As in `triton_special`, whose approximations these share their source with; names begin with `hlg_`.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice

from .triton_special import hls_any
from .triton_special import hls_number
from .triton_special import hls_polynomial
from .triton_special import hls_zero

#: (2 k)! / B(2 k), k = 1, 2, ...: the terms of the Euler-Maclaurin formula.
_ZETA = tl.constexpr(
    (
        12.0,
        -720.0,
        30240.0,
        -1209600.0,
        47900160.0,
        -1892437580.3183792,
        74724249600.0,
        -2950130727918.164,
        116467828143500.67,
        -4597978722407473.0,
        1.8152105401943546e17,
        -7.166165256175667e18,
    )
)
#: B(2 k) / (2 k), k = 7, ..., 1: the asymptotic series.
_DIGAMMA = tl.constexpr(
    (
        0.08333333333333333,
        -0.021092796092796094,
        0.007575757575757576,
        -0.004166666666666667,
        0.003968253968253968,
        -0.008333333333333333,
        0.08333333333333333,
    )
)


@triton.jit
def hlg_digamma(x):
    """torch.digamma."""
    y = tl.where(x < 0, 1.0 - x, x)
    result = hls_zero(x)
    for _ in tl.static_range(10):
        small = y < 10.0
        result -= tl.where(small, 1.0 / y, 0.0)
        y = tl.where(small, y + 1.0, y)
    square = 1.0 / (y * y)
    result = result + tl.log(y) - 0.5 / y - square * hls_polynomial(square, _DIGAMMA, 7)
    whole = libdevice.trunc(x)
    pi = hls_number(x, 3.141592653589793)
    result = tl.where(x < 0, result - pi / libdevice.tan(pi * (x - whole)), result)
    result = tl.where((x < 0) & (x == whole), float("nan"), result)
    return tl.where(x == 0, -libdevice.copysign(hls_zero(x) + float("inf"), x), result)


@triton.jit
def hlg_zeta(x, q):
    """torch.special.zeta: the sum of (q + k) ** -x over k >= 0, in float64 as PyTorch does on a CPU."""
    dtype = (x + q).dtype
    x, q = tl.broadcast(x.to(tl.float64), q.to(tl.float64))
    pole = (x == 1.0) | ((q <= 0) & (q == tl.floor(q)))
    undefined = (x < 1.0) | ((q <= 0) & (q != tl.floor(q)) & (x != tl.floor(x))) | (x != x) | (q != q)
    done = pole | undefined
    total = libdevice.pow(q, -x)
    a = q
    b = hls_zero(q)
    k = 0
    more = ~done
    while hls_any(more):  # nine terms, or as many as there are for arguments below 9
        a = tl.where(more, a + 1.0, a)
        b = tl.where(more, libdevice.pow(a, -x), b)
        total = tl.where(more, total + b, total)
        done = done | (more & (tl.abs(b) < hls_number(x, 1.1102230246251565e-16) * total))
        k += 1
        more = ~done & ((a <= 9.0) | (k < 9))
    total = tl.where(done, total, total + (b * a / (x - 1.0) - 0.5 * b))
    factor = hls_zero(x) + 1.0
    power = b
    for i in tl.static_range(12):
        factor = factor * (x + 2 * i)
        power = power / a
        term = factor * power / hls_number(x, _ZETA[i])
        total = tl.where(done, total, total + term)
        done = done | (tl.abs(term) < hls_number(x, 1.1102230246251565e-16) * tl.abs(total))
        factor = factor * (x + (2 * i + 1))
        power = power / a
    total = tl.where(undefined, float("nan"), total)
    return tl.where(x < 1.0, float("nan"), tl.where(pole, float("inf"), total)).to(dtype)


@triton.jit
def hlg_igamma(a, x, upper: tl.constexpr):
    """torch.special.gammainc, or gammaincc: by its series below the maximum, by its continued fraction above, in
    float64: the factor of both is a small difference of large numbers.
    """
    dtype = (a + x).dtype
    a, x = tl.broadcast(a.to(tl.float64), x.to(tl.float64))
    usual = (a > 0) & (x > 0) & (a < float("inf")) & (x < float("inf"))
    by_fraction = usual & (x > 1.0) & (x > a)
    epsilon = hls_number(x, 1.1102230246251565e-16)
    factor = tl.exp(a * tl.log(x) - x - libdevice.lgamma(a))
    r = a
    term = hls_zero(x) + 1.0
    total = term
    more = usual & ~by_fraction
    k = 0
    while hls_any(more) & (k < 100000):
        r += 1.0
        term = tl.where(more, term * x / r, term)
        total = tl.where(more, total + term, total)
        more = more & (term > epsilon * total)
        k += 1
    lower = factor * total / a
    # Numerators and denominators of two successive convergents, scaled down before they overflow.
    y = 1.0 - a
    z = x + y + 1.0
    p2 = hls_zero(x) + 1.0
    q2 = x
    p1 = x + 1.0
    q1 = z * x
    convergent = p1 / q1
    more = by_fraction
    k = 0
    while hls_any(more) & (k < 100000):
        k += 1
        y += 1.0
        z += 2.0
        p = p1 * z - p2 * (y * k)
        q = q1 * z - q2 * (y * k)
        new = tl.where(q != 0, p / q, convergent)
        close = (q != 0) & (tl.abs(convergent - new) <= epsilon * tl.abs(new))
        convergent = tl.where(more, new, convergent)
        scale = tl.where(tl.abs(p) > 4503599627370496.0, hls_number(x, 2.0**-52), 1.0)
        p2 = p1 * scale
        q2 = q1 * scale
        p1 = p * scale
        q1 = q * scale
        more = more & ~close
    above = factor * convergent
    lower = tl.where(by_fraction, 1.0 - above, lower)
    above = tl.where(by_fraction, above, 1.0 - lower)
    # All mass is at 0 for a = 0, and at infinity for a = infinity.
    least = (x == 0) | (a == float("inf"))
    most = (a == 0) | (x == float("inf"))
    if upper:
        result = tl.where(usual, above, tl.where(least, 1.0, 0.0))
    else:
        result = tl.where(usual, lower, tl.where(least, 0.0, 1.0))
    undefined = (least & most) | (a < 0) | (x < 0) | ((a == 0) & (x != x)) | ~(usual | least | most)
    return tl.where(undefined, float("nan"), result).to(dtype)
