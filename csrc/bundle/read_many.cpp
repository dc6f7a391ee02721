// Reads many bundles, one after another, as files that may be damaged or lie: for the sanitizers.
//
//   read_many CAPABILITY < lines of "path kernel launch", of a kernel with the arguments of example.cpp
//
// Each file is opened, the kernel looked up with the arguments of its example, and launched if there is a plan and
// `launch` is 1: a file that lies about its binary's parameters makes the driver read what is not there, so that only
// files whose hashes were not made anew are. Nothing of it may be a crash. Prints how many were refused when they were
// opened, had no plan, had one that was not launched, and ran.
#include <cuda.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "helion_bundle.h"

namespace {

constexpr int64_t kSize = 100, kOne = 1;
constexpr size_t kMostBytes = size_t{1} << 24;  // larger buffers are not allocated: the plan is damaged

struct Counts {
  long refused = 0, absent = 0, failed = 0, ran = 0;
};

void read(const char* path, const char* kernel, bool launch, int capability, CUdeviceptr memory, Counts* counts) {
  char error[HELION_ERROR_SIZE];
  helion_bundle* bundle = helion_bundle_open(path, error);
  if (bundle == nullptr) {
    ++counts->refused;
    if (error[0] == '\0' || std::memchr(error, '\0', sizeof(error)) == nullptr) std::abort();  // it says why
    return;
  }
  const helion_argument arguments[] = {
      {HELION_TENSOR, memory, "float32", 1, &kSize, &kOne, 0, 0},
      {HELION_TENSOR, memory, "float32", 1, &kSize, &kOne, 0, 0},
      {HELION_FLOAT, 0, nullptr, 0, nullptr, nullptr, 0, 2.0},
  };
  const helion_plan* plan = helion_bundle_find(bundle, kernel, capability, arguments, 3, error);
  if (plan == nullptr) {
    ++counts->absent;
  } else {
    std::vector<uint64_t> buffers;
    bool fits = launch && helion_plan_result(plan) < helion_plan_buffer_count(plan);
    for (int i = 0; i < helion_plan_buffer_count(plan); ++i) {
      fits = fits && helion_plan_buffer_bytes(plan, i) <= kMostBytes;
    }
    for (int i = 0; fits && i < helion_plan_buffer_count(plan); ++i) {
      CUdeviceptr buffer = 0;
      fits = cuMemAlloc(&buffer, helion_plan_buffer_bytes(plan, i) + 16) == CUDA_SUCCESS;
      buffers.push_back(buffer);
    }
    const bool ran = fits && helion_plan_launch(plan, arguments, buffers.data(), nullptr, error) == 0;
    ++(ran ? counts->ran : counts->failed);
    for (uint64_t buffer : buffers) cuMemFree(buffer);
  }
  helion_bundle_close(bundle);
}

}  // namespace

int main(int count, char** words) {
  if (count != 2) return 2;
  CUdevice device;
  CUcontext context;
  CUdeviceptr memory;
  if (cuInit(0) || cuDeviceGet(&device, 0) || cuDevicePrimaryCtxRetain(&context, device) || cuCtxSetCurrent(context) ||
      cuMemAlloc(&memory, 4096)) {
    return 3;
  }
  Counts counts;
  char path[4096], kernel[512];
  int launch = 0;
  while (std::scanf("%4095s %511s %d", path, kernel, &launch) == 3) {
    read(path, kernel, launch != 0, std::atoi(words[1]), memory, &counts);
    std::printf("%ld %ld %ld %ld\n", counts.refused, counts.absent, counts.failed, counts.ran);
    std::fflush(stdout);
  }
  return 0;
}
