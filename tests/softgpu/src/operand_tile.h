// Matrix operands in shared memory as wgmma and tcgen05.mma read them through descriptors, and the product itself.
//
// A tile is rows x k: A is M x K, B is N x K (both with k running fastest once decoded). One instruction's k spans 32
// bytes.
#pragma once
#include "async_memory.h"
#include "happens_before.h"

namespace softgpu {

enum class TileType : uint8_t { F16, BF16, TF32, E4M3, E5M2, S8, U8 };
unsigned tile_type_size(TileType t);   // bytes

// A shared-memory matrix descriptor, decoded. Offsets in bytes.
struct TileDescriptor {
    uint32_t start, leading, stride;   // of the CTA's shared memory; LBO; SBO
    uint32_t span;                     // swizzle: 0, 32, 64 or 128
};
TileDescriptor hopper_descriptor(const Issuer& by, uint64_t bits);      // PTX ISA, wgmma: matrix-descriptor format
TileDescriptor blackwell_descriptor(const Issuer& by, uint64_t bits);   // PTX ISA, tcgen05: shared memory descriptor

// One operand of one instruction.
struct Tile {
    TileDescriptor where;
    TileType type;
    uint32_t rows;        // M or N
    bool k_major;         // k contiguous in memory; else rows are
    bool negate = false;
    uint32_t k() const { return 32 / tile_type_size(type); }
};

// Asynchronous reads of the tile's bytes begin and end (async_memory.h). `what`: "this MMA's operand A".
void begin_tile_read(const Issuer& by, Cta& cta, const Tile& tile, const char* what, const Actor& reader);
void end_tile_read(const Issuer& by, Cta& cta, const Tile& tile, const char* what);
// The tile's values, rows x k, row after row.
void decode_tile(const Cta& cta, const Tile& tile, float* out);
// One element from its bits.
float decode_element(TileType type, uint32_t bits);

// product[m * n + j] = sum over k of a[m, k] * b[j, k], for A of m x k and B of n x k. n is a multiple of 8. Sums are
// formed in float32 in the order of k: products of 8- and 16-bit operands are exact, and so are sums of integers.
void multiply(const float* a, const float* b, uint32_t m, uint32_t n, uint32_t k, float* product);

}  // namespace softgpu
