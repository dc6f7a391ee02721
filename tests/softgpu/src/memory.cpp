// Address resolution, the shadow of shared memory, unmapped host addresses.
#include "memory.h"

#include <algorithm>
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <mutex>

namespace softgpu {

// ---- addresses ------------------------------------------------------------------------------------------------
void lane_addresses(Warp& w, Slot base, bool wide, int64_t offset, uint64_t out[kWarpSize]) {
    if (base == kNoSlot) {
        for (int l = 0; l < kWarpSize; ++l) out[l] = static_cast<uint64_t>(offset);
    } else if (wide) {
        const uint64_t* a = w.r64(base);
        for (int l = 0; l < kWarpSize; ++l) out[l] = a[l] + static_cast<uint64_t>(offset);
    } else {
        const uint32_t* a = w.r32(base);
        for (int l = 0; l < kWarpSize; ++l) out[l] = static_cast<uint32_t>(a[l] + static_cast<uint32_t>(offset));
    }
}

namespace {
std::string hex(uint64_t value) {
    char text[24];
    std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
    return text;
}
}  // namespace

SharedRange shared_range(Warp& w, const Instr& in, uint64_t address, uint64_t bytes, int lane) {
    const uint32_t word = shared_address(address);
    const uint32_t rank = word >> kSharedRankShift, offset = word & kSharedOffsetMask;
    Cluster& cluster = *w.cta->cluster;
    if (rank >= cluster.ctas.size())
        w.fault(in, Fault::Kind::OutOfBounds,
                "shared address " + hex(word) + " names CTA " + std::to_string(rank) + " of a cluster of " +
                    std::to_string(cluster.ctas.size()), lane, address);
    Cta& cta = *cluster.ctas[rank];
    if (!cta.live_threads && &cta != w.cta)
        w.fault(in, Fault::Kind::SyncMisuse,
                "touches shared memory of CTA " + std::to_string(rank) + " of the cluster, which has already exited",
                lane, address);
    if (offset + bytes > cta.shared.size())
        w.fault(in, Fault::Kind::OutOfBounds,
                "shared memory has " + std::to_string(cta.shared.size()) + " bytes, access to " +
                    std::to_string(bytes) + " bytes at offset " + std::to_string(offset),
                lane, address);
    return {&cta, offset, cta.shared.data() + offset, cta.shadow.data() + offset};
}
void poison_in_flight(const SharedRange& range, uint64_t bytes) {
    std::memset(range.shadow, kInFlight, bytes);
    std::memset(range.data, kPoison, bytes);
}
void mark_written(const SharedRange& range, uint64_t bytes) { std::memset(range.shadow, kValid, bytes); }

void require_written(Warp& w, const Instr& in, const SharedRange& range, uint64_t bytes, int lane) {
    for (uint64_t i = 0; i < bytes; ++i) {
        if (range.shadow[i] & kValid) continue;
        if (!w.cta->grid->options.fault_on_uninitialised) return;   // the poison is read
        const uint64_t offset = range.offset + i;
        if (range.shadow[i] == kInFlight)
            w.fault(in, Fault::Kind::InFlight,
                    "reads shared memory at offset " + std::to_string(offset) +
                        " that an asynchronous copy is still writing: a wait for that copy is missing", lane, offset);
        w.fault(in, Fault::Kind::Uninitialised,
                "reads shared memory at offset " + std::to_string(offset) + " that nothing has written", lane, offset);
    }
}

// Whether an access past a storage's end is that of an atomic on its last 16-bit element: no instruction adds bfloat16s
// before 9.0, so a loop swaps the aligned 32-bit word around it, [%rd2] of `atom.cas.b32`, which the load before the
// loop reads too. What is past the end stays as it is, and is the same page: GPU memory is handed out in multiples of
// 256 bytes.
static bool is_word_of_swapped_half(const Warp& w, const Instr& in, uint64_t address, unsigned bytes) {
    uint64_t low, high;
    if (bytes != 4 || !w.cta->grid->bounds->allows(address, 2, low, high)) return false;
    const auto place = [](const std::string& text) {
        const size_t from = text.find('['), to = text.find(']');
        return from == std::string::npos || to == std::string::npos ? "" : text.substr(from, to - from);
    };
    const std::string swapped = place(w.program->sources[in.source].text);
    const auto& sources = w.program->sources;
    return !swapped.empty() && std::any_of(sources.begin(), sources.end(), [&](const Program::Source& source) {
        return source.text.find(".cas.b32") != std::string::npos && place(source.text) == swapped;
    });
}

uint8_t* resolve(Warp& w, const Instr& in, int lane, Space space, uint64_t address, unsigned bytes, Access access) {
    if (space == Space::Generic) {
        switch (address & kWindowMask) {
            case kSharedWindow: space = Space::Shared; break;
            case kLocalWindow: space = Space::Local; break;
            default: space = Space::Global;
        }
    }
    if (address & (bytes - 1))
        w.fault(
            in, Fault::Kind::Misaligned,
            "address " + hex(address) + " is not a multiple of the access size, " + std::to_string(bytes) + " bytes",
            lane, address);
    if (space == Space::Shared) {
        const SharedRange range = shared_range(w, in, address, bytes, lane);
        if (access != Access::Write) require_written(w, in, range, bytes, lane);
        if (access != Access::Read) mark_written(range, bytes);
        return range.data;
    }
    if (space == Space::Local) {
        const uint64_t offset = address & ~kWindowMask;
        const uint64_t size = w.program->local_bytes;
        if (offset + bytes > size)
            w.fault(in, Fault::Kind::OutOfBounds,
                    "local memory has " + std::to_string(size) + " bytes a lane, access at offset " +
                        std::to_string(offset),
                    lane, address);
        return w.local.data() + static_cast<size_t>(lane) * size + offset;
    }
    if (space == Space::Global) {
        // A kernel parameter's address is a generic address too (cvta.param): always readable.
        const Grid& grid = *w.cta->grid;
        const auto start = reinterpret_cast<uint64_t>(grid.params);
        const bool is_param = address >= start && address + bytes <= start + grid.param_bytes;
        Warp::Window& known = w.window(in);
        const bool within = address >= known.low && address + bytes <= known.high;
        if (!is_param && !within && !grid.bounds->allows(address, bytes, known.low, known.high) &&
            !is_word_of_swapped_half(w, in, address, bytes)) {
            known = {};
            w.fault(in, Fault::Kind::OutOfBounds,
                    std::string(access == Access::Read ? "reads" : "writes") + " global memory at " + hex(address) +
                        ": " + grid.bounds->why_not(address, bytes),
                    lane, address);
        }
    }
    return reinterpret_cast<uint8_t*>(address);   // Global, Const and Param addresses are host addresses
}

// ---- unmapped host addresses --------------------------------------------------------------------------------------
namespace {
thread_local sigjmp_buf* t_jump = nullptr;
thread_local volatile uint64_t t_fault_address = 0;
struct sigaction g_previous_segv, g_previous_bus;

void on_signal(int signal, siginfo_t* info, void* context) {
    if (t_jump) {
        t_fault_address = reinterpret_cast<uint64_t>(info->si_addr);
        siglongjmp(*t_jump, 1);
    }
    // Not device code: whoever was there before us.
    const struct sigaction& previous = signal == SIGBUS ? g_previous_bus : g_previous_segv;
    if (previous.sa_flags & SA_SIGINFO) previous.sa_sigaction(signal, info, context);
    else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) previous.sa_handler(signal);
    else {
        sigaction(signal, &previous, nullptr);   // returning repeats the access, now with the default action
    }
}
}  // namespace

void install_segv_handler() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action {};
        action.sa_sigaction = on_signal;
        action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
        sigaction(SIGSEGV, &action, &g_previous_segv);
        sigaction(SIGBUS, &action, &g_previous_bus);
    });
}

void run_with_segv_guard(const std::function<void()>& body, const std::function<void(uint64_t)>& on_fault) {
    sigjmp_buf jump;
    if (sigsetjmp(jump, 1) == 0) {
        t_jump = &jump;
        try {
            body();
        } catch (...) {
            t_jump = nullptr;
            throw;
        }
        t_jump = nullptr;
    } else {
        t_jump = nullptr;
        on_fault(t_fault_address);
    }
}

}  // namespace softgpu
