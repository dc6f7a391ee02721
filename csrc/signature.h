// The signature of a call: everything about its arguments that the outcome may depend on, as flat 64-bit words, and the
// leaves (the tensors and scalars in order of appearance, nested ones included) that a plan reads its inputs from.
#pragma once

#include "argument.h"

#include <memory>
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
  HELION_HOT int append(const ModuleState* state, PyObject* argument, NumberKey numbers) {
    return TensorView::exact(argument) ? append_tensor(state, argument) : append_other(state, argument, numbers);
  }
  // As append, for a value that counts and that no plan reads: it becomes no leaf. Tensors are for the Python path.
  int append_watched(const ModuleState* state, PyObject* value);
  // Appends which function a value is. As append: 1; 0 if there are more than a signature holds.
  int append_called(PyObject* value);
  // Keeps an object as long as the signature; the same object, borrowed.
  HELION_COLD PyObject* keep(PyRef object) {
    std::vector<PyRef>& kept = more().kept;
    kept.push_back(std::move(object));
    return kept.back().get();
  }
  // Appends how tensors that overlap in memory lie to each other: of each pair, leaves from `first` to `first_end` are
  // compared with those from `second` to `second_end` (of one range, each with each other one). Nothing where all are
  // apart.
  struct LeafRanges {
    size_t first, first_end, second, second_end;
  };
  HELION_HOT void append_overlaps(const LeafRanges& pair);
  // Appends an object that is compared with == (the result of a `key=` function). Returns false with an exception if it
  // cannot be hashed.
  bool append_by_equality(PyObject* object);

  const uint64_t* words() const { return words_; }
  size_t size() const { return size_; }
  PyObject* const* leaves() const { return leaves_; }
  // Of the leaves that are tensors; 0 of those without elements, and of what is no tensor.
  const uintptr_t* addresses() const { return addresses_; }
  size_t leaf_count() const { return leaf_count_; }
  // Objects whose words are only hashes: they have to be compared as well.
  PyObject* const* objects() const { return objects_; }
  size_t object_count() const { return object_count_; }
  // Objects whose words are their addresses: whoever keeps the words keeps them, so that no other gets the address.
  PyObject* const* pinned() const { return pinned_; }
  size_t pinned_count() const { return pinned_count_; }
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
  HELION_HOT bool leaf(PyObject* object, uintptr_t address = 0) {
    if (leaf_count_ == kMostLeaves) return false;
    addresses_[leaf_count_] = address;
    leaves_[leaf_count_++] = object;
    return true;
  }
  bool object(PyObject* object);
  bool pin(PyObject* object);
  HELION_COLD void grow(size_t count);
  HELION_HOT int append_tensor(const ModuleState* state, PyObject* argument);
  int append_other(const ModuleState* state, PyObject* argument, NumberKey numbers);
  int append_sequence(const ModuleState* state, PyObject* argument, NumberKey numbers);
  HELION_COLD void append_overlap(size_t i, size_t j);

  static constexpr size_t kInlineWords = 320;
  static constexpr size_t kMostLeaves = 128;
  static constexpr size_t kMostObjects = 16;
  static constexpr size_t kMostPinned = 128;
  static constexpr int kDeepest = 8;

  // What few signatures need.
  struct More {
    std::vector<uint64_t> words;
    std::vector<PyRef> kept;
  };
  More& more() {
    if (!more_) more_ = std::make_unique<More>();
    return *more_;
  }

  uint64_t inline_words_[kInlineWords];
  uint64_t* words_ = inline_words_;
  size_t size_ = 0;
  size_t capacity_ = kInlineWords;
  PyObject* leaves_[kMostLeaves];
  uintptr_t addresses_[kMostLeaves];
  size_t leaf_count_ = 0;
  PyObject* objects_[kMostObjects];
  size_t object_count_ = 0;
  PyObject* pinned_[kMostPinned];
  size_t pinned_count_ = 0;
  int depth_ = 0;
  std::unique_ptr<More> more_;
};

HELION_HOT int Signature::append_tensor(const ModuleState* state, PyObject* argument) {
  const TensorView tensor(argument);
  const torch::autograd::AutogradMeta* const meta = tensor.autograd();
  Argument read;
  if (int known = read_tensor(state, argument, tensor, meta, &read); known != 1) return known;
  // Guard: autograd would have to see this call; the Python path says what it makes of that.
  if (HELION_GUARD("requires_grad", meta != nullptr && tensor.requires_grad() && grad_enabled())) return 0;
  // `_dynamo_static_indices` is part of the specialization key, but not of this: every size counts here, marked or not.
  if (!leaf(argument, static_cast<uintptr_t>(read.bits))) return 0;
  const c10::IntArrayRef sizes = tensor.sizes();
  // Bits that the word of a tensor has left: whether it is a Parameter, and its rank.
  const size_t rank = sizes.size();
  uint64_t* out = room(2 + 2 * rank);
  *out++ =
      read.word | static_cast<uint64_t>(TensorView::is_parameter(argument)) << 9 | static_cast<uint64_t>(rank) << 24;
  *out++ = tensor.keys();
  const int64_t* const strides = tensor.strides().data();
  for (size_t i = 0; i < rank; ++i) {
    out[i] = static_cast<uint64_t>(sizes[i]);
    out[rank + i] = static_cast<uint64_t>(strides[i]);
  }
  return 1;
}

HELION_HOT void Signature::append_overlaps(const LeafRanges& pair) {
  for (size_t i = pair.first; i < pair.first_end; ++i) {
    const uintptr_t a = addresses_[i];
    if (a == 0) continue;  // no tensor, or without elements
    for (size_t j = pair.first == pair.second ? i + 1 : pair.second; j < pair.second_end; ++j) {
      const uintptr_t b = addresses_[j];
      if (b == 0) continue;
      const bool overlap = a <= b ? b - a < TensorView(leaves_[i]).span() : a - b < TensorView(leaves_[j]).span();
      // Guard: code that takes its arguments to be apart is wrong for those that overlap.
      if (HELION_GUARD("overlap", overlap)) append_overlap(i, j);
    }
  }
}

}  // namespace helion
