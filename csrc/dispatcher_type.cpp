// The type of dispatchers: what Python says to them and asks of them. The call is in dispatcher.cpp.

#include "apart.h"
#include "read_call.h"

#include <structmember.h>

namespace helion {

void Dispatcher::Body::clear_plans() {
  PlanTable old;
  ++generation;
  sightings.clear();
  table.swap(old);
  changed();
}

int Dispatcher::Body::visit(visitproc visit, void* arg) const {
  for (const Parameter& parameter : parameters) {
    if (int result = parameter.default_value.visit(visit, arg)) return result;
  }
  for (const std::vector<Outside>* places : {&filled, &watched}) {
    for (const Outside& place : *places) {
      if (int result = place.holder.visit(visit, arg)) return result;
      if (int result = place.item.visit(visit, arg)) return result;
    }
  }
  if (int result = key_function.visit(visit, arg)) return result;
  if (int result = kernel.visit(visit, arg)) return result;
#ifdef Py_GIL_DISABLED
  for (const std::shared_ptr<Replica>& one : replicas) {
    if (int result = one->body.visit(visit, arg)) return result;
  }
#endif
  return table.visit(visit, arg);
}

// Not all of it: the generation goes on counting, and what is switched off stays off.
void Dispatcher::Body::clear() {
  std::vector<Parameter> old_parameters;
  old_parameters.swap(parameters);
  std::vector<Outside> old_filled, old_watched;
  old_filled.swap(filled);
  old_watched.swap(watched);
  PyRef old_function = std::move(key_function);
  KernelFunction old_kernel;
  std::swap(kernel, old_kernel);
  clear_plans();
  drop_replicas();
}

void Dispatcher::Body::drop_replicas() {
#ifdef Py_GIL_DISABLED
  std::vector<std::shared_ptr<Replica>> old_replicas;
  old_replicas.swap(replicas);
  for (const std::shared_ptr<Replica>& one : old_replicas) {
    one->dropped.store(true, std::memory_order_release);
    one->body.clear();  // nobody calls through it any more, but its thread has another reference
  }
#endif
}

namespace {

// configure_dispatch(names, defaults, value_keyed, key_function, capacity, generation=None, apart=(), filled=(),
// watched=(), function=None)
PyObject* configure_dispatch(PyObject* object, PyObject* args) {
  Dispatcher* self = as_dispatcher(object);
  PyObject *names = nullptr, *defaults = nullptr, *value_keyed = nullptr, *key_function = nullptr;
  PyObject *expected = Py_None, *pairs = nullptr, *fillings = nullptr, *watches = nullptr, *function = Py_None;
  Py_ssize_t capacity = 0;
  if (!PyArg_ParseTuple(args, "O!O!O!On|OO!O!O!O:configure_dispatch", &PyTuple_Type, &names, &PyTuple_Type, &defaults,
                        &PyTuple_Type, &value_keyed, &key_function, &capacity, &expected, &PyTuple_Type, &pairs,
                        &PyTuple_Type, &fillings, &PyTuple_Type, &watches, &function)) {
    return nullptr;
  }
  unsigned long long generation = 0;
  if (expected != Py_None) {
    generation = PyLong_AsUnsignedLongLong(expected);
    if (generation == static_cast<unsigned long long>(-1) && PyErr_Occurred()) return nullptr;
  }
  const Py_ssize_t count = PyTuple_GET_SIZE(names);
  std::vector<Outside> filled, watched;
  if (fillings != nullptr && !parse_outside(fillings, &filled)) return nullptr;
  if (watches != nullptr && !parse_outside(watches, &watched)) return nullptr;
  KernelFunction kernel;
  if (!KernelFunction::parse(function, &kernel)) return nullptr;
  const Py_ssize_t default_count = PyTuple_GET_SIZE(defaults);
  const Py_ssize_t given = count - static_cast<Py_ssize_t>(filled.size());
  if (PyTuple_GET_SIZE(value_keyed) != count || default_count > given || capacity < 0) {
    PyErr_SetString(PyExc_ValueError, "configure_dispatch: the tuples do not fit together");
    return nullptr;
  }
  std::vector<std::pair<uint16_t, uint16_t>> apart;
  if (pairs != nullptr && !parse_apart(pairs, count, &apart)) return nullptr;
  if (!self->state->environment().load(self->state)) return nullptr;
  std::vector<Parameter> parameters(static_cast<size_t>(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    Parameter& parameter = parameters[static_cast<size_t>(i)];
    PyObject* name = PyTuple_GET_ITEM(names, i);
    if (!PyUnicode_CheckExact(name)) {
      PyErr_SetString(PyExc_TypeError, "configure_dispatch: names must be str");
      return nullptr;
    }
    Py_INCREF(name);
    PyUnicode_InternInPlace(&name);
    parameter.name = PyRef::steal(name);
    if (i >= given - default_count && i < given) {
      parameter.default_value = PyRef::borrow(PyTuple_GET_ITEM(defaults, i - (given - default_count)));
    }
    const int by_value = PyObject_IsTrue(PyTuple_GET_ITEM(value_keyed, i));
    if (by_value < 0) return nullptr;
    parameter.numbers = by_value != 0 ? NumberKey::kByValue : NumberKey::kByClass;
  }
  Dispatcher::Body& body = self->body;
  const Alone alone(object);
  // Guard: plans have become stale since the caller looked; what it wants to install belongs to them. Nothing runs
  // between here and the new generation.
  if (expected != Py_None && HELION_GUARD("generation", generation != body.generation)) Py_RETURN_NONE;
  const unsigned long long mine = body.generation + 1;
  body.parameters.swap(parameters);
  body.apart.swap(apart);
  body.filled.swap(filled);
  body.watched.swap(watched);
  PyRef old_function = std::move(body.key_function);
  body.key_function = key_function == Py_None ? PyRef() : PyRef::borrow(key_function);
  std::swap(body.kernel, kernel);
  // More parameters than a call can be read for: every call takes the Python path, whatever dispatch_enabled says.
  body.most_plans = static_cast<size_t>(count) <= kMostParameters ? static_cast<size_t>(capacity) : 0;
  body.capacity = body.enabled ? body.most_plans : 0;
  // Signatures made so far may mean something else now.
  body.clear_plans();
  return PyLong_FromUnsignedLongLong(mine);
}

// install_plan(args, plan, generation, bound=None)
PyObject* install_plan(PyObject* object, PyObject* args) {
  Dispatcher* self = as_dispatcher(object);
  PyObject *arguments = nullptr, *plan = nullptr, *bound = Py_None;
  unsigned long long generation = 0;
  if (!PyArg_ParseTuple(args, "O!O!K|O:install_plan", &PyTuple_Type, &arguments, self->state->plan_type, &plan,
                        &generation, &bound)) {
    return nullptr;
  }
  Dispatcher::Body& body = self->body;
  const Alone alone(object);
  if (body.capacity == 0) Py_RETURN_FALSE;
  if (static_cast<size_t>(PyTuple_GET_SIZE(arguments)) != body.parameters.size()) {
    PyErr_SetString(PyExc_ValueError, "install_plan: one argument for each parameter, defaults filled in");
    return nullptr;
  }
  if (!self->state->environment().refresh_provider(self->state)) return nullptr;
  PyRef key;
  Signature signature;
  PyObject* const* const items = reinterpret_cast<PyTupleObject*>(arguments)->ob_item;
  const int known = read_signature(self->state, self->body, items, &signature, &key);
  if (known < 0) return nullptr;
  if (known == 0 || signature.leaf_count() != reinterpret_cast<LaunchPlan*>(plan)->body.leaf_count) Py_RETURN_FALSE;
  // Guard: the plan was recorded before a reset or a new config; installing it now would bring the old binary back.
  if (HELION_GUARD("generation", generation != body.generation)) Py_RETURN_FALSE;
  PlanTable::Entry* existing = body.table.find(signature);
  if (existing == nullptr && PyErr_Occurred()) return nullptr;
  if (HELION_GUARD("generation", generation != body.generation)) Py_RETURN_FALSE;
  // If the plan is evicted one day, its signature starts over.
  body.sightings.erase(signature.hash());
  if (existing != nullptr) {
    PyRef old_plan = std::exchange(existing->plan, PyRef::borrow(plan));
    PyRef old_bound = std::exchange(existing->bound, PyRef::borrow(bound));
    // Threads have copies of the old one.
    body.changed();
    Py_RETURN_TRUE;
  }
  if (body.table.size() >= body.capacity) {
    body.table.evict_one();
    ++body.evictions;
    if (generation != body.generation) Py_RETURN_FALSE;
  }
  body.table.insert(signature, plan, bound);
  Py_RETURN_TRUE;
}

// find_plan(args): the plan that a call with them would run, without marking it as used.
PyObject* find_plan(PyObject* object, PyObject* arguments) {
  Dispatcher* self = as_dispatcher(object);
  const size_t given = PyTuple_Check(arguments) ? static_cast<size_t>(PyTuple_GET_SIZE(arguments)) : 0;
  if (!PyTuple_Check(arguments) || given != self->body.parameters.size()) {
    PyErr_SetString(PyExc_ValueError, "find_plan: a tuple with one argument for each parameter, defaults filled in");
    return nullptr;
  }
  const Alone alone(object);
  if (!self->state->environment().load(self->state) || !self->state->environment().refresh_provider(self->state))
    return nullptr;
  PyRef key;
  Signature signature;
  PyObject* const* const items = reinterpret_cast<PyTupleObject*>(arguments)->ob_item;
  const int known = read_signature(self->state, self->body, items, &signature, &key);
  if (known < 0) return nullptr;
  if (known == 0) Py_RETURN_NONE;
  const PlanTable::Entry* entry = self->body.table.find(signature);
  if (entry == nullptr) {
    if (PyErr_Occurred()) return nullptr;
    Py_RETURN_NONE;
  }
  return Py_NewRef(entry->plan.get());
}

// find_bound(args): what install_plan was given with the plan of a call with these arguments.
PyObject* find_bound(PyObject* object, PyObject* arguments) {
  Dispatcher* self = as_dispatcher(object);
  if (!PyTuple_CheckExact(arguments) && !PyList_CheckExact(arguments)) Py_RETURN_NONE;
  const Alone alone(object);
  if (!self->state->environment().load(self->state)) return nullptr;
  if (self->body.capacity == 0 || !plain_torch_state()) Py_RETURN_NONE;
  const int measuring = self->state->environment().measuring(self->state);
  if (measuring < 0) return nullptr;
  if (measuring == 1) Py_RETURN_NONE;
  if (!self->state->environment().refresh_provider(self->state)) return nullptr;
  // Another thread may change a list while a key= function runs.
  PyRef items = PyTuple_CheckExact(arguments) ? PyRef::borrow(arguments) : PyRef::steal(PyList_AsTuple(arguments));
  if (!items) return nullptr;
  PyObject* bound[kMostParameters];
  const size_t count = static_cast<size_t>(PyTuple_GET_SIZE(items.get()));
  PyRef key;
  Signature signature;
  const int fits = bind_arguments(self->body, reinterpret_cast<PyTupleObject*>(items.get())->ob_item, count, nullptr,
                                  bound, &signature);
  if (fits < 0) return nullptr;
  const int known = fits == 1 ? read_signature(self->state, self->body, bound, &signature, &key) : 0;
  if (known < 0) return nullptr;
  const PlanTable::Entry* entry = known == 1 ? self->body.table.find(signature) : nullptr;
  if (entry == nullptr && PyErr_Occurred()) return nullptr;
  return Py_NewRef(entry != nullptr ? entry->bound.get() : Py_None);
}

PyObject* clear_plans(PyObject* object, PyObject*) {
  const Alone alone(object);
  as_dispatcher(object)->body.clear_plans();
  Py_RETURN_NONE;
}

// leaves_of(args): how a plan sees them.
PyObject* leaves_of(PyObject* object, PyObject* arguments) {
  Dispatcher* self = as_dispatcher(object);
  if (!PyTuple_Check(arguments)) {
    PyErr_SetString(PyExc_TypeError, "leaves_of: a tuple of arguments");
    return nullptr;
  }
  if (!self->state->environment().load(self->state) || !self->state->environment().refresh_provider(self->state))
    return nullptr;
  Signature signature;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(arguments); ++i) {
    const int known = signature.append(self->state, PyTuple_GET_ITEM(arguments, i), NumberKey::kByClass);
    if (known < 0) return nullptr;
    if (known == 0) Py_RETURN_NONE;
  }
  PyRef leaves = PyRef::steal(PyTuple_New(static_cast<Py_ssize_t>(signature.leaf_count())));
  if (!leaves) return nullptr;
  for (size_t i = 0; i < signature.leaf_count(); ++i) {
    PyTuple_SET_ITEM(leaves.get(), static_cast<Py_ssize_t>(i), Py_NewRef(signature.leaves()[i]));
  }
  return leaves.release();
}

// -- the type -------------------------------------------------------------------------------------

PyObject* dispatcher_new(PyTypeObject* type, PyObject*, PyObject*) {
  PyRef self = HeapType<Dispatcher>::make(type);
  if (!self) return nullptr;
  as_dispatcher(self.get())->vectorcall = dispatcher_vectorcall;
#ifdef Py_GIL_DISABLED
  static std::atomic<uint64_t> dispatchers{0};
  as_dispatcher(self.get())->body.number = ++dispatchers;
#if PY_VERSION_HEX >= 0x030E0000
  PyUnstable_Object_EnableDeferredRefcount(self.get());  // threads that call it need not count their references
#endif
#endif
  return self.release();
}

// Keyword and positional arguments are for a subclass's __init__.
int dispatcher_init(PyObject*, PyObject*, PyObject*) { return 0; }

PyObject* get_count(PyObject* object, void*) {
  const Alone alone(object);
  return PyLong_FromSize_t(as_dispatcher(object)->body.table.size());
}

// In all threads.
PyObject* total(PyObject* object, Count Dispatcher::Body::*count) {
  const Alone alone(object);
  const Dispatcher::Body& body = as_dispatcher(object)->body;
  uint64_t all = (body.*count).get();
#ifdef Py_GIL_DISABLED
  for (const std::shared_ptr<Replica>& one : body.replicas) all += (one->body.*count).get();
#endif
  return PyLong_FromUnsignedLongLong(all);
}
PyObject* get_hits(PyObject* object, void*) { return total(object, &Dispatcher::Body::hits); }
PyObject* get_launches(PyObject* object, void*) { return total(object, &Dispatcher::Body::launches); }
PyObject* get_evictions(PyObject* object, void*) {
  const Alone alone(object);
  return PyLong_FromUnsignedLongLong(as_dispatcher(object)->body.evictions);
}
PyObject* get_generation(PyObject* object, void*) {
  const Alone alone(object);
  return PyLong_FromUnsignedLongLong(as_dispatcher(object)->body.generation);
}
PyObject* get_enabled(PyObject* object, void*) {
  const Alone alone(object);
  return PyBool_FromLong(as_dispatcher(object)->body.enabled);
}

int set_enabled(PyObject* object, PyObject* value, void*) {
  if (value == nullptr) {
    PyErr_SetString(PyExc_AttributeError, "dispatch_enabled cannot be deleted");
    return -1;
  }
  const int enabled = PyObject_IsTrue(value);
  if (enabled < 0) return -1;
  Dispatcher::Body& body = as_dispatcher(object)->body;
  const Alone alone(object);
  body.enabled = enabled != 0;
  body.capacity = body.enabled ? body.most_plans : 0;
  body.changed();
  return 0;
}

PyMethodDef dispatcher_methods[] = {
    {"configure_dispatch", configure_dispatch, METH_VARARGS,
     "configure_dispatch(names, defaults, value_keyed, key_function, capacity, generation=None, apart=(), "
     "filled=(), watched=(), function=None, /)\n--\n\n"
     "Say how calls are read. Drops all plans.\n\n"
     "Args:\n"
     "    names: the parameters' names, in order.\n"
     "    defaults: default values of the last parameters that callers give.\n"
     "    value_keyed: per parameter, whether numbers count by value and not only by what Triton tells apart.\n"
     "    key_function: the kernel's key= function, or None.\n"
     "    capacity: most plans to keep; the least recently used goes first.\n"
     "    generation: do nothing if plan_generation is another by now.\n"
     "    apart: pairs of positions of arguments; how those that overlap lie to each other counts.\n"
     "    filled: where each call finds the last parameters, which callers do not give: pairs of a dict and a name,\n"
     "        or of a cell or a function without parameters and anything.\n"
     "    watched: where each call finds values that count besides.\n"
     "    function: the kernel function; calls are not served once it has other code, or other defaults.\n\n"
     "Returns:\n    The plan_generation from here on; None if nothing was done."},
    {"install_plan", install_plan, METH_VARARGS,
     "install_plan(args, plan, generation, bound=None, /)\n--\n\n"
     "Serve calls like `args` (by position, defaults filled in) with `plan`, and find_bound(args) with `bound`.\n\n"
     "Returns:\n    Whether it was installed: not if plan_generation moved on from `generation` since it was "
     "recorded."},
    {"find_plan", find_plan, METH_O,
     "find_plan(args, /)\n--\n\n"
     "The LaunchPlan that serves calls like `args` (by position, defaults filled in), or None."},
    {"find_bound", find_bound, METH_O,
     "find_bound(args, /)\n--\n\n"
     "What install_plan was given with the plan that serves calls like `args` (by position, defaults may be left\n"
     "out); None without a plan, and wherever a call would not ask for one."},
    {"clear_plans", clear_plans, METH_NOARGS,
     "clear_plans()\n--\n\nForget all plans. Running calls finish with theirs."},
    {"leaves_of", leaves_of, METH_O,
     "leaves_of(args, /)\n--\n\n"
     "The tensors, numbers and other values in `args`, in the order in which a plan refers to them; None if there is\n"
     "something among them that only the Python path takes."},
    {"__init_subclass__", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(keep_vectorcall)),
     METH_CLASS | METH_VARARGS | METH_KEYWORDS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef dispatcher_attributes[] = {
    {"plan_count", get_count, nullptr, "How many plans are installed.", nullptr},
    {"plan_hits", get_hits, nullptr, "How many calls were served by a plan.", nullptr},
    {"plan_launches", get_launches, nullptr, "How many kernels plans launched.", nullptr},
    {"plan_evictions", get_evictions, nullptr, "How many plans made room for others.", nullptr},
    {"plan_generation", get_generation, nullptr, "Changes whenever plans become stale.", nullptr},
    {"dispatch_enabled", get_enabled, set_enabled, "False: every call takes the Python path.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyMemberDef dispatcher_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Dispatcher, vectorcall), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

PyDoc_STRVAR(
    dispatcher_doc,
    "Dispatcher()\n--\n\n"
    "Base of helion.Kernel: serves calls that it knows a LaunchPlan for, and calls the method `_call_python` with\n"
    "the same arguments for all others.");

PyType_Slot dispatcher_slots[] = {
    {Py_tp_doc, const_cast<char*>(dispatcher_doc)},
    {Py_tp_new, reinterpret_cast<void*>(dispatcher_new)},
    {Py_tp_init, reinterpret_cast<void*>(dispatcher_init)},
    HELION_LIFECYCLE(Dispatcher),
    {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
    {Py_tp_methods, dispatcher_methods},
    {Py_tp_getset, dispatcher_attributes},
    {Py_tp_members, dispatcher_members},
    {0, nullptr},
};

PyType_Spec dispatcher_spec = {
    "helion._C.Dispatcher",
    sizeof(Dispatcher),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    dispatcher_slots,
};

}  // namespace

int add_dispatcher(PyObject* module) { return add_type(module, &dispatcher_spec); }

}  // namespace helion
