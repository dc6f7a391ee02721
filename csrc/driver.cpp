// Finding and calling the CUDA driver.

#include "driver.h"

#include <dlfcn.h>

#include <mutex>

namespace helion {
namespace {

// The driver library that the process already uses. A library loaded RTLD_GLOBAL is found by the first lookup;
// otherwise dlopen returns the one already loaded under this name, as it does for Triton's launcher, so that both
// always talk to the same driver.
void* find_symbol(const char* name) {
  if (void* symbol = dlsym(RTLD_DEFAULT, name)) return symbol;
  // The handle is kept for the life of the process on purpose: unloading a driver under live contexts is not possible.
  static void* const library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  return library != nullptr ? dlsym(library, name) : nullptr;
}

}  // namespace

bool Driver::load() {
  static std::mutex loading;  // two threads may come here, where there is no GIL
  const std::lock_guard<std::mutex> one_at_a_time(loading);
#define HELION_FIND_DRIVER_FUNCTION(name, result, parameters, needed)                                               \
  if (name##_ == nullptr) {                                                                                         \
    name##_ = reinterpret_cast<result(*) parameters>(find_symbol(#name));                                           \
    if (needed && name##_ == nullptr) {                                                                             \
      PyErr_SetString(PyExc_RuntimeError, "cannot find " #name                                                      \
                                          " in the CUDA driver (libcuda.so.1): is a driver for CUDA 11.8 or later " \
                                          "installed?");                                                            \
      return false;                                                                                                 \
    }                                                                                                               \
  }
  HELION_DRIVER_FUNCTIONS(HELION_FIND_DRIVER_FUNCTION)
#undef HELION_FIND_DRIVER_FUNCTION
  return true;
}

CUresult Driver::launch_in_context(const CUlaunchConfig& config, CUfunction function, void** params,
                                   CUdevice device) const {
  CUcontext context = nullptr;
  if (cuDevicePrimaryCtxRetain_(&context, device) != kCudaSuccess || cuCtxSetCurrent_(context) != kCudaSuccess) {
    return kCudaInvalidContext;
  }
  return cuLaunchKernelEx_(&config, function, params, nullptr);
}

int Driver::is_capturing(uintptr_t stream) const {
  if (cuStreamIsCapturing_ == nullptr) return -1;
  int status = 0;  // CU_STREAM_CAPTURE_STATUS_NONE
  const CUresult result = cuStreamIsCapturing_(reinterpret_cast<CUstream>(stream), &status);
  return result != kCudaSuccess || status != 0 ? 1 : 0;
}

CUresult Driver::encode(const TensorMapShape& shape, uint64_t address, void* map) const {
  constexpr CUresult not_found = 500;   // CUDA_ERROR_NOT_FOUND: a driver before CUDA 12
  constexpr int promote_128_bytes = 2;  // CU_TENSOR_MAP_L2_PROMOTION_L2_128B
  constexpr uint32_t ones[kTensorMapRank] = {1, 1, 1, 1, 1};
  if (cuTensorMapEncodeTiled_ == nullptr) return not_found;
  void* const tensor = reinterpret_cast<void*>(static_cast<uintptr_t>(address));
  return cuTensorMapEncodeTiled_(map, shape.data_type, shape.rank, tensor, shape.dims, shape.strides, shape.box, ones,
                                 0, shape.swizzle, promote_128_bytes, 0);
}

void Driver::set_error(CUresult result, const char* kernel_name) const {
  const char* text = nullptr;
  if (cuGetErrorString_ != nullptr) cuGetErrorString_(result, &text);
  // Worded like the error that Triton's launcher raises, so that what catches the one catches the other.
  PyRef error = PyRef::steal(text != nullptr ? PyUnicode_FromFormat("Triton Error [CUDA]: %s", text)
                                             : PyUnicode_FromFormat("Triton Error [CUDA]: error %d", result));
  if (!error) return;
  PyRef module = PyRef::steal(PyImport_ImportModule("helion.runtime.launch.errors"));
  if (!module) return;
  PyRef message = PyRef::steal(PyObject_CallMethod(module.get(), "message", "Os", error.get(), kernel_name));
  if (message) PyErr_SetObject(PyExc_RuntimeError, message.get());
}

}  // namespace helion
