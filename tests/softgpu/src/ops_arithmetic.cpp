// add, sub, mul, mad, div, rem, min, max, abs, neg of every type, and integer arithmetic with carry.
#include <algorithm>
#include <cfenv>

#include "decoder.h"
#include "lanes.h"
#include "tables.h"
#include "typed.h"

namespace softgpu {
namespace {

// ---- the operations ---------------------------------------------------------------------------------------------
// Integers wrap around: C++ does that for unsigned only, and only if not promoted to int.
template <class T> using Wrap = std::conditional_t<(sizeof(T) < 4), uint32_t, std::make_unsigned_t<T>>;

struct Add {
    template <class T> static T apply(T a, T b) {
        if constexpr (std::is_integral_v<T>) return static_cast<T>(Wrap<T>(a) + Wrap<T>(b));
        else return a + b;
    }
};
struct Sub {
    template <class T> static T apply(T a, T b) {
        if constexpr (std::is_integral_v<T>) return static_cast<T>(Wrap<T>(a) - Wrap<T>(b));
        else return a - b;
    }
};
struct Mul {
    template <class T> static T apply(T a, T b) {
        if constexpr (std::is_integral_v<T>) return static_cast<T>(Wrap<T>(a) * Wrap<T>(b));
        else return a * b;
    }
};
struct MulHi {
    template <class T> static T apply(T a, T b) {
        if constexpr (sizeof(T) == 8) {
            using Wide = std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;
            return static_cast<T>((static_cast<Wide>(a) * static_cast<Wide>(b)) >> 64);
        } else {
            using Wide = std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>;
            return static_cast<T>((static_cast<Wide>(a) * static_cast<Wide>(b)) >> (8 * sizeof(T)));
        }
    }
};
struct Div {
    template <class T> static T apply(T a, T b) {
        if constexpr (std::is_integral_v<T>) {
            if (b == 0) return static_cast<T>(-1);  // unspecified by PTX; what hardware gives
            if constexpr (std::is_signed_v<T>) if (b == -1) return static_cast<T>(Wrap<T>(0) - Wrap<T>(a));
            return static_cast<T>(a / b);
        } else return a / b;
    }
};
struct Rem {
    template <class T> static T apply(T a, T b) {
        if (b == 0) return a;
        if constexpr (std::is_signed_v<T>) if (b == -1) return 0;
        return static_cast<T>(a % b);
    }
};
template <class T> T smaller(T a, T b) {
    if constexpr (std::is_floating_point_v<T>) {
        if (std::isnan(a)) return b;
        if (std::isnan(b)) return a;
        if (a == b) return std::signbit(a) ? a : b;   // -0 < +0
    }
    return b < a ? b : a;
}
template <class T> T larger(T a, T b) {
    if constexpr (std::is_floating_point_v<T>) {
        if (std::isnan(a)) return b;
        if (std::isnan(b)) return a;
        if (a == b) return std::signbit(a) ? b : a;
    }
    return a < b ? b : a;
}
struct Min { template <class T> static T apply(T a, T b) { return smaller(a, b); } };
struct Max { template <class T> static T apply(T a, T b) { return larger(a, b); } };
struct MinNan {
    template <class T>
    static T apply(T a, T b) {
        return std::isnan(a) || std::isnan(b) ? std::numeric_limits<T>::quiet_NaN() : smaller(a, b);
    }
};
struct MaxNan {
    template <class T>
    static T apply(T a, T b) {
        return std::isnan(a) || std::isnan(b) ? std::numeric_limits<T>::quiet_NaN() : larger(a, b);
    }
};
// .xorsign.abs: the magnitudes are compared, the sign is the xor of both.
template <class Op> struct XorSignAbs {
    template <class T> static T apply(T a, T b) {
        return std::copysign(Op::apply(std::fabs(a), std::fabs(b)), std::signbit(a) != std::signbit(b) ? T(-1) : T(1));
    }
};
struct Abs {
    template <class T> static T apply(T a) {
        if constexpr (std::is_integral_v<T>) return a < 0 ? static_cast<T>(Wrap<T>(0) - Wrap<T>(a)) : a;
        else return std::fabs(a);
    }
};
struct Neg {
    template <class T> static T apply(T a) {
        if constexpr (std::is_integral_v<T>) return static_cast<T>(Wrap<T>(0) - Wrap<T>(a));
        else return -a;
    }
};
struct AddSat { static int32_t apply(int32_t a, int32_t b) { return clamp32(int64_t(a) + b); }
    static int32_t clamp32(int64_t v) { return static_cast<int32_t>(std::clamp<int64_t>(v, INT32_MIN, INT32_MAX)); } };
struct SubSat { static int32_t apply(int32_t a, int32_t b) { return AddSat::clamp32(int64_t(a) - b); } };
struct Sad {
    template <class T>
    static T apply(T a, T b, T c) {
        return Add::apply<T>(c, a < b ? Sub::apply<T>(b, a) : Sub::apply<T>(a, b));
    }
};
struct MadLo { template <class T> static T apply(T a, T b, T c) { return Add::apply<T>(Mul::apply<T>(a, b), c); } };
struct MadHi { template <class T> static T apply(T a, T b, T c) { return Add::apply<T>(MulHi::apply<T>(a, b), c); } };
struct Mul24Lo {
    template <class T> static T apply(T a, T b) {
        const auto cut = [](T v) {
            return std::is_signed_v<T> ? static_cast<int64_t>(static_cast<int32_t>(static_cast<uint32_t>(v) << 8) >> 8)
                                       : static_cast<int64_t>(static_cast<uint32_t>(v) & 0xffffffu);
        };
        return static_cast<T>(cut(a) * cut(b));
    }
};

// ---- operations with a rounding mode or saturation: slower loops, seldom used ----------------------------------
template <class Op, class L> Flow binary_general(Warp& w, const Instr& in, Mask m) {
    const RoundingMode mode(static_cast<Round>(in.u8[0]));
    const bool saturate = in.u8[1];
    return map2<L, L, L>(w, in, m, [&](auto a, auto b) {
        const volatile auto r = Op::apply(a, b);   // computed under the mode, not folded
        return saturate ? saturated(r) : static_cast<decltype(a)>(r);
    });
}

template <class Op> ExecFn general_float(Type t, bool ftz) {
    switch (t) {
        case Type::F32: return ftz ? ExecFn(binary_general<Op, F32Ftz>) : ExecFn(binary_general<Op, F32>);
        case Type::F64: return binary_general<Op, F64>;
        case Type::F16: return binary_general<Op, F16>;
        case Type::BF16: return binary_general<Op, BF16>;
        default: return nullptr;
    }
}

// ---- decoding -----------------------------------------------------------------------------------------------------
void operands2(Decoder& d, Instr& in, Type t) {
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    in.b = d.src(2, t);
}
void set(Decoder& d, Instr& in, ExecFn fn) {
    if (!fn) d.error("not defined for this type");
    in.fn = fn;
}

// Floats of add, sub, mul, div.
template <class Op> void decode_float_binary(Decoder& d, Instr& in, Type t) {
    const Round round = take_round(d);
    const bool ftz = d.take("ftz"), sat = d.take("sat");
    operands2(d, in, t);
    if (round == Round::NearestEven && !sat) return set(d, in, float_binary<Op>(t, ftz));
    in.u8[0] = static_cast<uint8_t>(round);
    in.u8[1] = sat;
    set(d, in, general_float<Op>(t, ftz));
}

// add.f32.f16, sub.f32.bf16, ... (sm_100): the first operand is a 16-bit float, widened exactly.
template <class Op, class Narrow> Flow exec_mixed(Warp& w, const Instr& in, Mask m) {
    return map2<F32, Narrow, F32>(w, in, m, [](float a, float b) { return Op::apply(a, b); });
}
template <class Op> void decode_mixed(Decoder& d, Instr& in, Type narrow) {
    if (take_round(d) != Round::NearestEven) d.error("only .rn is implemented for mixed types");
    in.dst = d.dst(0, Type::F32);
    in.a = d.src(1, narrow);
    in.b = d.src(2, Type::F32);
    in.fn = narrow == Type::F16 ? exec_mixed<Op, F16> : exec_mixed<Op, BF16>;
}

// add.cc, addc, sub.cc, subc: with the carry flag of each lane.
template <class T, bool kSubtract> Flow exec_carry(Warp& w, const Instr& in, Mask m) {
    using L = Int<T>;
    const auto* a = cells<typename L::Cell>(w, in.a);
    const auto* b = cells<typename L::Cell>(w, in.b);
    auto* dst = cells<typename L::Cell>(w, in.dst);
    const bool use = in.u8[0], give = in.u8[1];
    Mask carry = w.carry;
    each_lane(m, [&](int l) {
        const unsigned __int128 old = use ? (w.carry >> l) & 1u : 0u;
        unsigned __int128 r;
        if (kSubtract) r = static_cast<unsigned __int128>(L::get(a[l])) - L::get(b[l]) - old;
        else r = static_cast<unsigned __int128>(L::get(a[l])) + L::get(b[l]) + old;
        dst[l] = static_cast<typename L::Cell>(static_cast<T>(r));
        const bool out = (r >> (8 * sizeof(T))) & 1u;
        carry = (carry & ~(1u << l)) | (out ? 1u << l : 0u);
    });
    if (give) w.carry = carry;
    return Flow::Next;
}
void decode_carry(Decoder& d, Instr& in, bool use, bool give, bool subtract) {
    const Type t = d.take_type();
    operands2(d, in, t);
    in.u8[0] = use;
    in.u8[1] = give;
    if (type_bits(t) == 32) in.fn = subtract ? exec_carry<uint32_t, true> : exec_carry<uint32_t, false>;
    else in.fn = subtract ? exec_carry<uint64_t, true> : exec_carry<uint64_t, false>;
}

// add.{u16x2,s16x2} (sm_90): two sums that wrap, without a carry between them.
Flow exec_add_16x2(Warp& w, const Instr& in, Mask m) {
    return map2<Int<uint32_t>, Int<uint32_t>, Int<uint32_t>>(w, in, m, [](uint32_t a, uint32_t b) {
        return ((a + b) & 0xffffu) | ((a & 0xffff0000u) + (b & 0xffff0000u));
    });
}

template <class Op, class Saturating> void decode_add_sub(Decoder& d, Instr& in, bool subtract) {
    if (d.take("cc")) return decode_carry(d, in, false, true, subtract);
    const Type t = d.take_type();
    if (!subtract && (t == Type::U16x2 || t == Type::S16x2)) {
        operands2(d, in, t);
        in.fn = exec_add_16x2;
        return;
    }
    if (t == Type::F32 && d.take("f16")) return decode_mixed<Op>(d, in, Type::F16);
    if (t == Type::F32 && d.take("bf16")) return decode_mixed<Op>(d, in, Type::BF16);
    if (is_float(t) || t == Type::F32x2) return decode_float_binary<Op>(d, in, t);
    operands2(d, in, t);
    if (d.take("sat")) {
        if (t != Type::S32) d.error("saturates for .s32 only");
        in.fn = binary<Saturating, Int<int32_t>>;
        return;
    }
    set(d, in, int_binary<Op>(t));
}
void decode_add(Decoder& d, Instr& in) { decode_add_sub<Add, AddSat>(d, in, false); }
void decode_sub(Decoder& d, Instr& in) { decode_add_sub<Sub, SubSat>(d, in, true); }
void decode_addc(Decoder& d, Instr& in) { const bool give = d.take("cc"); decode_carry(d, in, true, give, false); }
void decode_subc(Decoder& d, Instr& in) { const bool give = d.take("cc"); decode_carry(d, in, true, give, true); }

template <class N, class W> Flow exec_mul_wide(Warp& w, const Instr& in, Mask m) {
    return map2<Int<W>, Int<N>, Int<N>>(w, in, m,
                                        [](N a, N b) { return static_cast<W>(static_cast<W>(a) * static_cast<W>(b)); });
}
template <class N, class W> Flow exec_mad_wide(Warp& w, const Instr& in, Mask m) {
    return map3<Int<W>, Int<N>, Int<N>, Int<W>>(w, in, m, [](N a, N b, W c) {
        using U = std::make_unsigned_t<W>;
        return static_cast<W>(static_cast<U>(static_cast<W>(a) * static_cast<W>(b)) + static_cast<U>(c));
    });
}
Type widened(Decoder& d, Type t) {
    switch (t) {
        case Type::U16: return Type::U32;
        case Type::S16: return Type::S32;
        case Type::U32: return Type::U64;
        case Type::S32: return Type::S64;
        default: d.error(".wide needs a 16- or 32-bit integer type");
    }
}
void decode_mul(Decoder& d, Instr& in) {
    const Type t = d.take_type();
    if (is_float(t) || t == Type::F32x2) return decode_float_binary<Mul>(d, in, t);
    if (d.take("wide")) {
        in.dst = d.dst(0, widened(d, t));
        in.a = d.src(1, t);
        in.b = d.src(2, t);
        switch (t) {
            case Type::U16: in.fn = exec_mul_wide<uint16_t, uint32_t>; break;
            case Type::S16: in.fn = exec_mul_wide<int16_t, int32_t>; break;
            case Type::U32: in.fn = exec_mul_wide<uint32_t, uint64_t>; break;
            default: in.fn = exec_mul_wide<int32_t, int64_t>; break;
        }
        return;
    }
    const bool high = d.take("hi");
    if (!high && !d.take("lo")) d.error("needs .lo, .hi or .wide");
    operands2(d, in, t);
    set(d, in, high ? int_binary<MulHi>(t) : int_binary<Mul>(t));
}
void decode_mul24(Decoder& d, Instr& in) {
    if (!d.take("lo")) d.error("only .lo is implemented");
    const Type t = d.take_type();
    operands2(d, in, t);
    in.fn = t == Type::S32 ? ExecFn(binary<Mul24Lo, Int<int32_t>>) : ExecFn(binary<Mul24Lo, Int<uint32_t>>);
}

// mad.{lo,hi}.cc and madc: 32- and 64-bit multiply-add with carry, the low or high half of the product.
template <class T, bool kHigh> Flow exec_mad_carry(Warp& w, const Instr& in, Mask m) {
    using L = Int<T>;
    const auto* a = cells<typename L::Cell>(w, in.a);
    const auto* b = cells<typename L::Cell>(w, in.b);
    const auto* c = cells<typename L::Cell>(w, in.c);
    auto* dst = cells<typename L::Cell>(w, in.dst);
    using U = std::make_unsigned_t<T>;
    const bool use = in.u8[0], give = in.u8[1];
    Mask carry = w.carry;
    each_lane(m, [&](int l) {
        const T product =
            kHigh ? MulHi::apply<T>(L::get(a[l]), L::get(b[l])) : Mul::apply<T>(L::get(a[l]), L::get(b[l]));
        const unsigned __int128 r = static_cast<unsigned __int128>(static_cast<U>(product)) +
                                    static_cast<U>(L::get(c[l])) + (use ? (w.carry >> l) & 1u : 0u);
        dst[l] = static_cast<typename L::Cell>(static_cast<U>(r));
        carry = (carry & ~(1u << l)) | ((r >> (8 * sizeof(T))) & 1u ? 1u << l : 0u);
    });
    if (give) w.carry = carry;
    return Flow::Next;
}
void decode_mad_carry(Decoder& d, Instr& in, bool use, bool give) {
    const bool high = d.take("hi");
    if (!high) d.take("lo");
    const Type t = d.take_type();
    operands2(d, in, t);
    in.c = d.src(3, t);
    in.u8[0] = use;
    in.u8[1] = give;
    switch (t) {
        case Type::U32: in.fn = high ? exec_mad_carry<uint32_t, true> : exec_mad_carry<uint32_t, false>; break;
        case Type::S32: in.fn = high ? exec_mad_carry<int32_t, true> : exec_mad_carry<int32_t, false>; break;
        case Type::U64: in.fn = high ? exec_mad_carry<uint64_t, true> : exec_mad_carry<uint64_t, false>; break;
        case Type::S64: in.fn = high ? exec_mad_carry<int64_t, true> : exec_mad_carry<int64_t, false>; break;
        default: d.error("not defined for this type");
    }
}
void decode_madc(Decoder& d, Instr& in) { const bool give = d.take("cc"); decode_mad_carry(d, in, true, give); }
void decode_mad(Decoder& d, Instr& in) {
    if (d.take("cc")) return decode_mad_carry(d, in, false, true);
    if (d.take("wide")) {
        const Type t = d.take_type(), wide = widened(d, t);
        in.dst = d.dst(0, wide);
        in.a = d.src(1, t);
        in.b = d.src(2, t);
        in.c = d.src(3, wide);
        switch (t) {
            case Type::U16: in.fn = exec_mad_wide<uint16_t, uint32_t>; break;
            case Type::S16: in.fn = exec_mad_wide<int16_t, int32_t>; break;
            case Type::U32: in.fn = exec_mad_wide<uint32_t, uint64_t>; break;
            default: in.fn = exec_mad_wide<int32_t, int64_t>; break;
        }
        return;
    }
    const bool high = d.take("hi"), low = d.take("lo");
    if (!high && !low) return decode_fma(d, in);   // mad.f32 is fma on every target we know
    const Type t = d.take_type();
    operands2(d, in, t);
    in.c = d.src(3, t);
    set(d, in, high ? int_ternary<MadHi>(t) : int_ternary<MadLo>(t));
}
void decode_sad(Decoder& d, Instr& in) {
    const Type t = d.take_type();
    operands2(d, in, t);
    in.c = d.src(3, t);
    set(d, in, int_ternary<Sad>(t));
}

void decode_div(Decoder& d, Instr& in) {
    const Type t = d.take_type();
    if (!is_float(t)) {
        operands2(d, in, t);
        return set(d, in, int_binary<Div>(t));
    }
    d.take("approx");   // more accurate than asked for
    d.take("full");
    decode_float_binary<Div>(d, in, t);
}
void decode_rem(Decoder& d, Instr& in) {
    const Type t = d.take_type();
    operands2(d, in, t);
    set(d, in, int_binary<Rem>(t));
}

template <class T, bool kMax, bool kRelu> Flow exec_minmax_16x2(Warp& w, const Instr& in, Mask m) {
    return map2<Int<uint32_t>, Int<uint32_t>, Int<uint32_t>>(w, in, m, [](uint32_t a, uint32_t b) {
        uint32_t r = 0;
        for (int h = 0; h < 32; h += 16) {
            const T x = static_cast<T>(a >> h), y = static_cast<T>(b >> h);
            T z = kMax ? std::max(x, y) : std::min(x, y);
            if (kRelu) z = std::max<T>(z, 0);
            r |= static_cast<uint32_t>(static_cast<uint16_t>(z)) << h;
        }
        return r;
    });
}

// `.relu`: negative results are 0.
template <class Op> struct Relu {
    template <class T> static T apply(T a, T b) { return std::max<T>(Op::apply(a, b), 0); }
};

// min and max: two operands, or three of f32 (sm_100).
template <class Op> Flow exec_three(Warp& w, const Instr& in, Mask m) {
    return map3<F32, F32, F32, F32>(w, in, m, [](float a, float b, float c) { return Op::apply(Op::apply(a, b), c); });
}
template <class Op, class OpNan, bool kMax> void decode_min_max(Decoder& d, Instr& in) {
    const Type t = d.take_type();
    if (t == Type::U16x2 || t == Type::S16x2) {
        const bool relu = d.take("relu");
        if (relu && t == Type::U16x2) d.error(".relu of signed integers only");
        operands2(d, in, t);
        in.fn = t == Type::U16x2 ? exec_minmax_16x2<uint16_t, kMax, false>
                : relu           ? exec_minmax_16x2<int16_t, kMax, true>
                                 : exec_minmax_16x2<int16_t, kMax, false>;
        return;
    }
    if (!is_float(t)) {
        const bool relu = d.take("relu");
        if (relu && t != Type::S32) d.error(".relu of signed integers of 32 bits, or pairs of 16");
        operands2(d, in, t);
        if (relu) {
            in.fn = int_binary<Relu<Op>>(t);
            return;
        }
        return set(d, in, int_binary<Op>(t));
    }
    const bool ftz = d.take("ftz"), nan = d.take("NaN"), xorsign = d.take("xorsign");
    if (xorsign) d.take("abs");
    operands2(d, in, t);
    if (d.operand_count() == 4) {
        if (t != Type::F32) d.error("three operands for .f32 only");
        in.c = d.src(3, t);
        in.fn = nan ? exec_three<OpNan> : exec_three<Op>;
        return;
    }
    if (xorsign)
        return set(d, in, nan ? float_binary<XorSignAbs<OpNan>>(t, ftz) : float_binary<XorSignAbs<Op>>(t, ftz));
    set(d, in, nan ? float_binary<OpNan>(t, ftz) : float_binary<Op>(t, ftz));
}

// Sign operations on floats are bit operations: NaNs keep their payload.
template <class C, bool kNegate> Flow exec_sign(Warp& w, const Instr& in, Mask m) {
    const C* a = cells<C>(w, in.a);
    const C bits =
        sizeof(C) == 8 ? static_cast<C>(static_cast<uint64_t>(in.imm)) : static_cast<C>(static_cast<uint32_t>(in.imm));
    alignas(64) C r[kWarpSize];
    for (int l = 0; l < kWarpSize; ++l) r[l] = kNegate ? a[l] ^ bits : a[l] & ~bits;
    blend(cells<C>(w, in.dst), r, m);
    return Flow::Next;
}
template <class Op, bool kNegate> void decode_abs_neg(Decoder& d, Instr& in) {
    const Type t = d.take_type();
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    if (!is_float(t)) return set(d, in, int_unary<Op>(t));
    if (d.take("ftz") && t == Type::F32) return set(d, in, float_unary<Op>(t, true));
    switch (t) {
        case Type::F64: in.imm = INT64_MIN; in.fn = exec_sign<uint64_t, kNegate>; break;
        case Type::F32: in.imm = 0x80000000; in.fn = exec_sign<uint32_t, kNegate>; break;
        case Type::F16: case Type::BF16: in.imm = 0x8000; in.fn = exec_sign<uint32_t, kNegate>; break;
        default: in.imm = 0x80008000; in.fn = exec_sign<uint32_t, kNegate>; break;
    }
}

}  // namespace

const OpRow kArithmeticOps[] = {
    {"add", decode_add}, {"sub", decode_sub}, {"addc", decode_addc}, {"subc", decode_subc},
    {"mul", decode_mul}, {"mul24", decode_mul24}, {"mad", decode_mad}, {"madc", decode_madc}, {"sad", decode_sad},
    {"div", decode_div}, {"rem", decode_rem},
    {"min", decode_min_max<Min, MinNan, false>}, {"max", decode_min_max<Max, MaxNan, true>},
    {"abs", decode_abs_neg<Abs, false>}, {"neg", decode_abs_neg<Neg, true>},
};
SOFTGPU_DEFINE_COUNT(Arithmetic)

}  // namespace softgpu
