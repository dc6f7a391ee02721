// The output pool (HELION_OUTPUT_POOL=1): hands an output tensor out again once nobody can see it any more.
//
// A tensor is free if the pool holds the only reference to the Python object, the only reference to the C++ tensor and
// the only one to its storage, there is no weak reference, and it looks exactly as it did when it was new. So no
// program can tell a tensor from the pool from a new one. What the pool cannot know about is use that holds no
// reference at all: raw pointers, and another stream's use announced only by Tensor.record_stream.
#pragma once

#include "tensor_view.h"

#include <list>
#include <memory>
#include <unordered_map>
#include <vector>

namespace helion {

class OutputPool {
 public:
  struct Limits {
    size_t entries = 256;
    size_t bytes = size_t{1} << 30;
  };
  struct Statistics {
    uint64_t reused = 0;
    uint64_t allocated = 0;  // on behalf of the pool, which keeps them
    uint64_t evicted = 0;
  };

  using Key = std::vector<int64_t>;
  struct Bucket;
  struct Slot {
    PyRef tensor;
    const void* data = nullptr;
    uint64_t keys = 0;
    size_t bytes = 0;
    Bucket* bucket = nullptr;
  };
  // All tensors of one kind: shape, dtype, device, stream, and whether they are inference tensors. Never empty but
  // while a tensor for it is being made.
  struct Bucket {
    std::vector<std::list<Slot>::iterator> slots;
    size_t next = 0;             // where to look first
    const Key* key = nullptr;  // that of the map
  };

  // Remembers the bucket of a call site, so that the next call there need not look it up.
  struct Cursor {
    Bucket* bucket = nullptr;
    uint64_t generation = 0;
    uintptr_t stream = 0;
    bool inference = false;
  };

  bool enabled() const { return enabled_.load(std::memory_order_relaxed); }
  void configure(bool enabled, const Limits& limits);
  const Limits& limits() const { return limits_; }
  const Statistics& statistics() const { return statistics_; }
  size_t entries() const { return slots_.size(); }
  size_t kinds() const { return buckets_.size(); }
  size_t bytes() const { return bytes_; }

  // A tensor like torch.empty_strided's for work on `stream` of `device`: a free one, or a new one that the pool keeps.
  // A new reference, or null with an exception.
  PyObject* take(const TensorShape& shape, long device, uintptr_t stream, Cursor* cursor);

  // Forgets all tensors. Those in use live on with their users.
  void clear();

  int visit_all(visitproc visit, void* arg) const;

 private:
  // A tensor used on different streams of a bucket's kind is kept this many times before the oldest is forgotten.
  static constexpr size_t kMostSlots = 8;

  struct KeyHash {
    size_t operator()(const Key& key) const;
  };

  Bucket* find(const TensorShape& shape, long device, uintptr_t stream, Cursor* cursor);
  void make_room(size_t bytes);
  // Removes a slot, and its bucket with the last one; the tensor is dropped by the caller, when the pool is in order.
  PyRef remove(std::list<Slot>::iterator slot);

  std::atomic<bool> enabled_{false};  // asked by calls that are not alone with the pool
  Limits limits_;
  Statistics statistics_;
  std::unordered_map<Key, std::unique_ptr<Bucket>, KeyHash> buckets_;
  std::list<Slot> slots_;  // of all buckets, the least recently used first
  size_t bytes_ = 0;
  uint64_t generation_ = 1;  // changes when buckets are destroyed
};

}  // namespace helion
