// Lanes of a warp talking to each other: shfl, vote, match, redux, activemask, elect, bar.warp.sync.
#include <algorithm>
#include <bit>

#include "decoder.h"
#include "lanes.h"
#include "sync.h"
#include "tables.h"

namespace softgpu {
namespace {

constexpr const char* kWaitsForLanes = "the other lanes of its member mask at";

// ---- shfl.sync.mode.b32 d|p, a, b, c, members (formulas: PTX ISA, shfl.sync) ---------------------------------------
enum class Shuffle : uint8_t { Up, Down, Butterfly, Index };
template <Shuffle kMode> Flow exec_shfl(Warp& w, const Instr& in, Mask m) {
    const Mask members = member_mask(w, static_cast<Slot>(in.imm), m);
    if (!members_here(w, in, m, members)) return w.wait_for(kWaitsForLanes, members);
    const uint32_t* a = w.r32(in.a);
    const uint32_t* b = w.r32(in.b);
    const uint32_t* c = w.r32(in.c);
    alignas(64) uint32_t r[kWarpSize];
    Mask valid = 0;
    for (int l = 0; l < kWarpSize; ++l) {
        const int bval = static_cast<int>(b[l] & 31), cval = static_cast<int>(c[l] & 31),
                  seg = static_cast<int>((c[l] >> 8) & 31);
        const int max_lane = (l & seg) | (cval & ~seg), min_lane = l & seg;
        int j = 0;
        bool p = false;
        switch (kMode) {
            case Shuffle::Up: j = l - bval; p = j >= max_lane; break;
            case Shuffle::Down: j = l + bval; p = j <= max_lane; break;
            case Shuffle::Butterfly: j = l ^ bval; p = j <= max_lane; break;
            case Shuffle::Index: j = min_lane | (bval & ~seg); p = j <= max_lane; break;
        }
        if (!p) j = l;
        r[l] = a[j & 31];
        valid |= static_cast<Mask>(p) << l;
    }
    blend(w.r32(in.dst), r, m);
    if (in.d != kNoSlot) blend(w.pred(in.d), valid, m);
    return Flow::Next;
}
void decode_shfl(Decoder& d, Instr& in) {
    if (!d.take("sync")) d.error("only shfl.sync exists on these targets");
    const std::string mode = d.take_any({"up", "down", "bfly", "idx"});
    d.take_type();
    in.dst = d.dst(0, Type::B32);
    if (!d.operand(0).second.empty() && d.operand(0).second != "_") in.d = d.pred_dst(d.operand(0).second);
    in.a = d.src(1, Type::B32);
    in.b = d.src(2, Type::B32);
    in.c = d.src(3, Type::B32);
    in.imm = d.src(4, Type::B32);
    in.fn = mode == "up" ? exec_shfl<Shuffle::Up> : mode == "down" ? exec_shfl<Shuffle::Down>
          : mode == "bfly" ? exec_shfl<Shuffle::Butterfly> : exec_shfl<Shuffle::Index>;
    if (mode.empty()) d.error("needs a mode");
}

// ---- vote.sync
// --------------------------------------------------------------------------------------------------------
enum class Vote : uint8_t { All, Any, Uniform, Ballot };
template <Vote kMode> Flow exec_vote(Warp& w, const Instr& in, Mask m) {
    const Mask members = member_mask(w, in.b, m);
    if (!members_here(w, in, m, members)) return w.wait_for(kWaitsForLanes, members);
    const Mask here = members & w.alive;
    const Mask yes = (w.pred(in.a) ^ (in.u8[0] ? kAllLanes : 0)) & here;
    if (kMode == Vote::Ballot) {
        each_lane(m, [&](int l) { w.r32(in.dst)[l] = yes; });
        return Flow::Next;
    }
    const bool r = kMode == Vote::All ? yes == here : kMode == Vote::Any ? yes != 0 : yes == here || yes == 0;
    blend(w.pred(in.dst), r ? kAllLanes : 0, m);
    return Flow::Next;
}
void decode_vote(Decoder& d, Instr& in) {
    if (!d.take("sync")) d.error("only vote.sync exists on these targets");
    const std::string mode = d.take_any({"all", "any", "uni", "ballot"});
    d.take_type();
    in.dst = mode == "ballot" ? d.dst(0, Type::B32) : d.pred_dst(size_t{0});
    bool negated;
    in.a = d.pred_src(1, &negated);
    in.u8[0] = negated;
    in.b = d.src(2, Type::B32);
    in.fn = mode == "all" ? exec_vote<Vote::All> : mode == "any" ? exec_vote<Vote::Any>
          : mode == "uni" ? exec_vote<Vote::Uniform> : exec_vote<Vote::Ballot>;
}

// ---- match.{any,all}.sync
// ------------------------------------------------------------------------------------------------
template <class C, bool kAll> Flow exec_match(Warp& w, const Instr& in, Mask m) {
    const Mask members = member_mask(w, in.b, m);
    if (!members_here(w, in, m, members)) return w.wait_for(kWaitsForLanes, members);
    const Mask here = members & w.alive;
    const C* a = cells<C>(w, in.a);
    each_lane(m, [&](int l) {
        Mask same = 0;
        each_lane(here, [&](int j) { same |= static_cast<Mask>(a[j] == a[l]) << j; });
        if (kAll) {
            const bool all = same == here;
            w.r32(in.dst)[l] = all ? here : 0;
            if (in.d != kNoSlot) blend(w.pred(in.d), all ? kAllLanes : 0, 1u << l);
        } else w.r32(in.dst)[l] = same;
    });
    return Flow::Next;
}
void decode_match(Decoder& d, Instr& in) {
    const bool all = d.take("all");
    if (!all) d.take("any");
    d.take("sync");
    const Type t = d.take_type();
    in.dst = d.dst(0, Type::B32);
    if (!d.operand(0).second.empty()) in.d = d.pred_dst(d.operand(0).second);
    in.a = d.src(1, t);
    in.b = d.src(2, Type::B32);
    if (type_bits(t) == 64) in.fn = all ? exec_match<uint64_t, true> : exec_match<uint64_t, false>;
    else in.fn = all ? exec_match<uint32_t, true> : exec_match<uint32_t, false>;
}

// ---- redux.sync
// --------------------------------------------------------------------------------------------------------------
struct ReduceAdd { static uint32_t f(uint32_t a, uint32_t b) { return a + b; } };
struct ReduceAnd { static uint32_t f(uint32_t a, uint32_t b) { return a & b; } };
struct ReduceOr { static uint32_t f(uint32_t a, uint32_t b) { return a | b; } };
struct ReduceXor { static uint32_t f(uint32_t a, uint32_t b) { return a ^ b; } };
template <class T>
struct ReduceMin {
    static uint32_t f(uint32_t a, uint32_t b) {
        return static_cast<uint32_t>(std::min(static_cast<T>(a), static_cast<T>(b)));
    }
};
template <class T>
struct ReduceMax {
    static uint32_t f(uint32_t a, uint32_t b) {
        return static_cast<uint32_t>(std::max(static_cast<T>(a), static_cast<T>(b)));
    }
};
template <bool kMax, bool kNan, bool kAbs> struct ReduceFloat {
    static uint32_t f(uint32_t x, uint32_t y) {
        float a = std::bit_cast<float>(x), b = std::bit_cast<float>(y);
        if (kAbs) { a = std::fabs(a); b = std::fabs(b); }
        if (kNan && (std::isnan(a) || std::isnan(b))) return 0x7fffffff;
        return std::bit_cast<uint32_t>(kMax ? std::fmax(a, b) : std::fmin(a, b));
    }
};
template <class Op> Flow exec_redux(Warp& w, const Instr& in, Mask m) {
    const Mask members = member_mask(w, in.b, m);
    if (!members_here(w, in, m, members)) return w.wait_for(kWaitsForLanes, members);
    const uint32_t* a = w.r32(in.a);
    const Mask here = members & w.alive;
    const int first = std::countr_zero(here);
    uint32_t r = Op::f(a[first], a[first]);
    if (in.u8[0]) r = a[first];   // not idempotent (add, xor)
    each_lane(here & (here - 1), [&](int l) { r = Op::f(r, a[l]); });
    each_lane(m, [&](int l) { w.r32(in.dst)[l] = r; });
    return Flow::Next;
}
template <bool kMax> ExecFn redux_float(bool nan, bool abs) {
    return nan ? (abs ? exec_redux<ReduceFloat<kMax, true, true>> : exec_redux<ReduceFloat<kMax, true, false>>)
               : (abs ? exec_redux<ReduceFloat<kMax, false, true>> : exec_redux<ReduceFloat<kMax, false, false>>);
}
void decode_redux(Decoder& d, Instr& in) {
    d.take("sync");
    const std::string op = d.take_any({"add", "min", "max", "and", "or", "xor"});
    const bool abs = d.take("abs"), nan = d.take("NaN");
    const Type t = d.take_type();
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    in.b = d.src(2, Type::B32);
    in.u8[0] = op == "add" || op == "xor";
    if (t == Type::F32) in.fn = op == "max" ? redux_float<true>(nan, abs) : redux_float<false>(nan, abs);
    else if (op == "add") in.fn = exec_redux<ReduceAdd>;
    else if (op == "and") in.fn = exec_redux<ReduceAnd>;
    else if (op == "or") in.fn = exec_redux<ReduceOr>;
    else if (op == "xor") in.fn = exec_redux<ReduceXor>;
    else if (op == "min") in.fn = t == Type::S32 ? exec_redux<ReduceMin<int32_t>> : exec_redux<ReduceMin<uint32_t>>;
    else if (op == "max") in.fn = t == Type::S32 ? exec_redux<ReduceMax<int32_t>> : exec_redux<ReduceMax<uint32_t>>;
    else d.error("needs an operation");
}

// ---- activemask, elect, bar.warp.sync
// --------------------------------------------------------------------------------------------
Flow exec_activemask(Warp& w, const Instr& in, Mask m) {
    each_lane(m, [&](int l) { w.r32(in.dst)[l] = m; });
    return Flow::Next;
}
void decode_activemask(Decoder& d, Instr& in) {
    d.take_type();
    in.dst = d.dst(0, Type::B32);
    in.fn = exec_activemask;
}
Flow exec_elect(Warp& w, const Instr& in, Mask m) {   // the lowest living member is the leader
    const Mask members = member_mask(w, in.a, m);
    if (!members_here(w, in, m, members)) return w.wait_for(kWaitsForLanes, members);
    const auto leader = static_cast<uint32_t>(std::countr_zero(members & w.alive));
    if (in.dst != kNoSlot) each_lane(m, [&](int l) { w.r32(in.dst)[l] = leader; });
    blend(w.pred(in.d), 1u << leader, m);
    return Flow::Next;
}
void decode_elect(Decoder& d, Instr& in) {
    d.take("sync");
    const Operand& op = d.operand(0);
    if (op.kind != Operand::Kind::Sink) in.dst = d.dst(0, Type::B32);
    in.d = d.pred_dst(op.second);
    in.a = d.src(1, Type::B32);
    in.fn = exec_elect;
}
Flow exec_warp_sync(Warp& w, const Instr& in, Mask m) {
    const Mask members = member_mask(w, in.a, m);
    if (!members_here(w, in, m, members)) return w.wait_for(kWaitsForLanes, members);
    return Flow::Next;
}
void decode_warp_sync(Decoder& d, Instr& in) {
    in.a = d.src(0, Type::B32);
    in.fn = exec_warp_sync;
}

}  // namespace

const OpRow kWarpOps[] = {
    {"shfl", decode_shfl}, {"vote", decode_vote}, {"match", decode_match}, {"redux", decode_redux},
    {"activemask", decode_activemask}, {"elect", decode_elect}, {"bar.warp.sync", decode_warp_sync},
};
SOFTGPU_DEFINE_COUNT(Warp)

}  // namespace softgpu
