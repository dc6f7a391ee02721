// Guards: conditions under which the fast path would be wrong, each with a test that fails without it.
//
// HELION_GUARD(name, condition) is the condition under which a call is turned away. In a build with
// HELION_BUILD_MUTABLE=1 the environment variable HELION_TEST_WITHOUT_GUARD takes the guard of that name out;
// tests/csrc/conftest.py runs every test that is marked with a guard's name that way, and expects it to fail.
#pragma once

#ifdef HELION_MUTABLE
#include <cstdlib>
#include <cstring>

namespace helion {
inline bool guard_is_out(const char* name) {
  const char* out = std::getenv("HELION_TEST_WITHOUT_GUARD");
  return out != nullptr && std::strcmp(out, name) == 0;
}
}  // namespace helion
#define HELION_GUARD(name, condition) (!::helion::guard_is_out(name) && (condition))
#else
#define HELION_GUARD(name, condition) (condition)
#endif
