// The order of launches on different streams, and what each of them touched.
#include "driver_streams.h"

#include <algorithm>
#include <mutex>

#include "over_forks.h"
#include "race_report.h"

namespace softgpu {

namespace {

struct PastLaunch {
    uint64_t stream, number;
    std::shared_ptr<const Program> program;
    LaunchShape shape;
    std::vector<LaunchAccess> accesses;   // by address
};

struct Shared {
    std::mutex mutex;
    StreamOrder null_stream;
    StreamClock host;                     // what the host has waited for: before all that it asks for next
    uint64_t ids = 0;
    std::vector<PastLaunch> past;         // that somebody may still race with
    Shared() { hold_over_forks(mutex, ForkOrder::Streams); }
};
Shared& shared() {
    static Shared* s = new Shared;
    return *s;
}
thread_local StreamOrder* t_current = nullptr;

constexpr size_t kMostLaunches = 64;      // remembered; a race with an older one is not seen

void join(StreamClock& to, const StreamClock& from) {
    for (const auto& [stream, number] : from) to[stream] = std::max(to[stream], number);
}
bool knows(const StreamClock& clock, uint64_t stream, uint64_t number) {
    const auto it = clock.find(stream);
    return it != clock.end() && it->second >= number;
}

// Neighbouring cells that one instruction accessed in the same way, as one range.
void join_neighbours(std::vector<LaunchAccess>& all) {
    std::sort(all.begin(), all.end(), [](const LaunchAccess& a, const LaunchAccess& b) { return a.start < b.start; });
    size_t n = 0;
    for (const LaunchAccess& a : all) {
        if (n) {
            LaunchAccess& last = all[n - 1];
            if (last.end == a.start && last.write == a.write && last.strong == a.strong && last.pc == a.pc &&
                last.serial == a.serial) {
                last.end = a.end;
                continue;
            }
        }
        all[n++] = a;
    }
    all.resize(n);
}

}  // namespace

StreamClock work_of(const StreamOrder& stream) {
    const std::lock_guard lock(shared().mutex);
    StreamClock clock = stream.known;
    clock[stream.id] = stream.now;
    return clock;
}
void wait_for(StreamOrder& stream, const StreamClock& clock) {
    const std::lock_guard lock(shared().mutex);
    join(stream.known, clock);
}
uint64_t new_stream_id() {
    const std::lock_guard lock(shared().mutex);
    return ++shared().ids;
}
StreamOrder& null_stream_order() { return shared().null_stream; }
void forget_streams() {
    const std::lock_guard lock(shared().mutex);
    shared().past.clear();
}
void host_waits_for(const StreamClock& clock) {
    const std::lock_guard lock(shared().mutex);
    join(shared().host, clock);
    std::erase_if(shared().past, [](const PastLaunch& p) { return knows(shared().host, p.stream, p.number); });
}

StreamWork::StreamWork(StreamOrder& stream) : before_(t_current) {
    const std::lock_guard lock(shared().mutex);
    join(stream.known, shared().host);
    ++stream.now;
    t_current = &stream;
}
StreamWork::~StreamWork() { t_current = static_cast<StreamOrder*>(const_cast<void*>(before_)); }

void check_other_streams(const Grid& grid, std::shared_ptr<const Program> program) {
    Shared& s = shared();
    const std::lock_guard lock(s.mutex);
    if (!t_current || (s.ids == 0 && s.past.empty())) return;   // there has only ever been the null stream
    PastLaunch mine{t_current->id, t_current->now, std::move(program), shape_of(grid), {}};
    mine.accesses = accesses_of(grid);
    join_neighbours(mine.accesses);
    for (const PastLaunch& other : s.past) {
        if (other.stream == mine.stream || knows(t_current->known, other.stream, other.number)) continue;
        size_t from = 0;
        for (const LaunchAccess& a : mine.accesses) {
            while (from < other.accesses.size() && other.accesses[from].end <= a.start) ++from;
            for (size_t i = from; i < other.accesses.size() && other.accesses[i].start < a.end; ++i) {
                const LaunchAccess& b = other.accesses[i];
                if (b.end <= a.start || (!a.write && !b.write) || (a.strong && b.strong) || a.serial != b.serial)
                    continue;
                report_stream_race(grid, *mine.program, mine.shape, a, *other.program, other.shape, b);
            }
        }
    }
    if (s.past.size() >= kMostLaunches) s.past.erase(s.past.begin());
    s.past.push_back(std::move(mine));
}

}  // namespace softgpu
