// Running warps: the interpreter loop and the order in which warps of a cluster take turns.
#pragma once
#include "machine.h"

namespace softgpu {

// Fills in a cluster's CTAs and warps for a fresh start (buffers of an earlier one are reused).
void start_cluster(Cluster& cluster, Grid& grid, uint64_t index);
// Lets the cluster run for about `quantum` warp instructions. True when it has finished. Throws FaultError.
bool run_cluster(Cluster& cluster, uint64_t quantum);
// Who waits where, one line a fragment.
std::string where_everyone_is(const Cluster& cluster);

}  // namespace softgpu
