"""Special functions that generated Triton code calls: what PyTorch's `torch.special` has and CUDA's libdevice has not.

Approximations and their coefficients are those of the Cephes Mathematical Library (S. L. Moshier), which PyTorch uses
too, so that results agree to a few units in the last place; polynomials are computed by their recurrences.  As in
`triton_helpers`, only generated modules import this file.  Functions are of floats; names begin with `hls_`.  At the
end those of libdevice's with two operands for which subnormal numbers are 0 there.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice

#: exp(-x) I0(x) on [0, 8].
_I0E_NEAR = tl.constexpr(
    (
        -4.4153416464793395e-18,
        3.3307945188222384e-17,
        -2.431279846547955e-16,
        1.715391285555133e-15,
        -1.1685332877993451e-14,
        7.676185498604936e-14,
        -4.856446783111929e-13,
        2.95505266312964e-12,
        -1.726826291441556e-11,
        9.675809035373237e-11,
        -5.189795601635263e-10,
        2.6598237246823866e-09,
        -1.300025009986248e-08,
        6.046995022541919e-08,
        -2.670793853940612e-07,
        1.1173875391201037e-06,
        -4.4167383584587505e-06,
        1.6448448070728896e-05,
        -5.754195010082104e-05,
        0.00018850288509584165,
        -0.0005763755745385824,
        0.0016394756169413357,
        -0.004324309995050576,
        0.010546460394594998,
        -0.02373741480589947,
        0.04930528423967071,
        -0.09490109704804764,
        0.17162090152220877,
        -0.3046826723431984,
        0.6767952744094761,
    )
)

#: exp(-x) sqrt(x) I0(x) on [8, inf], in 1 / x.
_I0E_FAR = tl.constexpr(
    (
        -7.233180487874754e-18,
        -4.830504485944182e-18,
        4.46562142029676e-17,
        3.461222867697461e-17,
        -2.8276239805165836e-16,
        -3.425485619677219e-16,
        1.7725601330565263e-15,
        3.8116806693526224e-15,
        -9.554846698828307e-15,
        -4.150569347287222e-14,
        1.54008621752141e-14,
        3.8527783827421426e-13,
        7.180124451383666e-13,
        -1.7941785315068062e-12,
        -1.3215811840447713e-11,
        -3.1499165279632416e-11,
        1.1889147107846439e-11,
        4.94060238822497e-10,
        3.3962320257083865e-09,
        2.266668990498178e-08,
        2.0489185894690638e-07,
        2.8913705208347567e-06,
        6.889758346916825e-05,
        0.0033691164782556943,
        0.8044904110141088,
    )
)

#: exp(-x) I1(x) / x on [0, 8].
_I1E_NEAR = tl.constexpr(
    (
        2.7779141127610464e-18,
        -2.111421214358166e-17,
        1.5536319577362005e-16,
        -1.1055969477353862e-15,
        7.600684294735408e-15,
        -5.042185504727912e-14,
        3.223793365945575e-13,
        -1.9839743977649436e-12,
        1.1736186298890901e-11,
        -6.663489723502027e-11,
        3.625590281552117e-10,
        -1.8872497517228294e-09,
        9.381537386495773e-09,
        -4.445059128796328e-08,
        2.0032947535521353e-07,
        -8.568720264695455e-07,
        3.4702513081376785e-06,
        -1.3273163656039436e-05,
        4.781565107550054e-05,
        -0.00016176081582589674,
        0.0005122859561685758,
        -0.0015135724506312532,
        0.004156422944312888,
        -0.010564084894626197,
        0.024726449030626516,
        -0.05294598120809499,
        0.1026436586898471,
        -0.17641651835783406,
        0.25258718644363365,
    )
)

#: exp(-x) sqrt(x) I1(x) on [8, inf], in 1 / x.
_I1E_FAR = tl.constexpr(
    (
        7.517296310842105e-18,
        4.414348323071708e-18,
        -4.6503053684893586e-17,
        -3.209525921993424e-17,
        2.96262899764595e-16,
        3.3082023109209285e-16,
        -1.8803547755107825e-15,
        -3.8144030724370075e-15,
        1.0420276984128802e-14,
        4.272440016711951e-14,
        -2.1015418427726643e-14,
        -4.0835511110921974e-13,
        -7.198551776245908e-13,
        2.0356285441470896e-12,
        1.4125807436613782e-11,
        3.2526035830154884e-11,
        -1.8974958123505413e-11,
        -5.589743462196584e-10,
        -3.835380385964237e-09,
        -2.6314688468895196e-08,
        -2.512236237870209e-07,
        -3.882564808877691e-06,
        -0.00011058893876262371,
        -0.009761097491361469,
        0.7785762350182801,
    )
)

#: K0(x) + log(x / 2) I0(x) on [0, 2], in x * x.
_K0_NEAR = tl.constexpr(
    (
        1.374465435613523e-16,
        4.25981614279661e-14,
        1.0349695257633842e-11,
        1.904516377220209e-09,
        2.5347910790261494e-07,
        2.286212103119452e-05,
        0.001264615411446926,
        0.0359799365153615,
        0.3442898999246285,
        -0.5353273932339028,
    )
)

#: exp(x) sqrt(x) K0(x) on [2, inf], in 1 / x.
_K0_FAR = tl.constexpr(
    (
        5.300433772686263e-18,
        -1.6475804301524212e-17,
        5.2103915050390274e-17,
        -1.678231096805412e-16,
        5.512055978524319e-16,
        -1.848593377343779e-15,
        6.3400764774050706e-15,
        -2.2275133269916698e-14,
        8.032890775363575e-14,
        -2.9800969231727303e-13,
        1.140340588208475e-12,
        -4.514597883373944e-12,
        1.8559491149547177e-11,
        -7.957489244477107e-11,
        3.577397281400301e-10,
        -1.69753450938906e-09,
        8.574034017414225e-09,
        -4.660489897687948e-08,
        2.766813639445015e-07,
        -1.8317555227191195e-06,
        1.39498137188765e-05,
        -0.00012849549581627802,
        0.0015698838857300533,
        -0.0314481013119645,
        2.4403030820659555,
    )
)

#: x (K1(x) - log(x / 2) I1(x)) on [0, 2], in x * x.
_K1_NEAR = tl.constexpr(
    (
        -7.023863479386288e-18,
        -2.427449850519366e-15,
        -6.666901694199329e-13,
        -1.4114883926335278e-10,
        -2.213387630734726e-08,
        -2.4334061415659684e-06,
        -0.0001730288957513052,
        -0.006975723859639864,
        -0.12261118082265715,
        -0.3531559607765449,
        1.5253002273389478,
    )
)

#: exp(x) sqrt(x) K1(x) on [2, inf], in 1 / x.
_K1_FAR = tl.constexpr(
    (
        -5.756744483665017e-18,
        1.7940508731475592e-17,
        -5.689462558442859e-17,
        1.838093544366639e-16,
        -6.057047248373319e-16,
        2.038703165624334e-15,
        -7.019837090418314e-15,
        2.4771544244813043e-14,
        -8.976705182324994e-14,
        3.3484196660784293e-13,
        -1.2891739609510289e-12,
        5.13963967348173e-12,
        -2.1299678384275683e-11,
        9.218315187605006e-11,
        -4.1903547593418965e-10,
        2.015049755197033e-09,
        -1.0345762465678097e-08,
        5.7410841254500495e-08,
        -3.5019606030878126e-07,
        2.406484947837217e-06,
        -1.936197974166083e-05,
        0.00019521551847135162,
        -0.002857816859622779,
        0.10392373657681724,
        2.7206261904844427,
    )
)

#: Airy's Ai for x >= 2.09: numerator in 1 / zeta, zeta = 2/3 x sqrt(x).
_AIRY_N = tl.constexpr(
    (
        0.346538101525629,
        12.007595273964581,
        76.27960536152345,
        168.08922493463058,
        159.75639135016442,
        70.53609068404442,
        14.026469116338967,
        1.0,
    )
)

#: Its denominator.
_AIRY_D = tl.constexpr(
    (
        0.5675945326387702,
        14.75625625848472,
        84.51389701414746,
        177.31808814540045,
        164.2346928715297,
        71.47784008255756,
        14.095913560783403,
        1.0,
    )
)

#: Airy's Ai for x < -2.09: numerator of the factor of the sine, in 1 / zeta ** 2.
_AIRY_FN = tl.constexpr(
    (
        -0.1316963234183318,
        -0.6264565444319123,
        -0.6931580360369335,
        -0.2797799815451191,
        -0.04919001326095003,
        -0.004062659235948854,
        -0.0001592764962392621,
        -2.776491081552329e-06,
        -1.6778769848911465e-08,
    )
)

#: Its denominator.
_AIRY_FD = tl.constexpr(
    (
        13.356042070655324,
        32.682503279522464,
        26.736704094149957,
        9.187074029072596,
        1.4752914677166642,
        0.11568717379518804,
        0.004402916416152112,
        7.547203482874142e-05,
        4.5185009297058035e-07,
    )
)

#: The same for the factor of the cosine.
_AIRY_GN = tl.constexpr(
    (
        0.01973399320916857,
        0.39110302961568827,
        1.0657989759959559,
        0.9391692298166502,
        0.35146565610554764,
        0.06338889196289255,
        0.005858041130483885,
        0.000282851600836737,
        6.98793669997261e-06,
        8.117892395543892e-08,
        3.415517847659236e-10,
    )
)

#: Its denominator.
_AIRY_GD = tl.constexpr(
    (
        9.30892908077442,
        19.835292871831214,
        15.564662893286462,
        5.476860694229755,
        0.9542936116189619,
        0.08645808263523921,
        0.004126565238242226,
        0.00010125908511650914,
        1.1716673321441352e-06,
        4.9183457006293e-09,
    )
)


@triton.jit
def hls_number(x, value: tl.constexpr):
    """A constant in the dtype of x, where Triton's literals are of float32."""
    return tl.full([], value, x.dtype)


@triton.jit
def hls_zero(x):
    """Zeros in the shape and dtype of x: `x * 0` is nan for an infinity."""
    return tl.full(x.shape, 0.0, x.dtype)


@triton.jit
def hls_polynomial(x, terms: tl.constexpr, count: tl.constexpr):
    """A polynomial, the highest power first."""
    result = hls_zero(x)
    for i in tl.static_range(count):
        result = result * x + hls_number(x, terms[i])
    return result


@triton.jit
def hls_chebyshev_series(x, terms: tl.constexpr, count: tl.constexpr):
    """A series of Chebyshev polynomials of x / 2, the highest first, by Clenshaw's recurrence."""
    b0 = hls_zero(x) + hls_number(x, terms[0])
    b1 = hls_zero(x)
    b2 = hls_zero(x)
    for i in tl.static_range(1, count):
        b2 = b1
        b1 = b0
        b0 = x * b1 - b2 + hls_number(x, terms[i])
    return 0.5 * (b0 - b2)


@triton.jit
def hls_any(condition):
    """Whether a condition holds anywhere."""
    return tl.max(tl.ravel(condition.to(tl.int32) + tl.zeros([1], tl.int32)), 0) > 0


# -- Bessel and Airy functions ------------------------------------------------------------------------------------


@triton.jit
def hls_finite(x, result):
    """A function that PyTorch leaves undefined for infinities, where libdevice has its limit."""
    return tl.where(tl.abs(x) == float("inf"), float("nan"), result)


@triton.jit
def hls_i0e(x):
    """torch.special.i0e."""
    size = tl.abs(x)
    near = hls_chebyshev_series(size * 0.5 - 2.0, _I0E_NEAR, 30)
    far = hls_chebyshev_series(32.0 / size - 2.0, _I0E_FAR, 25) / tl.sqrt(size)
    return tl.where(size <= 8.0, near, far)


@triton.jit
def hls_i1e(x):
    """torch.special.i1e."""
    size = tl.abs(x)
    near = hls_chebyshev_series(size * 0.5 - 2.0, _I1E_NEAR, 29) * size
    far = hls_chebyshev_series(32.0 / size - 2.0, _I1E_FAR, 25) / tl.sqrt(size)
    result = tl.where(size <= 8.0, near, far)
    return tl.where(x < 0, -result, result)


@triton.jit
def hls_outside(x, result):
    """A function of x > 0 that has a pole at 0."""
    result = tl.where(x == 0, float("inf"), result)
    return tl.where(x < 0, float("nan"), result)


@triton.jit
def hls_k0_near(x):
    return hls_chebyshev_series(x * x - 2.0, _K0_NEAR, 10) - tl.log(0.5 * x) * libdevice.cyl_bessel_i0(x)


@triton.jit
def hls_k0_far(x):
    return hls_chebyshev_series(8.0 / x - 2.0, _K0_FAR, 25) / tl.sqrt(x)


@triton.jit
def hls_k1_near(x):
    return tl.log(0.5 * x) * libdevice.cyl_bessel_i1(x) + hls_chebyshev_series(x * x - 2.0, _K1_NEAR, 11) / x


@triton.jit
def hls_k1_far(x):
    return hls_chebyshev_series(8.0 / x - 2.0, _K1_FAR, 25) / tl.sqrt(x)


@triton.jit
def hls_modified_bessel_k0(x):
    """torch.special.modified_bessel_k0."""
    return hls_outside(x, tl.where(x <= 2.0, hls_k0_near(x), tl.exp(-x) * hls_k0_far(x)))


@triton.jit
def hls_scaled_modified_bessel_k0(x):
    """torch.special.scaled_modified_bessel_k0."""
    return hls_outside(x, tl.where(x <= 2.0, hls_k0_near(x) * tl.exp(x), hls_k0_far(x)))


@triton.jit
def hls_modified_bessel_k1(x):
    """torch.special.modified_bessel_k1."""
    return hls_outside(x, tl.where(x <= 2.0, hls_k1_near(x), tl.exp(-x) * hls_k1_far(x)))


@triton.jit
def hls_scaled_modified_bessel_k1(x):
    """torch.special.scaled_modified_bessel_k1."""
    return hls_outside(x, tl.where(x <= 2.0, hls_k1_near(x) * tl.exp(x), hls_k1_far(x)))


@triton.jit
def hls_airy_ai(x):
    """torch.special.airy_ai."""
    size = tl.abs(x)
    zeta = hls_number(x, 2.0 / 3.0) * size * tl.sqrt(size)
    root = tl.sqrt(tl.sqrt(size))
    unit = hls_number(x, 0.5641895835477563)  # 1 / sqrt(pi)
    inverse = 1.0 / zeta
    right = hls_polynomial(inverse, _AIRY_N, 8) / hls_polynomial(inverse, _AIRY_D, 8)
    right = unit * right / (2.0 * root * tl.exp(zeta))
    square = inverse * inverse
    sine = 1.0 + square * hls_polynomial(square, _AIRY_FN, 9) / hls_polynomial(square, _AIRY_FD, 9)
    cosine = inverse * hls_polynomial(square, _AIRY_GN, 11) / hls_polynomial(square, _AIRY_GD, 10)
    phase = zeta + hls_number(x, 0.7853981633974483)
    left = unit / root * (tl.sin(phase) * sine - tl.cos(phase) * cosine)
    # Maclaurin's series of the two solutions; beyond |x| = 2.09 it is not used.
    cube = x * x * x
    f = hls_zero(x) + 1.0
    g = x
    term_f = f
    term_g = g
    for k in tl.static_range(1, 16):
        term_f = term_f * cube / ((3 * k - 1) * (3 * k))
        term_g = term_g * cube / ((3 * k) * (3 * k + 1))
        f += term_f
        g += term_g
    middle = hls_number(x, 0.3550280538878172) * f - hls_number(x, 0.2588194037927968) * g
    result = tl.where(x < hls_number(x, -2.09), left, tl.where(x >= hls_number(x, 2.09), right, middle))
    result = tl.where(x > 103.892, 0.0, result)
    return tl.where(size == float("inf"), float("nan"), result)


@triton.jit
def hls_rounded_product(a, b):
    """a * b of float64, rounded whatever is added to it."""
    return libdevice.mul_rn(a, b)


@triton.jit
def hls_round_number(x):
    """Python's round of a float64: to the nearest integer, ties to the even one."""
    return libdevice.rint(x)


@triton.jit
def hls_atan2(a, b):
    """torch.atan2: of two small numbers, which libdevice takes for 0 where float32 is subnormal, that of larger ones;
    of small angles the quotient.
    """
    if (a + b).dtype.primitive_bitwidth == 64:
        return libdevice.atan2(a, b)
    else:
        scale = tl.where((tl.abs(a) < 2.0**-60) & (tl.abs(b) < 2.0**-60), 2.0**64, 1.0)
        found = libdevice.atan2(a * scale, b * scale)
        above, below = tl.broadcast(a, b)
        return tl.where(tl.abs(a) * 2.0**30 < b, tl.div_rn(above, below), found)


@triton.jit
def hls_hypot(a, b):
    """torch.hypot: of two small numbers that of larger ones, as `hls_atan2`."""
    if (a + b).dtype.primitive_bitwidth == 64:
        return libdevice.hypot(a, b)
    else:
        small = (tl.abs(a) < 2.0**-60) & (tl.abs(b) < 2.0**-60)
        scale = tl.where(small, 2.0**64, 1.0)
        return libdevice.hypot(a * scale, b * scale) * tl.where(small, 2.0**-64, 1.0)


@triton.jit
def hls_pow(a, b):
    """torch.pow of float32 and float64. libdevice takes subnormal numbers of float32 for 0: of such a base it gets a
    larger one, and what a small result is the square of.
    """
    if (a + b).dtype.primitive_bitwidth == 64:
        return libdevice.pow(a, b)
    else:
        a, b = tl.broadcast(a, b)
        size = tl.abs(a)
        tiny = (size < 2.0**-126) & (size > 0)
        base = tl.where(tiny, size * 2.0**32, size)
        logarithm = tl.log2(base) * b
        apart = tiny | ((logarithm < -110) & (logarithm > -200))
        found = libdevice.pow(tl.where(apart, base, a), tl.where(apart, 0.5 * b, b))
        square = found * found * tl.where(tiny, tl.exp2(-32 * b), 1.0)
        half = 0.5 * b
        signed = tl.where(tl.floor(half) == half, square, tl.where(tl.floor(b) == b, -square, float("nan")))
        return tl.where(apart, tl.where(a < 0, signed, square), found)
