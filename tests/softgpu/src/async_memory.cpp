// The shadow of shared memory under asynchronous reads and writes.
#include "async_memory.h"

namespace softgpu {

std::string place(const Cta& cta, uint32_t offset) {
    std::string text = "offset " + std::to_string(offset) + " of shared memory";
    if (cta.cluster->ctas.size() > 1) text += " of CTA " + std::to_string(cta.rank) + " of the cluster";
    return text;
}

namespace {

constexpr uint64_t kOnes = 0x0101010101010101ull;

void require_inside(const Issuer& by, const Cta& cta, uint32_t offset, uint32_t bytes) {
    if (uint64_t(offset) + bytes > cta.shared.size())
        by.fault(Fault::Kind::OutOfBounds, "touches " + std::to_string(bytes) + " bytes at " + place(cta, offset) +
                                               ", which has " + std::to_string(cta.shared.size()));
}
// True if every byte has all of the state bits `wanted` and is not in flight.
bool all_have(const uint8_t* shadow, uint32_t bytes, uint8_t wanted) {
    uint32_t i = 0;
    uint64_t bad = 0;
    for (; i + 8 <= bytes; i += 8) {
        uint64_t word;
        std::memcpy(&word, shadow + i, 8);
        bad |= (word & kOnes * wanted) ^ kOnes * wanted;
    }
    for (; i < bytes; ++i) bad |= static_cast<uint64_t>((shadow[i] & wanted) ^ wanted);
    return bad == 0;
}
void set_bits(uint8_t* shadow, uint32_t bytes, uint8_t bits) {
    for (uint32_t i = 0; i < bytes; ++i) shadow[i] |= bits;
}

}  // namespace

void begin_async_write(const Issuer& by, Cta& cta, uint32_t offset, uint32_t bytes) {
    require_inside(by, cta, offset, bytes);
    uint8_t* shadow = cta.shadow.data() + offset;
    for (uint32_t i = 0; i < bytes; ++i)
        if (shadow[i] == kInFlight)
            by.fault(Fault::Kind::InFlight,
                     "writes " + place(cta, offset + i) +
                         ", which another asynchronous copy is still writing: a wait between the two is missing");
    std::memset(shadow, kInFlight, bytes);
    std::memset(cta.shared.data() + offset, kPoison, bytes);
}
void end_async_write(const Issuer& by, Cta& cta, uint32_t offset, uint32_t bytes) {
    uint8_t* shadow = cta.shadow.data() + offset;
    if (!all_have(shadow, bytes, kInFlight))
        for (uint32_t i = 0; i < bytes; ++i)
            if (!(shadow[i] & kInFlight))
                by.fault(
                    Fault::Kind::InFlight,
                    place(cta, offset + i) +
                        " was written while this copy into it was still in flight: the writer must wait for the copy");
    std::memset(shadow, kValid | kAsyncVisible, bytes);
}

void begin_async_read(const Issuer& by, Cta& cta, uint32_t offset, uint32_t bytes, const char* what) {
    require_inside(by, cta, offset, bytes);
    uint8_t* shadow = cta.shadow.data() + offset;
    if (!all_have(shadow, bytes, kValid | kAsyncVisible) && cta.grid->options.fault_on_uninitialised)
        for (uint32_t i = 0; i < bytes; ++i) {
            const std::string at = what + std::string(" reads ") + place(cta, offset + i);
            if (shadow[i] & kInFlight)
                by.fault(Fault::Kind::InFlight,
                         at + " that an asynchronous copy is still writing: a wait for that copy is missing");
            if (!(shadow[i] & kValid)) by.fault(Fault::Kind::Uninitialised, at + " that nothing has written");
            if (!(shadow[i] & kAsyncVisible))
                by.fault(Fault::Kind::SyncMisuse,
                         at + " that threads wrote, without a fence.proxy.async after the writes");
        }
    set_bits(shadow, bytes, kAsyncRead);
}
void end_async_read(const Issuer& by, Cta& cta, uint32_t offset, uint32_t bytes, const char* what) {
    const uint8_t* shadow = cta.shadow.data() + offset;
    if (all_have(shadow, bytes, kAsyncRead) || !cta.grid->options.fault_on_uninitialised) return;
    for (uint32_t i = 0; i < bytes; ++i)
        if (!(shadow[i] & kAsyncRead))
            by.fault(Fault::Kind::InFlight,
                     std::string(what) + " was still reading " + place(cta, offset + i) +
                         " when it was overwritten: whoever reuses that memory must wait for the read to end");
}

void publish_to_async(Cta& cta) {
    uint8_t* shadow = cta.shadow.data();
    const size_t bytes = cta.shadow.size();
    size_t i = 0;
    for (; i + 8 <= bytes; i += 8) {
        uint64_t word;
        std::memcpy(&word, shadow + i, 8);
        word |= (word & kOnes) << 3;
        std::memcpy(shadow + i, &word, 8);
    }
    for (; i < bytes; ++i) shadow[i] |= static_cast<uint8_t>((shadow[i] & kValid) << 3);
}

uint64_t shared_operand(Warp& w, const Instr& in, bool generic, uint64_t address, int lane) {
    if (generic && (address & kWindowMask) != kSharedWindow)
        w.fault(in, Fault::Kind::OutOfBounds, "needs an address in shared memory", lane, address);
    return shared_address(address);
}

}  // namespace softgpu
