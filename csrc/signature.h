// The signature of a call: everything about its arguments that the outcome may depend on, as flat 64-bit words, and the
// leaves (the tensors and scalars in order of appearance, nested ones included) that a plan reads its inputs from.
#pragma once

#include "state.h"

#include <vector>

namespace helion {

// How a number counts. A plan may take a number from the arguments of the call as long as it passes it on untouched;
// where host code computed with it, or it was compiled in, its value is part of the signature.
enum class NumberKey : uint8_t { kByClass, kByValue };

class Signature {
 public:
  Signature() = default;
  Signature(const Signature&) = delete;
  Signature& operator=(const Signature&) = delete;

  // Appends one argument. 1; 0 if only the Python path knows what to make of it; -1 with an exception. `argument` is
  // borrowed and must outlive the signature.
  int append(const ModuleState* state, PyObject* argument, NumberKey numbers);
  // As append, for a value that counts and that no plan reads: it becomes no leaf. Tensors are for the Python path.
  int append_watched(const ModuleState* state, PyObject* value);
  // Keeps an object as long as the signature; the same object, borrowed.
  PyObject* keep(PyRef object) {
    snapshots_.push_back(std::move(object));
    return snapshots_.back().get();
  }
  // Appends how tensors that overlap in memory lie to each other: of each pair, leaves from `first` to `first_end` are
  // compared with those from `second` to `second_end` (of one range, each with each other one). Nothing where all are
  // apart.
  struct LeafRanges {
    size_t first, first_end, second, second_end;
  };
  void append_overlaps(const LeafRanges& pair);
  // Appends an object that is compared with == (the result of a `key=` function). Returns false with an exception if it
  // cannot be hashed.
  bool append_by_equality(PyObject* object);

  const uint64_t* words() const { return words_; }
  size_t size() const { return size_; }
  PyObject* const* leaves() const { return leaves_; }
  // Of the leaves that are tensors; 0 of those without elements.
  const uintptr_t* addresses() const { return addresses_; }
  size_t leaf_count() const { return leaf_count_; }
  // Objects whose words are only hashes: they have to be compared as well.
  PyObject* const* objects() const { return objects_; }
  size_t object_count() const { return object_count_; }
  uint64_t hash() const;

 private:
  void word(uint64_t value) { *room(1) = value; }
  // Where the next `count` words go.
  uint64_t* room(size_t count) {
    if (size_ + count > capacity_) grow(count);
    uint64_t* const next = words_ + size_;
    size_ += count;
    return next;
  }
  bool leaf(PyObject* object);
  bool object(PyObject* object);
  void grow(size_t count);
  int append_tensor(const ModuleState* state, PyObject* argument);
  int append_sequence(const ModuleState* state, PyObject* argument, NumberKey numbers);

  static constexpr size_t kInlineWords = 320;
  static constexpr size_t kMostLeaves = 128;
  static constexpr size_t kMostObjects = 16;
  static constexpr int kDeepest = 8;

  uint64_t inline_words_[kInlineWords];
  std::vector<uint64_t> many_words_;
  uint64_t* words_ = inline_words_;
  size_t size_ = 0;
  size_t capacity_ = kInlineWords;
  PyObject* leaves_[kMostLeaves];
  uintptr_t addresses_[kMostLeaves];  // of those that are tensors
  size_t leaf_count_ = 0;
  PyObject* objects_[kMostObjects];
  size_t object_count_ = 0;
  int depth_ = 0;
  std::vector<PyRef> snapshots_;
};

}  // namespace helion
