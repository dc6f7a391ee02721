// PlanTable: which LaunchPlan serves the calls of which signature. When a plan is made, and when all of them become
// stale, is the Dispatcher's concern (dispatcher.cpp).
#pragma once

#include "plan.h"
#include "signature.h"

#include <cstring>
#include <memory>
#include <unordered_map>
#include <vector>

namespace helion {

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
    uint64_t last_use;
  };

  // The entry for a signature, or null; null with an exception on error. It is valid until Python code runs.
  HELION_HOT Entry* find(const Signature& signature) {
    Entry* const recent = recent_;
    if (recent != nullptr && recent->objects.empty() && signature.object_count() == 0 && same(*recent, signature)) {
      return recent;
    }
    return find_any(signature);
  }
  void mark_used(Entry* entry) { entry->last_use = ++clock_; }
  // Adds an entry for a signature that has none.
  void insert(const Signature& signature, PyObject* plan, PyObject* bound);
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
  uint64_t clock_ = 0;
  uint64_t changes_ = 0;  // counts insertions and removals: whoever runs Python code checks it before going on
};

}  // namespace helion
