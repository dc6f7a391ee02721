// mbarrier.*: barriers in shared memory that count arrivals and bytes.
//
// A wait that fails for the first time in a phase returns false, as hardware may; the second attempt at the same
// barrier and phase from the same place blocks, so that warps that can never go on are found to be deadlocked.
#include "mbarrier.h"

#include <algorithm>

#include "cp_async.h"
#include "decoder.h"
#include "lanes.h"
#include "tables.h"

namespace softgpu {

// ---- the object ---------------------------------------------------------------------------------------------------
namespace {

constexpr uint64_t kCookie = 0x5f72656972726162ull;   // in the object's bytes, XORed with its address
constexpr int kCountBits = 20;
constexpr int64_t kMaxTx = (1 << kCountBits) - 1, kMaxCount = (1 << kCountBits) - 1;

uint64_t cookie(uint64_t address) { return kCookie ^ address << 32; }

std::string describe(const Cta& cta, uint32_t offset, const MBarrier& b) {
    return "mbarrier at " + place(cta, offset) + " (init in PTX line " + std::to_string(b.line) + "): phase " +
           std::to_string(b.phase) + ", " + std::to_string(b.pending) + " of " + std::to_string(b.expected) +
           " arrivals pending, " + std::to_string(b.tx) + " bytes outstanding";
}

// Ends the phase if nothing is missing.
void advance(const Issuer& by, Cta& cta, uint32_t offset, MBarrier& b) {
    if (b.tx > kMaxTx || b.tx < -kMaxTx)
        by.fault(Fault::Kind::SyncMisuse, "the transaction count leaves its range; " + describe(cta, offset, b));
    if (b.pending != 0 || b.tx != 0) return;
    ++b.phase;
    b.pending = b.expected;
    if (!races_checked(*by.warp)) return;
    b.passed.join(b.arriving);
    b.passed.own.raise(mbarrier_agent(cta, offset), static_cast<Clock>(b.phase));
}

}  // namespace

MBarriers& mbarriers(Cta& cta) {
    if (MBarriers* known = cta.states.find<MBarriers>()) return *known;
    MBarriers& state = cta.state<MBarriers>();
    Cta* const owner = &cta;
    cta.cluster->reporters.push_back([owner](std::string& text) {
        for (const auto& [offset, b] : mbarriers(*owner).at) text += describe(*owner, offset, b) + "\n";
    });
    cta.cluster->exit_checks.push_back([owner] {
        for (const auto& [offset, b] : mbarriers(*owner).at)
            if (b.tx != 0) {
                Fault f;
                f.kind = Fault::Kind::SyncMisuse;
                f.kernel = owner->grid->program->kernel;
                f.cta = owner->id;
                f.line = b.line;
                f.message = "the kernel ended with bytes announced that never came, or the reverse: " +
                            describe(*owner, offset, b);
                throw FaultError{f};
            }
    });
    return state;
}

MBarrier& mbarrier_at(const Issuer& by, uint64_t address) {
    if (address % 8) by.fault(Fault::Kind::Misaligned, "an mbarrier must be 8-byte aligned");
    const SharedRange range = shared_range(*by.warp, *by.instr, address, 8);
    auto& at = mbarriers(*range.cta).at;
    const auto it = at.find(range.offset);
    if (it == at.end())
        by.fault(Fault::Kind::SyncMisuse, "there is no initialised mbarrier at " + place(*range.cta, range.offset));
    uint64_t word;
    std::memcpy(&word, range.data, 8);
    if (word != cookie(shared_address_of(*range.cta, range.offset)))
        by.fault(Fault::Kind::SyncMisuse,
                 "the bytes of this mbarrier were overwritten: " + describe(*range.cta, range.offset, it->second));
    // Everybody who uses it must come after its init.
    if (races_checked(*by.warp)) {
        Warp& w = *by.warp;
        Actor actor{&w, by.instr, UINT32_MAX, w.order.now, kAllLanes};   // whichever lane of this warp it is
        actor.strong = true;
        require_shared_written_before(actor, *range.cta, range.offset, 8);
    }
    return it->second;
}

void mbarrier_arrive_late(const Issuer& by, uint64_t address, const Knowledge& knows) {
    const SharedRange range = shared_range(*by.warp, *by.instr, address, 8);
    const bool gone = !mbarriers(*range.cta).at.count(range.offset);
    if (gone && std::all_of(range.shadow, range.shadow + 8, [](uint8_t s) { return s == kUnwritten; })) return;
    mbarrier_arrive(by, address, 1, &knows);
}
void mbarrier_arrive(const Issuer& by, uint64_t address, uint32_t count, const Knowledge* knows) {
    MBarrier& b = mbarrier_at(by, address);
    const SharedRange range = shared_range(*by.warp, *by.instr, address, 8);
    if (count > b.pending)
        by.fault(Fault::Kind::SyncMisuse,
                 "more arrivals in a phase than the barrier expects; " + describe(*range.cta, range.offset, b));
    b.pending -= count;
    if (knows) b.arriving.join(*knows);
    advance(by, *range.cta, range.offset, b);
}
void mbarrier_expect_tx(const Issuer& by, uint64_t address, int64_t bytes) {
    MBarrier& b = mbarrier_at(by, address);
    const SharedRange range = shared_range(*by.warp, *by.instr, address, 8);
    b.tx += bytes;
    // Announcing bytes does not end a phase by itself, but it may settle bytes that came early.
    advance(by, *range.cta, range.offset, b);
}
void mbarrier_complete_tx(const Issuer& by, uint64_t address, int64_t bytes) {
    mbarrier_expect_tx(by, address, -bytes);
}

// ---- instructions ---------------------------------------------------------------------------------------------------
namespace {

struct BarrierOperands {
    Address address;
    bool generic = false, expect = false, drop = false, no_complete = false, relaxed = false;
    Slot count = kNoSlot;   // arrivals, bytes or what is waited for
    Slot state = kNoSlot;   // result
};

// The addresses of a barrier operand, one a lane.
void barrier_addresses(Warp& w, const Instr& in, const BarrierOperands& op, Mask m, uint64_t out[kWarpSize]) {
    lane_addresses(w, op.address.base, op.address.wide, op.address.offset, out);
    each_lane(m, [&](int l) { out[l] = shared_operand(w, in, op.generic, out[l], l); });
}
void require_own(Warp& w, const Instr& in, uint64_t address, int lane) {
    if (address >> kSharedRankShift != w.cta->rank)
        w.fault(in, Fault::Kind::SyncMisuse, "this instruction works on barriers of its own CTA only", lane, address);
}

BarrierOperands* take_barrier(Decoder& d, Instr& in) {
    auto* op = d.make_extra<BarrierOperands>();
    in.extra = op;
    const std::string space = d.take_any({"shared", "shared::cta", "shared::cluster"});
    op->generic = space.empty();
    op->relaxed = d.take("relaxed");
    for (const char* m : {"release", "acquire", "cta", "cluster"}) d.take(m);
    d.take("b64");
    return op;
}

Flow exec_init(Warp& w, const Instr& in, Mask m) {
    const auto& op = *static_cast<const BarrierOperands*>(in.extra);
    uint64_t address[kWarpSize];
    barrier_addresses(w, in, op, m, address);
    each_lane(m, [&](int l) {
        const uint32_t count = w.r32(op.count)[l];
        if (count == 0 || count > kMaxCount)
            w.fault(in, Fault::Kind::SyncMisuse, "arrival count " + std::to_string(count) + " is not in 1 .. 2^20 - 1",
                    l);
        require_own(w, in, address[l], l);
        uint8_t* p = resolve(w, in, l, Space::Shared, address[l], 8, Access::Write);
        if (races_checked(w)) PageTouch(threads_of(w, in, 1u << l)).at(Space::Shared, address[l], 8, Touch::Write);
        const uint64_t word = cookie(address[l]);
        std::memcpy(p, &word, 8);
        MBarrier& b = mbarriers(*w.cta).at[static_cast<uint32_t>(address[l]) & kSharedOffsetMask];
        b = MBarrier{};
        b.expected = count;
        b.pending = count;
        b.line = w.program->sources[in.source].line;
    });
    return Flow::Next;
}
void decode_init(Decoder& d, Instr& in) {
    auto* op = take_barrier(d, in);
    op->address = d.address(0);
    op->count = d.src(1, Type::U32);
    in.fn = exec_init;
}
Flow exec_inval(Warp& w, const Instr& in, Mask m) {
    const auto& op = *static_cast<const BarrierOperands*>(in.extra);
    uint64_t address[kWarpSize];
    barrier_addresses(w, in, op, m, address);
    each_lane(m, [&](int l) {
        require_own(w, in, address[l], l);
        const Issuer by{&w, &in};
        const MBarrier& b = mbarrier_at(by, address[l]);
        const auto offset = static_cast<uint32_t>(address[l]) & kSharedOffsetMask;
        if (b.tx != 0)
            w.fault(in, Fault::Kind::SyncMisuse, "invalidates a barrier in use; " + describe(*w.cta, offset, b), l);
        mbarriers(*w.cta).at.erase(offset);
        if (races_checked(w)) PageTouch(threads_of(w, in, 1u << l)).at(Space::Shared, address[l], 8, Touch::Write);
        std::memset(w.cta->shadow.data() + offset, kUnwritten, 8);
        std::memset(w.cta->shared.data() + offset, kPoison, 8);
    });
    return Flow::Next;
}
void decode_inval(Decoder& d, Instr& in) {
    take_barrier(d, in)->address = d.address(0);
    in.fn = exec_inval;
}

Flow exec_arrive(Warp& w, const Instr& in, Mask m) {
    const auto& op = *static_cast<const BarrierOperands*>(in.extra);
    uint64_t address[kWarpSize];
    barrier_addresses(w, in, op, m, address);
    const Issuer by{&w, &in};
    Knowledge known;
    if (!op.relaxed) release_to(w, m, known);
    each_lane(m, [&](int l) {
        MBarrier& b = mbarrier_at(by, address[l]);
        const uint64_t phase = b.phase, pending = b.pending;
        if (op.expect) b.tx += w.r32(op.count)[l];
        const uint32_t count = op.expect || op.count == kNoSlot ? 1 : w.r32(op.count)[l];
        if (op.drop) b.expected -= count;
        mbarrier_arrive(by, address[l], count, &known);
        if (op.no_complete && b.phase != phase)
            w.fault(in, Fault::Kind::SyncMisuse, ".noComplete, but this arrival completes the phase", l);
        if (op.state != kNoSlot) w.r64(op.state)[l] = phase << kCountBits | pending;   // as before this arrival
    });
    return Flow::Next;
}
template <bool kDrop> void decode_arrive(Decoder& d, Instr& in) {
    auto* op = take_barrier(d, in);
    op->drop = kDrop;
    op->expect = d.take("expect_tx");
    op->no_complete = d.take("noComplete");
    // The state may be left out for barriers of other CTAs.
    const bool has_state = d.operand(0).kind != Operand::Kind::Address;
    if (has_state && d.operand(0).kind != Operand::Kind::Sink) op->state = d.dst(0, Type::B64);
    const size_t address = has_state ? 1 : 0;
    op->address = d.address(address);
    if (d.operand_count() > address + 1) op->count = d.src(address + 1, Type::U32);
    else if (op->expect) d.error("needs the number of bytes");
    in.fn = exec_arrive;
}

Flow exec_tx(Warp& w, const Instr& in, Mask m) {   // u8[0]: complete_tx, else expect_tx
    const auto& op = *static_cast<const BarrierOperands*>(in.extra);
    uint64_t address[kWarpSize];
    barrier_addresses(w, in, op, m, address);
    each_lane(m, [&](int l) {
        const int64_t bytes = w.r32(op.count)[l];
        mbarrier_expect_tx({&w, &in}, address[l], in.u8[0] ? -bytes : bytes);
    });
    return Flow::Next;
}
template <bool kComplete> void decode_tx(Decoder& d, Instr& in) {
    auto* op = take_barrier(d, in);
    op->address = d.address(0);
    op->count = d.src(1, Type::U32);
    in.u8[0] = kComplete;
    in.fn = exec_tx;
}

// Failed attempts of a warp: from where, for which barrier, in which of its phases.
struct Attempts { std::map<std::pair<uint32_t, uint64_t>, uint64_t> phase; };

// u8[0]: by parity, u8[1]: try_wait (may block)
Flow exec_wait(Warp& w, const Instr& in, Mask m) {
    const auto& op = *static_cast<const BarrierOperands*>(in.extra);
    uint64_t address[kWarpSize];
    barrier_addresses(w, in, op, m, address);
    Mask ready = 0;
    each_lane(m, [&](int l) {
        require_own(w, in, address[l], l);
        const Issuer by{&w, &in};
        const MBarrier& b = mbarrier_at(by, address[l]);
        bool done;
        if (in.u8[0]) {
            const uint32_t parity = w.r32(op.count)[l] & 1;   // Triton passes -1 for 1
            done = (b.phase & 1) != parity;
        } else {
            const uint64_t state = w.r64(op.count)[l] >> kCountBits;
            if (state > b.phase || b.phase > state + 1)
                w.fault(in, Fault::Kind::SyncMisuse,
                        "waits with the state of phase " + std::to_string(state) + ", but the barrier is in phase " +
                            std::to_string(b.phase) + ": only the current phase and the one before can be waited for",
                        l);
            done = b.phase == state + 1;
        }
        ready |= static_cast<Mask>(done) << l;
        if (done && !op.relaxed) acquire_from(w, b.passed);
    });
    if (!ready && in.u8[1]) {
        const int first = std::countr_zero(m);
        const Issuer by{&w, &in};
        const uint64_t phase = mbarrier_at(by, address[first]).phase;
        auto [it, is_new] = w.state<Attempts>().phase.try_emplace({w.cur.pc, address[first]}, phase);
        if (!is_new && it->second == phase) return w.wait_for("mbarrier phase at shared address", address[first]);
        it->second = phase;
    }
    blend(w.pred(op.state), ready, m);
    return ready ? Flow::Next : Flow::Yield;
}
template <bool kTry> void decode_wait(Decoder& d, Instr& in) {
    auto* op = take_barrier(d, in);
    in.u8[0] = d.take("parity");
    in.u8[1] = kTry;
    op->state = d.pred_dst(size_t{0});
    op->address = d.address(1);
    op->count = d.src(2, in.u8[0] ? Type::U32 : Type::B64);
    // A fourth operand limits the time; time is not modelled.
    in.fn = exec_wait;
}

Flow exec_pending_count(Warp& w, const Instr& in, Mask m) {
    each_lane(m, [&](int l) { w.r32(in.dst)[l] = static_cast<uint32_t>(w.r64(in.a)[l] & kMaxCount); });
    return Flow::Next;
}
void decode_pending_count(Decoder& d, Instr& in) {
    d.take("b64");
    in.dst = d.dst(0, Type::U32);
    in.a = d.src(1, Type::B64);
    in.fn = exec_pending_count;
}

// cp.async.mbarrier.arrive: the barrier hears of it when the lane's earlier cp.async copies are done.
Flow exec_copy_arrive(Warp& w, const Instr& in, Mask m) {
    const auto& op = *static_cast<const BarrierOperands*>(in.extra);
    uint64_t address[kWarpSize];
    barrier_addresses(w, in, op, m, address);
    each_lane(m, [&](int l) {
        const Issuer by{&w, &in};
        const uint64_t barrier = address[l];
        MBarrier& b = mbarrier_at(by, barrier);
        if (!in.u8[0]) ++b.pending;   // without .noinc the arrival adds itself to those expected
        Knowledge known = w.order.known;
        if (races_checked(w)) known.own.raise(agent_of(w, Unit::CpAsync), cp_async_group(w, l));
        cp_async_then(w, 1u << l, "arrival of cp.async copies at an mbarrier",
                      [by, barrier, known = std::move(known)] { mbarrier_arrive(by, barrier, 1, &known); });
    });
    return Flow::Next;
}
void decode_copy_arrive(Decoder& d, Instr& in) {
    auto* op = take_barrier(d, in);
    in.u8[0] = d.take("noinc");
    op->address = d.address(0);
    in.fn = exec_copy_arrive;
}

}  // namespace

const OpRow kMbarrierOps[] = {
    {"mbarrier.init", decode_init},
    {"mbarrier.inval", decode_inval},
    {"mbarrier.arrive", decode_arrive<false>},
    {"mbarrier.arrive_drop", decode_arrive<true>},
    {"mbarrier.expect_tx", decode_tx<false>},
    {"mbarrier.complete_tx", decode_tx<true>},
    {"mbarrier.test_wait", decode_wait<false>},
    {"mbarrier.try_wait", decode_wait<true>},
    {"mbarrier.pending_count", decode_pending_count},
    {"cp.async.mbarrier.arrive", decode_copy_arrive},
};
SOFTGPU_DEFINE_COUNT(Mbarrier)

}  // namespace softgpu
