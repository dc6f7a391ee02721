// Outside: what a kernel function reads from outside itself, and every call anew.
#pragma once

#include "dict_item.h"

#include <vector>

namespace helion {

// A value that the kernel function reads from outside itself: an item of its module's dict, a variable that it closes
// over, or what a function gives.
struct Outside {
  PyRef holder;  // dict, cell, or callable
  PyRef name;    // of the dict's item
  bool called;   // a function that is inlined: it counts by which one it is
  DictItem item;

  Outside copy() const { return {holder.copy(), name.copy(), called, DictItem()}; }
  // What is there now; null without an exception if there is nothing.
  PyRef read() const {
    if (PyDict_CheckExact(holder.get())) return PyRef::borrow(item.get(holder.get(), name.get()));
#ifdef Py_GIL_DISABLED
    if (PyCell_Check(holder.get())) return PyRef::steal(PyCell_Get(holder.get()));
#else
    if (PyCell_Check(holder.get())) return PyRef::borrow(PyCell_GET(holder.get()));
#endif
    const PyRef function = PyRef::borrow(holder.get());  // it may make the dispatcher forget it
    return PyRef::steal(PyObject_CallNoArgs(function.get()));
  }
};

// A tuple of (holder, name) or (holder, name, called). False with an exception.
inline bool parse_outside(PyObject* places, std::vector<Outside>* out) {
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(places); ++i) {
    PyObject* place = PyTuple_GET_ITEM(places, i);
    PyObject *holder = nullptr, *name = nullptr;
    int called = 0;
    if (!PyTuple_Check(place) || !PyArg_ParseTuple(place, "OO|p:configure_dispatch", &holder, &name, &called)) {
      if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "configure_dispatch: places are (holder, name)");
      return false;
    }
    if (!PyDict_CheckExact(holder) && !PyCell_Check(holder) && !PyCallable_Check(holder)) {
      PyErr_SetString(PyExc_TypeError, "configure_dispatch: a place is in a dict, a cell or a function");
      return false;
    }
    out->push_back(Outside{PyRef::borrow(holder), PyRef::borrow(name), called != 0, DictItem()});
  }
  return true;
}

}  // namespace helion
