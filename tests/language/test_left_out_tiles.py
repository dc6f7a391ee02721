"""Stores whose index leaves out a tile of the loop: one tile covers the range there."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from helion.runtime.eager.ref_mode import run_ref
from tests.support import run_everywhere


def row_sums(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0)], dtype=x.dtype, device=x.device)
    for tm, tn in hl.tile([x.size(0), x.size(1)]):
        out[tm] = x[tm, tn].sum(-1)
    return out


def test_a_left_out_tile_covers_its_range_under_every_config() -> None:
    configs = [{"block_sizes": [4, 8]}, {"block_sizes": [8, 1], "loop_orders": [[1, 0]]}]
    run_everywhere(
        row_sums, (torch.randn(10, 30),), lambda x: x.sum(-1), configs=configs, capabilities=[90], error_scale=8
    )


def test_under_dynamic_shapes_a_longer_range_is_covered_too() -> None:
    kernel = helion.kernel(row_sums, static_shapes=False, config=helion.Config(block_sizes=[4, 8]))
    for n in (30, 100, 7):
        x = torch.randn(10, n)
        torch.testing.assert_close(kernel(x), x.sum(-1))


def test_a_block_size_of_the_kernels_own_is_not_changed() -> None:
    @helion.kernel
    def fixed(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty([x.size(0)], dtype=x.dtype, device=x.device)
        for tm, tn in hl.tile([x.size(0), x.size(1)], block_size=[None, 8]):
            out[tm] = x[tm, tn].sum(-1)
        return out

    with pytest.raises(exc.LoopDependencyError, match="'tn'"):
        fixed.bind((torch.randn(10, 30),))
    x = torch.randn(10, 8)
    torch.testing.assert_close(fixed(x), x.sum(-1))


def test_a_range_that_no_tile_covers_is_refused() -> None:
    with pytest.raises(exc.LoopDependencyError):
        helion.kernel(row_sums).bind((torch.randn(2, 100_000),))


def in_branches(x: torch.Tensor, on: torch.Tensor) -> torch.Tensor:
    out = torch.zeros([5, x.size(0)], dtype=x.dtype, device=x.device)
    for tm, tn in hl.tile([x.size(0), x.size(1)]):
        v = x[tm, tn]
        if on[0] > 0:
            out[0, tm] = v.sum(-1)
        else:
            out[1, tm] = v.sum(-1)
        if (v == v).any():
            out[2, tm] = v.sum(-1)
        for _ in hl.grid(2):
            if tn.begin >= 0:
                out[3, tm] = v.sum(-1)
        if tn.id % 2 == 0:
            out[4, tm] = v.sum(-1)
    return out


def test_a_tile_that_a_store_in_a_branch_leaves_out_covers_its_range() -> None:
    def expected(x: torch.Tensor, on: torch.Tensor) -> torch.Tensor:
        sums = x.sum(-1)
        return torch.stack([sums, torch.zeros_like(sums), sums, sums, sums])

    args = torch.randn(10, 30), torch.ones(1, dtype=torch.int32)
    run_everywhere(in_branches, args, expected, configs=[{"block_sizes": [4, 8]}], capabilities=[90], error_scale=8)


@pytest.mark.parametrize("static_shapes", [True, False])
def test_one_tile_that_a_condition_elects_stores_alone(static_shapes: bool) -> None:
    @helion.kernel(config=helion.Config(block_sizes=[4, 8]), static_shapes=static_shapes)
    def elected(x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros([3, x.size(0)], dtype=x.dtype, device=x.device)
        for tm, tn in hl.tile([x.size(0), x.size(1)]):
            if tn.id == 0:
                out[0, tm] = x[tm, tn].sum(-1)
            if tn.end == x.size(1):
                out[1, tm] = x[tm, tn].sum(-1)
            if tm.begin >= 0 and tn.id == 1:
                out[2, tm] = x[tm, tn].sum(-1)
        return out

    x = torch.randn(10, 30)
    torch.testing.assert_close(
        elected(x), torch.stack([x[:, s].sum(-1) for s in (slice(8), slice(24, 30), slice(8, 16))])
    )


def running_maximum(x: torch.Tensor) -> torch.Tensor:
    best = torch.zeros([1], dtype=x.dtype, device=x.device)
    for i in hl.grid(x.size(0)):
        if x[i] > best[0]:
            best[0] = x[i]
    return best


def all_but_one(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros([1], dtype=x.dtype, device=x.device)
    for i in hl.grid(x.size(0)):
        if i == 0:
            x[i] = 0
        else:
            out[0] = x[i]
    return out


@pytest.mark.parametrize("kernel", [running_maximum, all_but_one])
def test_tiles_of_one_element_that_store_to_one_place_in_a_branch_are_refused(kernel) -> None:
    with pytest.raises(exc.LoopDependencyError, match="'i' stores to the same elements"):
        helion.kernel(kernel).bind((torch.randn(50),))


def test_ref_mode_refuses_different_values_at_one_place() -> None:
    x = torch.randn(10, 64)
    with pytest.raises(exc.LoopDependencyError, match="'out'"):
        run_ref(row_sums, (x,), config={"block_sizes": [16, 16]})
    torch.testing.assert_close(run_ref(row_sums, (x,), config={"block_sizes": [4, 64]}), x.sum(-1))
    torch.testing.assert_close(
        run_ref(row_sums, (torch.ones(10, 64),), config={"block_sizes": [4, 64]})[0], torch.tensor(64.0)
    )
