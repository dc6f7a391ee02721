// The interpreter loop. Warps of a cluster run in turns of random length and order, drawn from the launch's
// seed, so that code which relies on an order no barrier enforces shows itself; asynchronous operations
// complete in between or, at the latest, when nobody else can move.
#include "scheduler.h"

#include <algorithm>
#include <bit>
#include <cstdio>

namespace softgpu {

// ---- asynchronous operations ------------------------------------------------------------------------------------
void AsyncQueue::complete_at(size_t index) {
    const AsyncOp op = std::move(ops_[index]);
    ops_.erase(ops_.begin() + static_cast<std::ptrdiff_t>(index));
    op.complete();   // may push new operations
}
bool AsyncQueue::complete_one(std::mt19937_64& rng) {
    if (ops_.empty()) return false;
    size_t pick = rng() % ops_.size();
    if (ops_[pick].order)   // the oldest of its ordered chain goes first
        for (size_t i = 0; i < pick; ++i)
            if (ops_[i].order == ops_[pick].order) { pick = i; break; }
    complete_at(pick);
    return true;
}
void AsyncQueue::complete_if(const std::function<bool(const AsyncOp&)>& match) {
    for (size_t i = 0; i < ops_.size();) {
        if (match(ops_[i])) complete_at(i);
        else ++i;
    }
}

bool Cluster::done() const {
    for (const auto& cta : ctas) if (cta->live_threads) return false;
    return true;
}

// ---- one warp ---------------------------------------------------------------------------------------------------
namespace {

// Merges fragments that stand where the running one does, then lets the one furthest behind run, unless
// `keep` asks to stay with this one for fairness (another lane may wait for it in a loop).
void reconverge(Warp& w, bool keep) {
    for (size_t i = 0; i < w.others.size();) {
        const Fragment& f = w.others[i];
        if (f.pc == w.cur.pc && f.token == 0 && w.cur.token == 0) {
            w.cur.mask |= f.mask;
            w.cur.wait_what = nullptr;
            w.others.erase(w.others.begin() + static_cast<std::ptrdiff_t>(i));
        } else ++i;
    }
    if (!keep) {
        size_t best = w.others.size();
        for (size_t i = 0; i < w.others.size(); ++i)
            if (!w.others[i].wait_what && w.others[i].pc < w.cur.pc &&
                (best == w.others.size() || w.others[i].pc < w.others[best].pc))
                best = i;
        if (best < w.others.size()) std::swap(w.cur, w.others[best]);
    }
    w.merge_pc = UINT32_MAX;
    for (const auto& f : w.others) w.merge_pc = std::min(w.merge_pc, f.pc);
}

// After a Retry: a fragment that has not been tried since, or false.
bool next_fragment(Warp& w) {
    size_t best = w.others.size();
    for (size_t i = 0; i < w.others.size(); ++i)
        if (!w.others[i].wait_what && (best == w.others.size() || w.others[i].pc < w.others[best].pc)) best = i;
    if (best == w.others.size()) return false;
    std::swap(w.cur, w.others[best]);
    reconverge(w, true);
    return true;
}

// Runs one warp for at most `budget` instructions; returns how many did something.
uint64_t step_warp(Warp& w, uint64_t budget, bool fair) {
    uint8_t* reached = w.cta->cluster->reached;
    const Instr* code = w.program->code.data();
    if (!w.others.empty()) {   // everyone who waited may try again
        w.cur.wait_what = nullptr;
        for (auto& f : w.others) f.wait_what = nullptr;
    }
    uint64_t executed = 0;
    while (budget-- > 0) {
        if (w.cur.pc >= w.merge_pc) reconverge(w, fair);
        const Instr& in = code[w.cur.pc];
        Mask m = w.cur.mask;
        if (in.guard != kNoSlot) {
            const Mask p = w.pred(in.guard);
            m &= in.guard_negated ? ~p : p;
            if (!m) {
                ++w.cur.pc;
                ++executed;
                continue;
            }
        }
        reached[&in - code] = 1;
        switch (in.fn(w, in, m)) {
            case Flow::Next:
                ++w.cur.pc;
                ++executed;
                break;
            case Flow::Jump:
                ++executed;
                if (w.done()) return executed;
                break;
            case Flow::Yield:
                ++w.cur.pc;
                return executed + 1;
            case Flow::Retry:
                if (!next_fragment(w)) return executed;
                break;
        }
    }
    return executed;
}
uint64_t run_warp(Warp& w, uint64_t budget, bool fair) {
    const uint64_t executed = step_warp(w, budget, fair);
    w.executed += executed;
    return executed;
}

// All threads have exited. Stores to global memory may still be on their way out; what touches shared memory or
// TMEM may not.
void finish(Cluster& cluster) {
    for (const auto& op : cluster.async.pending())
        if (op.issuer)
            op.issuer->fault(*op.instr, Fault::Kind::InFlight,
                             op.what + " is still in flight when the kernel ends: a wait for it is missing");
    cluster.async.complete_if([](const AsyncOp&) { return true; });
    for (const auto& check : cluster.exit_checks) check();
}

// Every now and then another warp, or none, falls behind: what is reused too early shows then.
void choose_laggard(Cluster& cluster, const std::vector<Warp*>& turn) {
    if (cluster.laggard && cluster.laggard->done()) cluster.lag_turns = 0;
    if (cluster.lag_turns-- > 0) return;
    const uint64_t r = cluster.rng();
    cluster.lag_turns = 32u << (r >> 16 & 7);   // 32 .. 4096
    cluster.laggard = turn.size() > 1 && ((r >> 2) & 1) ? turn[(r >> 8) % turn.size()] : nullptr;
    cluster.lag_behind_async = (r >> 3) & 1;
}

std::string dim_text(const Dim3& d) {
    return "(" + std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z) + ")";
}

}  // namespace

std::string where_everyone_is(const Cluster& cluster) {
    std::string text;
    for (const auto& cta : cluster.ctas)
        for (const auto& warp : cta->warps) {
            if (warp->done()) {
                text += "CTA " + dim_text(cta->id) + " warp " + std::to_string(warp->index) + ": finished\n";
                continue;
            }
            std::vector<Fragment> fragments = warp->others;
            fragments.insert(fragments.begin(), warp->cur);
            for (const auto& f : fragments) {
                const auto& source = warp->program->sources[warp->program->code[f.pc].source];
                char lanes[16];
                std::snprintf(lanes, sizeof lanes, "%08x", f.mask);
                text +=
                    "CTA " + dim_text(cta->id) + " warp " + std::to_string(warp->index) + " lanes " + lanes + ": " +
                    (f.wait_what ? std::string("waits for ") + f.wait_what + " " + std::to_string(f.wait_arg) : "at") +
                    ", PTX line " + std::to_string(source.line) + ": " + source.text + "\n";
            }
        }
    for (const auto& op : cluster.async.pending()) text += "in flight: " + op.what + "\n";
    for (const auto& report : cluster.reporters) report(text);
    return text;
}

bool run_cluster(Cluster& cluster, uint64_t quantum) {
    std::vector<Warp*> turn;
    Grid& grid = *cluster.grid;
    const uint64_t start = cluster.instructions;
    while (cluster.instructions - start < quantum) {
        turn.clear();
        for (const auto& cta : cluster.ctas)
            for (const auto& warp : cta->warps)
                if (!warp->done()) turn.push_back(warp.get());
        if (turn.empty()) {
            finish(cluster);
            return true;
        }
        if (grid.stop.load(std::memory_order_relaxed)) return true;
        std::shuffle(turn.begin(), turn.end(), cluster.rng);
        choose_laggard(cluster, turn);
        uint64_t moved = 0;
        const auto run = [&](Warp* warp) {
            const uint64_t r = cluster.rng();
            const uint64_t budget = 16u << (r & 7);                         // 16 .. 2048
            const bool fair = !warp->others.empty() && ((r >> 8) & 7) == 0;
            if (fair) {
                std::swap(warp->cur, warp->others[(r >> 16) % warp->others.size()]);
                warp->merge_pc = 0;   // have it looked at
            }
            cluster.running = warp;
            moved += run_warp(*warp, budget, fair);
            if (!cluster.async.empty() && (r >> 24) % cluster.early == 0) cluster.async.complete_one(cluster.rng);
        };
        for (Warp* warp : turn)
            if (warp != cluster.laggard) run(warp);
        if (moved == 0 && cluster.laggard && !(cluster.lag_behind_async && !cluster.async.empty()))
            run(cluster.laggard);
        cluster.instructions += moved;
        if (moved == 0 && !cluster.async.complete_one(cluster.rng)) {
            // A fragment chosen for fairness may have hidden one that can run: only a full turn counts.
            bool stuck = true;
            for (Warp* warp : turn) {
                cluster.running = warp;
                const uint64_t n = run_warp(*warp, 64, false);
                cluster.instructions += n;
                if (n) stuck = false;
            }
            if (!stuck) continue;
            const Warp& first = *turn.front();
            Fault f;
            f.kind = Fault::Kind::Deadlock;
            f.kernel = grid.program->kernel;
            f.cta = first.cta->id;
            f.warp = static_cast<int>(first.index);
            const auto& source = grid.program->sources[grid.program->code[first.cur.pc].source];
            f.line = source.line;
            f.ptx = source.text;
            f.opcode = source.opcode;
            f.report = where_everyone_is(cluster);
            f.message = "no warp can move and nothing is in flight: every warp waits for another\n" + f.report;
            throw FaultError{f};
        }
    }
    return false;
}

}  // namespace softgpu
