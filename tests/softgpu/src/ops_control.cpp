// Branches, the end of threads, barriers of a CTA, traps, and instructions that need no work here.
#include <atomic>
#include <bit>
#include <map>

#include "calls.h"
#include "happens_before.h"
#include "lanes.h"
#include "tables.h"

namespace softgpu {
namespace {

void decode_bra(Decoder& d, Instr& in) {
    d.take("uni");
    in.target = d.label(0);
    in.fn = exec_branch;
}
Flow exec_branch_index(Warp& w, const Instr& in, Mask m) {
    const auto& table = *static_cast<const std::vector<uint32_t>*>(in.extra);
    std::map<uint32_t, Mask> targets;
    each_lane(m, [&](int l) {
        const uint32_t i = w.r32(in.a)[l];
        if (i >= table.size())
            w.fault(in, Fault::Kind::IllegalInstruction, "branch index " + std::to_string(i) + " outside its list", l);
        targets[table[i]] |= 1u << l;
    });
    // All but the last target become fragments of their own; the lowest runs first.
    const Mask rest = w.cur.mask & ~m;
    const uint32_t next = w.cur.pc + 1;
    if (rest) targets[next] |= rest;
    w.cur.mask = targets.begin()->second;
    w.cur.pc = targets.begin()->first;
    for (auto it = std::next(targets.begin()); it != targets.end(); ++it) {
        Fragment f;
        f.pc = it->first;
        f.mask = it->second;
        w.others.push_back(f);
    }
    w.merge_pc = 0;
    return Flow::Jump;
}
void decode_brx(Decoder& d, Instr& in) {
    d.take("idx");
    d.take("uni");
    decode_branch_table(d, in);
    in.fn = exec_branch_index;
}
void decode_exit(Decoder& d, Instr& in) {
    d.take("uni");
    in.fn = exec_exit;
}
Flow exec_trap(Warp& w, const Instr& in, Mask m) {
    w.fault(in, Fault::Kind::Trap, "the kernel executed trap", std::countr_zero(m));
}
void decode_trap(Decoder&, Instr& in) { in.fn = exec_trap; }

// ---- bar and barrier ------------------------------------------------------------------------------------------------
enum class BarOp : uint8_t { Sync, Arrive, Popc, And, Or };

// Instr: u8[0] operation, u8[1] predicate negated; a = barrier number, b = thread count or kNoSlot, c = predicate.
void release_if_complete(Cta& cta, Barrier& b) {
    const uint32_t need = b.expected ? b.expected : cta.live_threads;
    if (b.arrived < need || b.arrived == 0) return;
    b.last_count = b.count;
    b.last_all = b.all;
    b.last_any = b.any;
    ++b.generation;
    b.passed = b.arriving;
    b.arrived = b.expected = b.count = 0;
    b.all = true;
    b.any = false;
}
template <BarOp kOp> Flow exec_bar(Warp& w, const Instr& in, Mask m) {
    Cta& cta = *w.cta;
    const int first = std::countr_zero(m);
    const uint32_t number = w.r32(in.a)[first];
    if (number >= cta.barriers.size())
        w.fault(in, Fault::Kind::SyncMisuse, "barrier number " + std::to_string(number) + ": a CTA has 16 barriers");
    Barrier& bar = cta.barriers[number];
    if (w.cur.token == 0) {
        const uint32_t expected = in.b == kNoSlot ? 0 : w.r32(in.b)[first];
        if (expected % kWarpSize)
            w.fault(in, Fault::Kind::SyncMisuse,
                    "barrier thread count " + std::to_string(expected) + " is not a multiple of the warp size");
        if (bar.arrived && bar.expected != expected)
            w.fault(in, Fault::Kind::SyncMisuse,
                    "barrier " + std::to_string(number) + " is in use with a count of " + std::to_string(bar.expected) +
                        " threads, not " + std::to_string(expected));
        bar.expected = expected;
        bar.arrived += static_cast<uint32_t>(std::popcount(m));
        if (expected && bar.arrived > expected)
            w.fault(in, Fault::Kind::SyncMisuse,
                    "more threads arrive at barrier " + std::to_string(number) + " than its count of " +
                        std::to_string(expected));
        if (in.c != kNoSlot) {
            const Mask p = (w.pred(in.c) ^ (in.u8[1] ? kAllLanes : 0)) & m;
            bar.count += static_cast<uint32_t>(std::popcount(p));
            bar.all = bar.all && p == m;
            bar.any = bar.any || p != 0;
        }
        const uint64_t generation = bar.generation;
        release_to(w, m, bar.arriving);
        release_if_complete(cta, bar);
        if (kOp == BarOp::Arrive) return Flow::Next;
        w.cur.token = generation + 1;
    }
    release_if_complete(cta, bar);   // threads may have exited meanwhile
    if (bar.generation < w.cur.token) return w.wait_for("barrier", number);
    w.cur.token = 0;
    acquire_from(w, bar.passed);
    sync_lanes(w, m);
    if (kOp == BarOp::Popc) each_lane(m, [&](int l) { w.r32(in.dst)[l] = bar.last_count; });
    if (kOp == BarOp::And) blend(w.pred(in.dst), bar.last_all ? kAllLanes : 0, m);
    if (kOp == BarOp::Or) blend(w.pred(in.dst), bar.last_any ? kAllLanes : 0, m);
    return Flow::Next;
}
void decode_bar(Decoder& d, Instr& in) {
    d.take("cta");
    const std::string op = d.take_any({"sync", "arrive", "red"});
    d.take("aligned");
    size_t next = 0;
    if (op == "red") {
        const std::string reduction = d.take_any({"popc", "and", "or"});
        const Type t = d.take_type();
        in.dst = t == Type::Pred ? d.pred_dst(size_t{0}) : d.dst(0, t);
        next = 1;
        bool negated;
        in.c = d.pred_src(d.operand_count() - 1, &negated);
        in.u8[1] = negated;
        in.fn = reduction == "popc"  ? exec_bar<BarOp::Popc>
                : reduction == "and" ? exec_bar<BarOp::And>
                                     : exec_bar<BarOp::Or>;
    } else if (op == "sync") in.fn = exec_bar<BarOp::Sync>;
    else if (op == "arrive") in.fn = exec_bar<BarOp::Arrive>;
    else d.error("needs .sync, .arrive or .red");
    in.a = d.src(next, Type::U32);
    const size_t counted = next + 1 + (op == "red" ? 1 : 0);
    if (d.operand_count() > counted) in.b = d.src(next + 1, Type::U32);
}

// ---- instructions without work
// ------------------------------------------------------------------------------------------
Flow exec_fence(Warp& w, const Instr& in, Mask m) {   // u8[0]: scope
    std::atomic_thread_fence(std::memory_order_seq_cst);
    fence(w, m, static_cast<MemoryScope>(in.u8[0]));
    return Flow::Next;
}
void decode_membar(Decoder& d, Instr& in) {
    MemoryScope scope = MemoryScope::Sys;
    while (!d.modifiers().empty()) {
        const std::string m = d.modifiers()[0];
        static const std::map<std::string, bool> known = {
            {"cta", true}, {"gl", true},      {"gpu", true},     {"sys", true},     {"cluster", true},
            {"sc", true},  {"acq_rel", true}, {"acquire", true}, {"release", true}, {"relaxed", true}};
        if (!known.count(m)) d.error("modifier ." + m + " is not implemented");
        if (m == "cta") scope = MemoryScope::Cta;
        if (m == "cluster") scope = MemoryScope::Cluster;
        if (m == "gl" || m == "gpu") scope = MemoryScope::Gpu;
        d.take(m.c_str());
    }
    in.u8[0] = static_cast<uint8_t>(scope);
    in.fn = exec_fence;
}
Flow exec_yield(Warp&, const Instr&, Mask) { return Flow::Yield; }
void decode_nanosleep(Decoder& d, Instr& in) {
    d.take_type();
    in.fn = exec_yield;
}
Flow exec_nothing(Warp&, const Instr&, Mask) { return Flow::Next; }
void decode_nothing(Decoder& d, Instr& in) {
    while (!d.modifiers().empty()) d.take(d.modifiers()[0].c_str());
    in.fn = exec_nothing;
}

}  // namespace

const OpRow kControlOps[] = {
    {"bra", decode_bra}, {"brx", decode_brx}, {"ret", decode_exit}, {"exit", decode_exit}, {"trap", decode_trap},
    {"brkpt", decode_trap}, {"bar", decode_bar}, {"barrier", decode_bar}, {"barrier.cta", decode_bar},
    {"membar", decode_membar}, {"fence", decode_membar}, {"nanosleep", decode_nanosleep},
    {"griddepcontrol", decode_nothing},   // launches run one after another
    {"setmaxnreg", decode_nothing}, {"pmevent", decode_nothing},
};
SOFTGPU_DEFINE_COUNT(Control)

}  // namespace softgpu
