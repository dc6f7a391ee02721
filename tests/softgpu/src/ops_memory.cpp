// ld and st in every space, with vectors; hints about caches are read and ignored.
#include "happens_before.h"
#include "lanes.h"
#include "memory.h"
#include "tables.h"

namespace softgpu {
namespace {

struct VectorOperand { std::vector<Slot> slots; };

// Instr::u8 of ld and st: [0] space, [1] wide address, [2] number of elements, [3] and [4] a strong access's order and
// scope
enum { kSpaceByte, kWideByte, kCountByte, kOrderByte, kScopeByte };

// What one ld or st does to the shadow of memory (races.h): nothing where nobody else has access.
class Watch {
public:
    Watch(Warp& w, const Instr& in, Mask m, bool write)
        : warp_(w), space_(static_cast<Space>(in.u8[kSpaceByte])), write_(write) {
        if (!races_checked(w) || space_ == Space::Local || space_ == Space::Param || space_ == Space::Const) return;
        strength_ = {static_cast<Order>(in.u8[kOrderByte]), static_cast<MemoryScope>(in.u8[kScopeByte])};
        Actor actor = threads_of(w, in, m);
        actor.strong = strength_.order != Order::Weak;
        actor.scope = strength_.scope;
        if (!write) actor.run = ++w.order.runs[static_cast<size_t>(&in - w.program->code.data())];
        touch_.emplace(actor);
    }
    bool strong() const { return strength_.order != Order::Weak; }
    // The access of one lane is about to be made; of a strong one nobody else's comes between until it is done.
    void before(int lane, uint64_t address, unsigned bytes, const uint8_t* fresh = nullptr) {
        if (!touch_) return;
        touch_->actor().lanes = 1u << lane;
        if (strong()) {
            touch_->leave();   // locks are taken in one order: variable, page
            edges_.emplace(warp_, 1u << lane, strength_, space_, address, !write_, write_);
        }
        touch_->at(space_, address, bytes, write_ ? Touch::Write : Touch::Read, fresh);
    }
    void after() {
        if (!edges_) return;
        touch_->leave();
        edges_.reset();
    }

private:
    Warp& warp_;
    Space space_;
    bool write_;
    Strength strength_;
    std::optional<PageTouch> touch_;
    std::optional<StrongAccess> edges_;
};

// Checks that a shared access of kBytes is readable, quickly.
template <unsigned kBytes> inline bool all_written(const uint8_t* shadow) {
    if constexpr (kBytes == 1) return (*shadow & kValid) != 0;
    else {
        uint64_t bad = 0;
        for (unsigned i = 0; i < kBytes; i += 8) {
            constexpr unsigned step = kBytes < 8 ? kBytes : 8;
            uint64_t word = 0;
            std::memcpy(&word, shadow + i, step);
            constexpr uint64_t ones = step == 8 ? 0x0101010101010101ull : step == 4 ? 0x01010101ull : 0x0101ull;
            bad |= (word & ones) ^ ones;
        }
        return bad == 0;
    }
}

// The pointer for one lane. The usual cases are here, everything else (and every fault) in resolve().
template <Space kSpace, unsigned kBytes, bool kWrite>
inline uint8_t* lane_pointer(Warp& w, const Instr& in, int lane, uint64_t address) {
    if constexpr (kSpace == Space::Shared) {
        const uint32_t offset = static_cast<uint32_t>(address) & kSharedOffsetMask;
        Cta& cta = *w.cta;
        if ((static_cast<uint32_t>(address) >> kSharedRankShift) == cta.rank && (address & (kBytes - 1)) == 0 &&
            offset + kBytes <= cta.shared.size()) {
            uint8_t* shadow = cta.shadow.data() + offset;
            if (kWrite) {
                std::memset(shadow, kValid, kBytes);
                return cta.shared.data() + offset;
            }
            if (all_written<kBytes>(shadow)) return cta.shared.data() + offset;
        }
    }
    if constexpr (kSpace == Space::Global) {
        const Warp::Window& known = w.window(in);
        if (address >= known.low && address + kBytes <= known.high && (address & (kBytes - 1)) == 0)
            return reinterpret_cast<uint8_t*>(address);
    }
    return resolve(w, in, lane, kSpace, address, kBytes, kWrite ? Access::Write : Access::Read);
}

template <class E, class RegCell, Space kSpace, unsigned kCount> Flow exec_load(Warp& w, const Instr& in, Mask m) {
    const auto& to = static_cast<const VectorOperand*>(in.extra)->slots;
    uint64_t address[kWarpSize];
    lane_addresses(w, in.a, in.u8[kWideByte], in.imm, address);
    RegCell* dst[kCount];
    for (unsigned i = 0; i < kCount; ++i) dst[i] = cells<RegCell>(w, to[i]);
    Watch watch(w, in, m, false);
    each_lane(m, [&](int l) {
        const uint8_t* p = lane_pointer<kSpace, sizeof(E) * kCount, false>(w, in, l, address[l]);
        watch.before(l, address[l], sizeof(E) * kCount);
        for (unsigned i = 0; i < kCount; ++i) {
            E value;
            std::memcpy(&value, p + i * sizeof(E), sizeof(E));
            // sign or zero extension to the register
            dst[i][l] = static_cast<RegCell>(std::conditional_t<std::is_signed_v<E>, int64_t, uint64_t>(value));
        }
        watch.after();
    });
    return Flow::Next;
}
template <class E, class RegCell, Space kSpace, unsigned kCount> Flow exec_store(Warp& w, const Instr& in, Mask m) {
    const auto& from = static_cast<const VectorOperand*>(in.extra)->slots;
    uint64_t address[kWarpSize];
    lane_addresses(w, in.a, in.u8[kWideByte], in.imm, address);
    const RegCell* src[kCount];
    for (unsigned i = 0; i < kCount; ++i) src[i] = cells<RegCell>(w, from[i]);
    Watch watch(w, in, m, true);
    each_lane(m, [&](int l) {
        uint8_t* p = lane_pointer<kSpace, sizeof(E) * kCount, true>(w, in, l, address[l]);
        E value[kCount];
        for (unsigned i = 0; i < kCount; ++i) value[i] = static_cast<E>(src[i][l]);
        watch.before(l, address[l], sizeof value, reinterpret_cast<const uint8_t*>(value));
        std::memcpy(p, value, sizeof value);
        watch.after();
    });
    return Flow::Next;
}
// 128-bit elements.
template <bool kStore> Flow exec_access128(Warp& w, const Instr& in, Mask m) {
    const auto& slots = static_cast<const VectorOperand*>(in.extra)->slots;
    const auto space = static_cast<Space>(in.u8[kSpaceByte]);
    uint64_t address[kWarpSize];
    lane_addresses(w, in.a, in.u8[kWideByte], in.imm, address);
    const auto bytes = static_cast<unsigned>(16 * slots.size());
    Watch watch(w, in, m, kStore);
    each_lane(m, [&](int l) {
        uint8_t* p = resolve(w, in, l, space, address[l], bytes, kStore ? Access::Write : Access::Read);
        watch.before(l, address[l], bytes);
        for (const Slot slot : slots) {
            for (int half = 0; half < 2; ++half, p += 8) {
                uint64_t* cell = w.r64(slot) + half * kWarpSize + l;
                if (kStore) std::memcpy(p, cell, 8);
                else std::memcpy(cell, p, 8);
            }
        }
        watch.after();
    });
    return Flow::Next;
}

// ---- choosing the loop
// ------------------------------------------------------------------------------------------------
template <bool kStore, class E, class Cell, Space kSpace> ExecFn by_count(size_t count) {
    const auto pick = [](auto n) -> ExecFn {
        constexpr unsigned k = decltype(n)::value;
        if constexpr (kStore) return exec_store<E, Cell, kSpace, k>;
        else return exec_load<E, Cell, kSpace, k>;
    };
    switch (count) {
        case 1: return pick(std::integral_constant<unsigned, 1>{});
        case 2: return pick(std::integral_constant<unsigned, 2>{});
        case 4: return pick(std::integral_constant<unsigned, 4>{});
        case 8: if constexpr (sizeof(E) <= 4) return pick(std::integral_constant<unsigned, 8>{}); else return nullptr;
        default: return nullptr;
    }
}
template <bool kStore, class E, class Cell> ExecFn by_space(Space space, size_t count) {
    switch (space) {
        case Space::Global: return by_count<kStore, E, Cell, Space::Global>(count);
        case Space::Shared: return by_count<kStore, E, Cell, Space::Shared>(count);
        case Space::Local: return by_count<kStore, E, Cell, Space::Local>(count);
        case Space::Param: case Space::Const: return by_count<kStore, E, Cell, Space::Param>(count);
        default: return by_count<kStore, E, Cell, Space::Generic>(count);
    }
}
template <bool kStore> ExecFn by_type(Type t, bool wide, Space space, size_t count) {
    if (wide) switch (t) {   // a 64-bit register
            case Type::B64:
            case Type::U64:
            case Type::S64:
            case Type::F64: return by_space<kStore, uint64_t, uint64_t>(space, count);
            case Type::B32:
            case Type::U32: return by_space<kStore, uint32_t, uint64_t>(space, count);
            case Type::S32: return by_space<kStore, int32_t, uint64_t>(space, count);
            case Type::B16:
            case Type::U16: return by_space<kStore, uint16_t, uint64_t>(space, count);
            case Type::S16: return by_space<kStore, int16_t, uint64_t>(space, count);
            case Type::B8:
            case Type::U8: return by_space<kStore, uint8_t, uint64_t>(space, count);
            case Type::S8: return by_space<kStore, int8_t, uint64_t>(space, count);
            default: return nullptr;
    }
    switch (t) {
        case Type::B32:
        case Type::U32:
        case Type::S32:
        case Type::F32: return by_space<kStore, uint32_t, uint32_t>(space, count);
        case Type::B16:
        case Type::U16:
        case Type::F16:
        case Type::BF16: return by_space<kStore, uint16_t, uint32_t>(space, count);
        case Type::S16: return by_space<kStore, int16_t, uint32_t>(space, count);
        case Type::B8: case Type::U8: return by_space<kStore, uint8_t, uint32_t>(space, count);
        case Type::S8: return by_space<kStore, int8_t, uint32_t>(space, count);
        case Type::F16x2: case Type::BF16x2: return by_space<kStore, uint32_t, uint32_t>(space, count);
        default: return nullptr;
    }
}

// Modifiers that say how, not what: caches there are none.
void take_hints(Decoder& d) {
    for (const char* hint : {"nc", "ca", "cg", "cs", "lu", "cv", "wb", "wt", "unified"}) d.take(hint);
    for (const char* prefix : {"L1::", "L2::"})
        while (!d.take_prefixed(prefix).empty()) {}
}
Space take_space(Decoder& d) {
    const std::string s = d.take_any({"global", "shared", "shared::cta", "shared::cluster", "local", "param",
                                      "param::entry", "param::func", "const"});
    if (s == "global") return Space::Global;
    if (s.rfind("shared", 0) == 0) return Space::Shared;
    if (s == "local") return Space::Local;
    if (s.rfind("param", 0) == 0) return Space::Param;
    if (s == "const") return Space::Const;
    return Space::Generic;
}

template <bool kStore> void decode_access(Decoder& d, Instr& in) {
    Space space = take_space(d);
    Strength strength =
        take_strength(d, Order::Weak);  // what it orders: happens_before.h; values come in the host's order
    if (!kStore && strength.order == Order::Weak && d.is_compared_and_swapped(d.operand(1)))
        strength = {Order::Relaxed, MemoryScope::Gpu};
    in.u8[kOrderByte] = static_cast<uint8_t>(strength.order);
    in.u8[kScopeByte] = static_cast<uint8_t>(strength.scope);
    take_hints(d);
    const std::string vector = d.take_any({"v2", "v4", "v8"});
    const Type t = d.take_type();
    const size_t value = kStore ? 1 : 0, pointer = kStore ? 0 : 1;
    const Operand& where = d.operand(pointer);
    if (space == Space::Param && d.symbol_space(where) == Space::Local) space = Space::Local;   // a call's parameter
    const Address address = d.address(where);
    in.a = address.base;
    in.imm = address.offset;
    in.u8[kSpaceByte] = static_cast<uint8_t>(space);
    in.u8[kWideByte] = address.wide;

    const Operand& op = d.operand(value);
    const bool is_vector = op.kind == Operand::Kind::Vector;
    const size_t count = vector.empty() ? (is_vector ? op.parts.size() : 1) : static_cast<size_t>(vector[1] - '0');
    if (is_vector ? op.parts.size() != count : count != 1) d.error("operand count differs from the vector's size");
    in.u8[kCountByte] = static_cast<uint8_t>(count);
    auto* operand = d.make_extra<VectorOperand>();
    // A value register may be wider than the type.
    const auto element = [&](size_t i) -> const Operand& { return is_vector ? op.parts[i] : op; };
    bool wide = type_bits(t) == 64;
    for (size_t i = 0; i < count; ++i)
        if (type_bits(t) < 64 && d.width(element(i)) == 64 && element(i).kind == Operand::Kind::Register) wide = true;
    const Type as = wide ? Type::B64 : t;
    for (size_t i = 0; i < count; ++i) operand->slots.push_back(kStore ? d.src(element(i), as) : d.dst(element(i), as));
    in.extra = operand;
    if (t == Type::B128) in.fn = exec_access128<kStore>;
    else in.fn = by_type<kStore>(t, wide, space, count);
    if (!in.fn && type_bits(t) == 64 && count == 4) in.fn = by_space<kStore, uint64_t, uint64_t>(space, 4);
    if (!in.fn) d.error("not implemented for this type and vector size");
}

// Hints only: prefetch, applypriority, discard.
Flow exec_nothing(Warp&, const Instr&, Mask) { return Flow::Next; }
void decode_hint(Decoder& d, Instr& in) {
    take_space(d);
    take_hints(d);
    d.take_any({"L1", "L2", "tensormap"});
    in.fn = exec_nothing;
}
void decode_createpolicy(Decoder& d, Instr& in) {   // an opaque cache policy: any value does
    d.take("fractional");
    d.take("range");
    take_hints(d);
    take_space(d);
    const Type t = d.take_type();
    in.dst = d.dst(0, t);
    in.fn = exec_nothing;
}

}  // namespace

const OpRow kMemoryOps[] = {
    {"ld", decode_access<false>}, {"ldu", decode_access<false>}, {"st", decode_access<true>}, {"prefetch", decode_hint},
    {"prefetchu", decode_hint}, {"applypriority", decode_hint}, {"createpolicy", decode_createpolicy},
};
SOFTGPU_DEFINE_COUNT(Memory)

}  // namespace softgpu
