// What the tcgen05 tables share.
#pragma once
#include "happens_before.h"

namespace softgpu {

// The asynchronous tcgen05 operations of one thread complete in order: their AsyncOp::order.
uint64_t tcgen05_chain(const Warp& w, int lane);
// How many of them a warp has issued: the clock of the last (races.h).
struct Tcgen05Issued { Clock count = 0; };
// The other CTA of a pair, or a fault.
Cta& pair_peer(Warp& w, const Instr& in);

}  // namespace softgpu
