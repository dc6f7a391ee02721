// DictItem: one item of a dict that every call asks for, and that hardly ever changes. DictVersion: whether a dict has
// changed at all.
#pragma once

#include "common.h"

namespace helion {

// Until Python 3.12 each dict has a version, a number that no other dict has and that every change of the dict
// replaces: while it is the same, so is what was found. (3.13 does not replace it when an attribute is assigned whose
// value lies in the object; there nothing is ever known to be the same.)
class DictVersion {
 public:
  DictVersion() = default;  // no dict's
  explicit DictVersion(PyObject* dict) {
#if PY_VERSION_HEX < 0x030D0000
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    version_ = reinterpret_cast<PyDictObject*>(dict)->ma_version_tag;
#pragma GCC diagnostic pop
#else
    (void)dict;
#endif
  }
  // Whether the dict was not changed since this was its version.
  HELION_HOT bool holds(PyObject* dict) const { return version_ != 0 && version_ == DictVersion(dict).version_; }

 private:
  uint64_t version_ = 0;
};

// A lookup is 120 instructions and a call makes seven.
class DictItem {
 public:
  // As PyDict_GetItemWithError(dict, name): borrowed; null where there is none, or with an exception.
  HELION_HOT PyObject* get(PyObject* dict, PyObject* name) const {
    return version_.holds(dict) ? value_ : find(dict, name);
  }
  // What get() found last, if the dict is as it was then; else null.
  HELION_HOT PyObject* known(PyObject* dict) const { return version_.holds(dict) ? value_ : nullptr; }

 private:
  [[gnu::noinline]] PyObject* find(PyObject* dict, PyObject* name) const {
    // The version from before: the lookup may run an __eq__ that changes the dict.
    const DictVersion version(dict);
    PyObject* value = PyDict_GetItemWithError(dict, name);
    if (value == nullptr && PyErr_Occurred()) return nullptr;
    version_ = version;
    value_ = value;
    return value;
  }
  mutable DictVersion version_;
  mutable PyObject* value_ = nullptr;  // the dict's reference
};

}  // namespace helion
