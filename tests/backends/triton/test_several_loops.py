"""Several top-level loops: one launch, in which loops run at the same time or wait for each other at `hl.barrier()`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from tests.softgpu.provider import SM_COUNT
from tests.support import compile_for
from tests.support import run_everywhere

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

PERSISTENT = ("persistent_interleaved", "persistent_blocked")


def standardize(x: torch.Tensor) -> torch.Tensor:
    """Three phases, the first of two loops."""
    rows, columns = x.size()
    mean = torch.empty([columns], device=x.device)
    largest = torch.empty([rows], device=x.device)
    deviation = torch.empty_like(mean)
    out = torch.empty_like(x)
    for tile_n in hl.tile(columns):
        mean[tile_n] = x[:, tile_n].mean(0)
    for tile_m in hl.tile(rows):
        largest[tile_m] = x[tile_m, :].amax(1)
    hl.barrier()
    for tile_n in hl.tile(columns):
        centered = x[:, tile_n] - mean[tile_n][None, :]
        deviation[tile_n] = torch.sqrt((centered * centered).mean(0))
    hl.barrier()
    for tile_m, tile_n in hl.tile([rows, columns]):
        centered = x[tile_m, tile_n] - mean[tile_n][None, :]
        out[tile_m, tile_n] = centered / deviation[tile_n][None, :] + largest[tile_m][:, None]
    return out


def standardize_reference(x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(0)) / x.std(0, correction=0) + x.amax(1)[:, None]


def independent(x: torch.Tensor, w: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three loops of different shapes: a product, rows, and a flat range."""
    product = torch.empty([x.size(0), w.size(1)], device=x.device)
    sums = torch.empty([w.size(0)], device=x.device)
    flat = w.view(-1)
    scaled = torch.empty_like(flat)
    for tile_m, tile_n in hl.tile([x.size(0), w.size(1)]):
        acc = hl.zeros([tile_m, tile_n])
        for tile_k in hl.tile(x.size(1)):
            acc = torch.addmm(acc, x[tile_m, tile_k], w[tile_k, tile_n])
        product[tile_m, tile_n] = acc
    for tile in hl.tile(w.size(0)):
        sums[tile] = w[tile, :].sum(1)
    for tile in hl.tile(flat.size(0)):
        scaled[tile] = flat[tile] * scale
    return product, sums, scaled


def independent_reference(x: torch.Tensor, w: torch.Tensor, scale: float) -> tuple[torch.Tensor, ...]:
    return x @ w, w.sum(1), w.view(-1) * scale


def few_programs(capability: int) -> dict[str, int]:
    """Three multiprocessors are left: every program has several tiles."""
    return {"persistent_reserved_sms": SM_COUNT[capability] - 3}


@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
@pytest.mark.parametrize(("capability", "pid_type"), [(80, PERSISTENT[0]), (90, PERSISTENT[1]), (100, PERSISTENT[0])])
def test_phases_wait_for_each_other(capability: int, pid_type: str, static: bool, seed: int) -> None:
    config = {"block_sizes": [8, 4, 16, 8, 16], "pid_type": pid_type, "num_warps": 2}
    kernel = helion.kernel(standardize, static_shapes=static, **few_programs(capability))
    run_everywhere(
        kernel,
        (torch.randn(37, 70),),
        standardize_reference,
        configs=[config],
        error_scale=32,
        capabilities=[capability],
    )


@pytest.mark.parametrize(
    ("capability", "pid_type"), [(80, "flat"), (90, "persistent_interleaved"), (100, "persistent_blocked")]
)
def test_independent_loops_share_a_launch(capability: int, pid_type: str, seed: int) -> None:
    config = {"block_sizes": [16, 16, 16, 4, 64], "pid_type": pid_type}
    kernel = helion.kernel(independent, **few_programs(capability))
    args = (torch.randint(-8, 9, (40, 33)).float(), torch.randint(-8, 9, (33, 50)).float(), 3.0)  # exact in tf32
    run_everywhere(kernel, args, independent_reference, configs=[config], capabilities=[capability])


@pytest.mark.parametrize("capability", [90, 100])
def test_descriptors_read_what_an_earlier_phase_wrote_through_others(capability: int, seed: int) -> None:
    def twice(x: torch.Tensor) -> torch.Tensor:
        between, out = torch.empty_like(x), torch.empty_like(x)
        for tile in hl.tile(x.shape):
            between[tile] = x[tile] * 2
        hl.barrier()
        for tile_m, tile_n in hl.tile(x.shape):
            out[tile_m, tile_n] = between[tile_m, tile_n] + between[tile_m, 0][:, None]
        return out

    config = {"block_sizes": [8, 32, 16, 16], "indexing": "tensor_descriptor"}
    kernel = helion.kernel(twice, **few_programs(capability))
    run_everywhere(
        kernel, (torch.randn(40, 64),), lambda x: 2 * (x + x[:, :1]), configs=[config], capabilities=[capability]
    )


@pytest.mark.parametrize(
    "config", [{}, {"flatten_loops": [False, True]}, {"l2_groupings": [2, 1], "loop_orders": [[1, 0], [0, 1]]}], ids=str
)
def test_keys_of_loops_apply_to_each(config: dict[str, Any], seed: int) -> None:
    def two(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = torch.empty_like(x), torch.empty_like(y)
        for tile in hl.tile(x.shape):
            a[tile] = x[tile] + 1
        for tile in hl.tile(y.shape):
            b[tile] = y[tile] * 2
        return a, b

    blocks = {"block_sizes": [8, 16, 4, 32]}
    args = (torch.randn(30, 40), torch.randn(19, 90))
    run_everywhere(two, args, lambda x, y: (x + 1, y * 2), configs=[{**blocks, **config}], capabilities=[90])


@pytest.mark.compiles
def test_each_phase_compiles_into_one_kernel_with_its_barriers() -> None:
    for launches in compile_for(helion.kernel(standardize), (torch.randn(37, 70),)):
        (stages,) = launches
        assert stages["ptx"].count("%envreg1") == 2


def test_a_barrier_needs_programs_that_are_all_there() -> None:
    bound = helion.kernel(standardize).bind((torch.randn(37, 70),))
    assert bound.config_spec.default_config()["pid_type"] == "persistent_interleaved"
    with pytest.raises(helion.exc.InvalidConfig, match=r"pid_type='flat'.*persistent"):
        bound.to_triton_code({"pid_type": "flat"})


def test_a_grid_of_three_dimensions_has_one_loop() -> None:
    bound = helion.kernel(independent).bind((torch.randn(4, 4), torch.randn(4, 4), 1.0))
    with pytest.raises(helion.exc.InvalidConfig, match=r"pid_type.*'xyz'"):
        bound.to_triton_code({"pid_type": "xyz"})


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_a_loop_without_tiles(shape: tuple[int, int], seed: int) -> None:
    def kernel(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = torch.empty_like(x), torch.empty_like(y)
        for tile in hl.tile(x.shape):
            a[tile] = x[tile] + 1
        hl.barrier()
        for tile in hl.tile(y.size(0)):
            b[tile] = y[tile] * 2
        return a, b

    args = (torch.randn(shape), torch.randn(70))
    run_everywhere(kernel, args, lambda x, y: (x + 1, y * 2), configs=[{"block_sizes": [4, 4, 16]}], capabilities=[90])


def launches(kernel: Any) -> Counter[str]:
    """How many launches of it each layer has done."""
    return Counter(kernel.stats.snapshot().layers)


@pytest.mark.softgpu(capability=90)
@pytest.mark.compiles
def test_a_call_is_one_launch_from_c(softgpu: Any, seed: int) -> None:
    kernel = helion.kernel(standardize, config=helion.Config(block_sizes=[8, 4, 16, 8, 16]))
    x = torch.randn(37, 70, device=softgpu.device)
    for _ in range(4):
        kernel(x)
    before = launches(kernel)
    result = kernel(x)
    assert launches(kernel) - before == {"plan": 1}
    torch.testing.assert_close(result, standardize_reference(x.double()).float(), rtol=1e-4, atol=1e-4)


@pytest.mark.softgpu(capability=90, software_only=True)
@pytest.mark.parametrize("fast", [True, False], ids=["C", "Triton"])
@pytest.mark.compiles
def test_more_programs_than_fit_are_refused(fast: bool, softgpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELION_SKIP_FAST_LAUNCHER", "0" if fast else "1")
    config = helion.Config(block_sizes=[1, 1, 1, 1, 1], num_warps=32, num_sm_multiplier=4)
    kernel = helion.kernel(standardize, config=config, static_shapes=False)
    for _ in range(3):
        kernel(torch.randn(33, 66)[:4, :4])
    with pytest.raises(
        RuntimeError, match=r"too many blocks in cooperative launch.*lower num_sm_multiplier or num_warps"
    ):
        kernel(torch.randn(33, 66))
