// startup.py's bundle in a process without Python: opens it, looks up each kernel and launches it three times.
//
//     startup BUNDLE CAPABILITY < calls
//
// A call is one line: the kernel, the number of its arguments, and those: `t DTYPE RANK SIZES... STRIDES... BYTES`,
// `i INT`, `f FLOAT`, `b 0|1` or `n`. Prints JSON: seconds until the bundle was open, and of each kernel's first call
// (looking it up included, memory for what it makes not), or why there is none.
#include <cuda.h>
#include <dlfcn.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "helion_bundle.h"

namespace {

using Clock = std::chrono::steady_clock;

double seconds(Clock::time_point since) { return std::chrono::duration<double>(Clock::now() - since).count(); }

void check(CUresult result, const char* call) {
  if (result == CUDA_SUCCESS) return;
  std::fprintf(stderr, "%s: %d\n", call, static_cast<int>(result));
  std::exit(1);
}

CUdeviceptr allocate(size_t bytes) {
  CUdeviceptr address = 0;
  check(cuMemAlloc(&address, bytes + 16), "cuMemAlloc");
  check(cuMemsetD8(address, 0, bytes + 16), "cuMemsetD8");
  return address;
}

struct Call {
  std::string kernel;
  std::vector<helion_argument> arguments;
  std::deque<std::string> dtypes;  // what the arguments point to
  std::deque<std::vector<int64_t>> numbers;

  explicit Call(std::istream& line) {
    size_t count = 0;
    line >> kernel >> count;
    for (size_t i = 0; i < count; ++i) arguments.push_back(read(line));
  }

 private:
  helion_argument read(std::istream& line) {
    helion_argument argument = {};
    char kind = 'n';
    line >> kind;
    argument.kind = kind == 't' ? HELION_TENSOR
        : kind == 'i'           ? HELION_INT
        : kind == 'f'           ? HELION_FLOAT
        : kind == 'b'           ? HELION_BOOL
                                : HELION_NONE;
    if (kind == 'i' || kind == 'b') line >> argument.integer;
    if (kind == 'f') line >> argument.real;
    if (kind != 't') return argument;
    size_t bytes = 0;
    line >> dtypes.emplace_back() >> argument.rank;
    argument.dtype = dtypes.back().c_str();
    for (const int64_t** list : {&argument.sizes, &argument.strides}) {
      std::vector<int64_t>& values = numbers.emplace_back(static_cast<size_t>(argument.rank));
      for (int64_t& value : values) line >> value;
      *list = values.data();
    }
    line >> bytes;
    argument.address = allocate(bytes);
    return argument;
  }
};

// Seconds of the first call; below 0 with the reason.
double first_call(helion_bundle* bundle, int capability, const Call& call, char* error) {
  const Clock::time_point begun = Clock::now();
  const helion_plan* plan = helion_bundle_find(bundle, call.kernel.c_str(), capability, call.arguments.data(),
                                               static_cast<int>(call.arguments.size()), error);
  if (plan == nullptr) return -1;
  const double found = seconds(begun);
  std::vector<uint64_t> buffers;
  for (int i = 0; i < helion_plan_buffer_count(plan); ++i) {
    buffers.push_back(allocate(helion_plan_buffer_bytes(plan, i)));
  }
  double first = 0;
  for (int i = 0; i < 3; ++i) {
    const Clock::time_point launched = Clock::now();
    if (helion_plan_launch(plan, call.arguments.data(), buffers.data(), nullptr, error) != 0) return -1;
    if (i == 0) first = found + seconds(launched);
  }
  return first;
}

}  // namespace

int main(int count, char** words) {
  if (count != 3) {
    std::fprintf(stderr, "usage: %s BUNDLE CAPABILITY < calls\n", words[0]);
    return 2;
  }
  const int capability = std::atoi(words[2]);
  // The software GPU, where that is the driver: launches do nothing, as in the other processes.
  using Configure = void (*)(int, int, int);
  void* const configure = dlsym(RTLD_DEFAULT, "softgpu_configure");
  if (configure != nullptr) reinterpret_cast<Configure>(configure)(capability, 1, 0);
  CUdevice device;
  CUcontext context;
  check(cuInit(0), "cuInit");
  check(cuDeviceGet(&device, 0), "cuDeviceGet");
  check(cuDevicePrimaryCtxRetain(&context, device), "cuDevicePrimaryCtxRetain");
  check(cuCtxSetCurrent(context), "cuCtxSetCurrent");
  std::deque<Call> calls;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream text(line);
    calls.emplace_back(text);
  }

  char error[HELION_ERROR_SIZE] = "";
  const Clock::time_point begun = Clock::now();
  helion_bundle* bundle = helion_bundle_open(words[1], error);
  if (bundle == nullptr) {
    std::fprintf(stderr, "the bundle is refused: %s\n", error);
    return 1;
  }
  std::printf("{\"load\": %.9f, \"calls\": [", seconds(begun));
  for (size_t i = 0; i < calls.size(); ++i) {
    const double first = first_call(bundle, capability, calls[i], error);
    std::printf("%s%.9f", i == 0 ? "" : ", ", first);
    if (first < 0) std::fprintf(stderr, "%s: %s\n", calls[i].kernel.c_str(), error);
  }
  std::printf("]}\n");
  check(cuCtxSynchronize(), "cuCtxSynchronize");
  helion_bundle_close(bundle);
  return 0;
}
