// What every file of helion._C shares: owning references, the module state, and the few differences between CPython
// versions. No torch header is included here; at::Tensor is only touched in tensor_view.h.
//
// Threads: everything in this extension runs with the GIL held, and every structure it owns is protected by it. The
// one place that releases the GIL is the driver call in driver.cpp, around which only locals and references that the
// caller owns are used. The module does not declare support for free-threaded builds, so those turn the GIL on.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstdint>
#include <utility>

#include "guard.h"

// What every call goes through is one stretch of code: between two calls the driver's own code has taken the caches,
// and each function that is called, and each path of it that is not taken, is memory to be fetched again.
#define HELION_HOT [[gnu::always_inline]] inline
#define HELION_COLD [[gnu::noinline, gnu::cold]]

namespace helion {

// An owned reference, or null. Moves, never copies implicitly: a second owner is spelled `PyRef::borrow(x)`.
class PyRef {
 public:
  PyRef() noexcept = default;
  // Takes over the reference that `owned` stands for (a "new reference" of the C API); null is allowed.
  static PyRef steal(PyObject* owned) noexcept { return PyRef(owned); }
  // Makes an additional reference.
  static PyRef borrow(PyObject* borrowed) noexcept {
    Py_XINCREF(borrowed);
    return PyRef(borrowed);
  }
  PyRef(PyRef&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  PyRef& operator=(PyRef&& other) noexcept {
    // Swap first, drop after: the destructor of the old object may run Python code that sees this reference.
    PyRef old(std::exchange(object_, std::exchange(other.object_, nullptr)));
    return *this;
  }
  PyRef(const PyRef&) = delete;
  PyRef& operator=(const PyRef&) = delete;
  ~PyRef() { Py_XDECREF(object_); }

  PyObject* get() const noexcept { return object_; }
  PyObject* release() noexcept { return std::exchange(object_, nullptr); }
  void reset() noexcept { PyRef old(std::exchange(object_, nullptr)); }
  explicit operator bool() const noexcept { return object_ != nullptr; }
  // For tp_traverse.
  int visit(visitproc visit, void* arg) const { return object_ != nullptr ? visit(object_, arg) : 0; }

 private:
  explicit PyRef(PyObject* object) noexcept : object_(object) {}
  PyObject* object_ = nullptr;
};

// Attribute or null. Returns 1 when found, 0 when absent (no exception set), -1 on any other error. Public since 3.13;
// the private function it grew out of has the same contract.
inline int get_optional_attr(PyObject* object, PyObject* name, PyObject** result) {
#if PY_VERSION_HEX >= 0x030D0000
  return PyObject_GetOptionalAttr(object, name, result);
#else
  return _PyObject_LookupAttr(object, name, result);
#endif
}

}  // namespace helion
