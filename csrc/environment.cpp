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

}  // namespace

int KnobValues::visit_all(visitproc visit, void* arg) const {
  if (int result = debug.visit(visit, arg)) return result;
  if (int result = instrumentation_mode.visit(visit, arg)) return result;
  return stages_hook.visit(visit, arg);
}

bool Environment::load() {
  if (loaded_) return true;
  PyRef device_module = PyRef::steal(PyImport_ImportModule("helion.runtime.device"));
  if (!device_module) return false;
  PyRef measure_module = PyRef::steal(PyImport_ImportModule("helion.runtime.measure"));
  if (!measure_module) return false;
  PyRef knobs = PyRef::steal(PyImport_ImportModule("triton.knobs"));
  if (!knobs) return false;
  PyRef device_dict = PyRef::borrow(PyModule_GetDict(device_module.get()));
  PyRef runtime = PyRef::steal(PyObject_GetAttrString(knobs.get(), "runtime"));
  if (!runtime) return false;
  PyRef runtime_dict = PyRef::steal(PyObject_GetAttrString(runtime.get(), "__dict__"));
  if (!runtime_dict) return false;
  PyRef compilation = PyRef::steal(PyObject_GetAttrString(knobs.get(), "compilation"));
  if (!compilation) return false;
  PyRef compilation_dict = PyRef::steal(PyObject_GetAttrString(compilation.get(), "__dict__"));
  if (!compilation_dict) return false;
  if (!PyDict_Check(runtime_dict.get()) || !PyDict_Check(compilation_dict.get())) {
    PyErr_SetString(PyExc_TypeError, "triton.knobs.runtime and .compilation are expected to be plain objects");
    return false;
  }
  PyRef tensor_type = PyRef::steal(PyImport_ImportModule("torch"));
  if (!tensor_type) return false;
  tensor_type = PyRef::steal(PyObject_GetAttrString(tensor_type.get(), "Tensor"));
  if (!tensor_type) return false;
  PyRef get_device = PyRef::steal(PyObject_GetAttrString(tensor_type.get(), "get_device"));
  if (!get_device) return false;
  device_dict_ = std::move(device_dict);
  get_device_ = std::move(get_device);
  measure_dict_ = PyRef::borrow(PyModule_GetDict(measure_module.get()));
  runtime_ = std::move(runtime);
  runtime_dict_ = std::move(runtime_dict);
  compilation_ = std::move(compilation);
  compilation_dict_ = std::move(compilation_dict);
  loaded_ = true;
  return true;
}

bool Environment::refresh_provider(const ModuleState* state) {
  PyObject* provider = PyDict_GetItemWithError(device_dict_.get(), state->names.provider);  // borrowed
  if (provider == provider_.get() && provider != nullptr) return true;
  if (provider == nullptr) {
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_RuntimeError, "helion.runtime.device has no provider");
    return false;
  }
  PyRef hold = PyRef::borrow(provider);
  PyRef tag = PyRef::steal(PyObject_GetAttr(provider, state->names.device_tag));
  if (!tag) return false;
  native_tags_ = tag.get() == get_device_.get();
  provider_ = std::move(hold);
  return true;
}

// Calls a method of the provider. Its functions are looked up each time, as torch.cuda's are replaced when CUDA starts.
PyRef Environment::call_provider(PyObject* name, PyObject* argument) const {
  // The provider could be replaced by the very call that is made on it.
  PyRef hold = PyRef::borrow(provider_.get());
  PyRef function = PyRef::steal(PyObject_GetAttr(hold.get(), name));
  if (!function) return function;
  PyObject* args[] = {nullptr, argument};
  return PyRef::steal(PyObject_Vectorcall(function.get(), args + 1,
                                          (argument != nullptr ? 1 : 0) | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr));
}

bool Environment::device_tag(const ModuleState* state, PyObject* tensor, uint64_t* tag) const {
  PyRef answer = call_provider(state->names.device_tag, tensor);
  if (!answer) return false;
  const long long value = PyLong_AsLongLong(answer.get());
  *tag = static_cast<uint64_t>(value);
  return !(value == -1 && PyErr_Occurred());
}

long Environment::current_device(const ModuleState* state) const {
  PyRef index = call_provider(state->names.current_device, nullptr);
  return index ? PyLong_AsLong(index.get()) : -1;
}

bool Environment::current_stream(const ModuleState* state, long device, uintptr_t* stream) const {
  PyRef index = PyRef::steal(PyLong_FromLong(device));
  if (!index) return false;
  PyRef handle = call_provider(state->names.current_stream, index.get());
  if (!handle) return false;
  *stream = static_cast<uintptr_t>(PyLong_AsUnsignedLongLong(handle.get()));
  return !(*stream == static_cast<uintptr_t>(-1) && PyErr_Occurred());
}

// A knob's value, a new reference. What was assigned is in the instance's dict; a default is on the class.
PyRef Environment::knob(const ModuleState*, PyObject* dict, PyObject* owner, PyObject* name) const {
  PyObject* assigned = PyDict_GetItemWithError(dict, name);  // borrowed
  if (assigned != nullptr) return PyRef::borrow(assigned);
  if (PyErr_Occurred()) return PyRef();
  return PyRef::steal(PyObject_GetAttr(owner, name));
}

bool Environment::read_knobs(const ModuleState* state, KnobValues* values) const {
  values->debug = knob(state, runtime_dict_.get(), runtime_.get(), state->names.debug);
  if (!values->debug) return false;
  values->instrumentation_mode =
      knob(state, compilation_dict_.get(), compilation_.get(), state->names.instrumentation_mode);
  if (!values->instrumentation_mode) return false;
  values->stages_hook = knob(state, runtime_dict_.get(), runtime_.get(), state->names.add_stages_inspection_hook);
  return static_cast<bool>(values->stages_hook);
}

int Environment::same_knobs(const ModuleState* state, const KnobValues& values) const {
  KnobValues now;
  if (!read_knobs(state, &now)) return -1;
  if (int result = same(now.debug.get(), values.debug.get()); result != 1) return result;
  if (int result = same(now.instrumentation_mode.get(), values.instrumentation_mode.get()); result != 1) return result;
  // With an inspection hook Triton asks the hook for a key on every call; that is for Triton to do.
  return now.stages_hook.get() == Py_None && values.stages_hook.get() == Py_None ? 1 : 0;
}

int Environment::measuring(const ModuleState* state) const {
  PyObject* enabled = PyDict_GetItemWithError(measure_dict_.get(), state->names.enabled);  // borrowed
  if (enabled == nullptr) return PyErr_Occurred() ? -1 : 0;
  return enabled == Py_False ? 0 : 1;
}

int Environment::hook_active(const ModuleState* state, PyObject* name) const {
  PyRef hook = knob(state, runtime_dict_.get(), runtime_.get(), name);
  if (!hook) return -1;
  if (hook.get() == Py_None) return 0;
  // Triton's default is a HookChain, a callable with a list of `calls`; an empty one does nothing.
  PyObject* calls = nullptr;
  const int found = get_optional_attr(hook.get(), state->names.calls, &calls);
  if (found < 0) return -1;
  PyRef hold = PyRef::steal(calls);
  if (found == 0 || !PyList_CheckExact(calls)) return 1;
  return PyList_GET_SIZE(calls) != 0 ? 1 : 0;
}

int Environment::hooks_active(const ModuleState* state) const {
  if (int result = hook_active(state, state->names.launch_enter_hook); result != 0) return result;
  return hook_active(state, state->names.launch_exit_hook);
}

int Environment::visit_all(visitproc visit, void* arg) const {
  if (int result = device_dict_.visit(visit, arg)) return result;
  if (int result = provider_.visit(visit, arg)) return result;
  if (int result = get_device_.visit(visit, arg)) return result;
  if (int result = measure_dict_.visit(visit, arg)) return result;
  if (int result = runtime_.visit(visit, arg)) return result;
  if (int result = runtime_dict_.visit(visit, arg)) return result;
  if (int result = compilation_.visit(visit, arg)) return result;
  return compilation_dict_.visit(visit, arg);
}

void Environment::clear_all() {
  loaded_ = false;
  device_dict_.reset();
  provider_.reset();
  get_device_.reset();
  measure_dict_.reset();
  runtime_.reset();
  runtime_dict_.reset();
  compilation_.reset();
  compilation_dict_.reset();
}

}  // namespace helion
