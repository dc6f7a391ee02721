// Number formats: f16, bf16, tf32 and the 8/6/4-bit floats, with PTX's rounding and saturation rules.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace softgpu {

enum class Round : uint8_t { NearestEven, Zero, Down, Up, NearestAway, Stochastic };

inline float f16_to_f32(uint16_t bits) { return static_cast<float>(std::bit_cast<_Float16>(bits)); }
inline uint16_t f32_to_f16(float value) {   // round to nearest even
    const _Float16 half = static_cast<_Float16>(value);
    const uint16_t bits = std::bit_cast<uint16_t>(half);
    return std::isnan(value) ? uint16_t(0x7fff) : bits;   // PTX's canonical NaN
}
inline uint16_t f64_to_f16(double value) {
    return std::isnan(value) ? uint16_t(0x7fff) : std::bit_cast<uint16_t>(static_cast<_Float16>(value));
}
inline float bf16_to_f32(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
inline uint16_t f32_to_bf16(float value) {  // round to nearest even
    const uint32_t u = std::bit_cast<uint32_t>(value);
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return (u & 0x7fffffffu) > 0x7f800000u ? uint16_t(0x7fff) : static_cast<uint16_t>(rounded);
}
inline float flush(float v) {   // .ftz: subnormals become zero of the same sign
    const uint32_t u = std::bit_cast<uint32_t>(v);
    return (u & 0x7f800000u) == 0 ? std::bit_cast<float>(u & 0x80000000u) : v;
}

// A binary floating-point format of at most 32 bits.
struct SmallFloat {
    int exponent_bits, mantissa_bits, bias;
    enum class Special { Ieee, NanOnlyAllOnes, None } special;   // inf+nan / e4m3's single nan / neither
};
constexpr SmallFloat kF16{5, 10, 15, SmallFloat::Special::Ieee};
constexpr SmallFloat kBF16{8, 7, 127, SmallFloat::Special::Ieee};
constexpr SmallFloat kTF32{8, 10, 127, SmallFloat::Special::Ieee};
constexpr SmallFloat kE5M2{5, 2, 15, SmallFloat::Special::Ieee};
constexpr SmallFloat kE4M3{4, 3, 7, SmallFloat::Special::NanOnlyAllOnes};
constexpr SmallFloat kE3M2{3, 2, 3, SmallFloat::Special::None};
constexpr SmallFloat kE2M3{2, 3, 1, SmallFloat::Special::None};
constexpr SmallFloat kE2M1{2, 1, 1, SmallFloat::Special::None};

// The bits of `value` in `format`. Without `saturate`, overflow gives infinity (or NaN where the format has
// no infinity); with it, the largest finite number. `random` is used by Round::Stochastic only (mantissa bits
// below the format's are compared with its top bits).
uint32_t encode_float(double value, const SmallFloat& format, Round round, bool saturate, uint32_t random = 0);
float decode_float(uint32_t bits, const SmallFloat& format);

// tf32 as the tensor cores read it: the low 13 bits of the register are ignored.
inline float tf32_operand(uint32_t bits) { return std::bit_cast<float>(bits & 0xffffe000u); }

float e4m3_to_f32(uint8_t bits);   // by table
float e5m2_to_f32(uint8_t bits);
float e8m0_to_f32(uint8_t bits);   // a power of two: block scales

// Float to integer with PTX's rules: rounded by `round`, clamped to the range of the type; NaN gives 0, or
// 1 << (bits - 1) if source or result has 64 bits (PTX ISA, cvt).
template <class I, class F> I float_to_int(F value, Round round) {
    if (std::isnan(value)) return sizeof(I) == 8 || sizeof(F) == 8 ? static_cast<I>(1ull << (8 * sizeof(I) - 1)) : I{0};
    switch (round) {
        case Round::NearestEven: value = std::nearbyint(value); break;
        case Round::Zero: value = std::trunc(value); break;
        case Round::Down: value = std::floor(value); break;
        case Round::Up: value = std::ceil(value); break;
        default: value = std::round(value); break;
    }
    const F low = static_cast<F>(std::numeric_limits<I>::min());
    const F high = static_cast<F>(std::numeric_limits<I>::max());   // rounds up to 2^k for wide I
    if (value <= low) return std::numeric_limits<I>::min();
    if (value >= high) return std::numeric_limits<I>::max();
    return static_cast<I>(value);
}

}  // namespace softgpu
