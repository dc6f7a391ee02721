// Vector clocks: what has happened before a point of a warp's execution.
//
// An *agent* is what acts on its own: the threads of a warp, or one of the asynchronous units that work for it. Its
// clock counts its releases, so that "everything agent 3 did up to clock 7" can be said in one number. Agents are
// numbered within a cluster; what is known of other clusters is kept by cluster, and shared between all who learned it
// together.
//
// Not here: which instructions make such an edge (happens_before.h) and who is checked against whom (races.h).
#pragma once
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace softgpu {

using Mask = uint32_t;    // one bit a lane
using Clock = uint32_t;

// Up to where the agents of one cluster are known.
struct Clocks {
    struct Lanes { uint32_t agent; Mask lanes; Clock clock; };
    std::vector<Clock> at;          // by agent; 0 beyond its end
    std::vector<Lanes> further;     // single threads that are known further than their warp

    Clock of(uint32_t agent) const { return agent < at.size() ? at[agent] : 0; }
    // Whether what all (any) of the agent's lanes did at this clock has happened before.
    bool covers_all(uint32_t agent, Mask lanes, Clock clock) const {
        return of(agent) >= clock || !(lanes & ~further_lanes(agent, clock));
    }
    bool covers_any(uint32_t agent, Mask lanes, Clock clock) const {
        return of(agent) >= clock || (lanes & further_lanes(agent, clock));
    }
    void raise(uint32_t agent, Clock clock);
    void raise_lanes(uint32_t agent, Mask lanes, Clock clock);
    void join(const Clocks& other);
    bool contains(const Clocks& other) const;

private:
    Mask further_lanes(uint32_t agent, Clock clock) const {
        Mask found = 0;
        for (const Lanes& f : further) if (f.agent == agent && f.clock >= clock) found |= f.lanes;
        return found;
    }
};

// Of clusters by their index, ascending.
using ClusterClocks = std::vector<std::pair<uint32_t, std::shared_ptr<const Clocks>>>;
const Clocks* find_cluster(const ClusterClocks& clocks, uint32_t cluster);
void join_clusters(ClusterClocks& to, const ClusterClocks& from);

// What has happened before, of a warp's own cluster and of others.
struct Knowledge {
    Clocks own;
    std::shared_ptr<const ClusterClocks> others;   // null: nothing
    void join(const Knowledge& other);             // of the same cluster
    // `from` may speak of the own cluster too. With `own_only` nothing else is taken over.
    void join(const ClusterClocks& from, uint32_t own_cluster, bool own_only = false);
    ClusterClocks published(uint32_t own_cluster) const;
};

}  // namespace softgpu
