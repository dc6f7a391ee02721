// The pending cp.async copies of a warp, for instructions of other tables that wait for them.
#pragma once
#include <functional>

#include "machine.h"

namespace softgpu {

// The clock (races.h) of the copies that a lane issues now.
Clock cp_async_group(Warp& w, int lane);
// Hands all pending cp.async copies of the lanes in `m` to the cluster's asynchronous queue, as one operation that
// does them and then calls `then` (cp.async.mbarrier.arrive: the barrier is told when the copies are done).
void cp_async_then(Warp& w, Mask m, const std::string& what, std::function<void()> then);

}  // namespace softgpu
