// Floating-point operations beyond the basic four: fma, reciprocal, roots, exponentials, trigonometry.
//
// The .approx forms are computed to full float precision: hardware's error bounds (PTX ISA) contain that result.
#include "decoder.h"
#include "lanes.h"
#include "tables.h"
#include "typed.h"

namespace softgpu {
namespace {

struct Fma {
    static float apply(float a, float b, float c) { return std::fma(a, b, c); }
    static double apply(double a, double b, double c) { return std::fma(a, b, c); }
    static Pair apply(Pair a, Pair b, Pair c) { return {std::fma(a.x, b.x, c.x), std::fma(a.y, b.y, c.y)}; }
};
// f16 and bf16: the exact product and sum of such narrow values needs more than a float; a double's rounding
// is too fine to show in the narrow result.
template <class L, uint16_t (*kFromDouble)(double), float (*kToFloat)(uint16_t)> struct NarrowFma {
    static uint32_t one(uint16_t a, uint16_t b, uint16_t c, bool relu) {
        const double r = std::fma(static_cast<double>(kToFloat(a)), static_cast<double>(kToFloat(b)),
                                  static_cast<double>(kToFloat(c)));
        return kFromDouble(relu && !(r > 0) && !std::isnan(r) ? 0.0 : r);
    }
};
uint16_t f64_to_bf16(double v) {
    // To odd first, so that the second rounding sees whether anything was cut off.
    const float f = static_cast<float>(v);
    uint32_t u = std::bit_cast<uint32_t>(f);
    if (!std::isnan(v) && !std::isinf(f) && static_cast<double>(f) != v) {
        if (std::fabs(static_cast<double>(f)) > std::fabs(v)) --u;   // back towards zero
        u |= 1u;
    }
    return f32_to_bf16(std::bit_cast<float>(u));
}
template <class N> Flow exec_narrow_fma(Warp& w, const Instr& in, Mask m) {
    const bool packed = in.u8[0], relu = in.u8[1];
    return map3<Int<uint32_t>, Int<uint32_t>, Int<uint32_t>, Int<uint32_t>>(
        w, in, m, [=](uint32_t a, uint32_t b, uint32_t c) {
            uint32_t r = N::one(static_cast<uint16_t>(a), static_cast<uint16_t>(b), static_cast<uint16_t>(c), relu);
            if (packed)
                r |= N::one(static_cast<uint16_t>(a >> 16), static_cast<uint16_t>(b >> 16),
                            static_cast<uint16_t>(c >> 16), relu)
                     << 16;
            return r;
        });
}
using FmaF16 = NarrowFma<F16, f64_to_f16, f16_to_f32>;
using FmaBF16 = NarrowFma<BF16, f64_to_bf16, bf16_to_f32>;

template <class L> Flow exec_fma_general(Warp& w, const Instr& in, Mask m) {
    const RoundingMode mode(static_cast<Round>(in.u8[0]));
    const bool saturate = in.u8[1];
    return map3<L, L, L, L>(w, in, m, [&](auto a, auto b, auto c) {
        const volatile auto r = Fma::apply(a, b, c);
        return saturate ? saturated(r) : static_cast<decltype(a)>(r);
    });
}

// Unary functions of float and double. `kFtz` variants flush inputs and results.
struct Rcp { template <class T> static T apply(T a) { return T(1) / a; } };
struct Sqrt { template <class T> static T apply(T a) { return std::sqrt(a); } };
struct Rsqrt {
    template <class T>
    static T apply(T a) {
        return static_cast<T>(1.0 / std::sqrt(static_cast<double>(a)));
    }
};
struct Sin { template <class T> static T apply(T a) { return std::sin(a); } };
struct Cos { template <class T> static T apply(T a) { return std::cos(a); } };
struct Lg2 { template <class T> static T apply(T a) { return std::log2(a); } };
struct Ex2 { template <class T> static T apply(T a) { return std::exp2(a); } };
struct Tanh { template <class T> static T apply(T a) { return std::tanh(a); } };

// Library calls: only for the lanes that ask.
template <class Op, class L> Flow called(Warp& w, const Instr& in, Mask m) {
    const auto* a = cells<typename L::Cell>(w, in.a);
    auto* dst = cells<typename L::Cell>(w, in.dst);
    each_lane(m, [&](int l) { dst[l] = L::put(Op::apply(L::get(a[l]))); });
    return Flow::Next;
}
template <class Op, class L> Flow called_rounded(Warp& w, const Instr& in, Mask m) {
    const RoundingMode mode(static_cast<Round>(in.u8[0]));
    const auto* a = cells<typename L::Cell>(w, in.a);
    auto* dst = cells<typename L::Cell>(w, in.dst);
    each_lane(m, [&](int l) {
        const volatile auto r = Op::apply(L::get(a[l]));
        dst[l] = L::put(r);
    });
    return Flow::Next;
}
template <class Op> void decode_unary(Decoder& d, Instr& in) {
    d.take("approx");
    const Round round = take_round(d);
    const bool ftz = d.take("ftz");
    const Type t = d.take_type();
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    in.u8[0] = static_cast<uint8_t>(round);
    if (round != Round::NearestEven) {
        if (t == Type::F32) in.fn = ftz ? called_rounded<Op, F32Ftz> : called_rounded<Op, F32>;
        else if (t == Type::F64) in.fn = called_rounded<Op, F64>;
        else d.error("not defined for this type");
        return;
    }
    switch (t) {
        case Type::F32: in.fn = ftz ? called<Op, F32Ftz> : called<Op, F32>; break;
        case Type::F64: in.fn = called<Op, F64>; break;
        case Type::F16: in.fn = called<Op, F16>; break;
        case Type::BF16: in.fn = called<Op, BF16>; break;
        case Type::F16x2: in.fn = called<Paired<Op>, F16x2>; break;
        case Type::BF16x2: in.fn = called<Paired<Op>, BF16x2>; break;
        default: d.error("not defined for this type");
    }
}

template <class C>
Flow exec_copysign(Warp& w, const Instr& in, Mask m) {  // copysign d, a, b: sign of a, magnitude of b
    constexpr C sign = C(1) << (8 * sizeof(C) - 1);
    const C* a = cells<C>(w, in.a);
    const C* b = cells<C>(w, in.b);
    alignas(64) C r[kWarpSize];
    for (int l = 0; l < kWarpSize; ++l) r[l] = (a[l] & sign) | (b[l] & ~sign);
    blend(cells<C>(w, in.dst), r, m);
    return Flow::Next;
}
void decode_copysign(Decoder& d, Instr& in) {
    const Type t = d.take_type();
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    in.b = d.src(2, t);
    in.fn = t == Type::F64 ? exec_copysign<uint64_t> : exec_copysign<uint32_t>;
}

template <class L> Flow exec_testp(Warp& w, const Instr& in, Mask m) {
    const auto* a = cells<typename L::Cell>(w, in.a);
    Mask r = 0;
    for (int l = 0; l < kWarpSize; ++l) {
        const auto v = L::get(a[l]);
        bool yes = false;
        switch (in.u8[0]) {
            case 0: yes = std::isfinite(v); break;
            case 1: yes = std::isinf(v); break;
            case 2: yes = !std::isnan(v); break;
            case 3: yes = std::isnan(v); break;
            case 4: yes = std::isnormal(v); break;
            default: yes = std::fpclassify(v) == FP_SUBNORMAL; break;
        }
        r |= static_cast<Mask>(yes) << l;
    }
    blend(w.pred(in.dst), r, m);
    return Flow::Next;
}
void decode_testp(Decoder& d, Instr& in) {
    static constexpr const char* kTests[] = {"finite", "infinite", "number", "notanumber", "normal", "subnormal"};
    bool found = false;
    for (uint8_t i = 0; i < 6; ++i)
        if (d.take(kTests[i])) { in.u8[0] = i; found = true; }
    if (!found) d.error("needs a test");
    const Type t = d.take_type();
    in.dst = d.pred_dst(size_t{0});
    in.a = d.src(1, t);
    in.fn = t == Type::F64 ? exec_testp<F64> : exec_testp<F32>;
}

}  // namespace

// fma.f32.f16, fma.f32.bf16 (sm_100): two 16-bit factors, widened exactly.
template <class Narrow> Flow exec_mixed_fma(Warp& w, const Instr& in, Mask m) {
    return map3<F32, Narrow, Narrow, F32>(w, in, m, [](float a, float b, float c) { return std::fma(a, b, c); });
}

void decode_fma(Decoder& d, Instr& in) {
    const Round round = take_round(d);
    const bool ftz = d.take("ftz"), sat = d.take("sat"), relu = d.take("relu");
    const Type t = d.take_type();
    const bool by_f16 = t == Type::F32 && d.take("f16"), by_bf16 = t == Type::F32 && !by_f16 && d.take("bf16");
    if (by_f16 || by_bf16) {
        if (round != Round::NearestEven || ftz || sat || relu) d.error("only .rn is implemented for mixed types");
        const Type narrow = by_f16 ? Type::F16 : Type::BF16;
        in.dst = d.dst(0, t);
        in.a = d.src(1, narrow);
        in.b = d.src(2, narrow);
        in.c = d.src(3, t);
        in.fn = by_f16 ? exec_mixed_fma<F16> : exec_mixed_fma<BF16>;
        return;
    }
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    in.b = d.src(2, t);
    in.c = d.src(3, t);
    const bool f16 = t == Type::F16 || t == Type::F16x2, bf16 = t == Type::BF16 || t == Type::BF16x2;
    if (f16 || bf16) {
        if (sat) d.error(".sat is not implemented for 16-bit types");
        in.u8[0] = t == Type::F16x2 || t == Type::BF16x2;
        in.u8[1] = relu;
        in.fn = f16 ? exec_narrow_fma<FmaF16> : exec_narrow_fma<FmaBF16>;
        return;
    }
    if (round == Round::NearestEven && !sat) {
        switch (t) {
            case Type::F32: in.fn = ftz ? ternary<Fma, F32Ftz> : ternary<Fma, F32>; return;
            case Type::F64: in.fn = ternary<Fma, F64>; return;
            case Type::F32x2: in.fn = ftz ? ternary<Fma, F32x2Of<F32Ftz>> : ternary<Fma, F32x2Of<F32>>; return;
            default: d.error("not defined for this type");
        }
    }
    in.u8[0] = static_cast<uint8_t>(round);
    in.u8[1] = sat;
    if (t == Type::F32) in.fn = ftz ? exec_fma_general<F32Ftz> : exec_fma_general<F32>;
    else if (t == Type::F64) in.fn = exec_fma_general<F64>;
    else d.error("not defined for this type");
}

const OpRow kFloatOps[] = {
    {"fma", decode_fma}, {"rcp", decode_unary<Rcp>}, {"sqrt", decode_unary<Sqrt>}, {"rsqrt", decode_unary<Rsqrt>},
    {"sin", decode_unary<Sin>}, {"cos", decode_unary<Cos>}, {"lg2", decode_unary<Lg2>}, {"ex2", decode_unary<Ex2>},
    {"tanh", decode_unary<Tanh>}, {"copysign", decode_copysign}, {"testp", decode_testp},
};
SOFTGPU_DEFINE_COUNT(Float)

}  // namespace softgpu
