// The edges of happens-before.
#include "happens_before.h"

#include <algorithm>

#include "memory.h"

namespace softgpu {

namespace {
// Accesses from here on are none of those that were released.
void tick(WarpOrder& order) {
    if (!order.touched) return;
    order.touched = false;
    ++order.now;
}
// The latest clock at which something was recorded: nothing at `now` unless it was touched.
Clock latest(const WarpOrder& order) { return order.touched ? order.now : order.now - 1; }
bool whole_warp(const Warp& w, Mask lanes) { return !(w.alive & ~lanes); }

// What the lanes release: all that the warp knows, and what they have done themselves.
void add_own(const Warp& w, Mask lanes, Clocks& to) {
    const WarpOrder& o = w.order;
    if (whole_warp(w, lanes)) return to.raise(o.agent, latest(o));
    to.raise(o.agent, o.synced - 1);
    to.raise_lanes(o.agent, lanes, latest(o));
}
}  // namespace

void sync_lanes(Warp& w, Mask members) {
    if (!races_checked(w)) return;
    WarpOrder& o = w.order;
    if (!whole_warp(w, members)) o.known.own.raise_lanes(o.agent, members, latest(o));
    tick(o);
    if (whole_warp(w, members)) {
        o.synced = o.now;
        if (!o.known.own.further.empty()) o.known.own.raise(o.agent, o.now - 1);
    }
}
void release_to(Warp& w, Mask lanes, Knowledge& to) {
    if (!races_checked(w)) return;
    to.join(w.order.known);
    add_own(w, lanes, to.own);
    tick(w.order);
}
void acquire_from(Warp& w, const Knowledge& from) {
    if (races_checked(w)) w.order.known.join(from);
}
void finish_unit(Warp& w, Unit unit, Clock clock) {
    if (races_checked(w) && clock) w.order.known.own.raise(agent_of(w, unit), clock);
}

// ---- fences and strong accesses
// --------------------------------------------------------------------------------------------
namespace {
ClusterClocks published(const Warp& w, Mask lanes) {
    Knowledge k = w.order.known;
    add_own(w, lanes, k.own);
    return k.published(w.order.cluster);
}
uint64_t domain(const Warp& w, MemoryScope scope) {   // who shares a scope narrower than the device
    return uint64_t(w.order.cluster) << 8 | (scope == MemoryScope::Cta ? w.cta->rank + 1 : 0);
}
ClusterClocks& part(SyncVariable& v, const Warp& w, MemoryScope scope) {
    if (scope >= MemoryScope::Gpu) return v.wide;
    const uint64_t id = domain(w, scope);
    for (auto& [known, clocks] : v.narrow) if (known == id) return clocks;
    return v.narrow.emplace_back(id, ClusterClocks{}).second;
}
}  // namespace

void fence(Warp& w, Mask lanes, MemoryScope scope) {
    if (!races_checked(w)) return;
    WarpOrder& o = w.order;
    if (!o.read.empty()) {
        o.known.join(o.read, o.cluster, scope < MemoryScope::Gpu);
        if (scope >= MemoryScope::Gpu) o.read.clear();
    }
    (scope >= MemoryScope::Gpu ? o.fenced_wide : o.fenced_narrow) = published(w, lanes);
    tick(o);
}

Strength take_strength(Decoder& d, Order otherwise) {
    Strength s;
    s.order = otherwise;
    if (d.take("weak")) s.order = Order::Weak;
    if (d.take("relaxed")) s.order = Order::Relaxed;
    if (d.take("acquire")) s.order = Order::Acquire;
    if (d.take("release")) s.order = Order::Release;
    if (d.take("acq_rel")) s.order = Order::AcqRel;
    if (d.take("volatile") || d.take("mmio")) s = {Order::Relaxed, MemoryScope::Sys};
    if (d.take("cta")) s.scope = MemoryScope::Cta;
    if (d.take("cluster")) s.scope = MemoryScope::Cluster;
    if (d.take("gpu")) s.scope = MemoryScope::Gpu;
    if (d.take("sys")) s.scope = MemoryScope::Sys;
    return s;
}

StrongAccess::StrongAccess(Warp& w, Mask lanes, Strength strength, Space space, uint64_t address, bool reads,
                           bool writes)
    : warp_(w), lanes_(lanes), strength_(strength), reads_(reads), writes_(writes) {
    if (!races_checked(w) || strength.order == Order::Weak || space == Space::Local) return;
    if (space == Space::Generic && (address & kWindowMask) == kSharedWindow) space = Space::Shared;
    // Shared addresses of different clusters are different variables.
    key_ = space == Space::Shared ? kSharedWindow | uint64_t(w.order.cluster) << 28 | shared_address(address) : address;
    lock_ = std::unique_lock(w.cta->grid->sync_variables->shard(key_).mutex);
}

StrongAccess::~StrongAccess() {
    if (!lock_.owns_lock()) return;
    WarpOrder& o = warp_.order;
    const Order order = strength_.order;
    auto& variables = warp_.cta->grid->sync_variables->shard(key_).at;
    const bool acquires = order == Order::Acquire || order == Order::AcqRel,
               releases = order == Order::Release || order == Order::AcqRel;
    if (reads_)
        if (const auto it = variables.find(key_); it != variables.end()) {
            const SyncVariable& v = it->second;
            const bool own_only = strength_.scope < MemoryScope::Gpu;
            if (acquires) o.known.join(v.wide, o.cluster, own_only);
            else join_clusters(o.read, v.wide);
            for (const auto& [id, clocks] : v.narrow)
                if (id == domain(warp_, MemoryScope::Cta) || id == domain(warp_, MemoryScope::Cluster)) {
                    if (acquires) o.known.join(clocks, o.cluster, own_only);
                    else join_clusters(o.read, clocks);
                }
        }
    if (!writes_) return;
    if (releases) {
        join_clusters(part(variables[key_], warp_, strength_.scope), published(warp_, lanes_));
        tick(o);
    } else {   // a fence before it makes it a release
        if (!o.fenced_wide.empty()) join_clusters(part(variables[key_], warp_, strength_.scope), o.fenced_wide);
        if (!o.fenced_narrow.empty())
            join_clusters(part(variables[key_], warp_, std::min(strength_.scope, MemoryScope::Cta)), o.fenced_narrow);
    }
}

}  // namespace softgpu
