// Dispatcher: the C base type of helion.kernel.Kernel. A call is read into a Signature, looked up, and run as the
// entry's LaunchPlan; whatever is in doubt goes to the method `_call_python`, which is complete by itself. A signature
// that comes for the second time without a plan goes to `_record_call`, which may install one.
//
// The table may change while a call runs (another thread, a `key=` function): a call therefore takes a reference to the
// plan before it runs it, and clearing swaps the table out before destroying it. A call that is under way finishes with
// the plan that it found.

#include "apart.h"
#include "heap_type.h"
#include "kernel_function.h"
#include "method_call.h"
#include "outside.h"
#include "plan_table.h"

#include <structmember.h>

#include <unordered_map>
#include <vector>

namespace helion {
namespace {

constexpr size_t kMostParameters = 64;

struct Parameter {
  PyRef name;       // interned str
  PyRef default_value;  // or null
  NumberKey numbers = NumberKey::kByValue;
};

struct Dispatcher {
  PyObject_HEAD
  vectorcallfunc vectorcall;
  ModuleState* state;
  struct Body {
    std::vector<Parameter> parameters;
    // What the last parameters are filled with, which callers do not give; and what counts by value besides.
    std::vector<Outside> filled;
    std::vector<Outside> watched;
    PyRef key_function;  // or null
    KernelFunction kernel;
    // Arguments that code takes to be apart, as pairs of their positions.
    std::vector<std::pair<uint16_t, uint16_t>> apart;
    PlanTable table;
    size_t capacity = 0;  // none where `enabled` is off, or calls have too many arguments
    size_t most_plans = 0;
    uint64_t generation = 0;  // counts what makes plans stale; see install_plan
    // Hashes of signatures without a plan, and how far they got: 1 seen once, 2 recorded, with or without success.
    std::unordered_map<uint64_t, uint8_t> sightings;
    uint64_t hits = 0;
    uint64_t launches = 0;
    uint64_t evictions = 0;
    bool enabled = true;

    // Drops every plan. The old ones are destroyed when nothing refers to them any more.
    void clear_plans();
    int visit(visitproc visit, void* arg) const;
    void clear();
  } body;
};

Dispatcher* as_dispatcher(PyObject* self) { return HeapType<Dispatcher>::as(self); }

// -- one call -------------------------------------------------------------------------------------

HELION_COLD PyObject* call_python(Dispatcher* self, PyObject* const* args, size_t nargsf, PyObject* keyword_names) {
  return call_method(reinterpret_cast<PyObject*>(self), self->state->names.call_python, args, nargsf, keyword_names);
}

// A signature without a plan. The second time it comes it is worth recording; a third time recording did not help.
HELION_COLD PyObject* call_unknown(Dispatcher* self, uint64_t hash, PyObject* const* args, size_t nargsf,
                       PyObject* keyword_names) {
  std::unordered_map<uint64_t, uint8_t>& sightings = self->body.sightings;
  // Shapes that never come again must not pile up; forgetting one costs a recording later.
  if (sightings.size() > 4 * self->body.capacity + 64) sightings.clear();
  uint8_t& seen = sightings[hash];
  if (seen == 1) {
    seen = 2;
    PyObject* result = call_method(reinterpret_cast<PyObject*>(self), self->state->names.record_call,
                                    args, nargsf, keyword_names);
    // A call that raised was not recorded: the next one is. The call may have changed the table, hence another lookup.
    if (result == nullptr) {
      if (const auto found = sightings.find(hash); found != sightings.end()) found->second = 1;
    }
    return result;
  }
  if (seen == 0) seen = 1;
  PyObject* result = call_python(self, args, nargsf, keyword_names);
  // Compiling may have found that more has to be asked, and forgotten what was seen; this signature was.
  if (result != nullptr) sightings.emplace(hash, uint8_t{1});
  return result;
}

// Puts the arguments in the parameters' order, defaults filled in (borrowed references; `signature` keeps what is from
// outside). 1, 0 if they do not fit (the Python path words the error), -1 with an exception.
[[gnu::noinline]] int bind_arguments(const Dispatcher::Body& body, PyObject* const* args, size_t count,
                                     PyObject* keyword_names, PyObject** bound, Signature* signature) {
  const size_t parameters = body.parameters.size() - body.filled.size();
  if (count > parameters || body.kernel.has_other_defaults()) return 0;
  for (size_t i = 0; i < count; ++i) bound[i] = args[i];
  for (size_t i = count; i < parameters; ++i) bound[i] = nullptr;
  const size_t keywords = keyword_names != nullptr ? static_cast<size_t>(PyTuple_GET_SIZE(keyword_names)) : 0;
  for (size_t k = 0; k < keywords; ++k) {
    PyObject* name = PyTuple_GET_ITEM(keyword_names, static_cast<Py_ssize_t>(k));
    size_t at = parameters;
    // Names in a call are interned, so identity finds them; `**{"x": 1}` may bring others.
    for (size_t i = 0; i < parameters && at == parameters; ++i) {
      if (body.parameters[i].name.get() == name) at = i;
    }
    for (size_t i = 0; i < parameters && at == parameters; ++i) {
      const int equal = PyUnicode_Compare(body.parameters[i].name.get(), name);
      if (equal == -1 && PyErr_Occurred()) return -1;
      if (equal == 0) at = i;
    }
    if (at == parameters || bound[at] != nullptr) return 0;
    bound[at] = args[count + k];
  }
  for (size_t i = 0; i < parameters; ++i) {
    if (bound[i] != nullptr) continue;
    bound[i] = body.parameters[i].default_value.get();
    if (bound[i] == nullptr) return 0;
  }
  const uint64_t generation = body.generation;
  for (size_t i = 0; i < body.filled.size(); ++i) {
    PyRef value = body.filled[i].read();
    if (!value) return PyErr_Occurred() ? -1 : 0;
    bound[parameters + i] = signature->keep(std::move(value));
    // A function that reads one may have changed the parameters.
    if (body.generation != generation) return 0;
  }
  return 1;
}

// Appends what counts besides the arguments, as read_signature. `generation` is the dispatcher's from when it began.
[[gnu::noinline]] int read_further(Dispatcher* self, PyObject* const* bound, uint64_t generation, Signature* signature,
                                   PyRef* key) {
  const Dispatcher::Body& body = self->body;
  for (size_t i = 0; body.generation == generation && i < body.watched.size(); ++i) {
    const bool called = body.watched[i].called;  // reading may make the dispatcher forget it
    PyRef value = body.watched[i].read();
    if (!value) return PyErr_Occurred() ? -1 : 0;
    // Guard: a number of the module that was compiled in, or a function that was inlined, is another one now.
    if (HELION_GUARD("outside", true)) {
      PyObject* const held = signature->keep(std::move(value));
      const int known = called ? signature->append_called(held) : signature->append_watched(self->state, held);
      if (known != 1) return known;
    }
  }
  if (body.generation == generation && body.key_function) {
    const size_t given = body.parameters.size() - body.filled.size();
    PyRef function = PyRef::borrow(body.key_function.get());
    *key = PyRef::steal(PyObject_Vectorcall(function.get(), bound, given, nullptr));
    if (!*key) return -1;
    if (!signature->append_by_equality(key->get())) {
      // Not hashable: the Python path says so, in its own words.
      PyErr_Clear();
      return 0;
    }
  }
  // A device_tag or key= function may have changed what has to be asked.
  return body.generation == generation ? 1 : 0;
}

// Appends all arguments. As Signature::append; `key` gets a reference to the key function's result, which the signature
// refers to.
HELION_HOT int read_signature(Dispatcher* self, PyObject* const* bound, Signature* signature, PyRef* key) {
  const Dispatcher::Body& body = self->body;
  const uint64_t generation = body.generation;
  const size_t parameters = body.parameters.size();
  if (parameters > kMostParameters) return 0;  // there is no plan, and no room for them
  if (body.kernel.has_other_code()) return 0;
  uint8_t leaves[kMostParameters + 1];         // where each parameter's begin
  for (size_t i = 0; i < parameters; ++i) {
    leaves[i] = static_cast<uint8_t>(signature->leaf_count());
    const int known = signature->append(self->state, bound[i], body.parameters[i].numbers);
    if (known != 1) return known;
    // A device_tag function may have changed what has to be asked.
    if (body.generation != generation) return 0;
  }
  if (!body.apart.empty()) {
    leaves[parameters] = static_cast<uint8_t>(signature->leaf_count());
    for (const auto& [a, b] : body.apart) {
      signature->append_overlaps({leaves[a], leaves[size_t{a} + 1], leaves[b], leaves[size_t{b} + 1]});
    }
  }
  return body.watched.empty() && !body.key_function ? 1 : read_further(self, bound, generation, signature, key);
}

PyObject* dispatcher_vectorcall(PyObject* object, PyObject* const* args, size_t nargsf, PyObject* keyword_names) {
  Dispatcher* self = as_dispatcher(object);
  Dispatcher::Body& body = self->body;
  // Guard: modes, transforms and tracing want to see PyTorch operations, which only the Python path performs.
  if (body.capacity == 0 || HELION_GUARD("modes", !plain_torch_state())) {
    return call_python(self, args, nargsf, keyword_names);
  }
  if (!self->state->environment.steady()) {
    const int measuring = self->state->environment.measuring(self->state);
    if (measuring < 0) return nullptr;
    if (HELION_GUARD("measuring", measuring == 1)) return call_python(self, args, nargsf, keyword_names);
    if (!self->state->environment.refresh_provider(self->state)) return nullptr;
  }
  PyRef key;
  Signature signature;
  PyObject* places[kMostParameters];
  PyObject* const* bound = args;
  const size_t count = static_cast<size_t>(PyVectorcall_NARGS(nargsf));
  // Arguments that were all given, by position, are in their places.
  if (keyword_names != nullptr || count != body.parameters.size() || !body.filled.empty()) {
    const int fits = bind_arguments(body, args, count, keyword_names, places, &signature);
    if (fits < 0) return nullptr;
    if (fits == 0) return call_python(self, args, nargsf, keyword_names);
    bound = places;
  }
  const int known = read_signature(self, bound, &signature, &key);
  if (known < 0) return nullptr;
  if (known == 0) return call_python(self, args, nargsf, keyword_names);
  PlanTable::Entry* entry = body.table.find(signature);
  if (entry == nullptr) {
    if (PyErr_Occurred()) return nullptr;
    return call_unknown(self, signature.hash(), args, nargsf, keyword_names);
  }
  body.table.mark_used(entry);
  PyRef plan = PyRef::borrow(entry->plan.get());  // the entry may be evicted while the plan runs
  PyObject* result = nullptr;
  switch (reinterpret_cast<LaunchPlan*>(plan.get())->run(signature.leaves(), signature.addresses(), &result)) {
    case LaunchPlan::Outcome::kDone:
      ++body.hits;
      body.launches += reinterpret_cast<LaunchPlan*>(plan.get())->body.launch_count;
      return result;
    case LaunchPlan::Outcome::kFailed:
      return nullptr;
    case LaunchPlan::Outcome::kDeclined:
      return call_python(self, args, nargsf, keyword_names);
  }
  Py_UNREACHABLE();
}

// -- plans ----------------------------------------------------------------------------------------------------------

void Dispatcher::Body::clear_plans() {
  PlanTable old;
  ++generation;
  sightings.clear();
  table.swap(old);
}

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
  if (!self->state->environment.load(self->state)) return nullptr;
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
  if (body.capacity == 0) Py_RETURN_FALSE;
  if (static_cast<size_t>(PyTuple_GET_SIZE(arguments)) != body.parameters.size()) {
    PyErr_SetString(PyExc_ValueError, "install_plan: one argument for each parameter, defaults filled in");
    return nullptr;
  }
  if (!self->state->environment.refresh_provider(self->state)) return nullptr;
  PyRef key;
  Signature signature;
  const int known = read_signature(self, reinterpret_cast<PyTupleObject*>(arguments)->ob_item, &signature, &key);
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
  if (!self->state->environment.load(self->state) || !self->state->environment.refresh_provider(self->state))
    return nullptr;
  PyRef key;
  Signature signature;
  const int known = read_signature(self, reinterpret_cast<PyTupleObject*>(arguments)->ob_item, &signature, &key);
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
  if (self->body.capacity == 0 || !plain_torch_state()) Py_RETURN_NONE;
  const int measuring = self->state->environment.measuring(self->state);
  if (measuring < 0) return nullptr;
  if (measuring == 1) Py_RETURN_NONE;
  if (!self->state->environment.refresh_provider(self->state)) return nullptr;
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
  const int known = fits == 1 ? read_signature(self, bound, &signature, &key) : 0;
  if (known < 0) return nullptr;
  const PlanTable::Entry* entry = known == 1 ? self->body.table.find(signature) : nullptr;
  if (entry == nullptr && PyErr_Occurred()) return nullptr;
  return Py_NewRef(entry != nullptr ? entry->bound.get() : Py_None);
}

PyObject* clear_plans(PyObject* object, PyObject*) {
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
  if (!self->state->environment.load(self->state) || !self->state->environment.refresh_provider(self->state))
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
  if (self) as_dispatcher(self.get())->vectorcall = dispatcher_vectorcall;
  return self.release();
}

// Keyword and positional arguments are for a subclass's __init__.
int dispatcher_init(PyObject*, PyObject*, PyObject*) { return 0; }

int Dispatcher::Body::visit(visitproc visit, void* arg) const {
  for (const Parameter& parameter : parameters) {
    if (int result = parameter.default_value.visit(visit, arg)) return result;
  }
  for (const std::vector<Outside>* places : {&filled, &watched}) {
    for (const Outside& place : *places) {
      if (int result = place.holder.visit(visit, arg)) return result;
    }
  }
  if (int result = key_function.visit(visit, arg)) return result;
  if (int result = kernel.visit(visit, arg)) return result;
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
}

PyObject* get_count(PyObject* object, void*) { return PyLong_FromSize_t(as_dispatcher(object)->body.table.size()); }
PyObject* get_hits(PyObject* object, void*) { return PyLong_FromUnsignedLongLong(as_dispatcher(object)->body.hits); }
PyObject* get_launches(PyObject* object, void*) {
  return PyLong_FromUnsignedLongLong(as_dispatcher(object)->body.launches);
}
PyObject* get_evictions(PyObject* object, void*) {
  return PyLong_FromUnsignedLongLong(as_dispatcher(object)->body.evictions);
}
PyObject* get_generation(PyObject* object, void*) {
  return PyLong_FromUnsignedLongLong(as_dispatcher(object)->body.generation);
}
PyObject* get_enabled(PyObject* object, void*) { return PyBool_FromLong(as_dispatcher(object)->body.enabled); }

int set_enabled(PyObject* object, PyObject* value, void*) {
  if (value == nullptr) {
    PyErr_SetString(PyExc_AttributeError, "dispatch_enabled cannot be deleted");
    return -1;
  }
  const int enabled = PyObject_IsTrue(value);
  if (enabled < 0) return -1;
  Dispatcher::Body& body = as_dispatcher(object)->body;
  body.enabled = enabled != 0;
  body.capacity = body.enabled ? body.most_plans : 0;
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
