// tcgen05.*: tensor memory: allocation, ld and st, waits, commit. The matrix multiply itself is in ops_tcgen05_mma.cpp.
//
// tcgen05.ld is done at once and tcgen05.wait::ld has nothing to do (code exists that reads the registers without it).
// tcgen05.st marks its cells until the warp's tcgen05.wait::st: who reads them before faults.
#include <bit>

#include "decoder.h"
#include "lanes.h"
#include "sync.h"
#include "tables.h"
#include "tcgen05.h"
#include "tmem.h"

namespace softgpu {

// ---- tensor memory
// ------------------------------------------------------------------------------------------------------
Tmem::Tmem() : words(size_t(kTmemLanes) * kTmemColumns, 0xffffffffu), cells(size_t(kTmemGroups) * kTmemColumns) {}

Tmem& tmem(Cta& cta) {
    if (Tmem* known = cta.states.find<Tmem>()) return *known;
    Tmem& t = cta.state<Tmem>();
    Cta* const owner = &cta;
    cta.cluster->exit_checks.push_back([owner] {
        for (uint32_t c = 0; c < kTmemColumns; ++c)
            if (tmem(*owner).allocation[c]) {
                Fault f;
                f.kind = Fault::Kind::SyncMisuse;
                f.kernel = owner->grid->program->kernel;
                f.cta = owner->id;
                f.message = "the kernel ended with column " + std::to_string(c) +
                            " of TMEM still allocated: tcgen05.dealloc is missing";
                throw FaultError{f};
            }
    });
    return t;
}
std::string tmem_place(uint32_t lane, uint32_t column) {
    const uint32_t first = lane / kTmemGroupLanes * kTmemGroupLanes;
    return "lanes " + std::to_string(first) + "-" + std::to_string(first + kTmemGroupLanes - 1) + ", column " +
           std::to_string(column) + " of TMEM";
}
void require_allocated(const Issuer& by, Cta& cta, uint32_t column, uint32_t columns) {
    const Tmem& t = tmem(cta);
    for (uint32_t c = column; c < column + columns; ++c)
        if (c >= kTmemColumns || !t.allocation[c])
            by.fault(Fault::Kind::OutOfBounds, "column " + std::to_string(c) + " of TMEM is not allocated");
}
void require_tmem_readable(const Issuer& by, Cta& cta, uint32_t lane, uint32_t column) {
    if (!cta.grid->options.fault_on_uninitialised) return;
    switch (tmem(cta).cell(column, lane / kTmemGroupLanes).state) {
        case TmemState::Valid: return;
        case TmemState::Unwritten:
            by.fault(Fault::Kind::Uninitialised, "reads " + tmem_place(lane, column) + ", which nothing has written");
        case TmemState::Matrix:
            by.fault(Fault::Kind::InFlight,
                     "reads " + tmem_place(lane, column) +
                         ", which an MMA is still writing: a wait for its tcgen05.commit is missing");
        case TmemState::Store:
            by.fault(Fault::Kind::InFlight,
                     "reads " + tmem_place(lane, column) + " after a tcgen05.st, without tcgen05.wait::st in between");
    }
}

uint64_t tcgen05_chain(const Warp& w, int lane) {
    return 1 + (uint64_t(w.cta->rank) << 16 | uint64_t(w.index) << 8 | static_cast<uint64_t>(lane));
}
Cta& pair_peer(Warp& w, const Instr& in) {
    const uint32_t peer = w.cta->rank ^ 1;
    if (peer >= w.cta->cluster->ctas.size())
        w.fault(in, Fault::Kind::IllegalInstruction, ".cta_group::2 in a cluster without a second CTA");
    return *w.cta->cluster->ctas[peer];
}

namespace {

// ---- allocation
// -----------------------------------------------------------------------------------------------------------
struct Allocation {
    bool pair = false, generic = false;
    Address result;
    Slot address = kNoSlot, columns = kNoSlot;
};

uint32_t checked_columns(Warp& w, const Instr& in, Slot slot, Mask m) {
    const uint32_t n = w.r32(slot)[std::countr_zero(m)];
    if (n < 32 || n > kTmemColumns || !std::has_single_bit(n))
        w.fault(in, Fault::Kind::IllegalInstruction,
                "number of columns " + std::to_string(n) + " is not a power of two from 32 to 512");
    return n;
}
void require_warp(Warp& w, const Instr& in, Mask m) {
    if (m != kAllLanes)
        w.fault(in, Fault::Kind::SyncMisuse,
                "a .sync.aligned tcgen05 instruction must be executed by all lanes of the warp");
}
// First column, a multiple of n, of n that are free in all the CTAs; kTmemColumns if there are none.
uint32_t find_free(const std::vector<Cta*>& ctas, uint32_t n) {
    for (uint32_t first = 0; first + n <= kTmemColumns; first += n) {
        bool free = true;
        for (Cta* cta : ctas)
            for (uint32_t c = first; c < first + n; ++c) free = free && !tmem(*cta).allocation[c];
        if (free) return first;
    }
    return kTmemColumns;
}
// What the CTAs of a pair have agreed on: the results of their collective allocations, in order.
struct PairAllocations { std::vector<uint32_t> first_columns; };

void allocate(Cta& cta, uint32_t first, uint32_t n) {
    Tmem& t = tmem(cta);
    ++t.allocations;
    for (uint32_t c = first; c < first + n; ++c) {
        t.allocation[c] = t.allocations;
        std::fill_n(t.column(c), kTmemLanes, 0xffffffffu);
        for (uint32_t g = 0; g < kTmemGroups; ++g) t.cell(c, g) = {};
    }
}
Flow exec_alloc(Warp& w, const Instr& in, Mask m) {
    if (!members_here(w, in, m, kAllLanes)) return w.wait_for("the whole warp", 0);
    require_warp(w, in, m);
    const auto& op = *static_cast<const Allocation*>(in.extra);
    const uint32_t n = checked_columns(w, in, op.columns, m);
    Cta& cta = *w.cta;
    Tmem& mine = tmem(cta);
    if (mine.permit_given_up)
        w.fault(in, Fault::Kind::SyncMisuse, "allocates TMEM after tcgen05.relinquish_alloc_permit");
    uint32_t first;
    if (op.pair) {
        // Token: 1 + number of this collective allocation of the CTA. The second CTA to come allocates for both.
        Cta& peer = pair_peer(w, in);
        Cta& even = cta.rank & 1 ? peer : cta;
        if (w.cur.token == 0) w.cur.token = ++mine.pair_allocations;
        auto& done = even.state<PairAllocations>().first_columns;
        if (done.size() < w.cur.token) {
            if (tmem(peer).pair_allocations < w.cur.token)
                return w.wait_for("tcgen05.alloc of the other CTA of the pair; columns", n);
            first = find_free({&cta, &peer}, n);
            if (first == kTmemColumns) return w.wait_for("free TMEM columns:", n);
            allocate(cta, first, n);
            allocate(peer, first, n);
            done.push_back(first);
        }
        first = done[w.cur.token - 1];
        w.cur.token = 0;
    } else {
        first = find_free({&cta}, n);
        if (first == kTmemColumns) return w.wait_for("free TMEM columns:", n);
        allocate(cta, first, n);
    }
    uint64_t to[kWarpSize];
    lane_addresses(w, op.result.base, op.result.wide, op.result.offset, to);
    const int lane = std::countr_zero(m);
    const uint64_t address = shared_operand(w, in, op.generic, to[lane], lane);
    uint8_t* result = resolve(w, in, lane, Space::Shared, address, 4, Access::Write);
    if (races_checked(w)) PageTouch(threads_of(w, in, kAllLanes)).at(Space::Shared, address, 4, Touch::Write);
    std::memcpy(result, &first, 4);
    sync_lanes(w, w.alive);
    return Flow::Next;
}
bool take_group(Decoder& d) {
    const std::string group = d.take_any({"cta_group::1", "cta_group::2"});
    if (group.empty()) d.error("needs .cta_group::1 or .cta_group::2");
    return group.back() == '2';
}
void take_aligned(Decoder& d) {
    if (!d.take("sync") || !d.take("aligned")) d.error("needs .sync.aligned");
}
void decode_alloc(Decoder& d, Instr& in) {
    auto* op = d.make_extra<Allocation>();
    in.extra = op;
    op->pair = take_group(d);
    take_aligned(d);
    op->generic = !d.take("shared::cta");
    d.take("b32");
    op->result = d.address(0);
    op->columns = d.src(1, Type::U32);
    in.fn = exec_alloc;
}

// Whole columns in the shadow of memory (races.h).
void watch_tensor(Warp& w, const Instr& in, Cta& cta, uint32_t first, uint32_t n, Touch touch) {
    if (!races_checked(w)) return;
    PageTouch watch(threads_of(w, in, kAllLanes));
    for (uint32_t c = first; c < first + n; ++c)
        for (uint32_t g = 0; g < kTmemGroups; ++g) watch.tensor(cta, c, g, touch);
    sync_lanes(w, w.alive);
}
void deallocate(Warp& w, const Instr& in, Cta& cta, uint32_t first, uint32_t n) {
    Tmem& t = tmem(cta);
    const uint16_t id = first < kTmemColumns ? t.allocation[first] : uint16_t{0};
    bool whole = id != 0 && first + n <= kTmemColumns && (first == 0 || t.allocation[first - 1] != id) &&
                 (first + n == kTmemColumns || t.allocation[first + n] != id);
    for (uint32_t c = first; whole && c < first + n; ++c) whole = t.allocation[c] == id;
    if (!whole)
        w.fault(in, Fault::Kind::SyncMisuse,
                std::to_string(n) + " columns from " + std::to_string(first) + " are no allocation of this CTA's TMEM");
    for (uint32_t c = first; c < first + n; ++c) {
        for (uint32_t g = 0; g < kTmemGroups; ++g)
            if (t.cell(c, g).state == TmemState::Matrix)
                w.fault(in, Fault::Kind::InFlight,
                        "frees " + tmem_place(g * kTmemGroupLanes, c) + " while an MMA is still writing it");
        t.allocation[c] = 0;
    }
    watch_tensor(w, in, cta, first, n, Touch::Write);
}
Flow exec_dealloc(Warp& w, const Instr& in, Mask m) {
    if (!members_here(w, in, m, kAllLanes)) return w.wait_for("the whole warp", 0);
    require_warp(w, in, m);
    const auto& op = *static_cast<const Allocation*>(in.extra);
    const uint32_t n = checked_columns(w, in, op.columns, m),
                   first = tmem_column(w.r32(op.address)[std::countr_zero(m)]);
    if (op.pair) {   // the second CTA of the pair to come frees for both
        Cta& peer = pair_peer(w, in);
        Tmem& mine = tmem(*w.cta);
        if (w.cur.token == 0) w.cur.token = ++mine.pair_deallocations;
        if (tmem(peer).pair_deallocations < w.cur.token)
            return w.wait_for("tcgen05.dealloc of the other CTA of the pair; columns", n);
        w.cur.token = 0;
    }
    deallocate(w, in, *w.cta, first, n);
    return Flow::Next;
}
void decode_dealloc(Decoder& d, Instr& in) {
    auto* op = d.make_extra<Allocation>();
    in.extra = op;
    op->pair = take_group(d);
    take_aligned(d);
    d.take("b32");
    op->address = d.src(0, Type::B32);
    op->columns = d.src(1, Type::U32);
    in.fn = exec_dealloc;
}
Flow exec_relinquish(Warp& w, const Instr& in, Mask m) {
    require_warp(w, in, m);
    tmem(*w.cta).permit_given_up = true;
    return Flow::Next;
}
void decode_relinquish(Decoder& d, Instr& in) {
    take_group(d);
    take_aligned(d);
    in.fn = exec_relinquish;
}

// ---- ld and st
// ------------------------------------------------------------------------------------------------------------ Which
// cell a register of a lane is (PTX ISA, "Matrix fragments for shape ..."). Registers come `per_step` at a time, each
// step `columns` further on.
struct Shape {
    const char* name;
    uint32_t lanes, columns, per_step;
    void (*cell)(uint32_t lane, uint32_t reg, uint32_t& row, uint32_t& column);   // reg < per_step
};
const Shape kShapes[] = {
    {"32x32b", 32, 1, 1,
     [](uint32_t l, uint32_t, uint32_t& row, uint32_t& c) {
         row = l;
         c = 0;
     }},
    {"16x64b", 16, 2, 1,
     [](uint32_t l, uint32_t, uint32_t& row, uint32_t& c) {
         row = l / 4 + 8 * (l / 2 % 2);
         c = l % 2;
     }},
    {"16x128b", 16, 4, 2,
     [](uint32_t l, uint32_t r, uint32_t& row, uint32_t& c) {
         row = l / 4 + 8 * r;
         c = l % 4;
     }},
    {"16x32bx2", 16, 1, 1,
     [](uint32_t l, uint32_t, uint32_t& row, uint32_t& c) {
         row = l % 16;
         c = 0;
     }},  // and Transfer::split
    {"16x256b", 16, 8, 4,
     [](uint32_t l, uint32_t r, uint32_t& row, uint32_t& c) {
         row = l / 4 + 8 * (r / 2);
         c = 2 * (l % 4) + r % 2;
     }},
};

struct Transfer {
    const Shape* shape;
    Slot address = kNoSlot;
    int64_t offset = 0;
    std::vector<Slot> registers;
    bool halves = false;         // pack::16b, unpack::16b: a register holds the low halves of two neighbouring columns
    uint32_t split = 0;          // 16x32bx2: columns from the part of lanes 0-15 of the warp to that of lanes 16-31
    uint32_t columns() const {
        return static_cast<uint32_t>(registers.size()) / shape->per_step * shape->columns * (halves ? 2 : 1);
    }
};
// Cells a warp has stored to since its last tcgen05.wait::st.
struct Stored { std::vector<std::pair<uint32_t, uint32_t>> cells; };   // column, group

uint32_t transfer_address(Warp& w, const Instr& in, const Transfer& op, Mask m) {
    const uint32_t address = w.r32(op.address)[std::countr_zero(m)] + static_cast<uint32_t>(op.offset);
    const uint32_t lane = tmem_lane(address), own = w.index % 4 * 32;
    if (lane < own || lane + op.shape->lanes > own + 32 || lane % kTmemGroupLanes)
        w.fault(in, Fault::Kind::IllegalInstruction,
                "lane " + std::to_string(lane) + " of TMEM: warp " + std::to_string(w.index) + " reaches lanes " +
                    std::to_string(own) + " to " + std::to_string(own + 31),
                -1, address);
    for (const uint32_t part : {0u, op.split})
        require_allocated({&w, &in}, *w.cta, tmem_column(address) + part, op.columns());
    return address;
}
// Calls f(lane, column) for each column, and 16 lanes of it, that the transfer touches.
template <class F> void each_group(const Transfer& op, uint32_t address, F f) {
    for (uint32_t c = 0; c < op.columns(); ++c)
        for (uint32_t l = 0; l < op.shape->lanes; l += kTmemGroupLanes) {
            f(tmem_lane(address) + l, tmem_column(address) + c);
            if (op.split) f(tmem_lane(address) + l, tmem_column(address) + op.split + c);
        }
}
// Calls f(register slot, warp lane, TMEM lane, column, number of a half) for everything that is transferred.
template <class F> void each_cell(const Transfer& op, uint32_t address, F f) {
    const Shape& s = *op.shape;
    const uint32_t base_lane = tmem_lane(address), base_column = tmem_column(address);
    for (uint32_t i = 0; i < op.registers.size(); ++i)
        for (uint32_t l = 0; l < kWarpSize; ++l) {
            uint32_t row, column;
            s.cell(l, i % s.per_step, row, column);
            column += i / s.per_step * s.columns;
            const uint32_t part = l < 16 ? 0 : op.split;
            if (!op.halves) f(op.registers[i], l, base_lane + row, base_column + part + column, 0);
            else
                for (uint32_t h = 0; h < 2; ++h)
                    f(op.registers[i], l, base_lane + row, base_column + part + 2 * column + h, h);
        }
}
void watch_transfer(Warp& w, const Instr& in, const Transfer& op, uint32_t address, Touch touch) {
    if (!races_checked(w)) return;
    PageTouch watch(threads_of(w, in, kAllLanes));
    each_group(op, address,
               [&](uint32_t lane, uint32_t column) { watch.tensor(*w.cta, column, lane / kTmemGroupLanes, touch); });
    sync_lanes(w, w.alive);
}
Flow exec_ld(Warp& w, const Instr& in, Mask m) {
    if (!members_here(w, in, m, kAllLanes)) return w.wait_for("the whole warp", 0);
    require_warp(w, in, m);
    const auto& op = *static_cast<const Transfer*>(in.extra);
    const uint32_t address = transfer_address(w, in, op, m);
    Tmem& t = tmem(*w.cta);
    each_group(op, address,
               [&](uint32_t lane, uint32_t column) { require_tmem_readable({&w, &in}, *w.cta, lane, column); });
    watch_transfer(w, in, op, address, Touch::Read);
    each_cell(op, address, [&](Slot slot, uint32_t l, uint32_t row, uint32_t column, uint32_t half) {
        const uint32_t word = t.column(column)[row];
        uint32_t& reg = w.r32(slot)[l];
        if (!op.halves) reg = word;
        else reg = half ? (reg & 0xffffu) | word << 16 : word & 0xffffu;
    });
    return Flow::Next;
}
Flow exec_st(Warp& w, const Instr& in, Mask m) {
    if (!members_here(w, in, m, kAllLanes)) return w.wait_for("the whole warp", 0);
    require_warp(w, in, m);
    const auto& op = *static_cast<const Transfer*>(in.extra);
    const uint32_t address = transfer_address(w, in, op, m);
    Tmem& t = tmem(*w.cta);
    Stored& stored = w.state<Stored>();
    watch_transfer(w, in, op, address, Touch::Write);
    each_group(op, address, [&](uint32_t lane, uint32_t column) {
        Tmem::Cell& cell = t.cell(column, lane / kTmemGroupLanes);
        if (cell.state == TmemState::Matrix)
            w.fault(in, Fault::Kind::InFlight,
                    "writes " + tmem_place(lane, column) + ", which an MMA is still writing");
        cell = {TmemState::Store, w.index};
        stored.cells.emplace_back(column, lane / kTmemGroupLanes);
    });
    each_cell(op, address, [&](Slot slot, uint32_t l, uint32_t row, uint32_t column, uint32_t half) {
        const uint32_t reg = w.r32(slot)[l];
        t.column(column)[row] = !op.halves ? reg : half ? reg >> 16 : reg & 0xffffu;
    });
    return Flow::Next;
}
Flow exec_wait_st(Warp& w, const Instr& in, Mask m) {
    if (!members_here(w, in, m, kAllLanes)) return w.wait_for("the whole warp", 0);
    Stored& stored = w.state<Stored>();
    for (const auto& [column, group] : stored.cells) {
        Tmem::Cell& cell = tmem(*w.cta).cell(column, group);
        if (cell.state == TmemState::Store && cell.writer == w.index) cell.state = TmemState::Valid;
    }
    stored.cells.clear();
    return Flow::Next;
}
template <bool kStore> void decode_transfer(Decoder& d, Instr& in) {
    auto* op = d.make_extra<Transfer>();
    in.extra = op;
    take_aligned(d);
    op->shape = nullptr;
    for (const Shape& s : kShapes) if (d.take(s.name)) op->shape = &s;
    if (!op->shape) d.error("this shape is not implemented");
    const std::string count = d.take_any({"x1", "x2", "x4", "x8", "x16", "x32", "x64", "x128"});
    op->halves = d.take(kStore ? "unpack::16b" : "pack::16b");
    d.take("b32");
    const bool split = std::string(op->shape->name) == "16x32bx2";
    if (split) {   // st: [address], split, registers; ld: registers, [address], split
        const auto n = d.immediate(kStore ? 1 : 2);
        if (!n) d.error("the split offset must be a constant");
        op->split = static_cast<uint32_t>(*n);
    }
    const Address a = d.address(kStore ? 0 : 1);
    if (a.base == kNoSlot || a.wide) d.error("a TMEM address is a 32-bit register");
    op->address = a.base;
    op->offset = a.offset;
    op->registers = kStore ? d.src_list(split ? 2 : 1, Type::B32) : d.dst_list(0, Type::B32);
    if (count.empty() || op->registers.size() != std::stoul(count.substr(1)) * op->shape->per_step)
        d.error("register count does not fit the shape");
    in.fn = kStore ? exec_st : exec_ld;
}
Flow exec_nothing(Warp&, const Instr&, Mask) { return Flow::Next; }
void decode_wait_ld(Decoder& d, Instr& in) {
    take_aligned(d);
    in.fn = exec_nothing;
}
void decode_wait_st(Decoder& d, Instr& in) {
    take_aligned(d);
    in.fn = exec_wait_st;
}
void decode_fence(Decoder&, Instr& in) { in.fn = exec_nothing; }   // orders what is in order here

// ---- commit
// ---------------------------------------------------------------------------------------------------------------
struct Commit {
    Address barrier;
    bool generic = false;
    Slot multicast = kNoSlot;
};
// The barrier hears of it when everything that this thread has issued before is done: same chain.
Flow exec_commit(Warp& w, const Instr& in, Mask m) {
    const auto& op = *static_cast<const Commit*>(in.extra);
    uint64_t barrier[kWarpSize];
    lane_addresses(w, op.barrier.base, op.barrier.wide, op.barrier.offset, barrier);
    each_lane(m, [&](int l) {
        const Issuer by{&w, &in};
        // Triton 3.6 passes the shared address itself to the generic form, zero-extended, and the hardware takes its
        // low bits.
        const bool generic = op.generic && barrier[l] >> 32;
        const uint64_t address = shared_operand(w, in, generic, barrier[l], l);
        // Whoever waits for it comes after what the thread has issued, and what it knew then.
        auto knows = std::make_shared<Knowledge>();
        release_to(w, 1u << l, *knows);
        if (races_checked(w)) knows->own.raise(agent_of(w, Unit::Tcgen05), w.state<Tcgen05Issued>().count);
        const auto signal = [&](uint64_t to) {
            mbarrier_at(by, to);
            w.cta->cluster->async.push({"arrival of a tcgen05.commit",
                                        [by, to, knows] { mbarrier_arrive_late(by, to, *knows); },
                                        tcgen05_chain(w, l)});
        };
        if (op.multicast == kNoSlot) return signal(address);
        const uint32_t mask = w.r32(op.multicast)[l] & 0xffffu;
        if (!mask || mask >> w.cta->cluster->ctas.size())
            w.fault(in, Fault::Kind::OutOfBounds, "CTA mask names CTAs that the cluster does not have", l, mask);
        for (uint64_t rank = 0; rank < 16; ++rank)
            if ((mask >> rank) & 1) signal(rank << kSharedRankShift | (address & kSharedOffsetMask));
    });
    return Flow::Next;
}
void decode_commit(Decoder& d, Instr& in) {
    auto* op = d.make_extra<Commit>();
    in.extra = op;
    take_group(d);
    if (!d.take("mbarrier::arrive::one")) d.error("needs .mbarrier::arrive::one");
    op->generic = !d.take("shared::cluster");
    const bool multicast = d.take("multicast::cluster");
    d.take("b64");
    op->barrier = d.address(0);
    if (multicast) op->multicast = d.src(1, Type::U16);
    in.fn = exec_commit;
}

}  // namespace

const OpRow kTcgen05Ops[] = {
    {"tcgen05.alloc", decode_alloc},
    {"tcgen05.dealloc", decode_dealloc},
    {"tcgen05.relinquish_alloc_permit", decode_relinquish},
    {"tcgen05.ld", decode_transfer<false>},
    {"tcgen05.st", decode_transfer<true>},
    {"tcgen05.wait::ld", decode_wait_ld},
    {"tcgen05.wait::st", decode_wait_st},
    {"tcgen05.fence::before_thread_sync", decode_fence},
    {"tcgen05.fence::after_thread_sync", decode_fence},
    {"tcgen05.commit", decode_commit},
};
SOFTGPU_DEFINE_COUNT(Tcgen05)

}  // namespace softgpu
