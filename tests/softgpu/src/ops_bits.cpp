// Bits: logic, shifts, bit fields, byte permutation, counting, packed dot products.
#include <bit>

#include "decoder.h"
#include "lanes.h"
#include "tables.h"
#include "typed.h"

namespace softgpu {
namespace {

struct And { template <class T> static T apply(T a, T b) { return static_cast<T>(a & b); } };
struct Or { template <class T> static T apply(T a, T b) { return static_cast<T>(a | b); } };
struct Xor { template <class T> static T apply(T a, T b) { return static_cast<T>(a ^ b); } };
struct Not { template <class T> static T apply(T a) { return static_cast<T>(~a); } };
struct Cnot { template <class T> static T apply(T a) { return a == 0 ? T(1) : T(0); } };

// Predicates are lane masks: one word operation does all lanes. Negated operands (`!p`) are flags.
template <class Op> Flow exec_pred_binary(Warp& w, const Instr& in, Mask m) {
    const Mask a = w.pred(in.a) ^ (in.u8[0] ? kAllLanes : 0), b = w.pred(in.b) ^ (in.u8[1] ? kAllLanes : 0);
    blend(w.pred(in.dst), Op::apply(a, b), m);
    return Flow::Next;
}
Flow exec_pred_not(Warp& w, const Instr& in, Mask m) {
    blend(w.pred(in.dst), ~(w.pred(in.a) ^ (in.u8[0] ? kAllLanes : 0)), m);
    return Flow::Next;
}
template <class Op> void decode_logic(Decoder& d, Instr& in) {
    const Type t = d.take_type();
    if (t == Type::Pred) {
        bool na, nb;
        in.dst = d.pred_dst(size_t{0});
        in.a = d.pred_src(1, &na);
        in.b = d.pred_src(2, &nb);
        in.u8[0] = na;
        in.u8[1] = nb;
        in.fn = exec_pred_binary<Op>;
        return;
    }
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    in.b = d.src(2, t);
    in.fn = int_binary<Op>(t);
    if (!in.fn) d.error("not defined for this type");
}
template <class Op> void decode_unary(Decoder& d, Instr& in) {
    const Type t = d.take_type();
    if (t == Type::Pred) {
        bool na;
        in.dst = d.pred_dst(size_t{0});
        in.a = d.pred_src(1, &na);
        in.u8[0] = na;
        in.fn = exec_pred_not;
        return;
    }
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    in.fn = int_unary<Op>(t);
    if (!in.fn) d.error("not defined for this type");
}

// ---- shifts: the amount is 32 bits and clamps to the width ---------------------------------------------------------
template <class T, bool kLeft> Flow exec_shift(Warp& w, const Instr& in, Mask m) {
    return map2<Int<T>, Int<T>, Int<uint32_t>>(w, in, m, [](T a, uint32_t n) {
        constexpr uint32_t bits = 8 * sizeof(T);
        using U = std::make_unsigned_t<T>;
        if (kLeft) return static_cast<T>(n >= bits ? U(0) : static_cast<U>(static_cast<U>(a) << n));
        if (n >= bits) return static_cast<T>(std::is_signed_v<T> && a < 0 ? -1 : 0);
        return static_cast<T>(a >> n);
    });
}
template <bool kLeft> void decode_shift(Decoder& d, Instr& in) {
    const Type t = d.take_type();
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    in.b = d.src(2, Type::U32);
    switch (t) {
        case Type::B16: case Type::U16: in.fn = exec_shift<uint16_t, kLeft>; break;
        case Type::S16: in.fn = exec_shift<int16_t, kLeft>; break;
        case Type::B32: case Type::U32: in.fn = exec_shift<uint32_t, kLeft>; break;
        case Type::S32: in.fn = exec_shift<int32_t, kLeft>; break;
        case Type::B64: case Type::U64: in.fn = exec_shift<uint64_t, kLeft>; break;
        case Type::S64: in.fn = exec_shift<int64_t, kLeft>; break;
        default: d.error("not defined for this type");
    }
}
template <bool kLeft, bool kWrap> Flow exec_funnel(Warp& w, const Instr& in, Mask m) {
    using U = Int<uint32_t>;
    return map3<U, U, U, U>(w, in, m, [](uint32_t low, uint32_t high, uint32_t n) {
        const uint32_t s = kWrap ? n & 31 : n > 32 ? 32 : n;
        const uint64_t both = static_cast<uint64_t>(high) << 32 | low;
        return kLeft ? static_cast<uint32_t>((both << s) >> 32) : static_cast<uint32_t>(both >> s);
    });
}
void decode_funnel(Decoder& d, Instr& in) {
    const bool left = d.take("l");
    if (!left) d.take("r");
    const bool wrap = d.take("wrap");
    if (!wrap) d.take("clamp");
    const Type t = d.take_type();
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    in.b = d.src(2, t);
    in.c = d.src(3, Type::U32);
    in.fn = left ? (wrap ? exec_funnel<true, true> : exec_funnel<true, false>)
                 : (wrap ? exec_funnel<false, true> : exec_funnel<false, false>);
}

// ---- lop3: any function of three bits, as a truth table
// ---------------------------------------------------------------
Flow exec_lop3(Warp& w, const Instr& in, Mask m) {
    using U = Int<uint32_t>;
    const auto table = static_cast<uint32_t>(in.imm);
    return map3<U, U, U, U>(w, in, m, [=](uint32_t a, uint32_t b, uint32_t c) {
        uint32_t r = 0;
        for (uint32_t i = 0; i < 8; ++i)
            if ((table >> i) & 1) r |= ((i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c));
        return r;
    });
}
void decode_lop3(Decoder& d, Instr& in) {
    const Type t = d.take_type();
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    in.b = d.src(2, t);
    in.c = d.src(3, t);
    const auto table = d.immediate(4);
    if (!table) d.error("the truth table must be a constant");
    in.imm = static_cast<int64_t>(*table);
    in.fn = exec_lop3;
}

// ---- bit fields
// ---------------------------------------------------------------------------------------------------------
template <class T> T extract(T a, uint32_t b, uint32_t c) {
    constexpr uint32_t bits = 8 * sizeof(T);
    using U = std::make_unsigned_t<T>;
    const uint32_t pos = b & 0xff, len = c & 0xff;
    if (len == 0) return 0;
    const uint32_t top = std::min<uint32_t>(pos + len - 1, bits - 1);
    const bool sign = std::is_signed_v<T> && ((static_cast<U>(a) >> top) & 1);
    U r = 0;
    if (pos < bits) r = static_cast<U>(a) >> pos;
    const uint32_t kept = pos < bits ? std::min(len, bits - pos) : 0;
    const U mask = kept >= bits ? ~U(0) : static_cast<U>((U(1) << kept) - 1);
    r &= mask;
    if (sign) r |= static_cast<U>(~mask);
    return static_cast<T>(r);
}
template <class T> Flow exec_bfe(Warp& w, const Instr& in, Mask m) {
    return map3<Int<T>, Int<T>, Int<uint32_t>, Int<uint32_t>>(
        w, in, m, [](T a, uint32_t b, uint32_t c) { return extract<T>(a, b, c); });
}
void decode_bfe(Decoder& d, Instr& in) {
    const Type t = d.take_type();
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    in.b = d.src(2, Type::U32);
    in.c = d.src(3, Type::U32);
    switch (t) {
        case Type::U32: case Type::B32: in.fn = exec_bfe<uint32_t>; break;
        case Type::S32: in.fn = exec_bfe<int32_t>; break;
        case Type::U64: case Type::B64: in.fn = exec_bfe<uint64_t>; break;
        case Type::S64: in.fn = exec_bfe<int64_t>; break;
        default: d.error("not defined for this type");
    }
}
template <class T> Flow exec_bfi(Warp& w, const Instr& in, Mask m) {   // bfi f, a, b, pos, len: a's bits into b
    const auto* a = cells<typename Int<T>::Cell>(w, in.a);
    const auto* b = cells<typename Int<T>::Cell>(w, in.b);
    const uint32_t* pos = w.r32(in.c);
    const uint32_t* len = w.r32(in.d);
    auto* dst = cells<typename Int<T>::Cell>(w, in.dst);
    each_lane(m, [&](int l) {
        const uint32_t p = pos[l] & 0xff, n = len[l] & 0xff;
        constexpr uint32_t bits = 8 * sizeof(T);
        T mask = n >= bits ? ~T(0) : static_cast<T>((T(1) << n) - 1);
        mask = p >= bits ? T(0) : static_cast<T>(mask << p);
        const T placed = p >= bits ? T(0) : static_cast<T>(static_cast<T>(a[l]) << p);
        dst[l] = (static_cast<T>(b[l]) & ~mask) | (placed & mask);
    });
    return Flow::Next;
}
void decode_bfi(Decoder& d, Instr& in) {
    const Type t = d.take_type();
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    in.b = d.src(2, t);
    in.c = d.src(3, Type::U32);
    in.d = d.src(4, Type::U32);
    in.fn = type_bits(t) == 64 ? exec_bfi<uint64_t> : exec_bfi<uint32_t>;
}
template <bool kWrap> Flow exec_bmsk(Warp& w, const Instr& in, Mask m) {
    using U = Int<uint32_t>;
    return map2<U, U, U>(w, in, m, [](uint32_t pos, uint32_t len) {
        if (kWrap) { pos &= 31; len &= 31; }
        const uint64_t ones = len >= 32 ? 0xffffffffull : (1ull << len) - 1;
        return pos >= 32 ? 0u : static_cast<uint32_t>(ones << pos);
    });
}
void decode_bmsk(Decoder& d, Instr& in) {
    const bool wrap = d.take("wrap");
    if (!wrap) d.take("clamp");
    const Type t = d.take_type();
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    in.b = d.src(2, t);
    in.fn = wrap ? exec_bmsk<true> : exec_bmsk<false>;
}
template <class T, bool kWrap> Flow exec_szext(Warp& w, const Instr& in, Mask m) {
    return map2<Int<T>, Int<uint32_t>, Int<uint32_t>>(w, in, m, [](uint32_t a, uint32_t n) {
        if (kWrap) n &= 31;
        return n >= 32 ? static_cast<T>(a) : n == 0 ? T(0) : extract<T>(static_cast<T>(a), 0, n);
    });
}
void decode_szext(Decoder& d, Instr& in) {
    const bool wrap = d.take("wrap");
    if (!wrap) d.take("clamp");
    const Type t = d.take_type();
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    in.b = d.src(2, Type::U32);
    if (t == Type::S32) in.fn = wrap ? exec_szext<int32_t, true> : exec_szext<int32_t, false>;
    else in.fn = wrap ? exec_szext<uint32_t, true> : exec_szext<uint32_t, false>;
}

// ---- counting
// ---------------------------------------------------------------------------------------------------------
template <class T> Flow exec_popc(Warp& w, const Instr& in, Mask m) {
    return map1<Int<uint32_t>, Int<T>>(w, in, m, [](T a) { return static_cast<uint32_t>(std::popcount(a)); });
}
template <class T> Flow exec_clz(Warp& w, const Instr& in, Mask m) {
    return map1<Int<uint32_t>, Int<T>>(w, in, m, [](T a) { return static_cast<uint32_t>(std::countl_zero(a)); });
}
template <class T> Flow exec_brev(Warp& w, const Instr& in, Mask m) {
    return map1<Int<T>, Int<T>>(w, in, m, [](T a) {
        T r = 0;
        for (unsigned i = 0; i < 8 * sizeof(T); ++i) r = static_cast<T>(r << 1 | ((a >> i) & 1));
        return r;
    });
}
template <class T, bool kShift> Flow exec_bfind(Warp& w, const Instr& in, Mask m) {
    return map1<Int<uint32_t>, Int<T>>(w, in, m, [](T a) {
        using U = std::make_unsigned_t<T>;
        const U u = static_cast<U>(std::is_signed_v<T> && a < 0 ? ~a : a);
        if (u == 0) return 0xffffffffu;
        const auto top = static_cast<uint32_t>(8 * sizeof(T) - 1 - static_cast<unsigned>(std::countl_zero(u)));
        return kShift ? static_cast<uint32_t>(8 * sizeof(T) - 1) - top : top;
    });
}
template <ExecFn k32, ExecFn k64> void decode_count(Decoder& d, Instr& in) {
    const Type t = d.take_type();
    in.dst = d.dst(0, Type::U32);
    in.a = d.src(1, t);
    in.fn = type_bits(t) == 64 ? k64 : k32;
}
void decode_brev(Decoder& d, Instr& in) {
    const Type t = d.take_type();
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    in.fn = type_bits(t) == 64 ? exec_brev<uint64_t> : exec_brev<uint32_t>;
}
void decode_bfind(Decoder& d, Instr& in) {
    const bool shift = d.take("shiftamt");
    const Type t = d.take_type();
    in.dst = d.dst(0, Type::U32);
    in.a = d.src(1, t);
    switch (t) {
        case Type::U32: in.fn = shift ? exec_bfind<uint32_t, true> : exec_bfind<uint32_t, false>; break;
        case Type::S32: in.fn = shift ? exec_bfind<int32_t, true> : exec_bfind<int32_t, false>; break;
        case Type::U64: in.fn = shift ? exec_bfind<uint64_t, true> : exec_bfind<uint64_t, false>; break;
        case Type::S64: in.fn = shift ? exec_bfind<int64_t, true> : exec_bfind<int64_t, false>; break;
        default: d.error("not defined for this type");
    }
}
Flow exec_fns(Warp& w, const Instr& in, Mask m) {   // the n-th set bit from a base position
    using U = Int<uint32_t>;
    return map3<U, U, U, U>(w, in, m, [](uint32_t mask, uint32_t base, uint32_t offset) {
        const auto n = static_cast<int32_t>(offset);
        int32_t count = 0;
        if (n == 0) return base < 32 && (mask >> base) & 1 ? base : 0xffffffffu;
        const int step = n > 0 ? 1 : -1;
        for (int64_t pos = base; pos >= 0 && pos < 32; pos += step)
            if (((mask >> pos) & 1) && ++count == std::abs(n)) return static_cast<uint32_t>(pos);
        return 0xffffffffu;
    });
}
void decode_fns(Decoder& d, Instr& in) {
    const Type t = d.take_type();
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    in.b = d.src(2, Type::U32);
    in.c = d.src(3, Type::S32);
    in.fn = exec_fns;
}

// ---- prmt: four bytes out of eight
// ---------------------------------------------------------------------------------------
uint32_t permute(uint32_t a, uint32_t b, uint32_t selector) {
    const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
    uint32_t r = 0;
    for (int i = 0; i < 4; ++i) {
        const uint32_t s = (selector >> (4 * i)) & 0xf;
        uint32_t byte = static_cast<uint8_t>(bytes >> (8 * (s & 7)));
        if (s & 8) byte = byte & 0x80 ? 0xff : 0;   // the byte's sign, replicated
        r |= byte << (8 * i);
    }
    return r;
}
// The selector of a named mode (f4e, b4e, rc8, ecl, ecr, rc16) from the low two bits of c.
constexpr const char* kPermuteModes[] = {"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"};
constexpr uint16_t kPermuteSelectors[6][4] = {
    {0x3210, 0x4321, 0x5432, 0x6543}, {0x5670, 0x6701, 0x7012, 0x0123}, {0x0000, 0x1111, 0x2222, 0x3333},
    {0x3210, 0x3211, 0x3222, 0x3333}, {0x0000, 0x1110, 0x2210, 0x3210}, {0x1010, 0x3232, 0x1010, 0x3232}};
Flow exec_prmt(Warp& w, const Instr& in, Mask m) {
    using U = Int<uint32_t>;
    return map3<U, U, U, U>(w, in, m, [](uint32_t a, uint32_t b, uint32_t c) { return permute(a, b, c); });
}
Flow exec_prmt_mode(Warp& w, const Instr& in, Mask m) {
    using U = Int<uint32_t>;
    const auto& selectors = kPermuteSelectors[in.u8[0]];
    return map3<U, U, U, U>(w, in, m,
                            [&](uint32_t a, uint32_t b, uint32_t c) { return permute(a, b, selectors[c & 3]); });
}
void decode_prmt(Decoder& d, Instr& in) {
    const Type t = d.take_type();
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    in.b = d.src(2, t);
    in.c = d.src(3, t);
    in.fn = exec_prmt;
    for (uint8_t i = 0; i < 6; ++i)
        if (d.take(kPermuteModes[i])) {
            in.u8[0] = i;
            in.fn = exec_prmt_mode;
        }
}

// ---- dot products of packed bytes
// -------------------------------------------------------------------------------------------
template <bool kSignedA, bool kSignedB> Flow exec_dp4a(Warp& w, const Instr& in, Mask m) {
    using U = Int<uint32_t>;
    return map3<U, U, U, U>(w, in, m, [](uint32_t a, uint32_t b, uint32_t c) {
        for (int i = 0; i < 32; i += 8) {
            const int32_t x = kSignedA ? static_cast<int8_t>(a >> i) : static_cast<uint8_t>(a >> i);
            const int32_t y = kSignedB ? static_cast<int8_t>(b >> i) : static_cast<uint8_t>(b >> i);
            c += static_cast<uint32_t>(x * y);
        }
        return c;
    });
}
void decode_dp4a(Decoder& d, Instr& in) {
    const Type ta = d.take_type(), tb = d.take_type();
    in.dst = d.dst(0, Type::U32);
    in.a = d.src(1, Type::U32);
    in.b = d.src(2, Type::U32);
    in.c = d.src(3, Type::U32);
    const bool sa = ta == Type::S32, sb = tb == Type::S32;
    in.fn = sa ? (sb ? exec_dp4a<true, true> : exec_dp4a<true, false>)
               : (sb ? exec_dp4a<false, true> : exec_dp4a<false, false>);
}

}  // namespace

const OpRow kBitOps[] = {
    {"and", decode_logic<And>},
    {"or", decode_logic<Or>},
    {"xor", decode_logic<Xor>},
    {"not", decode_unary<Not>},
    {"cnot", decode_unary<Cnot>},
    {"shl", decode_shift<true>},
    {"shr", decode_shift<false>},
    {"shf", decode_funnel},
    {"lop3", decode_lop3},
    {"bfe", decode_bfe},
    {"bfi", decode_bfi},
    {"bmsk", decode_bmsk},
    {"szext", decode_szext},
    {"popc", decode_count<exec_popc<uint32_t>, exec_popc<uint64_t>>},
    {"clz", decode_count<exec_clz<uint32_t>, exec_clz<uint64_t>>},
    {"brev", decode_brev},
    {"bfind", decode_bfind},
    {"fns", decode_fns},
    {"prmt", decode_prmt},
    {"dp4a", decode_dp4a},
};
SOFTGPU_DEFINE_COUNT(Bit)

}  // namespace softgpu
