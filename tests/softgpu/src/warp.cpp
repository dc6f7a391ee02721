// A warp: its fragments (divergence and reconvergence), starting it, and faults with their place.
#include <bit>

#include "calls.h"
#include "machine.h"

namespace softgpu {

const char* fault_kind_name(Fault::Kind kind) {
    switch (kind) {
        case Fault::Kind::Misaligned: return "misaligned_access";
        case Fault::Kind::OutOfBounds: return "out_of_bounds";
        case Fault::Kind::Uninitialised: return "uninitialised_read";
        case Fault::Kind::InFlight: return "read_before_async_copy_done";
        case Fault::Kind::Deadlock: return "deadlock";
        case Fault::Kind::UnknownOpcode: return "unknown_opcode";
        case Fault::Kind::BadPtx: return "bad_ptx";
        case Fault::Kind::Trap: return "trap";
        case Fault::Kind::Assert: return "device_assert";
        case Fault::Kind::IllegalInstruction: return "illegal_instruction";
        case Fault::Kind::Unsupported: return "unsupported";
        case Fault::Kind::InstructionLimit: return "instruction_limit";
        case Fault::Kind::SyncMisuse: return "sync_misuse";
        case Fault::Kind::Race: return "data_race";
    }
    return "?";
}

void Warp::fault(const Instr& in, Fault::Kind kind, const std::string& message, int lane, uint64_t address) const {
    Fault f;
    f.kind = kind;
    f.message = message;
    f.kernel = program->kernel;
    const Program::Source& source = program->sources[in.source];
    f.opcode = source.opcode;
    f.ptx = source.text;
    f.line = source.line;
    f.location = source.location;
    f.cta = cta->id;
    f.warp = static_cast<int>(index);
    f.lane = lane;
    f.address = address;
    throw FaultError{f};
}

namespace {
void update_merge_pc(Warp& w) {
    w.merge_pc = UINT32_MAX;
    for (const auto& f : w.others) w.merge_pc = std::min(w.merge_pc, f.pc);
}
}  // namespace

Flow Warp::branch(Mask m, uint32_t target) {
    const Mask rest = cur.mask & ~m;
    cur.token = 0;
    if (!rest) {
        cur.pc = target;
        return Flow::Jump;
    }
    Fragment other;
    other.mask = rest;
    other.pc = cur.pc + 1;
    cur.mask = m;
    cur.pc = target;
    if (other.pc < cur.pc) std::swap(cur, other);   // the one furthest behind goes first
    others.push_back(other);
    update_merge_pc(*this);
    return Flow::Jump;
}

Flow Warp::exit_lanes(Mask m) {
    alive &= ~m;
    cta->live_threads -= static_cast<uint32_t>(std::popcount(m));
    cur.mask &= ~m;
    if (cur.mask) ++cur.pc;
    else if (!others.empty()) {
        size_t best = 0;
        for (size_t i = 1; i < others.size(); ++i)
            if (others[i].pc < others[best].pc) best = i;
        cur = others[best];
        others.erase(others.begin() + static_cast<std::ptrdiff_t>(best));
        update_merge_pc(*this);
    }
    return Flow::Jump;
}

Flow exec_branch(Warp& w, const Instr& in, Mask m) { return w.branch(m, in.target); }
Flow exec_exit(Warp& w, const Instr&, Mask m) { return w.exit_lanes(m); }

}  // namespace softgpu
