// Memory spaces: resolving a lane's address to a host pointer with the checks a GPU would make, the shadow
// of shared memory (what was written, what is in flight). Which global memory may be touched: bounds.h.
#pragma once
#include "bounds.h"
#include "machine.h"

namespace softgpu {

// ---- access to a lane's address ----------------------------------------------------------------------------
enum class Access : uint8_t { Read, Write, ReadWrite };

// The host pointer behind `address` of `space` for one lane. Checks alignment (bytes must be a power of
// two, at most 32), bounds, and for reads of shared memory that every byte was written. Writes mark the
// bytes written. Throws FaultError.
uint8_t* resolve(Warp& w, const Instr& in, int lane, Space space, uint64_t address, unsigned bytes, Access access);

// Lane addresses of a memory operand held in an instruction: base slot in.a, in.imm offset.
void lane_addresses(Warp& w, Slot base, bool wide, int64_t offset, uint64_t out[kWarpSize]);

// Shared memory of the CTA that a shared address names (its rank is in the address), with bounds checked but not
// the shadow: for asynchronous copies and matrix units.
struct SharedRange { Cta* cta; uint32_t offset; uint8_t* data; uint8_t* shadow; };
SharedRange shared_range(Warp& w, const Instr& in, uint64_t address, uint64_t bytes, int lane = -1);
void poison_in_flight(const SharedRange& range, uint64_t bytes);   // an asynchronous write was issued
void mark_written(const SharedRange& range, uint64_t bytes);
// Faults (or gives poison, as the launch options say) unless every byte was written.
void require_written(Warp& w, const Instr& in, const SharedRange& range, uint64_t bytes, int lane = -1);

// The 32-bit shared address in a generic or shared operand.
inline uint32_t shared_address(uint64_t address) { return static_cast<uint32_t>(address); }

// Host addresses read or written by device code may not be mapped at all. Code between guard construction
// and destruction turns SIGSEGV/SIGBUS on this thread into a FaultError (see memory.cpp).
void install_segv_handler();
void run_with_segv_guard(const std::function<void()>& body, const std::function<void(uint64_t)>& on_fault);

// What an unwritten or in-flight byte reads as when reads of it do not fault: 0xff makes NaNs of floats.
constexpr uint8_t kPoison = 0xff;

}  // namespace softgpu
