// Where a thread's own things are kept, and when they go.

#include "threads.h"

#ifdef Py_GIL_DISABLED

namespace helion {
namespace {

constexpr char kCapsule[] = "helion._C.thread";

// Called when the thread's state is cleared, by the thread itself as it ends.
void end_thread(PyObject* capsule) {
  ThreadsOwn* const own = static_cast<ThreadsOwn*>(PyCapsule_GetPointer(capsule, kCapsule));
  if (thread_slot.own == own) thread_slot = {};
  delete own;
}

}  // namespace

ThreadsOwn::~ThreadsOwn() {
  for (const auto& [dispatcher, replica] : replicas) replica->left.store(true, std::memory_order_release);
}

void ThreadsOwn::add(uint64_t dispatcher, std::shared_ptr<ReplicaBase> replica) {
  if (replicas.size() >= sweep_at) {
    for (auto one = replicas.begin(); one != replicas.end();) {
      one = one->second->dropped.load(std::memory_order_acquire) ? replicas.erase(one) : std::next(one);
    }
    sweep_at = 2 * replicas.size() + 64;
  }
  replicas[dispatcher] = std::move(replica);
}

ThreadsOwn& find_threads_own(uint64_t module) {
  PyObject* const all = PyThreadState_GetDict();  // borrowed
  PyRef key = PyRef::steal(PyUnicode_FromFormat("helion._C.%llu", static_cast<unsigned long long>(module)));
  if (all == nullptr || !key) Py_FatalError("helion._C: a thread without a state of its own");
  ThreadsOwn* own = nullptr;
  if (PyObject* capsule = PyDict_GetItemWithError(all, key.get())) {
    own = static_cast<ThreadsOwn*>(PyCapsule_GetPointer(capsule, kCapsule));
  } else {
    own = new ThreadsOwn();
    PyRef made = PyRef::steal(PyCapsule_New(own, kCapsule, end_thread));
    if (!made || PyDict_SetItem(all, key.get(), made.get()) < 0) Py_FatalError("helion._C: no memory for a thread");
  }
  thread_slot = {module, own};
  return *own;
}

}  // namespace helion

#endif
