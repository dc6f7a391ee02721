// A bundled kernel without Python: adds two vectors with `KERNEL(x, y, alpha) -> 3 * x + alpha * y`.
//
//     g++ -std=c++17 example.cpp bundle.cpp -lcuda -o example
//     ./example kernels.hlb model.add 90

#include "helion_bundle.h"

#include <cuda.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

char error[HELION_ERROR_SIZE] = "";

[[noreturn]] void stop(const char* what) {
  std::fprintf(stderr, "%s: %s\n", what, error);
  std::exit(1);
}

void check(CUresult result, const char* call) {
  if (result != CUDA_SUCCESS) stop(call);
}

}  // namespace

int main(int count, char** words) {
  if (count != 4) {
    std::fprintf(stderr, "usage: %s BUNDLE KERNEL CAPABILITY\n", words[0]);
    return 2;
  }
  CUdevice device;
  CUcontext context;
  check(cuInit(0), "cuInit");
  check(cuDeviceGet(&device, 0), "cuDeviceGet");
  check(cuDevicePrimaryCtxRetain(&context, device), "cuDevicePrimaryCtxRetain");
  check(cuCtxSetCurrent(context), "cuCtxSetCurrent");

  const int64_t n = 100, one = 1;
  const size_t bytes = static_cast<size_t>(n) * sizeof(float);
  std::vector<float> x(static_cast<size_t>(n)), y(x), out(x);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(i);
    y[i] = 0.5f * static_cast<float>(i);
  }
  CUdeviceptr on_gpu[2];
  check(cuMemAlloc(&on_gpu[0], bytes), "cuMemAlloc");
  check(cuMemAlloc(&on_gpu[1], bytes), "cuMemAlloc");
  check(cuMemcpyHtoD(on_gpu[0], x.data(), bytes), "cuMemcpyHtoD");
  check(cuMemcpyHtoD(on_gpu[1], y.data(), bytes), "cuMemcpyHtoD");

  const double alpha = 2.0;
  const helion_argument arguments[] = {
      {HELION_TENSOR, on_gpu[0], "float32", 1, &n, &one, 0, 0},
      {HELION_TENSOR, on_gpu[1], "float32", 1, &n, &one, 0, 0},
      {HELION_FLOAT, 0, nullptr, 0, nullptr, nullptr, 0, alpha},
  };
  helion_bundle* bundle = helion_bundle_open(words[1], error);
  if (bundle == nullptr) stop("the bundle is refused");
  const helion_plan* plan = helion_bundle_find(bundle, words[2], std::atoi(words[3]), arguments, 3, error);
  if (plan == nullptr) stop("no plan");
  std::vector<uint64_t> buffers;
  for (int i = 0; i < helion_plan_buffer_count(plan); ++i) {
    CUdeviceptr buffer;
    check(cuMemAlloc(&buffer, helion_plan_buffer_bytes(plan, i)), "cuMemAlloc");
    buffers.push_back(buffer);
  }
  if (helion_plan_launch(plan, arguments, buffers.data(), nullptr, error) != 0) stop("the launch failed");
  check(cuCtxSynchronize(), "cuCtxSynchronize");
  check(cuMemcpyDtoH(out.data(), buffers[static_cast<size_t>(helion_plan_result(plan))], bytes), "cuMemcpyDtoH");
  for (size_t i = 0; i < out.size(); ++i) {
    const double expected = 3.0 * x[i] + alpha * y[i];
    if (std::fabs(out[i] - expected) > 1e-4 * (1 + std::fabs(expected))) {
      std::fprintf(stderr, "element %zu is %g, expected %g\n", i, static_cast<double>(out[i]), expected);
      return 1;
    }
  }
  std::printf("%zu elements are right\n", out.size());
  helion_bundle_close(bundle);
  return 0;
}
