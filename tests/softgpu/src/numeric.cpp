// Encoding and decoding of small floating-point formats.
#include "numeric.h"

#include <array>

namespace softgpu {

uint32_t encode_float(double value, const SmallFloat& f, Round round, bool saturate, uint32_t random) {
    const uint32_t sign = std::signbit(value) ? 1u : 0u;
    const uint32_t sign_bit = sign << (f.exponent_bits + f.mantissa_bits);
    const uint32_t exponent_max = (1u << f.exponent_bits) - 1;
    const uint32_t mantissa_max = (1u << f.mantissa_bits) - 1;
    const uint32_t all_ones = exponent_max << f.mantissa_bits | mantissa_max;
    uint32_t max_finite = all_ones;
    if (f.special == SmallFloat::Special::Ieee) max_finite = ((exponent_max - 1) << f.mantissa_bits) | mantissa_max;
    if (f.special == SmallFloat::Special::NanOnlyAllOnes) max_finite = all_ones - 1;

    if (std::isnan(value)) return f.special == SmallFloat::Special::None ? max_finite : all_ones;
    const uint32_t overflow = f.special == SmallFloat::Special::Ieee ? exponent_max << f.mantissa_bits
                              : f.special == SmallFloat::Special::NanOnlyAllOnes ? all_ones : max_finite;
    const bool to_finite = saturate;
    if (std::isinf(value)) return sign_bit | (to_finite ? max_finite : overflow);

    double magnitude = std::fabs(value);
    if (magnitude == 0) return sign_bit;
    int exponent;
    std::frexp(magnitude, &exponent);                       // magnitude = m * 2^exponent, m in [0.5, 1)
    const int least = 1 - f.bias - f.mantissa_bits;         // exponent of the smallest subnormal
    const int ulp = std::max(exponent - 1 - f.mantissa_bits, least);
    const double scaled = std::ldexp(magnitude, -ulp);      // in units of the last place: exact
    double whole = std::floor(scaled);
    const double rest = scaled - whole;
    switch (round) {
        case Round::NearestEven: if (rest > 0.5 || (rest == 0.5 && std::fmod(whole, 2.0) == 1.0)) whole += 1; break;
        case Round::NearestAway: if (rest >= 0.5) whole += 1; break;
        case Round::Zero: break;
        case Round::Down: if (rest > 0 && sign) whole += 1; break;
        case Round::Up: if (rest > 0 && !sign) whole += 1; break;
        case Round::Stochastic: if (rest > static_cast<double>(random) / 4294967296.0) whole += 1; break;
    }
    if (whole == 0) return sign_bit;
    std::frexp(whole, &exponent);
    const int top = exponent - 1 + ulp;                     // value is in [2^top, 2^(top+1))
    uint32_t bits;
    if (top < 1 - f.bias) bits = static_cast<uint32_t>(whole);                       // subnormal
    else {
        const auto mantissa = static_cast<uint64_t>(std::ldexp(whole, ulp - top + f.mantissa_bits));
        const int64_t biased = top + f.bias;
        if (biased > static_cast<int64_t>(exponent_max)) bits = UINT32_MAX;
        else bits = static_cast<uint32_t>(biased) << f.mantissa_bits | (static_cast<uint32_t>(mantissa) & mantissa_max);
    }
    if (bits > max_finite) {
        const bool stays = round == Round::Zero || (round == Round::Down && !sign) || (round == Round::Up && sign);
        return sign_bit | (to_finite || stays ? max_finite : overflow);
    }
    return sign_bit | bits;
}

float decode_float(uint32_t bits, const SmallFloat& f) {
    const uint32_t mantissa = bits & ((1u << f.mantissa_bits) - 1);
    const uint32_t exponent_max = (1u << f.exponent_bits) - 1;
    const uint32_t exponent = (bits >> f.mantissa_bits) & exponent_max;
    const float sign = (bits >> (f.exponent_bits + f.mantissa_bits)) & 1 ? -1.0f : 1.0f;
    if (exponent == exponent_max) {
        if (f.special == SmallFloat::Special::Ieee)
            return mantissa ? std::numeric_limits<float>::quiet_NaN() : sign * std::numeric_limits<float>::infinity();
        if (f.special == SmallFloat::Special::NanOnlyAllOnes && mantissa == (1u << f.mantissa_bits) - 1)
            return std::numeric_limits<float>::quiet_NaN();
    }
    const int e = static_cast<int>(exponent);
    if (e == 0) return sign * std::ldexp(static_cast<float>(mantissa), 1 - f.bias - f.mantissa_bits);
    return sign * std::ldexp(static_cast<float>(mantissa | (1u << f.mantissa_bits)), e - f.bias - f.mantissa_bits);
}

namespace {
std::array<float, 256> make_table(const SmallFloat& format) {
    std::array<float, 256> table{};
    for (uint32_t i = 0; i < 256; ++i) table[i] = decode_float(i, format);
    return table;
}
const std::array<float, 256> kE4M3Table = make_table(kE4M3);
const std::array<float, 256> kE5M2Table = make_table(kE5M2);
}  // namespace

float e4m3_to_f32(uint8_t bits) { return kE4M3Table[bits]; }
float e5m2_to_f32(uint8_t bits) { return kE5M2Table[bits]; }
float e8m0_to_f32(uint8_t bits) {
    return bits == 255 ? std::numeric_limits<float>::quiet_NaN() : std::ldexp(1.0f, static_cast<int>(bits) - 127);
}

}  // namespace softgpu
