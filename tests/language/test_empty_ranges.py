"""Ranges that end before they begin: empty in every mode, as Python's are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import helion.language as hl
from tests.support import run_everywhere


def backward_grids(x: torch.Tensor, n: int, m: int) -> torch.Tensor:
    out = torch.zeros([8, 8], device=x.device)
    for i, j in hl.grid([5, 5], [n, m]):
        out[i, j] = 1.0
    return out


def backward_tiles(x: torch.Tensor, n: int, m: int) -> torch.Tensor:
    out = torch.zeros([8, 8], device=x.device)
    for i, j in hl.tile([5, 5], [n, m]):
        out[i, j] = 1.0
    return out


def backward_nest(x: torch.Tensor, n: int, m: int) -> torch.Tensor:
    out = torch.zeros([8, 8], device=x.device)
    for i in hl.grid(5, n):
        for j in hl.grid(5, m):
            out[i, j] = 1.0
    return out


def backward_read(x: torch.Tensor, n: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    out = torch.zeros([8, 8], device=x.device)
    for i, j in hl.tile([5, 5], [n, m]):
        out[i, j] = 1.0
    return out


def backward_phases(x: torch.Tensor, n: int, m: int) -> tuple[torch.Tensor, torch.Tensor]:
    out, last = torch.zeros([8, 8], device=x.device), torch.zeros([3], device=x.device)
    for i in hl.grid(5, n):
        out[i, 0] = 1.0
    hl.barrier()
    for i in hl.grid(5, m):
        out[i, 1:] = 1.0
    for i in hl.grid(3):
        last[i] = 1.0
    return out, last


def _filled(x: torch.Tensor, n: Any, m: Any) -> torch.Tensor:
    out = torch.zeros(8, 8, dtype=x.dtype)
    out[5 : max(int(n), 0), 5 : max(int(m), 0)] = 1.0
    return out


def _filled_in_phases(x: torch.Tensor, n: int, m: int) -> tuple[torch.Tensor, torch.Tensor]:
    out = torch.zeros(8, 8, dtype=x.dtype)
    out[5 : max(n, 0), 0] = 1.0
    out[5 : max(m, 0), 1:] = 1.0
    return out, torch.ones(3, dtype=x.dtype)


@pytest.mark.parametrize("static_shapes", [True, False])
@pytest.mark.parametrize(("n", "m"), [(7, 6), (3, 3), (3, 7), (-2, -2), (5, 7)])
def test_a_range_that_ends_before_it_begins_is_empty(n: int, m: int, static_shapes: bool) -> None:
    x = torch.zeros(1)
    for kernel in (backward_grids, backward_tiles, backward_nest):
        run_everywhere(kernel, (x, n, m), _filled, static_shapes=static_shapes, capabilities=[90])
    run_everywhere(backward_read, (x, *map(torch.tensor, (n, m))), _filled, capabilities=[90])
    run_everywhere(backward_phases, (x, n, m), _filled_in_phases, static_shapes=static_shapes, capabilities=[90])


def backward_inner(x: torch.Tensor, bounds: torch.Tensor, n: int) -> torch.Tensor:
    out = torch.zeros([8, 3], device=x.device)
    for i in hl.grid(8):
        count = hl.zeros([])
        for _ in hl.grid(bounds[i], bounds[i + 1], 2):
            count = count + 1
        lanes = hl.zeros([])
        for t in hl.tile(bounds[i], bounds[i + 1], block_size=4):
            lanes = lanes + hl.full([t], 1.0).sum()
        chunk = hl.zeros([])
        for t in hl.tile(i * 3, min(8, (i + 1) * n)):
            chunk = chunk + hl.full([t], 1.0).sum()
        out[i, 0] = count
        out[i, 1] = lanes
        out[i, 2] = chunk
    return out


@pytest.mark.parametrize("unroll", [0, 2, 3, 4])
def test_inner_ranges_that_end_before_they_begin_are_empty(unroll: int) -> None:
    bounds, n = torch.tensor([9, 3, 4, 20, 6, 0, 7, 7, 2]), 3
    rows = []
    for i in range(8):
        low, high = bounds[i : i + 2].tolist()
        chunk = max(min(8, (i + 1) * n) - i * 3, 0)
        rows.append([len(range(low, high, 2)), max(high - low, 0), chunk])
    config = {"block_sizes": [2], "range_unroll_factors": [0, unroll, unroll, unroll]}
    run_everywhere(
        backward_inner,
        (torch.zeros(1), bounds, n),
        lambda *_: torch.tensor(rows).double(),
        configs=[config],
        capabilities=[90],
    )
