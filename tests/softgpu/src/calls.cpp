// Functions that the driver provides to device code: vprintf and __assertfail.
#include "calls.h"

#include <cstdio>
#include <mutex>

#include "lanes.h"
#include "memory.h"
#include "over_forks.h"
#include "printf_log.h"

namespace softgpu {

namespace {
std::mutex g_print_mutex;
const bool g_print_held = (hold_over_forks(g_print_mutex, ForkOrder::Printed), true);
std::string g_printed;

uint64_t local_word(Warp& w, const Instr& in, int lane, uint64_t offset, unsigned bytes) {
    uint64_t value = 0;
    std::memcpy(&value, resolve(w, in, lane, Space::Local, offset, bytes, Access::Read), bytes);
    return value;
}
std::string device_string(Warp& w, const Instr& in, int lane, uint64_t address) {
    std::string text;
    for (;; ++address) {
        const char c = static_cast<char>(*resolve(w, in, lane, Space::Generic, address, 1, Access::Read));
        if (!c) return text;
        text += c;
    }
}

// C's printf over a buffer laid out as CUDA's vprintf wants it: each argument at its own alignment.
std::string format(Warp& w, const Instr& in, int lane, const std::string& fmt, uint64_t buffer) {
    std::string out;
    uint64_t at = 0;
    const auto next = [&](unsigned bytes) {
        at = (at + bytes - 1) / bytes * bytes;
        uint64_t value = 0;
        std::memcpy(&value, resolve(w, in, lane, Space::Generic, buffer + at, bytes, Access::Read), bytes);
        at += bytes;
        return value;
    };
    for (size_t i = 0; i < fmt.size(); ++i) {
        if (fmt[i] != '%') { out += fmt[i]; continue; }
        if (i + 1 < fmt.size() && fmt[i + 1] == '%') { out += '%'; ++i; continue; }
        std::string spec = "%";
        size_t longs = 0;
        for (++i; i < fmt.size(); ++i) {
            const char c = fmt[i];
            if (c == '*') { spec += std::to_string(static_cast<int32_t>(next(4))); continue; }
            if (c == 'l') { ++longs; continue; }
            if (c == 'h' || c == 'z' || c == 'j') { if (c != 'h') longs = 2; continue; }
            spec += c;
            if (std::isalpha(static_cast<unsigned char>(c))) break;
        }
        char text[512];
        const char kind = spec.back();
        spec.pop_back();
        switch (kind) {
            case 'd': case 'i': case 'u': case 'x': case 'X': case 'o':
                if (longs)
                    std::snprintf(text, sizeof text, (spec + "ll" + kind).c_str(), static_cast<long long>(next(8)));
                else std::snprintf(text, sizeof text, (spec + kind).c_str(), static_cast<int>(next(4)));
                break;
            case 'c': std::snprintf(text, sizeof text, (spec + kind).c_str(), static_cast<int>(next(4))); break;
            case 'p': std::snprintf(text, sizeof text, "%p", reinterpret_cast<void*>(next(8))); break;
            case 's':
                std::snprintf(text, sizeof text, (spec + kind).c_str(), device_string(w, in, lane, next(8)).c_str());
                break;
            case 'e': case 'E': case 'f': case 'F': case 'g': case 'G': case 'a': case 'A':
                std::snprintf(text, sizeof text, (spec + kind).c_str(), std::bit_cast<double>(next(8)));
                break;
            default:
                w.fault(in, Fault::Kind::Unsupported,
                        "printf conversion %" + std::string(1, kind) + " in \"" + fmt + "\"", lane);
        }
        out += text;
    }
    return out;
}

Flow exec_vprintf(Warp& w, const Instr& in, Mask m) {
    const auto& call = *static_cast<const CallOperands*>(in.extra);
    std::string text;
    each_lane(m, [&](int l) {
        const std::string fmt = device_string(w, in, l, local_word(w, in, l, call.args.at(0), 8));
        text += format(w, in, l, fmt, local_word(w, in, l, call.args.at(1), 8));
        if (!call.returns.empty()) {
            const int32_t ok = 1;
            std::memcpy(resolve(w, in, l, Space::Local, call.returns[0], 4, Access::Write), &ok, 4);
        }
    });
    const std::lock_guard lock(g_print_mutex);
    g_printed += text;
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
    return Flow::Next;
}

// __assertfail(message, file, line, function, character size)
Flow exec_assertfail(Warp& w, const Instr& in, Mask m) {
    const auto& call = *static_cast<const CallOperands*>(in.extra);
    const int l = std::countr_zero(m);
    const auto text = [&](size_t i) { return device_string(w, in, l, local_word(w, in, l, call.args.at(i), 8)); };
    const uint64_t line = local_word(w, in, l, call.args.at(2), 4);
    w.fault(in, Fault::Kind::Assert,
            "assertion failed: " + text(0) + " (" + text(1) + ":" + std::to_string(line) + ", " + text(3) + ")", l);
}

struct Builtin { const char* name; ExecFn fn; };
const Builtin kBuiltins[] = {{"vprintf", exec_vprintf}, {"__assertfail", exec_assertfail}};
}  // namespace

ExecFn find_builtin(const std::string& name) {
    for (const auto& b : kBuiltins) if (name == b.name) return b.fn;
    return nullptr;
}

std::string take_printed() {
    const std::lock_guard lock(g_print_mutex);
    std::string text;
    text.swap(g_printed);
    return text;
}

}  // namespace softgpu
