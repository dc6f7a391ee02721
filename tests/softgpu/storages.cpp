// PyTorch's CPU allocator for tests: every storage is known, apart from its neighbours, and full of poison when it is
// fresh.
//
// A library of its own, beside the software GPU's libcuda.so.1, which asks it for the live storages at every launch
// (src/bounds.h). storages.py installs it.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>

namespace {

// Between two storages there are at least so many bytes that are nobody's: an index that runs past a tensor's end then
// meets no other tensor.
constexpr size_t kBefore = 1024, kLeastAfter = 1024, kMostAfter = 256 * 1024;

// Repeated, it is a NaN in every floating-point type and extreme in every integer type (the low byte alone: NaN in fp8,
// -1).
constexpr uint16_t kPoison = 0x7fff;

class Storages final : public c10::Allocator {
public:
    c10::DataPtr allocate(size_t bytes) override {
        const c10::Device cpu(c10::DeviceType::CPU);
        if (bytes == 0) return {nullptr, nullptr, &release, cpu};
        auto* whole =
            static_cast<uint8_t*>(c10::alloc_cpu(kBefore + bytes + std::clamp(bytes, kLeastAfter, kMostAfter)));
        uint8_t* data = whole + kBefore;
        for (size_t i = 0; i + 1 < bytes; i += 2) std::memcpy(data + i, &kPoison, 2);
        if (bytes % 2) data[bytes - 1] = kPoison & 0xff;
        c10::profiledCPUMemoryReporter().New(data, bytes);
        const std::lock_guard lock(mutex_);
        live_[reinterpret_cast<uint64_t>(data)] = {bytes, ++version_};
        return {data, data, &release, cpu};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &release; }
    void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

    // As the software GPU does with its own mutexes (``src/over_forks.h``).
    void hold() { mutex_.lock(); }
    void let_go() { mutex_.unlock(); }

    uint64_t version() const { return version_; }
    void each(void (*f)(void*, uint64_t, uint64_t, uint64_t), void* with) {
        const std::lock_guard lock(mutex_);
        for (const auto& [start, storage] : live_) f(with, start, storage.bytes, storage.serial);
    }

private:
    static void release(void* data);

    std::mutex mutex_;
    struct Storage { size_t bytes; uint64_t serial; };
    std::map<uint64_t, Storage> live_;
    std::atomic<uint64_t> version_{1};
};
Storages& storages() {
    static Storages* all = [] {
        const auto let_go = [] { storages().let_go(); };
        pthread_atfork([] { storages().hold(); }, let_go, let_go);
        return new Storages;               // never destroyed: storages may outlive everything
    }();
    return *all;
}
void Storages::release(void* data) {
    if (!data) return;
    Storages& all = storages();
    {
        const std::lock_guard lock(all.mutex_);
        all.live_.erase(reinterpret_cast<uint64_t>(data));
        ++all.version_;
    }
    c10::profiledCPUMemoryReporter().Delete(data);
    c10::free_cpu(static_cast<uint8_t*>(data) - kBefore);
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void storages_install() { c10::SetCPUAllocator(&storages(), 1); }
// For storages that are made with an allocator of their own (torch.UntypedStorage).
EXPORT uint64_t storages_allocator() { return reinterpret_cast<uint64_t>(static_cast<c10::Allocator*>(&storages())); }
// Changes with every storage that comes or goes.
EXPORT uint64_t storages_version() { return storages().version(); }
// f(with, start, bytes, serial) for every live storage, by address; no two storages have the same serial.
EXPORT void storages_each(void (*f)(void*, uint64_t, uint64_t, uint64_t), void* with) { storages().each(f, with); }
