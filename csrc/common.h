// What every file of helion._C shares: owning references, the module state, and the few differences between CPython
// versions. No torch header is included here; at::Tensor is only touched in tensor_view.h.
//
// Threads: everything in this extension runs with the GIL held, and every structure it owns is protected by it. The
// one place that releases the GIL is the driver call, around which only locals and references that the caller owns are
// used. A free-threaded build has no GIL. There each object that threads share is protected by its own critical section
// (Alone), which gives the same guarantees for it: other threads may get in between wherever Python code runs. Calls
// enter none: each thread has the environment, the tables and the plans that it runs for itself (threads.h).
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <atomic>
#include <cstdint>
#include <utility>

#include "guard.h"

// What every call goes through is one stretch of code: between two calls the driver's own code has taken the caches,
// and each function that is called, and each path of it that is not taken, is memory to be fetched again.
#define HELION_HOT [[gnu::always_inline]] inline
#define HELION_COLD [[gnu::noinline, gnu::cold]]

// What the thread sanitizer cannot see, being Python's: locks, counts of references, memory that is used again.
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define HELION_TSAN(what, address) __tsan_##what(address)
#else
#define HELION_TSAN(what, address) (void)(address)
#endif

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
  ~PyRef() {
    HELION_TSAN(release, object_);
    Py_XDECREF(object_);
  }

  PyRef copy() const noexcept { return borrow(object_); }
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

// While it lives, no other thread is in a section of the same object, but where this one waits or runs Python code that
// does. With a GIL that is so anyway.
class Alone {
 public:
#ifdef Py_GIL_DISABLED
  explicit Alone(PyObject* object) noexcept : object_(object) {
    PyCriticalSection_Begin(&section_, object);
    HELION_TSAN(acquire, object_);
  }
  ~Alone() {
    HELION_TSAN(release, object_);
    PyCriticalSection_End(&section_);
  }

 private:
  PyObject* object_;
  PyCriticalSection section_;

 public:
#else
  explicit Alone(PyObject*) noexcept {}
  ~Alone() {}
#endif
  Alone(const Alone&) = delete;
  Alone& operator=(const Alone&) = delete;
};

// A count that one thread advances and others may read.
class Count {
 public:
  void operator+=(uint64_t by) noexcept { set(get() + by); }
  void operator++() noexcept { set(get() + 1); }
#ifdef Py_GIL_DISABLED
  uint64_t get() const noexcept { return value_.load(std::memory_order_relaxed); }
  void set(uint64_t value) noexcept { value_.store(value, std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
#else
  uint64_t get() const noexcept { return value_; }
  void set(uint64_t value) noexcept { value_ = value; }

 private:
  uint64_t value_ = 0;
#endif
};

// Whether there are `count` references to an object and all of them are known: without a GIL only the thread that made
// it can tell, and only if none is another thread's.
inline bool has_references(PyObject* object, Py_ssize_t count) {
#ifdef Py_GIL_DISABLED
  return object->ob_tid == _Py_ThreadId() && object->ob_ref_local == static_cast<uint32_t>(count) &&
      _Py_atomic_load_ssize_relaxed(&object->ob_ref_shared) >> _Py_REF_SHARED_SHIFT == 0;
#else
  return Py_REFCNT(object) == count;
#endif
}

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
