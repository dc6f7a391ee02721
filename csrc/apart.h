// Which arguments code takes to be apart in memory, as configure_dispatch is told.
#pragma once

#include "common.h"

#include <vector>

namespace helion {

// A sequence of pairs of positions of `count` parameters. False with an exception.
inline bool parse_apart(PyObject* pairs, Py_ssize_t count, std::vector<std::pair<uint16_t, uint16_t>>* out) {
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(pairs); ++i) {
    PyObject* pair = PyTuple_GET_ITEM(pairs, i);
    unsigned short a = 0, b = 0;
    if (!PyTuple_Check(pair) || !PyArg_ParseTuple(pair, "HH:configure_dispatch", &a, &b)) {
      if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "configure_dispatch: apart must hold tuples");
      return false;
    }
    if (a >= count || b >= count) {
      PyErr_SetString(PyExc_ValueError, "configure_dispatch: there is no such parameter");
      return false;
    }
    out->emplace_back(a, b);
  }
  return true;
}

}  // namespace helion
