// Joining vector clocks.
#include "clocks.h"

#include <algorithm>

namespace softgpu {

void Clocks::raise(uint32_t agent, Clock clock) {
    if (agent >= at.size()) at.resize(agent + 1);
    if (at[agent] >= clock) return;
    at[agent] = clock;
    if (!further.empty()) std::erase_if(further, [&](const Lanes& f) { return f.agent == agent && f.clock <= clock; });
}
void Clocks::raise_lanes(uint32_t agent, Mask lanes, Clock clock) {
    if (of(agent) >= clock) return;
    for (Lanes& f : further)
        if (f.agent == agent && f.lanes == lanes) {
            f.clock = std::max(f.clock, clock);
            return;
        }
    further.push_back({agent, lanes, clock});
}
void Clocks::join(const Clocks& other) {
    if (at.size() < other.at.size()) at.resize(other.at.size());
    for (size_t i = 0; i < other.at.size(); ++i) at[i] = std::max(at[i], other.at[i]);
    if (!further.empty()) std::erase_if(further, [&](const Lanes& f) { return of(f.agent) >= f.clock; });
    for (const Lanes& f : other.further) raise_lanes(f.agent, f.lanes, f.clock);
}
bool Clocks::contains(const Clocks& other) const {
    for (size_t i = 0; i < other.at.size(); ++i) if (of(static_cast<uint32_t>(i)) < other.at[i]) return false;
    for (const Lanes& f : other.further) if (!covers_all(f.agent, f.lanes, f.clock)) return false;
    return true;
}

const Clocks* find_cluster(const ClusterClocks& clocks, uint32_t cluster) {
    const auto it = std::lower_bound(clocks.begin(), clocks.end(), cluster,
                                     [](const auto& entry, uint32_t c) { return entry.first < c; });
    return it != clocks.end() && it->first == cluster ? it->second.get() : nullptr;
}

void join_clusters(ClusterClocks& to, const ClusterClocks& from) {
    auto at = to.begin();
    for (const auto& [cluster, clocks] : from) {
        while (at != to.end() && at->first < cluster) ++at;
        if (at == to.end() || at->first != cluster) at = to.insert(at, {cluster, clocks});
        else if (at->second != clocks && !at->second->contains(*clocks)) {
            if (clocks->contains(*at->second)) at->second = clocks;
            else {
                auto both = std::make_shared<Clocks>(*at->second);
                both->join(*clocks);
                at->second = std::move(both);
            }
        }
        ++at;
    }
}

namespace {
bool contains(const ClusterClocks& all, const ClusterClocks& part, uint32_t but = UINT32_MAX) {
    for (const auto& [cluster, clocks] : part) {
        if (cluster == but) continue;
        const Clocks* known = find_cluster(all, cluster);
        if (!known || (known != clocks.get() && !known->contains(*clocks))) return false;
    }
    return true;
}
void join_shared(std::shared_ptr<const ClusterClocks>& to, const std::shared_ptr<const ClusterClocks>& from) {
    if (!from || to == from) return;
    if (!to || contains(*from, *to)) { to = from; return; }
    if (contains(*to, *from)) return;
    auto both = std::make_shared<ClusterClocks>(*to);
    join_clusters(*both, *from);
    to = std::move(both);
}
}  // namespace

void Knowledge::join(const Knowledge& other) {
    own.join(other.own);
    join_shared(others, other.others);
}
void Knowledge::join(const ClusterClocks& from, uint32_t own_cluster, bool own_only) {
    if (const Clocks* mine = find_cluster(from, own_cluster)) own.join(*mine);
    if (own_only || contains(others ? *others : ClusterClocks{}, from, own_cluster)) return;
    auto both = others ? std::make_shared<ClusterClocks>(*others) : std::make_shared<ClusterClocks>();
    join_clusters(*both, from);
    std::erase_if(*both, [&](const auto& entry) { return entry.first == own_cluster; });
    others = std::move(both);
}
ClusterClocks Knowledge::published(uint32_t own_cluster) const {
    ClusterClocks all = others ? *others : ClusterClocks{};
    join_clusters(all, {{own_cluster, std::make_shared<const Clocks>(own)}});
    return all;
}

}  // namespace softgpu
