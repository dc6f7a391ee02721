"""Schedules: what is refused and with which words, and how deep a ring fits."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from helion.backends.cute.schedule import MAX_AB_STAGES
from helion.backends.cute.schedule import SHARED_MEMORY_BYTES
from helion.backends.cute.schedule import MatmulSchedule
from helion.backends.cute.schedule import default_schedule
from helion.backends.cute.schedule import max_ab_stages_that_fit
from helion.backends.cute.schedule import search_values
from helion.backends.cute.spec import Operand
from helion.target import Target

from .problems import BF16
from .problems import F32
from .problems import FP8
from .problems import hopper
from .problems import matmul
from .problems import pair
from .problems import small


def test_published_depths_fit_for_4096_cubed_fp8() -> None:
    spec = matmul(4096, 4096, 4096, FP8)
    assert max_ab_stages_that_fit(pair(), spec) == 8
    assert pair().shared_bytes(spec) <= SHARED_MEMORY_BYTES


def test_twelve_stages_of_a_small_fp8_tile_fit() -> None:
    spec = matmul(4096, 4096, 4096, FP8)
    schedule = pair(tile_n=64, c_stages=2)
    assert max_ab_stages_that_fit(schedule, spec) >= 10
    assert max_ab_stages_that_fit(pair(tile_n=64, tile_k=64), spec) == MAX_AB_STAGES


@pytest.mark.parametrize("make", [pair, small, hopper])
@pytest.mark.parametrize("out", [BF16, F32, FP8])
def test_the_deepest_ring_that_fits_is_valid_and_one_more_is_not(make, out) -> None:
    dtype = FP8 if make is pair else BF16
    spec = matmul(512, 512, 512, dtype, out)
    deepest = max_ab_stages_that_fit(make(), spec)
    dataclasses.replace(make(), ab_stages=deepest).check(spec)
    with pytest.raises(exc.InvalidConfig, match="tcgen05_ab_stages"):
        dataclasses.replace(make(), ab_stages=deepest + 1).check(spec)


def test_too_deep_a_ring_names_the_bytes_and_the_depth_that_fits() -> None:
    spec = matmul(4096, 4096, 4096, FP8)
    with pytest.raises(exc.InvalidConfig) as caught:
        pair(ab_stages=9).check(spec)
    text = str(caught.value)
    assert "tcgen05_ab_stages=9" in text
    assert "24576 bytes" in text  # one stage
    assert str(SHARED_MEMORY_BYTES) in text
    assert "at most tcgen05_ab_stages=8" in text


@pytest.mark.parametrize(
    ("schedule", "key"),
    [
        (pair(cluster_m=1), "tcgen05_cluster_m=1"),
        (pair(cluster_m=3), "tcgen05_cluster_m=3"),
        (pair(cluster_m=4, cluster_n=4), "16 CTAs"),
        (pair(acc_stages=5), "tcgen05_acc_stages=5"),
        (pair(c_stages=0), "tcgen05_c_stages=0"),
        (pair(l2_swizzle=3), "tcgen05_l2_swizzle_size=3"),
        (pair(tile_m=64, cluster_m=1), "block size of m=64"),
        (pair(tile_n=100), "block size of n=100"),
        (pair(tile_n=512), "block size of n=512"),
        (pair(tile_k=96), "block size of k=96"),
        (pair(ab_stages=13), "tcgen05_ab_stages=13"),
        (pair(ab_stages=1), "tcgen05_ab_stages=1"),
    ],
)
def test_a_bad_value_is_named(schedule: MatmulSchedule, key: str) -> None:
    with pytest.raises(exc.InvalidConfig, match=key):
        schedule.check(matmul(4096, 4096, 4096, FP8))


def test_a_cluster_wider_than_the_problem_is_refused() -> None:
    with pytest.raises(exc.InvalidConfig, match="tcgen05_cluster_n=2 for n=128, which is one tile"):
        pair(cluster_n=2).check(matmul(512, 128, 512, FP8))
    with pytest.raises(exc.InvalidConfig, match="tcgen05_cluster_m=4 for m=256, which is one tile"):
        pair(cluster_m=4).check(matmul(256, 512, 512, FP8))


def test_hopper_has_no_second_accumulator() -> None:
    with pytest.raises(exc.InvalidConfig, match="tcgen05_acc_stages=2"):
        hopper(acc_stages=2).check(matmul(512, 512, 512))


def test_hopper_refuses_an_fp8_operand_that_is_not_contiguous_along_k() -> None:
    spec = matmul(512, 512, 512, FP8, b_major="n")
    with pytest.raises(exc.BackendUnsupported, match="operand B is fp8") as caught:
        hopper(tile_k=128).check(spec)
    assert 'backend="triton"' in str(caught.value)


def test_search_values_are_exactly_what_validation_accepts() -> None:
    spec = matmul(4096, 4096, 4096, FP8)
    values = search_values(pair(), spec)
    assert values["tcgen05_ab_stages"] == tuple(range(2, 9))
    assert values["tcgen05_cluster_m"] == (2, 4, 8)
    assert values["tcgen05_acc_stages"] == (1, 2, 3, 4)


@pytest.mark.parametrize("arch", ["sm_100a", "sm_90a"])
@pytest.mark.parametrize("shape", [(1, 16, 16), (16, 4096, 4096), (255, 264, 72), (8192, 8192, 8192)])
@pytest.mark.parametrize("dtype", [BF16, FP8, torch.float16])
def test_the_default_schedule_is_valid(arch, shape, dtype) -> None:
    spec = matmul(*shape, dtype)
    default_schedule(spec, arch).check(spec)


def test_the_grid_has_no_more_clusters_than_tiles() -> None:
    assert pair().grid(matmul(4096, 4096, 4096, FP8), 148) == (2, 1, 74)
    assert pair().grid(matmul(512, 512, 512, FP8), 148) == (2, 1, 8)
    assert pair().grid(matmul(257, 129, 512, FP8), 148) == (2, 1, 4)
    assert pair().grid(matmul(257, 129, 512, FP8), 1) == (2, 1, 1)


@pytest.mark.parametrize(
    ("operand", "reason"),
    [
        (Operand(BF16, 2, 2), "neither axis is contiguous"),
        (Operand(BF16, 12, 1), "24 bytes"),
        (Operand(BF16, 16, 1, 4), "batch stride of 4 elements is 8 bytes"),
    ],
)
def test_an_operand_no_tensor_map_describes_is_refused_with_the_reason(operand: Operand, reason: str) -> None:
    spec = dataclasses.replace(matmul(64, 64, 64), a=operand)
    with pytest.raises(exc.BackendUnsupported, match=reason):
        spec.check()


@pytest.mark.parametrize(
    ("a", "b", "out", "reason"),
    [
        (torch.float32, torch.float32, BF16, "operand A is torch.float32"),
        (BF16, torch.float16, BF16, "only two fp8 types can be mixed"),
        (BF16, BF16, torch.int8, "the output is torch.int8"),
    ],
)
def test_dtypes_it_does_not_multiply_are_refused(a, b, out, reason) -> None:
    spec = matmul(64, 64, 64)
    spec = dataclasses.replace(spec, a=Operand(a, 64, 1), b=Operand(b, 64, 1), out=Operand(out, 64, 1))
    with pytest.raises(exc.BackendUnsupported, match=reason):
        spec.check()


@pytest.mark.parametrize("capability", [90, 100])
def test_a_tile_narrower_than_the_usual_epilogue_step_needs_no_other_key(capability: int) -> None:
    def product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = x.new_empty([x.size(0), y.size(1)])
        for tm, tn in hl.tile([x.size(0), y.size(1)]):
            acc = hl.zeros([tm, tn])
            for tk in hl.tile(x.size(1)):
                acc = torch.addmm(acc, x[tm, tk], y[tk, tn])
            out[tm, tn] = acc.to(x.dtype)
        return out

    x = torch.empty(256, 128, dtype=torch.bfloat16)
    bound = helion.kernel(product, backend="cute").bind((x, x.T))
    target = Target("nvidia", capability)
    assert bound.generated_source({"block_sizes": [128, 16, 64]}, target).text
    with pytest.raises(exc.InvalidConfig, match=r"item 0 \(tm\): expected a power of two from"):
        bound.generated_source({"block_sizes": [16, 32, 64]}, target)
    # The ring of the default tile was too deep for a larger one.
    tiles = itertools.product((64, 128) if capability == 90 else (128, 256), (32, 64, 128, 256), (32, 64, 128))
    for tile in tiles:
        assert bound.generated_source({"block_sizes": list(tile)}, target).text
