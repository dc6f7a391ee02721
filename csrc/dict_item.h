// DictItem: one item of a dict that every call asks for, and that hardly ever changes. DictVersion: whether a dict has
// changed at all.
#pragma once

#include "common.h"

namespace helion {

#if PY_VERSION_HEX >= 0x030D0000
// Dicts have no version from Python 3.13 on that assigning an attribute would replace. 3.14 tells instead whoever
// watches a dict before it changes: each such change counts for all dicts of one bucket, as a dict's address decides.
class DictWatch {
 public:
  // Called once in an interpreter. Where Python has no watcher left, or does not tell of all changes, nothing is ever
  // known to be unchanged.
  static void start() {
    if (interpreter_ != nullptr) return;
    id_ = PyDict_AddWatcher(changing);
    if (id_ >= 0) {
      interpreter_ = PyInterpreterState_Get();
      if (tells_of_attributes()) return;
      interpreter_ = nullptr;
      PyDict_ClearWatcher(id_);
    }
    PyErr_Clear();
  }
  // How often something in the bucket of the dict has changed, and 1; 0 where nobody tells.
  static uint64_t watched(PyObject* dict) {
    if (interpreter_ != PyInterpreterState_Get()) return 0;
    const Alone alone(dict);  // a change is told, and then made: not in between
    if (PyDict_Watch(id_, dict) < 0) {
      PyErr_Clear();
      return 0;
    }
    return now(dict);
  }
  HELION_HOT static uint64_t now(PyObject* dict) { return bucket(dict).load(std::memory_order_acquire); }

 private:
  static constexpr size_t kBuckets = 1024;
  struct Buckets {
    std::atomic<uint64_t> changes[kBuckets];
    Buckets() {
      for (std::atomic<uint64_t>& one : changes) one.store(1, std::memory_order_relaxed);
    }
  };
  HELION_HOT static std::atomic<uint64_t>& bucket(PyObject* dict) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(dict) >> 4;
    return buckets_.changes[(address ^ address >> 10) % kBuckets];
  }
  // Whether assigning an attribute counts as a change of the object's __dict__. In 3.13 it does not, as the value is in
  // the object.
  static bool tells_of_attributes() {
    PyRef type = PyRef::steal(PyObject_CallFunction(reinterpret_cast<PyObject*>(&PyType_Type), "s(){}", "Probe"));
    PyRef object = PyRef::steal(type ? PyObject_CallNoArgs(type.get()) : nullptr);
    if (!object || PyObject_SetAttrString(object.get(), "attribute", Py_True) < 0) return false;
    PyRef dict = PyRef::steal(PyObject_GetAttrString(object.get(), "__dict__"));
    const uint64_t before = dict ? watched(dict.get()) : 0;
    return before != 0 && PyObject_SetAttrString(object.get(), "attribute", Py_False) == 0 && now(dict.get()) != before;
  }
  static int changing(PyDict_WatchEvent, PyObject* dict, PyObject*, PyObject*) {
    bucket(dict).fetch_add(1, std::memory_order_acq_rel);
    return 0;
  }
  static inline int id_ = -1;
  static inline PyInterpreterState* interpreter_ = nullptr;
  static inline Buckets buckets_;
};
#endif

// Until Python 3.12 each dict has a version, a number that no other dict has and that every change of the dict
// replaces: while it is the same, so is what was found. Later ones are watched.
class DictVersion {
 public:
  DictVersion() = default;  // no dict's
#if PY_VERSION_HEX < 0x030D0000
  explicit DictVersion(PyObject* dict) : version_(now(dict)) {}
  // Whether the dict was not changed since this was its version.
  HELION_HOT bool holds(PyObject* dict) const { return version_ != 0 && version_ == now(dict); }

 private:
  static uint64_t now(PyObject* dict) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    return reinterpret_cast<PyDictObject*>(dict)->ma_version_tag;
#pragma GCC diagnostic pop
  }
#else
  explicit DictVersion(PyObject* dict) : dict_(dict), version_(DictWatch::watched(dict)) {}
  HELION_HOT bool holds(PyObject* dict) const {
    return version_ != 0 && dict == dict_ && version_ == DictWatch::now(dict);
  }

 private:
  PyObject* dict_ = nullptr;  // by its address alone; that it went away is a change, too
#endif
  uint64_t version_ = 0;
};

// A lookup is 120 instructions and a call makes seven. For one thread at a time.
class DictItem {
 public:
  // As PyDict_GetItemWithError(dict, name): borrowed; null where there is none, or with an exception.
  HELION_HOT PyObject* get(PyObject* dict, PyObject* name) const {
    return version_.holds(dict) ? value() : find(dict, name);
  }
  // What get() found last, if the dict is as it was then; else null.
  HELION_HOT PyObject* known(PyObject* dict) const { return version_.holds(dict) ? value() : nullptr; }

  // What get() finds, held for as long as this lives. Without a GIL the item's own reference is lent, since a further
  // one would be counted where all threads count theirs; who asks in the meantime looks it up.
  class Held {
   public:
    explicit Held(PyRef found) : found_(std::move(found)) {}
    Held(const DictItem& item, PyObject* dict, PyObject* name)
#ifdef Py_GIL_DISABLED
        : item_(&item) {
      if (item.get(dict, name) == nullptr) return;
      version_ = std::exchange(item.version_, {});
      found_ = std::move(item.value_);
    }
    Held(Held&& other)
        : item_(std::exchange(other.item_, nullptr)), version_(other.version_), found_(std::move(other.found_)) {}
    ~Held() {
      if (item_ == nullptr || !found_ || item_->value_) return;
      item_->version_ = version_;
      item_->value_ = std::move(found_);
    }
#else
        : found_(PyRef::borrow(item.get(dict, name))) {
    }
#endif
    PyObject* get() const { return found_.get(); }
    explicit operator bool() const { return static_cast<bool>(found_); }

   private:
#ifdef Py_GIL_DISABLED
    const DictItem* item_ = nullptr;
    DictVersion version_;
#endif
    PyRef found_;
  };

  int visit(visitproc visit, void* arg) const {
#ifdef Py_GIL_DISABLED
    return value_.visit(visit, arg);
#else
    (void)visit, (void)arg;
    return 0;
#endif
  }

 private:
#ifdef Py_GIL_DISABLED
  PyObject* value() const { return value_.get(); }
  [[gnu::noinline]] PyObject* find(PyObject* dict, PyObject* name) const {
    const DictVersion version(dict);
    PyObject* found = nullptr;
    if (PyDict_GetItemRef(dict, name, &found) < 0) return nullptr;
    version_ = version;
    value_ = PyRef::steal(found);
    return found;
  }
  mutable DictVersion version_;
  mutable PyRef value_;  // another thread may change the dict at any time
#else
  PyObject* value() const { return value_; }
  [[gnu::noinline]] PyObject* find(PyObject* dict, PyObject* name) const {
    // The version from before: the lookup may run an __eq__ that changes the dict.
    const DictVersion version(dict);
    PyObject* found = PyDict_GetItemWithError(dict, name);
    if (found == nullptr && PyErr_Occurred()) return nullptr;
    version_ = version;
    value_ = found;
    return found;
  }
  mutable DictVersion version_;
  mutable PyObject* value_ = nullptr;  // the dict's reference
#endif
};

}  // namespace helion
