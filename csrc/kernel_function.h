// KernelFunction: the Python function that a kernel was made of, with the code and the defaults that calls are read by.
#pragma once

#include "common.h"
#include "guard.h"

namespace helion {

// A program may assign other code and other defaults to a function that stays the same object; those that reload
// modules do.
struct KernelFunction {
  PyRef function, code, defaults;  // or null: a dispatcher that is of no kernel; a function without defaults

  KernelFunction copy() const { return {function.copy(), code.copy(), defaults.copy()}; }
  // Of None, or a function as it is now. False with an exception.
  static bool parse(PyObject* function, KernelFunction* out) {
    if (function == Py_None) return true;
    if (!PyFunction_Check(function)) {
      PyErr_SetString(PyExc_TypeError, "configure_dispatch: function must be a Python function");
      return false;
    }
    PyObject* const defaults = PyFunction_GET_DEFAULTS(function);
    out->function = PyRef::borrow(function);
    out->code = PyRef::borrow(PyFunction_GET_CODE(function));
    if (defaults != nullptr) out->defaults = PyRef::borrow(defaults);
    return true;
  }

  // Guard: plans are of the code that was compiled.
  bool has_other_code() const {
    return HELION_GUARD("code", function && PyFunction_GET_CODE(function.get()) != code.get());
  }
  bool has_other_defaults() const {
    return HELION_GUARD("code", function && PyFunction_GET_DEFAULTS(function.get()) != defaults.get());
  }

  int visit(visitproc visit, void* arg) const {
    for (const PyRef* one : {&function, &code, &defaults}) {
      if (int result = one->visit(visit, arg)) return result;
    }
    return 0;
  }
};

}  // namespace helion
