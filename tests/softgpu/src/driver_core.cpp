// Entry points about the driver itself: initialisation, devices, contexts, errors, symbol lookup.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>

#include "driver.h"
#include "over_forks.h"

namespace softgpu {

Driver::Driver() {
    for (int i = 0; i < 16; ++i) contexts[i].device = i;
    hold_over_forks(mutex, ForkOrder::Driver);
}
Driver& driver() {
    static Driver* d = new Driver;   // never destroyed: threads may still call at exit
    return *d;
}

namespace {
thread_local std::vector<CUctx_st*> t_contexts;

struct ErrorRow { CUresult code; const char* name; const char* text; };
const ErrorRow kErrors[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU",
     "no kernel image is available for execution on the device"},
    {CUDA_ERROR_INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
     "too many resources requested for launch"},
    {CUDA_ERROR_LAUNCH_TIMEOUT, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"},
    {CUDA_ERROR_ASSERT, "CUDA_ERROR_ASSERT", "device-side assert triggered"},
    {CUDA_ERROR_ILLEGAL_INSTRUCTION, "CUDA_ERROR_ILLEGAL_INSTRUCTION", "an illegal instruction was encountered"},
    {CUDA_ERROR_MISALIGNED_ADDRESS, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE",
     "too many blocks in cooperative launch"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {CUDA_ERROR_UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
};
const ErrorRow* error_row(CUresult code) {
    for (const auto& row : kErrors) if (row.code == code) return &row;
    return nullptr;
}

// Figures of the real devices, by capability (CUDA C++ programming guide, compute capabilities).
struct DeviceModel { int capability; const char* name; int sms, shared_optin, shared_per_sm; };
const DeviceModel kModels[] = {
    {80, "softgpu sm_80 (like an A100)", 108, 166912, 167936},
    {90, "softgpu sm_90 (like an H100)", 132, 232448, 233472},
    {100, "softgpu sm_100 (like a B200)", 148, 232448, 233472},
};
const DeviceModel& model() {
    const int c = driver().config.capability;
    for (const auto& m : kModels) if (m.capability == c) return m;
    return kModels[1];
}
bool valid(CUdevice d) { return d >= 0 && d < driver().config.devices; }
}  // namespace

int current_device() { return t_contexts.empty() || !t_contexts.back() ? -1 : t_contexts.back()->device; }
CUresult current_context(CUctx_st** context) {
    if (t_contexts.empty() || !t_contexts.back()) return CUDA_ERROR_INVALID_CONTEXT;
    *context = t_contexts.back();
    return CUDA_SUCCESS;
}

bool injected_failure(const char* what, CUresult* code) {
    Driver& d = driver();
    if (d.injections.load(std::memory_order_relaxed) == 0) return false;
    const std::lock_guard lock(d.mutex);
    const auto it = d.injected.find(what);
    if (it == d.injected.end() || --it->second.countdown != 0) return false;
    *code = it->second.code;
    d.injected.erase(it);
    --d.injections;
    return true;
}

}  // namespace softgpu

using namespace softgpu;
#define API extern "C" CUresult CUDAAPI

API cuInit(unsigned) { return driver().config.devices > 0 ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE; }
API cuDriverGetVersion(int* v) { *v = 13010; return CUDA_SUCCESS; }

// A fault's own words follow the driver's, so that a test sees in the exception what went wrong.
API cuGetErrorString(CUresult code, const char** text) {
    thread_local std::map<CUresult, std::string> texts;
    const auto* row = error_row(code);
    if (!row) { *text = "unrecognized error code"; return CUDA_ERROR_INVALID_VALUE; }
    const std::string fault = fault_text_for(code);
    if (fault.empty()) { *text = row->text; return CUDA_SUCCESS; }
    std::string& s = texts[code];
    s = std::string(row->text) + ": " + fault.substr(0, 900);   // Triton copies it into 1024 bytes
    *text = s.c_str();
    return CUDA_SUCCESS;
}
API cuGetErrorName(CUresult code, const char** name) {
    const auto* row = error_row(code);
    *name = row ? row->name : "CUDA_ERROR_UNKNOWN";
    return row ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// ---- devices ---------------------------------------------------------------------------------------------------
API cuDeviceGet(CUdevice* d, int ordinal) {
    if (!valid(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
    *d = ordinal;
    return CUDA_SUCCESS;
}
API cuDeviceGetCount(int* n) { *n = driver().config.devices; return CUDA_SUCCESS; }
API cuDeviceGetName(char* name, int length, CUdevice d) {
    if (!valid(d)) return CUDA_ERROR_INVALID_DEVICE;
    std::snprintf(name, static_cast<size_t>(length), "%s", model().name);
    return CUDA_SUCCESS;
}
API cuDeviceTotalMem(size_t* bytes, CUdevice d) {
    *bytes = 16ull << 30;
    return valid(d) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}
API cuDeviceGetUuid(CUuuid* uuid, CUdevice d) {
    std::memset(uuid, 0, sizeof *uuid);
    std::memcpy(uuid->bytes, "softgpu", 7);
    uuid->bytes[15] = static_cast<char>(d);
    return valid(d) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}
API cuDeviceComputeCapability(int* major, int* minor, CUdevice d) {
    *major = driver().config.capability / 10;
    *minor = driver().config.capability % 10;
    return valid(d) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}
API cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice d) {
    if (!valid(d)) return CUDA_ERROR_INVALID_DEVICE;
    const int cc = driver().config.capability;
    switch (attribute) {
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = cc / 10; break;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = cc % 10; break;
        case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = model().sms; break;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = model().shared_optin; break;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: *value = model().shared_per_sm; break;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: *value = 49152; break;
        case CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK: *value = 1024; break;
        case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
        case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR: *value = 65536; break;
        case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
        case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; break;
        case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: *value = 2048; break;
        case CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR: *value = 32; break;
        case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X: case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y: *value = 1024; break;
        case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z: *value = 64; break;
        case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: *value = 2147483647; break;
        case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y: case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: *value = 65535; break;
        case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: *value = 1980000; break;
        case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: *value = 3201000; break;
        case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: *value = 6144; break;
        case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: *value = 50 << 20; break;
        case CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH: *value = cc >= 90; break;
        case CU_DEVICE_ATTRIBUTE_TENSOR_MAP_ACCESS_SUPPORTED: *value = cc >= 90; break;
        case CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH: case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING: *value = 1; break;
        case CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY: case CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS: *value = 1; break;
        case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID:
        case CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID:
        case CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID: *value = d; break;
        default: *value = 0; break;   // features we do not have
    }
    return CUDA_SUCCESS;
}

// ---- contexts: the primary context of each device
// --------------------------------------------------------------------
API cuDevicePrimaryCtxRetain(CUcontext* c, CUdevice d) {
    SOFTGPU_INJECT("context");
    if (!valid(d)) return CUDA_ERROR_INVALID_DEVICE;
    *c = &driver().contexts[d];
    return CUDA_SUCCESS;
}
API cuDevicePrimaryCtxRelease(CUdevice d) { return valid(d) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE; }
API cuDevicePrimaryCtxReset(CUdevice d) { return valid(d) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE; }
API cuDevicePrimaryCtxSetFlags(CUdevice d, unsigned) { return valid(d) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE; }
API cuDevicePrimaryCtxGetState(CUdevice d, unsigned* flags, int* active) {
    *flags = 0;
    *active = 1;
    return valid(d) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}
API cuCtxGetCurrent(CUcontext* c) { *c = t_contexts.empty() ? nullptr : t_contexts.back(); return CUDA_SUCCESS; }
API cuCtxSetCurrent(CUcontext c) {
    if (t_contexts.empty()) t_contexts.push_back(c);
    else t_contexts.back() = c;
    return CUDA_SUCCESS;
}
API cuCtxPushCurrent(CUcontext c) { t_contexts.push_back(c); return CUDA_SUCCESS; }
API cuCtxPopCurrent(CUcontext* c) {
    if (t_contexts.empty()) return CUDA_ERROR_INVALID_CONTEXT;
    if (c) *c = t_contexts.back();
    t_contexts.pop_back();
    return CUDA_SUCCESS;
}
API cuCtxGetDevice(CUdevice* d) {
    if (current_device() < 0) return CUDA_ERROR_INVALID_CONTEXT;
    *d = current_device();
    return CUDA_SUCCESS;
}
API cuCtxSynchronize() {
    if (current_device() < 0) return CUDA_ERROR_INVALID_CONTEXT;
    forget_streams();
    return CUDA_SUCCESS;
}
API cuCtxGetApiVersion(CUcontext, unsigned* v) { *v = 13010; return CUDA_SUCCESS; }
API cuCtxGetStreamPriorityRange(int* least, int* greatest) { *least = *greatest = 0; return CUDA_SUCCESS; }
namespace { std::atomic<size_t> g_limits[32]; }
API cuCtxSetLimit(CUlimit limit, size_t value) {
    if (limit < 0 || limit >= 32) return CUDA_ERROR_INVALID_VALUE;
    g_limits[limit] = value;
    return CUDA_SUCCESS;
}
API cuCtxGetLimit(size_t* value, CUlimit limit) {
    if (limit < 0 || limit >= 32) return CUDA_ERROR_INVALID_VALUE;
    *value = g_limits[limit] ? g_limits[limit].load() : size_t{1} << 20;
    return CUDA_SUCCESS;
}
API cuCtxGetId(CUcontext c, unsigned long long* id) {
    *id = reinterpret_cast<unsigned long long>(c);
    return CUDA_SUCCESS;
}

// ---- symbol lookup
// -----------------------------------------------------------------------------------------------------
API cuGetProcAddress(const char* symbol, void** address, int, cuuint64_t, CUdriverProcAddressQueryResult* status) {
    // The newest version there is: clients built against cuda.h ask for plain names.
    *address = nullptr;
    for (const char* suffix : {"_v3", "_v2", ""})
        if ((*address = dlsym(RTLD_DEFAULT, (std::string(symbol) + suffix).c_str()))) break;
    if (status) *status = *address ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *address ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

// Every function of cuda.h that is not implemented ends here (unimplemented.cpp is generated by build.py).
extern "C" CUresult softgpu_unimplemented(const char* name) {
    std::fprintf(stderr, "softgpu: the driver function %s is not implemented\n", name);
    const std::lock_guard lock(driver().mutex);
    driver().unknown_entry_points += std::string(name) + "\n";
    return CUDA_ERROR_NOT_SUPPORTED;
}
