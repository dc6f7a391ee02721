// What device code printed since the last call.
#pragma once
#include <string>

namespace softgpu {
std::string take_printed();
}
