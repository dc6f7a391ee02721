// Entry points about code: modules, libraries, kernels, their attributes, occupancy.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "driver.h"
#include "memory.h"

namespace softgpu {

namespace {

// The bytes of an image: text up to its zero, or an ELF file or fat binary by its header's size.
std::string image_bytes(const void* data) {
    const auto* p = static_cast<const unsigned char*>(data);
    uint32_t magic;
    std::memcpy(&magic, p, 4);
    if (std::memcmp(p, "\x7f" "ELF", 4) == 0) {
        uint64_t section_offset, program_offset;
        uint16_t section_size, sections, program_size, programs;
        std::memcpy(&program_offset, p + 32, 8);
        std::memcpy(&section_offset, p + 40, 8);
        std::memcpy(&program_size, p + 54, 2);
        std::memcpy(&programs, p + 56, 2);
        std::memcpy(&section_size, p + 58, 2);
        std::memcpy(&sections, p + 60, 2);
        const uint64_t end = std::max(section_offset + uint64_t(section_size) * sections,
                                      program_offset + uint64_t(program_size) * programs);
        return {reinterpret_cast<const char*>(p), end};
    }
    if (magic == 0x466243b1u) {   // __fatBinC_Wrapper_t: a pointer to the fat binary at offset 8
        const void* inner;
        std::memcpy(&inner, p + 8, sizeof inner);
        return image_bytes(inner);
    }
    if (magic == 0xba55ed50u) {   // fat binary: header size and payload size
        uint16_t header;
        uint64_t payload;
        std::memcpy(&header, p + 6, 2);
        std::memcpy(&payload, p + 8, 8);
        return {reinterpret_cast<const char*>(p), header + payload};
    }
    return reinterpret_cast<const char*>(p);
}
bool is_binary(const std::string& image) {
    return image.compare(0, 4,
                         "\x7f"
                         "ELF") == 0 ||
           image.compare(0, 4, "\x50\xed\x55\xba") == 0;
}

CUresult load(const void* data, CUctx_st* context, Module** out) {
    SOFTGPU_INJECT("module_load");
    auto module = std::make_unique<Module>();
    module->context = context;
    module->image = image_bytes(data);
    Driver& d = driver();
    {
        const std::lock_guard lock(d.mutex);
        const auto it = d.binaries.find(module->image);
        if (it != d.binaries.end()) module->ptx = it->second;
        else if (!is_binary(module->image)) module->ptx = module->image;
    }
    if (d.config.execute && module->ptx.empty()) {
        Fault f;
        f.kind = Fault::Kind::BadPtx;
        f.message = "a binary was loaded whose PTX is not known: softgpu.register(binary, ptx) tells it";
        report_fault(f);
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    }
    std::string().swap(module->image);
    *out = module.release();
    return CUDA_SUCCESS;
}

}  // namespace

void Module::ensure_parsed() {
    const std::lock_guard lock(mutex);
    if (parsed) return;
    parse = parse_ptx(ptx);
    // Global and constant variables get memory, shared ones an offset.
    for (const auto& v : parse.variables) {
        if (v.space == "shared") {
            if (v.is_extern) continue;
            symbols.static_shared = (symbols.static_shared + v.align - 1) / v.align * v.align;
            symbols.shared[v.name] = symbols.static_shared;
            symbols.static_shared += static_cast<uint32_t>(v.size);
            continue;
        }
        if (v.is_extern || symbols.addresses.count(v.name)) continue;
        const size_t align = std::max<size_t>(v.align, 64);
        void* memory = std::aligned_alloc(align, (std::max<size_t>(v.size, 1) + align - 1) / align * align);
        std::memset(memory, 0, v.size);
        if (!v.init.empty()) std::memcpy(memory, v.init.data(), v.init.size());
        storage.emplace_back(memory, v.size);
        symbols.addresses[v.name] = reinterpret_cast<uint64_t>(memory);
        BufferRegistry::instance().allow(reinterpret_cast<uint64_t>(memory), v.size, "module variable " + v.name);
    }
    for (const auto& v : parse.variables)
        for (const auto& reference : v.references) {
            const auto it = symbols.addresses.find(reference.symbol);
            if (it == symbols.addresses.end())
                throw PtxError(v.line, "initialiser refers to unknown " + reference.symbol);
            std::memcpy(reinterpret_cast<uint8_t*>(symbols.addresses[v.name]) + reference.offset, &it->second, 8);
        }
    parsed = true;
}
Module::~Module() {
    for (const auto& [memory, size] : storage) {
        (void)size;
        BufferRegistry::instance().remove(reinterpret_cast<uint64_t>(memory));
        std::free(memory);
    }
}
Kernel* Module::kernel(const std::string& name) {
    if (driver().config.execute) {
        ensure_parsed();
        const Function* f = parse.find(name);
        if (!f || !f->is_entry) return nullptr;
    }
    const std::lock_guard lock(mutex);
    auto& k = kernels[name];
    if (!k) {
        k = std::make_unique<Kernel>();
        k->module = this;
        k->name = name;
    }
    return k.get();
}
const Program& Kernel::decoded() {
    module->ensure_parsed();
    const std::lock_guard lock(mutex);
    if (!program) {
        const Function* f = module->parse.find(name);
        if (!f) throw PtxError(0, "no entry function " + name);
        program = decode_entry(module->parse, *f, module->symbols);
        Driver& d = driver();
        const std::lock_guard driver_lock(d.mutex);
        for (const auto& source : program->sources) ++d.opcodes[source.opcode].sites;
        program->ran.assign(program->sources.size(), false);
        // Test sessions load thousands of modules and unload none: of a module's only kernel, the program is enough.
        const auto entries = std::count_if(module->parse.functions.begin(), module->parse.functions.end(),
                                           [](const Function& f) { return f.is_entry; });
        if (entries == 1) {
            for (auto& function : module->parse.functions) {
                std::vector<ParsedInstr>().swap(function.body);
                std::vector<Scope>().swap(function.scopes);
            }
            std::vector<std::string>().swap(module->parse.lines);
            std::string().swap(module->ptx);
        }
    }
    return *program;
}

namespace {
// Runs `body` and turns PTX that cannot be parsed or decoded into the driver's error.
template <class F> CUresult with_ptx(Module& module, const std::string& kernel, F body) {
    try {
        return body();
    } catch (const PtxError& e) {
        return report_ptx_error(e, kernel, module);
    }
}
CUresult find_kernel(Module* module, const char* name, Kernel** out) {
    return with_ptx(*module, name, [&] {
        *out = module->kernel(name);
        return *out ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
    });
}
CUresult global_variable(Module* module, const char* name, CUdeviceptr* p, size_t* bytes) {
    return with_ptx(*module, name, [&] {
        module->ensure_parsed();
        const auto it = module->symbols.addresses.find(name);
        if (it == module->symbols.addresses.end()) return CUDA_ERROR_NOT_FOUND;
        if (p) *p = it->second;
        if (bytes)
            for (const auto& v : module->parse.variables) if (v.name == name) *bytes = v.size;
        return CUDA_SUCCESS;
    });
}
CUresult function_attribute(int* value, CUfunction_attribute attribute, Kernel& kernel) {
    *value = 0;
    if (attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
        *value = kernel.max_dynamic_shared;
        return CUDA_SUCCESS;
    }
    if (attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK) *value = 1024;
    if (attribute == CU_FUNC_ATTRIBUTE_NUM_REGS) *value = 32;   // register allocation is ptxas's: not modelled
    if (!driver().config.execute) return CUDA_SUCCESS;
    return with_ptx(*kernel.module, kernel.name, [&] {
        const Program& p = kernel.decoded();
        if (attribute == CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES) *value = static_cast<int>(p.static_shared);
        if (attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK) *value = static_cast<int>(p.max_threads);
        return CUDA_SUCCESS;
    });
}
CUresult set_function_attribute(Kernel& kernel, CUfunction_attribute attribute, int value) {
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_SUCCESS;
    int most = 0;
    cuDeviceGetAttribute(&most, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 0);
    if (value < 0 || value > most) return CUDA_ERROR_INVALID_VALUE;
    kernel.max_dynamic_shared = value;
    return CUDA_SUCCESS;
}
}  // namespace

}  // namespace softgpu

using namespace softgpu;
#define API extern "C" CUresult CUDAAPI

namespace {
Module* module_of(CUmodule m) { return reinterpret_cast<Module*>(m); }
Module* module_of(CUlibrary m) { return reinterpret_cast<Module*>(m); }
Kernel* kernel_of(CUfunction f) { return reinterpret_cast<Kernel*>(f); }
Kernel* kernel_of(CUkernel f) { return reinterpret_cast<Kernel*>(f); }
}  // namespace

// ---- modules
// -------------------------------------------------------------------------------------------------------------
API cuModuleLoadData(CUmodule* m, const void* image) {
    CUctx_st* context;
    if (const CUresult r = current_context(&context); r != CUDA_SUCCESS) return r;
    return load(image, context, reinterpret_cast<Module**>(m));
}
API cuModuleLoadDataEx(CUmodule* m, const void* image, unsigned, CUjit_option*, void**) {
    return cuModuleLoadData(m, image);
}
API cuModuleLoadFatBinary(CUmodule* m, const void* image) { return cuModuleLoadData(m, image); }
API cuModuleUnload(CUmodule m) { delete module_of(m); return CUDA_SUCCESS; }
API cuModuleGetFunction(CUfunction* f, CUmodule m, const char* name) {
    return find_kernel(module_of(m), name, reinterpret_cast<Kernel**>(f));
}
API cuModuleGetGlobal(CUdeviceptr* p, size_t* bytes, CUmodule m, const char* name) {
    return global_variable(module_of(m), name, p, bytes);
}
API cuModuleGetLoadingMode(CUmoduleLoadingMode* mode) { *mode = CU_MODULE_EAGER_LOADING; return CUDA_SUCCESS; }
API cuFuncGetAttribute(int* v, CUfunction_attribute a, CUfunction f) { return function_attribute(v, a, *kernel_of(f)); }
API cuFuncSetAttribute(CUfunction f, CUfunction_attribute a, int v) {
    return set_function_attribute(*kernel_of(f), a, v);
}
API cuFuncSetCacheConfig(CUfunction, CUfunc_cache) { return CUDA_SUCCESS; }
API cuFuncGetModule(CUmodule* m, CUfunction f) {
    *m = reinterpret_cast<CUmodule>(kernel_of(f)->module);
    return CUDA_SUCCESS;
}
API cuFuncGetName(const char** name, CUfunction f) { *name = kernel_of(f)->name.c_str(); return CUDA_SUCCESS; }
API cuFuncLoad(CUfunction) { return CUDA_SUCCESS; }
API cuFuncIsLoaded(CUfunctionLoadingState* state, CUfunction) {
    *state = CU_FUNCTION_LOADING_STATE_LOADED;
    return CUDA_SUCCESS;
}

// ---- libraries: modules of no context
// -----------------------------------------------------------------------------------
API cuLibraryLoadData(CUlibrary* l, const void* image, CUjit_option*, void**, unsigned, CUlibraryOption*, void**,
                      unsigned) {
    return load(image, nullptr, reinterpret_cast<Module**>(l));
}
API cuLibraryUnload(CUlibrary l) { delete module_of(l); return CUDA_SUCCESS; }
API cuLibraryGetKernel(CUkernel* k, CUlibrary l, const char* name) {
    return find_kernel(module_of(l), name, reinterpret_cast<Kernel**>(k));
}
API cuLibraryGetModule(CUmodule* m, CUlibrary l) { *m = reinterpret_cast<CUmodule>(l); return CUDA_SUCCESS; }
API cuLibraryGetGlobal(CUdeviceptr* p, size_t* bytes, CUlibrary l, const char* name) {
    return global_variable(module_of(l), name, p, bytes);
}
API cuLibraryGetKernelCount(unsigned* count, CUlibrary l) {
    Module* m = module_of(l);
    return with_ptx(*m, "", [&] {
        m->ensure_parsed();
        *count = 0;
        for (const auto& f : m->parse.functions) *count += f.is_entry;
        return CUDA_SUCCESS;
    });
}
API cuLibraryEnumerateKernels(CUkernel* kernels, unsigned count, CUlibrary l) {
    Module* m = module_of(l);
    return with_ptx(*m, "", [&] {
        m->ensure_parsed();
        unsigned i = 0;
        for (const auto& f : m->parse.functions)
            if (f.is_entry && i < count) kernels[i++] = reinterpret_cast<CUkernel>(m->kernel(f.name));
        return CUDA_SUCCESS;
    });
}
API cuKernelGetFunction(CUfunction* f, CUkernel k) { *f = reinterpret_cast<CUfunction>(k); return CUDA_SUCCESS; }
API cuKernelGetLibrary(CUlibrary* l, CUkernel k) {
    *l = reinterpret_cast<CUlibrary>(kernel_of(k)->module);
    return CUDA_SUCCESS;
}
API cuKernelGetName(const char** name, CUkernel k) { *name = kernel_of(k)->name.c_str(); return CUDA_SUCCESS; }
API cuKernelGetAttribute(int* v, CUfunction_attribute a, CUkernel k, CUdevice) {
    return function_attribute(v, a, *kernel_of(k));
}
API cuKernelSetAttribute(CUfunction_attribute a, int v, CUkernel k, CUdevice) {
    return set_function_attribute(*kernel_of(k), a, v);
}
API cuKernelSetCacheConfig(CUkernel, CUfunc_cache, CUdevice) { return CUDA_SUCCESS; }

// ---- occupancy: threads and shared memory; registers are not modelled
// -----------------------------------------------------
namespace {
int blocks_per_sm(Kernel& kernel, int block, size_t dynamic_shared) {
    int shared_per_sm = 0, static_shared = 0;
    cuDeviceGetAttribute(&shared_per_sm, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 0);
    function_attribute(&static_shared, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, kernel);
    const size_t shared = dynamic_shared + static_cast<size_t>(static_shared) + 1024;   // 1 KiB is the system's
    const int by_threads = block > 0 ? 2048 / ((block + 31) / 32 * 32) : 0;
    return std::min({32, by_threads, static_cast<int>(static_cast<size_t>(shared_per_sm) / shared)});
}
}  // namespace
API cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, CUfunction f, int block, size_t shared) {
    *n = blocks_per_sm(*kernel_of(f), block, shared);
    return CUDA_SUCCESS;
}
API cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n, CUfunction f, int block, size_t shared, unsigned) {
    *n = blocks_per_sm(*kernel_of(f), block, shared);
    return CUDA_SUCCESS;
}
API cuOccupancyMaxActiveClusters(int* n, CUfunction f, const CUlaunchConfig* c) {
    unsigned size = 1;
    for (unsigned i = 0; i < c->numAttrs; ++i)
        if (c->attrs[i].id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION)
            size = c->attrs[i].value.clusterDim.x * c->attrs[i].value.clusterDim.y * c->attrs[i].value.clusterDim.z;
    int sms = 0;
    cuDeviceGetAttribute(&sms, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0);
    *n = sms / static_cast<int>(size) *
         blocks_per_sm(*kernel_of(f), static_cast<int>(c->blockDimX * c->blockDimY * c->blockDimZ), c->sharedMemBytes);
    return CUDA_SUCCESS;
}
API cuOccupancyMaxPotentialClusterSize(int* n, CUfunction, const CUlaunchConfig*) { *n = 8; return CUDA_SUCCESS; }
