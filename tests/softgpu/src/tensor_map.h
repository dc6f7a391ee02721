// The 128 bytes of a tensor map as our cuTensorMapEncodeTiled writes and the TMA instructions read them.
#pragma once
#include <cstdint>

namespace softgpu {

constexpr uint32_t kTensorMapMagic = 0x50414d54;   // "TMAP", where a real map has the low half of its address

// Dimension 0 is the innermost. Sizes are stored less one, as hardware does.
struct TensorMap {
    uint32_t magic;
    uint8_t rank, element_bytes, element_type, swizzle;  // swizzle: CUtensorMapSwizzle (0 none, 1/2/3: 32/64/128 bytes)
    uint8_t interleave, fill_nan, reserved[6];
    uint64_t address;             // offset 16
    uint64_t strides[4];          // bytes between neighbours in dimensions 1..4
    uint32_t dims[5];             // elements, less one
    uint16_t box[5];              // elements copied at once
    uint8_t element_strides[5];
    uint8_t padding[128 - 91];
};
static_assert(sizeof(TensorMap) == 128);

}  // namespace softgpu
