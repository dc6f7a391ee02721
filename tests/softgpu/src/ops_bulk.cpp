// cp.async.bulk*, cp.reduce.async.bulk*: bulk copies, with tensor maps (TMA) and without, that complete late.
//
// A load poisons its destination when it is issued and reads global memory when it completes; then it tells its
// mbarrier. A store reads shared memory some time after its issue (until then that memory must not change) and writes
// global memory some time after that; bulk groups wait for the one or the other.
#include <algorithm>

#include "happens_before.h"
#include "lanes.h"
#include "mbarrier.h"
#include "tables.h"
#include "tma.h"

namespace softgpu {
namespace {

struct BulkOperands {
    Address shared, global, barrier;
    std::vector<Slot> at;            // coordinates, outermost last as PTX gives them
    Slot bytes = kNoSlot;            // copies without a map
    Slot multicast = kNoSlot;        // CTA mask
    Address source;                  // shared::cta -> shared::cluster
    bool pair = false, four_rows = false, own_cta = false;
    Reduction reduction = Reduction::None;
    Element element = Element::U8;
};

// ---- stores of a warp, for its bulk groups
// -------------------------------------------------------------------------------
struct BulkStore {
    int lane;
    uint64_t group;
    bool read = false, written = false;
};
struct BulkGroups {
    std::vector<std::shared_ptr<BulkStore>> stores;   // not all written
    uint64_t committed[kWarpSize] = {};
};
std::shared_ptr<BulkStore> new_store(Warp& w, int lane) {
    BulkGroups& g = w.state<BulkGroups>();
    std::erase_if(g.stores, [](const auto& s) { return s->written; });
    return g.stores.emplace_back(std::make_shared<BulkStore>(BulkStore{lane, g.committed[lane]}));
}

Flow exec_commit(Warp& w, const Instr&, Mask m) {
    BulkGroups& g = w.state<BulkGroups>();
    each_lane(m, [&](int l) { ++g.committed[l]; });
    return Flow::Next;
}
void decode_commit(Decoder&, Instr& in) { in.fn = exec_commit; }
Flow exec_wait(Warp& w, const Instr& in, Mask m) {   // imm: groups that may be left; u8[0]: reads only
    const BulkGroups& g = w.state<BulkGroups>();
    for (const auto& s : g.stores) {
        if (!((m >> s->lane) & 1) || s->group + static_cast<uint64_t>(in.imm) >= g.committed[s->lane]) continue;
        if (!(in.u8[0] ? s->read : s->written))
            return w.wait_for("bulk groups, all but the latest", static_cast<uint64_t>(in.imm));
    }
    uint64_t done = 0;
    each_lane(m, [&](int l) {
        if (g.committed[l] > static_cast<uint64_t>(in.imm))
            done = std::max(done, g.committed[l] - static_cast<uint64_t>(in.imm));
    });
    finish_unit(w, Unit::BulkRead, static_cast<Clock>(done));
    if (!in.u8[0]) finish_unit(w, Unit::BulkWrite, static_cast<Clock>(done));
    return Flow::Next;
}
void decode_wait(Decoder& d, Instr& in) {
    in.u8[0] = d.take("read");
    const auto n = d.immediate(0);
    if (!n) d.error("the number of groups must be a constant");
    in.imm = static_cast<int64_t>(*n);
    in.fn = exec_wait;
}

// ---- loads
// ------------------------------------------------------------------------------------------------------------------
// Calls f(destination CTA, barrier address) for every CTA that a load goes to.
template <class F>
void each_destination(Warp& w, const Instr& in, const BulkOperands& op, uint64_t to, uint64_t barrier, int l, F f) {
    Cluster& cluster = *w.cta->cluster;
    const auto rank_of = [](uint64_t a) { return static_cast<uint32_t>(a) >> kSharedRankShift; };
    const uint64_t offset = barrier & kSharedOffsetMask;
    if (op.multicast == kNoSlot) {
        const uint32_t from = rank_of(barrier), at = rank_of(to);
        if (op.own_cta && at != w.cta->rank)
            w.fault(in, Fault::Kind::OutOfBounds, "a .shared::cta destination in another CTA", l, to);
        if (at >= cluster.ctas.size()) shared_range(w, in, to, 1, l);   // says so
        if (from != at && !(op.pair && from / 2 == at / 2))
            w.fault(in, Fault::Kind::SyncMisuse,
                    "destination and mbarrier are in different CTAs, which takes .cta_group::2 and a pair", l, barrier);
        return f(*cluster.ctas[at], barrier);
    }
    const uint32_t mask = w.r32(op.multicast)[l] & 0xffffu;
    if (!mask || mask >> cluster.ctas.size())
        w.fault(in, Fault::Kind::OutOfBounds, "CTA mask names CTAs that the cluster does not have", l, mask);
    for (uint32_t rank = 0; rank < cluster.ctas.size(); ++rank) {
        if (!((mask >> rank) & 1)) continue;
        // With pairs, all barriers are in CTAs of the parity of the one that is named (PTX ISA, cp.async.bulk.tensor).
        const uint32_t at = op.pair ? (rank & ~1u) | (rank_of(barrier) & 1) : rank;
        f(*cluster.ctas[rank], uint64_t(at) << kSharedRankShift | offset);
    }
}

// `each_source(f)` calls f(address, bytes) for every stretch of global memory that is read.
template <class Sources>
void issue_load(Warp& w, const Instr& in, int l, Cta& cta, uint32_t offset, uint32_t bytes, uint64_t barrier,
                Sources each_source, std::function<void()> copy) {
    const Issuer by{&w, &in};
    if (!cta.live_threads) w.fault(in, Fault::Kind::SyncMisuse, "copies into shared memory of a CTA that has exited");
    const MBarrier& told = mbarrier_at(by, barrier);
    if (races_checked(w)) {
        const SharedRange object = shared_range(w, in, barrier, 8, l);
        PageTouch touch(mbarrier_unit(w, in, 1u << l, *object.cta, object.offset, static_cast<Clock>(told.phase + 1)));
        touch.shared(cta, offset, bytes, Touch::Write);
        each_source([&](uint64_t address, uint64_t n) { touch.global(address, n, Touch::Read); });
    }
    begin_async_write(by, cta, offset, bytes);
    Cta* const to = &cta;
    w.cta->cluster->async.push({"bulk load of " + std::to_string(bytes) + " bytes to " + place(cta, offset),
                                [by, to, offset, bytes, barrier, copy = std::move(copy)] {
                                    copy();
                                    end_async_write(by, *to, offset, bytes);
                                    mbarrier_complete_tx(by, barrier, bytes);
                                },
                                0, 0, &w, &in});
}

Box box_of(Warp& w, const Instr& in, const BulkOperands& op, uint64_t map, int l) {
    const Issuer by{&w, &in};
    const uint8_t* bytes = nullptr;
    for (uint64_t i = 0; i < sizeof(TensorMap); i += 32) {
        const uint8_t* p = resolve(w, in, l, Space::Generic, map + i, 32, Access::Read);
        if (i == 0) bytes = p;
    }
    Box box;
    box.tensor = read_tensor_map(by, bytes);
    box.four_rows = op.four_rows;
    const size_t wanted = op.four_rows ? 5 : static_cast<size_t>(box.tensor.rank);
    if (op.at.size() != wanted || (op.four_rows && box.tensor.rank != 2))
        w.fault(
            in, Fault::Kind::IllegalInstruction,
            std::to_string(op.at.size()) + " coordinates for a tensor map of rank " + std::to_string(box.tensor.rank),
            l);
    for (size_t i = 0; i < op.at.size(); ++i) box.at[i] = static_cast<int32_t>(w.r32(op.at[i])[l]);
    // Neither is in a manual: an H200 and an H100 stopped with illegal instructions.
    if (box.at[0] * static_cast<int64_t>(element_size(box.tensor.element)) % 16)
        w.fault(in, Fault::Kind::IllegalInstruction,
                "the box begins at element " + std::to_string(box.at[0]) + " of a row, no multiple of 16 bytes", l);
    return box;
}
void require_aligned(Warp& w, const Instr& in, uint64_t address, uint64_t alignment, const char* what, int l) {
    if (address % alignment)
        w.fault(in, Fault::Kind::Misaligned,
                std::string(what) + " must be a multiple of " + std::to_string(alignment) + " bytes", l, address);
}

Flow exec_tensor_load(Warp& w, const Instr& in, Mask m) {
    const auto& op = *static_cast<const BulkOperands*>(in.extra);
    uint64_t to[kWarpSize], map[kWarpSize], barrier[kWarpSize];
    lane_addresses(w, op.shared.base, op.shared.wide, op.shared.offset, to);
    lane_addresses(w, op.global.base, op.global.wide, op.global.offset, map);
    lane_addresses(w, op.barrier.base, op.barrier.wide, op.barrier.offset, barrier);
    each_lane(m, [&](int l) {
        const Box box = box_of(w, in, op, map[l], l);
        require_aligned(w, in, shared_address(to[l]), 128, "the destination in shared memory", l);
        const uint32_t offset = shared_address(to[l]) & kSharedOffsetMask;
        each_destination(
            w, in, op, shared_address(to[l]), shared_address(barrier[l]), l, [&](Cta& cta, uint64_t signal) {
                Cta* const target = &cta;
                const Issuer by{&w, &in};
                issue_load(
                    w, in, l, cta, offset, box.bytes(), signal, [&](auto f) { each_row_inside(by, box, f); },
                    [by, box, target, offset] { load_box(by, box, *target, offset); });
            });
    });
    return Flow::Next;
}

uint32_t bulk_bytes(Warp& w, const Instr& in, Slot slot, int l) {
    const uint32_t bytes = w.r32(slot)[l];
    require_aligned(w, in, bytes, 16, "the size of a bulk copy", l);
    return bytes;
}
Flow exec_load(Warp& w, const Instr& in, Mask m) {
    const auto& op = *static_cast<const BulkOperands*>(in.extra);
    uint64_t to[kWarpSize], from[kWarpSize], barrier[kWarpSize];
    lane_addresses(w, op.shared.base, op.shared.wide, op.shared.offset, to);
    lane_addresses(w, op.global.base, op.global.wide, op.global.offset, from);
    lane_addresses(w, op.barrier.base, op.barrier.wide, op.barrier.offset, barrier);
    each_lane(m, [&](int l) {
        const uint32_t bytes = bulk_bytes(w, in, op.bytes, l), offset = shared_address(to[l]) & kSharedOffsetMask;
        require_aligned(w, in, to[l], 16, "the destination", l);
        require_aligned(w, in, from[l], 16, "the source", l);
        const Issuer by{&w, &in};
        const uint64_t source = from[l];
        check_global(by, source, bytes, false);
        each_destination(
            w, in, op, shared_address(to[l]), shared_address(barrier[l]), l, [&](Cta& cta, uint64_t signal) {
                Cta* const target = &cta;
                issue_load(
                    w, in, l, cta, offset, bytes, signal, [&](auto f) { f(source, bytes); },
                    [target, offset, source, bytes] {
                        std::memcpy(target->shared.data() + offset, reinterpret_cast<const void*>(source), bytes);
                    });
            });
    });
    return Flow::Next;
}
// shared::cta -> shared::cluster
Flow exec_forward(Warp& w, const Instr& in, Mask m) {
    const auto& op = *static_cast<const BulkOperands*>(in.extra);
    uint64_t to[kWarpSize], from[kWarpSize], barrier[kWarpSize];
    lane_addresses(w, op.shared.base, op.shared.wide, op.shared.offset, to);
    lane_addresses(w, op.source.base, op.source.wide, op.source.offset, from);
    lane_addresses(w, op.barrier.base, op.barrier.wide, op.barrier.offset, barrier);
    each_lane(m, [&](int l) {
        const uint32_t bytes = bulk_bytes(w, in, op.bytes, l), offset = shared_address(to[l]) & kSharedOffsetMask;
        require_aligned(w, in, to[l], 16, "the destination", l);
        require_aligned(w, in, from[l], 16, "the source", l);
        const SharedRange source = shared_range(w, in, from[l], bytes, l);
        const Issuer by{&w, &in};
        begin_async_read(by, *source.cta, source.offset, bytes, "this bulk copy");
        if (races_checked(w)) {
            const SharedRange object = shared_range(w, in, shared_address(barrier[l]), 8, l);
            const MBarrier& told = mbarrier_at(by, shared_address(barrier[l]));
            PageTouch(mbarrier_unit(w, in, 1u << l, *object.cta, object.offset, static_cast<Clock>(told.phase + 1)))
                .shared(*source.cta, source.offset, bytes, Touch::Read);
        }
        each_destination(
            w, in, op, shared_address(to[l]), shared_address(barrier[l]), l, [&](Cta& cta, uint64_t signal) {
                Cta* const target = &cta;
                issue_load(
                    w, in, l, cta, offset, bytes, signal, [](auto) {},
                    [by, target, offset, source, bytes] {
                        end_async_read(by, *source.cta, source.offset, bytes, "this bulk copy");
                        std::memcpy(target->shared.data() + offset, source.cta->shared.data() + source.offset, bytes);
                    });
            });
    });
    return Flow::Next;
}

// ---- stores
// -----------------------------------------------------------------------------------------------------------------
// Stores of a CTA that have not read their bytes yet.
struct StoreReading {
    const BulkStore* store;
    Issuer by;
    uint32_t offset, bytes;
};
struct StoresReading { std::vector<StoreReading> stores; };

// Two operations: fetch from shared memory, then write to global memory.
// `again`: another lane has issued the very same store (CuTe lets a whole warp do it, and the unit is the warp's).
// `each_target(f)` calls f(address, bytes) for every stretch of global memory that is written.
template <class Targets>
void issue_store(Warp& w, const Instr& in, int l, bool again, uint32_t offset, uint32_t bytes, Reduction reduction,
                 Targets each_target, std::function<std::vector<uint8_t>()> fetch,
                 std::function<void(const std::vector<uint8_t>&)> write) {
    const Issuer by{&w, &in};
    Cta* const cta = w.cta;
    // The shadow remembers one read only: before it starts another, earlier stores of the same bytes must be intact.
    auto& reading = cta->state<StoresReading>().stores;
    for (const auto& s : reading)
        if (s.offset < offset + bytes && offset < s.offset + s.bytes)
            end_async_read(s.by, *cta, s.offset, s.bytes, "this bulk store");
    begin_async_read(by, *cta, offset, bytes, "this bulk store");
    auto store = new_store(w, l);
    if (races_checked(w) && !again) {
        const auto group = static_cast<Clock>(store->group + 1);
        PageTouch(unit_of(w, in, 1u << l, Unit::BulkRead, group)).shared(*cta, offset, bytes, Touch::Read);
        Actor writes = unit_of(w, in, 1u << l, Unit::BulkWrite, group);
        writes.strong = reduction != Reduction::None;   // a reduction's elements are .relaxed.gpu
        writes.scope = MemoryScope::Gpu;
        PageTouch touch(writes);
        each_target([&](uint64_t address, uint64_t n) {
            touch.global(address, n, writes.strong ? Touch::Atomic : Touch::Write);
        });
    }
    reading.push_back({store.get(), by, offset, bytes});
    cta->cluster->async.push({"bulk store of " + std::to_string(bytes) + " bytes from " + place(*cta, offset),
                              [by, cta, offset, bytes, store, fetch = std::move(fetch), write = std::move(write)] {
                                  end_async_read(by, *cta, offset, bytes, "this bulk store");
                                  std::erase_if(cta->state<StoresReading>().stores,
                                                [&](const StoreReading& s) { return s.store == store.get(); });
                                  auto data = std::make_shared<std::vector<uint8_t>>(fetch());
                                  store->read = true;
                                  cta->cluster->async.push({"writes of a bulk store", [store, data, write] {
                                                                write(*data);
                                                                store->written = true;
                                                            }});
                              },
                              0, 0, &w, &in});
}
Flow exec_tensor_store(Warp& w, const Instr& in, Mask m) {
    const auto& op = *static_cast<const BulkOperands*>(in.extra);
    uint64_t from[kWarpSize], map[kWarpSize];
    lane_addresses(w, op.shared.base, op.shared.wide, op.shared.offset, from);
    lane_addresses(w, op.global.base, op.global.wide, op.global.offset, map);
    const int first = std::countr_zero(m);
    Box first_box;
    each_lane(m, [&](int l) {
        const Box box = box_of(w, in, op, map[l], l);
        if (std::any_of(box.at, box.at + 5, [](int64_t at) { return at < 0; }))
            w.fault(in, Fault::Kind::IllegalInstruction, "a store of a box that begins in front of the tensor", l);
        require_aligned(w, in, shared_address(from[l]), 128, "the source in shared memory", l);
        const SharedRange range = shared_range(w, in, shared_address(from[l]), box.bytes(), l);
        if (range.cta != w.cta)
            w.fault(in, Fault::Kind::OutOfBounds, "a .shared::cta source in another CTA", l, from[l]);
        Cta* const cta = w.cta;
        const Issuer by{&w, &in};
        const Reduction reduction = op.reduction;
        const bool again = l != first && from[l] == from[first] && map[l] == map[first] &&
                           std::equal(box.at, box.at + 5, first_box.at);
        if (l == first) first_box = box;
        issue_store(
            w, in, l, again, range.offset, box.bytes(), reduction, [&](auto f) { each_row_inside(by, box, f); },
            [box, cta, offset = range.offset] { return fetch_box(box, *cta, offset); },
            [by, box, reduction](const std::vector<uint8_t>& rows) { store_box(by, box, rows, reduction); });
    });
    return Flow::Next;
}
Flow exec_store(Warp& w, const Instr& in, Mask m) {
    const auto& op = *static_cast<const BulkOperands*>(in.extra);
    uint64_t from[kWarpSize], to[kWarpSize];
    lane_addresses(w, op.shared.base, op.shared.wide, op.shared.offset, from);
    lane_addresses(w, op.global.base, op.global.wide, op.global.offset, to);
    const int first = std::countr_zero(m);
    each_lane(m, [&](int l) {
        const uint32_t bytes = bulk_bytes(w, in, op.bytes, l);
        require_aligned(w, in, to[l], 16, "the destination", l);
        require_aligned(w, in, from[l], 16, "the source", l);
        const SharedRange range = shared_range(w, in, shared_address(from[l]), bytes, l);
        if (range.cta != w.cta)
            w.fault(in, Fault::Kind::OutOfBounds, "a .shared::cta source in another CTA", l, from[l]);
        const Issuer by{&w, &in};
        check_global(by, to[l], bytes, true);
        Cta* const cta = w.cta;
        const uint64_t target = to[l];
        const BulkOperands* operands = &op;
        const bool again = l != first && from[l] == from[first] && to[l] == to[first];
        issue_store(w, in, l, again, range.offset, bytes, op.reduction, [&](auto f) { f(target, bytes); },
                    [cta, offset = range.offset, bytes] {
                        const uint8_t* p = cta->shared.data() + offset;
                        return std::vector<uint8_t>(p, p + bytes);
                    },
                    [by, operands, target](const std::vector<uint8_t>& data) {
                        auto* p = reinterpret_cast<uint8_t*>(target);
                        if (operands->reduction == Reduction::None) std::memcpy(p, data.data(), data.size());
                        else reduce_elements(by, operands->element, operands->reduction, p, data.data(), data.size());
                    });
    });
    return Flow::Next;
}

// ---- decoding
// --------------------------------------------------------------------------------------------------------------- Takes
// the first of the state spaces that a copy names: its destination. The source is what is left.
std::string take_first_space(Decoder& d) {
    for (const auto& m : d.modifiers())
        if (m == "global" || m == "shared::cta" || m == "shared::cluster") {
            const std::string space = m;
            d.take(space.c_str());
            return space;
        }
    d.error("needs a state space");
}
void take_map_operand(Decoder& d, BulkOperands& op, size_t i) {
    const Operand& map = d.operand(i);
    op.global = d.address(map);
    if (map.parts.size() != 1 || map.parts[0].kind != Operand::Kind::Vector)
        d.error("needs a tensor map and its coordinates");
    for (const auto& part : map.parts[0].parts) op.at.push_back(d.src(part, Type::S32));
}
// The operands behind the barrier: CTA mask, cache policy.
void take_trailing(Decoder& d, BulkOperands& op, size_t next, bool multicast, bool policy) {
    if (multicast) op.multicast = d.src(next++, Type::U16);
    if (policy) ++next;   // caches are not modelled
    if (d.operand_count() != next)
        d.error("has " + std::to_string(d.operand_count()) + " operands, not " + std::to_string(next));
}
void take_rank(Decoder& d, const BulkOperands& op) {
    for (const char* rank : {"1d", "2d", "3d", "4d", "5d"})
        if (d.take(rank)) {
            if (!op.four_rows && op.at.size() != static_cast<size_t>(rank[0] - '0'))
                d.error("the number of coordinates differs from the rank");
            return;
        }
    d.error("needs a rank");
}
Reduction take_reduction(Decoder& d) {
    static const std::pair<const char*, Reduction> rows[] = {{"add", Reduction::Add}, {"min", Reduction::Min},
                                                             {"max", Reduction::Max}, {"and", Reduction::And},
                                                             {"or", Reduction::Or},   {"xor", Reduction::Xor}};
    for (const auto& [name, op] : rows) if (d.take(name)) return op;
    d.error("this reduction is not implemented");
}

template <bool kReduce> void decode_tensor(Decoder& d, Instr& in) {
    auto* op = d.make_extra<BulkOperands>();
    in.extra = op;
    const std::string to = take_first_space(d), from = take_first_space(d);
    d.take("tile");
    const bool gather = d.take("tile::gather4"), scatter = d.take("tile::scatter4");
    op->four_rows = gather || scatter;
    op->pair = d.take("cta_group::2");
    d.take("cta_group::1");
    const bool multicast = d.take("multicast::cluster"), policy = d.take("L2::cache_hint");
    if (to == "global") {
        if (from != "shared::cta" || !d.take("bulk_group")) d.error("stores go from .shared::cta, with .bulk_group");
        if (kReduce) op->reduction = take_reduction(d);
        take_map_operand(d, *op, 0);
        op->shared = d.address(1);
        take_trailing(d, *op, 2, false, policy);
        in.fn = exec_tensor_store;
    } else {
        if (kReduce || from != "global" || !d.take("mbarrier::complete_tx::bytes"))
            d.error("loads come from .global, with .mbarrier::complete_tx::bytes");
        op->own_cta = to == "shared::cta";
        op->shared = d.address(0);
        take_map_operand(d, *op, 1);
        op->barrier = d.address(2);
        take_trailing(d, *op, 3, multicast, policy);
        in.fn = exec_tensor_load;
    }
    take_rank(d, *op);
}

struct TypeOfElement { Type type; Element element; };
constexpr TypeOfElement kBulkTypes[] = {
    {Type::U32, Element::U32}, {Type::B32, Element::U32}, {Type::S32, Element::S32}, {Type::U64, Element::U64},
    {Type::B64, Element::U64}, {Type::S64, Element::S64}, {Type::F16, Element::F16}, {Type::BF16, Element::BF16},
    {Type::F32, Element::F32}, {Type::F64, Element::F64}};
template <bool kReduce> void decode_bulk(Decoder& d, Instr& in) {
    auto* op = d.make_extra<BulkOperands>();
    in.extra = op;
    const std::string to = take_first_space(d), from = take_first_space(d);
    const bool multicast = d.take("multicast::cluster"), policy = d.take("L2::cache_hint");
    if (kReduce) {
        if (to != "global") d.error("reductions into shared memory are not implemented");
        op->reduction = take_reduction(d);
        d.take("noftz");
        const Type t = d.take_type();
        const auto* row = std::find_if(std::begin(kBulkTypes), std::end(kBulkTypes),
                                       [&](const TypeOfElement& r) { return r.type == t; });
        if (row == std::end(kBulkTypes)) d.error("this type is not implemented");
        op->element = row->element;
    }
    if (to == "global") {
        if (from != "shared::cta" || !d.take("bulk_group")) d.error("stores go from .shared::cta, with .bulk_group");
        op->global = d.address(0);
        op->shared = d.address(1);
        op->bytes = d.src(2, Type::U32);
        take_trailing(d, *op, 3, false, policy);
        in.fn = exec_store;
        return;
    }
    if (!d.take("mbarrier::complete_tx::bytes")) d.error("needs .mbarrier::complete_tx::bytes");
    op->own_cta = to == "shared::cta";
    op->shared = d.address(0);
    (from == "global" ? op->global : op->source) = d.address(1);
    op->bytes = d.src(2, Type::U32);
    op->barrier = d.address(3);
    take_trailing(d, *op, 4, multicast, policy);
    in.fn = from == "global" ? exec_load : exec_forward;
}

Flow exec_nothing(Warp&, const Instr&, Mask) { return Flow::Next; }
void decode_prefetch(Decoder& d, Instr& in) {   // into a cache: nothing to see
    while (!d.modifiers().empty()) d.take(d.modifiers()[0].c_str());
    in.fn = exec_nothing;
}

}  // namespace

const OpRow kBulkOps[] = {
    {"cp.async.bulk", decode_bulk<false>}, {"cp.reduce.async.bulk", decode_bulk<true>},
    {"cp.async.bulk.tensor", decode_tensor<false>}, {"cp.reduce.async.bulk.tensor", decode_tensor<true>},
    {"cp.async.bulk.commit_group", decode_commit}, {"cp.async.bulk.wait_group", decode_wait},
    {"cp.async.bulk.prefetch", decode_prefetch}, {"cp.async.bulk.prefetch.tensor", decode_prefetch},
};
SOFTGPU_DEFINE_COUNT(Bulk)

}  // namespace softgpu
