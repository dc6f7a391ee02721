// Which words of memory several threads touch, and one of them writes, in code compiled with -fsanitize=thread. Stands
// in for that sanitizer's runtime: the functions below are what such code calls before each access. shared_writes.py
// builds and runs it.
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

namespace {

constexpr uintptr_t kWord = 8, kLine = 64;
constexpr int kDepth = 256, kFrames = 4;

// What a thread did with a word: where it was when it wrote there first, or first read it, innermost first.
struct Use {
  bool written = false;
  uintptr_t address = 0;
  const void* from[kFrames] = {};
};

struct Thread {
  const void* calls[kDepth] = {};
  int depth = 0;
  bool noting = false;
  std::unordered_map<uintptr_t, Use> words;
};

std::atomic<bool> recording{false};
std::mutex mutex;
std::vector<Thread*> threads;  // never freed: a thread may end before it is asked for

Thread& thread() {
  thread_local Thread* own = nullptr;
  if (own == nullptr) {
    own = new Thread;
    const std::lock_guard<std::mutex> guard(mutex);
    threads.push_back(own);
  }
  return *own;
}

void note(const volatile void* place, size_t bytes, bool write, const void* from) {
  if (!recording.load(std::memory_order_relaxed) || bytes == 0) return;
  Thread& own = thread();
  if (own.noting) return;
  own.noting = true;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(place), last = begin + bytes - 1;
  for (uintptr_t word = begin / kWord; word <= last / kWord; ++word) {
    const auto [at, first] = own.words.try_emplace(word);
    Use& use = at->second;
    if (!first && (use.written || !write)) continue;
    use.written = write;
    use.address = begin;
    use.from[0] = from;
    for (int frame = 1; frame < kFrames && own.depth >= frame && own.depth < kDepth; ++frame) {
      use.from[frame] = own.calls[own.depth - frame];
    }
  }
  own.noting = false;
}

void print_place(const void* place) {
  Dl_info info;
  if (place == nullptr || dladdr(place, &info) == 0) return;
  const uintptr_t offset = reinterpret_cast<uintptr_t>(place) - reinterpret_cast<uintptr_t>(info.dli_fbase);
  std::printf("    %s+0x%zx\n", info.dli_fname, static_cast<size_t>(offset - 1));  // of the call, not of what follows
}

void print_use(const Use& use) {
  std::printf("  %s at 0x%zx:\n", use.written ? "written" : "read", static_cast<size_t>(use.address));
  for (const void* place : use.from) print_place(place);
}

}  // namespace

// What several threads did.
struct SharedWrites {
  int touched;  // words that more than one touched
  int written;  // of these, that one wrote
  int lines;    // cache lines that more than one touched and one wrote
};

#define EXPORT extern "C" __attribute__((visibility("default")))
#define HERE __builtin_return_address(0)

EXPORT void shared_writes_start() {
  const std::lock_guard<std::mutex> guard(mutex);
  for (Thread* one : threads) one->words.clear();
  recording = true;
}

// Ends what start() began, and prints each word that one thread wrote and another touched.
EXPORT void shared_writes_stop(SharedWrites* counts) {
  recording = false;
  const std::lock_guard<std::mutex> guard(mutex);
  std::map<uintptr_t, std::vector<const Use*>> uses;
  std::map<uintptr_t, std::pair<std::set<const Thread*>, bool>> lines;
  for (const Thread* one : threads) {
    for (const auto& [word, use] : one->words) {
      uses[word].push_back(&use);
      auto& [by, written] = lines[word * kWord / kLine];
      by.insert(one);
      written = written || use.written;
    }
  }
  *counts = {};
  for (const auto& [line, use] : lines) counts->lines += use.first.size() > 1 && use.second;
  for (const auto& [word, by] : uses) {
    if (by.size() < 2) continue;
    ++counts->touched;
    const auto writer = std::find_if(by.begin(), by.end(), [](const Use* use) { return use->written; });
    if (writer == by.end()) continue;
    ++counts->written;
    std::printf("%zu threads:\n", by.size());
    print_use(**writer);
    print_use(*by[writer == by.begin() ? 1 : 0]);
  }
  std::fflush(stdout);
}

EXPORT void __tsan_init() {}
EXPORT void __tsan_acquire(void*) {}
EXPORT void __tsan_release(void*) {}
EXPORT void __tsan_func_entry(void* from) {
  Thread& own = thread();
  if (own.depth < kDepth) own.calls[own.depth] = from;
  ++own.depth;
}
EXPORT void __tsan_func_exit() {
  Thread& own = thread();
  if (own.depth > 0) --own.depth;
}
EXPORT void __tsan_vptr_update(void* place, void*) { note(place, sizeof(void*), true, HERE); }
EXPORT void __tsan_vptr_read(void* place) { note(place, sizeof(void*), false, HERE); }
EXPORT void __tsan_read_range(void* place, size_t bytes) { note(place, bytes, false, HERE); }
EXPORT void __tsan_write_range(void* place, size_t bytes) { note(place, bytes, true, HERE); }
EXPORT void __tsan_atomic_thread_fence(int) { std::atomic_thread_fence(std::memory_order_seq_cst); }
EXPORT void __tsan_atomic_signal_fence(int) {}

#define ACCESS(bytes)                                                                          \
  EXPORT void __tsan_read##bytes(void* place) { note(place, bytes, false, HERE); }             \
  EXPORT void __tsan_write##bytes(void* place) { note(place, bytes, true, HERE); }             \
  EXPORT void __tsan_unaligned_read##bytes(void* place) { note(place, bytes, false, HERE); }   \
  EXPORT void __tsan_unaligned_write##bytes(void* place) { note(place, bytes, true, HERE); }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)

// All are made in the strongest order, whatever order was asked for.
#define CHANGE(bits, type, name)                                                               \
  EXPORT type __tsan_atomic##bits##_##name(volatile type* place, type value, int) {            \
    note(place, sizeof(type), true, HERE);                                                     \
    return __atomic_##name(place, value, __ATOMIC_SEQ_CST);                                    \
  }
#define COMPARE(bits, type, name, weak)                                                                  \
  EXPORT int __tsan_atomic##bits##_##name(volatile type* place, type* was, type value, int, int) {       \
    note(place, sizeof(type), true, HERE);                                                               \
    return __atomic_compare_exchange_n(place, was, value, weak, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);     \
  }
#define ATOMIC(bits, type)                                                                     \
  EXPORT type __tsan_atomic##bits##_load(const volatile type* place, int) {                    \
    note(place, sizeof(type), false, HERE);                                                    \
    return __atomic_load_n(place, __ATOMIC_SEQ_CST);                                           \
  }                                                                                            \
  EXPORT void __tsan_atomic##bits##_store(volatile type* place, type value, int) {             \
    note(place, sizeof(type), true, HERE);                                                     \
    __atomic_store_n(place, value, __ATOMIC_SEQ_CST);                                          \
  }                                                                                            \
  EXPORT type __tsan_atomic##bits##_exchange(volatile type* place, type value, int) {          \
    note(place, sizeof(type), true, HERE);                                                     \
    return __atomic_exchange_n(place, value, __ATOMIC_SEQ_CST);                                \
  }                                                                                            \
  CHANGE(bits, type, fetch_add)                                                                \
  CHANGE(bits, type, fetch_sub)                                                                \
  CHANGE(bits, type, fetch_and)                                                                \
  CHANGE(bits, type, fetch_or)                                                                 \
  COMPARE(bits, type, compare_exchange_strong, false)                                          \
  COMPARE(bits, type, compare_exchange_weak, true)
ATOMIC(8, uint8_t)
ATOMIC(16, uint16_t)
ATOMIC(32, uint32_t)
ATOMIC(64, uint64_t)
