// Reading a call: its arguments in the parameters' order, and all that its outcome depends on, as a Signature.
#pragma once

#include "dispatcher.h"

namespace helion {

// Puts the arguments in the parameters' order, defaults filled in (borrowed references; `signature` keeps what is from
// outside). 1, 0 if they do not fit (the Python path words the error), -1 with an exception.
[[gnu::noinline]] inline int bind_arguments(const Dispatcher::Body& body, PyObject* const* args, size_t count,
                                     PyObject* keyword_names, PyObject** bound, Signature* signature) {
  const size_t parameters = body.parameters.size() - body.filled.size();
  if (count > parameters || body.kernel.has_other_defaults()) return 0;
  for (size_t i = 0; i < count; ++i) bound[i] = args[i];
  for (size_t i = count; i < parameters; ++i) bound[i] = nullptr;
  const size_t keywords = keyword_names != nullptr ? static_cast<size_t>(PyTuple_GET_SIZE(keyword_names)) : 0;
  for (size_t k = 0; k < keywords; ++k) {
    PyObject* name = PyTuple_GET_ITEM(keyword_names, static_cast<Py_ssize_t>(k));
    size_t at = parameters;
    // Names in a call are interned, so identity finds them; `**{"x": 1}` may bring others.
    for (size_t i = 0; i < parameters && at == parameters; ++i) {
      if (body.parameters[i].name.get() == name) at = i;
    }
    for (size_t i = 0; i < parameters && at == parameters; ++i) {
      const int equal = PyUnicode_Compare(body.parameters[i].name.get(), name);
      if (equal == -1 && PyErr_Occurred()) return -1;
      if (equal == 0) at = i;
    }
    if (at == parameters || bound[at] != nullptr) return 0;
    bound[at] = args[count + k];
  }
  for (size_t i = 0; i < parameters; ++i) {
    if (bound[i] != nullptr) continue;
    bound[i] = body.parameters[i].default_value.get();
    if (bound[i] == nullptr) return 0;
  }
  const uint64_t generation = body.generation;
  for (size_t i = 0; i < body.filled.size(); ++i) {
    PyRef value = body.filled[i].read();
    if (!value) return PyErr_Occurred() ? -1 : 0;
    bound[parameters + i] = signature->keep(std::move(value));
    // A function that reads one may have changed the parameters.
    if (body.generation != generation) return 0;
  }
  return 1;
}

// Appends what counts besides the arguments, as read_signature. `generation` is the dispatcher's from when it began.
[[gnu::noinline]] inline int read_further(const ModuleState* state, const Dispatcher::Body& body,
                                          PyObject* const* bound, uint64_t generation, Signature* signature,
                                          PyRef* key) {
  for (size_t i = 0; body.generation == generation && i < body.watched.size(); ++i) {
    const bool called = body.watched[i].called;  // reading may make the dispatcher forget it
    PyRef value = body.watched[i].read();
    if (!value) return PyErr_Occurred() ? -1 : 0;
    // Guard: a number of the module that was compiled in, or a function that was inlined, is another one now.
    if (HELION_GUARD("outside", true)) {
      PyObject* const held = signature->keep(std::move(value));
      const int known = called ? signature->append_called(held) : signature->append_watched(state, held);
      if (known != 1) return known;
    }
  }
  if (body.generation == generation && body.key_function) {
    const size_t given = body.parameters.size() - body.filled.size();
    PyRef function = PyRef::borrow(body.key_function.get());
    *key = PyRef::steal(PyObject_Vectorcall(function.get(), bound, given, nullptr));
    if (!*key) return -1;
    if (!signature->append_by_equality(key->get())) {
      // Not hashable: the Python path says so, in its own words.
      PyErr_Clear();
      return 0;
    }
  }
  // A device_tag or key= function may have changed what has to be asked.
  return body.generation == generation ? 1 : 0;
}

// Appends all arguments. As Signature::append; `key` gets a reference to the key function's result, which the signature
// refers to.
HELION_HOT int read_signature(const ModuleState* state, const Dispatcher::Body& body, PyObject* const* bound,
                              Signature* signature, PyRef* key) {
  const uint64_t generation = body.generation;
  const size_t parameters = body.parameters.size();
  if (parameters > kMostParameters) return 0;  // there is no plan, and no room for them
  if (body.kernel.has_other_code()) return 0;
  uint8_t leaves[kMostParameters + 1];         // where each parameter's begin
  for (size_t i = 0; i < parameters; ++i) {
    leaves[i] = static_cast<uint8_t>(signature->leaf_count());
    const int known = signature->append(state, bound[i], body.parameters[i].numbers);
    if (known != 1) return known;
    // A device_tag function may have changed what has to be asked.
    if (body.generation != generation) return 0;
  }
  if (!body.apart.empty()) {
    leaves[parameters] = static_cast<uint8_t>(signature->leaf_count());
    for (const auto& [a, b] : body.apart) {
      signature->append_overlaps({leaves[a], leaves[size_t{a} + 1], leaves[b], leaves[size_t{b} + 1]});
    }
  }
  return body.watched.empty() && !body.key_function ? 1 : read_further(state, body, bound, generation, signature, key);
}

}  // namespace helion
