// A bundled kernel as an operator of PyTorch, with which a model is exported (torch.export) and compiled ahead
// (AOTInductor): `helion_example::add(bundle, x, y, alpha) -> 3 * x + alpha * y`.
//
//     g++ -std=c++20 -shared -fPIC torch_op.cpp bundle.cpp -I... -ltorch -lc10 -lc10_cuda -lcuda -o libadd.so
//
// docs/shipping.md has the commands in full.

#include "helion_bundle.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <cuda.h>

#include <map>
#include <mutex>
#include <string>
#include <vector>

#ifdef HELION_EXAMPLE_ON_CPU  // for a driver whose GPU uses the memory of the host, as that of the tests
#define DEVICE CPU
#else
#include <c10/cuda/CUDAStream.h>
#define DEVICE CUDA
#endif

namespace {

constexpr const char* kKernel = "tests.ship.bundled_model.add";

void* stream_of([[maybe_unused]] const at::Tensor& tensor) {
#ifdef HELION_EXAMPLE_ON_CPU
  return nullptr;
#else
  return c10::cuda::getCurrentCUDAStream(tensor.get_device()).stream();
#endif
}

// Of the GPU that is current in this thread.
int capability() {
  CUdevice device = 0;
  int major = 0, minor = 0;
  TORCH_CHECK(cuCtxGetDevice(&device) == CUDA_SUCCESS, "no CUDA context is current");
  cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device);
  cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device);
  return 10 * major + minor;
}

helion_argument argument(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.scalar_type() == at::kFloat, "a tensor of float32 is expected");
  return {HELION_TENSOR,           reinterpret_cast<uint64_t>(tensor.const_data_ptr()), "float32",
          static_cast<int>(tensor.dim()), tensor.sizes().data(), tensor.strides().data(), 0, 0};
}

// Opened when it is first used, and kept.
helion_bundle* opened(const std::string& path, char* error) {
  static std::map<std::string, helion_bundle*> bundles;
  helion_bundle*& found = bundles[path];
  if (found == nullptr) found = helion_bundle_open(path.c_str(), error);
  TORCH_CHECK(found != nullptr, error);
  return found;
}

at::Tensor add(std::string bundle, const at::Tensor& x, const at::Tensor& y, double alpha) {
  char error[HELION_ERROR_SIZE] = "";
  const helion_argument arguments[] = {
      argument(x), argument(y), {HELION_FLOAT, 0, nullptr, 0, nullptr, nullptr, 0, alpha}};
  const helion_plan* plan = nullptr;
  {
    static std::mutex mutex;
    const std::lock_guard<std::mutex> lock(mutex);
    plan = helion_bundle_find(opened(bundle, error), kKernel, capability(), arguments, 3, error);
  }
  TORCH_CHECK(plan != nullptr, error);
  std::vector<at::Tensor> buffers;
  std::vector<uint64_t> addresses;
  for (int i = 0; i < helion_plan_buffer_count(plan); ++i) {
    const auto bytes = static_cast<int64_t>(helion_plan_buffer_bytes(plan, i));
    const bool result = i == helion_plan_result(plan);
    buffers.push_back(result ? at::empty_like(x) : at::empty({bytes}, x.options().dtype(at::kByte)));
    TORCH_CHECK(static_cast<int64_t>(buffers.back().nbytes()) == bytes, "the result is not like x");
    addresses.push_back(reinterpret_cast<uint64_t>(buffers.back().mutable_data_ptr()));
  }
  const int failed = helion_plan_launch(plan, arguments, addresses.data(), stream_of(x), error);
  TORCH_CHECK(failed == 0, error);
  TORCH_CHECK(helion_plan_result(plan) >= 0, "the kernel returns something else than one new tensor");
  return buffers[static_cast<size_t>(helion_plan_result(plan))];
}

// What tracing sees.
at::Tensor add_meta(std::string, const at::Tensor& x, const at::Tensor&, double) { return at::empty_like(x); }

TORCH_LIBRARY(helion_example, library) { library.def("add(str bundle, Tensor x, Tensor y, float alpha) -> Tensor"); }
TORCH_LIBRARY_IMPL(helion_example, DEVICE, library) { library.impl("add", add); }
TORCH_LIBRARY_IMPL(helion_example, Meta, library) { library.impl("add", add_meta); }

}  // namespace
