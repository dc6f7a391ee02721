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
};

struct LaunchSpec {
  PyObject_HEAD
  ModuleState* state;
  // The C++ part; constructed in tp_new, destroyed in tp_dealloc.
  struct Body {
    CUfunction function = nullptr;
    std::string name;
    unsigned block_x = 0;
    unsigned shared = 0;
    unsigned scratch = 0;  // null pointers after the last parameter: scratch areas the kernel does not use
    CUdevice device = 0;
    std::vector<Param> params;
    bool cooperative = false;  // all programs run at the same time, or the driver refuses the launch
    // Of kernels that are not Triton's: thread block clusters, and parameters that are tensor maps.
    unsigned cluster[3] = {1, 1, 1};
    unsigned num_ctas = 1;  // of Triton's: thread blocks of a program, a cluster
    bool pdl = false;       // may start before the kernel before it in the stream has ended
    std::unique_ptr<MappedParam[]> maps;  // their caches are filled in by launches, under the GIL
    size_t map_count = 0;
    std::vector<UsedGlobal> globals;
    KnobValues knobs;
    mutable TritonVersions held;  // when they were found to be so last, and no hook to watch
    PyRef provider;        // of helion.runtime.device: `function` is a handle of its driver
    PyRef compiled;        // Triton's CompiledKernel, which owns the loaded binary
    bool of_triton = false;  // of Triton's compiler, without a jit_function: its knobs and launch hooks do concern it
    PyRef jit_function;  // the @triton.jit function; None: not Triton's kernel, whose knobs and hooks do not concern it
    PyRef jit_dict;        // its __dict__, where pre_run_hooks is looked up
    DictItem pre_run_hooks;

    int visit(visitproc visit, void* arg) const;
    void clear() {
      Body old;
      std::swap(old, *this);
    }
  } body;

  // Whether launching this binary now means what JITFunction.run would do: knobs and globals are as they were, no hook
  // wants to be called. Needs a refresh_provider() at the start of the call. 1, 0 (take Triton's path), or -1 with an
  // exception.
  int guards_hold() const;

  // Enqueues the kernel on `stream`. `slots` holds the parameters in order, one 64-bit word each. Releases the GIL
  // during the driver call; the caller must own a reference to this spec. False with a RuntimeError on failure.
  bool launch(const unsigned grid[3], uint64_t* slots, uintptr_t stream) const;

 private:
  // The descriptor for a tensor at `address`, into `out` (aligned). False with a RuntimeError if the driver refuses.
  bool tensor_map(MappedParam* mapped, uint64_t address, unsigned char* out) const;
};

// Stores a Python number as `type` does it. False with an exception.
bool store_scalar(ParamType type, PyObject* value, uint64_t* slot);

inline bool is_launch_spec(const ModuleState* state, PyObject* object) {
  return Py_TYPE(object) == state->launch_spec_type;
}

}  // namespace helion
