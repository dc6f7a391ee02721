// What orders the accesses of different threads: the edges of happens-before, as vector clocks (clocks.h).
//
// An edge goes from a release to whoever acquires it: barriers, named ones and those of a cluster; mbarriers, whose
// phase also stands for the bytes that asynchronous copies bring; atomics and other strong accesses with .release and
// .acquire, or with a fence before or after, within their scopes; waits for groups of asynchronous operations. Within a
// warp every .sync instruction (bar.warp.sync, shuffles, votes, matrix instructions) orders the lanes of its member
// mask, and nothing else does: not that they happen to run in lock step.
//
// What one lane acquires its warp knows; what one lane releases are its own accesses, and the warp's up to its last
// .sync.
#pragma once
#include <mutex>

#include "decoder.h"
#include "races.h"

namespace softgpu {

inline bool races_checked(const Warp& w) { return w.cta->grid->options.races; }

// ---- a warp and somebody who passes its knowledge on
// ---------------------------------------------------------------------
void sync_lanes(Warp& w, Mask members);                       // a .sync instruction of these lanes
void release_to(Warp& w, Mask lanes, Knowledge& to);          // of the same cluster
void acquire_from(Warp& w, const Knowledge& from);
void finish_unit(Warp& w, Unit unit, Clock clock);            // a wait: what the unit did up to there has happened
void fence(Warp& w, Mask lanes, MemoryScope scope);

// ---- strong accesses
// -----------------------------------------------------------------------------------------------------
enum class Order : uint8_t { Weak, Relaxed, Acquire, Release, AcqRel };
struct Strength { Order order = Order::Weak; MemoryScope scope = MemoryScope::Gpu; };
Strength take_strength(Decoder& d, Order otherwise);          // .relaxed, .acquire, .volatile ..., .cta, .gpu ...

// The edges of one strong access to the variable at an address. Nobody else's access to it happens while the object
// lives.
class StrongAccess {
public:
    StrongAccess(Warp& w, Mask lanes, Strength strength, Space space, uint64_t address, bool reads, bool writes);
    ~StrongAccess();                                          // the access has been done
    StrongAccess(const StrongAccess&) = delete;
    StrongAccess& operator=(const StrongAccess&) = delete;

private:
    Warp& warp_;
    const Mask lanes_;
    const Strength strength_;
    const bool reads_, writes_;
    uint64_t key_ = 0;
    std::unique_lock<std::mutex> lock_;
};

// What was released at the variables of a launch.
struct SyncVariable {
    ClusterClocks wide;                                                    // to everybody
    std::vector<std::pair<uint64_t, ClusterClocks>> narrow;                // to one CTA, or one cluster
};
class SyncVariables {
public:
    struct Shard {
        std::mutex mutex;
        std::unordered_map<uint64_t, SyncVariable> at;
    };
    Shard& shard(uint64_t key) { return shards_[(key >> 2) % shards_.size()]; }

private:
    std::array<Shard, 64> shards_;
};

}  // namespace softgpu
