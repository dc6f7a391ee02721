// Tensor maps and what TMA does with them: boxes of a tensor in global memory to and from shared memory.
#pragma once
#include <optional>

#include "async_memory.h"
#include "tensor_map.h"

namespace softgpu {

enum class Element : uint8_t { U8, U16, U32, S32, U64, S64, F16, F32, F64, BF16 };
unsigned element_size(Element e);

// A tensor map, whichever way its 128 bytes were encoded. Dimension 0 is the innermost.
struct TensorView {
    uint64_t address = 0;
    int rank = 0;
    Element element = Element::U8;
    uint64_t dims[5] = {1, 1, 1, 1, 1};      // elements
    uint64_t strides[5] = {};                // bytes
    uint32_t box[5] = {1, 1, 1, 1, 1};       // elements
    uint32_t span = 0;                       // bytes of a swizzle span, 0 for none
    bool fill_nan = false;
    uint32_t row_bytes() const { return box[0] * element_size(element); }
};
// Reads the map at a host address: our driver's form (tensor_map.h) or the one CuTe's host code writes. Faults if it is
// neither.
TensorView read_tensor_map(const Issuer& by, const uint8_t* bytes);

// What a copy moves: the box at these coordinates, or with `rows` (gather4, scatter4) four rows of its innermost
// dimension.
struct Box {
    TensorView tensor;
    int32_t at[5] = {};
    bool four_rows = false;
    uint32_t rows() const;                                 // of row_bytes() each
    uint32_t bytes() const { return rows() * tensor.row_bytes(); }
};

// Calls f(address, bytes) for the part of every row that lies inside the tensor; faults if it may not be accessed.
void each_row_inside(const Issuer& by, const Box& box, const std::function<void(uint64_t, uint64_t)>& f);
void load_box(const Issuer& by, const Box& box, Cta& cta, uint32_t offset);          // global -> shared
std::vector<uint8_t> fetch_box(const Box& box, const Cta& cta, uint32_t offset);     // shared -> a buffer of rows
enum class Reduction : uint8_t { None, Add, Min, Max, And, Or, Xor };
void store_box(const Issuer& by, const Box& box, const std::vector<uint8_t>& rows,
               Reduction reduction);  // buffer -> global

// target[i] = target[i] op source[i], atomically each.
void reduce_elements(const Issuer& by, Element element, Reduction op, uint8_t* target, const uint8_t* source,
                     uint64_t bytes);
// Faults unless global memory [address, address + bytes) may be accessed.
void check_global(const Issuer& by, uint64_t address, uint64_t bytes, bool write);

}  // namespace softgpu
