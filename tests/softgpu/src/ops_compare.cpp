// Comparisons and selections: setp, set, selp, slct.
#include "decoder.h"
#include "lanes.h"
#include "tables.h"
#include "typed.h"

namespace softgpu {
namespace {

enum class Cmp : uint8_t { Eq, Ne, Lt, Le, Gt, Ge, Equ, Neu, Ltu, Leu, Gtu, Geu, Num, Nan };
struct CmpRow { const char* name; Cmp cmp; };
const CmpRow kComparisons[] = {
    {"eq", Cmp::Eq}, {"ne", Cmp::Ne}, {"lt", Cmp::Lt}, {"le", Cmp::Le}, {"gt", Cmp::Gt}, {"ge", Cmp::Ge},
    {"lo", Cmp::Lt}, {"ls", Cmp::Le}, {"hi", Cmp::Gt}, {"hs", Cmp::Ge}, {"equ", Cmp::Equ}, {"neu", Cmp::Neu},
    {"ltu", Cmp::Ltu}, {"leu", Cmp::Leu}, {"gtu", Cmp::Gtu}, {"geu", Cmp::Geu}, {"num", Cmp::Num}, {"nan", Cmp::Nan},
};

// One loop for each comparison, so that each is a vector instruction. Ordered comparisons of NaN are false
// except ne, which PTX defines as ordered too; the ..u ones are true.
template <class L> Mask compare_lanes(Warp& w, const Instr& in, Cmp cmp) {
    const auto run = [&](auto f) { return compare<L>(w, in.a, in.b, f); };
    using V = typename L::Value;
    constexpr bool kFloat = std::is_floating_point_v<V>;
    const auto unordered = [](V a, V b) {
        if constexpr (kFloat) return std::isnan(a) || std::isnan(b);
        else { (void)a; (void)b; return false; }
    };
    switch (cmp) {
        case Cmp::Eq: return run([](V a, V b) { return a == b; });
        case Cmp::Ne: return run([&](V a, V b) { return a != b && !unordered(a, b); });
        case Cmp::Lt: return run([](V a, V b) { return a < b; });
        case Cmp::Le: return run([](V a, V b) { return a <= b; });
        case Cmp::Gt: return run([](V a, V b) { return a > b; });
        case Cmp::Ge: return run([](V a, V b) { return a >= b; });
        case Cmp::Equ: return run([&](V a, V b) { return a == b || unordered(a, b); });
        case Cmp::Neu: return run([](V a, V b) { return a != b; });
        case Cmp::Ltu: return run([](V a, V b) { return !(a >= b); });
        case Cmp::Leu: return run([](V a, V b) { return !(a > b); });
        case Cmp::Gtu: return run([](V a, V b) { return !(a <= b); });
        case Cmp::Geu: return run([](V a, V b) { return !(a < b); });
        case Cmp::Num: return run([&](V a, V b) { return !unordered(a, b); });
        case Cmp::Nan: return run([&](V a, V b) { return unordered(a, b); });
    }
    return 0;
}

// The upper halves of packed registers as 16-bit registers of their own.
template <class L> struct Upper {
    using Cell = uint32_t;
    using Value = float;
    static Value get(Cell c) { return L::get(c >> 16); }
};

enum : uint8_t { kNoBool, kAnd, kOr, kXor };

Mask combine(Mask result, uint8_t op, Mask c) {
    switch (op) {
        case kAnd: return result & c;
        case kOr: return result | c;
        case kXor: return result ^ c;
        default: return result;
    }
}

// setp p|q, a, b, c: p = (a cmp b) op c, q = !(a cmp b) op c. Packed types: p for the low half, q for the high.
template <class L, bool kPacked = false> Flow exec_setp(Warp& w, const Instr& in, Mask m) {
    const auto cmp = static_cast<Cmp>(in.u8[0]);
    const uint8_t op = in.u8[1];
    const Mask c = op == kNoBool ? 0 : w.pred(in.c) ^ (in.u8[2] ? kAllLanes : 0);
    const Mask r = compare_lanes<L>(w, in, cmp);
    Mask q = ~r;
    if constexpr (kPacked) q = compare_lanes<Upper<L>>(w, in, cmp);
    blend(w.pred(in.dst), combine(r, op, c), m);
    if (in.d != kNoSlot) blend(w.pred(in.d), combine(q, op, c), m);
    return Flow::Next;
}
// The hottest form: one destination, no boolean operation, no choice at run time.
template <class L, Cmp kCmp> Flow exec_setp_one(Warp& w, const Instr& in, Mask m) {
    blend(w.pred(in.dst), compare_lanes<L>(w, in, kCmp), m);
    return Flow::Next;
}

template <template <class> class Pick> ExecFn by_type(Type t, bool ftz) {
    switch (t) {
        case Type::U16: case Type::B16: return Pick<Int<uint16_t>>::fn();
        case Type::S16: return Pick<Int<int16_t>>::fn();
        case Type::U32: case Type::B32: return Pick<Int<uint32_t>>::fn();
        case Type::S32: return Pick<Int<int32_t>>::fn();
        case Type::U64: case Type::B64: return Pick<Int<uint64_t>>::fn();
        case Type::S64: return Pick<Int<int64_t>>::fn();
        case Type::F32: return ftz ? Pick<F32Ftz>::fn() : Pick<F32>::fn();
        case Type::F64: return Pick<F64>::fn();
        case Type::F16: return Pick<F16>::fn();
        case Type::BF16: return Pick<BF16>::fn();
        default: return nullptr;
    }
}
template <class L> struct PickSetp { static ExecFn fn() { return exec_setp<L>; } };
ExecFn simple_s32(Cmp cmp) {
    switch (cmp) {
        case Cmp::Eq: return exec_setp_one<Int<int32_t>, Cmp::Eq>;
        case Cmp::Ne: return exec_setp_one<Int<int32_t>, Cmp::Ne>;
        case Cmp::Lt: return exec_setp_one<Int<int32_t>, Cmp::Lt>;
        case Cmp::Le: return exec_setp_one<Int<int32_t>, Cmp::Le>;
        case Cmp::Gt: return exec_setp_one<Int<int32_t>, Cmp::Gt>;
        default: return exec_setp_one<Int<int32_t>, Cmp::Ge>;
    }
}

uint8_t take_bool(Decoder& d) {
    const std::string op = d.take_any({"and", "or", "xor"});
    return op == "and" ? kAnd : op == "or" ? kOr : op == "xor" ? kXor : kNoBool;
}
Cmp take_comparison(Decoder& d) {
    for (const auto& row : kComparisons)
        if (!d.modifiers().empty() && d.modifiers()[0] == row.name) {
            d.take(row.name);
            return row.cmp;
        }
    d.error("needs a comparison");
}

void decode_setp(Decoder& d, Instr& in) {
    const Cmp cmp = take_comparison(d);
    in.u8[0] = static_cast<uint8_t>(cmp);
    in.u8[1] = take_bool(d);
    const bool ftz = d.take("ftz");
    const Type t = d.take_type();
    in.dst = d.pred_dst(size_t{0});
    const std::string& second = d.operand(0).second;
    const bool packed = t == Type::F16x2 || t == Type::BF16x2;
    in.d = second.empty() || second == "_" ? kNoSlot : d.pred_dst(second);
    in.a = d.src(1, t);
    in.b = d.src(2, t);
    if (in.u8[1] != kNoBool) {
        bool negated;
        in.c = d.pred_src(3, &negated);
        in.u8[2] = negated;
    }
    if (packed) in.fn = t == Type::F16x2 ? ExecFn(exec_setp<F16, true>) : ExecFn(exec_setp<BF16, true>);
    else if (t == Type::S32 && in.d == kNoSlot && in.u8[1] == kNoBool && cmp <= Cmp::Ge) in.fn = simple_s32(cmp);
    else in.fn = by_type<PickSetp>(t, ftz);
    if (!in.fn) d.error("not defined for this type");
}

// set d, a, b: all ones or 1.0 where the comparison holds.
template <class L> struct PickSet {
    static Flow run(Warp& w, const Instr& in, Mask m) {
        const Mask c = in.u8[1] == kNoBool ? 0 : w.pred(in.c) ^ (in.u8[2] ? kAllLanes : 0);
        const Mask r = combine(compare_lanes<L>(w, in, static_cast<Cmp>(in.u8[0])), in.u8[1], c);
        const auto yes = static_cast<uint32_t>(in.imm);
        uint32_t* dst = w.r32(in.dst);
        each_lane(m, [&](int l) { dst[l] = (r >> l) & 1 ? yes : 0; });
        return Flow::Next;
    }
    static ExecFn fn() { return run; }
};
template <class L> Flow exec_set_packed(Warp& w, const Instr& in, Mask m) {
    const Mask low = compare_lanes<L>(w, in, static_cast<Cmp>(in.u8[0])),
               high = compare_lanes<Upper<L>>(w, in, static_cast<Cmp>(in.u8[0]));
    const auto yes = static_cast<uint32_t>(in.imm);
    uint32_t* dst = w.r32(in.dst);
    each_lane(m, [&](int l) { dst[l] = ((low >> l) & 1 ? yes : 0) | ((high >> l) & 1 ? yes << 16 : 0); });
    return Flow::Next;
}
void decode_set(Decoder& d, Instr& in) {
    in.u8[0] = static_cast<uint8_t>(take_comparison(d));
    in.u8[1] = take_bool(d);
    const bool ftz = d.take("ftz");
    const Type dt = d.take_type(), st = d.take_type();
    in.dst = d.dst(0, dt);
    in.a = d.src(1, st);
    in.b = d.src(2, st);
    if (in.u8[1] != kNoBool) {
        bool negated;
        in.c = d.pred_src(3, &negated);
        in.u8[2] = negated;
    }
    switch (dt) {
        case Type::F32: in.imm = 0x3f800000; break;
        case Type::F16: case Type::F16x2: in.imm = 0x3c00; break;
        case Type::BF16: case Type::BF16x2: in.imm = 0x3f80; break;
        case Type::U16: case Type::S16: in.imm = 0xffff; break;
        default: in.imm = 0xffffffff; break;
    }
    if (st == Type::F16x2 || st == Type::BF16x2) {
        in.imm &= 0xffff;
        in.fn = st == Type::F16x2 ? exec_set_packed<F16> : exec_set_packed<BF16>;
    } else in.fn = by_type<PickSet>(st, ftz);
    if (!in.fn) d.error("not defined for this type");
}

template <class C> Flow exec_selp(Warp& w, const Instr& in, Mask m) {
    const Mask p = w.pred(in.c) ^ (in.u8[0] ? kAllLanes : 0);
    const C* a = cells<C>(w, in.a);
    const C* b = cells<C>(w, in.b);
    C* dst = cells<C>(w, in.dst);
    alignas(64) C r[kWarpSize];
    std::memcpy(r, b, sizeof r);
    blend(r, a, p);
    blend(dst, r, m);
    return Flow::Next;
}
void decode_selp(Decoder& d, Instr& in) {
    const Type t = d.take_type();
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    in.b = d.src(2, t);
    bool negated;
    in.c = d.pred_src(3, &negated);
    in.u8[0] = negated;
    in.fn = type_bits(t) == 64 ? exec_selp<uint64_t> : exec_selp<uint32_t>;
}

// slct d, a, b, c: a where c >= 0.
template <class C, class L> Flow exec_slct(Warp& w, const Instr& in, Mask m) {
    const C* a = cells<C>(w, in.a);
    const C* b = cells<C>(w, in.b);
    const auto* c = cells<typename L::Cell>(w, in.c);
    C* dst = cells<C>(w, in.dst);
    each_lane(m, [&](int l) { dst[l] = L::get(c[l]) >= 0 ? a[l] : b[l]; });
    return Flow::Next;
}
void decode_slct(Decoder& d, Instr& in) {
    d.take("ftz");
    const Type t = d.take_type(), ct = d.take_type();
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    in.b = d.src(2, t);
    in.c = d.src(3, ct);
    if (type_bits(t) == 64) in.fn = ct == Type::F32 ? exec_slct<uint64_t, F32> : exec_slct<uint64_t, Int<int32_t>>;
    else in.fn = ct == Type::F32 ? exec_slct<uint32_t, F32> : exec_slct<uint32_t, Int<int32_t>>;
}

}  // namespace

const OpRow kCompareOps[] = {{"setp", decode_setp}, {"set", decode_set}, {"selp", decode_selp}, {"slct", decode_slct}};
SOFTGPU_DEFINE_COUNT(Compare)

}  // namespace softgpu
