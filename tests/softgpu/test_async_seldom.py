"""Instructions of the asynchronous tables that compilers emit seldom or never: barriers' counts, remote reductions,
hints.
"""

from __future__ import annotations

import pytest
import torch

from tests import softgpu as gpu
from tests.softgpu import async_kernels as ak
from tests.softgpu.ptx import PtxKernel

HOPPER = pytest.mark.softgpu(capability=90, software_only=True)
BLACKWELL = pytest.mark.softgpu(capability=100, software_only=True)

PAIR = ".reqntid 32 .reqnctapercluster 2"


def run(
    body: str, out: torch.Tensor, threads: int = 32, pragma: str = "", ctas: int = 1, target: str = "sm_90a"
) -> torch.Tensor:
    """Run ``body`` with %rd1 the output, %r1 the thread, %r2 shared memory; returns ``out``."""
    start = "ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; mov.u32 %r2, smem;\n"
    text = ak.module(start + body + "\nret;", ".param .u64 out", target, pragma)
    PtxKernel(text)(ctas, threads, out, shared=4096)
    return out


@HOPPER
def test_the_state_of_an_arrival_holds_what_was_pending(softgpu):
    body = """
  mbarrier.init.shared::cta.b64 [%r2], 5;
  mbarrier.arrive.shared::cta.b64 %rd2, [%r2], 2; mbarrier.arrive.shared::cta.b64 %rd3, [%r2];
  mbarrier.pending_count.b64 %r3, %rd2; mbarrier.pending_count.b64 %r4, %rd3;
  st.global.v2.b32 [%rd1], {%r3, %r4};"""
    assert run(body, torch.zeros(2, dtype=torch.int32), threads=1).tolist() == [5, 3]


@HOPPER
def test_a_thread_that_drops_out_is_not_expected_again(softgpu):
    body = """
  mbarrier.init.shared::cta.b64 [%r2], 3;
  mbarrier.arrive_drop.shared::cta.b64 %rd2, [%r2], 2; mbarrier.arrive.shared::cta.b64 _, [%r2];
  mbarrier.arrive.shared::cta.b64 %rd3, [%r2];
  mbarrier.test_wait.shared::cta.b64 %p1, [%r2], %rd3; selp.b32 %r3, 1, 0, %p1; st.global.b32 [%rd1], %r3;"""
    assert run(body, torch.zeros(1, dtype=torch.int32), threads=1).tolist() == [1]


@HOPPER
@pytest.mark.parametrize(("announced", "done"), [(64, 1), (65, 0)])
def test_a_phase_waits_for_the_bytes_announced(softgpu, announced: int, done: int):
    body = f"""
  mbarrier.init.shared::cta.b64 [%r2], 1;
  mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r2], {announced};
  mbarrier.arrive.shared::cta.b64 %rd2, [%r2];
  mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%r2], 64;
  mbarrier.test_wait.shared::cta.b64 %p1, [%r2], %rd2; selp.b32 %r3, 1, 0, %p1; st.global.b32 [%rd1], %r3;
  mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%r2], {announced - 64};"""
    assert run(body, torch.full((1,), -1, dtype=torch.int32), threads=1).tolist() == [done]


@HOPPER
@pytest.mark.parametrize(
    ("arrive", "count"),
    [("cp.async.mbarrier.arrive.shared::cta.b64", 1), ("cp.async.mbarrier.arrive.noinc.shared::cta.b64", 33)],
)
def test_a_barrier_hears_of_finished_copies(softgpu, arrive: str, count: int):
    """Each lane copies its word and has the barrier told. Without .noinc that adds to the arrivals which are expected:
    only thread 0's is.
    """
    body = f"""
  mad.wide.u32 %rd2, %r1, 4, %rd1; mad.lo.u32 %r3, %r1, 4, %r2; add.u32 %r3, %r3, 1024;
  setp.eq.u32 %p1, %r1, 0;
  @%p1 mbarrier.init.shared::cta.b64 [%r2], {count};
  bar.sync 0;
  cp.async.ca.shared.global [%r3], [%rd2], 4;
  {arrive} [%r2];
  bar.sync 0;
  @%p1 mbarrier.arrive.shared::cta.b64 _, [%r2];
  {ak.wait("%r2", "0", "W")}
  ld.shared.b32 %r4, [%r3]; add.u32 %r4, %r4, 100; st.global.b32 [%rd2], %r4;"""
    assert torch.equal(run(body, torch.arange(32, dtype=torch.int32)), torch.arange(100, 132, dtype=torch.int32))


@HOPPER
def test_reading_a_copy_whose_barrier_was_not_waited_for_is_caught(softgpu):
    body = """
  mad.wide.u32 %rd2, %r1, 4, %rd1; mad.lo.u32 %r3, %r1, 4, %r2; add.u32 %r3, %r3, 1024;
  setp.eq.u32 %p1, %r1, 0;
  @%p1 mbarrier.init.shared::cta.b64 [%r2], 32;
  bar.sync 0;
  cp.async.ca.shared.global [%r3], [%rd2], 4;
  cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%r2];
  ld.shared.b32 %r4, [%r3]; st.global.b32 [%rd2], %r4;"""
    with pytest.raises(gpu.DriverError):
        run(body, torch.zeros(32, dtype=torch.int32))
    fault = gpu.last_fault()
    assert fault is not None and fault.kind == "read_before_async_copy_done"


@HOPPER
@pytest.mark.parametrize(
    ("op", "expected"), [("add.u32", 7 + sum(range(32))), ("max.u32", 31), ("min.s32", 0), ("xor.b32", 7)]
)
def test_remote_reduction_tells_the_barrier_beside_it(softgpu, op: str, expected: int):
    """Every lane reduces its number into one word of the other CTA."""
    body = f"""
  add.u32 %r3, %r2, 1024; mov.u32 %r4, %cluster_ctarank; setp.eq.u32 %p1, %r1, 0;
  @%p1 mbarrier.init.shared::cta.b64 [%r3], 1;
  @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3], 128;
  @%p1 st.shared.b32 [%r2], 7;
  barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
  xor.b32 %r5, %r4, 1; mapa.shared::cluster.u32 %r6, %r2, %r5; mapa.shared::cluster.u32 %r7, %r3, %r5;
  red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.{op} [%r6], %r1, [%r7];
  {ak.wait("%r3", "0", "W")}
  ld.shared.b32 %r8, [%r2]; mad.wide.u32 %rd2, %r4, 4, %rd1; @%p1 st.global.b32 [%rd2], %r8;
  barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;"""
    out = run(body, torch.full((2,), -1, dtype=torch.int32), pragma=PAIR, ctas=2)
    assert out.tolist() == [expected, expected]


@HOPPER
@pytest.mark.parametrize(
    ("op", "expected"), [("add.u32", lambda a, b: a + b), ("min.s32", torch.minimum), ("or.b32", torch.bitwise_or)]
)
def test_bulk_reduction_into_global_memory(softgpu, op: str, expected):
    body = f"""
  mad.lo.u32 %r3, %r1, 4, %r2; mul.lo.u32 %r4, %r1, 3; st.shared.b32 [%r3], %r4;
  fence.proxy.async.shared::cta; bar.sync 0; setp.eq.u32 %p1, %r1, 0;
  @%p1 cp.reduce.async.bulk.global.shared::cta.bulk_group.{op} [%rd1], [%r2], 128;
  cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;"""
    before = torch.arange(32, dtype=torch.int32).flip(0) + 20
    added = 3 * torch.arange(32, dtype=torch.int32)
    assert torch.equal(run(body, before.clone()), expected(before, added))


@BLACKWELL
def test_hints_and_fences_change_nothing(softgpu):
    body = """
  cp.async.bulk.prefetch.L2.global [%rd1], 128;
  tcgen05.fence::before_thread_sync; bar.sync 0; tcgen05.fence::after_thread_sync;
  mad.wide.u32 %rd2, %r1, 4, %rd1; st.global.b32 [%rd2], %r1;"""
    out = run(body, torch.zeros(32, dtype=torch.int32), target="sm_100a")
    assert torch.equal(out, torch.arange(32, dtype=torch.int32))


@HOPPER
def test_vector_atomics_add_element_by_element(softgpu):
    body = """
  mov.b32 %r3, 0f3F800000; mov.b32 %r4, 0f40000000;
  atom.global.gpu.relaxed.add.v4.f32 {%r5, %r6, %r7, %r8}, [%rd1], {%r3, %r4, %r3, %r4};
  mad.wide.u32 %rd2, %r1, 4, %rd1; st.global.b32 [%rd2+16], %r5;"""
    out = run(body, torch.zeros(36))
    assert out[:4].tolist() == [32, 64, 32, 64]
    assert sorted(out[4:].tolist()) == list(range(32)), "every lane got another old value"
