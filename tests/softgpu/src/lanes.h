// Doing one thing to 32 lanes: typed views of register slots and the loops that opcode tables are made of.
#pragma once
#include "machine.h"
#include "numeric.h"
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace softgpu {

// ---- writing only the lanes of a mask ---------------------------------------------------------------------
inline void blend(uint32_t* dst, const uint32_t* value, Mask m) {
#if defined(__AVX512F__)
    _mm512_mask_storeu_epi32(dst, static_cast<__mmask16>(m), _mm512_loadu_si512(value));
    _mm512_mask_storeu_epi32(dst + 16, static_cast<__mmask16>(m >> 16), _mm512_loadu_si512(value + 16));
#else
    if (m == kAllLanes) { std::memcpy(dst, value, sizeof(uint32_t) * kWarpSize); return; }
    for (int l = 0; l < kWarpSize; ++l) dst[l] = (m >> l) & 1 ? value[l] : dst[l];
#endif
}
inline void blend(uint64_t* dst, const uint64_t* value, Mask m) {
#if defined(__AVX512F__)
    for (int i = 0; i < 4; ++i)
        _mm512_mask_storeu_epi64(dst + 8 * i, static_cast<__mmask8>(m >> (8 * i)), _mm512_loadu_si512(value + 8 * i));
#else
    if (m == kAllLanes) { std::memcpy(dst, value, sizeof(uint64_t) * kWarpSize); return; }
    for (int l = 0; l < kWarpSize; ++l) dst[l] = (m >> l) & 1 ? value[l] : dst[l];
#endif
}
inline void blend(Mask& dst, Mask value, Mask m) { dst = (dst & ~m) | (value & m); }

// Calls f(lane) for every lane in the mask.
template <class F> inline void each_lane(Mask m, F&& f) {
    while (m) {
        f(std::countr_zero(m));
        m &= m - 1;
    }
}

// ---- typed views -----------------------------------------------------------------------------------------
// V::Cell is what a register slot holds per lane, V::Value what arithmetic is done on. A value narrower than its
// cell lives in the low bits; readers ignore the rest, writers zero it.
template <class T> struct Int {
    using Cell = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
    using Value = T;
    static Value get(Cell c) { return static_cast<T>(c); }
    static Cell put(Value v) { return static_cast<Cell>(static_cast<std::make_unsigned_t<T>>(v)); }
};
struct F32 {
    using Cell = uint32_t;
    using Value = float;
    static Value get(Cell c) { return std::bit_cast<float>(c); }
    static Cell put(Value v) { return std::bit_cast<uint32_t>(v); }
};
struct F32Ftz {
    using Cell = uint32_t;
    using Value = float;
    static Value get(Cell c) { return flush(std::bit_cast<float>(c)); }
    static Cell put(Value v) { return std::bit_cast<uint32_t>(flush(v)); }
};
struct F64 {
    using Cell = uint64_t;
    using Value = double;
    static Value get(Cell c) { return std::bit_cast<double>(c); }
    static Cell put(Value v) { return std::bit_cast<uint64_t>(v); }
};
struct F16 {
    using Cell = uint32_t;
    using Value = float;
    static Value get(Cell c) { return f16_to_f32(static_cast<uint16_t>(c)); }
    static Cell put(Value v) { return f32_to_f16(v); }
};
struct BF16 {
    using Cell = uint32_t;
    using Value = float;
    static Value get(Cell c) { return bf16_to_f32(static_cast<uint16_t>(c)); }
    static Cell put(Value v) { return f32_to_bf16(v); }
};

template <class C> inline C* cells(Warp& w, Slot s) { return reinterpret_cast<C*>(w.regs + s); }

// dst = f(a), f(a, b), f(a, b, c) on every lane; `f` must be harmless for lanes outside the mask.
template <class D, class A, class F> inline Flow map1(Warp& w, const Instr& in, Mask m, F f) {
    const auto* a = cells<typename A::Cell>(w, in.a);
    alignas(64) typename D::Cell r[kWarpSize];
    for (int l = 0; l < kWarpSize; ++l) r[l] = D::put(f(A::get(a[l])));
    blend(cells<typename D::Cell>(w, in.dst), r, m);
    return Flow::Next;
}
template <class D, class A, class B, class F> inline Flow map2(Warp& w, const Instr& in, Mask m, F f) {
    const auto* a = cells<typename A::Cell>(w, in.a);
    const auto* b = cells<typename B::Cell>(w, in.b);
    alignas(64) typename D::Cell r[kWarpSize];
    for (int l = 0; l < kWarpSize; ++l) r[l] = D::put(f(A::get(a[l]), B::get(b[l])));
    blend(cells<typename D::Cell>(w, in.dst), r, m);
    return Flow::Next;
}
template <class D, class A, class B, class C, class F> inline Flow map3(Warp& w, const Instr& in, Mask m, F f) {
    const auto* a = cells<typename A::Cell>(w, in.a);
    const auto* b = cells<typename B::Cell>(w, in.b);
    const auto* c = cells<typename C::Cell>(w, in.c);
    alignas(64) typename D::Cell r[kWarpSize];
    for (int l = 0; l < kWarpSize; ++l) r[l] = D::put(f(A::get(a[l]), B::get(b[l]), C::get(c[l])));
    blend(cells<typename D::Cell>(w, in.dst), r, m);
    return Flow::Next;
}
// The lanes for which f(a, b) holds, as a mask.
template <class A, class F> inline Mask compare(Warp& w, Slot sa, Slot sb, F f) {
    const auto* a = cells<typename A::Cell>(w, sa);
    const auto* b = cells<typename A::Cell>(w, sb);
    Mask r = 0;
    for (int l = 0; l < kWarpSize; ++l) r |= static_cast<Mask>(f(A::get(a[l]), A::get(b[l])) ? 1u : 0u) << l;
    return r;
}

}  // namespace softgpu
