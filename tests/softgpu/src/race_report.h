// A race as a fault that names both accesses.
#pragma once
#include "races.h"

namespace softgpu {

// What tells where a launch's threads were.
struct LaunchShape {
    Dim3 grid, cluster;
    uint32_t warps;                  // of a CTA
};
LaunchShape shape_of(const Grid& grid);

// One thing that a launch did to global memory.
struct LaunchAccess {
    uint64_t start, end, serial;     // serial: which of the storages that have been at this address
    bool write, strong;
    uint32_t cluster, agent, pc;
    Mask lanes;
    Clock clock;
};
std::vector<LaunchAccess> accesses_of(const Grid& grid);   // once it has run

[[noreturn]] void report_stream_race(const Grid& grid, const Program& program, const LaunchShape& shape,
                                     const LaunchAccess& now, const Program& other_program,
                                     const LaunchShape& other_shape, const LaunchAccess& before);
[[noreturn]] void report_race(const Actor& now, Touch touch, const AccessRecord& before, Touch before_touch,
                              Space space, uint64_t address, uint32_t bytes);

}  // namespace softgpu
