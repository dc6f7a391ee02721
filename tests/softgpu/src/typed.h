// From an operation and a PTX type to the loop that runs it: the dispatch that arithmetic tables share.
#pragma once
#include <cfenv>
#include <utility>

#include "decoder.h"
#include "lanes.h"

namespace softgpu {

// The floating-point environment's rounding mode, restored at the end. (Compiled with -frounding-math.)
class RoundingMode {
public:
    explicit RoundingMode(Round round) : before_(std::fegetround()) {
        if (round != Round::NearestEven)
            std::fesetround(round == Round::Zero ? FE_TOWARDZERO : round == Round::Down ? FE_DOWNWARD : FE_UPWARD);
    }
    ~RoundingMode() { std::fesetround(before_); }
    RoundingMode(const RoundingMode&) = delete;
    RoundingMode& operator=(const RoundingMode&) = delete;

private:
    int before_;
};

template <class T> T saturated(T v) { return std::isnan(v) ? T(0) : v < 0 ? T(0) : v > 1 ? T(1) : v; }

inline Round take_round(Decoder& d) {
    const std::string r = d.take_any({"rn", "rz", "rm", "rp"});
    return r == "rz" ? Round::Zero : r == "rm" ? Round::Down : r == "rp" ? Round::Up : Round::NearestEven;
}

void decode_fma(Decoder& d, Instr& in);   // ops_float.cpp

// Two floats in one register: f16x2, bf16x2, f32x2.
struct Pair { float x, y; };
struct F16x2 {
    using Cell = uint32_t;
    using Value = Pair;
    static Value get(Cell c) {
        return {f16_to_f32(static_cast<uint16_t>(c)), f16_to_f32(static_cast<uint16_t>(c >> 16))};
    }
    static Cell put(Value v) { return f32_to_f16(v.x) | static_cast<uint32_t>(f32_to_f16(v.y)) << 16; }
};
struct BF16x2 {
    using Cell = uint32_t;
    using Value = Pair;
    static Value get(Cell c) {
        return {bf16_to_f32(static_cast<uint16_t>(c)), bf16_to_f32(static_cast<uint16_t>(c >> 16))};
    }
    static Cell put(Value v) { return f32_to_bf16(v.x) | static_cast<uint32_t>(f32_to_bf16(v.y)) << 16; }
};
template <class L> struct F32x2Of {
    using Cell = uint64_t;
    using Value = Pair;
    static Value get(Cell c) { return {L::get(static_cast<uint32_t>(c)), L::get(static_cast<uint32_t>(c >> 32))}; }
    static Cell put(Value v) { return L::put(v.x) | static_cast<uint64_t>(L::put(v.y)) << 32; }
};
template <class Op> struct Paired {
    static Pair apply(Pair a) { return {Op::apply(a.x), Op::apply(a.y)}; }
    static Pair apply(Pair a, Pair b) { return {Op::apply(a.x, b.x), Op::apply(a.y, b.y)}; }
    static Pair apply(Pair a, Pair b, Pair c) { return {Op::apply(a.x, b.x, c.x), Op::apply(a.y, b.y, c.y)}; }
};

template <class Op, class L> Flow unary(Warp& w, const Instr& in, Mask m) {
    return map1<L, L>(w, in, m, [](auto a) { return Op::apply(a); });
}
template <class Op, class L> Flow binary(Warp& w, const Instr& in, Mask m) {
    return map2<L, L, L>(w, in, m, [](auto a, auto b) { return Op::apply(a, b); });
}
template <class Op, class L> Flow ternary(Warp& w, const Instr& in, Mask m) {
    return map3<L, L, L, L>(w, in, m, [](auto a, auto b, auto c) { return Op::apply(a, b, c); });
}

// One function per type; nullptr where the operation is not defined.
#define SOFTGPU_INT_DISPATCH(name, loop)                                       \
    template <class Op> ExecFn name(Type t) {                                  \
        switch (t) {                                                           \
            case Type::U16: case Type::B16: return loop<Op, Int<uint16_t>>;    \
            case Type::S16: return loop<Op, Int<int16_t>>;                     \
            case Type::U32: case Type::B32: return loop<Op, Int<uint32_t>>;    \
            case Type::S32: return loop<Op, Int<int32_t>>;                     \
            case Type::U64: case Type::B64: return loop<Op, Int<uint64_t>>;    \
            case Type::S64: return loop<Op, Int<int64_t>>;                     \
            default: return nullptr;                                           \
        }                                                                      \
    }
#define SOFTGPU_FLOAT_DISPATCH(name, loop)                                     \
    template <class Op> ExecFn name(Type t, bool ftz) {                        \
        switch (t) {                                                           \
            case Type::F32: return ftz ? ExecFn(loop<Op, F32Ftz>) : ExecFn(loop<Op, F32>); \
            case Type::F64: return loop<Op, F64>;                              \
            case Type::F16: return loop<Op, F16>;                              \
            case Type::BF16: return loop<Op, BF16>;                            \
            case Type::F16x2: return loop<Paired<Op>, F16x2>;                  \
            case Type::BF16x2: return loop<Paired<Op>, BF16x2>;                \
            case Type::F32x2:                                                  \
                return ftz ? ExecFn(loop<Paired<Op>, F32x2Of<F32Ftz>>) : ExecFn(loop<Paired<Op>, F32x2Of<F32>>); \
            default: return nullptr;                                           \
        }                                                                      \
    }
SOFTGPU_INT_DISPATCH(int_unary, unary)
SOFTGPU_INT_DISPATCH(int_binary, binary)
SOFTGPU_INT_DISPATCH(int_ternary, ternary)
SOFTGPU_FLOAT_DISPATCH(float_unary, unary)
SOFTGPU_FLOAT_DISPATCH(float_binary, binary)
SOFTGPU_FLOAT_DISPATCH(float_ternary, ternary)
#undef SOFTGPU_INT_DISPATCH
#undef SOFTGPU_FLOAT_DISPATCH

}  // namespace softgpu
