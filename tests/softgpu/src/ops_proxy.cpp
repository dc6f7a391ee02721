// Fences between proxies, and tensor maps made or changed by device code (tensormap.*).
//
// fence.proxy.async is modelled (async_memory.h). Other proxy fences order things that are in order here.
#include <cstddef>

#include "async_memory.h"
#include "happens_before.h"
#include "lanes.h"
#include "tables.h"
#include "tensor_map.h"

namespace softgpu {
namespace {

Flow exec_nothing(Warp&, const Instr&, Mask) { return Flow::Next; }

// u8[0]: of the whole cluster, else of the CTA
Flow exec_fence_async(Warp& w, const Instr& in, Mask) {
    if (in.u8[0]) for (auto& cta : w.cta->cluster->ctas) publish_to_async(*cta);
    else publish_to_async(*w.cta);
    return Flow::Next;
}
void decode_fence_proxy(Decoder& d, Instr& in) {
    in.fn = exec_nothing;
    if (d.take("async")) {   // the generic form covers every space
        const bool global = d.take("global"), own = !d.take_any({"shared::cta"}).empty();
        d.take("shared::cluster");
        in.u8[0] = !own;
        if (!global) in.fn = exec_fence_async;
        return;
    }
    if (!d.take("alias") && !d.take("tensormap::generic") && !d.take("async::generic"))
        d.error("this proxy is not implemented");
    for (const char* m : {"acquire", "release", "cta", "cluster", "gpu", "sys", "sync_restrict::shared::cta",
                          "sync_restrict::shared::cluster"})
        d.take(m);
}
Flow exec_fence_init(Warp& w, const Instr&, Mask m) {
    fence(w, m, MemoryScope::Cluster);
    return Flow::Next;
}
void decode_fence_init(Decoder& d, Instr& in) {
    d.take("release");
    d.take("cluster");
    in.fn = exec_fence_init;
}

// ---- tensormap.replace
// ------------------------------------------------------------------------------------------------------ The map is
// written in our driver's form. Field values are the ISA's: see the PTX ISA's tables for tensormap.replace.
enum class Field : uint8_t {
    Address,
    Rank,
    BoxDim,
    GlobalDim,
    GlobalStride,
    ElementStride,
    ElementType,
    Interleave,
    Swizzle,
    Fill
};
struct FieldRow { const char* name; Field field; bool has_ordinal; };
const FieldRow kFields[] = {
    {"global_address", Field::Address, false},
    {"rank", Field::Rank, false},
    {"box_dim", Field::BoxDim, true},
    {"global_dim", Field::GlobalDim, true},
    {"global_stride", Field::GlobalStride, true},
    {"element_stride", Field::ElementStride, true},
    {"elemtype", Field::ElementType, false},
    {"interleave_layout", Field::Interleave, false},
    {"swizzle_mode", Field::Swizzle, false},
    {"fill_mode", Field::Fill, false},
};
// The ISA's number of an element type -> CUtensorMapDataType.
constexpr uint8_t kDriverType[] = {0, 1, 2, 3, 4, 5, 6, 7, 10, 8, 9, 11, 12};

struct Replace {
    Field field;
    Address map;
    bool shared;
    uint64_t ordinal = 0;
    Slot value = kNoSlot;
    bool wide = false;
};

Flow exec_replace(Warp& w, const Instr& in, Mask m) {
    const auto& op = *static_cast<const Replace*>(in.extra);
    uint64_t address[kWarpSize];
    lane_addresses(w, op.map.base, op.map.wide, op.map.offset, address);
    each_lane(m, [&](int l) {
        uint8_t* bytes = nullptr;
        for (uint64_t i = 0; i < sizeof(TensorMap); i += 32) {
            uint8_t* p =
                resolve(w, in, l, op.shared ? Space::Shared : Space::Generic, address[l] + i, 32, Access::ReadWrite);
            if (i == 0) bytes = p;
        }
        TensorMap map;
        std::memcpy(&map, bytes, sizeof map);
        map.magic = kTensorMapMagic;
        const uint64_t v = op.wide ? w.r64(op.value)[l] : w.r32(op.value)[l];
        const auto n = static_cast<size_t>(op.ordinal);
        switch (op.field) {
            case Field::Address: map.address = v; break;
            case Field::Rank: map.rank = static_cast<uint8_t>(v + 1); break;
            case Field::BoxDim: map.box[n] = static_cast<uint16_t>(v); break;
            case Field::GlobalDim: map.dims[n] = static_cast<uint32_t>(v - 1); break;
            case Field::GlobalStride:
                if (v % 16)
                    w.fault(in, Fault::Kind::Misaligned, "a tensor map's stride must be a multiple of 16 bytes", l, v);
                map.strides[n] = v;
                break;
            case Field::ElementStride: map.element_strides[n] = static_cast<uint8_t>(v); break;
            case Field::ElementType:
                if (v >= std::size(kDriverType))
                    w.fault(in, Fault::Kind::Unsupported, "element type " + std::to_string(v) + " is not modelled", l);
                map.element_type = kDriverType[v];
                break;
            case Field::Interleave: map.interleave = static_cast<uint8_t>(v); break;
            case Field::Swizzle: map.swizzle = static_cast<uint8_t>(v); break;
            case Field::Fill: map.fill_nan = v != 0; break;
        }
        std::memcpy(bytes, &map, sizeof map);
    });
    return Flow::Next;
}
void decode_replace(Decoder& d, Instr& in) {
    auto* op = d.make_extra<Replace>();
    in.extra = op;
    if (!d.take("tile")) d.error("only .tile exists");
    const FieldRow* row = nullptr;
    for (const auto& r : kFields) if (d.take(r.name)) row = &r;
    if (!row) d.error("needs a field that is implemented");
    op->field = row->field;
    op->shared = d.take("shared::cta");
    if (!op->shared) d.take("global");
    d.take("b1024");
    const Type t = d.take_type();
    op->wide = type_bits(t) == 64;
    op->map = d.address(0);
    size_t next = 1;
    if (row->has_ordinal) {
        const auto n = d.immediate(next++);
        if (!n || *n > (row->field == Field::GlobalStride ? 3u : 4u))
            d.error("the ordinal must be a constant from 0 to 4 (strides: 3)");
        op->ordinal = *n;
    }
    op->value = d.src(next, t);
    in.fn = exec_replace;
}

// tensormap.cp_fenceproxy: a map from shared to global memory, by a whole warp.
struct MapCopy { Address to, from; };
Flow exec_map_copy(Warp& w, const Instr& in, Mask m) {
    const auto& op = *static_cast<const MapCopy*>(in.extra);
    uint64_t to[kWarpSize], from[kWarpSize];
    lane_addresses(w, op.to.base, op.to.wide, op.to.offset, to);
    lane_addresses(w, op.from.base, op.from.wide, op.from.offset, from);
    const int l = std::countr_zero(m);
    for (uint64_t i = 0; i < sizeof(TensorMap); i += 32)
        std::memcpy(resolve(w, in, l, Space::Generic, to[l] + i, 32, Access::Write),
                    resolve(w, in, l, Space::Shared, from[l] + i, 32, Access::Read), 32);
    return Flow::Next;
}
void decode_map_copy(Decoder& d, Instr& in) {
    auto* op = d.make_extra<MapCopy>();
    in.extra = op;
    for (const char* m :
         {"global", "shared::cta", "tensormap::generic", "release", "cta", "cluster", "gpu", "sys", "sync", "aligned"})
        d.take(m);
    op->to = d.address(0);
    op->from = d.address(1);
    const auto bytes = d.immediate(2);
    if (!bytes || *bytes != sizeof(TensorMap)) d.error("the size must be 128");
    in.fn = exec_map_copy;
}

}  // namespace

const OpRow kProxyOps[] = {
    {"fence.proxy", decode_fence_proxy}, {"fence.mbarrier_init", decode_fence_init},
    {"tensormap.replace", decode_replace}, {"tensormap.cp_fenceproxy", decode_map_copy},
};
SOFTGPU_DEFINE_COUNT(Proxy)

}  // namespace softgpu
