// What the driver's entry points share: devices, contexts, streams, modules, captured work, configuration.
#pragma once
#include <cuda.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "decoder.h"
#include "driver_streams.h"
#include "machine.h"

// The handles are pointers to these.
struct CUctx_st { int device; };

namespace softgpu {

struct Module;

// A CUfunction and a CUkernel alike.
struct Kernel {
    Module* module = nullptr;
    std::string name;
    std::mutex mutex;                          // guards decoding
    std::shared_ptr<Program> program;          // decoded on first launch
    int max_dynamic_shared = 48 * 1024;
    const Program& decoded();                  // throws PtxError
};

struct Module {
    CUctx_st* context = nullptr;               // null: a library, loaded for every context
    std::string image;                         // PTX text, or the binary it stands for
    std::string ptx;                           // empty if the image is a binary nobody registered
    std::mutex mutex;
    bool parsed = false;
    ParsedModule parse;
    SymbolTable symbols;
    std::vector<std::pair<void*, size_t>> storage;   // of .global and .const variables
    std::map<std::string, std::unique_ptr<Kernel>> kernels;
    void ensure_parsed();                      // throws PtxError
    Kernel* kernel(const std::string& name);   // null if there is none
    ~Module();
};

// Everything enqueued is done at once, on the caller's thread: a stream has nothing to wait for. What it does have
// is an owner and a capture state.
struct Graph;
struct Stream {
    int device = 0;
    Graph* capturing = nullptr;                // not null: work is recorded here
    bool capture_origin = false;               // began the capture (others joined it through events)
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
    unsigned flags = 0;
    StreamOrder order;
};
struct Node { std::string kind; std::function<CUresult()> run; };
struct Graph { std::vector<Node> nodes; uint64_t id = 0; bool invalid = false; };
struct GraphExec { std::vector<Node> nodes; };
struct Event {
    int device = 0;
    double time_ms = 0;
    bool recorded = false;
    Graph* captured = nullptr;
    StreamClock known;
};

struct Config {
    std::atomic<int> devices{1};
    std::atomic<int> capability{90};
    std::atomic<bool> execute{true};
    LaunchOptions options;
    std::string last_error_json = "null";      // the latest fault
    std::vector<std::string> faults;           // all since the last reset
};

struct Driver {
    std::mutex mutex;                          // guards everything below but the atomics
    Config config;
    CUctx_st contexts[16];
    std::vector<Stream*> streams;
    std::vector<Graph*> captures;              // in progress, for the null stream's rule
    std::map<std::string, std::string> binaries;      // image -> PTX
    std::map<uint64_t, size_t> allocations;
    struct OpcodeCount { uint64_t sites = 0, ran = 0; };   // places in decoded programs; those of them that ran
    std::map<std::string, OpcodeCount> opcodes;       // by full name; what has come since somebody asked last
    std::vector<std::vector<uint64_t>> by_warp;       // instructions by CTA of the cluster and warp
    std::atomic<uint64_t> launches{0}, instructions{0}, allocation_count{0};
    std::atomic<int> injections{0};
    struct Injection { int64_t countdown; CUresult code; };
    std::map<std::string, Injection> injected;
    std::string unknown_entry_points;
    Driver();
};
Driver& driver();

int current_device();                          // of the calling thread's context, or -1
CUresult current_context(CUctx_st** context);  // CUDA_ERROR_INVALID_CONTEXT if there is none
Stream* stream_of(CUstream handle);            // null for the null stream and the per-thread default
bool injected_failure(const char* what, CUresult* code);   // counts a call of `what`

// Runs `work` now or, on a capturing stream, records it.
CUresult enqueue(CUstream stream, const char* kind, std::function<CUresult()> work);

CUresult report_fault(const Fault& fault);     // remembers it and gives its CUresult
CUresult report_ptx_error(const PtxError& error, const std::string& kernel, const Module& module);
std::string fault_text_for(CUresult code);     // the latest fault's words, if it had this code

#define SOFTGPU_INJECT(what)                                                       \
    do {                                                                           \
        CUresult softgpu_code;                                                     \
        if (::softgpu::injected_failure(what, &softgpu_code)) return softgpu_code; \
    } while (0)

}  // namespace softgpu
