// atom and red, in global and shared memory: each lane's read-modify-write is one host atomic operation.
#include <algorithm>
#include <mutex>

#include "happens_before.h"
#include "lanes.h"
#include "memory.h"
#include "over_forks.h"
#include "tables.h"

namespace softgpu {
namespace {

enum class AtomOp : uint8_t { Add, Min, Max, Inc, Dec, And, Or, Xor, Exch, Cas };
struct AtomRow { const char* name; AtomOp op; };
const AtomRow kAtomOps[] = {{"add", AtomOp::Add},   {"min", AtomOp::Min}, {"max", AtomOp::Max}, {"inc", AtomOp::Inc},
                            {"dec", AtomOp::Dec},   {"and", AtomOp::And}, {"or", AtomOp::Or},   {"xor", AtomOp::Xor},
                            {"exch", AtomOp::Exch}, {"cas", AtomOp::Cas}};

struct Atomic {
    AtomOp op;
    Type type;
    Space space;
    Address address;
    std::vector<Slot> dst, value;    // several: a vector form
    Slot swap = kNoSlot;             // cas
    Strength strength;
};

// The new value of a word.
template <class U> U combine(AtomOp op, Type type, U old, U value, U swap) {
    using S = std::make_signed_t<U>;
    switch (op) {
        case AtomOp::Exch: return value;
        case AtomOp::Cas: return old == value ? swap : old;
        case AtomOp::And: return static_cast<U>(old & value);
        case AtomOp::Or: return static_cast<U>(old | value);
        case AtomOp::Xor: return static_cast<U>(old ^ value);
        case AtomOp::Inc: return old >= value ? U(0) : static_cast<U>(old + 1);
        case AtomOp::Dec: return old == 0 || old > value ? value : static_cast<U>(old - 1);
        default: break;
    }
    const auto pick = [&](auto a, auto b) {
        return op == AtomOp::Add   ? static_cast<decltype(a)>(a + b)
               : op == AtomOp::Min ? std::min(a, b)
                                   : std::max(a, b);
    };
    const auto pick_float = [&](auto a, auto b) {
        if (op == AtomOp::Add) return static_cast<decltype(a)>(a + b);
        if (std::isnan(a)) return b;
        if (std::isnan(b)) return a;
        return op == AtomOp::Min ? std::min(a, b) : std::max(a, b);
    };
    switch (type) {
        case Type::S32: case Type::S64: case Type::S16:
            if (op == AtomOp::Add) return static_cast<U>(old + value);
            return static_cast<U>(pick(static_cast<S>(old), static_cast<S>(value)));
        case Type::F32:
            if constexpr (sizeof(U) == 4) return F32::put(pick_float(F32::get(old), F32::get(value)));
            break;
        case Type::F64:
            if constexpr (sizeof(U) == 8) return F64::put(pick_float(F64::get(old), F64::get(value)));
            break;
        case Type::F16:
            return static_cast<U>(
                F16::put(pick_float(F16::get(static_cast<uint32_t>(old)), F16::get(static_cast<uint32_t>(value)))));
        case Type::BF16:
            return static_cast<U>(
                BF16::put(pick_float(BF16::get(static_cast<uint32_t>(old)), BF16::get(static_cast<uint32_t>(value)))));
        case Type::F16x2: case Type::BF16x2:
            if constexpr (sizeof(U) == 4) {
                U r = 0;
                for (int h = 0; h < 32; h += 16) {
                    const U a = (old >> h) & 0xffff, b = (value >> h) & 0xffff;
                    const U one = type == Type::F16x2 ? F16::put(pick_float(F16::get(a), F16::get(b)))
                                                      : BF16::put(pick_float(BF16::get(a), BF16::get(b)));
                    r |= one << h;
                }
                return r;
            }
            break;
        default: return pick(old, value);
    }
    return old;
}

template <class U> U exchange_at(uint8_t* p, const Atomic& a, U value, U swap) {
    U* word = reinterpret_cast<U*>(p);
    U old = __atomic_load_n(word, __ATOMIC_RELAXED);
    while (true) {
        const U updated = combine<U>(a.op, a.type, old, value, swap);
        if (__atomic_compare_exchange_n(word, &old, updated, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) return old;
    }
}

// One lane's access to the shadow of memory (races.h).
void watch(Warp& w, const Instr& in, const Atomic& a, int lane, uint64_t address, unsigned bytes) {
    if (!races_checked(w)) return;
    Actor actor = threads_of(w, in, 1u << lane);
    actor.strong = true;
    actor.scope = a.strength.scope;
    PageTouch(actor).at(a.space, address, bytes, Touch::Atomic);
}

template <class U> Flow exec_atom(Warp& w, const Instr& in, Mask m) {
    using Cell = std::conditional_t<sizeof(U) == 8, uint64_t, uint32_t>;
    const auto& a = *static_cast<const Atomic*>(in.extra);
    uint64_t address[kWarpSize];
    lane_addresses(w, a.address.base, a.address.wide, a.address.offset, address);
    each_lane(m, [&](int l) {
        uint8_t* p = resolve(w, in, l, a.space, address[l], static_cast<unsigned>(sizeof(U) * a.value.size()),
                             Access::ReadWrite);
        const StrongAccess edges(w, 1u << l, a.strength, a.space, address[l], !a.dst.empty(), true);
        watch(w, in, a, l, address[l], static_cast<unsigned>(sizeof(U) * a.value.size()));
        for (size_t i = 0; i < a.value.size(); ++i) {
            const U value = static_cast<U>(cells<Cell>(w, a.value[i])[l]);
            const U swap = a.swap == kNoSlot ? U(0) : static_cast<U>(cells<Cell>(w, a.swap)[l]);
            const U old = exchange_at<U>(p + i * sizeof(U), a, value, swap);
            if (i < a.dst.size()) cells<Cell>(w, a.dst[i])[l] = old;
        }
    });
    return Flow::Next;
}

// 128-bit exch and cas: rare; one lock for all.
Flow exec_atom128(Warp& w, const Instr& in, Mask m) {
    static std::mutex mutex;
    static const bool held = (hold_over_forks(mutex, ForkOrder::Atomics), true);
    (void)held;
    const auto& a = *static_cast<const Atomic*>(in.extra);
    uint64_t address[kWarpSize];
    lane_addresses(w, a.address.base, a.address.wide, a.address.offset, address);
    each_lane(m, [&](int l) {
        uint8_t* p = resolve(w, in, l, a.space, address[l], 16, Access::ReadWrite);
        const StrongAccess edges(w, 1u << l, a.strength, a.space, address[l], true, true);
        watch(w, in, a, l, address[l], 16);
        const std::lock_guard lock(mutex);
        const auto lane = [&](Slot s, int half) -> uint64_t& { return w.r64(s)[half * kWarpSize + l]; };
        uint64_t old[2];
        std::memcpy(old, p, 16);
        const bool equal = old[0] == lane(a.value[0], 0) && old[1] == lane(a.value[0], 1);
        const Slot from = a.op == AtomOp::Cas ? a.swap : a.value[0];
        uint64_t next[2] = {lane(from, 0), lane(from, 1)};
        if (a.op != AtomOp::Cas || equal) std::memcpy(p, next, 16);
        if (!a.dst.empty()) { lane(a.dst[0], 0) = old[0]; lane(a.dst[0], 1) = old[1]; }
    });
    return Flow::Next;
}

template <bool kReturns> void decode_atomic(Decoder& d, Instr& in) {
    auto* a = d.make_extra<Atomic>();
    in.extra = a;
    const AtomRow* found = nullptr;
    for (const auto& row : kAtomOps) if (d.take(row.name)) found = &row;
    if (!found) d.error("needs an operation");
    a->op = found->op;
    const std::string space = d.take_any({"global", "shared", "shared::cta", "shared::cluster"});
    a->space = space.empty() ? Space::Generic : space == "global" ? Space::Global : Space::Shared;
    a->strength = take_strength(d, Order::Relaxed);
    d.take("noftz");
    while (!d.take_prefixed("L2::").empty()) {}
    d.take_any({"v2", "v4", "v8"});
    a->type = d.take_type();
    const size_t first = kReturns ? 1 : 0;
    if (kReturns) a->dst = d.dst_list(0, a->type);
    a->address = d.address(first);
    a->value = d.src_list(first + 1, a->type);
    if (a->op == AtomOp::Cas) a->swap = d.src(first + 2, a->type);
    switch (type_bits(a->type)) {
        case 16: in.fn = exec_atom<uint16_t>; break;
        case 32: in.fn = exec_atom<uint32_t>; break;
        case 64: in.fn = exec_atom<uint64_t>; break;
        case 128:
            if (a->op != AtomOp::Cas && a->op != AtomOp::Exch) d.error("128 bits: .exch and .cas only");
            in.fn = exec_atom128;
            break;
        default: d.error("not defined for this type");
    }
}

}  // namespace

const OpRow kAtomicOps[] = {{"atom", decode_atomic<true>}, {"red", decode_atomic<false>}};
SOFTGPU_DEFINE_COUNT(Atomic)

}  // namespace softgpu
