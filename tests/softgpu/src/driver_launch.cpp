// Entry points about work: launches, streams, events, capture into graphs and replay.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "bounds.h"
#include "driver.h"

namespace softgpu {

Stream* stream_of(CUstream handle) {
    // 0 is the null stream, 1 and 2 name the legacy and the per-thread default stream.
    return reinterpret_cast<uintptr_t>(handle) <= 2 ? nullptr : reinterpret_cast<Stream*>(handle);
}

CUresult enqueue(CUstream handle, const char* kind, std::function<CUresult()> work) {
    Stream* stream = stream_of(handle);
    if (!stream) {
        // The legacy stream would wait for every blocking stream, a capturing one included: not allowed.
        Driver& d = driver();
        const std::lock_guard lock(d.mutex);
        for (Stream* s : d.streams)
            if (s->capturing && s->capture_origin && s->mode == CU_STREAM_CAPTURE_MODE_GLOBAL &&
                !(s->flags & CU_STREAM_NON_BLOCKING)) {
                s->capturing->invalid = true;
                return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
            }
    } else if (stream->capturing) {
        if (stream->capturing->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        stream->capturing->nodes.push_back({kind, std::move(work)});
        return CUDA_SUCCESS;
    }
    // The null stream and blocking streams wait for each other.
    StreamOrder& order = stream ? stream->order : null_stream_order();
    if (!stream) {
        const std::lock_guard lock(driver().mutex);
        for (const Stream* s : driver().streams)
            if (!(s->flags & CU_STREAM_NON_BLOCKING)) wait_for(order, work_of(s->order));
    } else if (!(stream->flags & CU_STREAM_NON_BLOCKING)) wait_for(order, work_of(null_stream_order()));
    const StreamWork current(order);
    return work();
}

namespace {

// A launch with its parameters copied, as the driver does at the call.
struct Launch {
    Kernel* kernel;
    Dim3 grid, block, cluster;
    unsigned shared = 0;
    bool cooperative = false, explicit_cluster = false;
    std::vector<uint8_t> params;
};

// The driver's workspace of a cooperative launch.
struct Workspace {
    uint32_t words[2] = {sizeof words, 0};
    Workspace() {
        BufferRegistry::instance().allow(reinterpret_cast<uint64_t>(words), sizeof words, "the grid's workspace");
    }
    ~Workspace() { BufferRegistry::instance().remove(reinterpret_cast<uint64_t>(words)); }
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;
};

// What a launch executed, into the driver's counters.
void count(Driver& d, const Grid& grid, Program& program) {
    d.instructions += grid.instructions;
    const std::lock_guard lock(d.mutex);
    for (size_t i = 0; i < grid.reached.size(); ++i) {
        const uint32_t source = program.code[i].source;
        if (!grid.reached[i] || program.ran[source]) continue;
        program.ran[source] = true;
        ++d.opcodes[program.sources[source].opcode].ran;
    }
    const size_t ctas = grid.cluster.count();
    if (d.by_warp.size() < ctas) d.by_warp.resize(ctas);
    for (size_t i = 0; i < grid.by_warp.size(); ++i) {
        const size_t warps = grid.by_warp.size() / ctas;
        auto& row = d.by_warp[i / warps];
        if (row.size() < warps) row.resize(warps);
        row[i % warps] += grid.by_warp[i];
    }
}

CUresult run_now(const Launch& launch) {
    Driver& d = driver();
    if (!d.config.execute) return CUDA_SUCCESS;
    Grid grid;
    bool counted = false;
    try {
        const Program& program = launch.kernel->decoded();
        grid.program = &program;
        grid.grid = launch.grid;
        grid.block = launch.block;
        grid.cluster = launch.cluster;
        grid.explicit_cluster = launch.explicit_cluster;
        if (program.required_cluster.x) {
            grid.cluster = program.required_cluster;
            grid.explicit_cluster = true;
        }
        if (grid.grid.x % grid.cluster.x || grid.grid.y % grid.cluster.y || grid.grid.z % grid.cluster.z)
            return CUDA_ERROR_INVALID_VALUE;
        grid.dynamic_shared = launch.shared;
        grid.cooperative = launch.cooperative;
        const std::unique_ptr<Workspace> workspace(launch.cooperative ? new Workspace : nullptr);
        if (workspace) grid.workspace = workspace->words;
        grid.capability = d.config.capability;
        int sms = 1;
        cuDeviceGetAttribute(&sms, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0);
        grid.sm_count = static_cast<uint32_t>(sms);
        grid.id = d.launches.load();
        {
            const std::lock_guard lock(d.mutex);
            grid.options = d.config.options;
        }
        // Tensor maps among the parameters need 64-byte alignment: give 128.
        const std::unique_ptr<uint8_t, decltype(&std::free)> params(
            static_cast<uint8_t*>(std::aligned_alloc(128, (launch.params.size() + 255) / 128 * 128)), &std::free);
        if (!launch.params.empty()) std::memcpy(params.get(), launch.params.data(), launch.params.size());
        grid.params = params.get();
        grid.param_bytes = launch.params.size();
        run_grid(grid);
        count(d, grid, *launch.kernel->program);
        counted = true;
        if (grid.options.races) check_other_streams(grid, launch.kernel->program);
    } catch (const PtxError& e) {
        return report_ptx_error(e, launch.kernel->name, *launch.kernel->module);
    } catch (const FaultError& e) {
        if (grid.program && !counted) count(d, grid, *launch.kernel->program);
        return report_fault(e.fault);
    }
    return CUDA_SUCCESS;
}

// The parameter block from the caller's pointers, laid out as the kernel declares.
CUresult gather_params(Kernel& kernel, void** pointers, void** extra, std::vector<uint8_t>& out) {
    try {
        const Program& program = kernel.decoded();
        out.resize(program.param_bytes);
        if (extra) {
            const void* buffer = nullptr;
            size_t bytes = 0;
            for (void** e = extra; *e != CU_LAUNCH_PARAM_END; e += 2) {
                if (*e == CU_LAUNCH_PARAM_BUFFER_POINTER) buffer = e[1];
                else if (*e == CU_LAUNCH_PARAM_BUFFER_SIZE) bytes = *static_cast<size_t*>(e[1]);
                else return CUDA_ERROR_INVALID_VALUE;
            }
            if (!buffer || bytes > out.size()) return CUDA_ERROR_INVALID_VALUE;
            std::memcpy(out.data(), buffer, bytes);
            return CUDA_SUCCESS;
        }
        if (!pointers && !program.params.empty()) return CUDA_ERROR_INVALID_VALUE;
        for (size_t i = 0; i < program.params.size(); ++i) {
            if (!pointers[i]) return CUDA_ERROR_INVALID_VALUE;
            std::memcpy(out.data() + program.params[i].offset, pointers[i], program.params[i].size);
        }
    } catch (const PtxError& e) {
        return report_ptx_error(e, kernel.name, *kernel.module);
    }
    return CUDA_SUCCESS;
}

CUresult launch_kernel(const CUlaunchConfig& c, CUfunction f, void** params, void** extra) {
    Driver& d = driver();
    SOFTGPU_INJECT("launch");
    CUctx_st* context;
    if (const CUresult r = current_context(&context); r != CUDA_SUCCESS) return r;
    auto* kernel = reinterpret_cast<Kernel*>(f);
    if (!kernel) return CUDA_ERROR_INVALID_HANDLE;
    Stream* stream = stream_of(c.hStream);
    if (stream && stream->device != context->device) return CUDA_ERROR_INVALID_HANDLE;
    if (kernel->module->context && kernel->module->context != context) return CUDA_ERROR_INVALID_HANDLE;
    const uint64_t threads = uint64_t(c.blockDimX) * c.blockDimY * c.blockDimZ;
    if (!threads || threads > 1024 || !c.gridDimX || !c.gridDimY || !c.gridDimZ || c.gridDimX > 2147483647u ||
        c.gridDimY > 65535 || c.gridDimZ > 65535)
        return CUDA_ERROR_INVALID_VALUE;
    if (c.sharedMemBytes > static_cast<unsigned>(kernel->max_dynamic_shared)) return CUDA_ERROR_INVALID_VALUE;
    if (!d.config.execute && !(stream && stream->capturing)) {   // host-cost benchmarks: nothing but the count
        d.launches.fetch_add(1, std::memory_order_relaxed);
        return CUDA_SUCCESS;
    }
    Launch launch;
    launch.kernel = kernel;
    launch.grid = {c.gridDimX, c.gridDimY, c.gridDimZ};
    launch.block = {c.blockDimX, c.blockDimY, c.blockDimZ};
    launch.shared = c.sharedMemBytes;
    for (unsigned i = 0; i < c.numAttrs; ++i) {
        const CUlaunchAttribute& a = c.attrs[i];
        if (a.id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION) {
            launch.cluster = {a.value.clusterDim.x, a.value.clusterDim.y, a.value.clusterDim.z};
            launch.explicit_cluster = true;
        } else if (a.id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE) launch.cooperative = a.value.cooperative != 0;
    }
    if (launch.cooperative) {   // all CTAs must be resident at the same time
        int per_sm = 0, sms = 0;
        cuOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, f, static_cast<int>(threads), c.sharedMemBytes);
        cuDeviceGetAttribute(&sms, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0);
        if (launch.grid.count() > static_cast<uint64_t>(per_sm) * static_cast<uint64_t>(sms))
            return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
    }
    if (d.config.execute)
        if (const CUresult r = gather_params(*kernel, params, extra, launch.params); r != CUDA_SUCCESS) return r;
    const CUresult r = enqueue(c.hStream, "kernel", [launch = std::move(launch)] {
        driver().launches.fetch_add(1, std::memory_order_relaxed);
        return run_now(launch);
    });
    return r;
}

double now_ms() {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace
}  // namespace softgpu

using namespace softgpu;
#define API extern "C" CUresult CUDAAPI

// ---- launches
// -----------------------------------------------------------------------------------------------------------
API cuLaunchKernelEx(const CUlaunchConfig* c, CUfunction f, void** params, void** extra) {
    return launch_kernel(*c, f, params, extra);
}
API cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, CUstream s, void** params, void** extra) {
    CUlaunchConfig c{};
    c.gridDimX = gx; c.gridDimY = gy; c.gridDimZ = gz;
    c.blockDimX = bx; c.blockDimY = by; c.blockDimZ = bz;
    c.sharedMemBytes = shared;
    c.hStream = s;
    return launch_kernel(c, f, params, extra);
}
API cuLaunchCooperativeKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                              unsigned bz, unsigned shared, CUstream s, void** params) {
    CUlaunchAttribute a{};
    a.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
    a.value.cooperative = 1;
    CUlaunchConfig c{};
    c.gridDimX = gx; c.gridDimY = gy; c.gridDimZ = gz;
    c.blockDimX = bx; c.blockDimY = by; c.blockDimZ = bz;
    c.sharedMemBytes = shared;
    c.hStream = s;
    c.attrs = &a;
    c.numAttrs = 1;
    return launch_kernel(c, f, params, nullptr);
}
API cuLaunchHostFunc(CUstream s, CUhostFn fn, void* data) {
    return enqueue(s, "host", [=] { fn(data); return CUDA_SUCCESS; });
}

// ---- streams
// -------------------------------------------------------------------------------------------------------------
API cuStreamCreate(CUstream* out, unsigned flags) {
    if (current_device() < 0) return CUDA_ERROR_INVALID_CONTEXT;
    auto* s = new Stream;
    s->device = current_device();
    s->flags = flags;
    s->order.id = new_stream_id();
    const std::lock_guard lock(driver().mutex);
    driver().streams.push_back(s);
    *out = reinterpret_cast<CUstream>(s);
    return CUDA_SUCCESS;
}
API cuStreamCreateWithPriority(CUstream* out, unsigned flags, int) { return cuStreamCreate(out, flags); }
API cuStreamDestroy(CUstream handle) {
    Stream* s = stream_of(handle);
    if (!s) return CUDA_ERROR_INVALID_HANDLE;
    const std::lock_guard lock(driver().mutex);
    std::erase(driver().streams, s);
    delete s;
    return CUDA_SUCCESS;
}
API cuStreamSynchronize(CUstream handle) {
    Stream* s = stream_of(handle);
    if (s && s->capturing) { s->capturing->invalid = true; return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED; }
    host_waits_for(work_of(s ? s->order : null_stream_order()));
    return CUDA_SUCCESS;
}
API cuStreamQuery(CUstream handle) { return cuStreamSynchronize(handle); }
API cuStreamGetFlags(CUstream handle, unsigned* flags) {
    Stream* s = stream_of(handle);
    *flags = s ? s->flags : 0;
    return CUDA_SUCCESS;
}
API cuStreamGetPriority(CUstream, int* p) { *p = 0; return CUDA_SUCCESS; }
API cuStreamGetCtx(CUstream handle, CUcontext* c) {
    Stream* s = stream_of(handle);
    const int device = s ? s->device : current_device();
    if (device < 0) return CUDA_ERROR_INVALID_CONTEXT;
    *c = &driver().contexts[device];
    return CUDA_SUCCESS;
}
API cuStreamGetDevice(CUstream handle, CUdevice* d) {
    Stream* s = stream_of(handle);
    *d = s ? s->device : std::max(0, current_device());
    return CUDA_SUCCESS;
}
API cuStreamGetId(CUstream handle, unsigned long long* id) {
    *id = reinterpret_cast<unsigned long long>(handle);
    return CUDA_SUCCESS;
}

// ---- events: everything before them is done
// ---------------------------------------------------------------------------------
API cuEventCreate(CUevent* e, unsigned) {
    auto* event = new Event;
    event->device = std::max(0, current_device());
    *e = reinterpret_cast<CUevent>(event);
    return CUDA_SUCCESS;
}
API cuEventRecord(CUevent e, CUstream handle) {
    auto* event = reinterpret_cast<Event*>(e);
    Stream* s = stream_of(handle);
    event->captured = s ? s->capturing : nullptr;
    event->recorded = true;
    event->known = work_of(s ? s->order : null_stream_order());
    event->time_ms = now_ms();
    return CUDA_SUCCESS;
}
API cuEventRecordWithFlags(CUevent e, CUstream s, unsigned) { return cuEventRecord(e, s); }
API cuStreamWaitEvent(CUstream handle, CUevent e, unsigned) {
    auto* event = reinterpret_cast<Event*>(e);
    Stream* s = stream_of(handle);
    wait_for(s ? s->order : null_stream_order(), event->known);
    if (event->captured && s && !s->capturing) s->capturing = event->captured;   // joins the capture
    return CUDA_SUCCESS;
}
API cuEventSynchronize(CUevent e) {
    const auto* event = reinterpret_cast<Event*>(e);
    if (event->captured) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    host_waits_for(event->known);
    return CUDA_SUCCESS;
}
API cuEventQuery(CUevent e) {
    host_waits_for(reinterpret_cast<Event*>(e)->known);   // it has happened
    return CUDA_SUCCESS;
}
API cuEventDestroy(CUevent e) { delete reinterpret_cast<Event*>(e); return CUDA_SUCCESS; }
API cuEventElapsedTime(float* ms, CUevent start, CUevent end) {
    const auto *a = reinterpret_cast<Event*>(start), *b = reinterpret_cast<Event*>(end);
    if (!a->recorded || !b->recorded) return CUDA_ERROR_INVALID_HANDLE;
    *ms = static_cast<float>(b->time_ms - a->time_ms);
    return CUDA_SUCCESS;
}
#ifdef cuEventElapsedTime   // cuda.h renames it to _v2; the plain name has the same signature and callers
#undef cuEventElapsedTime
extern "C" CUresult CUDAAPI cuEventElapsedTime(float* ms, CUevent start, CUevent end) {
    return cuEventElapsedTime_v2(ms, start, end);
}
#endif

// ---- capture and graphs
// ------------------------------------------------------------------------------------------------------
namespace { std::atomic<uint64_t> g_capture_id{0}; }
API cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode mode) {
    Stream* s = stream_of(handle);
    if (!s) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (s->capturing) return CUDA_ERROR_INVALID_VALUE;
    s->capturing = new Graph;
    s->capturing->id = ++g_capture_id;
    s->capture_origin = true;
    s->mode = mode;
    return CUDA_SUCCESS;
}
API cuStreamEndCapture(CUstream handle, CUgraph* out) {
    Stream* s = stream_of(handle);
    *out = nullptr;
    if (!s || !s->capturing || !s->capture_origin) return CUDA_ERROR_INVALID_VALUE;
    Graph* graph = s->capturing;
    {
        const std::lock_guard lock(driver().mutex);
        for (Stream* other : driver().streams)
            if (other->capturing == graph) { other->capturing = nullptr; other->capture_origin = false; }
    }
    if (graph->invalid) {
        delete graph;
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    *out = reinterpret_cast<CUgraph>(graph);
    return CUDA_SUCCESS;
}
API cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus* status) {
    Stream* s = stream_of(handle);
    *status = !s || !s->capturing ? CU_STREAM_CAPTURE_STATUS_NONE
              : s->capturing->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return CUDA_SUCCESS;
}
API cuStreamGetCaptureInfo_v2(CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* id, CUgraph* graph,
                              const CUgraphNode**, size_t* n) {
    cuStreamIsCapturing(handle, status);
    Stream* s = stream_of(handle);
    if (s && s->capturing) {
        if (id) *id = s->capturing->id;
        if (graph) *graph = reinterpret_cast<CUgraph>(s->capturing);
    }
    if (n) *n = 0;
    return CUDA_SUCCESS;
}
API cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode*) { return CUDA_SUCCESS; }
API cuGraphCreate(CUgraph* g, unsigned) { *g = reinterpret_cast<CUgraph>(new Graph); return CUDA_SUCCESS; }
API cuGraphDestroy(CUgraph g) { delete reinterpret_cast<Graph*>(g); return CUDA_SUCCESS; }
API cuGraphGetNodes(CUgraph g, CUgraphNode* nodes, size_t* n) {
    auto& list = reinterpret_cast<Graph*>(g)->nodes;
    if (nodes)
        for (size_t i = 0; i < std::min(*n, list.size()); ++i) nodes[i] = reinterpret_cast<CUgraphNode>(&list[i]);
    *n = list.size();
    return CUDA_SUCCESS;
}
API cuGraphInstantiateWithFlags(CUgraphExec* e, CUgraph g, unsigned long long) {
    *e = reinterpret_cast<CUgraphExec>(new GraphExec{reinterpret_cast<Graph*>(g)->nodes});
    return CUDA_SUCCESS;
}
API cuGraphInstantiateWithParams(CUgraphExec* e, CUgraph g, CUDA_GRAPH_INSTANTIATE_PARAMS*) {
    return cuGraphInstantiateWithFlags(e, g, 0);
}
API cuGraphExecDestroy(CUgraphExec e) { delete reinterpret_cast<GraphExec*>(e); return CUDA_SUCCESS; }
API cuGraphUpload(CUgraphExec, CUstream) { return CUDA_SUCCESS; }
API cuGraphLaunch(CUgraphExec e, CUstream stream) {
    SOFTGPU_INJECT("graph_launch");
    auto* exec = reinterpret_cast<GraphExec*>(e);
    return enqueue(stream, "graph", [nodes = exec->nodes] {
        for (const auto& node : nodes)
            if (const CUresult r = node.run(); r != CUDA_SUCCESS) return r;
        return CUDA_SUCCESS;
    });
}
