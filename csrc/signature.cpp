// Reading a call's arguments into a Signature.

#include "signature.h"

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
  std::vector<uint64_t>& words = more().words;
  words.resize(2 * capacity_ + count);
  if (was_inline) std::memcpy(words.data(), inline_words_, sizeof(inline_words_));
  words_ = words.data();
  capacity_ = words.size();
}

bool Signature::object(PyObject* object) {
  if (object_count_ == kMostObjects) return false;
  objects_[object_count_++] = object;
  return true;
}

bool Signature::pin(PyObject* object) {
  if (pinned_count_ == kMostPinned) return false;
  pinned_[pinned_count_++] = object;
  word(static_cast<uint64_t>(reinterpret_cast<uintptr_t>(object)));
  return true;
}

int Signature::append_sequence(const ModuleState* state, PyObject* argument, NumberKey numbers) {
  PyObject* items = argument;
  const bool is_tuple = PyTuple_CheckExact(argument);
  if (!is_tuple) {
    // Another thread may change a list while this call waits for the driver; what it held now has to stay alive.
    items = PyList_AsTuple(argument);
    if (items == nullptr) return -1;
    keep(PyRef::steal(items));
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

int Signature::append_other(const ModuleState* state, PyObject* argument, NumberKey numbers) {
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

int Signature::append_called(PyObject* value) {
  word(word_of(Kind::kCalled));
  if (!pin(value)) return 0;
  if (!PyFunction_Check(value)) return 1;
  // What may be assigned to a function that stays the same object; a program that reloads modules does.
  PyObject* const parts[] = {PyFunction_GET_CODE(value), PyFunction_GET_DEFAULTS(value),
                             PyFunction_GET_KW_DEFAULTS(value)};
  for (PyObject* part : parts) {
    if (!pin(part != nullptr ? part : Py_None)) return 0;
  }
  // Defaults of keywords are in a dict, whose items may be assigned.
  if (PyObject* const keywords = PyFunction_GET_KW_DEFAULTS(value)) {
    PyObject *name = nullptr, *keyword_default = nullptr;
    const Alone alone(keywords);
    for (Py_ssize_t i = 0; PyDict_Next(keywords, &i, &name, &keyword_default);) {
      if (!pin(keyword_default)) return 0;
    }
  }
  return 1;
}

void Signature::append_overlap(size_t i, size_t j) {
  word(word_of(Kind::kOverlap, static_cast<uint64_t>(i) << 16 | static_cast<uint64_t>(j)));
  word(addresses_[j] - addresses_[i]);
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
