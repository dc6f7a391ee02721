// The few CUDA driver entry points that a launch needs, found at run time.
//
// helion does not link against CUDA: the extension builds and imports on a machine without it. The types below restate
// the part of the driver's binary interface (cuda.h, stable since CUDA 11.8) that is used.
#pragma once

#include <cstddef>
#include <cstdint>

namespace helion {

using CUresult = int;
using CUdevice = int;
using CUcontext = struct CUctx_st*;
using CUfunction = struct CUfunc_st*;
using CUstream = struct CUstream_st*;

constexpr CUresult kCudaSuccess = 0;
constexpr CUresult kCudaInvalidContext = 201;  // CUDA_ERROR_INVALID_CONTEXT: the calling thread has none

struct CUlaunchAttribute;  // never filled in here: kernels that need attributes stay on Triton's launcher

struct CUlaunchConfig {
  unsigned gridDimX, gridDimY, gridDimZ;
  unsigned blockDimX, blockDimY, blockDimZ;
  unsigned sharedMemBytes;
  CUstream hStream;
  CUlaunchAttribute* attrs;
  unsigned numAttrs;
};
static_assert(offsetof(CUlaunchConfig, hStream) == 32 && sizeof(CUlaunchConfig) == 56, "layout of cuda.h");

// Driver functions, one row each: X(name, result type, parameters, needed). Without a needed one nothing can be launched.
#define HELION_DRIVER_FUNCTIONS(X)                                                                       \
  X(cuLaunchKernelEx, CUresult, (const CUlaunchConfig*, CUfunction, void** params, void** extra), true)  \
  X(cuGetErrorString, CUresult, (CUresult, const char**), false)                                         \
  X(cuStreamIsCapturing, CUresult, (CUstream, int* status), false)                                       \
  X(cuDevicePrimaryCtxRetain, CUresult, (CUcontext*, CUdevice), true)                                    \
  X(cuCtxSetCurrent, CUresult, (CUcontext), true)

class Driver {
 public:
  // Finds the functions; harmless to repeat. False with a RuntimeError when there is no usable driver.
  bool load();

  // Launches and returns the driver's answer. Called without the GIL. A thread that never touched CUDA has no context,
  // which only the driver notices: then device's primary context is made current and the launch is tried once more.
  CUresult launch(const CUlaunchConfig& config, CUfunction function, void** params, CUdevice device) const;

  // 1 or 0; -1 if the driver cannot tell. An error of the driver counts as 1: the default stream answers with one while some
  // other stream is being captured.
  int is_capturing(uintptr_t stream) const;

  // Sets RuntimeError: the driver's words for the error, and which kernel.
  void set_error(CUresult result, const char* kernel_name) const;

 private:
#define HELION_DECLARE_DRIVER_FUNCTION(name, result, parameters, needed) result(*name##_) parameters = nullptr;
  HELION_DRIVER_FUNCTIONS(HELION_DECLARE_DRIVER_FUNCTION)
#undef HELION_DECLARE_DRIVER_FUNCTION
};

}  // namespace helion
