// What orders launches: streams, events and the host's waits; and races between launches that nothing orders.
//
// Launches are done one after the other here, so this is the only way in which a missing wait between two streams
// shows.
#pragma once
#include <cstdint>
#include <map>
#include <memory>

#include "machine.h"

namespace softgpu {

// By stream (0: the null stream) the number of its latest work that is known to have happened.
using StreamClock = std::map<uint64_t, uint64_t>;

struct StreamOrder {
    uint64_t id = 0;
    uint64_t now = 0;          // number of its latest work
    StreamClock known;         // before what comes next
};

// These lock: streams are used from several threads.
StreamClock work_of(const StreamOrder& stream);          // all its work so far, and what came before
void wait_for(StreamOrder& stream, const StreamClock& clock);
uint64_t new_stream_id();
StreamOrder& null_stream_order();
void forget_streams();                                   // every work so far has happened before whatever comes
void host_waits_for(const StreamClock& clock);           // a synchronising call has returned

// New work begins on a stream; a launch that runs while the object lives is that work.
class StreamWork {
public:
    explicit StreamWork(StreamOrder& stream);
    ~StreamWork();
    StreamWork(const StreamWork&) = delete;
    StreamWork& operator=(const StreamWork&) = delete;

private:
    const void* before_;
};
// A launch has run as the current work: faults if it touched what unordered work on another stream did.
void check_other_streams(const Grid& grid, std::shared_ptr<const Program> program);

}  // namespace softgpu
