// A method called with the arguments of a vectorcall.
#pragma once

#include "common.h"

#include <vector>

namespace helion {

// object.<method>(*args, **keywords)
HELION_COLD inline PyObject* call_method(PyObject* object, PyObject* method, PyObject* const* args, size_t nargsf,
                                         PyObject* keyword_names) {
  const size_t count = static_cast<size_t>(PyVectorcall_NARGS(nargsf));
  const size_t keywords = keyword_names != nullptr ? static_cast<size_t>(PyTuple_GET_SIZE(keyword_names)) : 0;
  if ((nargsf & PY_VECTORCALL_ARGUMENTS_OFFSET) != 0) {
    // The caller left room for one more argument in front, to be restored afterwards.
    PyObject** room = const_cast<PyObject**>(args) - 1;
    PyObject* saved = *room;
    *room = object;
    PyObject* result = PyObject_VectorcallMethod(method, room, count + 1, keyword_names);
    *room = saved;
    return result;
  }
  std::vector<PyObject*> all;
  all.reserve(count + keywords + 1);
  all.push_back(object);
  all.insert(all.end(), args, args + count + keywords);
  return PyObject_VectorcallMethod(method, all.data(), count + 1, keyword_names);
}

}  // namespace helion
