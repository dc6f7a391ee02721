"""Faults around asynchronous operations: each kernel that has one is caught, its correct twin passes, for every seed
tried.

Without the race detector a fault that depends on timing shows for some seeds as a fault and for others as a wrong
result; never as a right one for all. With it, it is a fault under every seed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests import softgpu as gpu
from tests.softgpu import async_kernels as ak
from tests.softgpu.ptx import PtxKernel

pytestmark = pytest.mark.softgpu(capability=90, software_only=True)
BLACKWELL = pytest.mark.softgpu(capability=100, software_only=True)
SEEDS = range(6)


class Outcomes(list[str]):
    """For each seed the kind of fault, ``"wrong"`` or ``"right"``; ``message`` is the last fault's.

    That is without the race detector; ``with_races`` holds the same with it.
    """

    message = ""
    with_races: list[str]


def _outcomes(capability: int, launch: Callable[[], None], right: Callable[[], bool]) -> Outcomes:
    with_races = _by_seed(capability, launch, right, races=True)
    found = _by_seed(capability, launch, right, races=False)
    found.with_races = with_races
    print("by seed:", found, "with races:", with_races)
    return found


def _by_seed(capability: int, launch: Callable[[], None], right: Callable[[], bool], *, races: bool) -> Outcomes:
    found = Outcomes()
    for seed in SEEDS:
        gpu.install(capability=capability, seed=seed, max_instructions=2_000_000, races=races)
        try:
            launch()
        except gpu.DriverError:
            fault = gpu.last_fault()
            assert fault is not None
            found.append(fault.kind)
            found.message = fault.message
        else:
            found.append("right" if right() else "wrong")
    return found


def _only(outcomes: Outcomes, *kinds: str) -> Outcomes:
    assert set(outcomes) <= set(kinds), outcomes
    if kinds == ("right",):
        assert set(outcomes.with_races) == {"right"}, outcomes.with_races
    return outcomes


def _always(outcomes: Outcomes) -> Outcomes:
    """The race detector finds it under every seed, if nothing else does."""
    assert not {"right", "wrong"} & set(outcomes.with_races), outcomes.with_races
    return outcomes


# ---- a ring of stages filled by bulk copies -------------------------------------------------------------------------
def _ring(**change: object) -> Outcomes:
    tiles = 9
    x = torch.arange(tiles * 128, dtype=torch.int32)
    out = torch.zeros_like(x)
    kernel = PtxKernel(ak.ring(**change))

    def launch() -> None:
        out.zero_()
        kernel(1, 64, x, out, tiles, shared=8192)

    return _outcomes(90, launch, lambda: torch.equal(out, x))


def test_ring_with_all_its_waits_is_right(softgpu):
    _only(_ring(), "right")


def test_ring_consumer_that_does_not_wait(softgpu):
    _only(_always(_ring(full_wait=False)), "read_before_async_copy_done", "uninitialised_read")


def test_ring_consumer_that_starts_in_the_wrong_phase(softgpu):
    _only(_always(_ring(first_phase=1)), "read_before_async_copy_done", "uninitialised_read")


def test_ring_producer_that_does_not_wait_for_room(softgpu):
    outcomes = _always(_ring(empty_wait=False))
    assert "right" not in outcomes and "sync_misuse" in outcomes
    assert "more arrivals in a phase than the barrier expects" in outcomes.message


def test_writing_to_memory_that_a_copy_is_still_writing(softgpu):
    outcomes = _always(_ring(scribble=True))
    assert "read_before_async_copy_done" in outcomes
    assert "the writer must wait for the copy" in outcomes.message


def test_ring_with_one_buffer_too_few(softgpu):
    outcomes = _always(_ring(buffers=2))
    assert "read_before_async_copy_done" in outcomes
    assert outcomes.count("right") < len(outcomes)


def test_announcing_more_bytes_than_come_is_a_deadlock_that_says_who_waits_for_what(softgpu):
    _only(_ring(expect=528), "deadlock")
    fault = gpu.last_fault()
    assert "waits for mbarrier phase" in fault.report and "16 bytes outstanding" in fault.report
    assert "warp 0" in fault.report and "warp 1" in fault.report


def test_announcing_fewer_bytes_than_come(softgpu):
    # The phase cannot end: bytes are outstanding the other way round.
    _only(_ring(expect=496), "deadlock")
    assert "-16 bytes outstanding" in gpu.last_fault().report


def test_barrier_that_nobody_initialised(softgpu):
    outcomes = _only(_ring(initialise=False), "sync_misuse")
    assert "no initialised mbarrier" in outcomes.message


# ---- bulk stores
# ------------------------------------------------------------------------------------------------------
def _store(**change: bool) -> Outcomes:
    out = torch.zeros(256, dtype=torch.int32)
    expected = torch.cat([torch.arange(128), 1000 + torch.arange(128)]).int()
    kernel = PtxKernel(ak.store(**change))

    def launch() -> None:
        out.zero_()
        kernel(1, 128, out, shared=1024)

    return _outcomes(90, launch, lambda: torch.equal(out, expected))


def test_bulk_store_is_right(softgpu):
    _only(_store(), "right")


def test_bulk_store_without_a_proxy_fence(softgpu):
    outcomes = _only(_store(fence=False), "sync_misuse")
    assert "fence.proxy.async" in outcomes.message


def test_bulk_store_that_does_not_wait_for_the_writers(softgpu):
    outcomes = _always(_store(barrier=False))
    assert outcomes.count("right") < len(outcomes)
    _only(outcomes, "uninitialised_read", "read_before_async_copy_done", "sync_misuse", "wrong", "right")


def test_memory_reused_while_a_bulk_store_reads_it(softgpu):
    outcomes = _always(_store(read_wait=False))
    assert "read_before_async_copy_done" in outcomes
    assert "overwritten" in outcomes.message


def test_kernel_that_ends_while_a_bulk_store_reads(softgpu):
    outcomes = _store(end_wait=False)
    assert "read_before_async_copy_done" in outcomes
    assert "kernel ends" in outcomes.message


# ---- clusters
# -----------------------------------------------------------------------------------------------------------
def _exchange(**change: bool) -> Outcomes:
    out = torch.zeros(64, dtype=torch.int32)
    expected = torch.cat([1000 + torch.arange(32), torch.arange(32)]).int()
    kernel = PtxKernel(ak.exchange(**change))

    def launch() -> None:
        out.zero_()
        kernel(2, 32, out, shared=1024)

    return _outcomes(90, launch, lambda: torch.equal(out, expected))


def test_exchange_between_ctas_of_a_cluster(softgpu):
    _only(_exchange(), "right")


def test_exchange_without_synchronisation_before_reading(softgpu):
    outcomes = _always(_exchange(before=False))
    assert "uninitialised_read" in outcomes


def test_cta_that_exits_while_another_still_reads_its_memory(softgpu):
    outcomes = _exchange(after=False)
    assert "sync_misuse" in outcomes and "exited" in outcomes.message


def test_arriving_twice_at_the_cluster_barrier(softgpu):
    _only(_exchange(twice=True), "sync_misuse")


# ---- wgmma
# ----------------------------------------------------------------------------------------------------------------
def _wgmma(**change: bool) -> Outcomes:
    # Ones in any layout: 64 x 8 x 16 of bf16.
    a, b = torch.ones(64 * 16, dtype=torch.bfloat16), torch.ones(8 * 16, dtype=torch.bfloat16)
    out = torch.zeros(128, 4)
    strides = (128 >> 4) << 16 | (256 >> 4) << 32  # LBO 128, SBO 256: 8 x 8 blocks of 128 bytes, k first
    kernel = PtxKernel(ak.wgmma("m64n8k16.f32.bf16.bf16", 8, 2048, 256, strides, strides, ", 1, 1, 0, 0", 4, **change))

    def launch() -> None:
        out.zero_()
        kernel(1, 128, a, b, out, shared=65536 + 1024)

    return _outcomes(90, launch, lambda: bool((out == 16).all()))


def test_wgmma_is_right(softgpu):
    _only(_wgmma(), "right")


def test_wgmma_on_data_that_has_not_arrived(softgpu):
    _only(_always(_wgmma(load_wait=False)), "read_before_async_copy_done", "uninitialised_read")


def test_wgmma_result_that_is_not_waited_for(softgpu):
    _only(_wgmma(result_wait=False), "wrong")


def test_wgmma_operand_overwritten_before_the_wait(softgpu):
    # Or the warp that is behind finds bytes that were never published to its matrix unit.
    outcomes = _always(_wgmma(reuse_early=True))
    assert "read_before_async_copy_done" in outcomes
    _only(outcomes, "read_before_async_copy_done", "sync_misuse")


# ---- tcgen05
# --------------------------------------------------------------------------------------------------------------
IDESC_BF16_M128_N32 = 1 << 4 | 1 << 7 | 1 << 10 | (32 >> 3) << 17 | (128 >> 4) << 24


def _tcgen05(**change: object) -> Outcomes:
    a, b = torch.ones(128 * 16, dtype=torch.bfloat16), torch.ones(32 * 16, dtype=torch.bfloat16)
    out = torch.zeros(128, 32)
    strides = (128 >> 4) << 16 | (256 >> 4) << 32 | 1 << 46
    kernel = PtxKernel(
        ak.tcgen05("f16", IDESC_BF16_M128_N32, 4096, 1024, strides, strides, 32, **change), target="sm_100a"
    )

    def launch() -> None:
        out.zero_()
        kernel(1, 128, a, b, out, shared=65536 + 1024)

    steps = int(change.get("steps", 1))  # type: ignore[call-overload]
    return _outcomes(100, launch, lambda: bool((out == 16 * steps).all()))


@BLACKWELL
@pytest.mark.parametrize("change", [{}, {"steps": 5}, {"zero": "waited"}], ids=str)
def test_tcgen05_is_right(softgpu, change):
    _only(_tcgen05(**change), "right")


@BLACKWELL
def test_tcgen05_on_data_that_has_not_arrived(softgpu):
    outcomes = _always(_tcgen05(load_wait=False))  # the copies may just make it, with luck
    assert "read_before_async_copy_done" in outcomes and outcomes.count("right") < len(outcomes) / 2


@BLACKWELL
def test_tcgen05_result_that_is_not_waited_for(softgpu):
    outcomes = _always(_tcgen05(commit_wait=False))
    assert "read_before_async_copy_done" in outcomes
    _only(outcomes, "read_before_async_copy_done", "uninitialised_read", "right")


@BLACKWELL
def test_tcgen05_accumulator_stored_without_wait(softgpu):
    outcomes = _only(_tcgen05(zero="unwaited"), "read_before_async_copy_done")
    assert "tcgen05.wait::st" in outcomes.message


@BLACKWELL
def test_tcgen05_accumulator_that_nothing_wrote(softgpu):
    _only(_tcgen05(zero="never"), "uninitialised_read")


@BLACKWELL
def test_tcgen05_accumulator_outside_the_allocation(softgpu):
    _only(_tcgen05(column_shift=16), "out_of_bounds")


@BLACKWELL
def test_tensor_memory_that_is_not_freed(softgpu):
    outcomes = _only(_tcgen05(dealloc=False), "sync_misuse")
    assert "tcgen05.dealloc" in outcomes.message
