// The module state: the only mutable data of helion._C that is not owned by one of its objects.
//
// Created in the module's exec slot, destroyed with the module. Code reaches it from the module, or from a type through
// state_of_type(); objects that are called often keep the pointer, which is safe because an instance keeps its type
// alive and a type keeps its module.
#pragma once

#include "common.h"
#include "driver.h"
#include "environment.h"
#include "threads.h"

namespace helion {

// Interned Python names, one row each: X(C++ name, Python name).
#define HELION_NAMES(X)                                     \
  X(add_stages_inspection_hook, "add_stages_inspection_hook") \
  X(calls, "calls")                                         \
  X(call_python, "_call_python")                            \
  X(current_device, "current_device")                       \
  X(current_stream, "current_stream")                       \
  X(debug, "debug")                                         \
  X(device_tag, "device_tag")                               \
  X(dynamo_static_indices, "_dynamo_static_indices")        \
  X(enabled, "enabled")                                     \
  X(enter, "__enter__")                                     \
  X(exit, "__exit__")                                       \
  X(guard, "guard")                                         \
  X(instrumentation_mode, "instrumentation_mode")           \
  X(is_capturing, "is_capturing")                           \
  X(launch_enter_hook, "launch_enter_hook")                 \
  X(launch_exit_hook, "launch_exit_hook")                   \
  X(pre_run_hooks, "pre_run_hooks")                         \
  X(triton_knobs, "triton.knobs")                           \
  X(provider, "provider")                                   \
  X(record_call, "_record_call")                            \
  X(settings, "settings")                                   \
  X(static_shapes, "static_shapes")

struct Names {
#define HELION_DECLARE_NAME(id, text) PyObject* id = nullptr;
  HELION_NAMES(HELION_DECLARE_NAME)
#undef HELION_DECLARE_NAME
};

// Types that other files check for, one row each. The state owns a reference to each.
#define HELION_TYPES(X) \
  X(launch_spec_type)   \
  X(plan_type)

class OutputPool;  // output_pool.h

struct ModuleState {
  Names names;
  Driver driver;
  PyObject* module = nullptr;  // whose state this is; the pool's calls are alone with it
  OutputPool* pool = nullptr;  // owned; made by add_output_pool
#ifdef Py_GIL_DISABLED
  uint64_t id = 0;  // no other module's, nor an earlier one's
  HELION_HOT Environment& environment() const { return threads_own(id).environment; }
#else
  HELION_HOT Environment& environment() const { return environment_; }
  mutable Environment environment_;
#endif
#define HELION_DECLARE_TYPE(id) PyTypeObject* id = nullptr;
  HELION_TYPES(HELION_DECLARE_TYPE)
#undef HELION_DECLARE_TYPE
};

extern PyModuleDef module_definition;

inline ModuleState* state_of_module(PyObject* module) {
  // The interpreter allocates the state; exec() constructs the ModuleState in it.
  return static_cast<ModuleState*>(PyModule_GetState(module));
}

// State of the module that defined `type` or one of its bases. Null with an exception if there is none.
ModuleState* state_of_type(PyTypeObject* type);

// Adds a file's functions or types to the module; 0 on success, -1 with an exception. One per source file.
int add_tensor_key(PyObject* module);
int add_launch_spec(PyObject* module);
int add_launcher(PyObject* module);
int add_plan(PyObject* module);
int add_dispatcher(PyObject* module);
int add_forwarder(PyObject* module);
int add_output_pool(PyObject* module);
int visit_output_pool(const ModuleState* state, visitproc visit, void* arg);
void destroy_output_pool(ModuleState* state);
int add_broadcast(PyObject* module);

}  // namespace helion
