// A fork copies a mutex as it is, without the thread that holds it. These are held over one, so that a child of a
// process in which other threads launch finds them open, and what they guard in order.
#pragma once
#include <mutex>

namespace softgpu {

// In this order: a thread may take one of the later ones while it holds an earlier one.
enum class ForkOrder { Driver, LastFault, Printed, Streams, Bounds, Cells, Atomics, kCount };

void hold_over_forks(std::mutex& mutex, ForkOrder place);   // it is never destroyed

}  // namespace softgpu
