// The words for a race.
#include "race_report.h"

#include <algorithm>
#include <bit>
#include <cstdio>

namespace softgpu {

namespace {

constexpr const char* kUnits[] = {"",        "cp.async, ", "bulk copy (its reads), ", "bulk copy (its writes), ",
                                  "wgmma, ", "tcgen05, "};

std::string text_of(const Dim3& d) {
    return "(" + std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z) + ")";
}

Dim3 cta_of(const LaunchShape& grid, uint32_t cluster, uint32_t rank) {
    const Dim3& cl = grid.cluster;
    const uint32_t nx = grid.grid.x / cl.x, ny = grid.grid.y / cl.y;
    return {cluster % nx * cl.x + rank % cl.x, cluster / nx % ny * cl.y + rank / cl.x % cl.y,
            cluster / (nx * ny) * cl.z + rank / (cl.x * cl.y)};
}

// Who made an access: the place, and the words for it.
Fault::Place place_of(const Program& program, const LaunchShape& grid, uint32_t cluster, uint32_t agent, Mask lanes,
                      Clock clock, uint32_t pc, std::string& who) {
    const auto ctas = static_cast<uint32_t>(grid.cluster.count()), warps = grid.warps;
    Fault::Place p;
    const uint32_t unit = agent / (ctas * warps), owner = agent % (ctas * warps);
    if (pc < program.code.size()) {
        const Program::Source& source = program.sources[program.code[pc].source];
        p.line = source.line;
        p.opcode = source.opcode;
        p.ptx = source.text;
        p.location = source.location;
    }
    if (unit >= static_cast<uint32_t>(Unit::Count)) {
        p.cta = cta_of(grid, cluster, 0);
        who = "an asynchronous copy into CTA " + text_of(p.cta) + (ctas > 1 ? "'s cluster" : "");
    } else {
        p.cta = cta_of(grid, cluster, owner / warps);
        p.warp = static_cast<int>(owner % warps);
        if (unit == 0 && !(lanes & (lanes - 1))) p.lane = std::countr_zero(lanes);
        who = unit ? std::string("the ") + kUnits[unit] : "";
        if (unit) who += "group " + std::to_string(clock) + " of ";
        who += "CTA " + text_of(p.cta) + " warp " + std::to_string(p.warp) +
               (p.lane >= 0 ? " lane " + std::to_string(p.lane) + " (thread " +
                                  std::to_string(p.warp * kWarpSize + p.lane) + ")"
                            : "");
    }
    who += ", PTX line " + std::to_string(p.line) + ": " + p.ptx;
    if (!p.location.empty()) who += " [" + p.location + "]";
    return p;
}

const char* verb(Touch touch) { return touch == Touch::Read ? "reads" : touch == Touch::Write ? "writes" : "updates"; }

}  // namespace

LaunchShape shape_of(const Grid& grid) {
    return {grid.grid, grid.cluster, static_cast<uint32_t>((grid.block.count() + kWarpSize - 1) / kWarpSize)};
}

std::vector<LaunchAccess> accesses_of(const Grid& grid) {
    std::vector<LaunchAccess> all;
    grid.shadow->each([&](const AccessRecord& r, uint64_t address, uint32_t bytes, bool write) {
        all.push_back({address, address + bytes, grid.bounds->serial_of(address), write, r.strong != 0, r.cluster1 - 1,
                       r.agent, r.pc, r.lanes, r.clock});
    });
    return all;
}

void report_stream_race(const Grid& grid, const Program& program, const LaunchShape& shape, const LaunchAccess& now,
                        const Program& other_program, const LaunchShape& other_shape, const LaunchAccess& before) {
    std::string here, there;
    const Fault::Place mine = place_of(program, shape, now.cluster, now.agent, now.lanes, now.clock, now.pc, here);
    auto other = std::make_shared<Fault::Place>(place_of(other_program, other_shape, before.cluster, before.agent,
                                                         before.lanes, before.clock, before.pc, there));
    other->access = before.write ? "write" : "read";
    const uint64_t address = std::max(now.start, before.start);
    char at[64];
    std::snprintf(at, sizeof at, "%u bytes of global memory at 0x%llx",
                  static_cast<unsigned>(std::min(now.end, before.end) - address),
                  static_cast<unsigned long long>(address));
    Fault f;
    f.kind = Fault::Kind::Race;
    f.message = std::string("two accesses to ") + at + " by launches on different streams, in no order: " + here +
                (now.write ? " writes" : " reads") + " what kernel " + other_program.kernel + ", " + there +
                (before.write ? " writes" : " reads") +
                "; an event, or a wait of the host, is missing between the two (" + grid.bounds->name_of(address) + ")";
    f.kernel = program.kernel;
    f.opcode = mine.opcode;
    f.ptx = mine.ptx;
    f.line = mine.line;
    f.location = mine.location;
    f.cta = mine.cta;
    f.warp = mine.warp;
    f.lane = mine.lane;
    f.address = address;
    f.other = std::move(other);
    throw FaultError{f};
}

void report_race(const Actor& now, Touch touch, const AccessRecord& before, Touch before_touch, Space space,
                 uint64_t address, uint32_t bytes) {
    const Warp& w = *now.warp;
    const Grid& grid = *w.cta->grid;
    std::string here, there;
    const auto pc = static_cast<uint32_t>(now.instr - w.program->code.data());
    const Fault::Place mine =
        place_of(*w.program, shape_of(grid), w.order.cluster, now.agent, now.lanes, now.clock, pc, here);
    auto other = std::make_shared<Fault::Place>(place_of(*w.program, shape_of(grid), before.cluster1 - 1, before.agent,
                                                         before.lanes, before.clock, before.pc, there));
    other->access = before.strong && before_touch == Touch::Write ? "update"
                    : before_touch == Touch::Read                 ? "read"
                                                                  : "write";
    char at[64];
    if (space == Space::Tensor)
        std::snprintf(at, sizeof at, "lanes %u.. of column %u of TMEM", static_cast<unsigned>(address % 8 * 16),
                      static_cast<unsigned>(address / 8));
    else
        std::snprintf(at, sizeof at, "%u bytes of %s memory at 0x%llx", bytes,
                      space == Space::Shared ? "shared" : "global", static_cast<unsigned long long>(address));
    const bool same_cta = other->cta.x == mine.cta.x && other->cta.y == mine.cta.y && other->cta.z == mine.cta.z;
    const char* advice =
        "nothing orders blocks of a launch but atomics with .acquire and .release (or fences) and a barrier of the "
        "grid";
    if (before.cluster1 == w.order.cluster + 1)
        advice = "a barrier of the cluster, or an mbarrier, is missing between the two";
    if (same_cta) advice = "a barrier (bar.sync; tl.debug_barrier) is missing between the two, or a wait";
    if (same_cta && other->warp == mine.warp && other->warp >= 0)
        advice =
            "lanes of a warp are in no order either, but for bar.warp.sync, a barrier or another .sync instruction";
    Fault f;
    f.kind = Fault::Kind::Race;
    f.message = std::string("two accesses to ") + at + " in no order: " + here + " " + verb(touch) + " what " + there +
                " " + verb(before_touch) + "; " + advice;
    if (space == Space::Global) {
        const std::string storage = grid.bounds->name_of(address);
        if (!storage.empty()) f.message += " (" + storage + ")";
    }
    f.kernel = w.program->kernel;
    f.opcode = mine.opcode;
    f.ptx = mine.ptx;
    f.line = mine.line;
    f.location = mine.location;
    f.cta = mine.cta;
    f.warp = mine.warp;
    f.lane = mine.lane;
    f.address = address;
    f.other = std::move(other);
    throw FaultError{f};
}

}  // namespace softgpu
