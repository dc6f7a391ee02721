"""Median, mode, quantiles and places in ordered values on tiles, in every way to run a kernel."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from tests.support import run_everywhere

pytestmark = pytest.mark.slow

CONFIG = helion.Config(block_sizes=[4])


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64], ids=str)
@pytest.mark.parametrize("descending", [False, True])
def test_sort_of_64_bits(dtype, descending, seed):
    @helion.kernel(config=CONFIG)
    def kernel(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values = torch.empty_like(x)
        places = torch.empty(x.shape, dtype=torch.int64, device=x.device)
        for tile in hl.tile(x.size(0)):
            values[tile, :], places[tile, :] = torch.sort(x[tile, :], dim=1, descending=descending)
        return values, places

    x = torch.randint(-(2**62), 2**62, (10, 13))
    x[:, 3:6] = x[:, :3] + torch.randint(-1, 2, (10, 3))  # differ in the low half, or not at all
    x[:, 7:9] = x[:, :2] ^ (1 << 40)  # differ in the high half
    if dtype is torch.float64:
        x = x.view(torch.float64)
        x[0, 3], x[1, 0], x[1, 12], x[2, 5], x[2, 6] = (float(v) for v in ("nan", "-inf", "inf", "-0.0", "0.0"))

    def expected(x):
        return tuple(torch.sort(x, dim=1, descending=descending, stable=True))

    run_everywhere(kernel, (x,), expected, reference_args=(x,), error_scale=0, capabilities=[90])


@helion.kernel(config=CONFIG)
def middles(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    median, nanmedian, mode, third = (torch.empty([x.size(0)], dtype=x.dtype, device=x.device) for _ in range(4))
    for tile in hl.tile(x.size(0)):
        row = x[tile, :]
        median[tile] = row.median(dim=1).values
        nanmedian[tile] = torch.nanmedian(row, dim=1).values
        mode[tile] = torch.mode(row, 1).values
        third[tile] = torch.nanquantile(row, 0.3, dim=1)
    return median, nanmedian, mode, third


@pytest.mark.parametrize("columns", [1, 6, 7])
def test_median_mode_and_quantile(columns, seed):
    x = torch.randint(0, 4, (10, columns)).float()
    x[1, 0] = x[2, :] = x[3, -1] = float("nan")
    x[4, 0] = float("inf")

    def expected(x):
        return (
            x.median(dim=1).values,
            torch.nanmedian(x, dim=1).values,
            torch.mode(x, 1).values,
            torch.nanquantile(x, 0.3, dim=1),
        )

    run_everywhere(middles, (x,), expected, capabilities=[90])


@helion.kernel(config=CONFIG)
def look_up(bounds: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    left = torch.empty(x.shape, dtype=torch.int64, device=x.device)
    right = torch.empty_like(left)
    for tile in hl.tile(x.size(0)):
        left[tile, :] = torch.searchsorted(bounds[tile, :], x[tile, :])
        right[tile, :] = torch.searchsorted(bounds[tile, :], x[tile, :], right=True)
    return left, right


def test_searchsorted(seed):
    bounds = torch.randint(0, 6, (10, 5)).float().sort(dim=1).values
    x = torch.randint(-1, 7, (10, 9)).float()
    x[0, 0], x[1, 1] = float("nan"), float("inf")

    def expected(bounds, x):
        return torch.searchsorted(bounds, x), torch.searchsorted(bounds, x, right=True)

    run_everywhere(look_up, (bounds, x), expected)
