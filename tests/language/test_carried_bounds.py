"""Loops whose bounds are variables that the loop around them carries: Triton drops such a variable and its updates."""

from __future__ import annotations

import pytest
import torch

import helion.language as hl
from tests.support import run_everywhere

pytestmark = pytest.mark.compiles


def expanded(counts: torch.Tensor, values: torch.Tensor, n: int) -> torch.Tensor:
    """The output's length is `n`; rows of `counts` sum to it."""
    out = torch.zeros([counts.size(0), n], dtype=values.dtype, device=values.device)
    for b in hl.grid(counts.size(0)):
        position = 0
        for k in hl.grid(counts.size(1)):
            value = values[b, k]
            for t in hl.tile(position, position + counts[b, k]):
                out[b, t] = value
            position = position + counts[b, k]
    return out


def expanded_in_a_branch(counts: torch.Tensor, values: torch.Tensor, n: int) -> torch.Tensor:
    out = torch.zeros([counts.size(0), n], dtype=values.dtype, device=values.device)
    for b in hl.grid(counts.size(0)):
        position = counts[b, 0] * 0
        for k in hl.grid(counts.size(1)):
            if values[b, k] < 100:
                for half in hl.grid(2):
                    for t in hl.grid(position, position + counts[b, k]):
                        out[b, t] += values[b, k] * half
            position += counts[b, k]
    return out


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("kernel", [expanded, expanded_in_a_branch], ids=lambda kernel: kernel.__name__)
def test_where_a_row_of_copies_begins(kernel, dtype: torch.dtype) -> None:
    counts = torch.tensor([[3, 4, 1], [1, 5, 2]], dtype=dtype)
    values = torch.randn(2, 3, dtype=torch.float64)
    expected = torch.stack([row.repeat_interleave(count) for row, count in zip(values, counts)])
    configs = [{"block_sizes": [1]}, {"block_sizes": [2]}] if kernel is expanded else [{}]
    args = (counts, values, 8)
    run_everywhere(kernel, args, lambda *_: expected, configs=configs, reference_args=args, capabilities=[90])


def test_a_loop_that_is_one_shorter_each_time() -> None:
    def sums(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for _ in hl.grid(1):
            left = x.size(0) * 2 // 2
            for k in hl.grid(x.size(0)):
                total = hl.zeros([], dtype=x.dtype)
                for t in hl.grid(left):
                    total = total + x[t]
                out[k] = total
                left -= 1
        return out

    x = torch.randn(6)
    run_everywhere(sums, (x,), lambda x: x.cumsum(0).flip(0), configs=[{}], capabilities=[90])


def counts_between(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    out = torch.zeros([2, low.size(0)], dtype=torch.int64, device=low.device)
    for i in hl.grid(low.size(0)):
        places = hl.zeros([], dtype=torch.int64)
        for k in hl.grid(low[i], high[i]):
            places += k
        elements = hl.zeros([], dtype=torch.int64)
        for t in hl.tile(low[i], high[i]):
            elements += (t.index >= 0).sum()
        out[0, i], out[1, i] = places, elements
    return out


def test_bounds_of_unsigned_dtypes_are_not_negative() -> None:
    """On a GPU a range that ended at 200 in uint8 had no elements."""
    low, high = torch.tensor([0, 100, 130], dtype=torch.uint8), torch.tensor([200, 90, 255], dtype=torch.uint8)
    ranges = [range(a, b) for a, b in zip(low.tolist(), high.tolist())]
    expected = torch.tensor([[sum(r) for r in ranges], [len(r) for r in ranges]])
    args = (low, high)
    run_everywhere(counts_between, args, lambda *_: expected, configs=[{}], reference_args=args, capabilities=[90])
