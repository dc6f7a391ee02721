// Which global memory kernels may touch: the storages of live tensors (storages.cpp knows them), allocations of the
// driver and module variables, and what tests name. Strict, the storages do not count. Forbidden ranges (guard zones
// around test buffers) never may be touched.
#pragma once
#include <atomic>
#include <map>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace softgpu {

// The rules as they were when a launch began; it never changes, so that lanes look things up without a lock.
class Bounds {
public:
    struct Range { uint64_t start, end; std::string name; };
    struct Storage { uint64_t start, end, serial; };   // serial: a number that no other storage has
    // `storages` by address; null: everything that the host maps.
    Bounds(std::vector<Range> allowed, std::vector<Range> forbidden,
           std::shared_ptr<const std::vector<Storage>> storages);

    // True if [address, address + bytes) may be touched; then [low, high) is set to a stretch around it that may be,
    // too.
    bool allows(uint64_t address, uint64_t bytes, uint64_t& low, uint64_t& high) const;
    uint64_t serial_of(uint64_t address) const;                    // of the storage it lies in; 0 if none
    std::string name_of(uint64_t address) const;                   // of the range it lies in; "" if none
    std::string why_not(uint64_t address, uint64_t bytes) const;   // for a fault's message
    std::string check(uint64_t address, uint64_t bytes) const {    // "" if it may be touched
        uint64_t low, high;
        return allows(address, bytes, low, high) ? "" : why_not(address, bytes);
    }

private:
    std::vector<Range> allowed_, forbidden_;   // by start; overlapping ones are joined
    std::shared_ptr<const std::vector<Storage>> storages_;
};

class BufferRegistry {
public:
    static BufferRegistry& instance();
    void allow(uint64_t start, uint64_t bytes, const std::string& name);
    void forbid(uint64_t start, uint64_t bytes, const std::string& name);
    bool remove(uint64_t start);               // the latest of either kind that starts there
    void set_strict(bool strict);
    // Where to ask for the live storages: a number that changes with them, and f(with, start, bytes, serial) for each.
    using Version = uint64_t (*)();
    using Each = void (*)(void (*f)(void*, uint64_t, uint64_t, uint64_t), void* with);
    void set_storages(Version version, Each each);
    void foreign(uint64_t start, uint64_t bytes);   // a storage that others allocated; 0 bytes: it is gone
    std::shared_ptr<const Bounds> snapshot();

private:
    BufferRegistry();
    std::mutex mutex_;
    std::vector<Bounds::Range> allowed_, forbidden_;
    bool strict_ = false;
    Version version_ = nullptr;
    Each each_ = nullptr;
    std::map<uint64_t, uint64_t> foreign_;     // start -> bytes
    uint64_t seen_version_ = 0;
    std::shared_ptr<const Bounds> current_;    // made when asked for, dropped by every change
};

}  // namespace softgpu
