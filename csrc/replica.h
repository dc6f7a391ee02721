// How a thread's replica of a dispatcher comes to know what the dispatcher knows (threads.h).
#pragma once

#include "dispatcher.h"

#ifdef Py_GIL_DISABLED

#include <algorithm>

namespace helion {

// Makes a replica read calls as the dispatcher does now, or makes one for the calling thread. Null with an exception.
HELION_COLD inline std::shared_ptr<Replica> renew(Dispatcher* self, ThreadsOwn* own, std::shared_ptr<Replica> replica) {
  if (!own->environment.load(self->state) || !own->environment.refresh_provider(self->state)) return nullptr;
  std::vector<std::shared_ptr<Replica>> ended;  // dropped when others may get in
  const Alone alone(reinterpret_cast<PyObject*>(self));
  if (replica == nullptr) {
    std::vector<std::shared_ptr<Replica>>& all = self->body.replicas;
    const auto running = std::stable_partition(all.begin(), all.end(), [](const std::shared_ptr<Replica>& one) {
      return !one->left.load(std::memory_order_acquire);
    });
    for (auto one = running; one != all.end(); ++one) {
      self->body.hits += (*one)->body.hits.get();
      self->body.launches += (*one)->body.launches.get();
      ended.push_back(std::move(*one));
    }
    all.erase(running, all.end());
    replica = std::make_shared<Replica>();
    all.push_back(replica);
    own->add(self->body.number, replica);
  }
  replica->follows = self->body.changes.load(std::memory_order_relaxed);
  replica->body.follow(self->body);
  return replica;
}

// The calling thread's, as the dispatcher is now. A reference, as a call may drop it. Null with an exception.
HELION_HOT std::shared_ptr<Replica> own_replica(Dispatcher* self) {
  ThreadsOwn& own = threads_own(self->state->id);
  const auto found = own.replicas.find(self->body.number);
  if (found == own.replicas.end() || found->second->dropped.load(std::memory_order_relaxed)) {
    return renew(self, &own, nullptr);
  }
  std::shared_ptr<Replica> replica = std::static_pointer_cast<Replica>(found->second);
  if (replica->follows == self->body.changes.load(std::memory_order_acquire)) return replica;
  return renew(self, &own, std::move(replica));
}

inline void Dispatcher::Body::follow(const Body& other) {
  std::vector<Parameter> new_parameters;
  for (const Parameter& one : other.parameters) {
    new_parameters.push_back({one.name.copy(), one.default_value.copy(), one.numbers});
  }
  std::vector<Outside> new_filled, new_watched;
  for (const Outside& one : other.filled) new_filled.push_back(one.copy());
  for (const Outside& one : other.watched) new_watched.push_back(one.copy());
  PyRef new_function = other.key_function.copy();
  KernelFunction new_kernel = other.kernel.copy();
  PlanTable old;
  apart = other.apart;
  capacity = other.capacity;
  table.swap(old);
  generation = other.generation;
  parameters.swap(new_parameters);
  filled.swap(new_filled);
  watched.swap(new_watched);
  std::swap(key_function, new_function);
  std::swap(kernel, new_kernel);
}

// The dispatcher's plan for a signature, copied into a replica. Null if there is none, or with an exception.
HELION_COLD inline PlanTable::Entry* adopt(Dispatcher* self, Dispatcher::Body* body, const Signature& signature) {
  const uint64_t generation = body->generation;
  const auto find = [&]() -> PlanTable::Entry* {
    PlanTable::Entry* const entry = self->body.table.find(signature);
    return self->body.generation == generation ? entry : nullptr;
  };
  PyRef plan, bound;
  {
    const Alone alone(reinterpret_cast<PyObject*>(self));
    const PlanTable::Entry* const entry = find();
    if (entry == nullptr) return nullptr;
    plan = entry->plan.copy();
    bound = entry->bound.copy();
  }
  PyRef own = reinterpret_cast<LaunchPlan*>(plan.get())->copy();
  if (!own) return nullptr;
  while (body->generation == generation && body->table.size() >= body->capacity && body->table.size() != 0) {
    body->table.evict_one();
  }
  // Python code may have come in between, which called the same kernel.
  if (body->generation != generation || body->table.find(signature) != nullptr || PyErr_Occurred()) return nullptr;
  const Alone alone(reinterpret_cast<PyObject*>(self));
  PlanTable::Entry* const entry = find();
  if (entry == nullptr || body->generation != generation) return nullptr;
  PlanTable::Entry* const copy = body->table.insert(signature, own.get(), bound.get());
  entry->last_use.copied(copy->last_use);
  return copy;
}

}  // namespace helion

#endif
