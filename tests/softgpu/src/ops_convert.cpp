// cvt: between every pair of types, with the rounding and saturation that Triton, libdevice and CuTe ask for.
#include <algorithm>
#include <cfenv>

#include "decoder.h"
#include "lanes.h"
#include "tables.h"
#include "typed.h"

namespace softgpu {
namespace {

// How a conversion rounds and clamps; kept in Instr::u8.
struct CvtMode {
    Round round;
    bool to_integral, ftz, sat, satfinite, relu;
};
CvtMode mode_of(const Instr& in) {
    return {static_cast<Round>(in.u8[0]), (in.u8[1] & 1) != 0, (in.u8[1] & 2) != 0,
            (in.u8[1] & 4) != 0,          (in.u8[1] & 8) != 0, (in.u8[1] & 16) != 0};
}

// ---- hot pairs: one vector loop each
// --------------------------------------------------------------------------------- `Source` is the cell of the source
// register, which may be wider than S.
template <class D, class S, class Source = typename Int<S>::Cell> Flow exec_int_int(Warp& w, const Instr& in, Mask m) {
    // A signed narrow result is sign-extended to its register, as PTX asks.
    using DL = Int<D>;
    const auto* a = cells<Source>(w, in.a);
    alignas(64) typename DL::Cell r[kWarpSize];
    for (int l = 0; l < kWarpSize; ++l) {
        const auto v = static_cast<D>(static_cast<S>(a[l]));
        r[l] = static_cast<typename DL::Cell>(std::conditional_t<std::is_signed_v<D>, int64_t, uint64_t>(v));
    }
    blend(cells<typename DL::Cell>(w, in.dst), r, m);
    return Flow::Next;
}
template <class D, class S> Flow exec_int_int_sat(Warp& w, const Instr& in, Mask m) {
    using DL = Int<D>;
    return map1<DL, Int<S>>(w, in, m, [](S v) {
        const __int128 wide = v;
        const __int128 low = std::numeric_limits<D>::min(), high = std::numeric_limits<D>::max();
        return static_cast<D>(wide < low ? low : wide > high ? high : wide);
    });
}
template <class L, class S> Flow exec_int_float(Warp& w, const Instr& in, Mask m) {   // round to nearest
    return map1<L, Int<S>>(w, in, m, [](S v) { return static_cast<typename L::Value>(v); });
}
template <class D, class L> Flow exec_float_int(Warp& w, const Instr& in, Mask m) {
    const auto round = static_cast<Round>(in.u8[0]);
    using DL = Int<D>;
    const auto* a = cells<typename L::Cell>(w, in.a);
    auto* dst = cells<typename DL::Cell>(w, in.dst);
    each_lane(m, [&](int l) {
        const D v = float_to_int<D>(L::get(a[l]), round);
        dst[l] = static_cast<typename DL::Cell>(std::conditional_t<std::is_signed_v<D>, int64_t, uint64_t>(v));
    });
    return Flow::Next;
}
template <class DL, class SL>
Flow exec_widen(Warp& w, const Instr& in, Mask m) {  // exact, or rounded to nearest by DL::put
    return map1<DL, SL>(w, in, m, [](auto v) { return static_cast<typename DL::Value>(v); });
}
template <class DL, class SL> Flow exec_integral(Warp& w, const Instr& in, Mask m) {   // cvt.rni.f32.f32 and friends
    const auto round = static_cast<Round>(in.u8[0]);
    return map1<DL, SL>(w, in, m, [=](auto v) -> typename DL::Value {
        using V = typename DL::Value;
        const V x = static_cast<V>(v);
        switch (round) {
            case Round::Zero: return std::trunc(x);
            case Round::Down: return std::floor(x);
            case Round::Up: return std::ceil(x);
            default: return std::nearbyint(x);
        }
    });
}
// cvt.rn.{f16x2,bf16x2}.f32 d, a, b: a in the upper half.
template <class L> Flow exec_pack2(Warp& w, const Instr& in, Mask m) {
    return map2<Int<uint32_t>, F32, F32>(w, in, m, [](float a, float b) { return L::put(b) | L::put(a) << 16; });
}

// ---- the general path: one value through double
// ------------------------------------------------------------------------ Every source but 64-bit integers is exact in
// a double; those take their own route below.
struct Format { Type type; const SmallFloat* small; };
const SmallFloat* small_format(Type t) {
    switch (t) {
        case Type::F16: case Type::F16x2: return &kF16;
        case Type::BF16: case Type::BF16x2: return &kBF16;
        case Type::TF32: return &kTF32;
        case Type::E4M3: case Type::E4M3x2: return &kE4M3;
        case Type::E5M2: case Type::E5M2x2: return &kE5M2;
        case Type::E2M1: case Type::E2M1x2: return &kE2M1;
        case Type::E2M3x2: return &kE2M3;
        case Type::E3M2x2: return &kE3M2;
        default: return nullptr;
    }
}
unsigned small_bits(const SmallFloat& f) { return 1u + static_cast<unsigned>(f.exponent_bits + f.mantissa_bits); }

double read_value(Type t, uint64_t cell, bool ftz) {
    switch (t) {
        case Type::U8: case Type::B8: return static_cast<uint8_t>(cell);
        case Type::S8: return static_cast<int8_t>(cell);
        case Type::U16: return static_cast<uint16_t>(cell);
        case Type::S16: return static_cast<int16_t>(cell);
        case Type::U32: return static_cast<uint32_t>(cell);
        case Type::S32: return static_cast<int32_t>(cell);
        case Type::F32: {
            const float f = std::bit_cast<float>(static_cast<uint32_t>(cell));
            return ftz ? flush(f) : f;
        }
        case Type::F64: return std::bit_cast<double>(cell);
        default:
            return decode_float(static_cast<uint32_t>(cell) & ((1u << small_bits(*small_format(t))) - 1),
                                *small_format(t));
    }
}
uint32_t encode_small(double v, const SmallFloat& format, const CvtMode& mode, uint32_t random) {
    if (mode.relu && (v < 0 || std::isnan(v)) && !std::isnan(v)) v = 0;
    if (mode.sat) v = saturated(v);
    if (&format == &kTF32) return encode_float(v, format, mode.round, mode.satfinite) << 13;
    if (std::isnan(v) && (&format == &kF16 || &format == &kBF16)) return 0x7fff;   // the canonical NaN
    if (std::isnan(v) && &format == &kE5M2) return 0x7f;
    return encode_float(v, format, mode.round, mode.satfinite, random);
}
float round_to_f32(double v, Round round) {
    const RoundingMode guard(round);
    const volatile float f = static_cast<float>(v);
    return f;
}

struct General { Type to, from; bool wide_to, wide_from; };

// Scalar to scalar.
Flow exec_general(Warp& w, const Instr& in, Mask m) {
    const auto& g = *static_cast<const General*>(in.extra);
    const CvtMode mode = mode_of(in);
    const SmallFloat* small = small_format(g.to);
    each_lane(m, [&](int l) {
        const uint64_t cell = g.wide_from ? w.r64(in.a)[l] : w.r32(in.a)[l];
        double v;
        if (g.from == Type::S64 || g.from == Type::U64) {   // rounds once here; directed modes need the environment's
            const RoundingMode guard(mode.round);
            const volatile double d =
                g.from == Type::S64 ? static_cast<double>(static_cast<int64_t>(cell)) : static_cast<double>(cell);
            v = d;
        } else v = read_value(g.from, cell, mode.ftz);
        if (mode.to_integral && is_float(g.to)) {
            switch (mode.round) {
                case Round::Zero: v = std::trunc(v); break;
                case Round::Down: v = std::floor(v); break;
                case Round::Up: v = std::ceil(v); break;
                default: v = std::nearbyint(v); break;
            }
        }
        if (small) { w.r32(in.dst)[l] = encode_small(v, *small, mode, 0); return; }
        if (g.to == Type::F64) { w.r64(in.dst)[l] = std::bit_cast<uint64_t>(mode.sat ? saturated(v) : v); return; }
        if (g.to == Type::F32) {
            float f = round_to_f32(v, mode.round);
            if (mode.sat) f = saturated(f);
            if (mode.relu && f < 0) f = 0;
            w.r32(in.dst)[l] = std::bit_cast<uint32_t>(mode.ftz ? flush(f) : f);
            return;
        }
    });
    return Flow::Next;
}

// Packed conversions. Two scalars to a pair (`cvt.e4m3x2.f32 d, a, b`: a in the upper half) or pair to pair.
struct Packed { Type to, from; bool from_pair; };
Flow exec_packed(Warp& w, const Instr& in, Mask m) {
    const auto& p = *static_cast<const Packed*>(in.extra);
    const CvtMode mode = mode_of(in);
    const SmallFloat& to = *small_format(p.to);
    const unsigned to_bits = small_bits(to);
    each_lane(m, [&](int l) {
        double low, high;
        if (p.from_pair) {
            const SmallFloat& from = *small_format(p.from);
            const unsigned bits = small_bits(from);
            const unsigned stride = type_bits(p.from) / 2;
            const uint32_t cell = w.r32(in.a)[l];
            low = decode_float(cell & ((1u << bits) - 1), from);
            high = decode_float((cell >> stride) & ((1u << bits) - 1), from);
        } else {
            high = read_value(Type::F32, w.r32(in.a)[l], false);
            low = read_value(Type::F32, w.r32(in.b)[l], false);
        }
        const uint32_t random = in.c == kNoSlot ? 0 : w.r32(in.c)[l];
        const unsigned stride = type_bits(p.to) / 2;
        (void)to_bits;
        w.r32(in.dst)[l] =
            encode_small(low, to, mode, random << 16) | encode_small(high, to, mode, random & 0xffff0000u) << stride;
    });
    return Flow::Next;
}
// Block scales: a float's power of two, rounded as asked, as ue8m0.
Flow exec_ue8m0(Warp& w, const Instr& in, Mask m) {
    const auto& p = *static_cast<const Packed*>(in.extra);
    const CvtMode mode = mode_of(in);
    const auto one = [&](double v) -> uint32_t {
        if (std::isnan(v)) return 255;
        v = std::fabs(v);
        if (v == 0) return 0;
        int e;
        const double f = std::frexp(v, &e);   // v = f * 2^e, f in [0.5, 1)
        int biased = e - 1 + 127 + (mode.round == Round::Up && f > 0.5 ? 1 : 0);
        if (std::isinf(v)) biased = 255;
        return static_cast<uint32_t>(std::clamp(biased, 0, mode.satfinite ? 254 : 255));
    };
    each_lane(m, [&](int l) {
        double low, high;
        if (p.from_pair) {
            const uint32_t cell = w.r32(in.a)[l];
            low = bf16_to_f32(static_cast<uint16_t>(cell));
            high = bf16_to_f32(static_cast<uint16_t>(cell >> 16));
        } else {
            high = w.f32(in.a)[l];
            low = w.f32(in.b)[l];
        }
        w.r32(in.dst)[l] = one(low) | one(high) << 8;
    });
    return Flow::Next;
}
Flow exec_from_ue8m0(Warp& w, const Instr& in, Mask m) {   // cvt.rn.bf16x2.ue8m0x2
    each_lane(m, [&](int l) {
        const uint32_t cell = w.r32(in.a)[l];
        w.r32(in.dst)[l] = f32_to_bf16(e8m0_to_f32(static_cast<uint8_t>(cell))) |
                           static_cast<uint32_t>(f32_to_bf16(e8m0_to_f32(static_cast<uint8_t>(cell >> 8)))) << 16;
    });
    return Flow::Next;
}

// ---- choosing
// ----------------------------------------------------------------------------------------------------------
template <class F> ExecFn with_int(Type t, F f) {
    switch (t) {
        case Type::U8: case Type::B8: return f(uint8_t{});
        case Type::S8: return f(int8_t{});
        case Type::U16: case Type::B16: return f(uint16_t{});
        case Type::S16: return f(int16_t{});
        case Type::U32: case Type::B32: return f(uint32_t{});
        case Type::S32: return f(int32_t{});
        case Type::U64: case Type::B64: return f(uint64_t{});
        case Type::S64: return f(int64_t{});
        default: return nullptr;
    }
}
ExecFn hot_float_float(Type to, Type from, bool ftz) {
    switch (to) {
        case Type::F32:
            if (from == Type::F16) return exec_widen<F32, F16>;
            if (from == Type::BF16) return exec_widen<F32, BF16>;
            if (from == Type::F64) return ftz ? exec_widen<F32Ftz, F64> : exec_widen<F32, F64>;
            if (from == Type::F32) return ftz ? exec_widen<F32Ftz, F32Ftz> : exec_widen<F32, F32>;
            return nullptr;
        case Type::F64:
            if (from == Type::F32) return ftz ? exec_widen<F64, F32Ftz> : exec_widen<F64, F32>;
            if (from == Type::F16) return exec_widen<F64, F16>;
            if (from == Type::BF16) return exec_widen<F64, BF16>;
            return nullptr;
        case Type::F16:
            if (from == Type::F32) return ftz ? exec_widen<F16, F32Ftz> : exec_widen<F16, F32>;
            if (from == Type::BF16) return exec_widen<F16, BF16>;
            return nullptr;
        case Type::BF16:
            if (from == Type::F32) return ftz ? exec_widen<BF16, F32Ftz> : exec_widen<BF16, F32>;
            if (from == Type::F16) return exec_widen<BF16, F16>;
            return nullptr;
        default: return nullptr;
    }
}

CvtMode take_mode(Decoder& d) {
    CvtMode mode{};
    mode.round = Round::NearestEven;
    const std::string integral = d.take_any({"rni", "rzi", "rmi", "rpi"});
    const std::string round = d.take_any({"rn", "rna", "rz", "rm", "rp", "rs"});
    mode.to_integral = !integral.empty();
    const std::string& r = integral.empty() ? round : integral;
    if (r == "rz" || r == "rzi") mode.round = Round::Zero;
    if (r == "rm" || r == "rmi") mode.round = Round::Down;
    if (r == "rp" || r == "rpi") mode.round = Round::Up;
    if (r == "rna") mode.round = Round::NearestAway;
    if (r == "rs") mode.round = Round::Stochastic;
    mode.ftz = d.take("ftz");
    mode.sat = d.take("sat");
    mode.satfinite = d.take("satfinite");
    mode.relu = d.take("relu");
    if (d.take("scaled::n2::ue8m0")) d.error("scaled conversions are not implemented");
    return mode;
}

bool is_pair(Type t) {
    return t == Type::F16x2 || t == Type::BF16x2 || t == Type::E4M3x2 || t == Type::E5M2x2 || t == Type::E2M1x2 ||
           t == Type::E2M3x2 || t == Type::E3M2x2 || t == Type::UE8M0x2;
}

void decode_to_pair(Decoder& d, Instr& in, const CvtMode& mode, Type to, Type from) {
    auto* packed = d.make_extra<Packed>();
    *packed = {to, from, is_pair(from)};
    in.extra = packed;
    in.dst = d.dst(0, to);
    in.a = d.src(1, from);
    if (!packed->from_pair) {
        if (from != Type::F32) d.error("packs from .f32 only");
        in.b = d.src(2, from);
    }
    if (mode.round == Round::Stochastic) in.c = d.src(packed->from_pair ? 2 : 3, Type::B32);
    const bool plain = mode.round == Round::NearestEven && !mode.relu && !mode.satfinite && !mode.ftz;
    if (to == Type::UE8M0x2) in.fn = exec_ue8m0;
    else if (from == Type::UE8M0x2) in.fn = exec_from_ue8m0;
    else if (to == Type::F16x2 && from == Type::F32 && plain) in.fn = exec_pack2<F16>;
    else if (to == Type::BF16x2 && from == Type::F32 && plain) in.fn = exec_pack2<BF16>;
    else in.fn = exec_packed;
}

// A destination register may be wider than the type: then the result is extended.
void decode_to_wider_register(Decoder& d, Instr& in, Type to, Type from) {
    const bool sign = is_signed(to);
    if (is_float(from) || type_bits(to) != 32) d.error("a 64-bit register for this narrow result is not implemented");
    in.dst = d.dst(0, Type::B64);
    in.a = d.src(1, from);
    in.fn = with_int(from, [&](auto s) -> ExecFn {
        (void)s;
        if constexpr (sizeof(s) == 4)
            return sign ? ExecFn(exec_int_int<int64_t, int32_t>) : ExecFn(exec_int_int<uint64_t, uint32_t>);
        else return nullptr;
    });
    if (!in.fn) d.error("a 64-bit register for this narrow result is not implemented");
}

ExecFn int_from_float(Type to, Type from, bool ftz) {
    return with_int(to, [&](auto dv) -> ExecFn {
        using D = decltype(dv);
        switch (from) {
            case Type::F32: return ftz ? ExecFn(exec_float_int<D, F32Ftz>) : ExecFn(exec_float_int<D, F32>);
            case Type::F64: return exec_float_int<D, F64>;
            case Type::F16: return exec_float_int<D, F16>;
            case Type::BF16: return exec_float_int<D, BF16>;
            default: return nullptr;
        }
    });
}

ExecFn int_from_int(Type to, Type from, bool sat) {
    return with_int(to, [&](auto dv) {
        using D = decltype(dv);
        return with_int(from, [&](auto sv) {
            using S = decltype(sv);
            return sat ? ExecFn(exec_int_int_sat<D, S>) : ExecFn(exec_int_int<D, S>);
        });
    });
}

// The frequent conversions to floats; nullptr where only the general one is right.
ExecFn hot_to_float(const CvtMode& mode, Type to, Type from) {
    if (mode.sat || mode.satfinite || mode.relu) return nullptr;
    const bool nearest = mode.round == Round::NearestEven;
    if (!is_float(from)) {
        if (!nearest || (to != Type::F32 && to != Type::F64)) return nullptr;
        return with_int(from, [&](auto sv) {
            using S = decltype(sv);
            return to == Type::F32 ? ExecFn(exec_int_float<F32, S>) : ExecFn(exec_int_float<F64, S>);
        });
    }
    if (!mode.to_integral) return nearest ? hot_float_float(to, from, mode.ftz) : nullptr;
    if (to != from) return nullptr;
    switch (to) {
        case Type::F32: return mode.ftz ? exec_integral<F32Ftz, F32Ftz> : exec_integral<F32, F32>;
        case Type::F64: return exec_integral<F64, F64>;
        case Type::F16: return exec_integral<F16, F16>;
        default: return nullptr;
    }
}

void decode_cvt(Decoder& d, Instr& in) {
    const CvtMode mode = take_mode(d);
    const Type to = d.take_type(), from = d.take_type();
    in.u8[0] = static_cast<uint8_t>(mode.round);
    in.u8[1] =
        static_cast<uint8_t>(mode.to_integral | mode.ftz << 1 | mode.sat << 2 | mode.satfinite << 3 | mode.relu << 4);
    if (is_pair(to)) return decode_to_pair(d, in, mode, to, from);

    const bool int_to = !is_float(to), int_from = !is_float(from);
    if (int_to && type_bits(to) <= 32 && d.width(0) == 64) return decode_to_wider_register(d, in, to, from);
    in.dst = d.dst(0, to);
    if (int_from && type_bits(from) <= 32 && d.operand(1).kind == Operand::Kind::Register && d.width(1) == 64) {
        if (!int_to || mode.sat)
            d.error("a 64-bit source register for a narrow type is implemented between integers only");
        in.a = d.src(1, Type::B64);
        in.fn = with_int(to, [&](auto dv) {
            using D = decltype(dv);
            return with_int(from, [&](auto sv) { return ExecFn(exec_int_int<D, decltype(sv), uint64_t>); });
        });
        return;
    }
    in.a = d.src(1, from);
    if (int_to) {
        in.fn = int_from ? int_from_int(to, from, mode.sat) : int_from_float(to, from, mode.ftz);
        if (!in.fn) d.error("not defined for this type");
        return;
    }
    if ((in.fn = hot_to_float(mode, to, from))) return;
    auto* general = d.make_extra<General>();
    *general = {to, from, type_bits(to) == 64, type_bits(from) == 64};
    in.extra = general;
    if (!small_format(to) && to != Type::F32 && to != Type::F64) d.error("not implemented for this pair of types");
    in.fn = exec_general;
}

// cvt.pack.sat.{s8,u8,s16,u16}.s32{.b32} d, a, b{, c}: narrow, clamp, a above b above c.
Flow exec_cvt_pack(Warp& w, const Instr& in, Mask m) {
    const unsigned bits = in.u8[0];
    const bool sign = in.u8[1];
    const int64_t low = sign ? -(1ll << (bits - 1)) : 0, high = sign ? (1ll << (bits - 1)) - 1 : (1ll << bits) - 1;
    const auto clamp = [&](uint32_t v) {
        return static_cast<uint32_t>(std::clamp<int64_t>(static_cast<int32_t>(v), low, high)) &
               static_cast<uint32_t>((1ull << bits) - 1);
    };
    each_lane(m, [&](int l) {
        uint32_t r = clamp(w.r32(in.b)[l]) | clamp(w.r32(in.a)[l]) << bits;
        if (in.c != kNoSlot) r |= w.r32(in.c)[l] << (2 * bits);
        w.r32(in.dst)[l] = r;
    });
    return Flow::Next;
}
void decode_cvt_pack(Decoder& d, Instr& in) {
    d.take("sat");
    const Type to = d.take_type();
    d.take_type();
    d.maybe_type();
    in.u8[0] = static_cast<uint8_t>(type_bits(to));
    in.u8[1] = is_signed(to);
    in.dst = d.dst(0, Type::B32);
    in.a = d.src(1, Type::S32);
    in.b = d.src(2, Type::S32);
    if (d.operand_count() > 3) in.c = d.src(3, Type::B32);
    in.fn = exec_cvt_pack;
}

}  // namespace

const OpRow kConvertOps[] = {{"cvt", decode_cvt}, {"cvt.pack", decode_cvt_pack}};
SOFTGPU_DEFINE_COUNT(Convert)

}  // namespace softgpu
