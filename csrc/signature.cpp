// Reading a call's arguments into a Signature.

#include "signature.h"

#include "argument.h"

#include <cstring>

namespace helion {
namespace {

uint64_t double_bits(double value) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

}  // namespace

void Signature::grow(size_t count) {
  const bool was_inline = words_ == inline_words_;
  many_words_.resize(2 * capacity_ + count);
  if (was_inline) std::memcpy(many_words_.data(), inline_words_, sizeof(inline_words_));
  words_ = many_words_.data();
  capacity_ = many_words_.size();
}

bool Signature::leaf(PyObject* object) {
  if (leaf_count_ == kMostLeaves) return false;
  leaves_[leaf_count_++] = object;
  return true;
}

bool Signature::object(PyObject* object) {
  if (object_count_ == kMostObjects) return false;
  objects_[object_count_++] = object;
  return true;
}

int Signature::append_tensor(const ModuleState* state, PyObject* argument) {
  const TensorView tensor(argument);
  Argument read;
  if (int known = read_tensor(state, argument, tensor, &read); known != 1) return known;
  // Guard: autograd would have to see this call; the Python path says what it makes of that.
  if (HELION_GUARD("requires_grad", tensor.requires_grad() && grad_enabled())) return 0;
  // `_dynamo_static_indices` is part of the specialization key, but not of this: every size counts here, marked or not.
  if (!leaf(argument)) return 0;
  addresses_[leaf_count_ - 1] = static_cast<uintptr_t>(read.bits);
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

int Signature::append_sequence(const ModuleState* state, PyObject* argument, NumberKey numbers) {
  PyObject* items = argument;
  const bool is_tuple = PyTuple_CheckExact(argument);
  if (!is_tuple) {
    // Another thread may change a list while this call waits for the driver; what it held now has to stay alive.
    items = PyList_AsTuple(argument);
    if (items == nullptr) return -1;
    snapshots_.push_back(PyRef::steal(items));
  }
  const Py_ssize_t count = PyTuple_GET_SIZE(items);
  if (++depth_ > kDeepest) return 0;  // a list that holds itself, say
  word(word_of(is_tuple ? Kind::kTuple : Kind::kList, static_cast<uint64_t>(count)));
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (int result = append(state, PyTuple_GET_ITEM(items, i), numbers); result != 1) return result;
  }
  --depth_;
  return 1;
}

int Signature::append(const ModuleState* state, PyObject* argument, NumberKey numbers) {
  if (TensorView::exact(argument)) return append_tensor(state, argument);
  Argument read;
  if (read_argument(state, argument, &read) == 1) {
    word(read.word);
    if (PyBool_Check(argument)) {
      word(read.bits);
    } else if (argument != Py_None && HELION_GUARD("value", numbers == NumberKey::kByValue)) {
      // Guard: host code computed with the value, or it was compiled in. Of a float the bits, so that 0.0 and -0.0
      // differ and a NaN equals itself.
      word(PyFloat_CheckExact(argument) ? double_bits(PyFloat_AS_DOUBLE(argument)) : read.bits);
    }
    return leaf(argument) ? 1 : 0;
  }
  if (PyTuple_CheckExact(argument) || PyList_CheckExact(argument)) return append_sequence(state, argument, numbers);
  if (PyUnicode_CheckExact(argument)) {
    const Py_hash_t hash = PyObject_Hash(argument);
    if (hash == -1) return -1;
    word(word_of(Kind::kString));
    word(static_cast<uint64_t>(hash));
    return object(argument) && leaf(argument) ? 1 : 0;
  }
  c10::ScalarType dtype;
  if (read_dtype(argument, &dtype)) {
    word(word_of(Kind::kDtype, static_cast<uint64_t>(dtype)));
    return leaf(argument) ? 1 : 0;
  }
  c10::Device device(c10::DeviceType::CPU);
  if (read_device(argument, &device)) {
    word(word_of(Kind::kDevice,
                 static_cast<uint64_t>(device.type()) << 8 | static_cast<uint8_t>(device.index())));
    return leaf(argument) ? 1 : 0;
  }
  return 0;
}

int Signature::append_watched(const ModuleState* state, PyObject* value) {
  const size_t leaves = leaf_count_;
  const int known = append(state, value, NumberKey::kByValue);
  for (size_t i = leaves; i < leaf_count_; ++i) {
    if (TensorView::exact(leaves_[i])) return 0;  // its address would be read by nobody
  }
  leaf_count_ = leaves;
  return known;
}

void Signature::append_overlaps(const LeafRanges& pair) {
  for (size_t i = pair.first; i < pair.first_end; ++i) {
    if (!TensorView::exact(leaves_[i])) continue;
    for (size_t j = pair.first == pair.second ? i + 1 : pair.second; j < pair.second_end; ++j) {
      if (!TensorView::exact(leaves_[j])) continue;
      const uintptr_t a = addresses_[i], b = addresses_[j];
      if (a == 0 || b == 0) continue;  // without elements
      const bool overlap = a <= b ? b - a < TensorView(leaves_[i]).span() : a - b < TensorView(leaves_[j]).span();
      // Guard: code that takes its arguments to be apart is wrong for those that overlap.
      if (HELION_GUARD("overlap", overlap)) {
        word(word_of(Kind::kOverlap, static_cast<uint64_t>(i) << 16 | static_cast<uint64_t>(j)));
        word(b - a);
      }
    }
  }
}

bool Signature::append_by_equality(PyObject* object_to_compare) {
  const Py_hash_t hash = PyObject_Hash(object_to_compare);
  if (hash == -1) return false;
  word(word_of(Kind::kKey));
  word(static_cast<uint64_t>(hash));
  // There is always room: this is the last thing that is appended, and append() leaves one place.
  return object(object_to_compare);
}

uint64_t Signature::hash() const {
  // Multiply and fold, one step a word; mixes well enough for a table that compares in full.
  uint64_t state = 0x9E3779B97F4A7C15u ^ size_;
  for (size_t i = 0; i < size_; ++i) {
    const unsigned __int128 product =
        static_cast<unsigned __int128>(state ^ words_[i]) * 0xD6E8FEB86659FD93u;
    state = static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  }
  return state;
}

}  // namespace helion
