// What each thread has for itself in a free-threaded build, so that calls in several threads write to nothing that they
// share: an environment, and of each dispatcher that it calls a replica with plans of its own.
//
// What threads share is the dispatcher's body: how calls are read, and which plans there are. It is changed by
// whoever is alone with the dispatcher, and `changes` counts how often; a replica of another count is renewed
// before it is used. A plan that a replica lacks is copied from there once. The dispatcher owns the replicas, for
// the garbage collector's sake; a thread that ends leaves its own behind, and the next thread's first call drops
// them.
#pragma once

#include "common.h"

#ifdef Py_GIL_DISABLED

#include "environment.h"

#include <memory>
#include <unordered_map>

namespace helion {

// A dispatcher's body as one thread has it.
struct ReplicaBase {
  virtual ~ReplicaBase() = default;
  std::atomic<bool> left{false};     // by its thread, which has ended
  std::atomic<bool> dropped{false};  // by its dispatcher
};

struct ThreadsOwn {
  Environment environment;
  std::unordered_map<uint64_t, std::shared_ptr<ReplicaBase>> replicas;  // by the dispatchers' numbers
  size_t sweep_at = 64;

  ~ThreadsOwn();
  void add(uint64_t dispatcher, std::shared_ptr<ReplicaBase> replica);
};

// The module that the thread called last.
struct ThreadSlot {
  uint64_t module = 0;  // ModuleState::id
  ThreadsOwn* own = nullptr;
};
inline thread_local ThreadSlot thread_slot;

HELION_COLD ThreadsOwn& find_threads_own(uint64_t module);

// The calling thread's for a module, made at its first call.
HELION_HOT ThreadsOwn& threads_own(uint64_t module) {
  return thread_slot.module == module ? *thread_slot.own : find_threads_own(module);
}

}  // namespace helion

#endif
