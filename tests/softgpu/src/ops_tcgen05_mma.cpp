// tcgen05.mma: D (tensor memory) = A (shared or tensor memory) x B (shared memory) [+ D], by one CTA or a pair.
//
// An MMA reads its operands when it completes, in the order of its thread's chain (tcgen05.h). From issue to completion
// its accumulator cells are in flight.
#include <algorithm>
#include <bit>

#include "decoder.h"
#include "lanes.h"
#include "operand_tile.h"
#include "tables.h"
#include "tcgen05.h"
#include "tmem.h"

namespace softgpu {
namespace {

enum class Kind : uint8_t { F16, TF32, F8, I8 };
enum class Accumulate : uint8_t { F16, F32, S32 };

struct Operands {
    Kind kind;
    bool pair = false, a_in_tmem = false;
    Slot d = kNoSlot, a = kNoSlot, b = kNoSlot, instruction = kNoSlot, enable = kNoSlot;
    int64_t d_offset = 0, a_offset = 0;
    bool enable_negated = false;
    std::vector<Slot> disabled_lanes;
};

// The instruction descriptor (PTX ISA, tcgen05: instruction descriptor).
struct Instruction {
    uint32_t m, n;
    Accumulate accumulate;
    TileType a, b;
    bool a_negated, b_negated, a_k_major, b_k_major, saturate;
};
TileType tile_type(const Issuer& by, Kind kind, uint32_t code) {
    switch (kind) {
        case Kind::F16: if (code < 2) return code ? TileType::BF16 : TileType::F16; break;
        case Kind::TF32: if (code == 2) return TileType::TF32; break;
        case Kind::F8:
            if (code == 0) return TileType::E4M3;
            if (code == 1) return TileType::E5M2;
            if (code <= 5) by.fault(Fault::Kind::Unsupported, "6- and 4-bit operands of tcgen05.mma are not modelled");
            break;
        case Kind::I8: if (code < 2) return code ? TileType::S8 : TileType::U8; break;
    }
    by.fault(Fault::Kind::IllegalInstruction,
             "operand type " + std::to_string(code) + " in the instruction descriptor does not go with this .kind");
}
Instruction decode_instruction(const Issuer& by, Kind kind, uint32_t bits) {
    const auto field = [&](int low, int width) { return bits >> low & ((1u << width) - 1); };
    Instruction i{};
    if (field(2, 1) || field(0, 2))
        by.fault(Fault::Kind::Unsupported, "sparse operands of tcgen05.mma are not modelled");
    i.saturate = field(3, 1);
    switch (field(4, 2)) {
        case 0: i.accumulate = Accumulate::F16; break;
        case 1: i.accumulate = Accumulate::F32; break;
        case 2: i.accumulate = Accumulate::S32; break;
        default: by.fault(Fault::Kind::IllegalInstruction, "accumulator type 3 in the instruction descriptor");
    }
    if ((i.accumulate == Accumulate::S32) != (kind == Kind::I8) ||
        (i.accumulate == Accumulate::F16 && kind == Kind::TF32))
        by.fault(Fault::Kind::IllegalInstruction,
                 "the accumulator type in the instruction descriptor does not go with this .kind");
    i.a = tile_type(by, kind, field(7, 3));
    i.b = tile_type(by, kind, field(10, 3));
    i.a_negated = field(13, 1);
    i.b_negated = field(14, 1);
    i.a_k_major = !field(15, 1);
    i.b_k_major = !field(16, 1);
    i.n = field(17, 6) << 3;
    i.m = field(24, 5) << 4;
    if (field(6, 1) || field(23, 1) || field(29, 1) || field(30, 2))
        by.fault(Fault::Kind::IllegalInstruction, "reserved bits are set in the instruction descriptor");
    return i;
}

struct Mma {
    Issuer by;
    const Operands* op;
    Instruction i;
    std::vector<Cta*> ctas;       // one, or the pair with the even CTA first
    TileDescriptor a, b;
    uint32_t d_lane, d_column, a_lane = 0, a_column = 0;
    bool accumulate;
    uint32_t number;              // of this MMA, marks its cells
    std::array<uint32_t, 8> disabled{};

    uint32_t rows() const { return i.m / static_cast<uint32_t>(ctas.size()); }   // of A and D in each CTA
    uint32_t k() const { return 32 / tile_type_size(i.a); }
    Tile a_tile() const { return {a, i.a, rows(), i.a_k_major, i.a_negated}; }
    Tile b_tile() const { return {b, i.b, i.n / static_cast<uint32_t>(ctas.size()), i.b_k_major, i.b_negated}; }

    // Data path layouts of D (PTX ISA, tcgen05: data path layout organization). Folded: M = 64 rows a CTA of a pair,
    // the upper half of the columns in lanes 64-127 (layout B). Spread: M = 64 in one CTA, 16 rows in each warp's lanes
    // (F).
    bool folded() const { return ctas.size() == 2 && i.m == 128; }
    bool spread() const { return ctas.size() == 1 && i.m == 64; }
    uint32_t columns() const { return folded() ? i.n / 2 : i.n; }
    uint32_t lane(uint32_t row, uint32_t column) const {
        if (folded()) return row + (column >= i.n / 2 ? 64 : 0);
        if (spread()) return d_lane + row / 16 * 32 + row % 16;
        return row;
    }
    uint32_t a_tmem_lane(uint32_t row) const { return spread() ? a_lane + row / 16 * 32 + row % 16 : row; }
    bool a_group_used(uint32_t group) const { return !spread() || group % 2 == a_lane / 16; }
    uint32_t column(uint32_t c) const { return d_column + (folded() && c >= i.n / 2 ? c - i.n / 2 : c); }
    bool group_used(uint32_t group) const { return !spread() || group % 2 == d_lane / 16; }
};

void check_shape(const Mma& mma) {
    const Instruction& i = mma.i;
    const bool one = mma.ctas.size() == 1;
    const bool m_ok = one ? i.m == 64 || i.m == 128 : i.m == 128 || i.m == 256;
    const uint32_t step = one ? (i.m == 64 ? 8 : 16) : (i.m == 128 ? 16 : 32);   // PTX ISA, shapes of tcgen05.mma
    if (!m_ok || i.n == 0 || i.n > 256 || i.n % (mma.op->kind == Kind::I8 && i.n > 32 ? std::max(step, 16u) : step))
        mma.by.fault(Fault::Kind::IllegalInstruction, "there is no shape M = " + std::to_string(i.m) +
                                                          ", N = " + std::to_string(i.n) + " for a group of " +
                                                          std::to_string(mma.ctas.size()) + " CTAs");
    if (mma.spread() ? mma.d_lane != 0 && mma.d_lane != 16 : mma.d_lane != 0)
        mma.by.fault(Fault::Kind::IllegalInstruction, "the accumulator starts at lane " + std::to_string(mma.d_lane));
    if (mma.op->a_in_tmem && mma.folded())
        mma.by.fault(Fault::Kind::Unsupported, "operand A in TMEM with M = 128 in a pair is not modelled");
    if (mma.spread() ? mma.a_lane != 0 && mma.a_lane != 16 : mma.a_lane != 0)
        mma.by.fault(Fault::Kind::IllegalInstruction, "operand A starts at lane " + std::to_string(mma.a_lane));
}

// The cells of D: accumulators are there, nobody else writes them; from now on they are this MMA's.
void claim_accumulator(const Mma& mma, uint64_t chain) {
    for (Cta* cta : mma.ctas) {
        require_allocated(mma.by, *cta, mma.d_column, mma.columns());
        Tmem& t = tmem(*cta);
        for (uint32_t c = mma.d_column; c < mma.d_column + mma.columns(); ++c)
            for (uint32_t g = 0; g < kTmemGroups; ++g) {
                if (!mma.group_used(g)) continue;
                Tmem::Cell& cell = t.cell(c, g);
                if (cell.state == TmemState::Matrix) {
                    if (static_cast<uint32_t>(chain) != cell.writer >> 12)
                        mma.by.fault(Fault::Kind::SyncMisuse, "accumulates in " + tmem_place(g * kTmemGroupLanes, c) +
                                                                  ", where an MMA of another thread is in flight");
                } else if (mma.accumulate) require_tmem_readable(mma.by, *cta, g * kTmemGroupLanes, c);
                cell = {TmemState::Matrix, mma.number};
            }
    }
}

void read_a_tmem(const Mma& mma, Cta& cta, std::vector<float>& a) {
    Tmem& t = tmem(cta);
    const uint32_t size = tile_type_size(mma.i.a), per_word = 4 / size, k = mma.k();
    for (uint32_t c = 0; c < k / per_word; ++c)
        for (uint32_t row = 0; row < mma.rows(); ++row) {
            const uint32_t word = t.column(mma.a_column + c)[mma.a_tmem_lane(row)];
            for (uint32_t e = 0; e < per_word; ++e) {
                const float v = decode_element(mma.i.a, word >> (8 * size * e));
                a[row * k + c * per_word + e] = mma.i.a_negated ? -v : v;
            }
        }
}
void require_a_tmem(const Mma& mma) {
    const uint32_t columns = mma.k() * tile_type_size(mma.i.a) / 4;
    for (Cta* cta : mma.ctas) {
        require_allocated(mma.by, *cta, mma.a_column, columns);
        for (uint32_t c = 0; c < columns; ++c)
            for (uint32_t g = 0; g < kTmemGroups; ++g)
                if (mma.a_group_used(g)) require_tmem_readable(mma.by, *cta, g * kTmemGroupLanes, mma.a_column + c);
    }
}

void complete(const Mma& mma) {
    const uint32_t rows = mma.rows(), n = mma.i.n, k = mma.k();
    std::vector<float> b(n * k), a(rows * k), product(rows * n);
    const Tile bt = mma.b_tile();
    for (size_t i = 0; i < mma.ctas.size(); ++i) {
        end_tile_read(mma.by, *mma.ctas[i], bt, "this MMA (operand B)");
        decode_tile(*mma.ctas[i], bt, b.data() + i * bt.rows * k);
    }
    for (Cta* cta : mma.ctas) {
        if (mma.op->a_in_tmem) read_a_tmem(mma, *cta, a);
        else {
            end_tile_read(mma.by, *cta, mma.a_tile(), "this MMA (operand A)");
            decode_tile(*cta, mma.a_tile(), a.data());
        }
        multiply(a.data(), b.data(), rows, n, k, product.data());
        Tmem& t = tmem(*cta);
        for (uint32_t c = 0; c < n; ++c) {
            uint32_t* words = t.column(mma.column(c));
            for (uint32_t row = 0; row < rows; ++row) {
                const uint32_t lane = mma.lane(row, c);
                if ((mma.disabled[cta->rank % 2 * 4 + lane / 32 % 4] >> lane % 32) & 1) continue;
                uint32_t& word = words[lane];
                const float v = product[row * n + c];
                switch (mma.i.accumulate) {
                    case Accumulate::F32: word = F32::put(mma.accumulate ? F32::get(word) + v : v); break;
                    case Accumulate::F16:
                        word = f32_to_f16(mma.accumulate ? f16_to_f32(static_cast<uint16_t>(word)) + v : v);
                        break;
                    case Accumulate::S32: {
                        const int64_t sum = static_cast<int64_t>(v) + (mma.accumulate ? static_cast<int32_t>(word) : 0);
                        word = static_cast<uint32_t>(mma.i.saturate ? std::clamp<int64_t>(sum, INT32_MIN, INT32_MAX)
                                                                    : sum);
                    }
                }
            }
        }
        for (uint32_t c = mma.d_column; c < mma.d_column + mma.columns(); ++c)
            for (uint32_t g = 0; g < kTmemGroups; ++g)
                if (Tmem::Cell& cell = t.cell(c, g); cell.state == TmemState::Matrix && cell.writer == mma.number)
                    cell.state = TmemState::Valid;
    }
}

// Tensor memory that it reads and writes, in the shadow of memory (races.h).
void watch_tensor_memory(const Mma& mma, const Actor& actor) {
    PageTouch touch(actor);
    const uint32_t a_columns = mma.op->a_in_tmem ? mma.k() * tile_type_size(mma.i.a) / 4 : 0;
    for (Cta* cta : mma.ctas)
        for (uint32_t g = 0; g < kTmemGroups; ++g) {
            for (uint32_t c = 0; c < a_columns; ++c)
                if (mma.a_group_used(g)) touch.tensor(*cta, mma.a_column + c, g, Touch::Read);
            for (uint32_t c = 0; c < mma.columns(); ++c)
                if (mma.group_used(g)) touch.tensor(*cta, mma.d_column + c, g, Touch::Write);
        }
}

struct Issued { uint32_t count = 0; };   // MMAs of a cluster

void issue(Warp& w, const Instr& in, int l) {
    const auto& op = *static_cast<const Operands*>(in.extra);
    Mma mma;
    mma.by = {&w, &in};
    mma.op = &op;
    mma.i = decode_instruction(mma.by, op.kind, w.r32(op.instruction)[l]);
    mma.ctas = {w.cta};
    if (op.pair) {
        mma.ctas.push_back(&pair_peer(w, in));
        if (w.cta->rank & 1) std::swap(mma.ctas[0], mma.ctas[1]);
        if (!mma.ctas[0]->live_threads || !mma.ctas[1]->live_threads)
            w.fault(in, Fault::Kind::SyncMisuse, "a CTA of the pair has already exited", l);
    }
    const uint32_t d = w.r32(op.d)[l] + static_cast<uint32_t>(op.d_offset);
    mma.d_lane = tmem_lane(d);
    mma.d_column = tmem_column(d);
    mma.b = blackwell_descriptor(mma.by, w.r64(op.b)[l]);
    if (op.a_in_tmem) {
        const uint32_t a = w.r32(op.a)[l] + static_cast<uint32_t>(op.a_offset);
        mma.a_lane = tmem_lane(a);
        mma.a_column = tmem_column(a);
    } else mma.a = blackwell_descriptor(mma.by, w.r64(op.a)[l]);
    mma.accumulate = ((w.pred(op.enable) >> l & 1) != 0) != op.enable_negated;
    for (size_t i = 0; i < op.disabled_lanes.size(); ++i) mma.disabled[i] = w.r32(op.disabled_lanes[i])[l];
    check_shape(mma);
    const uint64_t chain = tcgen05_chain(w, l);
    // 12 bits tell the MMAs of a chain apart, the rest says whose chain.
    mma.number = static_cast<uint32_t>(chain) << 12 | (w.cta->cluster->state<Issued>().count++ & 0xfff);
    const Actor actor = unit_of(w, in, 1u << l, Unit::Tcgen05, ++w.state<Tcgen05Issued>().count);
    for (Cta* cta : mma.ctas) {
        begin_tile_read(mma.by, *cta, mma.b_tile(), "this MMA (operand B)", actor);
        if (!op.a_in_tmem) begin_tile_read(mma.by, *cta, mma.a_tile(), "this MMA (operand A)", actor);
    }
    if (op.a_in_tmem) require_a_tmem(mma);
    claim_accumulator(mma, chain);
    if (races_checked(w)) watch_tensor_memory(mma, actor);
    w.cta->cluster->async.push({"tcgen05.mma of PTX line " + std::to_string(w.program->sources[in.source].line),
                                [mma] { complete(mma); }, chain, 0, &w, &in});
}
Flow exec_mma(Warp& w, const Instr& in, Mask m) {
    each_lane(m, [&](int l) { issue(w, in, l); });
    return Flow::Next;
}

void decode_mma(Decoder& d, Instr& in) {
    auto* op = d.make_extra<Operands>();
    in.extra = op;
    const std::string group = d.take_any({"cta_group::1", "cta_group::2"});
    if (group.empty()) d.error("needs .cta_group::1 or .cta_group::2");
    op->pair = group.back() == '2';
    const std::string kind = d.take_any({"kind::f16", "kind::tf32", "kind::f8f6f4", "kind::i8"});
    if (kind.empty()) d.error("this .kind is not implemented");
    op->kind = kind == "kind::f16"    ? Kind::F16
               : kind == "kind::tf32" ? Kind::TF32
               : kind == "kind::i8"   ? Kind::I8
                                      : Kind::F8;
    // Where operand A is kept between MMAs: performance only.
    d.take_any({"collector::a::fill", "collector::a::use", "collector::a::lastuse", "collector::a::discard"});
    const auto tmem_operand = [&](size_t i, Slot& slot, int64_t& offset) {
        const Address a = d.address(i);
        if (a.base == kNoSlot || a.wide) d.error("a TMEM address is a 32-bit register");
        slot = a.base;
        offset = a.offset;
    };
    tmem_operand(0, op->d, op->d_offset);
    op->a_in_tmem = d.operand(1).kind == Operand::Kind::Address;
    if (op->a_in_tmem) tmem_operand(1, op->a, op->a_offset);
    else op->a = d.src(1, Type::B64);
    op->b = d.src(2, Type::B64);
    op->instruction = d.src(3, Type::U32);
    size_t next = 4;
    if (d.operand(next).kind == Operand::Kind::Vector) {
        op->disabled_lanes = d.src_list(next++, Type::B32);
        if (op->disabled_lanes.size() != (op->pair ? 8u : 4u))
            d.error("the mask of disabled lanes has the wrong number of registers");
    }
    op->enable = d.pred_src(next++, &op->enable_negated);
    if (d.operand_count() > next) d.error("scaling of the accumulator is not implemented");
    in.fn = exec_mma;
}

}  // namespace

const OpRow kTcgen05MmaOps[] = {{"tcgen05.mma", decode_mma}};
SOFTGPU_DEFINE_COUNT(Tcgen05Mma)

}  // namespace softgpu
