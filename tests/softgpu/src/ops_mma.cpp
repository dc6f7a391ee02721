// mma.sync: a warp's matrix multiply-accumulate on register fragments.
//
// All shapes with the Ampere fragment layout (PTX ISA, "Matrix fragments for mma.m16n8kK"): a 32-bit register
// holds e = 32 / element bits neighbours along k. With g = lane / 4 and t = lane % 4,
//   A register r: row g + 8 (r % 2), k = t e + 4 e (r / 2) + i       (M = 8: one row of registers, r / 2 -> r)
//   B register r: k = t e + 4 e r + i, column g
//   C element  i: row g + 8 (i / 2), column 2 t + i % 2.
// Sums are formed in double and rounded once: hardware's order and internal width differ, results agree to within
// a few units of the accumulator's last place (docs/softgpu.md).
#include <algorithm>

#include "decoder.h"
#include "lanes.h"
#include "sync.h"
#include "tables.h"

namespace softgpu {
namespace {

struct Mma {
    int m, n, k;
    Type a, b, c, d;
    std::vector<Slot> a_regs, b_regs, c_regs, d_regs;
    bool saturate;
};

// The elements in one register of all lanes: out[lane * e + i].
template <int kElements, class F> void spread(const uint32_t* words, double* out, F element) {
    for (int l = 0; l < kWarpSize; ++l)
        for (int i = 0; i < kElements; ++i) out[l * kElements + i] = element(words[l] >> (32 / kElements * i % 32));
}
void unpack(Type t, const uint32_t* words, double* out) {
    switch (t) {
        case Type::F16: return spread<2>(words, out, [](uint32_t v) { return f16_to_f32(static_cast<uint16_t>(v)); });
        case Type::BF16: return spread<2>(words, out, [](uint32_t v) { return bf16_to_f32(static_cast<uint16_t>(v)); });
        case Type::TF32: return spread<1>(words, out, [](uint32_t v) { return tf32_operand(v); });
        case Type::E4M3: return spread<4>(words, out, [](uint32_t v) { return e4m3_to_f32(static_cast<uint8_t>(v)); });
        case Type::E5M2: return spread<4>(words, out, [](uint32_t v) { return e5m2_to_f32(static_cast<uint8_t>(v)); });
        case Type::S8:
            return spread<4>(words, out, [](uint32_t v) { return static_cast<double>(static_cast<int8_t>(v)); });
        case Type::U8:
            return spread<4>(words, out, [](uint32_t v) { return static_cast<double>(static_cast<uint8_t>(v)); });
        default: break;
    }
}

// Integer sums are exact in doubles here: at most 32 products of 16 bits and a 32-bit accumulator.
constexpr int kMaxM = 16, kMaxN = 8, kMaxK = 32;

// c += a b, the sums in double.
void add_product(const Mma& op, const double (&a)[kMaxM][kMaxK], const double (&b)[kMaxK][kMaxN],
                 double (&c)[kMaxM][kMaxN]) {
    for (int row = 0; row < op.m; ++row) {
        double sum[kMaxN];
        std::memcpy(sum, c[row], sizeof sum);
        for (int k = 0; k < op.k; ++k) {
            const double x = a[row][k];
            for (int column = 0; column < kMaxN; ++column) sum[column] += x * b[k][column];
        }
        std::memcpy(c[row], sum, sizeof sum);
    }
}

Flow exec_mma(Warp& w, const Instr& in, Mask m) {
    if (!members_here(w, in, m, kAllLanes)) return w.wait_for("the whole warp", 0);
    if (m != kAllLanes) w.fault(in, Fault::Kind::SyncMisuse, "mma.sync must be executed by all lanes of the warp");
    const Mma& op = *static_cast<const Mma*>(in.extra);
    alignas(64) double a[kMaxM][kMaxK], b[kMaxK][kMaxN], c[kMaxM][kMaxN];
    const bool f64 = op.a == Type::F64;
    const int e = f64 ? 1 : 32 / static_cast<int>(op.a == Type::TF32 ? 32 : type_bits(op.a));
    const int row_registers = op.m / 8;

    double spread_out[kWarpSize * 4];
    const auto elements = [&](Type t, Slot reg) -> const double* {
        if (f64) return w.f64(reg);
        unpack(t, w.r32(reg), spread_out);
        return spread_out;
    };
    for (size_t r = 0; r < op.a_regs.size(); ++r) {
        const int row0 = 8 * (static_cast<int>(r) % row_registers), k0 = 4 * e * (static_cast<int>(r) / row_registers);
        const double* v = elements(op.a, op.a_regs[r]);
        for (int l = 0; l < kWarpSize; ++l)
            for (int i = 0; i < e; ++i) a[l / 4 + row0][(l % 4) * e + k0 + i] = v[l * e + i];
    }
    for (size_t r = 0; r < op.b_regs.size(); ++r) {
        const int k0 = 4 * e * static_cast<int>(r);
        const double* v = elements(op.b, op.b_regs[r]);
        for (int l = 0; l < kWarpSize; ++l)
            for (int i = 0; i < e; ++i) b[(l % 4) * e + k0 + i][l / 4] = v[l * e + i];
    }
    const int c_elements = op.m * op.n / kWarpSize;
    const auto position = [](int l, int i, int& row, int& column) {
        row = l / 4 + 8 * (i / 2);
        column = 2 * (l % 4) + i % 2;
    };
    for (int i = 0; i < c_elements; ++i)
        for (int l = 0; l < kWarpSize; ++l) {
            int row, column;
            position(l, i, row, column);
            const auto reg = [&](int index) { return op.c_regs[static_cast<size_t>(index)]; };
            double v = 0;
            switch (op.c) {
                case Type::F32: v = w.f32(reg(i))[l]; break;
                case Type::F64: v = w.f64(reg(i))[l]; break;
                case Type::S32: v = static_cast<int32_t>(w.r32(reg(i))[l]); break;
                default: v = f16_to_f32(static_cast<uint16_t>(w.r32(reg(i / 2))[l] >> (16 * (i % 2)))); break;
            }
            c[row][column] = v;
        }

    add_product(op, a, b, c);
    for (int i = 0; i < c_elements; ++i)
        for (int l = 0; l < kWarpSize; ++l) {
            int row, column;
            position(l, i, row, column);
            const double v = c[row][column];
            const auto reg = [&](int index) { return op.d_regs[static_cast<size_t>(index)]; };
            switch (op.d) {
                case Type::F32: w.f32(reg(i))[l] = static_cast<float>(v); break;
                case Type::F64: w.f64(reg(i))[l] = v; break;
                case Type::S32: {
                    const auto exact = static_cast<int64_t>(v);
                    w.r32(reg(i))[l] =
                        static_cast<uint32_t>(op.saturate ? std::clamp<int64_t>(exact, INT32_MIN, INT32_MAX) : exact);
                    break;
                }
                default: {
                    uint32_t& word = w.r32(reg(i / 2))[l];
                    const int shift = 16 * (i % 2);
                    word = (word & ~(0xffffu << shift)) | static_cast<uint32_t>(f64_to_f16(v)) << shift;
                }
            }
        }
    return Flow::Next;
}

void decode_mma(Decoder& d, Instr& in) {
    auto* op = d.make_extra<Mma>();
    in.extra = op;
    d.take("sync");
    d.take("aligned");
    d.take("kind::f8f6f4");
    const std::string shape = d.take_prefixed("m");
    int consumed = 0;
    if (std::sscanf(shape.c_str(), "m%dn%dk%d%n", &op->m, &op->n, &op->k, &consumed) != 3 ||
        consumed != static_cast<int>(shape.size()))
        d.error("needs a shape");
    if (!d.take("row") || !d.take("col")) d.error("only row-major A and column-major B exist in this layout");
    op->saturate = d.take("satfinite");
    op->d = d.take_type();
    op->a = d.take_type();
    op->b = d.take_type();
    op->c = d.take_type();
    const bool known_a = op->a == Type::F16 || op->a == Type::BF16 || op->a == Type::TF32 || op->a == Type::E4M3 ||
                         op->a == Type::E5M2 || op->a == Type::S8 || op->a == Type::U8 || op->a == Type::F64;
    const bool known_c = op->c == Type::F32 || op->c == Type::F16 || op->c == Type::S32 || op->c == Type::F64;
    if (!known_a || !known_c) d.error("these element types are not implemented");
    if ((op->m != 8 && op->m != 16) || op->n != 8 || op->k > kMaxK || (op->a == Type::F16 && op->k == 4))
        d.error("this shape is not implemented");
    const Type ab = op->a == Type::F64 ? Type::F64 : Type::B32;
    op->d_regs = d.dst_list(0, op->d == Type::F64 ? Type::F64 : Type::B32);
    op->a_regs = d.src_list(1, ab);
    op->b_regs = d.src_list(2, ab);
    op->c_regs = d.src_list(3, op->c == Type::F64 ? Type::F64 : Type::B32);
    const int e = op->a == Type::F64 || op->a == Type::TF32 ? 1 : 32 / static_cast<int>(type_bits(op->a));
    if (static_cast<int>(op->a_regs.size()) * kWarpSize * e != op->m * op->k ||
        static_cast<int>(op->b_regs.size()) * kWarpSize * e != op->k * op->n)
        d.error("register count does not fit the shape");
    in.fn = exec_mma;
}

}  // namespace

const OpRow kMmaOps[] = {{"mma", decode_mma}};
SOFTGPU_DEFINE_COUNT(Mma)

}  // namespace softgpu
