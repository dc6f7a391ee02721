// Current device and stream, Triton's knobs and launch hooks.

#include "environment.h"

#include "state.h"

namespace helion {
namespace {

// Equal by identity, or by ==. 1, 0, or -1 with an exception.
int same(PyObject* left, PyObject* right) {
  if (left == right) return 1;
  return PyObject_RichCompareBool(left, right, Py_EQ);
}

// An imported module's attribute; null with an exception.
PyRef import_attribute(const char* module_name, const char* name) {
  PyRef module = PyRef::steal(PyImport_ImportModule(module_name));
  return module ? PyRef::steal(PyObject_GetAttrString(module.get(), name)) : PyRef();
}

// The object's __dict__; null without an exception if it has none.
PyRef dict_of(PyObject* object) {
  PyRef dict = PyRef::steal(PyObject_GetAttrString(object, "__dict__"));
  if (!dict || !PyDict_Check(dict.get())) {
    PyErr_Clear();
    return PyRef();
  }
  return dict;
}

bool load_group(const char* name, KnobGroup* group) {
  group->object = import_attribute("triton.knobs", name);
  if (!group->object) return false;
  group->dict = dict_of(group->object.get());
  if (group->dict) return true;
  PyErr_Format(PyExc_TypeError, "triton.knobs.%s is expected to be a plain object", name);
  return false;
}

// function(argument), or function() without one. Null with an exception, also where `function` is.
PyRef call(const DictItem::Held& function, PyObject* argument) {
  if (!function) return {};
  PyObject* args[] = {nullptr, argument};
  return PyRef::steal(PyObject_Vectorcall(function.get(), args + 1,
                                          (argument != nullptr ? 1 : 0) | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr));
}

// The default of a knob: its class's attribute. Null with an exception if there is none.
PyRef class_attribute(const KnobGroup& group, PyObject* name) {
  return PyRef::steal(PyObject_GetAttr(reinterpret_cast<PyObject*>(Py_TYPE(group.object.get())), name));
}

}  // namespace

int KnobValues::visit_all(visitproc visit, void* arg) const {
  if (int result = debug.visit(visit, arg)) return result;
  if (int result = instrumentation_mode.visit(visit, arg)) return result;
  return stages_hook.visit(visit, arg);
}

PyRef KnobGroup::get(PyObject* name, const PyRef& fallback) const {
  if (PyDict_GET_SIZE(dict.get()) == 0) return fallback.copy();
  PyObject* assigned = nullptr;
#ifdef Py_GIL_DISABLED
  const int found = PyDict_GetItemRef(dict.get(), name, &assigned);
  if (found > 0) return PyRef::steal(assigned);
#else
  assigned = PyDict_GetItemWithError(dict.get(), name);
  if (assigned != nullptr) return PyRef::borrow(assigned);
#endif
  PyErr_Clear();  // only a str subclass with a broken __eq__ among the keys could have failed
  return fallback.copy();
}

bool Environment::load(const ModuleState*) {
  if (loaded_) return true;
  PyRef device_module = PyRef::steal(PyImport_ImportModule("helion.runtime.device"));
  if (!device_module) return false;
  PyRef measure_module = PyRef::steal(PyImport_ImportModule("helion.runtime.measure"));
  if (!measure_module) return false;
  PyRef tensor_type = import_attribute("torch", "Tensor");
  if (!tensor_type) return false;
  get_device_ = PyRef::steal(PyObject_GetAttrString(tensor_type.get(), "get_device"));
  if (!get_device_) return false;
  torch_current_device_ = import_attribute("helion._compat_torch", "cuda_current_device");
  if (!torch_current_device_) return false;
  torch_current_stream_ = import_attribute("helion._compat_torch", "cuda_current_raw_stream");
  if (!torch_current_stream_) return false;
  device_dict_ = PyRef::borrow(PyModule_GetDict(device_module.get()));
  measure_dict_ = PyRef::borrow(PyModule_GetDict(measure_module.get()));
  loaded_ = true;
  return true;
}

bool Environment::load_knobs(const ModuleState* state) {
  if (enter_.object) return true;
  if (!load_group("runtime", &runtime_) || !load_group("compilation", &compilation_)) return false;
  const Names& names = state->names;
  defaults_.debug = class_attribute(runtime_, names.debug);
  if (!defaults_.debug) return false;
  defaults_.instrumentation_mode = class_attribute(compilation_, names.instrumentation_mode);
  if (!defaults_.instrumentation_mode) return false;
  defaults_.stages_hook = class_attribute(runtime_, names.add_stages_inspection_hook);
  if (!defaults_.stages_hook) return false;
  exit_.object = class_attribute(runtime_, names.launch_exit_hook);
  if (!exit_.object) return false;
  exit_.dict = dict_of(exit_.object.get());
  PyRef enter = class_attribute(runtime_, names.launch_enter_hook);
  if (!enter) return false;
  enter_.dict = dict_of(enter.get());
  enter_.object = std::move(enter);  // last: it says that all is there
  return true;
}

bool Environment::refresh_provider(const ModuleState* state) {
  if (!loaded_ && !load(state)) return false;
  PyObject* provider = provider_item_.get(device_dict_.get(), state->names.provider);  // borrowed
  if (provider == provider_.get() && provider != nullptr) return true;
  if (provider == nullptr) {
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_RuntimeError, "helion.runtime.device has no provider");
    return false;
  }
  PyRef hold = PyRef::borrow(provider);
  PyRef tag = PyRef::steal(PyObject_GetAttr(provider, state->names.device_tag));
  if (!tag) return false;
  native_tags_ = tag.get() == get_device_.get();
  provider_dict_ = dict_of(provider);
  torch_functions_ = {};
  provider_ = std::move(hold);
  return true;
}

// It is looked up each time, as torch.cuda's are replaced when CUDA starts.
DictItem::Held Environment::provider_function(PyObject* name, const DictItem& item) const {
  if (provider_dict_) {
    // Functions are attributes of the instance where speed matters; the general lookup would ask its class first.
    DictItem::Held function(item, provider_dict_.get(), name);
    if (function || PyErr_Occurred()) return function;
  }
  // The provider could be replaced by the very call that is made on it.
  PyRef hold = PyRef::borrow(provider_.get());
  return DictItem::Held(PyRef::steal(PyObject_GetAttr(hold.get(), name)));
}

bool Environment::device_tag(const ModuleState* state, PyObject* tensor, uint64_t* tag) const {
  PyRef answer = call(provider_function(state->names.device_tag, {}), tensor);
  if (!answer) return false;
  const long long value = PyLong_AsLongLong(answer.get());
  if (value == -1 && PyErr_Occurred()) return false;
  if (value < INT32_MIN || value > INT32_MAX) {
    PyErr_Format(PyExc_OverflowError, "the provider's device_tag does not fit into 32 bits: %lld", value);
    return false;
  }
  *tag = static_cast<uint64_t>(value);
  return true;
}

long Environment::ask_current_device(const ModuleState* state) const {
  const DictVersion version = provider_dict_ ? DictVersion(provider_dict_.get()) : DictVersion();
  const DictItem::Held function = provider_function(state->names.current_device, current_device_item_);
  if (function.get() == torch_current_device_.get()) {
    const DictItem::Held stream = provider_function(state->names.current_stream, current_stream_item_);
    if (!stream) return -1;
    if (stream.get() == torch_current_stream_.get()) torch_functions_ = version;
    if (const long index = torch_device_.current(); index >= 0) return index;
  }
  PyRef index = call(function, nullptr);
  return index ? PyLong_AsLong(index.get()) : -1;
}

bool Environment::ask_current_stream(const ModuleState* state, long device, uintptr_t* stream) const {
  const DictItem::Held function = provider_function(state->names.current_stream, current_stream_item_);
  if (function.get() == torch_current_stream_.get() && torch_device_.stream(device, stream)) return true;
  PyRef index = PyRef::steal(PyLong_FromLong(device));
  if (!index) return false;
  PyRef handle = call(function, index.get());
  if (!handle) return false;
  *stream = static_cast<uintptr_t>(PyLong_AsUnsignedLongLong(handle.get()));
  return !(*stream == static_cast<uintptr_t>(-1) && PyErr_Occurred());
}

PyRef Environment::enter_device(const ModuleState* state, long device) const {
  PyRef index = PyRef::steal(PyLong_FromLong(device));
  if (!index) return index;
  PyRef guard = call(provider_function(state->names.guard, {}), index.get());
  if (!guard) return guard;
  PyRef entered = PyRef::steal(PyObject_CallMethodNoArgs(guard.get(), state->names.enter));
  return entered ? std::move(guard) : std::move(entered);
}

bool DeviceSwitch::to(const ModuleState* state, long device) {
  state_ = state;
  entered_ = state->environment().enter_device(state, device);
  return static_cast<bool>(entered_);
}

DeviceSwitch::~DeviceSwitch() {
  if (!entered_) return;
  PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  PyRef left = PyRef::steal(
      PyObject_CallMethodObjArgs(entered_.get(), state_->names.exit, Py_None, Py_None, Py_None, nullptr));
  if (!left) PyErr_WriteUnraisable(entered_.get());
  PyErr_Restore(type, value, traceback);
}

int Environment::is_capturing(const ModuleState* state, uintptr_t stream) const {
  if (const int known = state->driver.is_capturing(stream); known >= 0) return known;
  PyRef answer = call(provider_function(state->names.is_capturing, {}), nullptr);
  return answer ? PyObject_IsTrue(answer.get()) : -1;
}

void Environment::read_knobs(const ModuleState* state, KnobValues* values) const {
  const Names& names = state->names;
  values->debug = runtime_.get(names.debug, defaults_.debug);
  values->instrumentation_mode = compilation_.get(names.instrumentation_mode, defaults_.instrumentation_mode);
  values->stages_hook = runtime_.get(names.add_stages_inspection_hook, defaults_.stages_hook);
}

int Environment::same_knobs(const ModuleState* state, const KnobValues& values) const {
  const Names& names = state->names;
  // With an inspection hook Triton asks the hook for a key on every call; that is for Triton to do.
  if (runtime_.get(names.add_stages_inspection_hook, defaults_.stages_hook).get() != Py_None) return 0;
  if (values.stages_hook.get() != Py_None) return 0;
  PyRef debug = runtime_.get(names.debug, defaults_.debug);
  if (int result = same(debug.get(), values.debug.get()); result != 1) return result;
  PyRef mode = compilation_.get(names.instrumentation_mode, defaults_.instrumentation_mode);
  return same(mode.get(), values.instrumentation_mode.get());
}

namespace {

// The list of what a launch hook that Triton starts with calls, borrowed from its __dict__; null if that is not known.
PyObject* calls_of(const DefaultHook& hook) {
  PyObject* calls = hook.calls.known(hook.dict.get());
  return calls != nullptr && PyList_CheckExact(calls) ? calls : nullptr;
}

}  // namespace

TritonVersions Environment::triton_versions(const ModuleState* state) const {
  // Of a hook that replaced Triton's own it is not known what would make it watch.
  const Names& names = state->names;
  if (!enter_.dict || runtime_.get(names.launch_enter_hook, enter_.object).get() != enter_.object.get()) return {};
  if (!exit_.dict || runtime_.get(names.launch_exit_hook, exit_.object).get() != exit_.object.get()) return {};
  PyObject* const enter = calls_of(enter_);
  PyObject* const exit = calls_of(exit_);
  if (enter == nullptr || exit == nullptr) return {};
  return {DictVersion(runtime_.dict.get()), DictVersion(compilation_.dict.get()), DictVersion(enter_.dict.get()),
          DictVersion(exit_.dict.get()), enter, exit};
}

int Environment::triton_untouched(const ModuleState* state) {
  if (!enter_.object) {
    if (!modules_) modules_ = PyRef::borrow(PyImport_GetModuleDict());
    const DictVersion version(modules_.get());
    PyObject* knobs = PyDict_GetItemWithError(modules_.get(), state->names.triton_knobs);  // borrowed
    if (knobs == nullptr) {
      if (PyErr_Occurred()) return -1;
      triton_missing_ = version;
      return 1;
    }
    if (!load_knobs(state)) {
      PyErr_Clear();  // another thread is importing it: not for a plan to decide
      return 0;
    }
  }
  if (int result = same_knobs(state, defaults_); result != 1) return result;
  const int active = hooks_active(state);
  return active < 0 ? -1 : !active;
}

int Environment::measuring(const ModuleState* state) const {
  PyObject* enabled = measuring_item_.get(measure_dict_.get(), state->names.enabled);  // borrowed
  if (enabled == nullptr) return PyErr_Occurred() ? -1 : 0;
  return enabled == Py_False ? 0 : 1;
}

int Environment::hook_active(const ModuleState* state, PyObject* name, const DefaultHook& known) const {
  PyRef hold = runtime_.get(name, known.object);
  PyObject* const hook = hold.get();
  if (hook == Py_None) return 0;
  // Triton's default is a chain, an object with a list of `calls`; an empty one does nothing.
  if (hook == known.object.get() && known.dict) {
    PyObject* calls = known.calls.get(known.dict.get(), state->names.calls);  // borrowed
    if (calls == nullptr && PyErr_Occurred()) return -1;
    return calls != nullptr && PyList_CheckExact(calls) && PyList_GET_SIZE(calls) == 0 ? 0 : 1;
  }
  PyObject* calls = nullptr;
  const int found = get_optional_attr(hook, state->names.calls, &calls);
  if (found < 0) return -1;
  PyRef hold_calls = PyRef::steal(calls);
  return found == 1 && PyList_CheckExact(calls) && PyList_GET_SIZE(calls) == 0 ? 0 : 1;
}

int Environment::hooks_active(const ModuleState* state) const {
  if (int result = hook_active(state, state->names.launch_enter_hook, enter_); result != 0) return result;
  return hook_active(state, state->names.launch_exit_hook, exit_);
}

int Environment::visit_all(visitproc visit, void* arg) const {
  const PyRef* const all[] = {&device_dict_,     &provider_,         &provider_dict_, &get_device_,
                              &measure_dict_,    &runtime_.object,   &runtime_.dict,  &compilation_.object,
                              &compilation_.dict, &enter_.object,    &enter_.dict,    &exit_.object,
                              &exit_.dict,       &torch_current_device_, &torch_current_stream_, &modules_};
  for (const PyRef* reference : all) {
    if (int result = reference->visit(visit, arg)) return result;
  }
  return defaults_.visit_all(visit, arg);
}

void Environment::clear_all() {
  // Moved out first: what they refer to is dropped when nothing here points to it any more.
  Environment old;
  std::swap(old, *this);
}

}  // namespace helion
