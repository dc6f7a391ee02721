// Moving values and addresses: mov with packing and unpacking, cvta, isspacep, clocks.
#include <chrono>

#include "decoder.h"
#include "lanes.h"
#include "memory.h"
#include "tables.h"

namespace softgpu {
namespace {

template <class C> Flow exec_mov(Warp& w, const Instr& in, Mask m) {
    blend(cells<C>(w, in.dst), cells<C>(w, in.a), m);
    return Flow::Next;
}
Flow exec_mov128(Warp& w, const Instr& in, Mask m) {   // a 128-bit register: 32 low halves, then 32 high halves
    blend(w.r64(in.dst), w.r64(in.a), m);
    blend(w.r64(in.dst) + kWarpSize, w.r64(in.a) + kWarpSize, m);
    return Flow::Next;
}
Flow exec_mov_pred(Warp& w, const Instr& in, Mask m) {
    blend(w.pred(in.dst), w.pred(in.a) ^ (in.u8[0] ? kAllLanes : 0), m);
    return Flow::Next;
}

// ---- {a, b, ...} <-> one register -------------------------------------------------------------------------------
struct Pack { std::vector<Slot> parts; unsigned part_bits; };

template <class Whole> Flow exec_pack(Warp& w, const Instr& in, Mask m) {
    const auto& pack = *static_cast<const Pack*>(in.extra);
    alignas(64) Whole r[kWarpSize] = {};
    unsigned shift = 0;
    for (const Slot part : pack.parts) {
        const uint32_t* p = w.r32(part);
        const Whole mask =
            pack.part_bits == 32 ? static_cast<Whole>(0xffffffffu) : static_cast<Whole>((1u << pack.part_bits) - 1);
        for (int l = 0; l < kWarpSize; ++l)
            r[l] = static_cast<Whole>(r[l] | (static_cast<Whole>(p[l] & mask) << shift));
        shift += pack.part_bits;
    }
    blend(cells<Whole>(w, in.dst), r, m);
    return Flow::Next;
}
template <class Whole> Flow exec_unpack(Warp& w, const Instr& in, Mask m) {
    const auto& pack = *static_cast<const Pack*>(in.extra);
    alignas(64) Whole whole[kWarpSize];   // a part may be the same register as the whole
    std::memcpy(whole, cells<Whole>(w, in.a), sizeof whole);
    alignas(64) uint32_t r[kWarpSize];
    const uint32_t mask = pack.part_bits == 32 ? 0xffffffffu : (1u << pack.part_bits) - 1;
    unsigned shift = 0;
    for (const Slot part : pack.parts) {
        for (int l = 0; l < kWarpSize; ++l) r[l] = static_cast<uint32_t>(whole[l] >> shift) & mask;
        blend(w.r32(part), r, m);
        shift += pack.part_bits;
    }
    return Flow::Next;
}
Flow exec_pack128(Warp& w, const Instr& in, Mask m) {
    const auto& pack = *static_cast<const Pack*>(in.extra);
    blend(w.r64(in.dst), w.r64(pack.parts[0]), m);
    blend(w.r64(in.dst) + kWarpSize, w.r64(pack.parts[1]), m);
    return Flow::Next;
}
Flow exec_unpack128(Warp& w, const Instr& in, Mask m) {
    const auto& pack = *static_cast<const Pack*>(in.extra);
    blend(w.r64(pack.parts[0]), w.r64(in.a), m);
    blend(w.r64(pack.parts[1]), w.r64(in.a) + kWarpSize, m);
    return Flow::Next;
}

Type part_type(Decoder& d, unsigned bits) {
    switch (bits) {
        case 8: return Type::B8;
        case 16: return Type::B16;
        case 32: return Type::B32;
        case 64: return Type::B64;
        default: d.error("cannot split into such parts");
    }
}

Flow exec_clock(Warp& w, const Instr& in, Mask m) {
    const auto now = static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
    each_lane(m, [&](int l) {
        if (in.u8[0]) w.r64(in.dst)[l] = now;
        else w.r32(in.dst)[l] = static_cast<uint32_t>(in.u8[1] ? now >> 32 : now);
    });
    return Flow::Next;
}

void decode_mov(Decoder& d, Instr& in) {
    const Type t = d.take_type();
    const Operand& to = d.operand(0);
    const Operand& from = d.operand(1);
    if (t == Type::Pred) {
        bool negated;
        in.dst = d.pred_dst(size_t{0});
        in.a = d.pred_src(1, &negated);
        in.u8[0] = negated;
        in.fn = exec_mov_pred;
        return;
    }
    for (const char* clock : {"%clock", "%clock64", "%globaltimer", "%clock_hi", "%globaltimer_lo", "%globaltimer_hi"})
        if (from.name == clock) {
            in.dst = d.dst(0, t);
            in.u8[0] = type_bits(t) == 64;
            in.u8[1] = std::string(clock).ends_with("_hi");
            in.fn = exec_clock;
            return;
        }
    const unsigned bits = type_bits(t);
    const bool packs = from.kind == Operand::Kind::Vector, unpacks = to.kind == Operand::Kind::Vector;
    if (packs || unpacks) {
        const auto& parts = packs ? from.parts : to.parts;
        auto* pack = d.make_extra<Pack>();
        pack->part_bits = bits / static_cast<unsigned>(parts.size());
        const Type pt = part_type(d, pack->part_bits);
        pack->parts = packs ? d.src_list(1, pt) : d.dst_list(0, pt);
        in.extra = pack;
        if (packs) in.dst = d.dst(0, t);
        else in.a = d.src(1, t);
        if (bits == 128) {
            if (pack->part_bits != 64) d.error("a 128-bit register splits into two 64-bit parts only");
            in.fn = packs ? exec_pack128 : exec_unpack128;
        } else if (bits == 64) in.fn = packs ? exec_pack<uint64_t> : exec_unpack<uint64_t>;
        else in.fn = packs ? exec_pack<uint32_t> : exec_unpack<uint32_t>;
        return;
    }
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    in.fn = bits == 128 ? exec_mov128 : bits == 64 ? exec_mov<uint64_t> : exec_mov<uint32_t>;
}

// ---- generic addresses --------------------------------------------------------------------------------------------
// cvta adds the window of its space, cvta.to takes it off. Global, const and param addresses are generic as they are.
template <bool kTo> Flow exec_cvta(Warp& w, const Instr& in, Mask m) {
    const auto window = static_cast<uint64_t>(in.imm);
    const uint64_t* a = w.r64(in.a);
    alignas(64) uint64_t r[kWarpSize];
    for (int l = 0; l < kWarpSize; ++l) r[l] = kTo ? a[l] & ~window : a[l] | window;
    blend(w.r64(in.dst), r, m);
    return Flow::Next;
}
template <bool kTo> Flow exec_cvta32(Warp& w, const Instr& in, Mask m) {
    blend(w.r32(in.dst), w.r32(in.a), m);
    return Flow::Next;
}
void decode_cvta(Decoder& d, Instr& in) {
    const bool to = d.take("to");
    const std::string space =
        d.take_any({"global", "shared", "shared::cta", "shared::cluster", "local", "const", "param", "param::entry"});
    if (space.empty()) d.error("needs a state space");
    const Type t = d.take_type();
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    const bool shared = space.rfind("shared", 0) == 0;
    in.imm = static_cast<int64_t>(shared ? kSharedWindow : space == "local" ? kLocalWindow : 0);
    if (type_bits(t) == 32) in.fn = to ? exec_cvta32<true> : exec_cvta32<false>;
    else in.fn = to ? exec_cvta<true> : exec_cvta<false>;
}
Flow exec_isspacep(Warp& w, const Instr& in, Mask m) {
    const uint64_t* a = w.r64(in.a);
    Mask r = 0;
    for (int l = 0; l < kWarpSize; ++l)
        r |= static_cast<Mask>((a[l] & kWindowMask) == static_cast<uint64_t>(in.imm)) << l;
    blend(w.pred(in.dst), r, m);
    return Flow::Next;
}
void decode_isspacep(Decoder& d, Instr& in) {
    const std::string space = d.take_any({"global", "shared", "shared::cta", "shared::cluster", "local"});
    if (space.empty()) d.error("needs a state space");
    in.dst = d.pred_dst(size_t{0});
    in.a = d.src(1, Type::B64);
    in.imm = static_cast<int64_t>(space.rfind("shared", 0) == 0 ? kSharedWindow : space == "local" ? kLocalWindow : 0);
    in.fn = exec_isspacep;
}

}  // namespace

const OpRow kMoveOps[] = {{"mov", decode_mov}, {"cvta", decode_cvta}, {"isspacep", decode_isspacep}};
SOFTGPU_DEFINE_COUNT(Move)

}  // namespace softgpu
