"""Which ATen ops are pointwise, and in which dtype each computes.

`PROMOTION` maps every pointwise op the IR may hold to PyTorch's own promotion kind
(`torch._prims_common.ELEMENTWISE_TYPE_PROMOTION_KIND`).  The tracer uses it to put explicit casts around the
op, so that nothing after it ever promotes a type again.
"""

from __future__ import annotations

import torch

from .._compat_tracing import ELEMENTWISE_TYPE_PROMOTION_KIND as Kind

_aten = torch.ops.aten

_DEFAULT = """
abs.default neg.default sign.default floor.default ceil.default round.default trunc.default relu.default
add.Tensor add.Scalar sub.Tensor sub.Scalar mul.Tensor mul.Scalar maximum.default minimum.default
fmax.default fmin.default remainder.Tensor remainder.Scalar fmod.Tensor fmod.Scalar
div.Tensor_mode div.Scalar_mode floor_divide.default
bitwise_and.Tensor bitwise_or.Tensor bitwise_xor.Tensor bitwise_and.Scalar bitwise_or.Scalar bitwise_xor.Scalar
bitwise_not.default bitwise_left_shift.Tensor bitwise_right_shift.Tensor
bitwise_left_shift.Tensor_Scalar bitwise_right_shift.Tensor_Scalar
bitwise_left_shift.Scalar_Tensor bitwise_right_shift.Scalar_Tensor
clamp.default clamp.Tensor clamp_min.default clamp_max.default nextafter.default
gcd.default
"""
_INT_TO_FLOAT = """
div.Tensor div.Scalar exp.default exp2.default expm1.default log.default log2.default log10.default log1p.default
sqrt.default rsqrt.default reciprocal.default sin.default cos.default tan.default
asin.default acos.default atan.default atan2.default sinh.default cosh.default tanh.default
asinh.default acosh.default atanh.default sigmoid.default erf.default erfc.default
erfinv.default lgamma.default digamma.default hypot.default copysign.Tensor
i0.default special_i0e.default special_i1.default special_i1e.default
special_bessel_j0.default special_bessel_j1.default special_bessel_y0.default special_bessel_y1.default
special_modified_bessel_i0.default special_modified_bessel_i1.default
special_modified_bessel_k0.default special_modified_bessel_k1.default
special_scaled_modified_bessel_k0.default special_scaled_modified_bessel_k1.default
special_airy_ai.default special_erfcx.default special_ndtri.default
"""
_OF_TWO = """
special_zeta.default igamma.default igammac.default
special_chebyshev_polynomial_t.default special_chebyshev_polynomial_u.default
special_chebyshev_polynomial_v.default special_chebyshev_polynomial_w.default
special_shifted_chebyshev_polynomial_t.default special_shifted_chebyshev_polynomial_u.default
special_shifted_chebyshev_polynomial_v.default special_shifted_chebyshev_polynomial_w.default
special_hermite_polynomial_h.default special_hermite_polynomial_he.default
special_laguerre_polynomial_l.default special_legendre_polynomial_p.default
"""
_POW = "pow.Tensor_Tensor pow.Tensor_Scalar pow.Scalar"
_BOOL = """
eq.Tensor ne.Tensor lt.Tensor le.Tensor gt.Tensor ge.Tensor eq.Scalar ne.Scalar lt.Scalar le.Scalar gt.Scalar ge.Scalar
logical_and.default logical_or.default logical_xor.default logical_not.default isnan.default isinf.default
signbit.default
"""


def _rows(names: str, kind: Kind) -> dict[torch._ops.OpOverload, Kind]:
    rows = {}
    for name in names.split():
        packet, overload = name.split(".")
        rows[getattr(getattr(_aten, packet), overload)] = kind
    return rows


PROMOTION: dict[torch._ops.OpOverload, Kind] = {
    **_rows(_DEFAULT, Kind.DEFAULT),
    **_rows(f"{_INT_TO_FLOAT} {_OF_TWO}", Kind.INT_TO_FLOAT),
    **_rows(_POW, Kind.BOOL_TO_LONG),
    **_rows(_BOOL, Kind.ALWAYS_BOOL),
}

#: Special functions of two operands.
SPECIAL_OF_TWO: frozenset[torch._ops.OpOverload] = frozenset(_rows(_OF_TWO, Kind.INT_TO_FLOAT))

#: Comparisons of values.
COMPARISONS: frozenset[torch._ops.OpOverload] = frozenset(
    getattr(getattr(_aten, name), of) for name in ("eq", "ne", "lt", "le", "gt", "ge") for of in ("Tensor", "Scalar")
)

#: Ops whose operands PyTorch makes of one dtype first on all devices, numbers too.
OF_ONE_DTYPE: frozenset[torch._ops.OpOverload] = COMPARISONS | {_aten.remainder.Scalar, _aten.fmod.Scalar}

WHERE = _aten.where.self
CONVERT = torch.ops.prims.convert_element_type.default
BITCAST = _aten.view.dtype
#: The same value, as something that the compiler does not recognise (`packed_rows`).
AGAIN = _aten.alias.default

#: Pointwise in the sense of the analyses: each output element depends on the same element of each input.
POINTWISE: frozenset[torch._ops.OpOverload] = frozenset([*PROMOTION, WHERE, CONVERT, BITCAST, AGAIN])

# Dtypes an op has no meaning for (PyTorch's CPU kernels say "not implemented for"); fake tensors do not check.
NO_FLOAT = frozenset(
    _rows(
        "bitwise_and.Tensor bitwise_or.Tensor bitwise_xor.Tensor bitwise_and.Scalar "
        "bitwise_or.Scalar bitwise_xor.Scalar"
        " bitwise_not.default bitwise_left_shift.Tensor bitwise_right_shift.Tensor"
        " bitwise_left_shift.Tensor_Scalar bitwise_right_shift.Tensor_Scalar"
        " bitwise_left_shift.Scalar_Tensor bitwise_right_shift.Scalar_Tensor",
        Kind.DEFAULT,
    )
)
NO_BOOL = frozenset(
    _rows("neg.default sub.Tensor sub.Scalar bitwise_left_shift.Tensor bitwise_right_shift.Tensor", Kind.DEFAULT)
)


#: Of 8-bit floats PyTorch has no arithmetic, and it does not promote them; these tell or compare them.
FLOATS8 = frozenset({torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz})
OF_FLOATS8: frozenset[torch._ops.OpOverload] = frozenset(
    _rows("eq.Tensor eq.Scalar ne.Tensor ne.Scalar isnan.default", Kind.ALWAYS_BOOL)
)


def short_name(op: torch._ops.OpOverload) -> str:
    """What a user calls an ATen op."""
    return "torch." + op.name().split("::")[1].split(".")[0]


def unsupported_dtype(op: torch._ops.OpOverload, dtype: torch.dtype) -> bool:
    """Whether `op` computing in `dtype` has no meaning in PyTorch."""
    if dtype.is_complex:
        return True
    if op in NO_FLOAT and dtype.is_floating_point:
        return True
    return op in NO_BOOL and dtype is torch.bool
