// CTAs of a cluster: barrier.cluster, addresses in each other's shared memory, st.async and red.async.
#include <bit>

#include "happens_before.h"
#include "lanes.h"
#include "mbarrier.h"
#include "tables.h"
#include "tma.h"

namespace softgpu {
namespace {

// ---- barrier.cluster
// ---------------------------------------------------------------------------------------------------- A phase ends
// when all living threads of the cluster have arrived. A thread that has arrived must wait before it arrives again.
struct ClusterBarrier { Knowledge arriving, passed; };
struct ClusterArrivals { Mask arrived = 0, to_wait = 0; };   // of one warp: in this phase; not yet waited for

void end_phase_if_complete(Cluster& cluster) {
    for (auto& cta : cluster.ctas)
        for (auto& warp : cta->warps)
            if (warp->alive & ~warp->state<ClusterArrivals>().arrived) return;
    auto& barrier = cluster.state<ClusterBarrier>();
    barrier.passed = barrier.arriving;
    for (auto& cta : cluster.ctas)
        for (auto& warp : cta->warps) warp->state<ClusterArrivals>().arrived = 0;
}
Flow exec_arrive(Warp& w, const Instr& in, Mask m) {
    auto& a = w.state<ClusterArrivals>();
    if (a.to_wait & m)
        w.fault(in, Fault::Kind::SyncMisuse, "a thread arrives at the cluster barrier twice without a wait in between",
                std::countr_zero(a.to_wait & m));
    a.arrived |= m;
    a.to_wait |= m;
    auto& barrier = w.cta->cluster->state<ClusterBarrier>();
    if (!in.u8[0]) release_to(w, m, barrier.arriving);
    else {   // .relaxed: what a fence before it released
        Knowledge fenced;
        for (const auto* known : {&w.order.fenced_wide, &w.order.fenced_narrow})
            fenced.join(*known, w.order.cluster, false);
        barrier.arriving.join(fenced);
    }
    end_phase_if_complete(*w.cta->cluster);
    return Flow::Next;
}
Flow exec_wait(Warp& w, const Instr& in, Mask m) {
    auto& a = w.state<ClusterArrivals>();
    if (m & ~a.to_wait)
        w.fault(in, Fault::Kind::SyncMisuse, "a thread waits at the cluster barrier without having arrived",
                std::countr_zero(m & ~a.to_wait));
    if (a.arrived & m) end_phase_if_complete(*w.cta->cluster);   // others may have exited
    if (a.arrived & m) return w.wait_for("cluster barrier; CTA rank", w.cta->rank);
    a.to_wait &= ~m;
    acquire_from(w, w.cta->cluster->state<ClusterBarrier>().passed);
    sync_lanes(w, m);
    return Flow::Next;
}
void decode_barrier(Decoder& d, Instr& in) {
    const std::string op = d.take_any({"arrive", "wait"});
    in.u8[0] = d.take("relaxed");
    for (const char* m : {"release", "acquire", "aligned"}) d.take(m);
    if (op.empty()) d.error("needs .arrive or .wait");
    in.fn = op == "arrive" ? exec_arrive : exec_wait;
}

// ---- mapa, getctarank
// -------------------------------------------------------------------------------------------------------
template <class C> Flow exec_mapa(Warp& w, const Instr& in, Mask m) {
    alignas(64) C r[kWarpSize] = {};
    const C* a = cells<C>(w, in.a);
    each_lane(m, [&](int l) {
        const uint32_t rank = w.r32(in.b)[l];
        if (rank >= w.cta->cluster->ctas.size())
            w.fault(
                in, Fault::Kind::OutOfBounds,
                "CTA rank " + std::to_string(rank) + " in a cluster of " + std::to_string(w.cta->cluster->ctas.size()),
                l, rank);
        if (in.u8[0]) shared_operand(w, in, true, a[l], l);
        r[l] = static_cast<C>((a[l] & ~(C(0xff) << kSharedRankShift)) | C(rank) << kSharedRankShift);
    });
    blend(cells<C>(w, in.dst), r, m);
    return Flow::Next;
}
void decode_mapa(Decoder& d, Instr& in) {
    in.u8[0] = !d.take("shared::cluster");   // a generic address
    const Type t = d.take_type();
    in.dst = d.dst(0, t);
    in.a = d.src(1, t);
    in.b = d.src(2, Type::U32);
    if (in.u8[0] && type_bits(t) != 64) d.error("generic addresses have 64 bits");
    in.fn = type_bits(t) == 64 ? exec_mapa<uint64_t> : exec_mapa<uint32_t>;
}
template <class C> Flow exec_rank(Warp& w, const Instr& in, Mask m) {
    const C* a = cells<C>(w, in.a);
    each_lane(m, [&](int l) {
        if (in.u8[0]) shared_operand(w, in, true, a[l], l);
        w.r32(in.dst)[l] = static_cast<uint32_t>(a[l]) >> kSharedRankShift;
    });
    return Flow::Next;
}
void decode_rank(Decoder& d, Instr& in) {
    in.u8[0] = !d.take("shared::cluster");
    const Type t = d.take_type();
    in.dst = d.dst(0, Type::U32);
    in.a = d.src(1, t);
    in.fn = type_bits(t) == 64 ? exec_rank<uint64_t> : exec_rank<uint32_t>;
}

// ---- st.async, red.async: writes into another CTA's shared memory that tell an mbarrier there
// ----------------------------------
struct RemoteStore {
    Address to, barrier;
    std::vector<Slot> values;
    unsigned element_bytes;
    Reduction reduction = Reduction::None;
    Element element = Element::U32;
};
Flow exec_remote(Warp& w, const Instr& in, Mask m) {
    const auto& op = *static_cast<const RemoteStore*>(in.extra);
    uint64_t to[kWarpSize], barrier[kWarpSize];
    lane_addresses(w, op.to.base, op.to.wide, op.to.offset, to);
    lane_addresses(w, op.barrier.base, op.barrier.wide, op.barrier.offset, barrier);
    const auto bytes = static_cast<uint32_t>(op.element_bytes * op.values.size());
    each_lane(m, [&](int l) {
        const Issuer by{&w, &in};
        if (to[l] % bytes)
            w.fault(in, Fault::Kind::Misaligned, "the destination is not a multiple of the access size", l, to[l]);
        const SharedRange range = shared_range(w, in, to[l], bytes, l);
        std::array<uint8_t, 16> data{};
        for (size_t i = 0; i < op.values.size(); ++i) {
            const uint64_t value = op.element_bytes == 8 ? w.r64(op.values[i])[l] : w.r32(op.values[i])[l];
            std::memcpy(data.data() + i * op.element_bytes, &value, op.element_bytes);
        }
        const uint64_t signal = shared_address(barrier[l]);
        const MBarrier& told = mbarrier_at(by, signal);
        if (races_checked(w)) {
            const SharedRange object = shared_range(w, in, signal, 8, l);
            Actor actor = mbarrier_unit(w, in, 1u << l, *object.cta, object.offset, static_cast<Clock>(told.phase + 1));
            actor.strong = op.reduction != Reduction::None;
            actor.scope = MemoryScope::Cluster;
            PageTouch(actor).shared(*range.cta, range.offset, bytes, actor.strong ? Touch::Atomic : Touch::Write);
        }
        if (op.reduction == Reduction::None) begin_async_write(by, *range.cta, range.offset, bytes);
        else require_written(w, in, range, bytes, l);
        const RemoteStore* operands = &op;
        w.cta->cluster->async.push({"remote write to " + place(*range.cta, range.offset),
                                    [by, range, data, bytes, signal, operands] {
                                        if (operands->reduction == Reduction::None) {
                                            std::memcpy(range.data, data.data(), bytes);
                                            end_async_write(by, *range.cta, range.offset, bytes);
                                        } else
                                            reduce_elements(by, operands->element, operands->reduction, range.data,
                                                            data.data(), bytes);
                                        mbarrier_complete_tx(by, signal, bytes);
                                    },
                                    0, 0, &w, &in});
    });
    return Flow::Next;
}
template <bool kReduce> void decode_remote(Decoder& d, Instr& in) {
    auto* op = d.make_extra<RemoteStore>();
    in.extra = op;
    for (const char* m : {"weak", "relaxed", "cluster"}) d.take(m);
    if (!d.take("shared::cluster") || !d.take("mbarrier::complete_tx::bytes"))
        d.error("needs .shared::cluster and .mbarrier::complete_tx::bytes");
    if (kReduce) {
        static const std::pair<const char*, Reduction> rows[] = {{"add", Reduction::Add}, {"min", Reduction::Min},
                                                                 {"max", Reduction::Max}, {"and", Reduction::And},
                                                                 {"or", Reduction::Or},   {"xor", Reduction::Xor}};
        for (const auto& [name, r] : rows) if (d.take(name)) op->reduction = r;
        if (op->reduction == Reduction::None) d.error("this reduction is not implemented");
    }
    d.take_any({"v2", "v4"});
    const Type t = d.take_type();
    op->element_bytes = type_bits(t) / 8;
    if (op->element_bytes != 4 && op->element_bytes != 8) d.error("this type is not implemented");
    op->element = t == Type::S32           ? Element::S32
                  : t == Type::S64         ? Element::S64
                  : op->element_bytes == 8 ? Element::U64
                                           : Element::U32;
    op->to = d.address(0);
    op->values = d.src_list(1, t);
    if (op->values.size() * op->element_bytes > 16) d.error("at most 16 bytes");
    op->barrier = d.address(2);
    in.fn = exec_remote;
}

}  // namespace

const OpRow kClusterOps[] = {
    {"barrier.cluster", decode_barrier}, {"mapa", decode_mapa},
    {"getctarank", decode_rank},         {"st.async", decode_remote<false>},
    {"red.async", decode_remote<true>},
};
SOFTGPU_DEFINE_COUNT(Cluster)

}  // namespace softgpu
