// The machine that runs decoded PTX: lanes, warps, CTAs, clusters, a grid; memory spaces; faults.
//
// HOW TO ADD A TABLE OF OPCODES (ops_xyz.cpp)
//   1. Write a decode function per opcode family:
//          void decode_foo(Decoder& d, Instr& in) {
//              const Type t = d.take_type();              // consumes ".f32" from the modifiers
//              d.take("sync");                            // optional modifier: true if it was there
//              in.dst = d.dst(0, t); in.a = d.src(1, t);  // operands -> byte offsets of registers
//              in.fn = exec_foo;
//          }
//      A modifier that nobody takes is an error that names it: never ignore one by accident.
//   2. Write the execute function: Flow exec_foo(Warp& w, const Instr& in, Mask m). It handles all
//      lanes of `m` (never 0) at once. `w.r32(in.a)[lane]`, `w.r64(..)`, `w.pred(..)` (a lane mask).
//      Write results only for lanes in `m` (lanes.h: blend()). Return
//        Flow::Next   done, go on with the next instruction
//        Flow::Jump   the function has set w.cur.pc itself
//        Flow::Retry  cannot proceed yet: the *same* instruction runs again later, other warps first.
//                     Remember across retries in w.cur.token (0 when the instruction first runs; set it back
//                     to 0 before returning Next); say what is waited for with w.wait_for(...). If no warp of
//                     the cluster can move and nothing asynchronous is pending, that is a deadlock and
//                     the report prints those texts.
//        Flow::Yield  as Next, but let the other warps run first
//      A fault is `w.fault(in, Fault::Kind::..., "text")`, which throws.
//   3. Rows:  const OpRow kFooOps[] = {{"foo", decode_foo}, {"foo.bar", decode_foo_bar}};
//      The longest dotted prefix wins. Add the table to the list in opcode_table.cpp. Nothing else.
//   State of your own: `w.cta->state<MyCtaState>()`, `w.cta->cluster->state<MyClusterState>()` make one
//   object of that type per CTA / cluster on first use (default constructed), freed with it.
//   Asynchronous work: `w.cta->cluster->async.push({what, complete, group})`: `complete()` runs at some
//   later, seeded random moment, or when every warp waits (memory.h poisons what it will write until then).
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <typeindex>
#include <unordered_map>
#include <vector>

#include "bounds.h"
#include "clocks.h"
#include "ptx_parser.h"

namespace softgpu {

constexpr int kWarpSize = 32;
constexpr Mask kAllLanes = 0xffffffffu;
using Slot = uint32_t;               // byte offset of a register in the warp's register file
constexpr Slot kNoSlot = 0xffffffffu;

struct Dim3 { uint32_t x = 1, y = 1, z = 1; uint64_t count() const { return uint64_t(x) * y * z; } };

// ---- generic addresses ------------------------------------------------------------------------------
// Global, const and kernel-parameter addresses are host addresses. Shared and local memory are seen by
// generic pointers through two windows that no host address lies in. A shared address is
// CTA rank in cluster << 24 | offset, in the shared::cta window as well (so mapa only sets bits 24..31).
constexpr uint64_t kSharedWindow = 1ull << 60;
constexpr uint64_t kLocalWindow = 2ull << 60;
constexpr uint64_t kWindowMask = 15ull << 60;
constexpr int kSharedRankShift = 24;
constexpr uint32_t kSharedOffsetMask = (1u << kSharedRankShift) - 1;

enum class Space : uint8_t { Generic, Global, Shared, Local, Param, Const, Tensor };

// ---- faults -----------------------------------------------------------------------------------------
struct Fault {
    enum class Kind {
        Misaligned, OutOfBounds, Uninitialised, InFlight, Deadlock, UnknownOpcode, BadPtx, Trap, Assert,
        IllegalInstruction, Unsupported, InstructionLimit, SyncMisuse, Race
    };
    Kind kind = Kind::BadPtx;
    std::string message;             // what, and what to do about it
    std::string kernel, opcode, ptx; // where: kernel, opcode, source text of the line
    int line = 0;                    // PTX line, 1-based
    Dim3 cta{0, 0, 0};
    int warp = -1, lane = -1;
    uint64_t address = 0;
    std::string report;              // long text: who waits where, for a deadlock
    std::string location;            // source line, "file.py:12:5", if the PTX names it (.loc)
    struct Place {                   // the other access of a race
        std::string access, opcode, ptx, location;
        int line = 0;
        Dim3 cta{0, 0, 0};
        int warp = -1, lane = -1;
    };
    std::shared_ptr<const Place> other;
};
struct FaultError { Fault fault; };
const char* fault_kind_name(Fault::Kind kind);

// ---- types ------------------------------------------------------------------------------------------
enum class Type : uint8_t {
    None, Pred, B8, U8, S8, B16, U16, S16, F16, BF16, B32, U32, S32, F32, TF32, F16x2, BF16x2, B64, U64, S64, F64,
    B128, E4M3, E5M2, E4M3x2, E5M2x2, U16x2, S16x2, E2M1, E2M1x2, E2M3x2, E3M2x2, UE8M0x2, F32x2
};
Type parse_type(const std::string& text);    // Type::None if it is not a type
unsigned type_bits(Type type);               // 1 for Pred
const char* type_name(Type type);
inline bool is_signed(Type t) { return t == Type::S8 || t == Type::S16 || t == Type::S32 || t == Type::S64; }
inline bool is_float(Type t) {
    return t == Type::F16 || t == Type::BF16 || t == Type::F32 || t == Type::TF32 || t == Type::F64 ||
           t == Type::F16x2 || t == Type::BF16x2;
}

// ---- programs ---------------------------------------------------------------------------------------
enum class Flow : uint8_t { Next, Jump, Retry, Yield };

struct Warp;
struct Instr;
using ExecFn = Flow (*)(Warp&, const Instr&, Mask);

// A decoded instruction. What the fields mean beyond `guard` is up to its execute function.
struct Instr {
    ExecFn fn = nullptr;
    Slot guard = kNoSlot;            // predicate (a 32-bit lane mask)
    bool guard_negated = false;
    uint8_t u8[7] = {};              // small constants: widths, rounding, flags
    Slot dst = kNoSlot, a = kNoSlot, b = kNoSlot, c = kNoSlot, d = kNoSlot;
    uint32_t target = 0;             // branch target, index in Program::code
    int64_t imm = 0;                 // address offset or other constant
    const void* extra = nullptr;     // larger operands, owned by the Program (Decoder::make_extra)
    uint32_t source = 0;             // index in Program::sources
};

// A memory operand: [base + offset].
struct Address {
    Slot base = kNoSlot;             // kNoSlot: absolute
    bool wide = false;               // base is a 64-bit register
    int64_t offset = 0;
};

// Registers that hold the same thing for a whole launch or warp and are filled in when a warp starts.
struct Constant {
    enum class Kind : uint8_t {
        Bits32,
        Bits64,
        Pred,
        TidX,
        TidY,
        TidZ,
        NtidX,
        NtidY,
        NtidZ,
        CtaidX,
        CtaidY,
        CtaidZ,
        NctaidX,
        NctaidY,
        NctaidZ,
        LaneId,
        WarpId,
        NwarpId,
        SmId,
        NsmId,
        GridId,
        EnvReg1,
        EnvReg2,
        LanemaskEq,
        LanemaskLt,
        LanemaskLe,
        LanemaskGt,
        LanemaskGe,
        DynamicSmemSize,
        TotalSmemSize,
        AggrSmemSize,
        SharedAddress,
        LocalAddress,
        ParamAddress,
        ClusteridX,
        ClusteridY,
        ClusteridZ,
        NclusteridX,
        NclusteridY,
        NclusteridZ,
        ClusterCtaidX,
        ClusterCtaidY,
        ClusterCtaidZ,
        ClusterNctaidX,
        ClusterNctaidY,
        ClusterNctaidZ,
        ClusterCtarank,
        ClusterNctarank,
        IsExplicitCluster
    };
    Kind kind;
    Slot slot;
    uint64_t bits;
    unsigned width;                  // 1, 32 or 64
};

struct Program {
    std::string kernel;
    std::vector<Instr> code;
    struct Source { int line; std::string opcode; std::string text; std::string location = {}; };
    std::vector<Source> sources;
    std::vector<bool> joins;         // by place in code: whether some jump goes there
    std::vector<bool> ran;           // by source: whether some launch has run it; the driver's
    std::vector<Constant> constants;
    std::vector<std::shared_ptr<void>> extras;
    uint32_t register_bytes = 0;     // register file of one warp
    uint32_t local_bytes = 0;        // per lane
    uint32_t static_shared = 0;      // bytes; dynamic shared memory follows
    struct Param { std::string name; uint32_t offset, size; };
    std::vector<Param> params;
    uint32_t param_bytes = 0;
    Dim3 required_cluster{0, 0, 0};  // .reqnctapercluster, zeros if absent
    uint32_t max_threads = 1024;
};

// ---- asynchronous operations ------------------------------------------------------------------------
struct AsyncOp {
    std::string what;                // for reports
    std::function<void()> complete;
    uint64_t order = 0;              // operations with the same nonzero order complete in issue order
    uint64_t group = 0;              // free for the table's own use (wait groups)
    const Warp* issuer = nullptr;    // set: the kernel must not end before this has completed; where it was issued
    const Instr* instr = nullptr;
};

// Operations in flight of one cluster. They complete late, in a random order drawn from the seed.
class AsyncQueue {
public:
    void push(AsyncOp op) { ops_.push_back(std::move(op)); }
    bool empty() const { return ops_.empty(); }
    size_t size() const { return ops_.size(); }
    const std::vector<AsyncOp>& pending() const { return ops_; }
    bool complete_one(std::mt19937_64& rng);              // a random eligible one; false if none
    void complete_if(const std::function<bool(const AsyncOp&)>& match);   // now, in issue order

private:
    void complete_at(size_t index);
    std::vector<AsyncOp> ops_;
};

// One object per type: state that an opcode table keeps with a CTA or a cluster.
class StateMap {
public:
    template <class T> T& get() {
        auto& entry = map_[std::type_index(typeid(T))];
        if (!entry) entry = std::make_shared<T>();
        return *static_cast<T*>(entry.get());
    }
    template <class T> T* find() {
        const auto it = map_.find(std::type_index(typeid(T)));
        return it == map_.end() ? nullptr : static_cast<T*>(it->second.get());
    }

private:
    std::unordered_map<std::type_index, std::shared_ptr<void>> map_;
};

struct Cta;
struct Cluster;
struct Grid;

// ---- warps ------------------------------------------------------------------------------------------
// Lanes of a warp at one place. A warp that diverged has several; the one furthest behind runs first and
// fragments that meet at the same instruction are one again (reconvergence).
struct Fragment {
    uint32_t pc = 0;
    Mask mask = 0;
    uint64_t token = 0;              // an unfinished (Retry) instruction's memory; 0 if none
    const char* wait_what = nullptr; // for the deadlock report, set by Warp::wait_for
    uint64_t wait_arg = 0;
};

class ShadowPage;

// A warp's place in the order of things: its clock and what it knows to have happened (clocks.h, happens_before.h).
struct WarpOrder {
    uint32_t cluster = 0, agent = 0;   // its cluster's index in the grid; its own number in the cluster
    Clock now = 1;
    Clock synced = 1;                  // what its lanes did before this clock is ordered among them
    bool touched = false;              // something was recorded at `now`
    Knowledge known;
    ClusterClocks fenced_wide, fenced_narrow;   // known at the last fence: of device scope, of a CTA's or cluster's
    ClusterClocks read;                // released at what relaxed accesses have read: acquired by the next fence
    std::vector<uint32_t> runs;        // of each load: how often it was executed
    std::array<std::pair<uint64_t, ShadowPage*>, 16> pages{};   // of global memory, lately used: number + 1, page
};

struct Warp {
    Cta* cta = nullptr;
    const Program* program = nullptr;
    uint32_t index = 0;              // in the CTA
    Fragment cur;
    std::vector<Fragment> others;    // diverged fragments that are not running
    uint32_t merge_pc = UINT32_MAX;  // lowest pc of `others`: reaching it means to merge or switch
    Mask alive = 0;                  // lanes that have not exited
    uint64_t executed = 0;           // instructions
    Mask carry = 0;                  // the condition-code register's carry flag (add.cc, madc, ...)
    std::vector<uint8_t> local;      // local memory, lane after lane, program->local_bytes each
    uint8_t* regs = nullptr;
    std::unique_ptr<uint8_t[]> regs_storage;
    struct Window { uint64_t low = 0, high = 0; };
    std::array<Window, 16>
        windows{};  // global memory known to be within bounds (bounds.h): what instructions touched last
    Window& window(const Instr& in) { return windows[in.source % windows.size()]; }
    WarpOrder order;
    StateMap states;
    template <class T> T& state() { return states.get<T>(); }

    uint32_t* r32(Slot s) { return reinterpret_cast<uint32_t*>(regs + s); }
    uint64_t* r64(Slot s) { return reinterpret_cast<uint64_t*>(regs + s); }
    float* f32(Slot s) { return reinterpret_cast<float*>(regs + s); }
    double* f64(Slot s) { return reinterpret_cast<double*>(regs + s); }
    Mask& pred(Slot s) { return *reinterpret_cast<Mask*>(regs + s); }

    bool done() const { return alive == 0; }
    Flow wait_for(const char* what, uint64_t arg = 0) {
        cur.wait_what = what;
        cur.wait_arg = arg;
        return Flow::Retry;
    }
    // Lanes in `m` go to `target`, the rest of the fragment to the next instruction. Returns Flow::Jump.
    Flow branch(Mask m, uint32_t target);
    // Lanes in `m` stop. Returns Flow::Jump.
    Flow exit_lanes(Mask m);
    // True once all living lanes of `members` are in the running fragment; else the caller returns
    // wait_for(...): another fragment will come by and merge.
    bool converged(Mask members) const { return (members & alive & ~cur.mask) == 0; }
    [[noreturn]] void fault(const Instr& in, Fault::Kind kind, const std::string& message, int lane = -1,
                            uint64_t address = 0) const;
};

// ---- CTAs and clusters ------------------------------------------------------------------------------
// State of a byte of shared memory: the low two bits, and two more that the asynchronous units use (async_memory.h).
// A thread's write leaves plain kValid, so it clears both.
enum Shadow : uint8_t {
    kUnwritten = 0, kValid = 1, kInFlight = 2,
    kAsyncRead = 4,      // an asynchronous read was issued since the last write
    kAsyncVisible = 8,   // written by the asynchronous proxy, or by a thread with a proxy fence since
};

struct Barrier {
    uint64_t generation = 0;
    uint32_t arrived = 0;            // threads
    uint32_t expected = 0;           // as given by `bar.sync a, n`; 0: all threads of the CTA
    uint32_t count = 0;              // of the predicates given so far: how many hold, do all, does any
    bool all = true, any = false;
    uint32_t last_count = 0;         // the same of the finished generation
    bool last_all = false, last_any = false;
    Knowledge arriving, passed;      // of those that have arrived; of the finished generation
};

class LocalShadow;

struct Cta {
    Cluster* cluster = nullptr;
    Grid* grid = nullptr;
    uint32_t rank = 0;               // in the cluster
    Dim3 id;
    std::vector<std::unique_ptr<Warp>> warps;
    std::vector<uint8_t> shared, shadow;
    std::shared_ptr<LocalShadow> shared_shadow, tensor_shadow;   // who accessed it (races.h)
    std::array<Barrier, 16> barriers;
    uint32_t threads = 0, live_threads = 0;
    StateMap states;
    template <class T> T& state() { return states.get<T>(); }
};

struct Cluster {
    Grid* grid = nullptr;
    uint64_t index = 0;
    Dim3 id;
    std::vector<std::unique_ptr<Cta>> ctas;
    AsyncQueue async;
    std::mt19937_64 rng;
    uint64_t instructions = 0;       // warp instructions executed
    uint8_t* reached = nullptr;      // one byte an instruction of the program: 1 once some lane has run it
    Warp* running = nullptr;         // whose turn it is
    Warp* laggard = nullptr;         // a warp that runs only when the others cannot, for `lag_turns` more turns
    uint32_t lag_turns = 0;
    bool lag_behind_async = false;   // and only when nothing is in flight either
    uint64_t early = 32;  // one warp turn in so many completes an asynchronous operation that nobody needs yet
    std::vector<std::function<void()>> exit_checks;  // of the opcode tables, once everything has completed
    std::vector<std::function<void(std::string&)>> reporters;       // what they add to a deadlock's report
    StateMap states;
    template <class T> T& state() { return states.get<T>(); }
    bool done() const;
};

// ---- launches ---------------------------------------------------------------------------------------
struct LaunchOptions {
    uint64_t seed = 0;
    unsigned threads = 0;            // host threads; 0: as many as the machine has
    uint64_t max_instructions = 0;   // warp instructions of a launch before it is called endless; 0: no limit
    bool fault_on_uninitialised = true;   // else such reads give poison
    bool races = true;               // look for data races
};

class GlobalShadow;
class SyncVariables;

struct Grid {
    const Program* program = nullptr;
    Dim3 grid, block, cluster;
    uint32_t dynamic_shared = 0;
    bool cooperative = false, explicit_cluster = false;
    uint32_t* workspace =
        nullptr;  // of a cooperative launch: its size and the word of cooperative_groups' grid barrier
    uint8_t* params = nullptr;       // as ld.param sees them; 128-byte aligned
    uint64_t param_bytes = 0;
    LaunchOptions options;
    std::shared_ptr<const Bounds> bounds;   // which global memory may be touched
    std::shared_ptr<GlobalShadow> shadow;   // who accessed global memory (races.h)
    std::shared_ptr<SyncVariables> sync_variables;
    uint64_t id = 0;
    int capability = 80;             // 10 * major + minor
    uint32_t sm_count = 132;
    std::atomic<uint64_t> instructions{0};
    std::atomic<bool> stop{false};
    // Filled in at the end. Of clusters that ran to their end: instructions of each warp of the cluster, CTA after CTA.
    std::vector<uint8_t> reached;
    std::vector<uint64_t> by_warp;
};

// Runs a grid to its end on the calling thread and helpers; throws FaultError.
void run_grid(Grid& grid);

// ---- opcode tables ----------------------------------------------------------------------------------
class Decoder;
struct OpRow {
    const char* name;                // dotted prefix: "add", "cp.async.bulk"
    void (*decode)(Decoder&, Instr&);
};
const OpRow* find_op(const std::vector<std::string>& opcode, size_t& parts_used);
std::vector<std::string> opcode_families();

}  // namespace softgpu
