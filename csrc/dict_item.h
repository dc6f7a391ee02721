// DictItem: one item of a dict that every call asks for, and that hardly ever changes.
#pragma once

#include "common.h"

namespace helion {

// A lookup is 120 instructions and a call makes seven. Until Python 3.12 each dict has a version, a number that no
// other dict has and that every change of the dict replaces: while it is the same, so is what was found. (3.13 does not
// replace it when an attribute is assigned whose value lies in the object; there each call looks the item up.)
class DictItem {
 public:
  // As PyDict_GetItemWithError(dict, name): borrowed; null where there is none, or with an exception.
  PyObject* get(PyObject* dict, PyObject* name) const {
#if PY_VERSION_HEX < 0x030D0000
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    const uint64_t version = reinterpret_cast<PyDictObject*>(dict)->ma_version_tag;
#pragma GCC diagnostic pop
    if (version == version_) return value_;
    PyObject* value = PyDict_GetItemWithError(dict, name);
    if (value == nullptr && PyErr_Occurred()) return nullptr;
    version_ = version;  // the one from before: the lookup may have run an __eq__ that changes the dict
    value_ = value;
    return value;
#else
    return PyDict_GetItemWithError(dict, name);
#endif
  }

 private:
  mutable uint64_t version_ = 0;  // no dict's
  mutable PyObject* value_ = nullptr;  // the dict's reference
};

}  // namespace helion
