// Descriptors, canonical layouts, decoding to float and the product of two tiles.
#include "operand_tile.h"

#include <algorithm>

#include "numeric.h"

namespace softgpu {

unsigned tile_type_size(TileType t) {
    switch (t) {
        case TileType::F16: case TileType::BF16: return 2;
        case TileType::TF32: return 4;
        default: return 1;
    }
}

// ---- descriptors
// ------------------------------------------------------------------------------------------------------
namespace {

uint32_t field(uint64_t bits, int low, int width) { return static_cast<uint32_t>(bits >> low & ((1ull << width) - 1)); }

TileDescriptor common_fields(const Issuer& by, uint64_t bits) {
    if (field(bits, 49, 3))
        by.fault(Fault::Kind::Unsupported,
                 "matrix descriptor with a base offset: only tiles aligned to their swizzle pattern are modelled");
    return {field(bits, 0, 14) << 4, field(bits, 16, 14) << 4, field(bits, 32, 14) << 4, 0};
}

}  // namespace

TileDescriptor hopper_descriptor(const Issuer& by, uint64_t bits) {
    static constexpr uint32_t kSpan[] = {0, 128, 64, 32};
    TileDescriptor d = common_fields(by, bits);
    d.span = kSpan[field(bits, 62, 2)];
    return d;
}
TileDescriptor blackwell_descriptor(const Issuer& by, uint64_t bits) {
    TileDescriptor d = common_fields(by, bits);
    if (field(bits, 46, 3) != 1)
        by.fault(Fault::Kind::IllegalInstruction, "matrix descriptor without the constant 0b001 in bits 46-48");
    if (field(bits, 52, 1))
        by.fault(Fault::Kind::Unsupported, "matrix descriptor with an absolute leading address: not modelled");
    switch (field(bits, 61, 3)) {
        case 0: d.span = 0; break;
        case 2: d.span = 128; break;
        case 4: d.span = 64; break;
        case 6: d.span = 32; break;
        case 1:
            by.fault(Fault::Kind::Unsupported,
                     "matrix descriptor with the 128-byte swizzle of 32-byte atoms: not modelled");
        default: by.fault(Fault::Kind::IllegalInstruction, "matrix descriptor with an invalid swizzle mode");
    }
    return d;
}

// ---- canonical layouts (PTX ISA, "Canonical layouts" of wgmma and of tcgen05)
// ------------------------------------------------
namespace {

// The offset of each 16-byte chunk of the tile, in this order: K-major: row by row, two chunks along k each; else k by
// k, chunks along the rows.
template <class F> inline void each_chunk(const Tile& t, F f) {
    const TileDescriptor& d = t.where;
    const uint32_t row_stride = d.span ? d.span : kChunk;
    if (t.k_major) {
        const uint32_t next = d.span ? kChunk : d.leading;   // along k
        for (uint32_t r = 0; r < t.rows; ++r) {
            const uint32_t row = d.start + (r % 8) * row_stride + (r / 8) * d.stride;
            f(swizzled(row, d.span));
            f(swizzled(row + next, d.span));
        }
        return;
    }
    const uint32_t chunks = t.rows * tile_type_size(t.type) / kChunk, in_span = row_stride / kChunk;
    // Without a swizzle the strides change roles: SBO steps along the rows, LBO along k.
    const uint32_t along_rows = d.span ? d.leading : d.stride, along_k = d.span ? d.stride : d.leading;
    for (uint32_t k = 0; k < t.k(); ++k)
        for (uint32_t c = 0; c < chunks; ++c)
            f(swizzled(d.start + (c % in_span) * kChunk + (c / in_span) * along_rows + (k % 8) * row_stride +
                           (k / 8) * along_k,
                       d.span));
}

struct ByteTables {
    float e4m3[256], e5m2[256], s8[256], u8[256];
    ByteTables() {
        for (int i = 0; i < 256; ++i) {
            const auto byte = static_cast<uint8_t>(i);
            e4m3[i] = e4m3_to_f32(byte);
            e5m2[i] = e5m2_to_f32(byte);
            s8[i] = static_cast<int8_t>(byte);
            u8[i] = byte;
        }
    }
};
const ByteTables& tables() {
    static const ByteTables t;
    return t;
}

// The elements of one chunk, `step` floats apart in `out`.
inline void decode_chunk(TileType type, const uint8_t* bytes, float* out, uint32_t step) {
    switch (type) {
        case TileType::F16:
        case TileType::BF16:
            for (uint32_t i = 0; i < 8; ++i) {
                uint16_t word;
                std::memcpy(&word, bytes + 2 * i, 2);
                out[i * step] = type == TileType::F16 ? f16_to_f32(word) : bf16_to_f32(word);
            }
            return;
        case TileType::TF32:
            for (uint32_t i = 0; i < 4; ++i) {
                uint32_t word;
                std::memcpy(&word, bytes + 4 * i, 4);
                out[i * step] = tf32_operand(word);
            }
            return;
        default: break;
    }
    const ByteTables& t = tables();
    const float* table = type == TileType::E4M3   ? t.e4m3
                         : type == TileType::E5M2 ? t.e5m2
                         : type == TileType::S8   ? t.s8
                                                  : t.u8;
    for (uint32_t i = 0; i < kChunk; ++i) out[i * step] = table[bytes[i]];
}

}  // namespace

float decode_element(TileType type, uint32_t bits) {
    switch (type) {
        case TileType::F16: return f16_to_f32(static_cast<uint16_t>(bits));
        case TileType::BF16: return bf16_to_f32(static_cast<uint16_t>(bits));
        case TileType::TF32: return tf32_operand(bits);
        case TileType::E4M3: return tables().e4m3[bits & 255];
        case TileType::E5M2: return tables().e5m2[bits & 255];
        case TileType::S8: return tables().s8[bits & 255];
        case TileType::U8: return tables().u8[bits & 255];
    }
    return 0;
}

void begin_tile_read(const Issuer& by, Cta& cta, const Tile& tile, const char* what, const Actor& reader) {
    each_chunk(tile, [&](uint32_t offset) { begin_async_read(by, cta, offset, kChunk, what); });
    if (!races_checked(*by.warp)) return;
    PageTouch touch(reader);
    each_chunk(tile, [&](uint32_t offset) { touch.shared(cta, offset, kChunk, Touch::Read); });
}
void end_tile_read(const Issuer& by, Cta& cta, const Tile& tile, const char* what) {
    each_chunk(tile, [&](uint32_t offset) { end_async_read(by, cta, offset, kChunk, what); });
}

void decode_tile(const Cta& cta, const Tile& tile, float* out) {
    const uint32_t k = tile.k(), per_chunk = kChunk / tile_type_size(tile.type), row_chunks = tile.rows / per_chunk;
    uint32_t i = 0;
    const uint8_t* shared = cta.shared.data();
    each_chunk(tile, [&](uint32_t offset) {
        if (tile.k_major) decode_chunk(tile.type, shared + offset, out + (i / 2) * k + (i % 2) * per_chunk, 1);
        else decode_chunk(tile.type, shared + offset, out + i / row_chunks + (i % row_chunks) * per_chunk * k, k);
        ++i;
    });
    if (tile.negate) for (uint32_t e = 0; e < tile.rows * k; ++e) out[e] = -out[e];
}

// ---- the product
// ----------------------------------------------------------------------------------------------------------
namespace {
constexpr uint32_t kVector = 16, kBlock = 4;   // floats a vector, vectors a block of columns
typedef float Vector __attribute__((vector_size(kVector * sizeof(float))));
}  // namespace

void multiply(const float* a, const float* b, uint32_t m, uint32_t n, uint32_t k, float* product) {
    // B transposed: k rows of n, padded to whole blocks.
    constexpr uint32_t kColumns = kVector * kBlock;
    const uint32_t width = (n + kColumns - 1) / kColumns * kColumns;
    std::vector<Vector> transposed(size_t(k) * width / kVector);
    auto* bt = reinterpret_cast<float*>(transposed.data());
    for (uint32_t j = 0; j < n; ++j)
        for (uint32_t i = 0; i < k; ++i) bt[i * width + j] = b[j * k + i];
    for (uint32_t column = 0; column < width; column += kColumns) {
        const Vector* block = transposed.data() + column / kVector;
        const uint32_t wanted = std::min(kColumns, n - column);
        for (uint32_t row = 0; row < m; ++row) {
            Vector sum[kBlock] = {};
            for (uint32_t i = 0; i < k; ++i) {
                const Vector x = a[row * k + i] - Vector{};   // broadcast
                for (uint32_t v = 0; v < kBlock; ++v) sum[v] += x * block[i * (width / kVector) + v];
            }
            std::memcpy(product + size_t(row) * n + column, sum, wanted * sizeof(float));
        }
    }
}

}  // namespace softgpu
