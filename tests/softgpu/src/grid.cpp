// A launch: clusters spread over host threads, each started with its registers and memory as a GPU would.
#include <algorithm>
#include <bit>
#include <cstdio>
#include <exception>
#include <mutex>
#include <thread>

#include "happens_before.h"
#include "memory.h"
#include "scheduler.h"

namespace softgpu {

namespace {

uint64_t mix(uint64_t a, uint64_t b) {   // splitmix64 of both
    uint64_t z = a * 0x9e3779b97f4a7c15ull + b + 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// The value of a constant register for one lane.
uint64_t constant_value(const Constant& c, const Warp& w, uint32_t lane) {
    const Cta& cta = *w.cta;
    const Grid& grid = *cta.grid;
    const Dim3& block = grid.block;
    const Dim3& cl = grid.cluster;
    const uint64_t thread = uint64_t(w.index) * kWarpSize + lane;
    switch (c.kind) {
        case Constant::Kind::Bits32: case Constant::Kind::Bits64: case Constant::Kind::Pred: return c.bits;
        case Constant::Kind::TidX: return thread % block.x;
        case Constant::Kind::TidY: return thread / block.x % block.y;
        case Constant::Kind::TidZ: return thread / (uint64_t(block.x) * block.y);
        case Constant::Kind::NtidX: return block.x;
        case Constant::Kind::NtidY: return block.y;
        case Constant::Kind::NtidZ: return block.z;
        case Constant::Kind::CtaidX: return cta.id.x;
        case Constant::Kind::CtaidY: return cta.id.y;
        case Constant::Kind::CtaidZ: return cta.id.z;
        case Constant::Kind::NctaidX: return grid.grid.x;
        case Constant::Kind::NctaidY: return grid.grid.y;
        case Constant::Kind::NctaidZ: return grid.grid.z;
        case Constant::Kind::LaneId: return lane;
        case Constant::Kind::WarpId: return w.index;
        case Constant::Kind::NwarpId: return cta.warps.size();
        case Constant::Kind::SmId: return (cta.cluster->index * cl.count() + cta.rank) % grid.sm_count;
        case Constant::Kind::NsmId: return grid.sm_count;
        case Constant::Kind::GridId: return grid.id;
        case Constant::Kind::EnvReg1: return reinterpret_cast<uint64_t>(grid.workspace) >> 32;
        case Constant::Kind::EnvReg2: return reinterpret_cast<uint64_t>(grid.workspace) & 0xffffffffu;
        case Constant::Kind::LanemaskEq: return 1ull << lane;
        case Constant::Kind::LanemaskLt: return (1ull << lane) - 1;
        case Constant::Kind::LanemaskLe: return (2ull << lane) - 1;
        case Constant::Kind::LanemaskGt: return kAllLanes & ~((2ull << lane) - 1);
        case Constant::Kind::LanemaskGe: return kAllLanes & ~((1ull << lane) - 1);
        case Constant::Kind::DynamicSmemSize: return grid.dynamic_shared;
        case Constant::Kind::TotalSmemSize: case Constant::Kind::AggrSmemSize: return cta.shared.size();
        case Constant::Kind::SharedAddress: return (uint64_t(cta.rank) << kSharedRankShift) + c.bits;
        case Constant::Kind::LocalAddress: return c.bits;
        case Constant::Kind::ParamAddress: return reinterpret_cast<uint64_t>(grid.params) + c.bits;
        case Constant::Kind::ClusteridX: return cta.cluster->id.x;
        case Constant::Kind::ClusteridY: return cta.cluster->id.y;
        case Constant::Kind::ClusteridZ: return cta.cluster->id.z;
        case Constant::Kind::NclusteridX: return grid.grid.x / cl.x;
        case Constant::Kind::NclusteridY: return grid.grid.y / cl.y;
        case Constant::Kind::NclusteridZ: return grid.grid.z / cl.z;
        case Constant::Kind::ClusterCtaidX: return cta.id.x % cl.x;
        case Constant::Kind::ClusterCtaidY: return cta.id.y % cl.y;
        case Constant::Kind::ClusterCtaidZ: return cta.id.z % cl.z;
        case Constant::Kind::ClusterNctaidX: return cl.x;
        case Constant::Kind::ClusterNctaidY: return cl.y;
        case Constant::Kind::ClusterNctaidZ: return cl.z;
        case Constant::Kind::ClusterCtarank: return cta.rank;
        case Constant::Kind::ClusterNctarank: return cl.count();
        case Constant::Kind::IsExplicitCluster: return grid.explicit_cluster;
    }
    return 0;
}

void start_warp(Warp& w, Cta& cta, const Program& program, uint32_t index) {
    const bool fresh = w.program != &program || !w.regs_storage;
    w.cta = &cta;
    w.program = &program;
    w.index = index;
    w.cur = Fragment{};
    w.others.clear();
    w.merge_pc = UINT32_MAX;
    w.states = StateMap{};
    w.carry = 0;
    w.executed = 0;
    w.windows = {};
    w.order = WarpOrder{};
    w.order.cluster = static_cast<uint32_t>(cta.cluster->index);
    if (cta.grid->options.races) w.order.runs.assign(program.code.size(), 0);
    w.order.agent = cta.rank * static_cast<uint32_t>(cta.warps.size()) + index;
    const uint32_t first = index * kWarpSize;
    const uint32_t lanes = std::min<uint32_t>(kWarpSize, cta.threads - first);
    w.alive = lanes == kWarpSize ? kAllLanes : (1u << lanes) - 1;
    w.cur.mask = w.alive;
    if (fresh) {
        w.regs_storage.reset(new uint8_t[program.register_bytes + 64]);
        w.regs = w.regs_storage.get() + (64 - reinterpret_cast<uintptr_t>(w.regs_storage.get()) % 64);
    }
    std::memset(w.regs, 0xff, program.register_bytes);   // a register that nobody wrote is a NaN, -1, a wild address
    w.local.assign(static_cast<size_t>(program.local_bytes) * kWarpSize, kPoison);
    for (const Constant& c : program.constants) {
        if (c.width == 1) w.pred(c.slot) = static_cast<Mask>(c.bits);
        else if (c.width == 64)
            for (uint32_t l = 0; l < kWarpSize; ++l) w.r64(c.slot)[l] = constant_value(c, w, l);
        else if (c.kind == Constant::Kind::Bits32)
            for (uint32_t l = 0; l < kWarpSize; ++l) w.r32(c.slot)[l] = static_cast<uint32_t>(c.bits);
        else
            for (uint32_t l = 0; l < kWarpSize; ++l) w.r32(c.slot)[l] = static_cast<uint32_t>(constant_value(c, w, l));
    }
}

}  // namespace

void start_cluster(Cluster& cluster, Grid& grid, uint64_t index) {
    const Dim3& cl = grid.cluster;
    const uint64_t nx = grid.grid.x / cl.x, ny = grid.grid.y / cl.y;
    cluster.grid = &grid;
    cluster.index = index;
    cluster.id = {static_cast<uint32_t>(index % nx), static_cast<uint32_t>(index / nx % ny),
                  static_cast<uint32_t>(index / (nx * ny))};
    cluster.async = AsyncQueue{};
    cluster.instructions = 0;
    cluster.states = StateMap{};
    cluster.laggard = nullptr;
    cluster.lag_turns = 0;
    cluster.exit_checks.clear();
    cluster.reporters.clear();
    cluster.rng.seed(mix(mix(grid.options.seed, grid.id), index));
    static constexpr uint64_t kEarly[] = {8, 32, 2048,
                                          2048};  // half of all clusters: hardly ever before somebody waits
    cluster.early = kEarly[cluster.rng() % std::size(kEarly)];
    const auto threads = static_cast<uint32_t>(grid.block.count());
    const uint32_t warps = (threads + kWarpSize - 1) / kWarpSize;
    cluster.ctas.resize(cl.count());
    for (uint32_t rank = 0; rank < cluster.ctas.size(); ++rank) {
        if (!cluster.ctas[rank]) cluster.ctas[rank] = std::make_unique<Cta>();
        Cta& cta = *cluster.ctas[rank];
        cta.cluster = &cluster;
        cta.grid = &grid;
        cta.rank = rank;
        cta.id = {cluster.id.x * cl.x + rank % cl.x, cluster.id.y * cl.y + rank / cl.x % cl.y,
                  cluster.id.z * cl.z + rank / (cl.x * cl.y)};
        const size_t shared = static_cast<size_t>(grid.program->static_shared) + grid.dynamic_shared;
        cta.shared.assign(shared, kPoison);
        cta.shadow.assign(shared, kUnwritten);
        cta.barriers.fill(Barrier{});
        if (!cta.shared_shadow) {
            cta.shared_shadow = std::make_shared<LocalShadow>();
            cta.tensor_shadow = std::make_shared<LocalShadow>();
        }
        cta.states = StateMap{};
        cta.threads = cta.live_threads = threads;
        cta.warps.resize(warps);
        for (uint32_t i = 0; i < warps; ++i) {
            if (!cta.warps[i]) cta.warps[i] = std::make_unique<Warp>();
            start_warp(*cta.warps[i], cta, *grid.program, i);
        }
    }
}

namespace {

// One host thread's work: clusters from a shared counter. A cluster that runs long lets others start beside
// it, since it may be waiting for them through global memory.
class Worker {
public:
    Worker(Grid& grid, std::atomic<uint64_t>& next, uint64_t clusters)
        : grid_(grid),
          next_(next),
          clusters_(clusters),
          reached_(grid.program->code.size()),
          by_warp_(grid.by_warp.size()) {}

    void run() {
        const size_t most = grid_.cooperative ? SIZE_MAX : std::max<size_t>(1, grid_.sm_count / 2);
        while (!grid_.stop.load(std::memory_order_relaxed)) {
            if (active_.empty() || (waited_ && active_.size() < most)) start_next();
            if (active_.empty()) return;
            waited_ = false;
            std::unique_ptr<Cluster> cluster = std::move(active_.front());
            active_.pop_front();
            const uint64_t before = cluster->instructions;
            const bool done = guarded(*cluster);
            const uint64_t total = grid_.instructions += cluster->instructions - before;
            if (grid_.options.max_instructions && total > grid_.options.max_instructions) endless(*cluster);
            if (done) {
                count(*cluster);
                free_.push_back(std::move(cluster));
            } else {
                active_.push_back(std::move(cluster));
                waited_ = true;
            }
        }
    }

    // Adds what was counted to the grid's; one worker at a time.
    void report() const {
        for (size_t i = 0; i < reached_.size(); ++i) grid_.reached[i] |= reached_[i];
        for (size_t i = 0; i < by_warp_.size(); ++i) grid_.by_warp[i] += by_warp_[i];
    }

private:
    void count(const Cluster& cluster) {
        size_t i = 0;
        for (const auto& cta : cluster.ctas)
            for (const auto& warp : cta->warps) by_warp_[i++] += warp->executed;
    }
    void start_next() {
        const uint64_t index = next_.fetch_add(1);
        if (index >= clusters_) return;
        std::unique_ptr<Cluster> cluster;
        if (free_.empty()) cluster = std::make_unique<Cluster>();
        else {
            cluster = std::move(free_.back());
            free_.pop_back();
        }
        start_cluster(*cluster, grid_, index);
        cluster->reached = reached_.data();
        active_.push_front(std::move(cluster));
    }
    bool guarded(Cluster& cluster) {
        bool done = false;
        uint64_t bad = 0;
        // At a barrier of the whole grid a CTA spins for its turn.
        const uint64_t quantum = grid_.cooperative ? 1u << 10 : 1u << 18;
        run_with_segv_guard([&] { done = run_cluster(cluster, quantum); },
                            [&](uint64_t address) { bad = address ? address : 1; });
        if (bad) unmapped(cluster, bad);
        return done;
    }
    [[noreturn]] void unmapped(Cluster& cluster, uint64_t address) {
        const Warp& warp = *cluster.running;
        char text[24];
        std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(address));
        warp.fault(warp.program->code[warp.cur.pc], Fault::Kind::OutOfBounds,
                   std::string("touches global memory at ") + text + ", where the host has none mapped", -1, address);
    }
    [[noreturn]] void endless(Cluster& cluster) {
        Fault f;
        f.kind = Fault::Kind::InstructionLimit;
        f.kernel = grid_.program->kernel;
        f.cta = cluster.ctas[0]->id;
        f.report = where_everyone_is(cluster);
        f.message = "the launch ran " + std::to_string(grid_.instructions.load()) +
                    " warp instructions without ending (softgpu max_instructions)\n" + f.report;
        throw FaultError{f};
    }

    Grid& grid_;
    std::atomic<uint64_t>& next_;
    const uint64_t clusters_;
    std::deque<std::unique_ptr<Cluster>> active_;
    std::vector<std::unique_ptr<Cluster>> free_;
    bool waited_ = false;
    std::vector<uint8_t> reached_;
    std::vector<uint64_t> by_warp_;
};

}  // namespace

void run_grid(Grid& grid) {
    install_segv_handler();
    grid.bounds = BufferRegistry::instance().snapshot();
    grid.shadow = std::make_shared<GlobalShadow>();
    grid.sync_variables = std::make_shared<SyncVariables>();
    const uint64_t clusters = grid.grid.count() / grid.cluster.count();
    std::atomic<uint64_t> next{0};
    const unsigned hardware = std::max(1u, std::thread::hardware_concurrency());
    const uint64_t wanted = grid.options.threads ? grid.options.threads : hardware;
    const auto threads = static_cast<unsigned>(std::min<uint64_t>(wanted, clusters));
    grid.reached.assign(grid.program->code.size(), 0);
    grid.by_warp.assign(grid.cluster.count() * ((grid.block.count() + kWarpSize - 1) / kWarpSize), 0);
    std::mutex mutex;
    std::exception_ptr error;
    const auto work = [&] {
        Worker worker(grid, next, clusters);
        std::exception_ptr failure;
        try {
            worker.run();
        } catch (...) {
            failure = std::current_exception();
            grid.stop = true;
        }
        const std::lock_guard lock(mutex);
        worker.report();
        if (!error) error = failure;
    };
    std::vector<std::thread> helpers;
    for (unsigned i = 1; i < threads; ++i) helpers.emplace_back(work);
    work();
    for (auto& t : helpers) t.join();
    if (error) std::rethrow_exception(error);
}

}  // namespace softgpu
