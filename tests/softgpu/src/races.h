// Data races: of every byte of global, shared and tensor memory, who wrote it last and who has read it since, by vector
// clock.
//
// Two accesses of which one writes race if neither happens before the other (happens_before.h says what makes such an
// edge), in whatever order this run did them: that is why a missing barrier is found under every seed. No race are
//   - two strong accesses (atomics, .relaxed, .acquire, .release, .volatile) whose scopes include each other's thread;
//   - two writes of the same value: replicated lanes and warps store one element several times over, as Triton's
//   layouts
//     have it, and memory is the same whichever comes last. A read must then be ordered after one of them.
//
// A cell of shadow memory holds the accesses of some bytes. Their number is what the page's accesses have in common:
// from 128 bytes (rows of a TMA box) down to one, refined when a smaller access comes.
#pragma once
#include <atomic>
#include <mutex>

#include "machine.h"

namespace softgpu {

// ---- who accesses
// ------------------------------------------------------------------------------------------------------
enum class MemoryScope : uint8_t { Cta, Cluster, Gpu, Sys };
enum class Touch : uint8_t { Read, Write, Atomic };   // Atomic reads and writes, and is strong

// The agents of a warp: its threads, and the asynchronous units that work for it. The clock of a unit is the number of
// the group (wgmma, cp.async, bulk copies) or of the operation (tcgen05), from 1.
enum class Unit : uint8_t { Threads, CpAsync, BulkRead, BulkWrite, Wgmma, Tcgen05, Count };
uint32_t agent_of(const Warp& w, Unit unit);
// The agent of what completes on an mbarrier: its clock is the number of the phase that it completes in, from 1.
uint32_t mbarrier_agent(Cta& cta, uint32_t offset);

struct Actor {
    Warp* warp;                      // whose knowledge decides what has happened before
    const Instr* instr;
    uint32_t agent;
    Clock clock;
    Mask lanes;                      // of the warp: who issued it
    bool in_order = false;           // the agent's own accesses are ordered with each other
    bool strong = false;
    MemoryScope scope = MemoryScope::Sys;        // of a strong access
    uint32_t run = 0;
};
Actor threads_of(Warp& w, const Instr& in, Mask lanes);                    // the warp's own; counts as an access
Actor unit_of(Warp& w, const Instr& in, Mask lanes, Unit unit, Clock clock);
Actor mbarrier_unit(Warp& w, const Instr& in, Mask lanes, Cta& cta, uint32_t offset, Clock clock);

// ---- shadow memory
// -------------------------------------------------------------------------------------------------------
struct AccessRecord {
    uint32_t cluster1 = 0;  // index of the cluster + 1; 0: no access; kMany: several, in the page's set `clock`
    uint32_t agent : 14 = 0, pc : 18 = 0;
    uint32_t clock : 28 = 0, strong : 1 = 0, scope : 2 = 0, same : 1 = 0;   // same (of kMany): all wrote the same value
    Mask lanes = 0;
    uint32_t run = 0;                // of a load: how many times the warp had executed it
    static constexpr uint32_t kMany = UINT32_MAX;
    bool none() const { return cluster1 == 0; }
    bool many() const { return cluster1 == kMany; }
};
struct Cell { AccessRecord write, read; };

constexpr uint32_t kPageBits = 10, kPageBytes = 1u << kPageBits, kCoarsest = 7;

class ShadowPage {
public:
    ~ShadowPage();
    void clear();                                                       // no access yet
    void touch(const Actor& actor, Space space, uint64_t address, uint32_t bytes, Touch touch, const uint8_t* old,
               const uint8_t* fresh);
    // f(record, address, bytes, whether it wrote) for every access that is recorded; `start` is the page's.
    template <class F> void each(uint64_t start, F f) const {
        const uint32_t bytes = 1u << shift_;
        for (uint32_t i = 0; cells_ && i < (kPageBytes >> shift_); ++i)
            for (const bool write : {true, false}) {
                const AccessRecord& r = write ? cells_[i].write : cells_[i].read;
                if (!r.none()) f(r.many() ? sets_[r.clock].front() : r, start + uint64_t(i) * bytes, bytes, write);
            }
    }
    // Only checks that what was written there happens before; records nothing.
    void require_written_before(const Actor& actor, Space space, uint64_t address, uint32_t bytes);
    std::atomic_flag lock;
    uint64_t generation = 0;  // of shared memory: the cluster's index it is of, + 1

private:
    friend class PageTouch;
    void refine(uint32_t shift);
    void check_write(const Actor& a, Cell& cell, Space space, uint64_t address, uint32_t bytes, Touch touch, bool same,
                     bool near);
    void check_read(const Actor& a, Cell& cell, Space space, uint64_t address, uint32_t bytes);
    const AccessRecord* find_read(const AccessRecord& reads, uint32_t cluster1, uint32_t agent, Mask lanes, uint32_t pc,
                                  uint32_t run) const;
    void keep_own_read(const Actor& a, AccessRecord& reads);
    void note_read(const Actor& a, AccessRecord& read);
    void add(AccessRecord& to, const AccessRecord& one, bool same);
    void forget(AccessRecord& record);
    Cell* cells_ = nullptr;
    uint32_t shift_ = kCoarsest;
    std::vector<std::vector<AccessRecord>> sets_;
    std::vector<uint32_t> free_sets_;
};

// The pages of global memory of one launch. Clusters run on several host threads: a page is locked while it is looked
// at.
class GlobalShadow {
public:
    ShadowPage* page(uint64_t number);
    template <class F> void each(F f) const {
        for (const Shard& shard : shards_)
            for (const auto& [number, page] : shard.pages) page->each(number << kPageBits, f);
    }

private:
    struct Shard {
        std::mutex mutex;
        std::unordered_map<uint64_t, std::unique_ptr<ShadowPage>> pages;
    };
    std::array<Shard, 64> shards_;
};
// Of the shared or tensor memory of a CTA.
class LocalShadow {
public:
    ShadowPage& page(uint64_t number, uint64_t generation);

private:
    std::vector<std::unique_ptr<ShadowPage>> pages_;
};

// Checks and records accesses of one instruction; holds the lock of the page it was at last, so make it where the
// accesses are.
class PageTouch {
public:
    explicit PageTouch(const Actor& actor) : actor_(actor) {}
    ~PageTouch() { leave(); }
    PageTouch(const PageTouch&) = delete;
    PageTouch& operator=(const PageTouch&) = delete;
    Actor& actor() { return actor_; }
    // `fresh`: what a write will write there, where `old` lies; null: not told apart from another value.
    void global(uint64_t address, uint64_t bytes, Touch touch, const uint8_t* fresh = nullptr);
    void shared(Cta& cta, uint32_t offset, uint64_t bytes, Touch touch, const uint8_t* fresh = nullptr);
    void tensor(Cta& cta, uint32_t column, uint32_t group, Touch touch);   // 16 lanes of a column of tensor memory
    // One lane's address in any space; local memory, parameters and constants are nobody else's.
    void at(Space space, uint64_t address, unsigned bytes, Touch touch, const uint8_t* fresh = nullptr);
    void leave();

private:
    Actor actor_;
    ShadowPage* held_ = nullptr;
    uint64_t held_number_ = 0;
};
void require_shared_written_before(const Actor& actor, Cta& cta, uint32_t offset, uint32_t bytes);

}  // namespace softgpu
