// The C functions that Python calls (native.py): configuration, counters, fault reports, buffers, error injection.
#include <cstdio>
#include <cstring>

#include "driver.h"
#include "memory.h"
#include "over_forks.h"
#include "printf_log.h"

namespace softgpu {

namespace {

std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
        char escape[8];
        if (c == '"' || c == '\\') { out += '\\'; out += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            std::snprintf(escape, sizeof escape, "\\u%04x", c);
            out += escape;
        } else
            out += c;
    }
    return out + "\"";
}
std::string json(const Fault::Place& p) {
    return "{\"access\": " + quoted(p.access) + ", \"opcode\": " + quoted(p.opcode) + ", \"ptx\": " + quoted(p.ptx) +
           ", \"line\": " + std::to_string(p.line) + ", \"location\": " + quoted(p.location) + ", \"cta\": [" +
           std::to_string(p.cta.x) + ", " + std::to_string(p.cta.y) + ", " + std::to_string(p.cta.z) +
           "], \"warp\": " + std::to_string(p.warp) + ", \"lane\": " + std::to_string(p.lane) + "}";
}
std::string json(const Fault& f, CUresult code) {
    std::string s = "{\"kind\": " + quoted(fault_kind_name(f.kind));
    s += ", \"message\": " + quoted(f.message) + ", \"kernel\": " + quoted(f.kernel) +
         ", \"opcode\": " + quoted(f.opcode);
    s += ", \"ptx\": " + quoted(f.ptx) + ", \"line\": " + std::to_string(f.line);
    s += ", \"cta\": [" + std::to_string(f.cta.x) + ", " + std::to_string(f.cta.y) + ", " + std::to_string(f.cta.z) +
         "]";
    s += ", \"warp\": " + std::to_string(f.warp) + ", \"lane\": " + std::to_string(f.lane) +
         ", \"address\": " + std::to_string(f.address);
    s += ", \"location\": " + quoted(f.location) + ", \"other\": " + (f.other ? json(*f.other) : "null");
    s += ", \"report\": " + quoted(f.report) + ", \"code\": " + std::to_string(static_cast<int>(code)) + "}";
    return s;
}
CUresult code_of(Fault::Kind kind) {
    switch (kind) {
        case Fault::Kind::Misaligned: return CUDA_ERROR_MISALIGNED_ADDRESS;
        case Fault::Kind::OutOfBounds: return CUDA_ERROR_ILLEGAL_ADDRESS;
        case Fault::Kind::Assert: return CUDA_ERROR_ASSERT;
        case Fault::Kind::InstructionLimit: return CUDA_ERROR_LAUNCH_TIMEOUT;
        case Fault::Kind::IllegalInstruction: return CUDA_ERROR_ILLEGAL_INSTRUCTION;
        case Fault::Kind::UnknownOpcode:
        case Fault::Kind::BadPtx:
        case Fault::Kind::Unsupported: return CUDA_ERROR_INVALID_PTX;
        default: return CUDA_ERROR_LAUNCH_FAILED;
    }
}
std::mutex g_last_mutex;
const bool g_last_held = (hold_over_forks(g_last_mutex, ForkOrder::LastFault), true);
CUresult g_last_code = CUDA_SUCCESS;
std::string g_last_text;

}  // namespace

CUresult report_fault(const Fault& f) {
    const CUresult code = code_of(f.kind);
    {
        const std::lock_guard lock(driver().mutex);
        driver().config.faults.push_back(json(f, code));
    }
    std::string text = std::string(fault_kind_name(f.kind)) + ": " + f.message;
    if (!f.kernel.empty()) text += " [kernel " + f.kernel;
    if (f.line) text += ", PTX line " + std::to_string(f.line) + ": " + f.ptx;
    if (!f.location.empty()) text += ", " + f.location;
    if (f.warp >= 0)
        text += ", CTA (" + std::to_string(f.cta.x) + "," + std::to_string(f.cta.y) + "," + std::to_string(f.cta.z) +
                ") warp " + std::to_string(f.warp) + (f.lane >= 0 ? " lane " + std::to_string(f.lane) : "");
    if (!f.kernel.empty()) text += "]";
    const std::lock_guard lock(g_last_mutex);
    g_last_code = code;
    g_last_text = text;
    return code;
}
CUresult report_ptx_error(const PtxError& e, const std::string& kernel, const Module& module) {
    Fault f;
    const std::string what = e.what();
    f.kind = what.find("unknown opcode") != std::string::npos ? Fault::Kind::UnknownOpcode : Fault::Kind::BadPtx;
    f.message = what;
    f.kernel = kernel;
    f.line = e.line;
    if (e.line > 0 && static_cast<size_t>(e.line) <= module.parse.lines.size()) {
        f.ptx = module.parse.lines[static_cast<size_t>(e.line) - 1];
        f.ptx.erase(0, f.ptx.find_first_not_of(" \t"));
    }
    const size_t at = what.find("unknown opcode ");
    if (at != std::string::npos) f.opcode = what.substr(at + 15);
    return report_fault(f);
}
std::string fault_text_for(CUresult code) {
    const std::lock_guard lock(g_last_mutex);
    return code == g_last_code ? g_last_text : "";
}

namespace {
thread_local std::string t_result;
const char* give(std::string text) {
    t_result = std::move(text);
    return t_result.c_str();
}
}  // namespace
}  // namespace softgpu

using namespace softgpu;
#define CONTROL extern "C" __attribute__((visibility("default")))

CONTROL void softgpu_configure(int capability, int devices, int execute) {
    Driver& d = driver();
    d.config.capability = capability;
    d.config.devices = devices;
    d.config.execute = execute != 0;
}
CONTROL void softgpu_options(uint64_t seed, unsigned threads, uint64_t max_instructions, int fault_on_uninitialised,
                             int races) {
    const std::lock_guard lock(driver().mutex);
    driver().config.options = {seed, threads, max_instructions, fault_on_uninitialised != 0, races != 0};
}
CONTROL uint64_t softgpu_launches() { return driver().launches; }
CONTROL uint64_t softgpu_instructions() { return driver().instructions; }
CONTROL uint64_t softgpu_allocations() { return driver().allocation_count; }
// Counters, faults and injections as after loading. Modules, streams and memory stay: their owners hold handles.
CONTROL void softgpu_reset() {
    Driver& d = driver();
    const std::lock_guard lock(d.mutex);
    d.launches = 0;
    d.instructions = 0;
    d.by_warp.clear();
    d.allocation_count = 0;
    d.config.faults.clear();
    d.injected.clear();
    d.injections = 0;
    d.unknown_entry_points.clear();
    const std::lock_guard last(g_last_mutex);
    g_last_code = CUDA_SUCCESS;
    g_last_text.clear();
    take_printed();
    forget_streams();
}
CONTROL const char* softgpu_faults() {
    const std::lock_guard lock(driver().mutex);
    std::string s = "[";
    for (const auto& f : driver().config.faults) s += (s.size() > 1 ? ", " : "") + f;
    return give(s + "]");
}
CONTROL const char* softgpu_unknown_entry_points() {
    const std::lock_guard lock(driver().mutex);
    return give(driver().unknown_entry_points);
}
CONTROL const char* softgpu_printed() { return give(take_printed()); }
// Of each opcode: places decoded, and places run for the first time, since the last call.
CONTROL const char* softgpu_take_opcodes() {
    const std::lock_guard lock(driver().mutex);
    std::string s = "{";
    for (const auto& [name, count] : driver().opcodes)
        s += (s.size() > 1 ? ", " : "") + quoted(name) + ": [" + std::to_string(count.sites) + ", " +
             std::to_string(count.ran) + "]";
    driver().opcodes.clear();
    return give(s + "}");
}
CONTROL const char* softgpu_warp_instructions() {
    const std::lock_guard lock(driver().mutex);
    std::string s = "[";
    for (const auto& row : driver().by_warp) {
        std::string text;
        for (const uint64_t n : row) text += (text.empty() ? "" : ", ") + std::to_string(n);
        s += (s.size() > 1 ? ", [" : "[") + text + "]";
    }
    return give(s + "]");
}
CONTROL const char* softgpu_opcode_families() {
    std::string s = "[";
    for (const auto& name : opcode_families()) s += (s.size() > 1 ? ", " : "") + quoted(name);
    return give(s + "]");
}
CONTROL void softgpu_inject(const char* what, int64_t nth, int code) {
    Driver& d = driver();
    const std::lock_guard lock(d.mutex);
    if (!d.injected.count(what)) ++d.injections;
    d.injected[what] = {nth, static_cast<CUresult>(code)};
}
CONTROL void softgpu_register_binary(const char* image, uint64_t bytes, const char* ptx) {
    const std::lock_guard lock(driver().mutex);
    driver().binaries[std::string(image, bytes)] = ptx;
}
CONTROL void softgpu_allow(uint64_t start, uint64_t bytes, const char* name) {
    BufferRegistry::instance().allow(start, bytes, name);
}
CONTROL void softgpu_forbid(uint64_t start, uint64_t bytes, const char* name) {
    BufferRegistry::instance().forbid(start, bytes, name);
}
CONTROL void softgpu_storages(BufferRegistry::Version version, BufferRegistry::Each each) {
    BufferRegistry::instance().set_storages(version, each);
}
CONTROL void softgpu_foreign(uint64_t start, uint64_t bytes) { BufferRegistry::instance().foreign(start, bytes); }
CONTROL int softgpu_forget(uint64_t start) { return BufferRegistry::instance().remove(start); }
CONTROL void softgpu_strict(int strict) { BufferRegistry::instance().set_strict(strict != 0); }
