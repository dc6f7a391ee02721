// One argument as a launch sees it: a word of what Triton specializes on, and the bits that a parameter is stored as.
// The Launcher looks binaries up by these words; the Signature adds to them what host code may depend on.
//
// Bits of a word: 0-7 the kind; 8 and up, of an int: its bucket; of a tensor: 8 misaligned, 16-23 dtype, 32-63 device.
#pragma once

#include "state.h"
#include "tensor_view.h"

namespace helion {

enum class Kind : uint64_t {
  kTensor = 1, kInt, kFloat, kBool, kNone,
  // Only in signatures.
  kString, kDtype, kDevice, kKey, kTuple, kList, kOverlap, kCalled,
};

inline uint64_t word_of(Kind kind, uint64_t rest = 0) { return static_cast<uint64_t>(kind) | rest << 8; }

struct Argument {
  uint64_t word = 0;
  uint64_t bits = 0;  // a tensor's address, an int's or a bool's value; of a float the parameter's type decides
};

// Reads the plain tensor that `object` is, of which autograd knows `meta`; see read_argument.
HELION_HOT int read_tensor(const ModuleState* state, PyObject* object, const TensorView& tensor,
                           const torch::autograd::AutogradMeta* meta, Argument* out) {
  // Guard: what is in memory is not what the tensor shows. Subclasses never get here; conjugated, negated, sparse,
  // nested, wrapped and symbolic tensors leave here.
  if (HELION_GUARD("plain", !tensor.plain(meta))) return 0;
  bool there = false;
  const uintptr_t data = tensor.address(&there);
  // Guard: a null pointer, where the storage was freed.
  if (HELION_GUARD("memory", !there)) return 0;
  const c10::Device device = tensor.device();
  uint64_t tag = static_cast<uint64_t>(device.type()) << 8 | static_cast<uint8_t>(device.index());
  if (!state->environment().native_tags() && !state->environment().device_tag(state, object, &tag)) return -1;
  // Guard: a binary compiled for addresses that are multiples of 16 faults on others.
  const bool misaligned = HELION_GUARD("alignment", data % 16 != 0);
  out->bits = data;
  out->word = word_of(Kind::kTensor, static_cast<uint64_t>(misaligned) |
                                         static_cast<uint64_t>(tensor.scalar_type()) << 8 |
                                         // Guard: on which device the tensor is.
                                         (HELION_GUARD("device_tag", true) ? tag << 24 : 0));
  return 1;
}

// Classifies an argument the way Triton's JITFunction.run does, or finer. 1; 0 if only Triton can (a tensor subclass, a
// tuple, a descriptor, ...); -1 with an exception.
inline int read_argument(const ModuleState* state, PyObject* object, Argument* out) {
  if (TensorView::exact(object)) {
    const TensorView tensor(object);
    return read_tensor(state, object, tensor, tensor.autograd(), out);
  }
  if (PyLong_CheckExact(object)) {
    int overflow = 0;
    const long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow != 0) return 0;  // above 2**63 - 1: rare enough for Triton's own launcher
    out->bits = static_cast<uint64_t>(value);
    // Guard: Triton's buckets. 1 is a constant, multiples of 16 are known to be, and the width follows the value.
    // helion/runtime/launch/guards.py makes the same of it.
    const bool fits32 = value >= INT32_MIN && value <= INT32_MAX;
    const uint64_t bucket = (value == 1 ? 1u : 0u) | (value % 16 == 0 ? 2u : 0u) | (fits32 ? 4u : 0u);
    out->word = word_of(Kind::kInt, HELION_GUARD("int_bucket", true) ? bucket : 0);
    return 1;
  }
  if (object == Py_None) {
    out->word = word_of(Kind::kNone);
    return 1;
  }
  if (PyFloat_CheckExact(object)) {
    out->word = word_of(Kind::kFloat);
    return 1;
  }
  if (PyBool_Check(object)) {
    out->bits = object == Py_True ? 1 : 0;
    out->word = word_of(Kind::kBool);
    return 1;
  }
  return 0;
}

}  // namespace helion
