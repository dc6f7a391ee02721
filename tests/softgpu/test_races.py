"""Data races: for every kind of synchronisation a kernel that lacks it is caught under every seed, and its correct twin
passes under every one.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch

from tests import softgpu as gpu
from tests.softgpu import async_kernels as ak
from tests.softgpu import race_kernels as rk
from tests.softgpu.ptx import PtxKernel

pytestmark = pytest.mark.softgpu(capability=90, software_only=True)
SEEDS = range(5)


def _by_seed(launch: Callable[[], None], capability: int = 90) -> list[gpu.FaultReport | None]:
    """The fault of each seed's launch, None where there was none."""
    found = []
    for seed in SEEDS:
        gpu.install(capability=capability, seed=seed, max_instructions=5_000_000)
        try:
            launch()
        except (gpu.DriverError, RuntimeError):
            found.append(gpu.last_fault())
        else:
            found.append(None)
    return found


def _check(launch: Callable[[], None], races: bool, capability: int = 90) -> None:
    kinds = {fault.kind if fault else "none" for fault in _by_seed(launch, capability)}
    assert kinds == ({"data_race"} if races else {"none"})


# ---- threads of a block ---------------------------------------------------------------------------------------------
def _exchange(space: str, other: int, sync: str, before: str = "") -> Callable[[], None]:
    def launch() -> None:
        out, scratch = torch.zeros(64, dtype=torch.int32), torch.full((64,), -1, dtype=torch.int32)
        PtxKernel(rk.exchange(space, other, sync, before))(1, 64, out, scratch)
        if space != "bytes":
            assert out.tolist() == [t ^ other for t in range(64)]

    return launch


#: A word written first and then by another thread: shared memory has been written, so that only the order is wrong.
WRITTEN = "st.shared.b32 [%r3], 7; bar.sync 0;"


@pytest.mark.parametrize("space", ["shared", "global", "bytes"])
@pytest.mark.parametrize(
    ("sync", "races"), [("", True), ("bar.sync 0;", False), ("barrier.sync 3;", False), ("bar.warp.sync -1;", True)]
)
def test_warps_of_a_block(softgpu, space, sync, races):
    _check(_exchange(space, 33, sync, WRITTEN), races)


HALVES = "and.b32 %r8, %r1, 16; setp.eq.u32 %p1, %r8, 0; @%p1 bar.warp.sync 65535; @!%p1 bar.warp.sync -65536;"


@pytest.mark.parametrize("space", ["shared", "global"])
@pytest.mark.parametrize(
    ("sync", "other", "races"),
    [
        ("", 1, True),
        ("bar.warp.sync -1;", 1, False),
        ("shfl.sync.idx.b32 %r8, %r1, 0, 31, -1;", 1, False),
        ("vote.sync.any.pred %p2, %p1, -1;", 1, False),
        (HALVES, 1, False),
        (HALVES, 32, True),
        ("bar.sync 0;", 1, False),
    ],
)
def test_lanes_of_a_warp(softgpu, space, sync, other, races):
    before = WRITTEN + "setp.eq.u32 %p1, %r1, 0;"
    _check(_exchange(space, other, sync, before), races)


def test_lanes_that_store_different_values_to_one_place(softgpu):
    body = (
        ".visible .entry kernel(.param .u64 out) {{ .reg .b32 %r<4>; .reg .b64 %rd<2>; ld.param.u64 %rd1, [out];"
        " mov.u32 %r1, %tid.x; {} st.global.b32 [%rd1], %r1; ret; }}"
    )
    out = torch.zeros(1, dtype=torch.int32)
    _check(lambda: PtxKernel(body.format(""))(1, 32, out), True)
    _check(lambda: PtxKernel(body.format("mov.u32 %r1, 5;"))(1, 64, out), False)


# ---- named barriers, mbarriers, flags -------------------------------------------------------------------------------
def _producer(release: str, acquire: str, *, blocks: bool = False, start: str = "") -> Callable[[], None]:
    def launch() -> None:
        out, data, flag = (torch.zeros(32, dtype=torch.int32) for _ in range(3))
        grid, block = (2, 32) if blocks else (1, 64)
        PtxKernel(rk.producer(release, acquire, blocks=blocks, start=start))(grid, block, out, data, flag)
        assert out.tolist() == list(range(32))

    return launch


@pytest.mark.parametrize(
    ("release", "acquire", "races"),
    [
        ("bar.arrive 1, 64;", "bar.sync 1, 64;", False),
        ("bar.sync 1, 64;", "bar.arrive 1, 64;", True),
        ("bar.sync 1, 64;", "bar.sync 1, 64;", False),
        ("bar.sync 1, 32;", "bar.sync 2, 32;", True),
    ],
)
def test_named_barriers(softgpu, release, acquire, races):
    _check(_producer(release, acquire), races)


INIT = "setp.ne.u32 %p6, %r1, 0; @!%p6 mbarrier.init.shared::cta.b64 [%r10], 32; "
ARRIVE = "mbarrier.arrive.shared::cta.b64 _, [%r10];"
WAIT = ak.wait("%r10", "0", "WAITS")


@pytest.mark.parametrize(
    ("release", "acquire", "races"),
    [
        (ARRIVE, WAIT, False),
        (ARRIVE, "", True),
        ("mbarrier.arrive.relaxed.cta.shared::cta.b64 _, [%r10];", WAIT, True),
        (ARRIVE, WAIT.replace("parity.", "parity.relaxed.cta."), True),
    ],
)
def test_mbarriers(softgpu, release, acquire, races):
    registers = ".reg .pred %p15;"
    _check(_producer(release, acquire, start=registers + INIT + "bar.sync 0;"), races)


def test_an_mbarrier_used_before_its_init_is_seen(softgpu):
    launch = _producer(ARRIVE, WAIT, start=".reg .pred %p15;" + INIT)
    assert {fault.kind for fault in _by_seed(launch) if fault} <= {"data_race", "sync_misuse"}
    assert None not in _by_seed(launch)


FENCE = "fence.acq_rel.gpu;"
RELEASED, ACQUIRED = rk.publish(".release.gpu"), rk.await_flag(".acquire.gpu")
FLAGS = {
    "release and acquire": (RELEASED, ACQUIRED, False),
    "release only": (RELEASED, rk.await_flag(".relaxed.gpu"), True),
    "acquire only": (rk.publish(".relaxed.gpu"), ACQUIRED, True),
    "relaxed": (rk.publish(".relaxed.gpu"), rk.await_flag(".relaxed.gpu"), True),
    "relaxed with fences": (rk.publish(".relaxed.gpu", FENCE), rk.await_flag(".relaxed.gpu", FENCE), False),
    "volatile with fences": (rk.publish(".volatile", "membar.gl;"), rk.await_flag(".volatile", "membar.gl;"), False),
    "volatile": (rk.publish(".volatile"), rk.await_flag(".volatile"), True),
    "a fence on one side": (rk.publish(".relaxed.gpu", FENCE), rk.await_flag(".relaxed.gpu"), True),
    "plain": (rk.publish(""), rk.await_flag(""), True),
    "plain with fences": (rk.publish("", FENCE), rk.await_flag("", FENCE), True),
    "without the other lanes": (rk.publish(".release.gpu", sync=""), ACQUIRED, True),
    "an atomic": (
        "bar.warp.sync -1; @!%p5 atom.add.release.gpu.global.u32 %r7, [%rd3], 1;",
        ACQUIRED,
        False,
    ),
    "a relaxed atomic": ("bar.warp.sync -1; @!%p5 red.relaxed.gpu.global.add.u32 [%rd3], 1;", ACQUIRED, True),
    "a relaxed atomic with a fence": (
        f"bar.warp.sync -1; {FENCE} @!%p5 red.relaxed.gpu.global.add.u32 [%rd3], 1;",
        ACQUIRED,
        False,
    ),
}


@pytest.mark.slow  # threads that wait for a flag, in turn
@pytest.mark.parametrize("blocks", [False, True], ids=["warps", "blocks"])
@pytest.mark.parametrize("name", FLAGS)
def test_flags_in_global_memory(softgpu, name, blocks):
    release, acquire, races = FLAGS[name]
    _check(_producer(release, acquire, blocks=blocks), races)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [False, True], ids=["warps", "blocks"])
def test_a_scope_of_the_block_orders_nothing_beyond_it(softgpu, blocks):
    launch = _producer(rk.publish(".release.cta"), rk.await_flag(".acquire.cta"), blocks=blocks)
    _check(launch, blocks)
    narrow = _producer(
        rk.publish(".relaxed.gpu", "fence.acq_rel.cta;"), rk.await_flag(".relaxed.gpu", FENCE), blocks=blocks
    )
    _check(narrow, blocks)


COUNT = """
.visible .entry kernel(.param .u64 out) {{
  .reg .b32 %r<4>; .reg .b64 %rd<4>; ld.param.u64 %rd1, [out];
  red.relaxed.{scope}.global.add.u32 [%rd1], 1;
  {then}
  ret;
}}"""


@pytest.mark.parametrize(
    ("scope", "then", "blocks", "races"),
    [
        ("gpu", "", 3, False),
        ("cta", "", 1, False),
        ("cta", "", 3, True),
        ("gpu", "ld.relaxed.gpu.global.b32 %r1, [%rd1];", 3, False),
        ("gpu", "ld.global.b32 %r1, [%rd1];", 1, True),
        ("gpu", "bar.sync 0; ld.global.b32 %r1, [%rd1];", 1, False),
        ("gpu", "bar.sync 0; ld.global.b32 %r1, [%rd1];", 3, True),
        ("gpu", "bar.sync 0; st.global.b32 [%rd1], 1;", 3, True),
    ],
)
def test_atomics(softgpu, scope, then, blocks, races):
    def launch() -> None:
        out = torch.zeros(1, dtype=torch.int32)
        PtxKernel(COUNT.format(scope=scope, then=then))(blocks, 64, out)

    _check(launch, races)


# ---- asynchronous copies --------------------------------------------------------------------------------------------
COPY = """
.visible .entry kernel(.param .u64 out, .param .u64 in) {{
  .reg .b32 %r<8>; .reg .b64 %rd<8>;
  .shared .align 16 .b8 words[1024];
  ld.param.u64 %rd1, [out]; ld.param.u64 %rd2, [in];
  mov.u32 %r1, %tid.x; mov.u32 %r2, words;
  mad.lo.u32 %r3, %r1, 4, %r2; mad.wide.u32 %rd3, %r1, 4, %rd2;
  cp.async.ca.shared.global [%r3], [%rd3], 4;
  cp.async.commit_group;
  cp.async.wait_group 0;
  {barrier}
  xor.b32 %r4, %r1, 32; mad.lo.u32 %r4, %r4, 4, %r2;
  ld.shared.b32 %r5, [%r4];
  mad.wide.u32 %rd4, %r1, 4, %rd1;
  st.global.b32 [%rd4], %r5;
  ret;
}}"""


@pytest.mark.parametrize("barrier", ["", "bar.sync 0;"])
def test_a_copy_that_only_its_own_thread_waits_for(softgpu, barrier):
    def launch() -> None:
        x, out = torch.arange(64, dtype=torch.int32), torch.zeros(64, dtype=torch.int32)
        PtxKernel(COPY.format(barrier=barrier))(1, 64, out, x)
        assert out.tolist() == [t ^ 32 for t in range(64)]

    kinds = {fault.kind if fault else "none" for fault in _by_seed(launch)}
    allowed = {"none"} if barrier else {"data_race", "read_before_async_copy_done", "uninitialised_read"}
    assert kinds <= allowed


# ---- tensor memory --------------------------------------------------------------------------------------------------
#: Warp 0 writes to tensor memory what warp 4, which reaches the same lanes, reads.
TENSOR = """
  ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; shr.u32 %r2, %r1, 5; mov.u32 %r4, smem;
  setp.ne.u32 %p1, %r2, 0;
  @%p1 bra ALLOCATED;
  tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%r4], 32;
ALLOCATED: bar.sync 0;
  ld.shared.b32 %r5, [%r4];
  @%p1 bra OTHERS;
  tcgen05.st.sync.aligned.32x32b.x1.b32 [%r5], {{%r1}};
  tcgen05.wait::st.sync.aligned;
OTHERS: {barrier}
  setp.ne.u32 %p2, %r2, 4;
  @%p2 bra LAST;
  tcgen05.ld.sync.aligned.32x32b.x1.b32 {{%r6}}, [%r5];
  tcgen05.wait::ld.sync.aligned;
  mad.wide.u32 %rd2, %r1, 4, %rd1; st.global.b32 [%rd2], %r6;
LAST: bar.sync 0;
  @%p1 bra END;
  tcgen05.dealloc.cta_group::1.sync.aligned.b32 %r5, 32;
END: ret;"""


@pytest.mark.softgpu(capability=100, software_only=True)
@pytest.mark.parametrize("barrier", ["", "bar.sync 0;"])
def test_warps_that_share_lanes_of_tensor_memory(softgpu, barrier):
    def launch() -> None:
        out = torch.zeros(160, dtype=torch.int32)
        PtxKernel(ak.module(TENSOR.format(barrier=barrier), ".param .u64 out", "sm_100a"))(1, 160, out, shared=64)
        assert out[128:].tolist() == list(range(32))

    kinds = {fault.kind if fault else "none" for fault in _by_seed(launch, 100)}
    allowed = {"none"} if barrier else {"data_race", "uninitialised_read", "read_before_async_copy_done"}
    assert kinds <= allowed


# ---- blocks ---------------------------------------------------------------------------------------------------------
@pytest.mark.compiles
@pytest.mark.parametrize("apart", [True, False])
def test_programs_of_a_launch_are_in_no_order(softgpu, apart):
    x = torch.zeros(8 * 64, dtype=torch.int32)
    _check(lambda: rk.neighbours[(8,)](x, N=64, APART=apart), not apart)


@pytest.mark.compiles
def test_launches_come_one_after_the_other(softgpu):
    def launch() -> None:
        x = torch.zeros(256, dtype=torch.int32)
        for _ in range(3):
            rk.shift_in_place[(1,)](x, 1, N=256, BARRIER=True)
            rk.reverse_row[(1,)](x, torch.empty_like(x), N=256, BARRIER=True)

    _check(launch, False)


def _on_two_streams(first: Callable[[], None], second: Callable[[], None], between: str) -> Callable[[], None]:
    def launch() -> None:
        one, two, event = gpu.Stream(), gpu.Stream(), gpu.Event()
        with one:
            first()
        event.record(one)
        if between == "event":
            event.wait(two)
        elif between == "event synchronised":
            event.synchronize()
        elif between == "stream synchronised":
            one.synchronize()
        elif between == "device synchronised":
            gpu.streams.synchronize()
        with two if between != "same stream" else one:
            second()

    return launch


BETWEEN = ["event", "event synchronised", "stream synchronised", "device synchronised", "same stream", "nothing"]


@pytest.mark.compiles
@pytest.mark.parametrize("between", BETWEEN)
def test_launches_on_two_streams(softgpu, between):
    x, y = torch.zeros(256, dtype=torch.int32), torch.zeros(256, dtype=torch.int32)
    write, read = (lambda: rk.fill[(1,)](x, 1, N=256)), (lambda: rk.reverse_row[(1,)](y, x, N=256, BARRIER=True))
    _check(_on_two_streams(write, write, between), between == "nothing")
    _check(_on_two_streams(write, read, between), between == "nothing")


@pytest.mark.compiles
def test_what_launches_on_two_streams_may_do(softgpu):
    x, y = torch.zeros(256, dtype=torch.int32), torch.zeros(256, dtype=torch.int32)
    count = PtxKernel(COUNT.format(scope="gpu", then=""))
    _check(_on_two_streams(lambda: rk.fill[(1,)](x, 1, N=256), lambda: rk.fill[(1,)](y, 1, N=256), "nothing"), False)
    _check(_on_two_streams(lambda: count(2, 32, x), lambda: count(2, 32, x), "nothing"), False)
    gpu.install(capability=90)
    for stream in (gpu.Stream(), gpu.Stream()):  # memory that is freed, and used again by the next
        with stream:
            rk.fill[(1,)](torch.empty(4096, dtype=torch.int32), 1, N=4096)
    assert gpu.last_fault() is None


@pytest.mark.compiles
def test_a_race_between_streams_names_both_launches(softgpu):
    x = torch.zeros(256, dtype=torch.int32)
    with pytest.raises(RuntimeError, match="by launches on different streams"):
        _on_two_streams(
            lambda: rk.fill[(1,)](x, 1, N=256), lambda: rk.shift_in_place[(1,)](x, 1, N=256, BARRIER=True), "nothing"
        )()
    fault = gpu.last_fault()
    assert fault is not None and fault.other is not None and fault.kernel == "shift_in_place"
    assert "what kernel fill" in fault.message and fault.other.access == "write"
    assert f"of a tensor's storage of {4 * 256} bytes" in fault.message


@pytest.mark.compiles
def test_the_null_stream_is_in_order_with_itself_only(softgpu):
    x = torch.zeros(256, dtype=torch.int32)

    def launch() -> None:
        rk.fill[(1,)](x, 1, N=256)
        with gpu.Stream():
            rk.fill[(1,)](x, 2, N=256)

    _check(launch, True)  # PyTorch's streams do not wait for it
    rk.fill[(1,)](x, 1, N=256)
    rk.fill[(1,)](x, 2, N=256)


@pytest.mark.compiles
def test_replicas_that_store_the_same_value_do_not_race(softgpu):
    x, out = torch.ones(160), torch.zeros(1)
    _check(lambda: rk.same_value[(6,)](x, out, N=16), False)


# ---- a store, then a load of the same tensor ------------------------------------------------------------------------
def _reverse(barrier: bool, warps: int) -> None:
    scratch, out = torch.zeros(256, dtype=torch.int32), torch.zeros(256, dtype=torch.int32)
    rk.reverse_row[(1,)](scratch, out, N=256, BARRIER=barrier, num_warps=warps)
    assert out.tolist() == list(range(255, -1, -1))


def _shift(barrier: bool, warps: int) -> None:
    x = torch.arange(256, dtype=torch.int32)
    rk.shift_in_place[(1,)](x, 5, N=256, BARRIER=barrier, num_warps=warps)
    assert torch.equal(x, torch.arange(256, dtype=torch.int32).roll(-5))


def _floyd_warshall(barrier: bool, warps: int) -> None:
    d = torch.rand(16, 16)
    expected = d.clone()
    for k in range(16):
        expected = torch.minimum(expected, expected[:, k : k + 1] + expected[k : k + 1])
    rk.floyd_warshall[(1,)](d, N=16, BARRIER=barrier, num_warps=warps)
    assert torch.equal(d, expected)


def _lu(barrier: bool, warps: int) -> None:
    a = torch.rand(16, 16) + 16 * torch.eye(16)
    expected = a.double()
    for k in range(15):  # PyTorch has no LU without pivots on the CPU
        expected[k + 1 :, k] /= expected[k, k]
        expected[k + 1 :, k + 1 :] -= expected[k + 1 :, k : k + 1] * expected[k : k + 1, k + 1 :]
    rk.lu_in_place[(1,)](a, N=16, BARRIER=barrier, num_warps=warps)
    torch.testing.assert_close(a.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.compiles
@pytest.mark.parametrize("barrier", [True, False])
@pytest.mark.parametrize("warps", [1, 4])
@pytest.mark.parametrize("kernel", [_reverse, _shift, _floyd_warshall, _lu])
def test_a_store_and_then_a_load_in_one_program(softgpu, kernel, warps, barrier):
    _check(lambda: kernel(barrier, warps), not barrier)


# ---- the report -----------------------------------------------------------------------------------------------------
@pytest.mark.compiles
def test_both_accesses_are_named(softgpu):
    with pytest.raises(RuntimeError, match="data_race"):
        _reverse(False, 4)
    fault = gpu.last_fault()
    assert fault is not None and fault.other is not None
    assert {fault.opcode[:9], fault.other.opcode[:9]} == {"ld.global", "st.global"}
    assert fault.other.access == ("read" if fault.other.opcode.startswith("ld") else "write")
    assert (fault.cta, fault.other.cta) == ((0, 0, 0), (0, 0, 0))
    assert (fault.warp, fault.lane) != (fault.other.warp, fault.other.lane)
    for place in (fault, fault.other):
        assert re.fullmatch(r"race_kernels\.py:\d+:\d+", place.location)
        assert place.ptx.split()[0].startswith(("@", place.opcode.split(".")[0]))
    assert fault.location in fault.message and fault.other.location in fault.message


@pytest.mark.compiles
def test_a_race_is_looked_for_unless_told_otherwise(softgpu):
    gpu.install(capability=90, races=False)
    scratch, out = torch.zeros(256, dtype=torch.int32), torch.zeros(256, dtype=torch.int32)
    rk.reverse_row[(1,)](scratch, out, N=256, BARRIER=False)
    assert gpu.last_fault() is None
