// The shadow of memory: checking an access against those recorded, and recording it.
#include "races.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "memory.h"
#include "numeric.h"
#include "over_forks.h"
#include "race_report.h"

namespace softgpu {

// ---- agents
// -----------------------------------------------------------------------------------------------------------
namespace {
uint32_t warps_of(const Cluster& cluster) {
    return static_cast<uint32_t>(cluster.ctas.size() * cluster.ctas[0]->warps.size());
}
struct MbarrierAgents { std::unordered_map<uint64_t, uint32_t> number; };
}  // namespace

uint32_t agent_of(const Warp& w, Unit unit) {
    return static_cast<uint32_t>(unit) * warps_of(*w.cta->cluster) +
           w.cta->rank * static_cast<uint32_t>(w.cta->warps.size()) + w.index;
}
uint32_t mbarrier_agent(Cta& cta, uint32_t offset) {
    auto& known = cta.cluster->state<MbarrierAgents>().number;
    const auto [it, is_new] = known.try_emplace(uint64_t(cta.rank) << kSharedRankShift | offset, 0);
    if (is_new)
        it->second =
            static_cast<uint32_t>(Unit::Count) * warps_of(*cta.cluster) + static_cast<uint32_t>(known.size() - 1);
    return it->second;
}
Actor threads_of(Warp& w, const Instr& in, Mask lanes) {
    w.order.touched = true;
    return {&w, &in, w.order.agent, w.order.now, lanes};
}
Actor unit_of(Warp& w, const Instr& in, Mask lanes, Unit unit, Clock clock) {
    return {&w, &in, agent_of(w, unit), clock, lanes, unit == Unit::Tcgen05};
}
Actor mbarrier_unit(Warp& w, const Instr& in, Mask lanes, Cta& cta, uint32_t offset, Clock clock) {
    return {&w, &in, mbarrier_agent(cta, offset), clock, lanes};
}

// ---- what has happened before
// --------------------------------------------------------------------------------------------
namespace {

uint32_t cluster1_of(const Actor& a) { return a.warp->order.cluster + 1; }

// Whether what all lanes (any lane) of the record did happens before the actor's access.
template <bool kAny> bool before(const AccessRecord& r, const Actor& a) {
    const WarpOrder& own = a.warp->order;
    if (r.cluster1 != own.cluster + 1) {
        const Clocks* known = own.known.others ? find_cluster(*own.known.others, r.cluster1 - 1) : nullptr;
        return known &&
               (kAny ? known->covers_any(r.agent, r.lanes, r.clock) : known->covers_all(r.agent, r.lanes, r.clock));
    }
    if (r.agent == own.agent) {
        if (r.clock < own.synced) return true;
        if (kAny ? r.lanes & a.lanes : !(r.lanes & ~a.lanes)) {
            // Lanes of one instruction each do their own access: only a single lane has an order with itself.
            if (!(a.lanes & (a.lanes - 1)) || a.agent != own.agent) return true;
        }
    } else if (r.agent == a.agent && a.in_order) return true;
    return kAny ? own.known.own.covers_any(r.agent, r.lanes, r.clock)
                : own.known.own.covers_all(r.agent, r.lanes, r.clock);
}

// Strong accesses whose scopes include each other: atomic ones, in effect.
bool morally_strong(const AccessRecord& r, const Actor& a) {
    if (!r.strong || !a.strong) return false;
    const auto narrow = std::min(static_cast<MemoryScope>(r.scope), a.scope);
    if (narrow >= MemoryScope::Gpu) return true;
    if (r.cluster1 != cluster1_of(a)) return false;
    if (narrow == MemoryScope::Cluster) return true;
    const auto warps = static_cast<uint32_t>(a.warp->cta->warps.size());
    return r.agent < warps_of(*a.warp->cta->cluster) && r.agent / warps == a.warp->cta->rank;
}

uint32_t pc_of(const Actor& a) {
    return std::min<uint32_t>(static_cast<uint32_t>(a.instr - a.warp->program->code.data()), (1u << 18) - 1);
}
AccessRecord record_of(const Actor& a) {
    AccessRecord r;
    r.cluster1 = cluster1_of(a);
    r.agent = a.agent & ((1u << 14) - 1);
    r.pc = pc_of(a);
    r.run = a.run;
    r.clock = a.clock & ((1u << 28) - 1);
    r.strong = a.strong;
    r.scope = static_cast<uint32_t>(a.scope) & 3u;
    r.lanes = a.lanes;
    return r;
}
bool same_agent(const AccessRecord& a, const AccessRecord& b) {
    return a.cluster1 == b.cluster1 && a.agent == b.agent && a.strong == b.strong && a.scope == b.scope;
}

// ---- memory for cells: pages come and go with every launch
// ------------------------------------------------------------------
class CellPool {
public:
    CellPool() { hold_over_forks(mutex_, ForkOrder::Cells); }
    Cell* take(uint32_t shift) {
        const size_t bytes = sizeof(Cell) * (kPageBytes >> shift);
        {
            const std::lock_guard lock(mutex_);
            auto& list = free_[shift];
            if (!list.empty()) {
                Cell* cells = list.back();
                list.pop_back();
                std::memset(static_cast<void*>(cells), 0, bytes);
                return cells;
            }
        }
        return static_cast<Cell*>(std::calloc(1, bytes));
    }
    void give(Cell* cells, uint32_t shift) {
        const std::lock_guard lock(mutex_);
        auto& list = free_[shift];
        if (list.size() < (4096u << shift >> 2)) list.push_back(cells);   // at most some 32 MiB of each size
        else std::free(cells);
    }

private:
    std::mutex mutex_;
    std::array<std::vector<Cell*>, kCoarsest + 1> free_;
};
CellPool& pool() {
    static CellPool* pool = new CellPool;   // never destroyed: launches may run while the process exits
    return *pool;
}

}  // namespace

// ---- a page
// -----------------------------------------------------------------------------------------------------------------
ShadowPage::~ShadowPage() { clear(); }
void ShadowPage::clear() {
    if (cells_) pool().give(cells_, shift_);
    cells_ = nullptr;
    shift_ = kCoarsest;
    sets_.clear();
    free_sets_.clear();
}

void ShadowPage::refine(uint32_t shift) {
    if (!cells_) {
        shift_ = shift;
        cells_ = pool().take(shift);
        return;
    }
    Cell* finer = pool().take(shift);
    const uint32_t copies = 1u << (shift_ - shift);
    for (uint32_t i = 0; i < (kPageBytes >> shift); ++i) {
        finer[i] = cells_[i / copies];
        if (i % copies == 0) continue;
        for (AccessRecord* r : {&finer[i].write, &finer[i].read})
            if (r->many()) {   // sets are not shared between cells
                sets_.push_back(sets_[r->clock]);
                r->clock = static_cast<uint32_t>(sets_.size() - 1) & ((1u << 28) - 1);
            }
    }
    pool().give(cells_, shift_);
    cells_ = finer;
    shift_ = shift;
}

void ShadowPage::forget(AccessRecord& record) {
    if (record.many()) {
        sets_[record.clock].clear();
        free_sets_.push_back(record.clock);
    }
    record = AccessRecord{};
}

// Adds `one` to the accesses that `to` holds. What a lane did before is covered by what it does now.
void ShadowPage::add(AccessRecord& to, const AccessRecord& one, bool same) {
    if (to.none()) { to = one; return; }
    const auto merged = [&](AccessRecord& old) {
        if (!same_agent(old, one)) return false;
        if (old.clock == one.clock && old.pc == one.pc && old.run == one.run) {
            old.lanes |= one.lanes;
            return true;
        }
        old.lanes &= ~one.lanes;
        if (old.lanes) return false;
        old = one;
        return true;
    };
    if (!to.many()) {
        if (merged(to)) return;
        uint32_t set;
        if (free_sets_.empty()) {
            set = static_cast<uint32_t>(sets_.size());
            sets_.emplace_back();
        } else {
            set = free_sets_.back();
            free_sets_.pop_back();
        }
        sets_[set] = {to, one};
        to = AccessRecord{};
        to.cluster1 = AccessRecord::kMany;
        to.clock = set & ((1u << 28) - 1);
        to.same = same;
        return;
    }
    auto& set = sets_[to.clock];
    constexpr size_t kLookBack = 24, kMost = 4096;
    for (size_t i = set.size(), n = 0; i-- > 0 && n < kLookBack; ++n) if (merged(set[i])) return;
    if (set.size() >= kMost) set.erase(set.begin(), set.begin() + kMost / 2);   // a race with those is no longer seen
    set.push_back(one);
}

// ---- replicas
// ------------------------------------------------------------------------------------------------------------- Triton
// has every thread of a CTA load a value that only one of them stores back: x[0] = x[0] + 1. That the others may read
// it after the store is no fault of the program: what they loaded is not used. So a read and a write of two threads of
// a CTA do not race if the writer itself had read those bytes with the same execution of the same instruction.
const AccessRecord* ShadowPage::find_read(const AccessRecord& reads, uint32_t cluster1, uint32_t agent, Mask lanes,
                                          uint32_t pc, uint32_t run) const {
    const auto is = [&](const AccessRecord& r) {
        return r.cluster1 == cluster1 && r.agent == agent && (r.lanes & lanes) && r.pc == pc && r.run == run;
    };
    if (!reads.many()) return is(reads) ? &reads : nullptr;
    for (const AccessRecord& r : sets_[reads.clock]) if (is(r)) return &r;
    return nullptr;
}
namespace {
bool threads_of_one_cta(const AccessRecord& r, const Actor& a) {
    const auto warps = static_cast<uint32_t>(a.warp->cta->warps.size());
    return a.agent == a.warp->order.agent && r.cluster1 == cluster1_of(a) && r.agent / warps == a.warp->cta->rank;
}
}  // namespace
// Keeps of the reads those of the writer itself, for reads of replicas that come late.
void ShadowPage::keep_own_read(const Actor& a, AccessRecord& reads) {
    AccessRecord own;
    const auto look = [&](const AccessRecord& r) {
        if (r.cluster1 == cluster1_of(a) && r.agent == a.agent && (r.lanes & a.lanes) && a.agent == a.warp->order.agent)
            own = r;
    };
    if (reads.many()) for (const AccessRecord& r : sets_[reads.clock]) look(r);
    else look(reads);
    forget(reads);
    own.lanes &= a.lanes;
    if (own.lanes) reads = own;
}

void ShadowPage::check_read(const Actor& a, Cell& cell, Space space, uint64_t address, uint32_t bytes) {
    const AccessRecord& w = cell.write;
    if (w.none()) return;
    const auto fine = [&](const AccessRecord& r) {
        return before<true>(r, a) || morally_strong(r, a) ||
               (threads_of_one_cta(r, a) && find_read(cell.read, r.cluster1, r.agent, r.lanes, pc_of(a), a.run));
    };
    if (!w.many()) {
        if (!fine(w)) report_race(a, Touch::Read, w, Touch::Write, space, address, bytes);
        return;
    }
    const auto& set = sets_[w.clock];
    if (w.same) {
        if (std::none_of(set.begin(), set.end(), fine))
            report_race(a, Touch::Read, set.back(), Touch::Write, space, address, bytes);
    } else
        for (const AccessRecord& r : set)
            if (!fine(r)) report_race(a, Touch::Read, r, Touch::Write, space, address, bytes);
}

void ShadowPage::note_read(const Actor& a, AccessRecord& read) {
    const AccessRecord mine = record_of(a);
    // A later write that comes after this read then comes after one that happens before it, too.
    if (!read.none() && !read.many() && !same_agent(read, mine) && before<false>(read, a)) {
        read = mine;
        return;
    }
    add(read, mine, false);
}

namespace {
// Whether two values agree but for rounding, as floats of 32 or 16 bits.
bool nearly_same(const uint8_t* old, const uint8_t* fresh, uint32_t bytes) {
    const auto close = [](float a, float b) {
        return a == b || (std::isnan(a) && std::isnan(b)) ||
               std::fabs(a - b) <= 0.01f * std::max(std::fabs(a), std::fabs(b));
    };
    bool as32 = bytes % 4 == 0, as16 = bytes % 2 == 0, as_half = as16;
    for (uint32_t i = 0; i + 1 < bytes; i += 2) {
        uint16_t x, y;
        std::memcpy(&x, old + i, 2);
        std::memcpy(&y, fresh + i, 2);
        as16 = as16 && close(bf16_to_f32(x), bf16_to_f32(y));
        as_half = as_half && close(f16_to_f32(x), f16_to_f32(y));
    }
    for (uint32_t i = 0; i + 3 < bytes; i += 4) {
        float x, y;
        std::memcpy(&x, old + i, 4);
        std::memcpy(&y, fresh + i, 4);
        as32 = as32 && close(x, y);
    }
    return as32 || as16 || as_half;
}
}  // namespace

// `same`: it writes what is there already. `near`: and this is so but for rounding, in shared memory, through which
// layouts are converted: replicas there may differ in the last bit, since LLVM fuses one side of a butterfly's first
// sum into a fma.
void ShadowPage::check_write(const Actor& a, Cell& cell, Space space, uint64_t address, uint32_t bytes, Touch touch,
                             bool same, bool near) {
    bool repeats = false, beside = false;   // a write of the same value; a strong one that has no order with the last
    const auto against_write = [&](const AccessRecord& r) {
        if (before<false>(r, a)) return;
        if (morally_strong(r, a)) beside = true;
        else if (touch == Touch::Write && (same || (near && r.pc == pc_of(a) && threads_of_one_cta(r, a))))
            repeats = true;
        else report_race(a, touch, r, Touch::Write, space, address, bytes);
    };
    AccessRecord& w = cell.write;
    if (w.many()) for (const AccessRecord& r : sets_[w.clock]) against_write(r);
    else if (!w.none()) against_write(w);
    bool keep_reads = repeats;
    if (!repeats && !cell.read.none()) {
        const auto against_read = [&](const AccessRecord& r) {
            if (before<false>(r, a)) return;
            if (threads_of_one_cta(r, a) && find_read(cell.read, r.cluster1, a.agent, a.lanes, r.pc, r.run)) return;
            if (!morally_strong(r, a)) report_race(a, touch, r, Touch::Read, space, address, bytes);
            keep_reads = true;
        };
        if (cell.read.many()) for (const AccessRecord& r : sets_[cell.read.clock]) against_read(r);
        else against_read(cell.read);
    }
    if (!keep_reads) keep_own_read(a, cell.read);
    if (repeats || beside) {
        if (w.many() && w.same != (repeats && !beside)) {   // of both sorts: the last counts
            forget(w);
            w = record_of(a);
        } else add(w, record_of(a), repeats && !beside);
        return;
    }
    forget(w);
    w = record_of(a);
}

void ShadowPage::touch(const Actor& actor, Space space, uint64_t address, uint32_t bytes, Touch touch,
                       const uint8_t* old, const uint8_t* fresh) {
    const uint64_t offset = address & (kPageBytes - 1);
    const auto shift = static_cast<uint32_t>(std::countr_zero(offset | bytes | 1u << kCoarsest));
    if (!cells_ || shift < shift_) refine(shift);
    const uint32_t size = 1u << shift_;
    for (uint64_t i = offset >> shift_; i <= (offset + bytes - 1) >> shift_; ++i) {
        Cell& cell = cells_[i];
        const uint64_t at = (address & ~uint64_t(kPageBytes - 1)) + (i << shift_);
        if (touch == Touch::Read) {
            check_read(actor, cell, space, at, size);
            note_read(actor, cell.read);
        } else {
            const uint64_t from = at - address;
            const bool same = fresh && std::memcmp(old + from, fresh + from, size) == 0;
            const bool near = fresh && !same && space == Space::Shared && !cell.write.none() &&
                              nearly_same(old + from, fresh + from, size);
            check_write(actor, cell, space, at, size, touch, same, near);
        }
    }
}
void ShadowPage::require_written_before(const Actor& actor, Space space, uint64_t address, uint32_t bytes) {
    if (!cells_) return;
    const uint64_t offset = address & (kPageBytes - 1);
    for (uint64_t i = offset >> shift_; i <= (offset + bytes - 1) >> shift_; ++i)
        check_read(actor, cells_[i], space, address, bytes);
}

// ---- where the pages are
// --------------------------------------------------------------------------------------------------
ShadowPage* GlobalShadow::page(uint64_t number) {
    Shard& shard = shards_[(number ^ number >> 6) % shards_.size()];
    const std::lock_guard lock(shard.mutex);
    auto& page = shard.pages[number];
    if (!page) page = std::make_unique<ShadowPage>();
    return page.get();
}
ShadowPage& LocalShadow::page(uint64_t number, uint64_t generation) {
    if (number >= pages_.size()) pages_.resize(number + 1);
    auto& page = pages_[number];
    if (!page) page = std::make_unique<ShadowPage>();
    if (page->generation != generation) {
        page->clear();
        page->generation = generation;
    }
    return *page;
}

// ---- the accesses of an instruction
// -----------------------------------------------------------------------------------------
void PageTouch::leave() {
    if (held_) held_->lock.clear(std::memory_order_release);
    held_ = nullptr;
}
void PageTouch::global(uint64_t address, uint64_t bytes, Touch touch, const uint8_t* fresh) {
    while (bytes) {
        const uint64_t number = address >> kPageBits;
        if (!held_ || held_number_ != number) {
            leave();
            Warp& w = *actor_.warp;
            auto& known = w.order.pages[number % w.order.pages.size()];
            if (known.first != number + 1) known = {number + 1, w.cta->grid->shadow->page(number)};
            ShadowPage* page = known.second;
            while (page->lock.test_and_set(std::memory_order_acquire)) {}
            held_ = page;
            held_number_ = number;
        }
        const uint64_t here = std::min<uint64_t>(bytes, kPageBytes - address % kPageBytes);
        held_->touch(actor_, Space::Global, address, static_cast<uint32_t>(here), touch,
                     reinterpret_cast<const uint8_t*>(address), fresh);
        address += here;
        bytes -= here;
        if (fresh) fresh += here;
    }
}
void PageTouch::shared(Cta& cta, uint32_t offset, uint64_t bytes, Touch touch, const uint8_t* fresh) {
    while (bytes) {
        const uint64_t here = std::min<uint64_t>(bytes, kPageBytes - offset % kPageBytes);
        cta.shared_shadow->page(offset >> kPageBits, cta.cluster->index + 1)
            .touch(actor_, Space::Shared, offset, static_cast<uint32_t>(here), touch, cta.shared.data() + offset,
                   fresh);
        offset += static_cast<uint32_t>(here);
        bytes -= here;
        if (fresh) fresh += here;
    }
}
void PageTouch::tensor(Cta& cta, uint32_t column, uint32_t group, Touch touch) {
    const uint64_t at = uint64_t(column) * 8 + group;   // a byte of shadow stands for 16 lanes of a column
    cta.tensor_shadow->page(at >> kPageBits, cta.cluster->index + 1)
        .touch(actor_, Space::Tensor, at, 1, touch, nullptr, nullptr);
}
void PageTouch::at(Space space, uint64_t address, unsigned bytes, Touch touch, const uint8_t* fresh) {
    if (space == Space::Generic) {
        const uint64_t window = address & kWindowMask;
        space = window == kSharedWindow ? Space::Shared : window == kLocalWindow ? Space::Local : Space::Global;
    }
    if (space == Space::Global) return global(address, bytes, touch, fresh);
    if (space != Space::Shared) return;
    const SharedRange range = shared_range(*actor_.warp, *actor_.instr, address, bytes);
    shared(*range.cta, range.offset, bytes, touch, fresh);
}
void require_shared_written_before(const Actor& actor, Cta& cta, uint32_t offset, uint32_t bytes) {
    cta.shared_shadow->page(offset >> kPageBits, cta.cluster->index + 1)
        .require_written_before(actor, Space::Shared, offset, bytes);
}

}  // namespace softgpu
