// PlanTable: which LaunchPlan serves the calls of which signature. When a plan is made, and when all of them become
// stale, is the Dispatcher's concern (dispatcher.cpp).
#pragma once

#include "plan.h"
#include "signature.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <unordered_map>
#include <vector>

namespace helion {

// When an entry was used last.
#ifdef Py_GIL_DISABLED
// Each thread that has a copy of the entry's plan notes it for itself.
class LastUse {
 public:
  void now() {
    own_->set(static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()));
  }
  void copied(const LastUse& copy) {
    own_->set(get());
    const auto gone = [](const std::shared_ptr<const Own>& one) { return one.use_count() == 1; };
    copies_.erase(std::remove_if(copies_.begin(), copies_.end(), gone), copies_.end());
    copies_.push_back(copy.own_);
  }
  uint64_t get() const {
    uint64_t last = own_->get();
    for (const std::shared_ptr<const Own>& copy : copies_) last = std::max(last, copy->get());
    return last;
  }

 private:
  struct alignas(64) Own : Count {};  // a cache line of its own: the next one may be another thread's

  std::shared_ptr<Own> own_ = std::make_shared<Own>();
  std::vector<std::shared_ptr<const Own>> copies_;
};
#else
class LastUse {
 public:
  void now() {
    static uint64_t clock = 0;
    last_ = ++clock;
  }
  uint64_t get() const { return last_; }

 private:
  uint64_t last_ = 0;
};
#endif

class PlanTable {
 public:
  // One known signature.
  struct Entry {
    uint64_t hash;
    std::vector<uint64_t> words;
    std::vector<PyRef> objects;
    std::vector<PyRef> pinned;  // whose addresses are among the words
    PyRef plan;   // LaunchPlan
    PyRef bound;  // the BoundKernel that it is of, or None
    LastUse last_use;
  };

  // The entry for a signature, or null; null with an exception on error. It is valid until Python code runs.
  HELION_HOT Entry* find(const Signature& signature) {
    Entry* const recent = recent_;
    if (recent != nullptr && recent->objects.empty() && signature.object_count() == 0 && same(*recent, signature)) {
      return recent;
    }
    return find_any(signature);
  }
  void mark_used(Entry* entry) { entry->last_use.now(); }
  // Adds an entry for a signature that has none.
  Entry* insert(const Signature& signature, PyObject* plan, PyObject* bound);
  // Removes the least recently used entry, which can run Python code.
  void evict_one();
  size_t size() const { return size_; }
  void swap(PlanTable& other) noexcept;
  int visit(visitproc visit, void* arg) const;  // for tp_traverse

 private:
  // Whether the words are equal.
  static bool same(const Entry& entry, const Signature& signature) {
    return entry.words.size() == signature.size() &&
        std::memcmp(entry.words.data(), signature.words(), signature.size() * sizeof(uint64_t)) == 0;
  }
  static int equal(const Entry& entry, const Signature& signature);
  Entry* find_any(const Signature& signature);

  // Entries by hash; a vector, as different signatures may have one hash.
  std::unordered_map<uint64_t, std::vector<std::unique_ptr<Entry>>> entries_;
  size_t size_ = 0;
  Entry* recent_ = nullptr;  // one of `entries_`, or null
  uint64_t changes_ = 0;  // counts insertions and removals: whoever runs Python code checks it before going on
};

}  // namespace helion
