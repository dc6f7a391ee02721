// LaunchPlan: a host function as data. Made by helion/runtime/launch/plan.py from a recorded run, executed here.
#pragma once

#include "launch_spec.h"
#include "output_pool.h"
#include "tensor_view.h"

#include <memory>
#include <vector>

namespace helion {

// One tensor of a plan: an input (a leaf of the call's arguments) or a buffer the plan allocates.
struct TensorRef {
  bool is_input;
  uint32_t index;
};

// Where a kernel parameter comes from.
struct Source {
  enum class Kind : uint8_t { kInputAddress, kBufferAddress, kInputNumber, kConstant };
  Kind kind;
  ParamType type;   // kInputNumber: how the number is stored
  uint32_t index;   // leaf or buffer
  uint64_t value;   // byte offset from the tensor's first element, or the constant's bits
};

// What the call returns, or what an operation is given, as a tree.
struct PlanResult {
  enum class Kind : uint8_t { kObject, kTensor, kView, kTuple, kList, kDict, kRecord };
  Kind kind = Kind::kObject;
  PyRef object;  // kObject; kDict: a tuple of keys; kRecord: the class, which is called with the items
  TensorRef tensor{};
  TensorShape shape{{}, {}, c10::ScalarType::Undefined, c10::Device(c10::DeviceType::CPU)};  // kView
  int64_t offset = 0;                                                                         // kView, in elements
  std::vector<PlanResult> items;

#ifdef Py_GIL_DISABLED
  PlanResult copy() const;
#endif
  int visit(visitproc visit, void* arg) const;
};

// A launch if `spec` is set, an operation of PyTorch's if `function` is, else a fill.
struct PlanStep {
  PyRef spec;
  unsigned grid[3] = {1, 1, 1};
  std::vector<Source> sources;
  TensorRef filled{};
  at::Scalar fill_value;
  PyRef function;        // an OpOverload
  PlanResult arguments;  // a tuple, those by name last
  PyRef names;           // a tuple of str
  std::vector<uint32_t> outputs;  // which buffers it makes
  bool changes = false;           // writes to an argument
  bool fresh = false;  // the fill of torch.zeros and its like, which does not count as a change

#ifdef Py_GIL_DISABLED
  // The same with another spec.
  PlanStep copy(PyRef other_spec) const;
#endif
};

struct PlanBuffer {
  TensorShape shape;
  bool pooled;    // may come from the output pool
  bool returned;  // the caller or an operation sees it, so it gets a Python object
  bool made;      // by an operation: not allocated
  mutable OutputPool::Cursor cursor{};
};

struct LaunchPlan {
  PyObject_HEAD
  ModuleState* state;
  struct Body {
    std::vector<PlanBuffer> buffers;
    std::vector<PlanStep> steps;
    PlanResult result;
    std::vector<TensorRef> written;  // whose version counters a call advances, as often as they occur
    bool operates = false;          // has operations of PyTorch's, which autocast changes
    // For plans with scratch memory of their own: a ContextVar, and its values with which Triton would use no other.
    PyRef allocators;
    bool distinct = false;          // no two tensors among the leaves may be the same object
    size_t leaf_count = 0;
    size_t launch_count = 0;
    long device = 0;
    c10::ScalarType default_dtype = c10::ScalarType::Undefined;  // what torch.empty(...) without a dtype gave

    int visit(visitproc visit, void* arg) const;
    void clear() {
      Body old;
      std::swap(old, *this);
    }
  } body;

#ifdef Py_GIL_DISABLED
  // Another one of the same, for the calling thread alone, with launch specs of its own. Null with an exception on
  // failure.
  PyRef copy() const;
#endif

  enum class Outcome { kDone, kDeclined, kFailed };
  // Runs the plan on the leaves of a call whose signature is the one it was made for. kDeclined: nothing has happened,
  // take the Python path. kFailed: an exception is set. The caller owns a reference to the plan and to the leaves.
  // `addresses` are those of the leaves that are tensors.
  Outcome run(PyObject* const* leaves, const uintptr_t* addresses, PyObject** result);
};

}  // namespace helion
