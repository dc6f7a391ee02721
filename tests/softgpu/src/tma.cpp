// Decoding tensor maps; copying boxes row by row. Rows of a box lie one after the other in shared memory, their 16-byte
// chunks permuted by the map's swizzle.
#include "tma.h"

#include <algorithm>

#include "lanes.h"

namespace softgpu {

unsigned element_size(Element e) {
    switch (e) {
        case Element::U8: return 1;
        case Element::U16: case Element::F16: case Element::BF16: return 2;
        case Element::U64: case Element::S64: case Element::F64: return 8;
        default: return 4;
    }
}

// ---- tensor maps ----------------------------------------------------------------------------------------------------
namespace {

// By CUtensorMapDataType; the types it has beyond these (sub-byte ones) are not modelled.
constexpr Element kElements[] = {Element::U8,  Element::U16, Element::U32, Element::S32, Element::U64,
                                 Element::S64, Element::F16, Element::F32, Element::F64, Element::BF16,
                                 Element::F32, Element::F32, Element::F32};
// By the hardware's number, which CuTe's host code and tensormap.replace use (PTX ISA, tensormap.replace).
constexpr Element kHardwareElements[] = {Element::U8,   Element::U16, Element::U32, Element::S32, Element::U64,
                                         Element::S64,  Element::F16, Element::F32, Element::F32, Element::F64,
                                         Element::BF16, Element::F32, Element::F32};
constexpr uint32_t kSpans[] = {0, 32, 64, 128};

TensorView from_driver_form(const Issuer& by, const TensorMap& map) {
    TensorView v;
    v.address = map.address;
    v.rank = map.rank;
    if (map.element_type >= std::size(kElements))
        by.fault(Fault::Kind::Unsupported, "tensor map with an element type that is not modelled");
    if (map.swizzle >= std::size(kSpans))
        by.fault(Fault::Kind::Unsupported, "tensor map with a swizzle that is not modelled");
    if (map.interleave) by.fault(Fault::Kind::Unsupported, "tensor map with an interleaved layout: not modelled");
    v.element = kElements[map.element_type];
    v.span = kSpans[map.swizzle];
    v.fill_nan = map.fill_nan;
    if (v.rank < 1 || v.rank > 5)
        by.fault(Fault::Kind::IllegalInstruction, "tensor map of rank " + std::to_string(v.rank));
    v.strides[0] = element_size(v.element);
    for (int i = 0; i < v.rank; ++i) {
        v.dims[i] = uint64_t(map.dims[i]) + 1;
        v.box[i] = map.box[i];
        if (i) v.strides[i] = map.strides[i - 1];
        if (map.element_strides[i] != 1)
            by.fault(Fault::Kind::Unsupported, "tensor map with an element stride other than 1: not modelled");
    }
    return v;
}

// The form that CuTe's host code writes inline, as far as it is known: see docs/softgpu.md. `word` are its 32-bit
// words.
TensorView from_inline_form(const Issuer& by, const uint8_t* bytes) {
    uint32_t word[32];
    std::memcpy(word, bytes, sizeof word);
    TensorView v;
    std::memcpy(&v.address, word, 8);
    const uint32_t flags = word[2], type = flags >> 7 & 15;
    v.rank = static_cast<int>(flags >> 4 & 7) + 1;
    if ((flags & 15) != 2 || (flags >> 11 & 3) != 0 || v.rank > 5 || v.address % 16 ||
        type >= std::size(kHardwareElements))
        by.fault(Fault::Kind::Unsupported,
                 "this is no tensor map that the software GPU knows: neither its driver nor CuTe's host code wrote it");
    v.element = kHardwareElements[type];
    v.span = kSpans[flags >> 13 & 3];
    v.strides[0] = element_size(v.element);
    for (int i = 0; i < v.rank; ++i) {
        v.dims[i] = uint64_t(word[8 + i]) + 1;
        v.box[i] = uint32_t(bytes[55 + i]) + 1;
        if (i) v.strides[i] = uint64_t(word[2 + i]) << 4;
    }
    return v;
}

}  // namespace

TensorView read_tensor_map(const Issuer& by, const uint8_t* bytes) {
    if (reinterpret_cast<uint64_t>(bytes) % 64)
        by.fault(Fault::Kind::Misaligned, "a tensor map must be 64-byte aligned");
    TensorMap map;
    std::memcpy(&map, bytes, sizeof map);
    TensorView v = map.magic == kTensorMapMagic ? from_driver_form(by, map) : from_inline_form(by, bytes);
    for (int i = 0; i < v.rank; ++i)
        if (!v.box[i] || v.box[i] > 256)
            by.fault(Fault::Kind::IllegalInstruction,
                     "tensor map with a box of " + std::to_string(v.box[i]) + " elements");
    if (v.row_bytes() % kChunk)
        by.fault(Fault::Kind::IllegalInstruction, "tensor map whose box rows are not a multiple of 16 bytes");
    if (v.span && v.row_bytes() != v.span)
        by.fault(Fault::Kind::Unsupported, "tensor map with box rows of " + std::to_string(v.row_bytes()) +
                                               " bytes under a swizzle of " + std::to_string(v.span) +
                                               ": only rows as long as the swizzle span are modelled");
    return v;
}

// ---- boxes
// ------------------------------------------------------------------------------------------------------------
uint32_t Box::rows() const {
    if (four_rows) return 4;
    uint32_t n = 1;
    for (int i = 1; i < tensor.rank; ++i) n *= tensor.box[i];
    return n;
}

namespace {

// Where a row of the box lies in the tensor: the part of it that is inside.
struct Row {
    uint64_t address = 0;         // of its first element inside
    uint32_t begin = 0, end = 0;  // bytes of the row that are inside; none if equal
};
Row row_of(const Box& box, uint32_t index) {
    const TensorView& t = box.tensor;
    int64_t at[5] = {box.at[0]};
    if (box.four_rows) at[1] = box.at[1 + index];
    else
        for (int i = 1; i < t.rank; ++i) {
            at[i] = int64_t(box.at[i]) + index % t.box[i];
            index /= t.box[i];
        }
    Row row;
    uint64_t address = t.address;
    for (int i = 1; i < t.rank; ++i) {
        if (at[i] < 0 || static_cast<uint64_t>(at[i]) >= t.dims[i]) return row;
        address += static_cast<uint64_t>(at[i]) * t.strides[i];
    }
    const int64_t size = static_cast<int64_t>(t.strides[0]), begin = std::max<int64_t>(at[0], 0);
    const int64_t end = std::min<int64_t>(at[0] + t.box[0], static_cast<int64_t>(t.dims[0]));
    if (begin >= end) return row;
    row.address = address + static_cast<uint64_t>(begin * size);
    row.begin = static_cast<uint32_t>((begin - at[0]) * size);
    row.end = static_cast<uint32_t>((end - at[0]) * size);
    return row;
}
void fill_outside(const TensorView& t, uint8_t* row) {
    const uint32_t bytes = t.row_bytes();
    std::memset(row, 0, bytes);
    if (!t.fill_nan) return;
    for (uint32_t i = 0; i < bytes;
         i += static_cast<uint32_t>(t.strides[0])) {  // the canonical NaN, all ones but the sign
        std::memset(row + i, 0xff, t.strides[0]);
        row[i + t.strides[0] - 1] = 0x7f;
    }
}

}  // namespace

void check_global(const Issuer& by, uint64_t address, uint64_t bytes, bool write) {
    const std::string why = by.warp->cta->grid->bounds->check(address, bytes);
    if (!why.empty())
        by.fault(Fault::Kind::OutOfBounds,
                 std::string("a bulk copy ") + (write ? "writes" : "reads") + " global memory " + why);
}

void each_row_inside(const Issuer& by, const Box& box, const std::function<void(uint64_t, uint64_t)>& f) {
    const uint32_t rows = box.rows();
    for (uint32_t r = 0; r < rows; ++r) {
        const Row row = row_of(box, r);
        if (row.begin >= row.end) continue;
        check_global(by, row.address, row.end - row.begin, false);
        f(row.address, row.end - row.begin);
    }
}
void load_box(const Issuer& by, const Box& box, Cta& cta, uint32_t offset) {
    const uint32_t bytes = box.tensor.row_bytes(), rows = box.rows();
    std::vector<uint8_t> data(bytes);
    for (uint32_t r = 0; r < rows; ++r) {
        const Row row = row_of(box, r);
        if (row.begin != 0 || row.end != bytes) fill_outside(box.tensor, data.data());
        if (row.begin < row.end) {
            check_global(by, row.address, row.end - row.begin, false);
            std::memcpy(data.data() + row.begin, reinterpret_cast<const void*>(row.address), row.end - row.begin);
        }
        for (uint32_t i = 0; i < bytes; i += kChunk)
            std::memcpy(cta.shared.data() + swizzled(offset + r * bytes + i, box.tensor.span), data.data() + i, kChunk);
    }
}
std::vector<uint8_t> fetch_box(const Box& box, const Cta& cta, uint32_t offset) {
    std::vector<uint8_t> data(box.bytes());
    for (uint32_t i = 0; i < data.size(); i += kChunk)
        std::memcpy(data.data() + i, cta.shared.data() + swizzled(offset + i, box.tensor.span), kChunk);
    return data;
}
void store_box(const Issuer& by, const Box& box, const std::vector<uint8_t>& data, Reduction reduction) {
    const uint32_t bytes = box.tensor.row_bytes();
    for (uint32_t r = 0; r < box.rows(); ++r) {
        const Row row = row_of(box, r);
        if (row.begin >= row.end) continue;
        check_global(by, row.address, row.end - row.begin, true);
        auto* target = reinterpret_cast<uint8_t*>(row.address);
        const uint8_t* source = data.data() + size_t(r) * bytes + row.begin;
        if (reduction == Reduction::None) std::memcpy(target, source, row.end - row.begin);
        else reduce_elements(by, box.tensor.element, reduction, target, source, row.end - row.begin);
    }
}

// ---- reductions
// ----------------------------------------------------------------------------------------------------------
namespace {

template <class V> bool combine(Reduction op, typename V::Value a, typename V::Value b, typename V::Value& r) {
    switch (op) {
        case Reduction::Add: r = static_cast<typename V::Value>(a + b); return true;
        case Reduction::Min: r = std::min(a, b); return true;
        case Reduction::Max: r = std::max(a, b); return true;
        default: break;
    }
    if constexpr (std::is_integral_v<typename V::Value>) {
        using U = std::make_unsigned_t<typename V::Value>;
        const U x = static_cast<U>(a), y = static_cast<U>(b);
        r = static_cast<typename V::Value>(op == Reduction::And ? x & y : op == Reduction::Or ? x | y : x ^ y);
        return true;
    }
    return false;
}
template <class V, class Word>
void reduce_as(const Issuer& by, Reduction op, uint8_t* target, const uint8_t* source, uint64_t bytes) {
    for (uint64_t i = 0; i < bytes; i += sizeof(Word)) {
        auto* word = reinterpret_cast<Word*>(target + i);
        Word other, old = __atomic_load_n(word, __ATOMIC_RELAXED);
        std::memcpy(&other, source + i, sizeof(Word));
        while (true) {
            typename V::Value r;
            if (!combine<V>(op, V::get(old), V::get(other), r))
                by.fault(Fault::Kind::IllegalInstruction, "a bitwise reduction of floating-point elements");
            if (__atomic_compare_exchange_n(word, &old, static_cast<Word>(V::put(r)), false, __ATOMIC_SEQ_CST,
                                            __ATOMIC_RELAXED))
                break;
        }
    }
}

}  // namespace

void reduce_elements(const Issuer& by, Element element, Reduction op, uint8_t* target, const uint8_t* source,
                     uint64_t bytes) {
    switch (element) {
        case Element::U32: return reduce_as<Int<uint32_t>, uint32_t>(by, op, target, source, bytes);
        case Element::S32: return reduce_as<Int<int32_t>, uint32_t>(by, op, target, source, bytes);
        case Element::U64: return reduce_as<Int<uint64_t>, uint64_t>(by, op, target, source, bytes);
        case Element::S64: return reduce_as<Int<int64_t>, uint64_t>(by, op, target, source, bytes);
        case Element::F16: return reduce_as<F16, uint16_t>(by, op, target, source, bytes);
        case Element::BF16: return reduce_as<BF16, uint16_t>(by, op, target, source, bytes);
        case Element::F32: return reduce_as<F32, uint32_t>(by, op, target, source, bytes);
        case Element::F64: return reduce_as<F64, uint64_t>(by, op, target, source, bytes);
        default:
            by.fault(Fault::Kind::IllegalInstruction,
                     "bulk reductions need elements of at least 16 bits that are not .u16");
    }
}

}  // namespace softgpu
