// A race as a fault that names both accesses.
#pragma once
#include "races.h"

namespace softgpu {

[[noreturn]] void report_race(const Actor& now, Touch touch, const AccessRecord& before, Touch before_touch, Space space, uint64_t address, uint32_t bytes);

}  // namespace softgpu
