// Looking plans up, and which of them goes first when there are too many.

#include "plan_table.h"

namespace helion {

// 1 if equal, 0, -1. Comparing objects can run Python code, after which `entry` may be gone: nothing reads it after
// that.
int PlanTable::equal(const Entry& entry, const Signature& signature) {
  if (entry.objects.size() != signature.object_count() || !same(entry, signature)) return 0;
  const size_t count = signature.object_count();
  if (count == 0) return 1;
  std::vector<PyRef> objects;
  for (const PyRef& object : entry.objects) objects.push_back(PyRef::borrow(object.get()));
  for (size_t i = 0; i < count; ++i) {
    const int result = PyObject_RichCompareBool(objects[i].get(), signature.objects()[i], Py_EQ);
    if (result != 1) return result;
  }
  return 1;
}

PlanTable::Entry* PlanTable::find_any(const Signature& signature) {
  const uint64_t changes = changes_;
  if (Entry* recent = recent_) {
    const int result = equal(*recent, signature);
    if (result < 0 || changes_ != changes) return nullptr;
    if (result == 1) return recent;
  }
  const auto found = entries_.find(signature.hash());
  if (found == entries_.end()) return nullptr;
  for (size_t i = 0; i < found->second.size(); ++i) {
    Entry* entry = found->second[i].get();
    const int result = equal(*entry, signature);
    if (result < 0 || changes_ != changes) return nullptr;
    if (result == 1) {
      recent_ = entry;
      return entry;
    }
  }
  return nullptr;
}

PlanTable::Entry* PlanTable::insert(const Signature& signature, PyObject* plan, PyObject* bound) {
  auto entry = std::make_unique<Entry>();
  entry->hash = signature.hash();
  entry->words.assign(signature.words(), signature.words() + signature.size());
  for (size_t i = 0; i < signature.object_count(); ++i) {
    entry->objects.push_back(PyRef::borrow(signature.objects()[i]));
  }
  for (size_t i = 0; i < signature.pinned_count(); ++i) {
    entry->pinned.push_back(PyRef::borrow(signature.pinned()[i]));
  }
  entry->plan = PyRef::borrow(plan);
  entry->bound = PyRef::borrow(bound);
  mark_used(entry.get());
  recent_ = entry.get();
  entries_[entry->hash].push_back(std::move(entry));
  ++size_;
  ++changes_;
  return recent_;
}

void PlanTable::evict_one() {
  auto oldest_bucket = entries_.end();
  size_t oldest_index = 0;
  uint64_t oldest = UINT64_MAX;
  for (auto bucket = entries_.begin(); bucket != entries_.end(); ++bucket) {
    for (size_t i = 0; i < bucket->second.size(); ++i) {
      const uint64_t last = bucket->second[i]->last_use.get();
      if (last < oldest) {
        oldest = last;
        oldest_bucket = bucket;
        oldest_index = i;
      }
    }
  }
  if (oldest_bucket == entries_.end()) return;
  // Take it out of the table first; destroying it can run Python code.
  std::unique_ptr<Entry> dead = std::move(oldest_bucket->second[oldest_index]);
  oldest_bucket->second.erase(oldest_bucket->second.begin() + static_cast<std::ptrdiff_t>(oldest_index));
  if (oldest_bucket->second.empty()) entries_.erase(oldest_bucket);
  if (recent_ == dead.get()) recent_ = nullptr;
  --size_;
  ++changes_;
}

void PlanTable::swap(PlanTable& other) noexcept {
  entries_.swap(other.entries_);
  std::swap(size_, other.size_);
  std::swap(recent_, other.recent_);
  ++changes_;
}

int PlanTable::visit(visitproc visit, void* arg) const {
  for (const auto& bucket : entries_) {
    for (const std::unique_ptr<Entry>& entry : bucket.second) {
      for (const PyRef& held : entry->objects) {
        if (int result = held.visit(visit, arg)) return result;
      }
      for (const PyRef& held : entry->pinned) {
        if (int result = held.visit(visit, arg)) return result;
      }
      if (int result = entry->plan.visit(visit, arg)) return result;
      if (int result = entry->bound.visit(visit, arg)) return result;
    }
  }
  return 0;
}

}  // namespace helion
