// Shared memory as the asynchronous units (TMA, wgmma, tcgen05) use it: reads and writes that begin when they are
// issued and end later, and what goes wrong in between.
//
// From the issue of an asynchronous write to its end the bytes are poison (Shadow::kInFlight). Asynchronous reads fetch
// their data when they end: whoever writes the bytes before that, having missed a wait, is found out. Bytes that
// threads wrote must have been made visible to the asynchronous proxy by a fence.proxy.async. (Any such fence of the
// CTA counts: whose fence it has to be is not modelled.)
#pragma once
#include <string>
#include <vector>

#include "memory.h"

namespace softgpu {

// Where an asynchronous operation came from, for faults found when it completes.
struct Issuer {
    Warp* warp;
    const Instr* instr;
    [[noreturn]] void fault(Fault::Kind kind, const std::string& message) const { warp->fault(*instr, kind, message); }
};

// A 16-byte piece of shared memory: what the asynchronous units read and write, and what swizzles permute.
constexpr uint32_t kChunk = 16;

// The byte offset after the XOR swizzle with a span of 0 (none), 32, 64 or 128 bytes. It permutes the 16-byte chunks of
// a span by the 128-byte line: bits 4.. of the *absolute* offset are XORed with bits 7..
inline uint32_t swizzled(uint32_t offset, uint32_t span) {
    const uint32_t mask = span ? span / kChunk - 1 : 0;
    return offset ^ ((offset >> 7 & mask) << 4);
}

void begin_async_write(const Issuer& by, Cta& cta, uint32_t offset, uint32_t bytes);
void end_async_write(const Issuer& by, Cta& cta, uint32_t offset,
                     uint32_t bytes);  // faults if somebody else wrote meanwhile

// `what` names the reader in faults: "this bulk store". The fault kinds: InFlight, Uninitialised, SyncMisuse.
void begin_async_read(const Issuer& by, Cta& cta, uint32_t offset, uint32_t bytes, const char* what);
void end_async_read(const Issuer& by, Cta& cta, uint32_t offset, uint32_t bytes, const char* what);

// fence.proxy.async: what threads have written is from now on visible to the asynchronous units.
void publish_to_async(Cta& cta);

// The address of a shared-memory operand that may be generic: faults if it is not in the shared window.
uint64_t shared_operand(Warp& w, const Instr& in, bool generic, uint64_t address, int lane);

std::string place(const Cta& cta, uint32_t offset);   // "offset 1024 of CTA 1's shared memory"

}  // namespace softgpu
