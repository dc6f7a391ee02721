// Dispatcher: the C base type of helion.kernel.Kernel. A call is read into a Signature, looked up, and run as the
// entry's LaunchPlan; whatever is in doubt goes to the method `_call_python`, which is complete by itself. A signature
// that comes for the second time without a plan goes to `_record_call`, which may install one.
//
// The table may change while a call runs (another thread, a `key=` function): a call therefore takes a reference to the
// plan before it runs it, and clearing swaps the table out before destroying it. A call that is under way finishes with
// the plan that it found. In a free-threaded build each thread calls through a replica of the body (threads.h).

#include "method_call.h"
#include "read_call.h"
#include "replica.h"

namespace helion {
namespace {

HELION_COLD PyObject* call_python(Dispatcher* self, PyObject* const* args, size_t nargsf, PyObject* keyword_names) {
  return call_method(reinterpret_cast<PyObject*>(self), self->state->names.call_python, args, nargsf, keyword_names);
}

// A signature without a plan. The second time it comes it is worth recording; a third time recording did not help.
HELION_COLD PyObject* call_unknown(Dispatcher* self, uint64_t hash, PyObject* const* args, size_t nargsf,
                       PyObject* keyword_names) {
  std::unordered_map<uint64_t, uint8_t>& sightings = self->body.sightings;
  PyObject* const object = reinterpret_cast<PyObject*>(self);
  bool record = false;
  {
    const Alone alone(object);
    // Shapes that never come again must not pile up; forgetting one costs a recording later.
    if (sightings.size() > 4 * self->body.capacity + 64) sightings.clear();
    uint8_t& seen = sightings[hash];
    record = seen == 1;
    seen = seen == 0 ? 1 : 2;
  }
  if (record) {
    PyObject* result = call_method(object, self->state->names.record_call, args, nargsf, keyword_names);
    // A call that raised was not recorded: the next one is. The call may have changed the table, hence another lookup.
    if (result == nullptr) {
      const Alone alone(object);
      if (const auto found = sightings.find(hash); found != sightings.end()) found->second = 1;
    }
    return result;
  }
  PyObject* result = call_python(self, args, nargsf, keyword_names);
  // Compiling may have found that more has to be asked, and forgotten what was seen; this signature was.
  if (result != nullptr) {
    const Alone alone(object);
    sightings.emplace(hash, uint8_t{1});
  }
  return result;
}

}  // namespace

PyObject* dispatcher_vectorcall(PyObject* object, PyObject* const* args, size_t nargsf, PyObject* keyword_names) {
  Dispatcher* self = as_dispatcher(object);
#ifdef Py_GIL_DISABLED
  const std::shared_ptr<Replica> replica = own_replica(self);
  if (replica == nullptr) return nullptr;
  Dispatcher::Body& body = replica->body;
#else
  Dispatcher::Body& body = self->body;
#endif
  // Guard: modes, transforms and tracing want to see PyTorch operations, which only the Python path performs.
  if (body.capacity == 0 || HELION_GUARD("modes", !plain_torch_state())) {
    return call_python(self, args, nargsf, keyword_names);
  }
  if (!self->state->environment().steady()) {
    const int measuring = self->state->environment().measuring(self->state);
    if (measuring < 0) return nullptr;
    if (HELION_GUARD("measuring", measuring == 1)) return call_python(self, args, nargsf, keyword_names);
    if (!self->state->environment().refresh_provider(self->state)) return nullptr;
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
  const int known = read_signature(self->state, body, bound, &signature, &key);
  if (known < 0) return nullptr;
  if (known == 0) return call_python(self, args, nargsf, keyword_names);
  PlanTable::Entry* entry = body.table.find(signature);
#ifdef Py_GIL_DISABLED
  if (entry == nullptr && !PyErr_Occurred()) entry = adopt(self, &body, signature);
#endif
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

}  // namespace helion
