// LaunchSpec: one compiled binary and all that a launch of it depends on. Immutable once made.
#pragma once

#include "state.h"

#include <memory>
#include <string>
#include <vector>

namespace helion {

// How a value is stored in the parameter buffer. One row each: X(C++ name, Triton's type names).
enum class ParamType : uint8_t { kPointer, kInt, kFloat16, kBFloat16, kFloat32, kFloat64 };

struct Param {
  uint16_t argument;  // index among the launch's arguments
  ParamType type;
};

// A parameter that is not an address but the tensor map of the tensor there. Maps of the last few addresses are kept:
// weights, activations and outputs come back at the same places.
struct MappedParam {
  static constexpr size_t kKept = 4;
  struct Kept {
    uint64_t address = 0;
    unsigned char map[kTensorMapBytes];
  };
  size_t param = 0;  // index into params
  TensorMapShape shape;
  Kept kept[kKept];
  size_t next = 0;  // the one to replace
};

// A global of the generated module that the binary was compiled with.
struct UsedGlobal {
  PyRef name;
  PyRef value;
  PyRef dict;
  DictItem item{};

  UsedGlobal copy() const { return {name.copy(), value.copy(), dict.copy()}; }
};

struct LaunchSpec {
  PyObject_HEAD
  ModuleState* state;
  // What a launch passes on to the driver.
  struct Binary {
    CUfunction function = nullptr;
    std::string name;
    unsigned block_x = 0;
    CUlaunchConfig config{};  // all of a launch but grid and stream
    CUlaunchAttribute attributes[4] = {};
    unsigned scratch = 0;  // null pointers after the last parameter: scratch areas the kernel does not use
    CUdevice device = 0;
    std::vector<Param> params;
    bool cooperative = false;  // all programs run at the same time, or the driver refuses the launch
    // Of kernels that are not Triton's: thread block clusters, and parameters that are tensor maps.
    unsigned cluster[3] = {1, 1, 1};
    unsigned num_ctas = 1;   // of Triton's: thread blocks of a program, a cluster
    bool pdl = false;        // may start before the kernel before it in the stream has ended
    bool of_triton = false;  // of Triton's compiler, without a jit_function: its knobs and launch hooks do concern it
    size_t map_count = 0;
  };
  // The C++ part; constructed in tp_new, destroyed in tp_dealloc.
  struct Body : Binary {
    std::unique_ptr<MappedParam[]> maps;  // their caches are filled in by launches, which are alone with this
    std::vector<UsedGlobal> globals;
    KnobValues knobs;
    mutable TritonVersions held;  // when they were found to be so last, and no hook to watch
    PyRef provider;        // of helion.runtime.device: `function` is a handle of its driver
    PyRef compiled;        // Triton's CompiledKernel, which owns the loaded binary
    PyRef jit_function;  // the @triton.jit function; None: not Triton's kernel, whose knobs and hooks do not concern it
    PyRef jit_dict;        // its __dict__, where pre_run_hooks is looked up
    DictItem pre_run_hooks;

    int visit(visitproc visit, void* arg) const;
    void clear() {
      Body old;
      std::swap(old, *this);
    }
  } body;

#ifdef Py_GIL_DISABLED
  // Another one of the same, for the calling thread alone. Null with an exception on failure.
  PyRef copy() const;
#endif

  // Whether launching this binary now means what JITFunction.run would do: knobs and globals are as they were, no hook
  // wants to be called. Needs a refresh_provider() at the start of the call, by a thread that is alone with this or has
  // it for itself. 1, 0 (take Triton's path), or -1 with an exception.
  HELION_HOT int guards_hold() const {
    const PyObject* const jit_function = body.jit_function.get();
    if (jit_function == nullptr) return 0;  // cleared by the garbage collector
    // Guard: the binary is loaded in another driver than the one that is in use now.
    if (HELION_GUARD("provider", body.provider.get() != state->environment().provider())) return 0;
    if (jit_function == Py_None) {
      return !body.of_triton || state->environment().triton_unchanged(body.held) || state->environment().triton_absent()
          ? 1
          : untouched();
    }
    if (!state->environment().triton_unchanged(body.held)) {
      if (const int held = ask_triton(); held != 1) return held;
    }
    // Guard: hooks added to the JITFunction must fire on every call, and only Triton knows with which arguments.
    PyObject* hooks = body.pre_run_hooks.get(body.jit_dict.get(), state->names.pre_run_hooks);  // borrowed
    if (hooks == nullptr && PyErr_Occurred()) return -1;
    if (HELION_GUARD("pre_run_hooks", hooks != nullptr && (!PyList_CheckExact(hooks) || PyList_GET_SIZE(hooks) != 0)))
      return 0;
    for (const UsedGlobal& global : body.globals) {
      PyObject* now = global.item.get(global.dict.get(), global.name.get());  // borrowed
      if (now == nullptr && PyErr_Occurred()) return -1;
      // Guard: not the same object. Triton compares by value and words the error, if it is one.
      if (HELION_GUARD("globals", now != global.value.get())) return 0;
    }
    return 1;
  }

  // Enqueues the kernel on `stream`. `slots` holds the parameters in order, one 64-bit word each. Releases the GIL
  // during the driver call; the caller must own a reference to this spec. False with a RuntimeError on failure.
  HELION_HOT bool launch(const unsigned grid[3], uint64_t* slots, uintptr_t stream) const {
    // An empty grid is not an error: there is nothing to run.
    if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0) return true;
    const size_t count = body.params.size();
    if (body.map_count != 0 || count + body.scratch > kInlineParams) return launch_any(grid, slots, stream);
    void* pointers[kInlineParams];
    for (size_t i = 0; i < count; ++i) pointers[i] = slots + i;
    uint64_t no_scratch = 0;
    for (size_t i = 0; i < body.scratch; ++i) pointers[count + i] = &no_scratch;
    return enqueue(grid, pointers, stream);
  }

 private:
  // Parameters that a launch has room for on the stack.
  static constexpr size_t kInlineParams = 72;

  // As guards_hold, of a binary of Triton's that came from the cache: no hook watches, and no knob was set.
  int untouched() const;
  // As guards_hold, of Triton's knobs and hooks.
  [[gnu::noinline]] int ask_triton() const;
  // launch() with tensor maps, or with more parameters.
  HELION_COLD bool launch_any(const unsigned grid[3], uint64_t* slots, uintptr_t stream) const;
  HELION_HOT bool enqueue(const unsigned grid[3], void** pointers, uintptr_t stream) const {
    CUlaunchConfig config = body.config;
    config.gridDimX = grid[0] * body.num_ctas;
    config.gridDimY = grid[1];
    config.gridDimZ = grid[2];
    config.hStream = reinterpret_cast<CUstream>(stream);
    config.attrs = const_cast<CUlaunchAttribute*>(body.attributes);
    // A launch blocks while the stream's queue is full, and what would drain it may be a host callback that needs the
    // GIL.
    PyThreadState* const thread = PyEval_SaveThread();
    const CUresult result = state->driver.launch(config, body.function, pointers, body.device);
    PyEval_RestoreThread(thread);
    if (result == kCudaSuccess) return true;
    state->driver.set_error(result, body.name.c_str());
    return false;
  }
  // The descriptor for a tensor at `address`, into `out` (aligned). False with a RuntimeError if the driver refuses.
  bool tensor_map(MappedParam* mapped, uint64_t address, unsigned char* out) const;
};

// Stores a Python number as `type` does it. False with an exception.
bool store_scalar(ParamType type, PyObject* value, uint64_t* slot);

inline bool is_launch_spec(const ModuleState* state, PyObject* object) {
  return Py_TYPE(object) == state->launch_spec_type;
}

}  // namespace helion
