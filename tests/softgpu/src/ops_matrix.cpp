// ldmatrix, stmatrix, movmatrix: 8x8 matrices of 16-bit elements between shared memory and fragments.
//
// Fragment layout (PTX ISA): lane l holds elements (row l/4, columns 2*(l%4) and 2*(l%4)+1) of each matrix; row i of
// matrix j is at the address that lane 8*j + i gives.
#include "decoder.h"
#include "lanes.h"
#include "memory.h"
#include "sync.h"
#include "tables.h"

namespace softgpu {
namespace {

struct MatrixOperands {
    Address address;
    std::vector<Slot> registers;   // one per matrix
};

// A row of a matrix in the shadow of memory (races.h): the whole warp's access.
void watch_row(Warp& w, const Instr& in, Space space, uint64_t address, Touch touch, const void* fresh = nullptr) {
    if (!races_checked(w)) return;
    PageTouch(threads_of(w, in, kAllLanes)).at(space, address, 16, touch, static_cast<const uint8_t*>(fresh));
}

void require_whole_warp(Warp& w, const Instr& in, Mask m) {
    if (m != kAllLanes)
        w.fault(in, Fault::Kind::SyncMisuse,
                "a .sync.aligned matrix instruction must be executed by all lanes of the warp");
}

template <bool kTranspose> Flow exec_load(Warp& w, const Instr& in, Mask m) {
    if (!members_here(w, in, m, kAllLanes)) return w.wait_for("the whole warp", 0);
    require_whole_warp(w, in, m);
    const auto& op = *static_cast<const MatrixOperands*>(in.extra);
    uint64_t address[kWarpSize];
    lane_addresses(w, op.address.base, op.address.wide, op.address.offset, address);
    const auto space = static_cast<Space>(in.u8[0]);
    uint16_t matrices[4][8][8];
    for (size_t j = 0; j < op.registers.size(); ++j)
        for (size_t i = 0; i < 8; ++i) {
            const int lane = static_cast<int>(8 * j + i);
            std::memcpy(matrices[j][i], resolve(w, in, lane, space, address[lane], 16, Access::Read), 16);
            watch_row(w, in, space, address[lane], Touch::Read);
        }
    for (size_t j = 0; j < op.registers.size(); ++j) {
        uint32_t* dst = w.r32(op.registers[j]);
        for (int l = 0; l < kWarpSize; ++l) {
            const int r = l / 4, c = 2 * (l % 4);
            const uint16_t low = kTranspose ? matrices[j][c][r] : matrices[j][r][c];
            const uint16_t high = kTranspose ? matrices[j][c + 1][r] : matrices[j][r][c + 1];
            dst[l] = low | static_cast<uint32_t>(high) << 16;
        }
    }
    sync_lanes(w, w.alive);
    return Flow::Next;
}
template <bool kTranspose> Flow exec_store(Warp& w, const Instr& in, Mask m) {
    if (!members_here(w, in, m, kAllLanes)) return w.wait_for("the whole warp", 0);
    require_whole_warp(w, in, m);
    const auto& op = *static_cast<const MatrixOperands*>(in.extra);
    uint64_t address[kWarpSize];
    lane_addresses(w, op.address.base, op.address.wide, op.address.offset, address);
    const auto space = static_cast<Space>(in.u8[0]);
    for (size_t j = 0; j < op.registers.size(); ++j) {
        uint16_t matrix[8][8];
        const uint32_t* src = w.r32(op.registers[j]);
        for (int l = 0; l < kWarpSize; ++l) {
            const int r = l / 4, c = 2 * (l % 4);
            (kTranspose ? matrix[c][r] : matrix[r][c]) = static_cast<uint16_t>(src[l]);
            (kTranspose ? matrix[c + 1][r] : matrix[r][c + 1]) = static_cast<uint16_t>(src[l] >> 16);
        }
        for (size_t i = 0; i < 8; ++i) {
            const int lane = static_cast<int>(8 * j + i);
            uint8_t* to = resolve(w, in, lane, space, address[lane], 16, Access::Write);
            watch_row(w, in, space, address[lane], Touch::Write, matrix[i]);
            std::memcpy(to, matrix[i], 16);
        }
    }
    sync_lanes(w, w.alive);
    return Flow::Next;
}

// Blackwell: ldmatrix of 16x16 bytes, transposed; stmatrix of 16x8 bytes, transposed.
// ldmatrix .m16n16 .trans .b8: rows of 16 bytes, x1 uses lanes 0..15, x2 all; two registers a matrix.
Flow exec_load_bytes_transposed(Warp& w, const Instr& in, Mask m) {
    if (!members_here(w, in, m, kAllLanes)) return w.wait_for("the whole warp", 0);
    require_whole_warp(w, in, m);
    const auto& op = *static_cast<const MatrixOperands*>(in.extra);
    uint64_t address[kWarpSize];
    lane_addresses(w, op.address.base, op.address.wide, op.address.offset, address);
    const auto space = static_cast<Space>(in.u8[0]);
    for (size_t j = 0; 2 * j < op.registers.size(); ++j) {
        uint8_t matrix[16][16];
        for (size_t i = 0; i < 16; ++i) {
            const int lane = static_cast<int>(16 * j + i);
            std::memcpy(matrix[i], resolve(w, in, lane, space, address[lane], 16, Access::Read), 16);
            watch_row(w, in, space, address[lane], Touch::Read);
        }
        for (size_t half = 0; half < 2; ++half) {
            uint32_t* dst = w.r32(op.registers[2 * j + half]);
            for (int l = 0; l < kWarpSize; ++l) {
                uint32_t word = 0;
                for (int e = 0; e < 4; ++e)
                    word |= static_cast<uint32_t>(matrix[4 * (l % 4) + e][static_cast<size_t>(l / 4) + 8 * half])
                            << (8 * e);
                dst[l] = word;
            }
        }
    }
    sync_lanes(w, w.alive);
    return Flow::Next;
}
Flow exec_store_bytes_transposed(Warp& w, const Instr& in, Mask m) {   // stmatrix .m16n8 .trans .b8
    if (!members_here(w, in, m, kAllLanes)) return w.wait_for("the whole warp", 0);
    require_whole_warp(w, in, m);
    const auto& op = *static_cast<const MatrixOperands*>(in.extra);
    uint64_t address[kWarpSize];
    lane_addresses(w, op.address.base, op.address.wide, op.address.offset, address);
    const auto space = static_cast<Space>(in.u8[0]);
    for (size_t j = 0; j < op.registers.size(); ++j) {
        uint8_t matrix[8][16];   // row = lane / 4, as stored
        const uint32_t* src = w.r32(op.registers[j]);
        for (int l = 0; l < kWarpSize; ++l)
            for (int e = 0; e < 4; ++e) matrix[l / 4][4 * (l % 4) + e] = static_cast<uint8_t>(src[l] >> (8 * e));
        for (size_t i = 0; i < 8; ++i) {
            const int lane = static_cast<int>(8 * j + i);
            uint8_t* to = resolve(w, in, lane, space, address[lane], 16, Access::Write);
            watch_row(w, in, space, address[lane], Touch::Write, matrix[i]);
            std::memcpy(to, matrix[i], 16);
        }
    }
    sync_lanes(w, w.alive);
    return Flow::Next;
}

template <bool kStore> void decode_matrix(Decoder& d, Instr& in) {
    d.take("sync");
    d.take("aligned");
    const std::string shape = d.take_any({"m8n8", "m16n16", "m16n8"});
    const std::string count = d.take_any({"x1", "x2", "x4"});
    const bool transpose = d.take("trans");
    const bool shared = !d.take_any({"shared", "shared::cta"}).empty();
    const Type t = d.take_type();
    auto* op = d.make_extra<MatrixOperands>();
    in.extra = op;
    op->address = d.address(kStore ? 0 : 1);
    op->registers = kStore ? d.src_list(1, Type::B32) : d.dst_list(0, Type::B32);
    in.u8[0] = static_cast<uint8_t>(shared ? Space::Shared : Space::Generic);
    const auto matrices = static_cast<size_t>(count.empty() ? 1 : count[1] - '0');
    if (shape == "m8n8" && t == Type::B16) {
        if (op->registers.size() != matrices) d.error("register count differs from the number of matrices");
        if (kStore) in.fn = transpose ? exec_store<true> : exec_store<false>;
        else in.fn = transpose ? exec_load<true> : exec_load<false>;
        return;
    }
    if (!kStore && shape == "m16n16" && t == Type::B8 && transpose) {
        if (op->registers.size() != 2 * matrices) d.error("register count differs from the number of matrices");
        in.fn = exec_load_bytes_transposed;
        return;
    }
    if (kStore && shape == "m16n8" && t == Type::B8 && transpose) {
        in.fn = exec_store_bytes_transposed;
        return;
    }
    d.error("this shape and element type are not implemented");
}

Flow exec_movmatrix(Warp& w, const Instr& in, Mask m) {
    if (!members_here(w, in, m, kAllLanes)) return w.wait_for("the whole warp", 0);
    require_whole_warp(w, in, m);
    uint16_t matrix[8][8];
    for (int l = 0; l < kWarpSize; ++l) {
        matrix[l / 4][2 * (l % 4)] = static_cast<uint16_t>(w.r32(in.a)[l]);
        matrix[l / 4][2 * (l % 4) + 1] = static_cast<uint16_t>(w.r32(in.a)[l] >> 16);
    }
    for (int l = 0; l < kWarpSize; ++l)
        w.r32(in.dst)[l] = matrix[2 * (l % 4)][l / 4] | static_cast<uint32_t>(matrix[2 * (l % 4) + 1][l / 4]) << 16;
    return Flow::Next;
}
void decode_movmatrix(Decoder& d, Instr& in) {
    for (const char* t : {"sync", "aligned", "m8n8", "trans", "b16"}) d.take(t);
    in.dst = d.dst(0, Type::B32);
    in.a = d.src(1, Type::B32);
    in.fn = exec_movmatrix;
}

}  // namespace

const OpRow kMatrixOps[] = {
    {"ldmatrix", decode_matrix<false>}, {"stmatrix", decode_matrix<true>}, {"movmatrix", decode_movmatrix}};
SOFTGPU_DEFINE_COUNT(Matrix)

}  // namespace softgpu
