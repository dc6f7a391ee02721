"""Every fault that the software GPU looks for: a kernel that has exactly that fault is caught, its correct twin
passes.
"""

from __future__ import annotations

import pytest
import torch

from tests import softgpu as gpu
from tests.softgpu import kernels
from tests.softgpu.ptx import PtxKernel

pytestmark = pytest.mark.softgpu(capability=90, software_only=True)

# Each thread of one warp reads 16 bytes at 16 * tid + the second parameter and stores their sum.
VECTOR_LOAD = """
.visible .entry kernel(.param .u64 in, .param .u32 skew, .param .u64 out) {
  .reg .b32 %r<8>; .reg .b64 %rd<8>;
  ld.param.u64 %rd1, [in]; ld.param.u32 %r1, [skew]; ld.param.u64 %rd2, [out];
  mov.u32 %r2, %tid.x;
  mad.lo.u32 %r3, %r2, 16, %r1;
  cvt.u64.u32 %rd3, %r3;
  add.u64 %rd3, %rd3, %rd1;
  ld.global.v4.b32 {%r4, %r5, %r6, %r7}, [%rd3];
  add.u32 %r4, %r4, %r5; add.u32 %r4, %r4, %r6; add.u32 %r4, %r4, %r7;
  mad.wide.u32 %rd4, %r2, 4, %rd2;
  st.global.b32 [%rd4], %r4;
  ret;
}"""


def _fails(kind: str, code: int, kernel, *args, **kwargs) -> gpu.FaultReport:
    with pytest.raises((gpu.DriverError, RuntimeError)) as caught:
        kernel(*args, **kwargs)
    fault = gpu.last_fault()
    assert fault is not None and fault.kind == kind and fault.code == code, fault
    assert kind in str(caught.value)
    return fault


# ---- misaligned vector access -----------------------------------------------------------------------------------
def test_aligned_vector_load_passes(softgpu):
    x, out = torch.arange(160, dtype=torch.int32), torch.zeros(32, dtype=torch.int32)
    PtxKernel(VECTOR_LOAD)(1, 32, x, 16, out)
    assert torch.equal(out, x[4:132].view(32, 4).sum(1).int())


def test_misaligned_vector_load_is_caught_with_its_place(softgpu):
    x, out = torch.arange(160, dtype=torch.int32), torch.zeros(32, dtype=torch.int32)
    fault = _fails("misaligned_access", 716, PtxKernel(VECTOR_LOAD), 1, 32, x, 4, out)
    assert fault.opcode == "ld.global.v4.b32" and fault.ptx.startswith("ld.global.v4.b32 {%r4")
    assert (fault.cta, fault.warp, fault.lane) == ((0, 0, 0), 0, 0) and fault.address == x.data_ptr() + 4


# ---- out of bounds -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n,ok", [(256, True), (257, False)])
@pytest.mark.compiles
def test_access_past_a_guarded_buffer(softgpu, n, ok):
    x, y, out = gpu.guarded(torch.randn(256)), gpu.guarded(torch.randn(256)), gpu.guarded(torch.zeros(256))
    launch = lambda: kernels.add[(2,)](x, y, out, n, BLOCK=256)  # noqa: E731
    if ok:
        launch()
        assert torch.equal(out, x + y)
        return
    fault = _fails("out_of_bounds", 700, launch)
    assert "guard zone after" in fault.message and fault.address in (x.data_ptr() + 1024, y.data_ptr() + 1024)


def test_access_before_a_guarded_buffer(softgpu):
    x, out = gpu.guarded(torch.arange(128, dtype=torch.int32)), torch.zeros(32, dtype=torch.int32)
    fault = _fails("out_of_bounds", 700, PtxKernel(VECTOR_LOAD), 1, 32, x.data_ptr() - 16, 0, out)
    assert "guard zone before" in fault.message and fault.lane == 0


@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.compiles
def test_only_registered_buffers_may_be_touched(softgpu, forgotten):
    x, y, out = torch.randn(256), torch.randn(256), torch.zeros(256)
    with gpu.only(x, out, *([] if forgotten else [y])):
        if forgotten:
            fault = _fails("out_of_bounds", 700, lambda: kernels.add[(1,)](x, y, out, 256, BLOCK=256))
            assert "in no registered buffer" in fault.message
        else:
            kernels.add[(1,)](x, y, out, 256, BLOCK=256)
            assert torch.equal(out, x + y)


@pytest.mark.parametrize("address", [0, 8, 0x123456789000])
def test_wild_addresses_are_faults_not_crashes(softgpu, address):
    out = torch.zeros(32, dtype=torch.int32)
    fault = _fails("out_of_bounds", 700, PtxKernel(VECTOR_LOAD), 1, 32, address // 16 * 16, 0, out)
    assert fault.kernel == "kernel" and fault.ptx.startswith("ld.global")


SHARED_STORE = """
.extern .shared .align 16 .b8 buffer[];
.visible .entry kernel(.param .u32 offset) {
  .reg .b32 %r<4>;
  ld.param.u32 %r1, [offset];
  mov.u32 %r2, buffer;
  add.u32 %r2, %r2, %r1;
  st.shared.b32 [%r2], %r1;
  ret;
}"""


@pytest.mark.parametrize("offset,ok", [(1020, True), (1024, False)])
def test_access_past_shared_memory(softgpu, offset, ok):
    kernel = PtxKernel(SHARED_STORE)
    if ok:
        kernel(1, 1, offset, shared=1024)
    else:
        fault = _fails("out_of_bounds", 700, kernel, 1, 1, offset, shared=1024)
        assert "shared memory has 1024 bytes" in fault.message


# ---- uninitialised shared memory ----------------------------------------------------------------------------------
# Thread t writes word t of shared memory, and after an optional barrier reads word 127 - t.
EXCHANGE = """
.visible .entry kernel(.param .u64 out) {{
  .reg .b32 %r<8>; .reg .b64 %rd<4>;
  .shared .align 4 .b8 words[512];
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, words;
  mad.lo.u32 %r3, %r1, 4, %r2;
  {store}
  {barrier}
  sub.u32 %r4, 127, %r1;
  mad.lo.u32 %r5, %r4, 4, %r2;
  ld.shared.b32 %r6, [%r5];
  ld.param.u64 %rd1, [out];
  mad.wide.u32 %rd2, %r1, 4, %rd1;
  st.global.b32 [%rd2], %r6;
  ret;
}}"""
STORE, BARRIER = "st.shared.b32 [%r3], %r1;", "bar.sync 0;"


def test_exchange_through_shared_memory_passes(softgpu):
    out = torch.zeros(128, dtype=torch.int32)
    PtxKernel(EXCHANGE.format(store=STORE, barrier=BARRIER))(1, 128, out)
    assert torch.equal(out, torch.arange(127, -1, -1, dtype=torch.int32))


def test_reading_shared_memory_that_nobody_wrote_is_caught(softgpu):
    out = torch.zeros(128, dtype=torch.int32)
    fault = _fails("uninitialised_read", 719, PtxKernel(EXCHANGE.format(store="", barrier=BARRIER)), 1, 128, out)
    assert fault.opcode == "ld.shared.b32" and "nothing has written" in fault.message


def test_a_missing_barrier_is_caught(softgpu):
    out = torch.zeros(128, dtype=torch.int32)
    _fails("uninitialised_read", 719, PtxKernel(EXCHANGE.format(store=STORE, barrier="")), 1, 128, out)


@pytest.mark.softgpu(capability=90, software_only=True, uninitialised="poison")
def test_poison_instead_of_a_fault_when_asked_for(softgpu):
    out = torch.zeros(128, dtype=torch.int32)
    PtxKernel(EXCHANGE.format(store="", barrier=BARRIER))(1, 128, out)
    assert torch.equal(out, torch.full((128,), -1, dtype=torch.int32))


# ---- deadlock
# --------------------------------------------------------------------------------------------------------- Warps 0 and
# 1 meet at barrier 1; with `wrong`, warp 1 goes to barrier 2 instead.
TWO_BARRIERS = """
.visible .entry kernel() {{
  .reg .pred %p<2>; .reg .b32 %r<4>;
  mov.u32 %r1, %tid.x;
  setp.lt.u32 %p1, %r1, 32;
  @%p1 bra FIRST;
  bar.sync {second}, 64;
  bra DONE;
FIRST:
  bar.sync 1, 64;
DONE:
  ret;
}}"""


def test_two_warps_meet_at_a_barrier(softgpu):
    PtxKernel(TWO_BARRIERS.format(second=1))(1, 64)


def test_a_deadlock_is_reported_with_who_waits_where(softgpu):
    fault = _fails("deadlock", 719, PtxKernel(TWO_BARRIERS.format(second=2)), 1, 64)
    assert "CTA (0,0,0) warp 0 lanes ffffffff: waits for barrier 1, PTX line 13" in fault.report
    assert "CTA (0,0,0) warp 1 lanes ffffffff: waits for barrier 2, PTX line 10" in fault.report


def test_exited_threads_do_not_hold_up_a_barrier(softgpu):
    PtxKernel("""
.visible .entry kernel() {
  .reg .pred %p<2>; .reg .b32 %r<2>;
  mov.u32 %r1, %tid.x;
  setp.lt.u32 %p1, %r1, 40;
  @%p1 exit;
  bar.sync 0;
  ret;
}""")(1, 96)


def test_disagreeing_thread_counts_are_caught(softgpu):
    text = TWO_BARRIERS.format(second=1).replace("bar.sync 1, 64;\nDONE", "bar.sync 1, 96;\nDONE")
    fault = _fails("sync_misuse", 719, PtxKernel(text), 1, 64)
    assert "in use with a count of" in fault.message


# ---- lanes of a warp
# ----------------------------------------------------------------------------------------------------
SHUFFLE = """
.visible .entry kernel(.param .u64 out) {{
  .reg .pred %p<2>; .reg .b32 %r<6>; .reg .b64 %rd<4>;
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, 0;
  setp.lt.u32 %p1, %r1, 16;
  {guard} shfl.sync.bfly.b32 %r2, %r1, 1, 31, {members};
  ld.param.u64 %rd1, [out];
  mad.wide.u32 %rd2, %r1, 4, %rd1;
  st.global.b32 [%rd2], %r2;
  ret;
}}"""


def test_a_shuffle_among_half_of_the_lanes(softgpu):
    out = torch.zeros(32, dtype=torch.int32)
    PtxKernel(SHUFFLE.format(guard="@%p1", members="0xffff"))(1, 32, out)
    lanes = torch.arange(32)
    assert torch.equal(out, torch.where(lanes < 16, lanes ^ 1, 0).int())


def test_a_member_that_does_not_take_part_is_caught(softgpu):
    out = torch.zeros(32, dtype=torch.int32)
    fault = _fails("sync_misuse", 719, PtxKernel(SHUFFLE.format(guard="@%p1", members="-1")), 1, 32, out)
    assert "member mask" in fault.message


# ---- cp.async
# --------------------------------------------------------------------------------------------------------------- Each
# thread copies 4 words in two groups of two, waits (or not) for the first group or all, and reads its first word and
# its last.
COPY = """
.visible .entry kernel(.param .u64 in, .param .u64 out) {{
  .reg .b32 %r<8>; .reg .b64 %rd<8>;
  .shared .align 16 .b8 tile[1024];
  mov.u32 %r1, %tid.x;
  ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out];
  mad.wide.u32 %rd3, %r1, 16, %rd1;
  mov.u32 %r2, tile;
  mad.lo.u32 %r2, %r1, 16, %r2;
  cp.async.ca.shared.global [%r2], [%rd3], 8;
  cp.async.commit_group;
  cp.async.ca.shared.global [%r2 + 8], [%rd3 + 8], 8, 4;
  cp.async.commit_group;
  {wait}
  ld.shared.b32 %r3, [%r2];
  ld.shared.b32 %r4, [%r2 + {last}];
  add.u32 %r3, %r3, %r4;
  mad.wide.u32 %rd4, %r1, 4, %rd2;
  st.global.b32 [%rd4], %r3;
  ret;
}}"""


@pytest.mark.parametrize(
    "wait,last",
    [
        ("cp.async.wait_group 0;", 8),
        ("cp.async.wait_all;", 8),
        ("cp.async.wait_group 1;", 4),
        ("cp.async.wait_all;", 12),
    ],
)
def test_waiting_for_the_right_group_passes(softgpu, wait, last):
    x, out = torch.arange(256, dtype=torch.int32), torch.zeros(64, dtype=torch.int32)
    PtxKernel(COPY.format(wait=wait, last=last))(1, 64, x, out)
    words = x.view(64, 4).clone()
    words[:, 3] = 0  # beyond the source's 4 bytes: zero-filled
    assert torch.equal(out, words[:, 0] + words[:, last // 4])


@pytest.mark.parametrize("wait", ["", "cp.async.wait_group 1;", "cp.async.wait_group 2;"])
def test_reading_before_the_copy_is_done_is_caught(softgpu, wait):
    x, out = torch.arange(256, dtype=torch.int32), torch.zeros(64, dtype=torch.int32)
    fault = _fails("read_before_async_copy_done", 719, PtxKernel(COPY.format(wait=wait, last=8)), 1, 64, x, out)
    assert "a wait for that copy is missing" in fault.message and fault.opcode == "ld.shared.b32"


@pytest.mark.compiles
def test_a_triton_pipeline_without_its_wait_is_caught(softgpu):
    """The real compiler's pipelined matmul, with the waits taken out of its PTX."""
    import triton.language as tl

    a, b, c = torch.randn(64, 256).half(), torch.randn(256, 64).half(), torch.zeros(64, 64)
    gpu.install(capability=80)
    arguments = (a, b, c, 64, 64, 256, 256, 1, 64, 1, 64, 1)
    compiled = kernels.matmul[(1, 1)](*arguments, BM=64, BN=64, BK=32, ACC=tl.float32, num_stages=3)
    torch.testing.assert_close(c, a.float() @ b.float(), rtol=1e-3, atol=1e-2)
    text = compiled.asm["ptx"]
    assert "cp.async.wait_group" in text
    broken = "\n".join(line for line in text.splitlines() if "cp.async.wait_group" not in line)
    # strides of 1 are constants of the compiled kernel; two scratch pointers follow

    def run(ptx: str) -> None:
        PtxKernel(ptx, "matmul")((1, 1), 128, a, b, c, 64, 64, 256, 256, 64, 64, 0, 0, shared=compiled.metadata.shared)

    run(text)
    torch.testing.assert_close(c, a.float() @ b.float(), rtol=1e-3, atol=1e-2)
    _fails("read_before_async_copy_done", 719, run, broken)


# ---- unknown and unsupported code
# ------------------------------------------------------------------------------------------
def test_an_unknown_opcode_is_named_with_its_line(softgpu):
    text = ".visible .entry kernel() {\n  .reg .b32 %r<2>;\n  frobnicate.sync.b32 %r1, 7;\n  ret;\n}"
    with pytest.raises(gpu.DriverError):
        PtxKernel(text)(1, 32)
    fault = gpu.last_fault()
    assert (
        fault.kind == "unknown_opcode"
        and fault.opcode == "frobnicate.sync.b32"
        and fault.line == 6
        and fault.code == 218
    )
    assert fault.ptx == "frobnicate.sync.b32 %r1, 7;"


def test_an_unknown_modifier_is_an_error_too(softgpu):
    text = ".visible .entry kernel() {\n  .reg .b32 %r<4>;\n  add.sideways.u32 %r1, %r2, %r3;\n  ret;\n}"
    with pytest.raises(gpu.DriverError, match=r"modifier \.sideways is not implemented"):
        PtxKernel(text)(1, 32)


def test_trap_is_reported(softgpu):
    fault = _fails("trap", 719, PtxKernel(".visible .entry kernel() { trap; }"), 1, 32)
    assert fault.opcode == "trap"


@pytest.mark.softgpu(capability=90, software_only=True, max_instructions=100_000)
def test_an_endless_loop_is_stopped(softgpu):
    fault = _fails("instruction_limit", 702, PtxKernel(".visible .entry kernel() {\nAGAIN: bra AGAIN;\n}"), 1, 32)
    assert "bra AGAIN" in fault.report


def test_the_next_launch_works_after_a_fault(softgpu):
    _fails("trap", 719, PtxKernel(".visible .entry kernel() { trap; }"), 1, 32)
    test_aligned_vector_load_passes(softgpu)


# ---- seeds
# ----------------------------------------------------------------------------------------------------------------------
ORDER = """
.visible .entry kernel(.param .u64 counter, .param .u64 out) {
  .reg .pred %p<2>; .reg .b32 %r<6>; .reg .b64 %rd<6>;
  ld.param.u64 %rd1, [counter]; ld.param.u64 %rd2, [out];
  mov.u32 %r1, %tid.x;
  and.b32 %r2, %r1, 31;
  setp.ne.u32 %p1, %r2, 0;
  @%p1 exit;
  atom.global.add.u32 %r3, [%rd1], 1;
  shr.u32 %r4, %r1, 5;
  mad.wide.u32 %rd3, %r3, 4, %rd2;
  st.global.b32 [%rd3], %r4;
  ret;
}"""


def _order_of_warps(seed: int) -> list[int]:
    gpu.install(capability=90, seed=seed)
    counter, out = torch.zeros(1, dtype=torch.int32), torch.zeros(16, dtype=torch.int32)
    PtxKernel(ORDER)(1, 512, counter, out)
    return out.tolist()


def test_the_order_of_warps_follows_the_seed(softgpu):
    orders = [_order_of_warps(seed) for seed in range(4)]
    assert all(sorted(order) == list(range(16)) for order in orders)
    assert _order_of_warps(2) == orders[2] and len({tuple(order) for order in orders}) > 1
