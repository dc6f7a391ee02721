"""The CuTe backend's matrix kernels, as compiled by the CuTe DSL, on the software GPU: right results, and faults put
into their PTX.

Tolerance: products of fp8 and bf16 operands are exact in fp32; K additions in fp32 are off by at most K 2^-24 of the
    sum of
magnitudes, then the output is rounded once.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable

import pytest
import torch

from helion.backends.cute.schedule import MatmulSchedule
from helion.runtime.native.driver import Driver
from tests import softgpu as gpu
from tests.backends.cute.problems import hopper
from tests.backends.cute.problems import matmul
from tests.backends.cute.problems import small
from tests.softgpu import cute_gemm
from tests.softgpu import native

pytestmark = [pytest.mark.softgpu(capability=100, software_only=True), pytest.mark.compiles]
HOPPER = pytest.mark.softgpu(capability=90, software_only=True)

FP8, BF16 = torch.float8_e4m3fn, torch.bfloat16


def _launch(
    gemm: cute_gemm.Gemm, clusters: int, ptx: str | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A, B and the output of one launch; ``ptx`` runs instead of the kernel's own."""
    cubin = gemm.compiled.assembly.cubin
    # Binaries are known by their bytes: bytes 9 to 15 of an ELF file are padding, so each launch can have its own.
    cubin = cubin[:9] + os.urandom(7) + cubin[16:]
    gpu.register(cubin, ptx or gemm.ptx)
    compiled = dataclasses.replace(gemm.compiled, assembly=dataclasses.replace(gemm.compiled.assembly, cubin=cubin))
    a, b, out = gemm.operands(seed=7)
    compiled.launcher(Driver(os.path.join(native.directory(), "libcuda.so.1")))(a, b, out, clusters=clusters, stream=0)
    return a, b, out


def _is_right(gemm: cute_gemm.Gemm, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> bool:
    expected = gemm.reference(a, b)
    magnitude = a.double().abs() @ b.double().abs().transpose(-1, -2)
    bound = magnitude * gemm.spec.k * 2.0**-24 + expected.abs() * torch.finfo(out.dtype).eps
    return bool(((out.double() - expected).abs() <= bound).all())


def _build(m: int, n: int, k: int, dtype: torch.dtype, schedule: MatmulSchedule, **problem: object) -> cute_gemm.Gemm:
    return cute_gemm.build(matmul(m, n, k, dtype, **problem), schedule)  # type: ignore[arg-type]


SINGLE = small()
SM90 = hopper(ab_stages=3)
KERNELS: dict[str, tuple[Callable[[], cute_gemm.Gemm], int]] = {
    "fp8_pair_512": (lambda: cute_gemm.pair(512, 512, 512), 4),
    "fp8_pair_fewer_clusters_than_tiles": (cute_gemm.pair, 1),
    "fp8_two_pairs_multicast_a": (lambda: _build(512, 512, 512, FP8, MatmulSchedule(ab_stages=4, cluster_n=2)), 2),
    "fp8_two_pairs_multicast_b": (lambda: _build(1024, 256, 256, FP8, MatmulSchedule(ab_stages=4, cluster_m=4)), 1),
    "fp8_pair_256_columns": (lambda: _build(256, 512, 256, FP8, MatmulSchedule(tile_n=256, ab_stages=3)), 1),
    "bf16_pair_b_n_major": (
        lambda: _build(512, 256, 256, BF16, MatmulSchedule(tile_k=64, ab_stages=4), b_major="n"),
        2,
    ),
    "bf16_single": (cute_gemm.single, 2),
    "bf16_single_b_n_major": (lambda: cute_gemm.single(b_major="n"), 2),
    "bf16_batch_to_fp32": (lambda: _build(256, 256, 256, BF16, SINGLE, out=torch.float32, b_major="n", batch=2), 3),
    "bf16_edges_without_output_map": (lambda: _build(255, 257, 72, BF16, SINGLE), 2),
    "bf16_edges": (lambda: _build(264, 272, 208, BF16, SINGLE), 2),
}
HOPPER_KERNELS: dict[str, tuple[Callable[[], cute_gemm.Gemm], int]] = {
    "bf16": (cute_gemm.hopper, 2),
    "bf16_cluster": (lambda: _build(256, 256, 512, BF16, dataclasses.replace(SM90, cluster_m=2)), 1),
    "bf16_b_n_major": (lambda: _build(256, 256, 256, BF16, SM90, b_major="n"), 1),
    "fp8": (lambda: _build(256, 256, 512, FP8, dataclasses.replace(SM90, tile_k=128)), 2),
}


@pytest.mark.parametrize("name", KERNELS)
def test_blackwell_kernel_is_right_for_several_seeds(softgpu, name):
    make, clusters = KERNELS[name]
    for seed in range(2):
        gpu.install(capability=100, seed=seed)
        assert _is_right(make(), *_launch(make(), clusters)), f"seed {seed}"


@HOPPER
@pytest.mark.parametrize("name", HOPPER_KERNELS)
def test_hopper_kernel_is_right_for_several_seeds(softgpu, name):
    make, clusters = HOPPER_KERNELS[name]
    for seed in range(2):
        gpu.install(capability=90, seed=seed)
        assert _is_right(make(), *_launch(make(), clusters)), f"seed {seed}"


# ---- the same kernels with something left out
# --------------------------------------------------------------------------
def _outcomes(gemm: cute_gemm.Gemm, clusters: int, ptx: str, seeds: int = 6, races: bool = False) -> list[str]:
    """By seed: the kind of fault, ``"wrong"`` or ``"right"``; as other checks than that of races see it, unless asked
    for.
    """
    found = []
    for seed in range(seeds):
        gpu.install(capability=100 if "sm_100" in gemm.ptx else 90, seed=seed, max_instructions=3_000_000, races=races)
        try:
            result = _launch(gemm, clusters, ptx)
        except RuntimeError:
            fault = gpu.last_fault()
            assert fault is not None
            found.append(fault.kind)
        else:
            found.append("right" if _is_right(gemm, *result) else "wrong")
    print("by seed:", found)
    return found


def _without(ptx: str, opcode: str, occurrence: int) -> str:
    """The PTX with one instruction left out; a wait for an mbarrier becomes one that always succeeds."""
    lines = ptx.split("\n")
    at = [i for i, line in enumerate(lines) if re.search(rf"(^|\s){re.escape(opcode)}", line)][occurrence]
    lines[at] = "setp.eq.u32 P1, 0, 0;" if "try_wait" in opcode else "// left out"
    return "\n".join(lines)


WAIT = "mbarrier.try_wait"
#: What is left out of the pair's kernel, which instance of it (in the order of the text), and how that shows.
PAIR_FAULTS = {
    "producer_waits_for_room": (WAIT, 0, {"read_before_async_copy_done", "sync_misuse"}),
    "mma_waits_for_data": (WAIT, 3, {"read_before_async_copy_done", "uninitialised_read"}),
    "epilogue_waits_for_accumulator": (WAIT, 5, {"read_before_async_copy_done", "uninitialised_read"}),
    "mma_releases_stage": ("tcgen05.commit", 0, {"deadlock"}),
    "mma_signals_accumulator": ("tcgen05.commit", 1, {"deadlock"}),
    "expected_bytes": ("mbarrier.arrive.expect_tx", 0, {"deadlock"}),
    "store_reads_before_reuse": ("cp.async.bulk.wait_group.read", 0, {"read_before_async_copy_done"}),
    "store_reads_before_exit": ("cp.async.bulk.wait_group.read", 1, {"read_before_async_copy_done"}),
    "fence_before_store": ("fence.proxy.async", 0, {"sync_misuse"}),
    "barrier_before_store": ("bar.sync", 3, {"uninitialised_read", "read_before_async_copy_done", "sync_misuse"}),
    "barriers_initialised_across_the_pair": ("barrier.cluster.wait", 0, {"sync_misuse"}),
}


@pytest.mark.parametrize("name", PAIR_FAULTS)
def test_pair_without_one_of_its_waits_is_caught(softgpu, name):
    opcode, occurrence, kinds = PAIR_FAULTS[name]
    gemm = cute_gemm.pair(512, 256, 768)
    outcomes = _outcomes(gemm, 1, _without(gemm.ptx, opcode, occurrence))
    assert kinds & set(outcomes)
    assert set(outcomes) <= kinds | {"wrong", "right", "deadlock"}
    with_races = _outcomes(gemm, 1, _without(gemm.ptx, opcode, occurrence), seeds=2, races=True)
    assert not {"wrong", "right"} & set(with_races)


def _with_fewer_buffers(ptx: str, stages: int, shifts: tuple[int, ...]) -> str:
    """Let the last two stages share their memory: the stage number is clamped wherever it is scaled to an address.

    ``shifts`` are the scales: of A's and B's bytes where they are loaded, and of both in a descriptor's 16-byte units.
    """
    stage_registers = set(re.findall(r"shl\.b32\s+%r\d+, (%r\d+), 3;", ptx))  # also indexes the barriers
    pattern = re.compile(rf"shl\.b32\s+(%r\d+), (%r\d+), ({'|'.join(map(str, shifts))});")
    count = 0

    def clamp(match: re.Match[str]) -> str:
        nonlocal count
        target, stage, shift = match.groups()
        if stage not in stage_registers:
            return match.group(0)
        count += 1
        return f"min.u32 {target}, {stage}, {stages - 2}; shl.b32 {target}, {target}, {shift};"

    edited = pattern.sub(clamp, ptx)
    assert count == len(shifts), f"{count} addresses found, not {len(shifts)}: the compiler's code has changed"
    return edited


def test_pair_with_one_stage_too_few_is_caught(softgpu):
    gemm = cute_gemm.pair(512, 256, 768)
    outcomes = _outcomes(gemm, 1, _with_fewer_buffers(gemm.ptx, 4, (14, 13, 10, 9)))
    assert outcomes.count("right") <= 1
    assert "read_before_async_copy_done" in outcomes
    with_races = _outcomes(gemm, 1, _with_fewer_buffers(gemm.ptx, 4, (14, 13, 10, 9)), seeds=2, races=True)
    assert set(with_races) <= {"read_before_async_copy_done", "data_race"}


@HOPPER
@pytest.mark.parametrize("occurrence", [0, 1])
def test_hopper_kernel_without_a_wgmma_wait_is_caught(softgpu, occurrence):
    gemm = cute_gemm.hopper(256, 256, 512)
    outcomes = _outcomes(gemm, 1, _without(gemm.ptx, "wgmma.wait_group", occurrence), seeds=4)
    assert "right" not in outcomes
