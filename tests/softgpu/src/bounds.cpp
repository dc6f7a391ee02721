// Looking up global addresses among the registered ranges.
#include "bounds.h"

#include <algorithm>

namespace softgpu {

namespace {
// Sorted, with ranges that overlap joined (views of one tensor); ranges that only touch stay apart.
std::vector<Bounds::Range> joined(std::vector<Bounds::Range> ranges) {
    std::sort(ranges.begin(), ranges.end(), [](const auto& a, const auto& b) { return a.start < b.start; });
    std::vector<Bounds::Range> out;
    for (auto& r : ranges) {
        if (!out.empty() && r.start < out.back().end) {
            out.back().end = std::max(out.back().end, r.end);
            if (out.back().name != r.name) out.back().name += " and " + r.name;
        } else out.push_back(std::move(r));
    }
    return out;
}
// The first range that ends after `address`.
std::vector<Bounds::Range>::const_iterator first_ending_after(const std::vector<Bounds::Range>& ranges, uint64_t address) {
    return std::upper_bound(ranges.begin(), ranges.end(), address, [](uint64_t a, const Bounds::Range& r) { return a < r.end; });
}
}  // namespace

Bounds::Bounds(std::vector<Range> allowed, std::vector<Range> forbidden, bool strict)
    : allowed_(joined(std::move(allowed))), forbidden_(joined(std::move(forbidden))), strict_(strict) {}

bool Bounds::allows(uint64_t address, uint64_t bytes, uint64_t& low, uint64_t& high) const {
    low = 4096;   // page 0 is nobody's
    high = UINT64_MAX;
    if (address < low) return false;
    const auto bad = first_ending_after(forbidden_, address);
    if (bad != forbidden_.end()) {
        if (bad->start < address + bytes) return false;
        high = bad->start;
    }
    if (bad != forbidden_.begin()) low = std::max(low, std::prev(bad)->end);
    if (!strict_) return true;
    const auto good = first_ending_after(allowed_, address);
    if (good == allowed_.end() || address < good->start || address + bytes > good->end) return false;
    low = std::max(low, good->start);
    high = std::min(high, good->end);
    return true;
}

std::string Bounds::why_not(uint64_t address, uint64_t bytes) const {
    if (address < 4096) return "a null pointer";
    const auto bad = first_ending_after(forbidden_, address);
    if (bad != forbidden_.end() && bad->start < address + bytes) return "in " + bad->name;
    const auto next = first_ending_after(allowed_, address);
    if (next != allowed_.end() && next->start <= address) return "runs past the end of " + next->name;
    // Say where the nearest buffers are: most such faults are one element off.
    std::string text = "in no registered buffer";
    if (next != allowed_.end()) text += "; " + std::to_string(next->start - address) + " bytes before " + next->name;
    if (next != allowed_.begin())
        text += "; " + std::to_string(address - std::prev(next)->end) + " bytes after the end of " + std::prev(next)->name;
    return text;
}

BufferRegistry& BufferRegistry::instance() {
    static BufferRegistry* registry = new BufferRegistry;   // never destroyed: modules may be unloaded at exit
    return *registry;
}
void BufferRegistry::allow(uint64_t start, uint64_t bytes, const std::string& name) {
    const std::lock_guard lock(mutex_);
    allowed_.push_back({start, start + bytes, name});
    current_.reset();
}
void BufferRegistry::forbid(uint64_t start, uint64_t bytes, const std::string& name) {
    const std::lock_guard lock(mutex_);
    forbidden_.push_back({start, start + bytes, name});
    current_.reset();
}
bool BufferRegistry::remove(uint64_t start) {
    const std::lock_guard lock(mutex_);
    for (auto* ranges : {&allowed_, &forbidden_})
        for (size_t i = ranges->size(); i-- > 0;)
            if ((*ranges)[i].start == start) {
                ranges->erase(ranges->begin() + static_cast<std::ptrdiff_t>(i));
                current_.reset();
                return true;
            }
    return false;
}
void BufferRegistry::set_strict(bool strict) {
    const std::lock_guard lock(mutex_);
    strict_ = strict;
    current_.reset();
}
std::shared_ptr<const Bounds> BufferRegistry::snapshot() {
    const std::lock_guard lock(mutex_);
    if (!current_) current_ = std::make_shared<Bounds>(allowed_, forbidden_, strict_);
    return current_;
}

}  // namespace softgpu
