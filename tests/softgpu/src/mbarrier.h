// mbarrier objects: phase, pending arrivals and transaction count (PTX ISA, mbarrier).
//
// The state lives beside shared memory; the object's eight bytes hold a cookie, so that a barrier whose memory was
// overwritten is not mistaken for one.
#pragma once
#include <map>

#include "async_memory.h"
#include "happens_before.h"

namespace softgpu {

struct MBarrier {
    uint32_t expected = 0;    // arrivals a phase, from the next phase on
    int64_t pending = 0;      // arrivals missing in this phase
    int64_t tx = 0;           // bytes announced less bytes arrived; below zero for a while if bytes come first
    uint64_t phase = 0;       // number of the current, incomplete phase
    int line = 0;             // PTX line of its init
    Knowledge arriving, passed;   // of those that have arrived; of the finished phases
};

struct MBarriers {
    std::map<uint32_t, MBarrier> at;   // by offset
};
MBarriers& mbarriers(Cta& cta);

// The barrier at a shared address (rank and offset), or a fault.
MBarrier& mbarrier_at(const Issuer& by, uint64_t address);
// `knows`: what the arrival tells those that wait, null for nothing.
void mbarrier_arrive(const Issuer& by, uint64_t address, uint32_t count, const Knowledge* knows);
// The arrival of an asynchronous operation. One that finds its barrier invalidated does no harm unless the memory is in
// use again: Triton's warp-specialised loops invalidate barriers that a last tcgen05.commit may still arrive at.
void mbarrier_arrive_late(const Issuer& by, uint64_t address, const Knowledge& knows);
void mbarrier_expect_tx(const Issuer& by, uint64_t address, int64_t bytes);
void mbarrier_complete_tx(const Issuer& by, uint64_t address, int64_t bytes);

inline uint64_t shared_address_of(const Cta& cta, uint32_t offset) {
    return uint64_t(cta.rank) << kSharedRankShift | offset;
}

}  // namespace softgpu
