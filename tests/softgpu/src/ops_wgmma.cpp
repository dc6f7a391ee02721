// wgmma.*: the matrix unit of sm_90a. A warpgroup's instruction is carried out warp by warp: each computes its 16 rows.
//
// From its issue until a wgmma.wait_group the accumulator registers hold poison; operands are read from shared memory
// at the end of that wait, which takes its time, so that memory handed on too early is found out. wgmma.fence orders
// registers that are in order here.
#include <algorithm>

#include "decoder.h"
#include "lanes.h"
#include "operand_tile.h"
#include "sync.h"
#include "tables.h"

namespace softgpu {
namespace {

constexpr uint32_t kPoisonWord = 0xffffffffu;
constexpr uint32_t kWarpRows = 16;

struct Wgmma {
    uint32_t n;
    TileType a, b;
    Type d;                                   // F32, F16 or S32
    std::vector<Slot> accumulator, a_regs;    // a_regs empty: A is in shared memory
    Slot a_descriptor = kNoSlot, b_descriptor = kNoSlot;
    Slot scale_d = kNoSlot;                   // predicate: add to the accumulator
    bool scale_d_negated = false, saturate = false, a_negated = false, b_negated = false;
    bool a_k_major = true, b_k_major = true;
};

// Accumulator registers in flight: their true contents, which the instructions in flight work on in order.
struct Accumulator {
    const std::vector<Slot>* slots;
    std::vector<std::array<uint32_t, kWarpSize>> words;
    int users = 0;
};
struct Pending {
    const Wgmma* op;
    Issuer by;
    std::shared_ptr<Accumulator> accumulator;
    TileDescriptor a, b;
    std::vector<float> a_values;              // from registers
    bool accumulate;
    uint64_t group;
};
struct PendingWgmmas {
    std::vector<Pending> pending;             // in issue order
    uint64_t committed = 0;
    bool waited_for = false;                  // by the warp's wait: it goes on once this is done
};

Tile a_tile(const Pending& p, const Warp& w) {
    Tile t{p.a, p.op->a, 64, p.op->a_k_major, p.op->a_negated};
    // This warp's 16 of the 64 rows. Rows are in groups of 8 (SBO apart), or contiguous if A is M-major.
    const uint32_t first = w.index % 4 * kWarpRows;
    t.rows = kWarpRows;
    if (t.k_major) t.where.start += first / 8 * t.where.stride;
    else {
        const uint32_t byte = first * tile_type_size(t.type), span = t.where.span ? t.where.span : kChunk;
        t.where.start += byte % span + byte / span * (t.where.span ? t.where.leading : t.where.stride);
    }
    return t;
}
Tile b_tile(const Pending& p) { return {p.b, p.op->b, p.op->n, p.op->b_k_major, p.op->b_negated}; }

// Where accumulator element i of a lane is, in the warp's 16 x n (PTX ISA, "Register fragments and shared memory matrix
// layout").
inline void element_place(int lane, uint32_t i, uint32_t& row, uint32_t& column) {
    row = static_cast<uint32_t>(lane) / 4 + 8 * (i / 2 % 2);
    column = 8 * (i / 4) + 2 * (static_cast<uint32_t>(lane) % 4) + i % 2;
}

void run(Warp& w, Pending& p) {
    const Wgmma& op = *p.op;
    const uint32_t k = 32 / tile_type_size(op.a);
    std::vector<float> a(kWarpRows * k), b(op.n * k), product(kWarpRows * op.n);
    const Tile bt = b_tile(p);
    end_tile_read(p.by, *w.cta, bt, "this wgmma (operand B)");
    decode_tile(*w.cta, bt, b.data());
    if (op.a_regs.empty()) {
        const Tile at = a_tile(p, w);
        end_tile_read(p.by, *w.cta, at, "this wgmma (operand A)");
        decode_tile(*w.cta, at, a.data());
    } else a = p.a_values;
    multiply(a.data(), b.data(), kWarpRows, op.n, k, product.data());
    auto& words = p.accumulator->words;
    for (uint32_t i = 0; i < op.n / 2; ++i)
        for (int l = 0; l < kWarpSize; ++l) {
            uint32_t row, column;
            element_place(l, i, row, column);
            const float v = product[row * op.n + column];
            if (op.d == Type::F32) {
                uint32_t& word = words[i][static_cast<size_t>(l)];
                word = F32::put(p.accumulate ? F32::get(word) + v : v);
            } else if (op.d == Type::S32) {
                uint32_t& word = words[i][static_cast<size_t>(l)];
                const int64_t sum = static_cast<int64_t>(v) + (p.accumulate ? static_cast<int32_t>(word) : 0);
                word = static_cast<uint32_t>(op.saturate ? std::clamp<int64_t>(sum, INT32_MIN, INT32_MAX) : sum);
            } else {
                uint32_t& word = words[i / 2][static_cast<size_t>(l)];
                const int shift = i % 2 ? 16 : 0;
                const float old = p.accumulate ? f16_to_f32(static_cast<uint16_t>(word >> shift)) : 0;
                word = (word & ~(0xffffu << shift)) | uint32_t(f32_to_f16(old + v)) << shift;
            }
        }
    if (--p.accumulator->users == 0)
        for (size_t i = 0; i < words.size(); ++i)
            std::memcpy(w.r32((*p.accumulator->slots)[i]), words[i].data(), sizeof words[i]);
}

std::shared_ptr<Accumulator> acquire(Warp& w, const Instr& in, const Wgmma& op, PendingWgmmas& state) {
    for (const Pending& p : state.pending) {
        const auto& slots = *p.accumulator->slots;
        if (slots == op.accumulator) return p.accumulator;
        for (const Slot s : op.accumulator)
            if (std::find(slots.begin(), slots.end(), s) != slots.end())
                w.fault(in, Fault::Kind::SyncMisuse,
                        "its accumulator overlaps another wgmma's that is in flight and has a different shape");
    }
    auto a = std::make_shared<Accumulator>();
    a->slots = &op.accumulator;
    a->words.resize(op.accumulator.size());
    for (size_t i = 0; i < a->words.size(); ++i) {
        std::memcpy(a->words[i].data(), w.r32(op.accumulator[i]), sizeof a->words[i]);
        std::fill_n(w.r32(op.accumulator[i]), kWarpSize, kPoisonWord);
    }
    return a;
}

// A from registers: register r holds e elements along k, as in mma.sync's m16n8kK.
void read_a_registers(Warp& w, const Wgmma& op, std::vector<float>& a) {
    const uint32_t size = tile_type_size(op.a), e = 4 / size, k = 32 / size;
    a.resize(kWarpRows * k);
    for (uint32_t r = 0; r < op.a_regs.size(); ++r)
        for (uint32_t l = 0; l < kWarpSize; ++l)
            for (uint32_t i = 0; i < e; ++i) {
                const float v = decode_element(op.a, w.r32(op.a_regs[r])[l] >> (i * 8 * size));
                a[(l / 4 + 8 * (r % 2)) * k + (l % 4) * e + 4 * e * (r / 2) + i] = op.a_negated ? -v : v;
            }
}

Flow exec_wgmma(Warp& w, const Instr& in, Mask m) {
    if (!members_here(w, in, m, kAllLanes)) return w.wait_for("the whole warp", 0);
    const auto& op = *static_cast<const Wgmma*>(in.extra);
    if (m != kAllLanes) w.fault(in, Fault::Kind::SyncMisuse, "wgmma must be executed by all lanes of the warp");
    PendingWgmmas& state = w.state<PendingWgmmas>();
    Pending p;
    p.op = &op;
    p.by = {&w, &in};
    p.b = hopper_descriptor(p.by, w.r64(op.b_descriptor)[0]);
    p.accumulate = ((w.pred(op.scale_d) & 1) != 0) != op.scale_d_negated;
    p.group = state.committed;
    const Actor reader = unit_of(w, in, m, Unit::Wgmma, static_cast<Clock>(state.committed + 1));
    begin_tile_read(p.by, *w.cta, b_tile(p), "this wgmma (operand B)", reader);
    if (op.a_regs.empty()) {
        p.a = hopper_descriptor(p.by, w.r64(op.a_descriptor)[0]);
        begin_tile_read(p.by, *w.cta, a_tile(p, w), "this wgmma (operand A)", reader);
    } else read_a_registers(w, op, p.a_values);
    p.accumulator = acquire(w, in, op, state);
    ++p.accumulator->users;
    state.pending.push_back(std::move(p));
    return Flow::Next;
}

Flow exec_commit(Warp& w, const Instr& in, Mask m) {
    if (!members_here(w, in, m, kAllLanes)) return w.wait_for("the whole warp", 0);
    ++w.state<PendingWgmmas>().committed;
    return Flow::Next;
}
// Copies of accumulators between commit and wait are the compiler's (Triton's f16 accumulation has them; ptxas gives
// both the same register): they take effect at the wait. Anything else that touches them in flight sees poison.
void redo_copies(Warp& w, std::vector<Slot> taken, Mask m) {
    const auto& code = w.program->code;
    const auto is_move = [&](const Instr& i) { return w.program->sources[i.source].opcode.rfind("mov.", 0) == 0; };
    const auto is_jump = [&](const Instr& i) { return w.program->sources[i.source].opcode.rfind("bra", 0) == 0; };
    uint32_t first = w.cur.pc;
    // Behind a loop of no iteration there are zeros for its sums, which whoever comes from the loop has not passed.
    while (first > 0 && !w.program->joins[first] && code[first - 1].fn != exec_commit && !is_jump(code[first - 1]))
        --first;
    for (uint32_t pc = first; pc < w.cur.pc; ++pc) {
        const Instr& i = code[pc];
        if (i.guard != kNoSlot || !is_move(i) || i.a == kNoSlot ||
            std::find(taken.begin(), taken.end(), i.a) == taken.end())
            continue;
        i.fn(w, i, m);
        if (i.dst != kNoSlot) taken.push_back(i.dst);
    }
}
// The oldest `count` of those in flight take place.
void complete(Warp& w, PendingWgmmas& state, size_t count, Mask m) {
    std::vector<Slot> finished;
    for (size_t i = 0; i < count; ++i) {
        Pending& p = state.pending[i];
        run(w, p);
        if (p.accumulator->users == 0)
            finished.insert(finished.end(), p.op->accumulator.begin(), p.op->accumulator.end());
    }
    state.pending.erase(state.pending.begin(), state.pending.begin() + static_cast<std::ptrdiff_t>(count));
    if (!finished.empty()) redo_copies(w, std::move(finished), m);
}
Flow finished(Warp& w, const Instr& in, const PendingWgmmas& state) {
    const auto left = static_cast<uint64_t>(in.imm);
    if (state.committed > left) finish_unit(w, Unit::Wgmma, static_cast<Clock>(state.committed - left));
    return Flow::Next;
}
Flow exec_wait(Warp& w, const Instr& in, Mask m) {
    if (!members_here(w, in, m, kAllLanes)) return w.wait_for("the whole warp", 0);
    PendingWgmmas& state = w.state<PendingWgmmas>();
    if (w.cur.token == 0) {
        size_t count = 0;
        while (count < state.pending.size() &&
               state.pending[count].group + static_cast<uint64_t>(in.imm) < state.committed)
            ++count;
        if (count == 0) return finished(w, in, state);
        state.waited_for = true;
        w.cur.token = 1;
        w.cta->cluster->async.push({"wgmma of a warp that waits for it", [&w, count, m] {
                                        PendingWgmmas& own = w.state<PendingWgmmas>();
                                        complete(w, own, count, m);
                                        own.waited_for = false;
                                    },
                                    0, 0, &w, &in});
    }
    if (state.waited_for) return w.wait_for("its wgmma, groups in flight at most", static_cast<uint64_t>(in.imm));
    w.cur.token = 0;
    return finished(w, in, state);
}
Flow exec_fence(Warp& w, const Instr& in, Mask m) {
    return members_here(w, in, m, kAllLanes) ? Flow::Next : w.wait_for("the whole warp", 0);
}

// ---- decoding
// -----------------------------------------------------------------------------------------------------------
void take_aligned(Decoder& d) {
    if (!d.take("sync") || !d.take("aligned")) d.error("needs .sync.aligned");
}
void decode_commit(Decoder& d, Instr& in) {
    take_aligned(d);
    in.fn = exec_commit;
}
void decode_wait(Decoder& d, Instr& in) {
    take_aligned(d);
    const auto n = d.immediate(0);
    if (!n) d.error("the number of groups must be a constant");
    in.imm = static_cast<int64_t>(*n);
    in.fn = exec_wait;
}
void decode_fence(Decoder& d, Instr& in) {
    take_aligned(d);
    in.fn = exec_fence;
}

TileType take_tile_type(Decoder& d) {
    static const std::pair<Type, TileType> rows[] = {{Type::F16, TileType::F16},   {Type::BF16, TileType::BF16},
                                                     {Type::TF32, TileType::TF32}, {Type::E4M3, TileType::E4M3},
                                                     {Type::E5M2, TileType::E5M2}, {Type::S8, TileType::S8},
                                                     {Type::U8, TileType::U8}};
    const Type t = d.take_type();
    for (const auto& [type, tile] : rows) if (type == t) return tile;
    d.error("this element type is not implemented");
}

void decode_wgmma(Decoder& d, Instr& in) {
    auto* op = d.make_extra<Wgmma>();
    in.extra = op;
    take_aligned(d);
    const std::string shape = d.take_prefixed("m64n");
    uint32_t k = 0;
    int consumed = 0;
    if (std::sscanf(shape.c_str(), "m64n%uk%u%n", &op->n, &k, &consumed) != 2 ||
        consumed != static_cast<int>(shape.size()) || op->n % 8 || op->n > 256)
        d.error("needs a shape m64nNkK");
    op->saturate = d.take("satfinite");
    op->d = d.take_type();
    op->a = take_tile_type(d);
    op->b = take_tile_type(d);
    if (op->d != Type::F32 && op->d != Type::F16 && op->d != Type::S32)
        d.error("this accumulator type is not implemented");
    if (k != 32 / tile_type_size(op->a) || tile_type_size(op->a) != tile_type_size(op->b))
        d.error("k does not fit the element type");
    op->accumulator = d.dst_list(0, Type::B32);
    if (op->accumulator.size() != (op->d == Type::F16 ? op->n / 4 : op->n / 2))
        d.error("accumulator register count does not fit the shape");
    const bool a_in_registers = d.operand(1).kind == Operand::Kind::Vector;
    if (a_in_registers) {
        op->a_regs = d.src_list(1, Type::B32);
        if (op->a_regs.size() != 4) d.error("A takes 4 registers");
    } else op->a_descriptor = d.src(1, Type::B64);
    op->b_descriptor = d.src(2, Type::B64);
    op->scale_d = d.pred_src(3, &op->scale_d_negated);
    // Then scale-a, scale-b (1 or -1; not for integers) and imm-trans-a (not with registers), imm-trans-b (16-bit
    // types).
    std::vector<int64_t> flags;
    for (size_t i = 4; i < d.operand_count(); ++i) {
        const auto v = d.immediate(i);
        if (!v) d.error("scale and transpose operands must be constants");
        flags.push_back(static_cast<int64_t>(*v));
    }
    const bool integer = op->d == Type::S32, sixteen = tile_type_size(op->a) == 2;
    const size_t scales = integer ? 0 : 2, transposes = sixteen ? (a_in_registers ? 1 : 2) : 0;
    if (flags.size() != scales + transposes) d.error("has the wrong number of scale and transpose operands");
    if (scales) {
        op->a_negated = flags[0] == -1;
        op->b_negated = flags[1] == -1;
        if ((flags[0] != 1 && flags[0] != -1) || (flags[1] != 1 && flags[1] != -1)) d.error("scales must be 1 or -1");
    }
    if (transposes) {
        op->b_k_major = flags.back() == 0;
        if (transposes == 2) op->a_k_major = flags[scales] == 0;
    }
    in.fn = exec_wgmma;
}

}  // namespace

const OpRow kWgmmaOps[] = {
    {"wgmma.mma_async", decode_wgmma},
    {"wgmma.fence", decode_fence},
    {"wgmma.commit_group", decode_commit},
    {"wgmma.wait_group", decode_wait},
};
SOFTGPU_DEFINE_COUNT(Wgmma)

}  // namespace softgpu
