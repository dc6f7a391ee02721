// cuTensorMapEncodeTiled and cuTensorMapEncodeIm2col: our own 128-byte form of a tensor map (tensor_map.h).
#include <cstring>

#include "driver.h"
#include "tensor_map.h"

using namespace softgpu;
#define API extern "C" CUresult CUDAAPI

namespace {
// Bytes of an element, by CUtensorMapDataType; 0 for the sub-byte types that we do not have.
uint32_t element_bytes(CUtensorMapDataType type) {
    switch (type) {
        case CU_TENSOR_MAP_DATA_TYPE_UINT8: return 1;
        case CU_TENSOR_MAP_DATA_TYPE_UINT16:
        case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
        case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16: return 2;
        case CU_TENSOR_MAP_DATA_TYPE_UINT32: case CU_TENSOR_MAP_DATA_TYPE_INT32: case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
        case CU_TENSOR_MAP_DATA_TYPE_FLOAT32_FTZ:
        case CU_TENSOR_MAP_DATA_TYPE_TFLOAT32:
        case CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ: return 4;
        case CU_TENSOR_MAP_DATA_TYPE_UINT64:
        case CU_TENSOR_MAP_DATA_TYPE_INT64:
        case CU_TENSOR_MAP_DATA_TYPE_FLOAT64: return 8;
        default: return 0;
    }
}
}  // namespace

// Rules checked here are the driver API reference's for this call.
API cuTensorMapEncodeTiled(CUtensorMap* out, CUtensorMapDataType type, cuuint32_t rank, void* address,
                           const cuuint64_t* dims, const cuuint64_t* strides, const cuuint32_t* box,
                           const cuuint32_t* element_strides, CUtensorMapInterleave interleave,
                           CUtensorMapSwizzle swizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
    SOFTGPU_INJECT("tensor_map");
    TensorMap map{};
    map.magic = kTensorMapMagic;
    map.rank = static_cast<uint8_t>(rank);
    map.element_bytes = static_cast<uint8_t>(element_bytes(type));
    map.element_type = static_cast<uint8_t>(type);
    map.swizzle = static_cast<uint8_t>(swizzle);
    map.interleave = static_cast<uint8_t>(interleave);
    map.fill_nan = fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA;
    map.address = reinterpret_cast<uint64_t>(address);
    if (!map.element_bytes) return CUDA_ERROR_NOT_SUPPORTED;
    if (interleave != CU_TENSOR_MAP_INTERLEAVE_NONE) return CUDA_ERROR_NOT_SUPPORTED;
    if (rank < 1 || rank > 5 || map.address % 16) return CUDA_ERROR_INVALID_VALUE;
    for (cuuint32_t i = 0; i < rank; ++i) {
        if (dims[i] == 0 || dims[i] > 1ull << 32 || box[i] == 0 || box[i] > 256 || element_strides[i] == 0 ||
            element_strides[i] > 8)
            return CUDA_ERROR_INVALID_VALUE;
        map.dims[i] = static_cast<uint32_t>(dims[i] - 1);
        map.box[i] = static_cast<uint16_t>(box[i]);
        map.element_strides[i] = static_cast<uint8_t>(element_strides[i]);
        if (i + 1 < rank) {
            if (strides[i] % 16 || strides[i] >= 1ull << 40) return CUDA_ERROR_INVALID_VALUE;
            map.strides[i] = strides[i];
        }
    }
    const uint32_t inner = box[0] * map.element_bytes;
    static constexpr uint32_t kSpan[] = {0, 32, 64, 128};
    if (inner % 16) return CUDA_ERROR_INVALID_VALUE;
    if (swizzle > 0 && swizzle < 4 && inner > kSpan[swizzle]) return CUDA_ERROR_INVALID_VALUE;
    std::memset(out, 0, sizeof *out);
    std::memcpy(out, &map, sizeof map);
    return CUDA_SUCCESS;
}
API cuTensorMapReplaceAddress(CUtensorMap* out, void* address) {
    TensorMap map;
    std::memcpy(&map, out, sizeof map);
    if (map.magic != kTensorMapMagic || reinterpret_cast<uint64_t>(address) % 16) return CUDA_ERROR_INVALID_VALUE;
    map.address = reinterpret_cast<uint64_t>(address);
    std::memcpy(out, &map, sizeof map);
    return CUDA_SUCCESS;
}
