// Which global memory kernels may touch.
//
// Allocations of the driver and module variables are always allowed. Tests add their tensors. Strict, everything else is
// out of bounds; otherwise only forbidden ranges (guard zones around test buffers) and addresses that the host does not map.
#pragma once
#include <atomic>
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
    Bounds(std::vector<Range> allowed, std::vector<Range> forbidden, bool strict);

    bool checks_nothing() const { return !strict_ && forbidden_.empty(); }
    // True if [address, address + bytes) may be touched; then [low, high) is set to a stretch around it that may be, too.
    bool allows(uint64_t address, uint64_t bytes, uint64_t& low, uint64_t& high) const;
    std::string why_not(uint64_t address, uint64_t bytes) const;   // for a fault's message
    std::string check(uint64_t address, uint64_t bytes) const {    // "" if it may be touched
        uint64_t low, high;
        return allows(address, bytes, low, high) ? "" : why_not(address, bytes);
    }

private:
    std::vector<Range> allowed_, forbidden_;   // by start; overlapping ones are joined
    bool strict_;
};

class BufferRegistry {
public:
    static BufferRegistry& instance();
    void allow(uint64_t start, uint64_t bytes, const std::string& name);
    void forbid(uint64_t start, uint64_t bytes, const std::string& name);
    bool remove(uint64_t start);               // the latest of either kind that starts there
    void set_strict(bool strict);
    std::shared_ptr<const Bounds> snapshot();

private:
    std::mutex mutex_;
    std::vector<Bounds::Range> allowed_, forbidden_;
    bool strict_ = false;
    std::shared_ptr<const Bounds> current_;    // made when asked for, dropped by every change
};

}  // namespace softgpu
