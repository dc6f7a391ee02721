// Which outputs are free, and the functions by which Python sees the pool.

#include "output_pool.h"

#include "state.h"

#include <algorithm>
#include <iterator>

namespace helion {
namespace {

// Whether nobody but the pool can reach the tensor, and nothing about it gives away that it was used before.
bool is_free(const OutputPool::Slot& slot, const TensorShape& shape) {
  PyObject* object = slot.tensor.get();
  if (HELION_GUARD("pool_object", !has_references(object, 1))) return false;
  // Held while it is looked at: asking for an object's attributes can run the garbage collector, and with it anything.
  PyRef hold = PyRef::borrow(object);
  return unobserved(object, shape, slot.data, slot.keys);
}

}  // namespace

size_t OutputPool::KeyHash::operator()(const Key& key) const {
  uint64_t state = 0x9E3779B97F4A7C15u;
  for (const int64_t value : key) {
    state = (state ^ static_cast<uint64_t>(value)) * 0xD6E8FEB86659FD93u;
    state ^= state >> 32;
  }
  return static_cast<size_t>(state);
}

void OutputPool::configure(bool enabled, const Limits& limits) {
  clear();
  enabled_ = enabled;
  limits_ = limits;
}

OutputPool::Bucket* OutputPool::find(const TensorShape& shape, long device, uintptr_t stream, Cursor* cursor) {
  const bool inference = inference_mode();
  if (cursor->bucket != nullptr && cursor->generation == generation_ && cursor->stream == stream &&
      cursor->inference == inference) {
    return cursor->bucket;
  }
  Key key;
  key.reserve(shape.sizes.size() + shape.strides.size() + 5);
  key.insert(key.end(), shape.sizes.begin(), shape.sizes.end());
  key.insert(key.end(), shape.strides.begin(), shape.strides.end());
  key.push_back(static_cast<int64_t>(shape.dtype));
  key.push_back(static_cast<int64_t>(shape.device.type()) << 8 | static_cast<uint8_t>(shape.device.index()));
  key.push_back(device);
  key.push_back(static_cast<int64_t>(stream));
  key.push_back(inference ? 1 : 0);
  const auto found = buckets_.try_emplace(std::move(key)).first;
  std::unique_ptr<Bucket>& bucket = found->second;
  if (bucket == nullptr) {
    bucket = std::make_unique<Bucket>();
    bucket->key = &found->first;
  }
  *cursor = {bucket.get(), generation_, stream, inference};
  return bucket.get();
}

PyObject* OutputPool::take(const TensorShape& shape, long device, uintptr_t stream, Cursor* cursor) {
  Bucket* bucket = find(shape, device, stream, cursor);
  for (size_t i = 0; i < bucket->slots.size(); ++i) {
    size_t at = bucket->next + i;
    if (at >= bucket->slots.size()) at -= bucket->slots.size();
    const PyObject* candidate = bucket->slots[at]->tensor.get();
    const uint64_t generation = generation_;
    const bool usable = is_free(*bucket->slots[at], shape);
    // Is this still the same pool, and the same tensor in the same place?
    if (generation != generation_) break;
    if (!usable || at >= bucket->slots.size() || bucket->slots[at]->tensor.get() != candidate) continue;
    if (HELION_GUARD("pool_object", !has_references(const_cast<PyObject*>(candidate), 1))) continue;
    bucket->next = at;
    slots_.splice(slots_.end(), slots_, bucket->slots[at]);
    ++statistics_.reused;
    return Py_NewRef(bucket->slots[at]->tensor.get());
  }
  PyRef object;
  try {
    object = PyRef::steal(allocate(shape).wrap());
  } catch (...) {
    // Out of memory: what the pool holds may be what is missing.
    if (slots_.empty()) throw;
    clear();
    object = PyRef::steal(allocate(shape).wrap());
  }
  if (!object) return nullptr;
  const size_t bytes = storage_bytes(object.get());
  if (bytes > limits_.bytes || limits_.entries == 0) return object.release();
  make_room(bytes);
  // The bucket may have gone: forgetting a tensor can take it away, and can run code that clears the pool.
  bucket = find(shape, device, stream, cursor);
  PyRef dropped;  // at the end of this scope, when the pool is in order
  if (bucket->slots.size() >= kMostSlots) {
    size_t oldest = 0;
    // The least recently used of them comes first in the list of all.
    for (auto slot = slots_.begin(); slot != slots_.end(); ++slot) {
      if (slot->bucket != bucket) continue;
      while (bucket->slots[oldest] != slot) ++oldest;
      break;
    }
    bytes_ -= bucket->slots[oldest]->bytes;
    ++statistics_.evicted;
    dropped = std::move(bucket->slots[oldest]->tensor);
    slots_.erase(bucket->slots[oldest]);
    bucket->slots.erase(bucket->slots.begin() + static_cast<std::ptrdiff_t>(oldest));
  }
  const TensorView view(object.get());
  slots_.push_back({PyRef::borrow(object.get()), view.data(), view.keys(), bytes, bucket});
  bucket->slots.push_back(std::prev(slots_.end()));
  bucket->next = bucket->slots.size() - 1;
  bytes_ += bytes;
  ++statistics_.allocated;
  return object.release();
}

PyRef OutputPool::remove(std::list<Slot>::iterator slot) {
  Bucket* bucket = slot->bucket;
  bucket->slots.erase(std::find(bucket->slots.begin(), bucket->slots.end(), slot));
  bucket->next = 0;
  if (bucket->slots.empty()) {
    // A kind that does not come again must not stay: a program whose shapes change would fill the table with them.
    buckets_.erase(buckets_.find(*bucket->key));
    ++generation_;
  }
  bytes_ -= slot->bytes;
  PyRef tensor = std::move(slot->tensor);
  slots_.erase(slot);
  return tensor;
}

void OutputPool::make_room(size_t bytes) {
  while (!slots_.empty() && (slots_.size() + 1 > limits_.entries || bytes_ + bytes > limits_.bytes)) {
    ++statistics_.evicted;
    remove(slots_.begin());
  }
}

void OutputPool::clear() {
  std::unordered_map<Key, std::unique_ptr<Bucket>, KeyHash> old_buckets;
  std::list<Slot> old_slots;
  old_buckets.swap(buckets_);
  old_slots.swap(slots_);
  bytes_ = 0;
  ++generation_;
}

int OutputPool::visit_all(visitproc visit, void* arg) const {
  for (const Slot& slot : slots_) {
    if (int result = slot.tensor.visit(visit, arg)) return result;
  }
  return 0;
}

namespace {

PyObject* pool_configure(PyObject* module, PyObject* args) {
  int enabled = 0;
  Py_ssize_t entries = 0, bytes = 0;
  if (!PyArg_ParseTuple(args, "pnn:output_pool_configure", &enabled, &entries, &bytes)) return nullptr;
  if (entries < 0 || bytes < 0) {
    PyErr_SetString(PyExc_ValueError, "the limits of the output pool must not be negative");
    return nullptr;
  }
  const Alone alone(module);
  state_of_module(module)->pool->configure(enabled != 0, {static_cast<size_t>(entries), static_cast<size_t>(bytes)});
  Py_RETURN_NONE;
}

PyObject* pool_clear(PyObject* module, PyObject*) {
  const Alone alone(module);
  state_of_module(module)->pool->clear();
  Py_RETURN_NONE;
}

PyObject* pool_statistics(PyObject* module, PyObject*) {
  const Alone alone(module);
  const OutputPool& pool = *state_of_module(module)->pool;
  const OutputPool::Statistics& counts = pool.statistics();
  return Py_BuildValue(
      "{s:O,s:n,s:n,s:n,s:n,s:n,s:K,s:K,s:K}", "enabled", pool.enabled() ? Py_True : Py_False, "entries",
      static_cast<Py_ssize_t>(pool.entries()), "kinds", static_cast<Py_ssize_t>(pool.kinds()), "bytes",
      static_cast<Py_ssize_t>(pool.bytes()), "most_entries", static_cast<Py_ssize_t>(pool.limits().entries),
      "most_bytes", static_cast<Py_ssize_t>(pool.limits().bytes), "reused",
      static_cast<unsigned long long>(counts.reused), "allocated", static_cast<unsigned long long>(counts.allocated),
      "evicted", static_cast<unsigned long long>(counts.evicted));
}

// A tensor from the pool for the current stream of the current device; None if the pool cannot serve it.
PyObject* serve(const ModuleState* state, TensorShape shape) {
  const Environment& environment = state->environment();
  // PyTorch's own devices: only memory of the device that is current. Another provider's tensors are all in host
  // memory.
  const c10::DeviceType owned = environment.native_tags() ? c10::DeviceType::CUDA : c10::DeviceType::CPU;
  if (shape.device.type() != owned) Py_RETURN_NONE;
  const long device = environment.current_device(state);
  if (device == -1 && PyErr_Occurred()) return nullptr;
  if (environment.native_tags()) {
    if (shape.device.index() == -1) shape.device.set_index(static_cast<c10::DeviceIndex>(device));
    if (shape.device.index() != device) Py_RETURN_NONE;
  }
  uintptr_t stream = 0;
  if (!environment.current_stream(state, device, &stream)) return nullptr;
  const int capturing = environment.is_capturing(state, stream);
  if (capturing < 0) return nullptr;
  if (capturing == 1) Py_RETURN_NONE;
  try {
    OutputPool::Cursor cursor;
    const Alone alone(state->module);
    return state->pool->take(shape, device, stream, &cursor);
  } catch (...) {
    set_error_from_exception();
    return nullptr;
  }
}

// 1 if an allocation may come from the pool now, 0, -1 with an exception.
int may_serve(ModuleState* state) {
  if (state->pool == nullptr || !state->pool->enabled() || deterministic() || !plain_torch_state()) return 0;
  return state->environment().load(state) && state->environment().refresh_provider(state) ? 1 : -1;
}

PyObject* pool_empty_like(PyObject* module, PyObject* tensor) {
  ModuleState* state = state_of_module(module);
  const int served = may_serve(state);
  if (served < 0) return nullptr;
  if (served == 0 || !TensorView::exact(tensor)) Py_RETURN_NONE;
  const TensorView view(tensor);
  if (!view.plain() || !view.dense()) Py_RETURN_NONE;
  return serve(state, {view.sizes().vec(), view.strides().vec(), view.scalar_type(), view.device()});
}

PyObject* pool_empty(PyObject* module, PyObject* args) {
  ModuleState* state = state_of_module(module);
  PyObject *sizes = nullptr, *dtype = nullptr, *device = nullptr;
  TensorShape shape{{}, {}, c10::ScalarType::Undefined, c10::Device(c10::DeviceType::CPU)};
  if (!PyArg_ParseTuple(args, "O!OO:output_pool_empty", &PyTuple_Type, &sizes, &dtype, &device)) return nullptr;
  if (!read_dtype(dtype, &shape.dtype) || !read_device(device, &shape.device)) {
    PyErr_SetString(PyExc_TypeError, "output_pool_empty: expected a torch.dtype and a torch.device");
    return nullptr;
  }
  const int served = may_serve(state);
  if (served < 0) return nullptr;
  if (served == 0) Py_RETURN_NONE;
  const Py_ssize_t rank = PyTuple_GET_SIZE(sizes);
  shape.sizes.resize(static_cast<size_t>(rank));
  shape.strides.resize(static_cast<size_t>(rank));
  int64_t stride = 1;
  for (Py_ssize_t i = rank; i-- > 0;) {
    const int64_t size = PyLong_AsLongLong(PyTuple_GET_ITEM(sizes, i));
    if (size == -1 && PyErr_Occurred()) return nullptr;
    // Negative, or more than there can be: PyTorch says what is wrong with it.
    if (size < 0 || (size > 1 && stride > (int64_t{1} << 48) / size)) Py_RETURN_NONE;
    shape.sizes[static_cast<size_t>(i)] = size;
    shape.strides[static_cast<size_t>(i)] = stride;
    stride *= size > 1 ? size : 1;
  }
  return serve(state, std::move(shape));
}

PyMethodDef pool_methods[] = {
    {"output_pool_configure", pool_configure, METH_VARARGS,
     "output_pool_configure(enabled, entries, bytes, /)\n--\n\nSwitch the pool and set its limits. Forgets all "
     "tensors."},
    {"output_pool_clear", pool_clear, METH_NOARGS,
     "output_pool_clear()\n--\n\nForget all tensors. Those in use live on with their users."},
    {"output_pool_empty_like", pool_empty_like, METH_O,
     "output_pool_empty_like(tensor, /)\n--\n\ntorch.empty_like from the pool; None if the pool cannot serve it."},
    {"output_pool_empty", pool_empty, METH_VARARGS,
     "output_pool_empty(sizes, dtype, device, /)\n--\n\ntorch.empty from the pool; None if the pool cannot serve it."},
    {"output_pool_statistics", pool_statistics, METH_NOARGS,
     "output_pool_statistics()\n--\n\nA dict: enabled, entries, kinds, bytes, most_entries, most_bytes, reused, "
     "allocated, evicted."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int add_output_pool(PyObject* module) {
  state_of_module(module)->pool = new OutputPool();
  return PyModule_AddFunctions(module, pool_methods);
}

int visit_output_pool(const ModuleState* state, visitproc visit, void* arg) {
  return state->pool != nullptr ? state->pool->visit_all(visit, arg) : 0;
}

void destroy_output_pool(ModuleState* state) {
  std::unique_ptr<OutputPool> old(std::exchange(state->pool, nullptr));
  if (old != nullptr) old->clear();
}

}  // namespace helion
