// Executing a LaunchPlan. Its construction from Python is in plan_build.cpp.

#include "plan.h"

namespace helion {
namespace {

constexpr size_t kInlineBuffers = 8;
constexpr size_t kInlineParams = 72;

// The tensors a running plan has allocated. A returned buffer is wrapped at once, so that it can also come from the
// pool.
struct Allocated {
  OwnedTensor tensor;  // an internal buffer
  PyRef object;        // a returned one
};

class Run {
 public:
  Run(LaunchPlan* plan, PyObject* const* leaves, const uintptr_t* addresses)
      : plan_(plan), body_(plan->body), leaves_(leaves), addresses_(addresses) {
    const size_t count = body_.buffers.size();
    if (count > kInlineBuffers) {
      many_.reset(new Allocated[count]);
      buffers_ = many_.get();
    } else {
      // Most plans have one or none: eight made and destroyed would be a tenth of a call.
      for (; inline_count_ < count; ++inline_count_) new (&inline_[inline_count_]) Allocated();
    }
  }
  ~Run() {
    for (size_t i = 0; i < inline_count_; ++i) inline_[i].~Allocated();
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  // 1, 0 to decline, -1 with an exception. Nothing observable has happened unless it returns 1.
  HELION_HOT int prepare();
  // As prepare(); 0 only if nothing that anybody can see has happened.
  HELION_HOT int execute();
  HELION_HOT void advance_versions() const;
  HELION_HOT PyObject* result() {
    // Most plans return one tensor.
    if (body_.result.kind == PlanResult::Kind::kTensor) return Py_NewRef(object(body_.result.tensor));
    return build(body_.result);
  }

 private:
  void* address(const TensorRef& ref) const {
    if (ref.is_input) return TensorView(leaves_[ref.index]).data();
    const Allocated& buffer = buffers_[ref.index];
    return buffer.object ? TensorView(buffer.object.get()).data() : buffer.tensor.data();
  }
  HELION_HOT PyObject* object(const TensorRef& tensor) const {
    return tensor.is_input ? leaves_[tensor.index] : buffers_[tensor.index].object.get();
  }
  bool distinct_tensors() const;
  HELION_COLD int same_allocator() const;
  HELION_HOT int allocate_buffers(long device);
  HELION_HOT bool launch(const PlanStep& step);
  HELION_COLD bool fill_step(const PlanStep& step);
  [[gnu::noinline]] int operate(const PlanStep& step);
  [[gnu::noinline]] PyObject* build(const PlanResult& result);
  HELION_COLD PyObject* build_structure(const PlanResult& result);

  DeviceSwitch switch_;  // the first member: left last
  LaunchPlan* plan_;
  const LaunchPlan::Body& body_;
  PyObject* const* leaves_;
  const uintptr_t* addresses_;
  uintptr_t stream_ = 0;
  union {
    Allocated inline_[kInlineBuffers];  // the first inline_count_ of them are there
  };
  size_t inline_count_ = 0;
  std::unique_ptr<Allocated[]> many_;
  Allocated* buffers_ = inline_;
};

bool Run::distinct_tensors() const {
  for (size_t i = 0; i < body_.leaf_count; ++i) {
    if (!TensorView::exact(leaves_[i])) continue;
    for (size_t j = 0; j < i; ++j) {
      if (leaves_[i] == leaves_[j]) return false;
    }
  }
  return true;
}

int Run::same_allocator() const {
  PyObject* const known = body_.allocators.get();
  PyObject* now = nullptr;
  if (PyContextVar_Get(PyTuple_GET_ITEM(known, 0), nullptr, &now) < 0) return -1;
  PyRef hold = PyRef::steal(now);
  bool is_known = false;
  for (Py_ssize_t i = 1; i < PyTuple_GET_SIZE(known); ++i) is_known = is_known || PyTuple_GET_ITEM(known, i) == now;
  // Guard: a user's own allocator gives the scratch memory of launches.
  return HELION_GUARD("allocator", !is_known) ? 0 : 1;
}

HELION_HOT int Run::prepare() {
  const ModuleState* state = plan_->state;
  // Guard: a factory function without a dtype gives another dtype after torch.set_default_dtype.
  if (HELION_GUARD("default_dtype", default_dtype() != body_.default_dtype)) return 0;
  // Guard: what was recorded has autocast's casts in it, or not.
  if (HELION_GUARD("autocast", body_.operates && autocast_enabled())) return 0;
  // Guard: host code asks whether arguments are the same object, and was recorded with distinct ones.
  if (HELION_GUARD("identity", body_.distinct && !distinct_tensors())) return 0;
  if (body_.allocators) {
    if (const int same = same_allocator(); same != 1) return same;
  }
  for (const PlanStep& step : body_.steps) {
    if (!step.spec) continue;
    const int held = reinterpret_cast<const LaunchSpec*>(step.spec.get())->guards_hold();
    if (held != 1) return held;
  }
  const long device = body_.device;
  const long current = state->environment().current_device(state);
  if (current == -1 && PyErr_Occurred()) return -1;
  // Guard: the arguments live on this device, whichever is current in the caller's thread.
  if (HELION_GUARD("device", device != current) && !switch_.to(state, device)) return -1;
  // Guard: asked at every call, as it changes under torch.cuda.stream and graph capture.
  if (HELION_GUARD("stream", true) && !state->environment().current_stream(state, device, &stream_)) return -1;
  return body_.buffers.empty() ? 1 : allocate_buffers(device);
}

HELION_HOT int Run::allocate_buffers(long device) {
  const ModuleState* state = plan_->state;
  // Guard: a graph that is being captured writes its outputs again at every replay, whoever holds them then.
  bool pooling = state->pool != nullptr && state->pool->enabled() && !deterministic();
  if (pooling) {
    const int capturing = state->environment().is_capturing(state, stream_);
    if (capturing < 0) return -1;
    pooling = !HELION_GUARD("capture", capturing != 0);
  }
  for (size_t i = 0; i < body_.buffers.size(); ++i) {
    const PlanBuffer& buffer = body_.buffers[i];
    if (buffer.made) continue;
    try {
      if (pooling && buffer.pooled) {
        const Alone alone(state->module);
        buffers_[i].object = PyRef::steal(state->pool->take(buffer.shape, device, stream_, &buffer.cursor));
        if (!buffers_[i].object) return -1;
        if (reinterpret_cast<uintptr_t>(TensorView(buffers_[i].object.get()).data()) % 16 != 0) return 0;
        continue;
      }
      OwnedTensor tensor = allocate(buffer.shape);
      // The kernels were compiled for memory as PyTorch's allocators give it; an allocator plugged in later may differ.
      if (reinterpret_cast<uintptr_t>(tensor.data()) % 16 != 0) return 0;
      if (buffer.returned) {
        buffers_[i].object = PyRef::steal(std::move(tensor).wrap());
        if (!buffers_[i].object) return -1;
      } else {
        buffers_[i].tensor = std::move(tensor);
      }
    } catch (...) {
      set_error_from_exception();
      return -1;
    }
  }
  return 1;
}

HELION_HOT bool Run::launch(const PlanStep& step) {
  const LaunchSpec& spec = *reinterpret_cast<const LaunchSpec*>(step.spec.get());
  uint64_t inline_slots[kInlineParams];
  std::vector<uint64_t> many_slots;
  uint64_t* slots = inline_slots;
  if (step.sources.size() > kInlineParams) {
    many_slots.resize(step.sources.size());
    slots = many_slots.data();
  }
  size_t next = 0;
  for (const Source& source : step.sources) {
    switch (source.kind) {
      case Source::Kind::kInputAddress:
        // An operation may have given the tensor memory of its own, or taken it away (a lazy clone).
        slots[next] = (body_.operates ? reinterpret_cast<uintptr_t>(TensorView(leaves_[source.index]).data())
                                      : addresses_[source.index]) +
            source.value;
        break;
      case Source::Kind::kBufferAddress:
        slots[next] = reinterpret_cast<uintptr_t>(address({false, source.index})) + source.value;
        break;
      case Source::Kind::kInputNumber:
        if (!store_scalar(source.type, leaves_[source.index], &slots[next])) return false;
        break;
      case Source::Kind::kConstant:
        slots[next] = source.value;
        break;
    }
    ++next;
  }
  return spec.launch(step.grid, slots, stream_);
}

bool Run::fill_step(const PlanStep& step) {
  std::exception_ptr failed;
  // As PyTorch does around its operations: a fill may wait for the device's queue.
  Py_BEGIN_ALLOW_THREADS
  try {
    if (step.filled.is_input) {
      fill(leaves_[step.filled.index], step.fill_value);
    } else {
      const Allocated& buffer = buffers_[step.filled.index];
      const FreshTensor fresh(step.fresh);
      if (buffer.object) {
        fill(buffer.object.get(), step.fill_value);
      } else {
        fill(buffer.tensor, step.fill_value);
      }
    }
  } catch (...) {
    failed = std::current_exception();
  }
  Py_END_ALLOW_THREADS
  if (failed == nullptr) return true;
  try {
    std::rethrow_exception(failed);
  } catch (...) {
    set_error_from_exception();
  }
  return false;
}

int Run::operate(const PlanStep& step) {
  const std::vector<PlanResult>& items = step.arguments.items;
  std::vector<PyRef> held;
  std::vector<PyObject*> arguments;
  for (const PlanResult& item : items) {
    held.push_back(PyRef::steal(build(item)));
    if (!held.back()) return -1;
    arguments.push_back(held.back().get());
  }
  const size_t by_name = static_cast<size_t>(PyTuple_GET_SIZE(step.names.get()));
  PyRef result = PyRef::steal(PyObject_Vectorcall(step.function.get(), arguments.data(), items.size() - by_name,
                                                  by_name != 0 ? step.names.get() : nullptr));
  if (!result) return -1;
  if (step.outputs.empty()) return 1;  // an argument, changed in place
  PyRef several = PyTuple_Check(result.get()) || PyList_Check(result.get())
      ? PyRef::steal(PySequence_Tuple(result.get()))
      : PyRef::steal(PyTuple_Pack(1, result.get()));
  if (!several) return -1;
  if (static_cast<size_t>(PyTuple_GET_SIZE(several.get())) != step.outputs.size()) return 0;
  for (size_t i = 0; i < step.outputs.size(); ++i) {
    PyObject* tensor = PyTuple_GET_ITEM(several.get(), static_cast<Py_ssize_t>(i));
    // An operation gives the same kind of tensor for the same kinds of arguments; kernels are launched on that.
    if (!same_shape(tensor, body_.buffers[step.outputs[i]].shape)) return 0;
    buffers_[step.outputs[i]].object = PyRef::borrow(tensor);
  }
  return 1;
}

HELION_HOT int Run::execute() {
  bool changed = false;
  for (const PlanStep& step : body_.steps) {
    if (step.function) {
      const int done = operate(step);
      if (done == 0 && (changed || step.changes)) {
        PyErr_SetString(PyExc_RuntimeError, "an operation of host code returned another kind of tensor than before");
        return -1;
      }
      if (done != 1) return done;
      changed = changed || step.changes;
    } else {
      changed = true;
      if (!(step.spec ? launch(step) : fill_step(step))) return -1;
    }
  }
  return 1;
}

HELION_HOT void Run::advance_versions() const {
  for (const TensorRef& tensor : body_.written) {
    PyObject* const written = object(tensor);
    if (written != nullptr) TensorView(written).bump_version();  // nobody sees that of others
  }
}

PyObject* Run::build(const PlanResult& result) {
  switch (result.kind) {
    case PlanResult::Kind::kObject:
      return Py_NewRef(result.object.get());
    case PlanResult::Kind::kTensor:
      return Py_NewRef(object(result.tensor));
    case PlanResult::Kind::kView:
      try {
        return view_of(object(result.tensor), result.shape, result.offset).wrap();
      } catch (...) {
        set_error_from_exception();
        return nullptr;
      }
    case PlanResult::Kind::kTuple:
    case PlanResult::Kind::kList: {
      const bool is_tuple = result.kind == PlanResult::Kind::kTuple;
      const Py_ssize_t count = static_cast<Py_ssize_t>(result.items.size());
      PyRef sequence = PyRef::steal(is_tuple ? PyTuple_New(count) : PyList_New(count));
      if (!sequence) return nullptr;
      for (Py_ssize_t i = 0; i < count; ++i) {
        PyObject* item = build(result.items[static_cast<size_t>(i)]);
        if (item == nullptr) return nullptr;
        // Both macros take over the reference.
        if (is_tuple) {
          PyTuple_SET_ITEM(sequence.get(), i, item);
        } else {
          PyList_SET_ITEM(sequence.get(), i, item);
        }
      }
      return sequence.release();
    }
    case PlanResult::Kind::kDict:
    case PlanResult::Kind::kRecord:
      return build_structure(result);
  }
  Py_UNREACHABLE();
}

PyObject* Run::build_structure(const PlanResult& result) {
  const size_t count = result.items.size();
  PyRef values = PyRef::steal(PyTuple_New(static_cast<Py_ssize_t>(count)));
  if (!values) return nullptr;
  for (size_t i = 0; i < count; ++i) {
    PyObject* item = build(result.items[i]);
    if (item == nullptr) return nullptr;
    PyTuple_SET_ITEM(values.get(), static_cast<Py_ssize_t>(i), item);
  }
  if (result.kind == PlanResult::Kind::kRecord) return PyObject_CallObject(result.object.get(), values.get());
  PyRef dict = PyRef::steal(PyDict_New());
  for (Py_ssize_t i = 0; dict && i < static_cast<Py_ssize_t>(count); ++i) {
    PyObject* key = PyTuple_GET_ITEM(result.object.get(), i);  // borrowed
    if (PyDict_SetItem(dict.get(), key, PyTuple_GET_ITEM(values.get(), i)) < 0) return nullptr;
  }
  return dict.release();
}

}  // namespace

LaunchPlan::Outcome LaunchPlan::run(PyObject* const* leaves, const uintptr_t* addresses, PyObject** result) {
  Run run(this, leaves, addresses);
  const int ready = run.prepare();
  if (ready != 1) return ready < 0 ? Outcome::kFailed : Outcome::kDeclined;
  if (const int done = run.execute(); done != 1) return done < 0 ? Outcome::kFailed : Outcome::kDeclined;
  // What autograd saved of these tensors is not there any more.
  run.advance_versions();
  *result = run.result();
  return *result == nullptr ? Outcome::kFailed : Outcome::kDone;
}

}  // namespace helion
