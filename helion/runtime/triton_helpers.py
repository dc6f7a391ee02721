"""Device functions that generated Triton code calls: arithmetic with eager PyTorch's meaning, and the grid's barrier.

Triton's own integer division truncates and its maximum drops nan; PyTorch's does neither.  Only generated modules
import this file (it needs Triton).
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice


@triton.jit
def hlt_floor(x):
    """The largest integer that is not above x; Triton's of float32 takes subnormal numbers for 0."""
    if x.dtype.primitive_bitwidth == 64:
        return tl.floor(x)
    else:
        tl.static_assert(x.dtype == tl.float32, "an instruction for float32")
        return tl.inline_asm_elementwise("cvt.rmi.f32.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)


@triton.jit
def hlt_ceil(x):
    """The smallest integer that is not below x, as `hlt_floor`."""
    if x.dtype.primitive_bitwidth == 64:
        return tl.ceil(x)
    else:
        tl.static_assert(x.dtype == tl.float32, "an instruction for float32")
        return tl.inline_asm_elementwise("cvt.rpi.f32.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)


@triton.jit
def hlt_rsqrt(x):
    """1 / sqrt(x) by the instruction that eager PyTorch has; Triton's of float32 takes subnormal numbers for 0."""
    if x.dtype.primitive_bitwidth == 64:
        return tl.rsqrt(x)
    else:
        tl.static_assert(x.dtype == tl.float32, "an instruction for float32")
        return tl.inline_asm_elementwise("rsqrt.approx.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)


@triton.jit
def hlt_linear_near_zero(x, y, SLOPE: tl.constexpr):
    """y, a function of x by libdevice, or x * SLOPE where x is subnormal in float32, which libdevice takes for 0."""
    if x.dtype.primitive_bitwidth == 64:
        return y
    else:
        return tl.where(tl.abs(x) < 2.0**-126, x * SLOPE, y)


@triton.jit
def hlt_lgamma(x):
    """torch.lgamma: near 0 it is -log|x|, also where float32 is subnormal, which libdevice takes for 0."""
    found = libdevice.lgamma(x)
    if x.dtype.primitive_bitwidth == 64:
        return found
    else:
        return tl.where((tl.abs(x) < 2.0**-126) & (x != 0), -tl.log(tl.abs(x)), found)


@triton.jit
def hlt_nextafter(a, b):
    """torch.nextafter: in float32 by the bits, as libdevice takes subnormal numbers for 0."""
    if (a + b).dtype.primitive_bitwidth == 64:
        return libdevice.nextafter(a, b)
    else:
        bits = a.to(tl.int32, bitcast=True)
        bits = tl.where((a < b) == (a > 0), bits + 1, bits - 1)
        first = tl.where(b > 0, 1, -(2**31) + 1).to(tl.int32)  # the smallest number of either sign
        found = tl.where(a == 0, first, bits).to(tl.float32, bitcast=True)
        return tl.where(a == b, b, tl.where((a != a) | (b != b), a + b, found))


@triton.jit
def hlt_quotient(a, b):
    """a / b rounded to nearest, as IEEE 754 has it: Triton's `/` of float32 is not, and its div_rn takes float32
    alone.
    """
    if (a + b).dtype.primitive_bitwidth == 64:
        return a / b
    else:
        return tl.div_rn(a, b)


@triton.jit
def hlt_quotient_of_row(a, b):
    """a / b in float32 with the bits of tl.div_rn, where many a have one b.

    With z = 1 / b rounded correctly and q = a * z, `q + (a - q * b) * z` in two fused operations is the quotient
    rounded correctly (Markstein 1990; Brisebarre, Muller and Raina 2004), as long as `a - q * b` is exact and nothing
    underflows or overflows.  So it is where z is a normal number and the result is not too small; elsewhere, and for
    nan and zeros, whose sign would be lost, four elements are divided one by one.  That is 5 instructions an element
    instead of 20, which is as much as the rest of a softmax.
    """
    tl.static_assert((a.dtype == tl.float32) & (b.dtype == tl.float32), "instructions for float32")
    if a.numel < 4:
        return tl.div_rn(a, b)  # the operation below takes four elements at a time, and no fewer
    else:
        return _quotient_of_row(a, b)


@triton.jit
def _quotient_of_row(a, b):
    z = tl.div_rn(1.0, b)
    # An inverse that is not normal makes every result nan, which is not `ge` anything.
    z = tl.where((tl.abs(b) >= 2.0**-126) & (tl.abs(b) <= 2.0**125), z, float("nan"))
    # |a| is at least 2**-100 then: what a - q * b has to be a multiple of is a float32.
    least = tl.maximum(tl.abs(z) * 2.0**-100, 2.0**-124)
    return tl.inline_asm_elementwise(
        """
        {
        .reg .pred fine;
        .reg .f32 q<4>, r<4>, m<4>;
        mul.rn.f32 q0, $4, $12;
        mul.rn.f32 q1, $5, $13;
        mul.rn.f32 q2, $6, $14;
        mul.rn.f32 q3, $7, $15;
        neg.f32 m0, $8;
        neg.f32 m1, $9;
        neg.f32 m2, $10;
        neg.f32 m3, $11;
        fma.rn.f32 r0, q0, m0, $4;
        fma.rn.f32 r1, q1, m1, $5;
        fma.rn.f32 r2, q2, m2, $6;
        fma.rn.f32 r3, q3, m3, $7;
        fma.rn.f32 $0, r0, $12, q0;
        fma.rn.f32 $1, r1, $13, q1;
        fma.rn.f32 $2, r2, $14, q2;
        fma.rn.f32 $3, r3, $15, q3;
        abs.f32 m0, $0;
        abs.f32 m1, $1;
        abs.f32 m2, $2;
        abs.f32 m3, $3;
        setp.ge.f32 fine, m0, $16;
        setp.ge.and.f32 fine, m1, $17, fine;
        setp.ge.and.f32 fine, m2, $18, fine;
        setp.ge.and.f32 fine, m3, $19, fine;
        @fine bra done;
        div.rn.f32 $0, $4, $8;
        div.rn.f32 $1, $5, $9;
        div.rn.f32 $2, $6, $10;
        div.rn.f32 $3, $7, $11;
        done:
        }
        """,
        "=&f,=&f,=&f,=&f," + "f,f,f,f," * 3 + "f,f,f,f",
        [a, b, z, least],
        dtype=tl.float32,
        is_pure=True,
        pack=4,
    )


@triton.jit
def hlt_div_trunc_float(a, b):
    """torch.div(a, b, rounding_mode="trunc") for floats."""
    return libdevice.trunc(hlt_quotient(a, b))


@triton.jit
def hlt_div_floor_float(a, b):
    """torch.floor_divide for floats: computed from fmod, as PyTorch does (c10/util/generic_math.h)."""
    remainder = hlt_fmod_float(a, b)
    quotient = hlt_quotient(a - remainder, b)
    quotient = tl.where((remainder != 0) & ((b < 0) != (remainder < 0)), quotient - 1.0, quotient)
    floored = hlt_floor(quotient)
    floored = tl.where(quotient - floored > 0.5, floored + 1.0, floored)
    exact = hlt_quotient(a, b)
    return tl.where(quotient == 0, libdevice.copysign(exact * 0.0, exact), tl.where(b == 0, exact, floored))


@triton.jit
def hlt_div_trunc_int(a, b):
    """torch.div(a, b, rounding_mode="trunc") for integers."""
    return a // b


@triton.jit
def hlt_div_floor_int(a, b):
    """torch.floor_divide for integers: rounds down, where `//` on the device truncates."""
    quotient = a // b
    remainder = a % b
    return tl.where((remainder != 0) & ((remainder < 0) != (b < 0)), quotient - 1, quotient)


@triton.jit
def hlt_remainder_int(a, b):
    """torch.remainder for integers: the sign of the divisor."""
    remainder = a % b
    return tl.where((remainder != 0) & ((remainder < 0) != (b < 0)), remainder + b, remainder)


@triton.jit
def hlt_gcd(a, b):
    """torch.gcd of two tensors of one dtype: Euclid's algorithm, of as many steps as its integers may need."""
    a, b = tl.broadcast(a, b)
    a = tl.where(a < 0, -a, a)
    b = tl.where(b < 0, -b, b)
    for _ in range(a.dtype.primitive_bitwidth * 3 // 2):
        rest = tl.where(a == 0, 0, b % tl.where(a == 0, 1, a)).to(a.dtype)
        b = tl.where(a == 0, b, a)
        a = rest
    return b


@triton.jit
def hlt_remainder_float(a, b):
    """torch.remainder for floats: the sign of the divisor."""
    remainder = hlt_fmod_float(a, b)
    return tl.where((remainder != 0) & ((remainder < 0) != (b < 0)), remainder + b, remainder)


@triton.jit
def hlt_fmod_float(a, b):
    """torch.fmod for floats: the sign of the dividend.

    libdevice's of float32 takes subnormal numbers for 0.  A smaller dividend is the remainder; where the divisor is
    small, both are made larger by a power of two, which changes no digit.
    """
    if (a + b).dtype.primitive_bitwidth == 64:
        return libdevice.fmod(a, b)
    else:
        small = (tl.abs(b) < 2.0**-100) & (tl.abs(a) < 2.0**100)
        scale = tl.where(small, 2.0**24, 1.0)
        inverse = tl.where(small, 2.0**-24, 1.0)
        found = libdevice.fmod(a * scale, b * scale) * inverse
        return tl.where(tl.abs(a) < tl.abs(b), a, found)


@triton.jit
def hlt_sign_float(a):
    """torch.sign for floats; nan stays nan as 0 (PyTorch gives 0 for nan)."""
    return (a > 0).to(a.dtype) - (a < 0).to(a.dtype)


@triton.jit
def hlt_sign_int(a):
    """torch.sign for integers."""
    return (a > 0).to(a.dtype) - (a < 0).to(a.dtype)


@triton.jit
def hlt_pow_int(a, b):
    """Integer power, wrapping, by repeated squaring.  Of negative exponents only 1 and -1 have one, the others give
    0.
    """
    base, exponent = tl.broadcast(a, b)
    result = base * 0 + 1
    rest = exponent
    square = base
    for _ in range(base.dtype.primitive_bitwidth):
        result = tl.where((rest & 1) != 0, result * square, result)
        square = square * square
        rest = rest >> 1
    unit = tl.where((exponent & 1) != 0, base, base * base)
    return tl.where(exponent < 0, tl.where(base * base == 1, unit, 0), result)


@triton.jit
def hlt_pow_number(a, b):
    """Power of Python's numbers of which one is known only here, floats."""
    return libdevice.pow(a, b)


@triton.jit
def hlt_shift_left(a, b):
    """torch.bitwise_left_shift: 0 for amounts that are negative or not below the width."""
    outside = (b < 0) | (b >= a.dtype.primitive_bitwidth)
    return tl.where(outside, 0, a << tl.where(outside, 0, b)).to(a.dtype)


@triton.jit
def hlt_shift_right(a, b):
    """torch.bitwise_right_shift: nothing but sign bits (0 if unsigned) for amounts that are negative or not below the
    width.
    """
    outside = (b < 0) | (b >= a.dtype.primitive_bitwidth)
    if a.dtype.is_int_signed():
        rest = a >> (a.dtype.primitive_bitwidth - 1)
    else:
        rest = a * 0
    return tl.where(outside, rest, a >> tl.where(outside, 0, b)).to(a.dtype)


@triton.jit
def hlt_max_nan(a, b):
    """Maximum of two floats that passes nan on, for tl.reduce."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def hlt_min_nan(a, b):
    """Minimum of two floats that passes nan on, for tl.reduce."""
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def hlt_multiply(a, b):
    """Product, for tl.reduce."""
    return a * b


@triton.jit
def hlt_rounded_add(a, b):
    """a + b, never joined to the product that one of them is, for tl.reduce.

    Lanes that hold one element each begin with `p + other`, and LLVM computes its own p again in an fma: each lane of a
    pair rounds the other's product and not its own, and lanes that decide by the sum go different ways.
    """
    if a.dtype.primitive_bitwidth == 64:
        return tl.inline_asm_elementwise("add.rn.f64 $0, $1, $2;", "=d,d,d", [a, b], tl.float64, True, 1)
    else:
        tl.static_assert(a.dtype == tl.float32, "an instruction for float32")
        return tl.inline_asm_elementwise("add.rn.f32 $0, $1, $2;", "=f,f,f", [a, b], tl.float32, True, 1)


@triton.jit
def hlt_apart(x):
    """x, bit for bit: no pass joins what is done with it to what made it. It costs no instruction."""
    if x.dtype.primitive_bitwidth == 64:
        return x.to(tl.int64, bitcast=True).to(x.dtype, bitcast=True)
    elif x.dtype.primitive_bitwidth == 32:
        return x.to(tl.int32, bitcast=True).to(x.dtype, bitcast=True)
    else:
        return x.to(tl.int16, bitcast=True).to(x.dtype, bitcast=True)


@triton.jit
def hlt_in_order(x):
    """x, 1-d, whose elements no pass puts in another order."""
    return tl.where(tl.arange(0, x.shape[0]) >= 0, x, tl.zeros_like(x))


@triton.jit
def hlt_second(a, b):
    """b: a scan with this is its operand."""
    return b


@triton.jit
def hlt_detached(x):
    """x, a vector, bit for bit: no pass sees what made it."""
    return tl.associative_scan(x, 0, hlt_second)


@triton.jit
def hlt_argmax_combine(a, i, b, j):
    """The larger value with its index; nan counts as largest, ties take the smaller index, as torch.argmax."""
    better = (a > b) | ((a != a) & (b == b)) | (((a == b) | ((a != a) & (b != b))) & (i < j))
    return tl.where(better, a, b), tl.where(better, i, j)


@triton.jit
def hlt_argmin_combine(a, i, b, j):
    """The smaller value with its index; nan counts as smallest, ties take the smaller index, as torch.argmin."""
    better = (a < b) | ((a != a) & (b == b)) | (((a == b) | ((a != a) & (b != b))) & (i < j))
    return tl.where(better, a, b), tl.where(better, i, j)


@triton.jit
def hlt_opaque(x):
    """x, of 16 to 64 bits, as something that the compiler knows nothing of: a computed operand of a product.

    Triton 3.6 and 3.7 lay the operands out for the width at which they were loaded.  They assert in float64 products
    ("fp64 don't support largeK MMA") where that was 16 bits or fewer, and multiply wrong elements of 16 joined bytes.
    """
    if x.dtype.primitive_bitwidth == 64:
        return tl.inline_asm_elementwise("mov.b64 $0, $1;", "=d,d", [x], x.dtype, False, 1)
    elif x.dtype.primitive_bitwidth == 32:
        return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=f,f", [x], x.dtype, False, 1)
    else:
        return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [x], x.dtype, False, 2)


@triton.jit
def hlt_again(x):
    """x, of 16 bits, as something that the compiler knows nothing of: what was computed of it is computed again.

    A row that is used again stays in registers as it was loaded, and not as the float32 values that it was made.
    """
    return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [x], x.dtype, False, 2)


if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7):

    @triton.constexpr_function
    def _longest(shape):
        return max(range(len(shape)), key=lambda i: (shape[i], i))

    @triton.jit
    def hlt_reducible(x):
        """x, the result of a reshape, in a layout of Triton's own choice.

        Where a dimension's elements came from several, those of a warp may be in another order than its lanes, and
        Triton 3.6 reduces such a dimension wrong (one of its parts, or a race).  Places of a `tl.gather` begin anew.
        """
        dim: tl.constexpr = _longest(x.shape)
        places = tl.arange(0, x.shape[dim])
        for i in tl.static_range(len(x.shape)):
            if i != dim:
                places = tl.expand_dims(places, i)
        places += tl.zeros(x.shape, tl.int32)
        if x.dtype == tl.int1:
            return tl.gather(x.to(tl.int8), places, dim) != 0
        else:
            return tl.gather(x, places, dim)

else:

    @triton.jit
    def hlt_reducible(x):
        """x: this version of Triton reduces the result of any reshape."""
        return x


@triton.jit
def hlt_either_column(x):
    """[..., 2] as [..., 1], where both are the same."""
    column, _ = tl.split(x)
    return tl.expand_dims(column, -1)


@triton.jit
def hlt_rounded_f16(x):
    """x, float32, as float16: rounded here, whatever is done with it."""
    tl.static_assert(x.dtype == tl.float32, "an instruction for float32")
    return tl.inline_asm_elementwise("cvt.rn.f16.f32 $0, $1;", "=h,f", [x], tl.float16, True, 1)


@triton.jit
def hlt_rounded_bf16(x):
    """x, float32, as bfloat16: rounded here, whatever is done with it."""
    tl.static_assert(x.dtype == tl.float32, "an instruction for float32")
    return tl.inline_asm_elementwise("cvt.rn.bf16.f32 $0, $1;", "=h,f", [x], tl.bfloat16, True, 1)


@triton.jit
def hlt_bound(x):
    """x, a bound of a loop, as an operation that stays.

    RemoveLayoutConversions of Triton 3.6 and 3.7 drops a variable that a `for` carries, with its updates, where it is
    used for nothing but bounds of `for` loops inside: they would have its first value in all iterations.
    """
    if x.dtype.primitive_bitwidth == 64:
        return tl.inline_asm_elementwise("mov.b64 $0, $1;", "=l,l", [x], tl.int64, False, 1)
    else:
        return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [x.to(tl.int32)], tl.int32, False, 1)


@triton.jit
def hlt_settled(x):
    """x, bit for bit: the result of a loop that accumulates reductions, or such a reduction.

    Triton 3.6 and 3.7 assert in the pass OptimizeThreadLocality when such a loop reduces values as they were loaded and
    its result has several uses, or the running sum has others in the loop or is more than added to once in an iteration
    (where it is subtracted the pass adds).  Casting to integers and back gives the result one use, and hides the
    reduction in the loop from the pass; it costs no instruction.
    """
    return hlt_apart(x)


@triton.jit
def hlt_dot_scaled(a, a_scale, FORMAT_A: tl.constexpr, b, b_scale, FORMAT_B: tl.constexpr):
    """The product of block-scaled matrices, in float32: of their values, which bfloat16 holds exactly, and tf32 those
    of "fp16".

    Triton's own emulation loses what float16 does not reach, and has none for scales of float8_e4m3fn.
    """
    left = _scaled_values(a, a_scale, FORMAT_A)
    right = tl.trans(_scaled_values(tl.trans(b), b_scale, FORMAT_B))
    if FORMAT_A == "fp16" or FORMAT_B == "fp16":
        return tl.dot(left, right, input_precision="tf32")
    else:
        return tl.dot(left.to(tl.bfloat16), right.to(tl.bfloat16))


@triton.jit
def hlt_first_columns(x, N: tl.constexpr):
    """The first N columns of [R, C] elements of 8 bits; C and N are powers of two."""
    parts = tl.reshape(x.to(tl.uint8, bitcast=True), [x.shape[0], x.shape[1] // N, N])
    first = tl.arange(0, x.shape[1] // N)[None, :, None] == 0
    return tl.max(tl.where(first, parts, 0), 1).to(tl.uint8).to(x.dtype, bitcast=True)


@triton.jit
def hlt_to_e5m2(x):
    """float32 as float8_e5m2, rounded to the nearest, ties to even; inf from 61440 on.

    The hardware's conversion ends at the largest number, and Triton's own for GPUs without it rounds ties away.
    """
    bits = x.to(tl.int32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    # 21 of 23 digits go, and 112 of the exponent; numbers below 2**-14 are multiples of 2**-16, as those near 2**7 are.
    normal = (magnitude + 0xFFFFF + ((magnitude >> 21) & 1) - (112 << 23)) >> 21
    small = (tl.abs(x) + 128.0).to(tl.int32, bitcast=True) - (134 << 23)
    found = tl.where(magnitude < (113 << 23), small, normal)
    found = tl.where(magnitude >= (143 << 23), tl.where(magnitude > (255 << 23), 0x7F, 0x7C), found)
    return (found | ((bits >> 24) & 0x80)).to(tl.uint8).to(tl.float8e5, bitcast=True)


@triton.jit
def hlt_within_e4m3(x):
    """x, a float, where float8_e4m3fn holds it when rounded, and nan elsewhere."""
    return tl.where(tl.abs(x) > 464.0, float("nan"), x)


@triton.jit
def _scaled_values(rows, scale, FORMAT: tl.constexpr):
    """[R, K stored] with scales [R, K / group] as float32 [R, K]."""
    if FORMAT == "e2m1":
        values = hlt_from_e2m1(rows)
    elif FORMAT == "e4m3" and rows.dtype == tl.uint8:
        bits = rows.to(tl.int32)
        magnitude = bits & 0x7F
        normal = ((magnitude << 20) + (120 << 23)).to(tl.float32, bitcast=True)
        values = tl.where(magnitude < 8, magnitude.to(tl.float32) * 0.001953125, normal)
        values = tl.where(magnitude == 0x7F, float("nan"), tl.where(bits > 127, -values, values))
    elif FORMAT == "e5m2" and rows.dtype == tl.uint8:
        values = rows.to(tl.float8e5, bitcast=True).to(tl.float32)
    else:
        values = rows.to(tl.float32)
    if scale is not None:
        if scale.dtype == tl.uint8:
            power = scale.to(tl.int32)
            # 2 ** -127 is no normal number.
            factor = tl.where(power == 0, 1 << 22, power << 23).to(tl.float32, bitcast=True)
            factor = tl.where(power == 255, float("nan"), factor)
        else:
            factor = scale.to(tl.float32)
        GROUP: tl.constexpr = values.shape[1] // scale.shape[1]
        wide = tl.broadcast_to(factor[:, :, None], [scale.shape[0], scale.shape[1], GROUP])
        values = values * tl.reshape(wide, values.shape)
    return values


@triton.jit
def hlt_from_e2m1(bits):
    """[R, C] pairs of 4-bit floats, the first in the low bits, as float32 [R, 2 C]."""
    pairs = tl.join(bits & 0xF, bits >> 4).to(tl.int32)
    magnitude = (pairs & 7).to(tl.float32)
    magnitude = tl.where(magnitude < 4, magnitude * 0.5, tl.where(magnitude < 6, magnitude - 2, magnitude * 2 - 8))
    return tl.reshape(tl.where(pairs > 7, -magnitude, magnitude), [bits.shape[0], 2 * bits.shape[1]])


@triton.jit
def hlt_grid_barrier(DESCRIPTORS: tl.constexpr):
    """Every program of a cooperative launch waits here for all others, and sees what they have written.

    DESCRIPTORS says that the tensor memory accelerator reads or writes on one side of the barrier (compute capability
    9.0 on).

    The driver gives each cooperative launch a word that the programs can count in: environment registers 1 and 2 hold
    the high and the low half of the address of its workspace, the word is the workspace's second (CUDA's
    cooperative_groups/details/driver_abi.h, where `grid.sync()` is made of the same).  All programs together add 2**31
    to it, so its highest bit flips when the last one has arrived, and it can be used again at once.
    """
    if DESCRIPTORS:
        # Tiles that the accelerator still writes; and what it reads next may have been written by threads.
        tl.inline_asm_elementwise(
            "{ cp.async.bulk.wait_group 0; fence.proxy.async.global; mov.b32 $0, 0; }", "=r", [], tl.int32, False, 1
        )
    tl.debug_barrier()
    workspace = tl.inline_asm_elementwise(
        "{ .reg .b32 low, high; mov.u32 high, %envreg1; mov.u32 low, %envreg2; mov.b64 $0, {low, high}; }",
        "=l",
        [],
        dtype=tl.uint64,
        is_pure=False,
        pack=1,
    )
    word = (workspace + 4).to(tl.pointer_type(tl.int32), bitcast=True)
    others = tl.num_programs(0).to(tl.int64) - 1
    before = tl.atomic_add(word, tl.where(tl.program_id(0) == 0, (1 << 31) - others, 1).to(tl.int32), sem="acq_rel")
    now = before
    while (now ^ before) >= 0:
        now = tl.atomic_add(word, 0, sem="acquire")
    tl.debug_barrier()
    if DESCRIPTORS:
        tl.inline_asm_elementwise("{ fence.proxy.async.global; mov.b32 $0, 0; }", "=r", [], tl.int32, False, 1)


@triton.jit
def hlt_signal(flags, value, mask=None):
    """Set flags after everything that the threads of this program have written."""
    tl.debug_barrier()
    tl.atomic_xchg(flags, value, mask, sem="release", scope="sys")


@triton.jit
def hlt_wait(flags, value, mask=None):
    """Wait until flags have a value; what was written before that is there for all threads of this program."""
    missing = 1
    while missing != 0:
        others = tl.atomic_add(flags, 0, mask, sem="acquire", scope="sys") != value
        if mask is not None:
            others = others & mask
        missing = tl.max(tl.ravel(others.to(tl.int32)), 0)
    tl.debug_barrier()
