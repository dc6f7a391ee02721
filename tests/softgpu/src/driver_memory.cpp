// Entry points about memory: device memory is host memory, registered so that kernels may touch it.
#include <cstdlib>
#include <cstring>

#include "driver.h"
#include "memory.h"

using namespace softgpu;
#define API extern "C" CUresult CUDAAPI

namespace {
void* host(CUdeviceptr p) { return reinterpret_cast<void*>(p); }

CUresult allocate(CUdeviceptr* p, size_t bytes) {
    SOFTGPU_INJECT("allocation");
    if (!bytes) return CUDA_ERROR_INVALID_VALUE;
    void* memory = std::aligned_alloc(512, (bytes + 511) / 512 * 512);
    if (!memory) return CUDA_ERROR_OUT_OF_MEMORY;
    *p = reinterpret_cast<CUdeviceptr>(memory);
    Driver& d = driver();
    BufferRegistry::instance().allow(*p, bytes, "a driver allocation of " + std::to_string(bytes) + " bytes");
    const std::lock_guard lock(d.mutex);
    d.allocations[*p] = bytes;
    ++d.allocation_count;
    return CUDA_SUCCESS;
}
CUresult release(CUdeviceptr p) {
    Driver& d = driver();
    {
        const std::lock_guard lock(d.mutex);
        if (!p) return CUDA_SUCCESS;
        if (!d.allocations.erase(p)) return CUDA_ERROR_INVALID_VALUE;
    }
    BufferRegistry::instance().remove(p);
    std::free(host(p));
    return CUDA_SUCCESS;
}
// The allocation that holds `p`, or (p, 0).
std::pair<CUdeviceptr, size_t> allocation_of(CUdeviceptr p) {
    Driver& d = driver();
    const std::lock_guard lock(d.mutex);
    auto it = d.allocations.upper_bound(p);
    if (it == d.allocations.begin()) return {p, 0};
    --it;
    return p < it->first + it->second ? std::pair<CUdeviceptr, size_t>{it->first, it->second}
                                      : std::pair<CUdeviceptr, size_t>{p, 0};
}
}  // namespace

API cuMemAlloc(CUdeviceptr* p, size_t bytes) {
    return current_device() < 0 ? CUDA_ERROR_INVALID_CONTEXT : allocate(p, bytes);
}
API cuMemFree(CUdeviceptr p) { return release(p); }
API cuMemAllocAsync(CUdeviceptr* p, size_t bytes, CUstream) { return allocate(p, bytes); }
API cuMemFreeAsync(CUdeviceptr p, CUstream) { return release(p); }
API cuMemAllocManaged(CUdeviceptr* p, size_t bytes, unsigned) { return allocate(p, bytes); }
API cuMemAllocHost(void** p, size_t bytes) { return allocate(reinterpret_cast<CUdeviceptr*>(p), bytes); }
API cuMemHostAlloc(void** p, size_t bytes, unsigned) { return allocate(reinterpret_cast<CUdeviceptr*>(p), bytes); }
API cuMemFreeHost(void* p) { return release(reinterpret_cast<CUdeviceptr>(p)); }
API cuMemGetInfo(size_t* available, size_t* total) { *available = *total = 16ull << 30; return CUDA_SUCCESS; }
API cuMemGetAddressRange(CUdeviceptr* base, size_t* size, CUdeviceptr p) {
    const auto [start, bytes] = allocation_of(p);
    if (base) *base = start;
    if (size) *size = bytes;
    return bytes ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// ---- copies and fills: at once, or recorded on a capturing stream ---------------------------------------------------
namespace {
CUresult copy(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    return enqueue(stream, "memcpy", [=] { std::memmove(host(to), host(from), bytes); return CUDA_SUCCESS; });
}
template <class T> CUresult fill(CUdeviceptr to, T value, size_t count, CUstream stream) {
    return enqueue(stream, "memset", [=] {
        for (size_t i = 0; i < count; ++i) std::memcpy(static_cast<T*>(host(to)) + i, &value, sizeof value);
        return CUDA_SUCCESS;
    });
}
CUdeviceptr device(const void* p) { return reinterpret_cast<CUdeviceptr>(p); }
}  // namespace
API cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t n) { return copy(to, from, n, nullptr); }
API cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t n, CUstream s) { return copy(to, from, n, s); }
API cuMemcpyHtoD(CUdeviceptr to, const void* from, size_t n) { return copy(to, device(from), n, nullptr); }
API cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t n, CUstream s) { return copy(to, device(from), n, s); }
API cuMemcpyDtoH(void* to, CUdeviceptr from, size_t n) { return copy(device(to), from, n, nullptr); }
API cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t n, CUstream s) { return copy(device(to), from, n, s); }
API cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, size_t n) { return copy(to, from, n, nullptr); }
API cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t n, CUstream s) { return copy(to, from, n, s); }
API cuMemsetD8(CUdeviceptr p, unsigned char v, size_t n) { return fill<uint8_t>(p, v, n, nullptr); }
API cuMemsetD8Async(CUdeviceptr p, unsigned char v, size_t n, CUstream s) { return fill<uint8_t>(p, v, n, s); }
API cuMemsetD16(CUdeviceptr p, unsigned short v, size_t n) { return fill<uint16_t>(p, v, n, nullptr); }
API cuMemsetD16Async(CUdeviceptr p, unsigned short v, size_t n, CUstream s) { return fill<uint16_t>(p, v, n, s); }
API cuMemsetD32(CUdeviceptr p, unsigned v, size_t n) { return fill<uint32_t>(p, v, n, nullptr); }
API cuMemsetD32Async(CUdeviceptr p, unsigned v, size_t n, CUstream s) { return fill<uint32_t>(p, v, n, s); }

// ---- pointer attributes: every host pointer is a device pointer here
// ---------------------------------------------------
namespace {
CUresult pointer_attribute(void* data, CUpointer_attribute attribute, CUdeviceptr p) {
    switch (attribute) {
        case CU_POINTER_ATTRIBUTE_CONTEXT:
            *static_cast<CUcontext*>(data) = &driver().contexts[std::max(0, current_device())];
            break;
        case CU_POINTER_ATTRIBUTE_MEMORY_TYPE: *static_cast<unsigned*>(data) = CU_MEMORYTYPE_DEVICE; break;
        case CU_POINTER_ATTRIBUTE_DEVICE_POINTER: *static_cast<CUdeviceptr*>(data) = p; break;
        case CU_POINTER_ATTRIBUTE_HOST_POINTER: *static_cast<void**>(data) = host(p); break;
        case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: *static_cast<int*>(data) = std::max(0, current_device()); break;
        case CU_POINTER_ATTRIBUTE_IS_MANAGED: *static_cast<unsigned*>(data) = 0; break;
        case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR: *static_cast<CUdeviceptr*>(data) = allocation_of(p).first; break;
        case CU_POINTER_ATTRIBUTE_RANGE_SIZE: *static_cast<size_t*>(data) = allocation_of(p).second; break;
        case CU_POINTER_ATTRIBUTE_BUFFER_ID: *static_cast<unsigned long long*>(data) = allocation_of(p).first; break;
        case CU_POINTER_ATTRIBUTE_MAPPED: *static_cast<bool*>(data) = true; break;
        default: return CUDA_ERROR_INVALID_VALUE;
    }
    return p ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
}  // namespace
API cuPointerGetAttribute(void* data, CUpointer_attribute attribute, CUdeviceptr p) {
    SOFTGPU_INJECT("pointer_attribute");
    return pointer_attribute(data, attribute, p);
}
API cuPointerGetAttributes(unsigned n, CUpointer_attribute* attributes, void** data, CUdeviceptr p) {
    for (unsigned i = 0; i < n; ++i)
        if (const CUresult r = pointer_attribute(data[i], attributes[i], p); r != CUDA_SUCCESS) return r;
    return CUDA_SUCCESS;
}
API cuPointerSetAttribute(const void*, CUpointer_attribute, CUdeviceptr) { return CUDA_SUCCESS; }
