// PyTorch's current CUDA device and stream, asked of c10's own interface and not through Python.
#pragma once

#include <c10/core/Stream.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <pthread.h>

#include <cstdint>
#include <type_traits>
#include <utility>

namespace helion {

// Where it has no answer (PyTorch without CUDA, an error, a process forked from one that used CUDA) the caller asks the
// Python functions, which answer or say why not.
class TorchDevice {
 public:
  // Index of the calling thread's current device, or -1.
  long current() const {
    const c10::impl::DeviceGuardImplInterface* guard = c10::impl::device_guard_impl_registry[kIndex].load();
    if (guard == nullptr) return -1;
    // Where there is only one, no other can be current. A forked child, where CUDA does not work, asks, and fails.
    if (only_one_ && !forked()) return 0;
    try {
      const long index = guard->getDevice().index();
      only_one_ = index == 0 && guard->deviceCount() == 1 && !forked();
      return index;
    } catch (...) {
      return -1;
    }
  }

  // The raw stream that is current on `device`; false without an answer.
  bool stream(long device, uintptr_t* out) const {
    const c10::impl::DeviceGuardImplInterface* guard = c10::impl::device_guard_impl_registry[kIndex].load();
    if (guard == nullptr) return false;
    try {
      const c10::Stream now = guard->getStream({c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device)});
      // What a stream's handle is never changes: PyTorch's own streams live as long as the process, and the number of
      // another one is its handle. Asking for it makes the stream's device current and back.
      if (!(known_ && now == stream_)) {
        known_ = false;
        handle_ = handle_of(guard, now);
        stream_ = now;
        known_ = true;
      }
    } catch (...) {
      return false;
    }
    *out = handle_;
    return true;
  }

 private:
  // Whether this process was forked from one that had asked this.
  static bool forked() {
    static bool is_child = false;
    static const int watching = pthread_atfork(nullptr, nullptr, [] { is_child = true; });
    return is_child || watching != 0;
  }

  static constexpr size_t kIndex = static_cast<size_t>(c10::DeviceType::CUDA);

  template <class Guard, class = void>
  struct HasHandles : std::false_type {};
  template <class Guard>
  struct HasHandles<Guard, std::void_t<decltype(std::declval<const Guard&>().getStreamNativeHandle(
                               std::declval<const c10::Stream>()))>> : std::true_type {};

  // Throws where PyTorch cannot tell; older ones have no such question.
  template <class Guard>
  static uintptr_t handle_of(const Guard* guard, const c10::Stream& stream) {
    if constexpr (HasHandles<Guard>::value) {
      return reinterpret_cast<uintptr_t>(guard->getStreamNativeHandle(stream));
    } else {
      throw stream;
    }
  }

  mutable bool only_one_ = false;  // how many devices a process sees never changes
  mutable c10::Stream stream_{c10::Stream::DEFAULT, c10::Device(c10::DeviceType::CUDA, 0)};
  mutable uintptr_t handle_ = 0;
  mutable bool known_ = false;  // whether handle_ is stream_'s
};

}  // namespace helion
