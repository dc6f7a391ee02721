// The few CUDA driver entry points that a launch needs, found at run time.
//
// helion does not link against CUDA: the extension builds and imports on a machine without it. The types below restate
// the part of the driver's binary interface (cuda.h, stable since CUDA 11.8) that is used.
#pragma once

#include "common.h"

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

struct CUlaunchAttribute {
  int id;
  char pad[4];
  unsigned value[16];
};
static_assert(sizeof(CUlaunchAttribute) == 72, "layout of cuda.h");
constexpr int kCooperative = 2;       // CU_LAUNCH_ATTRIBUTE_COOPERATIVE
constexpr int kClusterDimension = 4;  // CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
constexpr int kClusterSchedulingPolicy = 5;          // CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE
constexpr unsigned kClusterSpread = 1;               // CU_CLUSTER_SCHEDULING_POLICY_SPREAD
constexpr int kProgrammaticStreamSerialization = 6;  // CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION

// A tensor map is 128 bytes at a multiple of 64 (cuda.h: CUtensorMap) of a tensor of at most 5 dimensions.
constexpr size_t kTensorMapBytes = 128;
constexpr size_t kTensorMapAlignment = 64;
constexpr uint32_t kTensorMapRank = 5;

struct CUlaunchConfig {
  unsigned gridDimX, gridDimY, gridDimZ;
  unsigned blockDimX, blockDimY, blockDimZ;
  unsigned sharedMemBytes;
  CUstream hStream;
  CUlaunchAttribute* attrs;
  unsigned numAttrs;
};
static_assert(offsetof(CUlaunchConfig, hStream) == 32 && sizeof(CUlaunchConfig) == 56, "layout of cuda.h");

// Driver functions, one row each: X(name, result type, parameters, needed). Without a needed one nothing can be
// launched.
#define HELION_DRIVER_FUNCTIONS(X)                                                                       \
  X(cuLaunchKernelEx, CUresult, (const CUlaunchConfig*, CUfunction, void** params, void** extra), true)  \
  X(cuGetErrorString, CUresult, (CUresult, const char**), false)                                         \
  X(cuStreamIsCapturing, CUresult, (CUstream, int* status), false)                                       \
  X(cuDevicePrimaryCtxRetain, CUresult, (CUcontext*, CUdevice), true)                                    \
  X(cuCtxSetCurrent, CUresult, (CUcontext), true)                                                        \
  X(cuTensorMapEncodeTiled, CUresult,                                                                    \
    (void* map, int data_type, uint32_t rank, void* address, const uint64_t* dims, const uint64_t* strides, \
     const uint32_t* box, const uint32_t* element_strides, int interleave, int swizzle, int l2_promotion,  \
     int out_of_bounds_fill),                                                                            \
    false)

// What a tensor map describes, but for the address: the arguments of cuTensorMapEncodeTiled.
struct TensorMapShape {
  int data_type = 0;
  uint32_t rank = 0;
  uint64_t dims[kTensorMapRank] = {};
  uint64_t strides[kTensorMapRank] = {};  // in bytes, of all axes but the first
  uint32_t box[kTensorMapRank] = {};
  int swizzle = 0;
};

class Driver {
 public:
  // Finds the functions; harmless to repeat. False with a RuntimeError when there is no usable driver.
  bool load();

  // Launches and returns the driver's answer. Called without the GIL. A thread that never touched CUDA has no context,
  // which only the driver notices: then device's primary context is made current and the launch is tried once more.
  HELION_HOT CUresult launch(const CUlaunchConfig& config, CUfunction function, void** params, CUdevice device) const {
    const CUresult result = cuLaunchKernelEx_(&config, function, params, nullptr);
    return result == kCudaInvalidContext ? launch_in_context(config, function, params, device) : result;
  }

  // 1 or 0; -1 if the driver cannot tell. An error of the driver counts as 1: the default stream answers with one while
  // some other stream is being captured.
  int is_capturing(uintptr_t stream) const;

  // Writes the descriptor of a tensor at `address`; `map` is kTensorMapBytes at a multiple of kTensorMapAlignment. Does
  // not touch the device.
  CUresult encode(const TensorMapShape& shape, uint64_t address, void* map) const;

  // Sets RuntimeError: the driver's words for the error, and which kernel (helion/runtime/launch/errors.py).
  void set_error(CUresult result, const char* kernel_name) const;

 private:
  HELION_COLD CUresult launch_in_context(const CUlaunchConfig& config, CUfunction function, void** params,
                                         CUdevice device) const;

#define HELION_DECLARE_DRIVER_FUNCTION(name, result, parameters, needed) result(*name##_) parameters = nullptr;
  HELION_DRIVER_FUNCTIONS(HELION_DECLARE_DRIVER_FUNCTION)
#undef HELION_DECLARE_DRIVER_FUNCTION
};

}  // namespace helion
