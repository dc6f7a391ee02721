// What the tcgen05 tables share.
#pragma once
#include "machine.h"

namespace softgpu {

// The asynchronous tcgen05 operations of one thread complete in order: their AsyncOp::order.
uint64_t tcgen05_chain(const Warp& w, int lane);
// The other CTA of a pair, or a fault.
Cta& pair_peer(Warp& w, const Instr& in);

}  // namespace softgpu
