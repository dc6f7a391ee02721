// What warp-level synchronising instructions share.
#pragma once
#include "happens_before.h"
#include "lanes.h"

namespace softgpu {

// A `.sync` instruction with a member mask may run once all living members have arrived at it. False: the caller
// returns the Retry that `w.wait_for` made. What the members did before is then ordered among them. A member kept out
// by a predicate can never arrive: a fault.
inline bool members_here(Warp& w, const Instr& in, Mask m, Mask members) {
    if (!w.converged(members)) return false;
    if (members & w.alive & ~m)
        w.fault(in, Fault::Kind::SyncMisuse,
                "lanes named in the member mask do not execute this instruction (their predicate is off)");
    sync_lanes(w, members & w.alive);
    return true;
}
// The member mask operand (the same in all lanes), from the first lane that runs.
inline Mask member_mask(Warp& w, Slot s, Mask m) { return w.r32(s)[std::countr_zero(m)]; }

}  // namespace softgpu
