// Looking up global addresses among the registered ranges.
#include "bounds.h"

#include <algorithm>

#include "over_forks.h"

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
std::vector<Bounds::Range>::const_iterator first_ending_after(const std::vector<Bounds::Range>& ranges,
                                                              uint64_t address) {
    return std::upper_bound(ranges.begin(), ranges.end(), address,
                            [](uint64_t a, const Bounds::Range& r) { return a < r.end; });
}
}  // namespace

Bounds::Bounds(std::vector<Range> allowed, std::vector<Range> forbidden,
               std::shared_ptr<const std::vector<Storage>> storages)
    : allowed_(joined(std::move(allowed))), forbidden_(joined(std::move(forbidden))), storages_(std::move(storages)) {}

namespace {
constexpr uint64_t kFirstAddress = 4096;   // page 0 is nobody's

const Bounds::Storage* storage_ending_after(const std::vector<Bounds::Storage>& all, uint64_t address) {
    const auto it = std::upper_bound(all.begin(), all.end(), address,
                                     [](uint64_t a, const Bounds::Storage& s) { return a < s.end; });
    return it == all.end() ? nullptr : &*it;
}
std::string words(const Bounds::Storage& s) {
    return "a tensor's storage of " + std::to_string(s.end - s.start) + " bytes";
}
}  // namespace

bool Bounds::allows(uint64_t address, uint64_t bytes, uint64_t& low, uint64_t& high) const {
    low = kFirstAddress;
    high = UINT64_MAX;
    if (address < low) return false;
    const auto bad = first_ending_after(forbidden_, address);
    if (bad != forbidden_.end()) {
        if (bad->start < address + bytes) return false;
        high = bad->start;
    }
    if (bad != forbidden_.begin()) low = std::max(low, std::prev(bad)->end);
    const auto inside = [&](uint64_t start, uint64_t end) {
        if (address < start || address + bytes > end) return false;
        low = std::max(low, start);
        high = std::min(high, end);
        return true;
    };
    if (storages_)
        if (const Storage* s = storage_ending_after(*storages_, address); s && inside(s->start, s->end)) return true;
    const auto good = first_ending_after(allowed_, address);
    return good != allowed_.end() && inside(good->start, good->end);
}

std::string Bounds::why_not(uint64_t address, uint64_t bytes) const {
    if (address < kFirstAddress) return "a null pointer";
    const auto bad = first_ending_after(forbidden_, address);
    if (bad != forbidden_.end() && bad->start < address + bytes) return "in " + bad->name;
    // Say what is next to it: most such faults are one element off.
    std::vector<Range> near;
    if (storages_)
        if (const Storage* s = storage_ending_after(*storages_, address)) near.push_back({s->start, s->end, words(*s)});
    const auto next = first_ending_after(allowed_, address);
    if (next != allowed_.end()) near.push_back(*next);
    for (const Range& r : near) if (r.start <= address) return "runs past the end of " + r.name;
    if (storages_) {
        const auto it = std::upper_bound(storages_->begin(), storages_->end(), address,
                                         [](uint64_t a, const Storage& s) { return a < s.end; });
        if (it != storages_->begin()) near.push_back({std::prev(it)->start, std::prev(it)->end, words(*std::prev(it))});
    }
    if (next != allowed_.begin()) near.push_back(*std::prev(next));
    std::string text = storages_ ? "in no live tensor's storage (memory that PyTorch did not allocate: softgpu.share)"
                                 : "in no registered buffer";
    const auto distance = [&](const Range& r) { return r.start > address ? r.start - address : address - r.end; };
    const auto closest = std::min_element(near.begin(), near.end(),
                                          [&](const Range& a, const Range& b) { return distance(a) < distance(b); });
    if (closest != near.end())
        text += "; " + std::to_string(distance(*closest)) + " bytes " +
                (closest->start > address ? "before " : "after the end of ") + closest->name;
    return text;
}

uint64_t Bounds::serial_of(uint64_t address) const {
    const Storage* s = storages_ ? storage_ending_after(*storages_, address) : nullptr;
    return s && s->start <= address ? s->serial : 0;
}
std::string Bounds::name_of(uint64_t address) const {
    if (storages_)
        if (const Storage* s = storage_ending_after(*storages_, address); s && s->start <= address)
            return "byte " + std::to_string(address - s->start) + " of " + words(*s);
    const auto range = first_ending_after(allowed_, address);
    return range != allowed_.end() && range->start <= address ? range->name : "";
}

BufferRegistry::BufferRegistry() { hold_over_forks(mutex_, ForkOrder::Bounds); }
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
void BufferRegistry::set_storages(Version version, Each each) {
    const std::lock_guard lock(mutex_);
    version_ = version;
    each_ = each;
    current_.reset();
}
void BufferRegistry::foreign(uint64_t start, uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    if (bytes) foreign_[start] = bytes;
    else foreign_.erase(start);
    current_.reset();
}
std::shared_ptr<const Bounds> BufferRegistry::snapshot() {
    std::unique_lock lock(mutex_);
    const uint64_t version = version_ ? version_() : 0;
    if (current_ && (version == seen_version_ || strict_)) return current_;
    std::shared_ptr<std::vector<Bounds::Storage>> storages;
    if (!strict_) {
        storages = std::make_shared<std::vector<Bounds::Storage>>();
        const auto add = [](void* to, uint64_t start, uint64_t bytes, uint64_t serial) {
            static_cast<std::vector<Bounds::Storage>*>(to)->push_back({start, start + bytes, serial});
        };
        const Each each = each_;
        lock.unlock();                         // they have a mutex of their own, which nobody waits for with this one
        if (each) each(add, storages.get());
        lock.lock();
        for (const auto& [start, bytes] : foreign_) storages->push_back({start, start + bytes, 0});
        if (!foreign_.empty())
            std::sort(storages->begin(), storages->end(),
                      [](const auto& a, const auto& b) { return a.start < b.start; });
    }
    current_ = std::make_shared<Bounds>(allowed_, forbidden_, storages);
    seen_version_ = version;
    return current_;
}

}  // namespace softgpu
