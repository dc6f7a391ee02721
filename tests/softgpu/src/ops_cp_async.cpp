// cp.async: copies from global to shared memory that complete late.
//
// From issue to completion the destination is poison and reading it faults. A copy completes when its thread
// waits for its group, or earlier by chance; the source is read then too, not at issue.
#include "cp_async.h"

#include <algorithm>

#include "happens_before.h"
#include "lanes.h"
#include "memory.h"
#include "tables.h"

namespace softgpu {
namespace {

struct Copy {
    Mask lanes;
    uint32_t bytes;
    SharedRange to[kWarpSize];
    const uint8_t* from[kWarpSize];
    uint32_t from_bytes[kWarpSize];   // the rest is zero-filled
    uint64_t group[kWarpSize];
};
struct Pending {
    std::vector<Copy> copies;
    uint64_t committed[kWarpSize] = {};
};

void complete(Copy& copy, Mask lanes) {
    each_lane(copy.lanes & lanes, [&](int l) {
        std::memcpy(copy.to[l].data, copy.from[l], copy.from_bytes[l]);
        std::memset(copy.to[l].data + copy.from_bytes[l], 0, copy.bytes - copy.from_bytes[l]);
        // wgmma sees it without a fence.proxy.async, which Triton leaves out before a loop's second product.
        std::memset(copy.to[l].shadow, kValid | kAsyncVisible, copy.bytes);
    });
    copy.lanes &= ~lanes;
}
void forget_completed(Pending& p) {
    std::erase_if(p.copies, [](const Copy& c) { return c.lanes == 0; });
}

struct CopyOperands {
    Address to, from;
    uint32_t bytes;
    Slot source_bytes = kNoSlot;      // a register, or
    Slot ignore = kNoSlot;            // a predicate: read nothing, write zeros
    bool ignore_negated = false;
};

Flow exec_copy(Warp& w, const Instr& in, Mask m) {
    const auto& op = *static_cast<const CopyOperands*>(in.extra);
    Pending& pending = w.state<Pending>();
    uint64_t to[kWarpSize], from[kWarpSize];
    lane_addresses(w, op.to.base, op.to.wide, op.to.offset, to);
    lane_addresses(w, op.from.base, op.from.wide, op.from.offset, from);
    const Mask ignore = op.ignore == kNoSlot ? 0 : w.pred(op.ignore) ^ (op.ignore_negated ? kAllLanes : 0);
    Copy& copy = pending.copies.emplace_back();
    copy.lanes = m;
    copy.bytes = op.bytes;
    each_lane(m, [&](int l) {
        if (to[l] & (op.bytes - 1))
            w.fault(in, Fault::Kind::Misaligned, "the destination is not a multiple of the copy size", l, to[l]);
        uint32_t n = op.source_bytes == kNoSlot ? op.bytes : std::min(w.r32(op.source_bytes)[l], op.bytes);
        if ((ignore >> l) & 1) n = 0;
        copy.to[l] = shared_range(w, in, to[l], op.bytes, l);
        // A copy of no bytes may carry any address, but one that is read is checked at its full alignment.
        if (n && (from[l] & (op.bytes - 1)))
            w.fault(in, Fault::Kind::Misaligned, "the source is not a multiple of the copy size", l, from[l]);
        copy.from[l] = nullptr;
        if (n) {
            if (n == op.bytes)
                copy.from[l] = resolve(w, in, l, Space::Global, from[l], n, Access::Read);
            else
                for (uint32_t i = 0; i < n; ++i) {
                    const uint8_t* p = resolve(w, in, l, Space::Global, from[l] + i, 1, Access::Read);
                    if (i == 0) copy.from[l] = p;
                }
        }
        copy.from_bytes[l] = n;
        copy.group[l] = pending.committed[l];
        if (races_checked(w)) {
            PageTouch touch(unit_of(w, in, 1u << l, Unit::CpAsync, cp_async_group(w, l)));
            if (n) touch.global(from[l], n, Touch::Read);
            touch.shared(*copy.to[l].cta, copy.to[l].offset, op.bytes, Touch::Write);
        }
        poison_in_flight(copy.to[l], op.bytes);
    });
    auto& rng = w.cta->cluster->rng;
    if (rng() % 16 == 0) {
        complete(pending.copies[rng() % pending.copies.size()], kAllLanes);
        forget_completed(pending);
    }
    return Flow::Next;
}
void decode_copy(Decoder& d, Instr& in) {
    auto* op = d.make_extra<CopyOperands>();
    in.extra = op;
    d.take_any({"ca", "cg"});
    if (!d.take("shared") && !d.take("shared::cta")) d.error("copies to .shared only");
    if (!d.take("global")) d.error("copies from .global only");
    while (!d.take_prefixed("L2::").empty()) {}
    op->to = d.address(0);
    op->from = d.address(1);
    const auto bytes = d.immediate(2);
    if (!bytes || (*bytes != 4 && *bytes != 8 && *bytes != 16)) d.error("the size must be 4, 8 or 16");
    op->bytes = static_cast<uint32_t>(*bytes);
    if (d.operand_count() > 3) {
        const unsigned width = d.width(3);
        if (width == 1) op->ignore = d.pred_src(3, &op->ignore_negated);
        else if (width == 64) {}                      // a cache policy
        else op->source_bytes = d.src(3, Type::U32);
    }
    in.fn = exec_copy;
}

Flow exec_commit(Warp& w, const Instr&, Mask m) {
    Pending& p = w.state<Pending>();
    each_lane(m, [&](int l) { ++p.committed[l]; });
    return Flow::Next;
}
void decode_commit(Decoder&, Instr& in) { in.fn = exec_commit; }

// Completes all groups but the `in.imm` latest, in random order.
Flow exec_wait(Warp& w, const Instr& in, Mask m) {
    Pending& p = w.state<Pending>();
    const auto keep = static_cast<uint64_t>(in.imm);
    std::vector<std::pair<size_t, Mask>> due;
    for (size_t i = 0; i < p.copies.size(); ++i) {
        Mask lanes = 0;
        each_lane(p.copies[i].lanes & m, [&](int l) {
            if (p.copies[i].group[l] + keep < p.committed[l]) lanes |= 1u << l;
        });
        if (lanes) due.emplace_back(i, lanes);
    }
    std::shuffle(due.begin(), due.end(), w.cta->cluster->rng);
    for (const auto& [i, lanes] : due) complete(p.copies[i], lanes);
    forget_completed(p);
    uint64_t done = 0;
    each_lane(m, [&](int l) { if (p.committed[l] > keep) done = std::max(done, p.committed[l] - keep); });
    finish_unit(w, Unit::CpAsync, static_cast<Clock>(done));
    return Flow::Next;
}
void decode_wait_group(Decoder& d, Instr& in) {
    const auto n = d.immediate(0);
    if (!n) d.error("the number of groups must be a constant");
    in.imm = static_cast<int64_t>(*n);
    in.fn = exec_wait;
}
Flow exec_wait_all(Warp& w, const Instr& in, Mask m) {
    exec_commit(w, in, m);
    return exec_wait(w, in, m);
}
void decode_wait_all(Decoder&, Instr& in) { in.fn = exec_wait_all; }

}  // namespace

Clock cp_async_group(Warp& w, int lane) { return static_cast<Clock>(w.state<Pending>().committed[lane] + 1); }
void cp_async_then(Warp& w, Mask m, const std::string& what, std::function<void()> then) {
    Pending& p = w.state<Pending>();
    auto mine = std::make_shared<std::vector<Copy>>();
    for (auto& copy : p.copies)
        if (copy.lanes & m) {
            mine->push_back(copy);
            mine->back().lanes &= m;
            copy.lanes &= ~m;
        }
    forget_completed(p);
    w.cta->cluster->async.push({what, [mine, then] {
                                    for (auto& copy : *mine) complete(copy, kAllLanes);
                                    then();
                                }, 0, 0});
}

const OpRow kCpAsyncOps[] = {
    {"cp.async", decode_copy}, {"cp.async.commit_group", decode_commit}, {"cp.async.wait_group", decode_wait_group},
    {"cp.async.wait_all", decode_wait_all},
};
SOFTGPU_DEFINE_COUNT(CpAsync)

}  // namespace softgpu
