// Definition of helion._C: multi-phase initialisation, module state, and the list of what the other files add.

#include "state.h"

#include <new>

#if !defined(HELION_TORCH_VERSION) || !defined(HELION_INTERFACE)
#error "build through setup.py, which records the version of torch and the interface that the extension is compiled for"
#endif

namespace {

// helion/_extension.py looks for this text in the file before it imports it: an extension that was compiled for another
// torch must not even be loaded, since the layout of at::Tensor may have changed under it; one that was compiled from
// other sources than the Python ones beside it may mean something else by the same call.
__attribute__((used)) const char build_tag[] =
    "helion-extension-built-for-torch=" HELION_TORCH_VERSION ";interface=" HELION_INTERFACE ";";

using helion::ModuleState;

int intern_names(ModuleState* state) {
#define HELION_INTERN_NAME(id, text)                          \
  state->names.id = PyUnicode_InternFromString(text);         \
  if (state->names.id == nullptr) return -1;
  HELION_NAMES(HELION_INTERN_NAME)
#undef HELION_INTERN_NAME
  return 0;
}

using AddFunction = int (*)(PyObject* module);
constexpr AddFunction additions[] = {
    helion::add_tensor_key, helion::add_launch_spec, helion::add_launcher,    helion::add_plan,
    helion::add_dispatcher, helion::add_forwarder,   helion::add_output_pool, helion::add_broadcast,
};

int exec(PyObject* module) {
  ModuleState* state = new (helion::state_of_module(module)) ModuleState();
  state->module = module;
#ifdef Py_GIL_DISABLED
  static std::atomic<uint64_t> modules{0};
  state->id = ++modules;
#endif
#if PY_VERSION_HEX >= 0x030D0000
  helion::DictWatch::start();
#endif
  if (intern_names(state) < 0) return -1;
  // The type objects and dtype objects of torch that this extension reads are filled in by `import torch`.
  helion::PyRef torch = helion::PyRef::steal(PyImport_ImportModule("torch"));
  if (!torch) return -1;
  if (PyModule_AddStringConstant(module, "built_for_torch", HELION_TORCH_VERSION) < 0) return -1;
  for (AddFunction add : additions) {
    if (add(module) < 0) return -1;
  }
  return 0;
}

int traverse(PyObject* module, visitproc visit, void* arg) {
  const ModuleState* state = helion::state_of_module(module);
  if (state == nullptr) return 0;  // asked before exec() ran
#define HELION_VISIT_NAME(id, text) Py_VISIT(state->names.id);
  HELION_NAMES(HELION_VISIT_NAME)
#undef HELION_VISIT_NAME
#define HELION_VISIT_TYPE(id) Py_VISIT(state->id);
  HELION_TYPES(HELION_VISIT_TYPE)
#undef HELION_VISIT_TYPE
#ifndef Py_GIL_DISABLED
  if (int result = state->environment_.visit_all(visit, arg)) return result;
#endif
  return helion::visit_output_pool(state, visit, arg);
}

int clear(PyObject* module) {
  ModuleState* state = helion::state_of_module(module);
  if (state == nullptr) return 0;
#define HELION_CLEAR_NAME(id, text) Py_CLEAR(state->names.id);
  HELION_NAMES(HELION_CLEAR_NAME)
#undef HELION_CLEAR_NAME
#define HELION_CLEAR_TYPE(id) Py_CLEAR(state->id);
  HELION_TYPES(HELION_CLEAR_TYPE)
#undef HELION_CLEAR_TYPE
  helion::destroy_output_pool(state);
#ifndef Py_GIL_DISABLED
  state->environment_.clear_all();
#endif
  return 0;
}

void free_module(void* module) { clear(static_cast<PyObject*>(module)); }

PyModuleDef_Slot slots[] = {
    {Py_mod_exec, reinterpret_cast<void*>(exec)},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, nullptr},
};

}  // namespace

namespace helion {

PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    "helion._C",
    "The steady-state call of a kernel, in C. See docs/launch.md.",
    sizeof(ModuleState),
    nullptr,
    slots,
    traverse,
    clear,
    free_module,
};

ModuleState* state_of_type(PyTypeObject* type) {
  // PyType_GetModuleByDef does this, but only from 3.11 on, and 3.10 is supported.
  PyObject* mro = type->tp_mro;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(mro); ++i) {
    PyTypeObject* base = reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(mro, i));
    if (!PyType_HasFeature(base, Py_TPFLAGS_HEAPTYPE)) continue;
    PyObject* module = reinterpret_cast<PyHeapTypeObject*>(base)->ht_module;
    if (module != nullptr && PyModule_GetDef(module) == &module_definition) return state_of_module(module);
  }
  PyErr_Format(PyExc_SystemError, "%s does not derive from a type of helion._C", type->tp_name);
  return nullptr;
}

}  // namespace helion

PyMODINIT_FUNC PyInit__C() { return PyModuleDef_Init(&helion::module_definition); }
