// Dispatcher: the C base type of helion.kernel.Kernel. What it knows, and what a thread's replica of that knows.
#pragma once

#include "heap_type.h"
#include "kernel_function.h"
#include "outside.h"
#include "plan_table.h"

#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

namespace helion {


constexpr size_t kMostParameters = 64;

struct Parameter {
  PyRef name;       // interned str
  PyRef default_value;  // or null
  NumberKey numbers = NumberKey::kByValue;
};

#ifdef Py_GIL_DISABLED
struct Replica;
#endif

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
    Count hits, launches;
    uint64_t evictions = 0;
    bool enabled = true;
#ifdef Py_GIL_DISABLED
    std::atomic<uint64_t> changes{1};  // of what replicas have too
    uint64_t number = 0;               // among the dispatchers
    std::vector<std::shared_ptr<Replica>> replicas;

    // Makes this body, a replica's, read calls as `other` does.
    void follow(const Body& other);
#endif

    // Called after each change of what replicas have too.
    void changed() {
#ifdef Py_GIL_DISABLED
      changes.fetch_add(1, std::memory_order_release);
#endif
    }
    // Drops every plan. The old ones are destroyed when nothing refers to them any more.
    void clear_plans();
    void drop_replicas();
    ~Body() { drop_replicas(); }
    int visit(visitproc visit, void* arg) const;
    void clear();
  } body;
};

inline Dispatcher* as_dispatcher(PyObject* self) { return HeapType<Dispatcher>::as(self); }

#ifdef Py_GIL_DISABLED
// A dispatcher's body as one thread calls it, in cache lines of its own: each call counts in it.
struct alignas(64) Replica : ReplicaBase {
  Dispatcher::Body body;
  uint64_t follows = 0;  // how many changes it has followed
};
#endif

PyObject* dispatcher_vectorcall(PyObject* object, PyObject* const* args, size_t nargsf, PyObject* keyword_names);

}  // namespace helion
