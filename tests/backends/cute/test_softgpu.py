"""The printed kernels run on the software GPU: results, for shapes, types, schedules and epilogues; and broken copies
that must be caught.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from helion.backends.cute.schedule import MatmulSchedule
from helion.backends.cute.schedule import default_schedule
from helion.backends.cute.schedule import max_ab_stages_that_fit
from helion.backends.cute.spec import MatmulSpec
from helion.backends.cute.spec import Operand
from tests import softgpu as software

from .gpu import Problem
from .gpu import check
from .problems import BF16
from .problems import F32
from .problems import FP8
from .problems import every_kind
from .problems import hopper
from .problems import matmul
from .problems import pair
from .problems import rowwise
from .problems import small

pytestmark = pytest.mark.compiles

E5M2 = torch.float8_e5m2
F16 = torch.float16
blackwell = pytest.mark.softgpu(capability=100, software_only=True)
hopper_gpu = pytest.mark.softgpu(capability=90, software_only=True)


def run(spec: MatmulSpec, schedule: MatmulSchedule, seed: int = 0, clusters: int = 2) -> None:
    """Launch on few clusters, so that each walks several tiles, and compare with float64."""
    problem = Problem.random(spec, seed)
    got = problem.launch(schedule, min(clusters, schedule.tile_count(spec)))
    check(got, problem.product(), spec.k)


# -- tcgen05
# ---------------------------------------------------------------------------------------------------------------


@blackwell
@pytest.mark.parametrize("seed", range(3))
def test_pairs_multiply_fp8(softgpu, seed: int) -> None:
    run(matmul(512, 256, 512, FP8), pair(ab_stages=4), seed)


@blackwell
@pytest.mark.parametrize("seed", range(3))
def test_single_ctas_multiply_bf16(softgpu, seed: int) -> None:
    run(matmul(256, 256, 256), small(), seed)


@blackwell
def test_the_narrowest_tiles_on_blackwell(softgpu) -> None:
    run(matmul(200, 72, 72), dataclasses.replace(small(), tile_n=16, epilogue_n=16))


@hopper_gpu
@pytest.mark.parametrize("columns", [16, 24])
def test_the_narrowest_tiles_on_hopper(softgpu, columns: int) -> None:
    run(matmul(100, columns, 72), dataclasses.replace(hopper(), tile_m=64, tile_n=16, tile_k=32, epilogue_n=16))


TAILS = [(1, 16, 16), (17, 264, 72), (255, 128, 64), (257, 136, 200), (128, 8, 8), (130, 1000, 24)]


@blackwell
@pytest.mark.parametrize("shape", TAILS, ids=str)
@pytest.mark.parametrize("b_major", ["k", "n"])
def test_tails_of_single_ctas(softgpu, shape: tuple[int, int, int], b_major: str) -> None:
    run(matmul(*shape, b_major=b_major), small(), seed=sum(shape))


@blackwell
@pytest.mark.parametrize("shape", [(1, 16, 16), (17, 272, 80), (257, 144, 208), (300, 400, 528)], ids=str)
@pytest.mark.parametrize("b_major", ["k", "n"])
def test_tails_of_pairs(softgpu, shape: tuple[int, int, int], b_major: str) -> None:
    run(matmul(*shape, FP8, b_major=b_major), pair(ab_stages=3), seed=sum(shape))


SEEDS = range(4)


def run_in_many_orders(spec: MatmulSpec, schedule: MatmulSchedule) -> None:
    """As `run`, under several seeds of what hardware leaves open: who goes first, and when copies and products
    complete.
    """
    for seed in SEEDS:
        software.install(90 if schedule.arch == "sm_90a" else 100, seed=seed)
        run(spec, schedule, seed, clusters=1 + seed % 2)


@blackwell
@pytest.mark.parametrize("stages", [2, 3, 5, 8])
def test_every_depth_of_the_ring(softgpu, stages: int) -> None:
    spec = matmul(256, 256, 1024, FP8)
    assert stages <= max_ab_stages_that_fit(pair(), spec)
    run_in_many_orders(spec, pair(ab_stages=stages))


@blackwell
def test_the_deepest_ring(softgpu) -> None:
    spec, schedule = matmul(300, 264, 1040, FP8), pair(ab_stages=12, tile_k=64)
    assert max_ab_stages_that_fit(schedule, spec) == schedule.ab_stages
    run_in_many_orders(spec, schedule)


@blackwell
def test_lanes_that_store_by_themselves_meet_again(softgpu) -> None:
    """The lanes whose row is past the end went on to tensor memory's next instruction without the others."""
    spec = matmul(130, 130, 320, FP8, F32, batch=3, epilogue=every_kind(130))
    for seed in range(8):
        software.install(100, seed=seed)
        Problem.random(spec, seed).launch(pair(tile_n=32, tile_k=64, acc_stages=1, ab_stages=4), 15)


@blackwell
@pytest.mark.parametrize("operand", [BF16, F16, FP8, E5M2], ids=str)
@pytest.mark.parametrize("out", [BF16, F16, F32, FP8, E5M2], ids=str)
def test_types(softgpu, operand: torch.dtype, out: torch.dtype) -> None:
    spec = matmul(200, 144, 160, operand, out)
    run(spec, default_schedule(spec, "sm_100a"), seed=1)


@blackwell
def test_mixed_fp8(softgpu) -> None:
    spec = dataclasses.replace(matmul(256, 128, 256, FP8), b=Operand(E5M2, 256, 1))
    run(spec, pair(ab_stages=3))


@blackwell
@pytest.mark.parametrize(
    "schedule",
    [
        pair(ab_stages=3, cluster_m=4),
        pair(ab_stages=3, cluster_n=2),
        pair(ab_stages=3, cluster_m=4, cluster_n=2),
        pair(ab_stages=3, tile_n=32),
        pair(ab_stages=3, tile_n=256),
        pair(ab_stages=3, tile_k=64),
        pair(ab_stages=3, tile_k=256),
        pair(ab_stages=3, epilogue_n=64, c_stages=2),
        pair(ab_stages=3, c_stages=1),
        pair(ab_stages=3, acc_stages=1),
        pair(ab_stages=3, acc_stages=4),
        pair(ab_stages=3, l2_swizzle=2),
        pair(ab_stages=3, l2_swizzle=4),
    ],
    ids=lambda s: (
        f"{s.tile_n}-{s.tile_k}-{s.cluster_m}{s.cluster_n}-{s.acc_stages}{s.c_stages}-{s.epilogue_n}-{s.l2_swizzle}"
    ),
)
def test_schedules_of_pairs(softgpu, schedule: MatmulSchedule) -> None:
    run(matmul(600, 784, 272, FP8), schedule, seed=5)


@blackwell
@pytest.mark.parametrize(("cluster_m", "cluster_n"), [(2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("b_major", ["k", "n"])
def test_clusters_of_single_ctas(softgpu, cluster_m: int, cluster_n: int, b_major: str) -> None:
    run(matmul(300, 264, 136, b_major=b_major), small(cluster_m=cluster_m, cluster_n=cluster_n), seed=6)


@blackwell
def test_a_batch_and_a_shared_operand(softgpu) -> None:
    spec = matmul(200, 136, 72, batch=3)
    run(spec, small(), seed=7)
    run(dataclasses.replace(spec, b=dataclasses.replace(spec.b, batch=0)), small(), seed=8)


@blackwell
@pytest.mark.parametrize("out", [BF16, F32, FP8], ids=str)
def test_an_output_stored_by_its_threads(softgpu, out: torch.dtype) -> None:
    run(matmul(255, 257, 72, BF16, out), small(), seed=9)


@blackwell
@pytest.mark.parametrize("schedule", [pair(ab_stages=3), pair(ab_stages=3, cluster_n=2)], ids=["plain", "multicast"])
@pytest.mark.parametrize("shape", [(256, 256, 128), (300, 272, 144)], ids=str)
def test_row_wise_scales(softgpu, schedule: MatmulSchedule, shape: tuple[int, int, int]) -> None:
    check_rowwise(shape, FP8, schedule)


def check_rowwise(shape: tuple[int, int, int], dtype: torch.dtype, schedule: MatmulSchedule) -> None:
    spec = dataclasses.replace(matmul(*shape, dtype), epilogue=rowwise())
    problem = Problem.random(spec, 11)
    got = problem.launch(schedule, 2)
    scale = problem.broadcast("scale_a") * problem.broadcast("scale_b")
    check(got, problem.product() * scale, spec.k, scale)


def check_every_kind(m: int, n: int, batch: int, schedule: MatmulSchedule) -> None:
    spec = dataclasses.replace(matmul(m, n, 72, batch=batch), epilogue=every_kind(n))
    problem = Problem.random(spec, m + n)
    got = problem.launch(schedule, 2)
    alpha, gain, scale = (problem.broadcast(name) for name in ("alpha", "gain", "scale"))
    want = (
        torch.relu(problem.product() * alpha + problem.broadcast("bias") * scale) + problem.broadcast("residual") * gain
    )
    check(got, want, spec.k, 2.0)


@blackwell
@pytest.mark.parametrize(("m", "n"), [(256, 256), (255, 264), (17, 257), (1, 8)])
def test_every_kind_of_epilogue_operand(softgpu, m: int, n: int) -> None:
    check_every_kind(m, n, 1, small())
    check_every_kind(m, n, 2, small())


# -- wgmma
# -----------------------------------------------------------------------------------------------------------------


@hopper_gpu
@pytest.mark.parametrize("shape", [(256, 256, 256), *TAILS], ids=str)
@pytest.mark.parametrize("b_major", ["k", "n"])
def test_hopper_shapes(softgpu, shape: tuple[int, int, int], b_major: str) -> None:
    run(matmul(*shape, b_major=b_major), hopper(), seed=sum(shape))


@hopper_gpu
@pytest.mark.parametrize("operand", [BF16, F16, FP8, E5M2], ids=str)
@pytest.mark.parametrize("out", [BF16, F32, FP8], ids=str)
def test_hopper_types(softgpu, operand: torch.dtype, out: torch.dtype) -> None:
    spec = matmul(200, 144, 160, operand, out)
    run(spec, default_schedule(spec, "sm_90a"), seed=2)


@hopper_gpu
@pytest.mark.parametrize(
    "schedule",
    [
        hopper(tile_m=64),
        hopper(tile_n=256, ab_stages=2),
        hopper(tile_k=32),
        hopper(epilogue_n=64),
        hopper(cluster_m=2),
        hopper(cluster_n=2),
        hopper(cluster_m=2, cluster_n=2),
        hopper(l2_swizzle=2),
    ],
    ids=lambda s: f"{s.tile_m}-{s.tile_n}-{s.tile_k}-{s.cluster_m}{s.cluster_n}-{s.epilogue_n}-{s.l2_swizzle}",
)
def test_hopper_schedules(softgpu, schedule: MatmulSchedule) -> None:
    run(matmul(300, 520, 136), schedule, seed=3)


@hopper_gpu
@pytest.mark.parametrize("stages", [2, 3, 6])
def test_hopper_every_depth_of_the_ring(softgpu, stages: int) -> None:
    spec = matmul(256, 264, 520)
    assert stages <= max_ab_stages_that_fit(hopper(), spec) == 6
    run_in_many_orders(spec, hopper(ab_stages=stages))


@hopper_gpu
def test_hopper_the_deepest_ring(softgpu) -> None:
    spec, schedule = matmul(200, 72, 1040, FP8), hopper(tile_n=32, ab_stages=12, tile_k=64)
    assert max_ab_stages_that_fit(schedule, spec) == schedule.ab_stages
    run_in_many_orders(spec, schedule)


@hopper_gpu
def test_hopper_fp8_accumulates_in_the_tensor_core_when_asked(softgpu) -> None:
    spec = dataclasses.replace(matmul(256, 256, 512, FP8), fast_accumulate=True)
    run(spec, hopper(tile_k=128), seed=4)


@hopper_gpu
@pytest.mark.parametrize(("m", "n"), [(256, 256), (255, 264), (17, 257), (1, 8)])
def test_hopper_every_kind_of_epilogue_operand(softgpu, m: int, n: int) -> None:
    check_every_kind(m, n, 1, hopper())
    check_every_kind(m, n, 2, hopper())


@hopper_gpu
def test_hopper_row_wise_scales(softgpu) -> None:
    check_rowwise((300, 272, 144), FP8, hopper(tile_k=128))
