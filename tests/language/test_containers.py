"""Lists, dicts and tuples of values in device code."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere


def accumulators(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([5, x.size(0)], device=x.device)
    for tile in hl.tile(x.size(0)):
        sums = [hl.zeros([tile]) for _ in range(3)]
        moments = {"sum": hl.zeros([tile]), "square": hl.zeros([tile])}
        for columns in hl.tile(x.size(1)):
            value = x[tile, columns]
            for i in hl.static_range(3):
                sums[i] += value.sum(1) * (i + 1)
            moments["sum"] = moments["sum"] + value.sum(1)
            moments["square"] += (value * value).sum(1)
        first, *rest = sums
        by_row = {2 * i: value for i, value in enumerate([first, *rest, moments["sum"], moments["square"]])}
        for i in range(5):
            out[i, tile] = by_row[2 * i]
    return out


def test_items_of_lists_and_dicts_are_carried_by_loops(seed):
    def expected(x):
        total = x.sum(1)
        return torch.stack([total, 2 * total, 3 * total, total, (x * x).sum(1)])

    run_everywhere(accumulators, (torch.randn(9, 33),), expected, capabilities=[90], error_scale=20)


def nested(x: torch.Tensor, n: int, flags: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        rows = [[hl.zeros([t]) for _ in range(2)] for _ in range(2)]
        named = {"a": [x[t], [x[t]]]}
        for i in hl.grid(n):
            rows[0][1] = rows[0][1] + x[t]
            rows[1][0] += rows[0][1]
            if flags[i] > 0:
                named["a"][1][0] -= 3
        out[t] = rows[0][0] + rows[0][1] + rows[1][0] + named["a"][1][0]
    return out


def test_items_of_lists_in_lists_are_carried_too() -> None:
    args = (torch.randn(9), 3, torch.tensor([1, 0, 1]))
    run_everywhere(nested, args, lambda x, n, flags: x * 3 + x * 6 + x - 6, capabilities=[90], error_scale=20)


def with_rows_that_are_one(x, flags):
    out = torch.empty_like(x)
    for i in hl.grid(x.size(0)):
        rows = [[x[i]] * 2] * 2
        rows[0][1] = x[i] + 1
        out[i] = rows[1][1]
    return out


def appended_in_a_branch(x, flags):
    out = torch.empty_like(x)
    for i in hl.grid(x.size(0)):
        found = [1.0]
        if flags[i] > 0:
            found.append(2.0)
        out[i] = x[i] * sum(found)
    return out


def with_two_names(x, flags):
    out = torch.empty_like(x)
    for i in hl.grid(x.size(0)):
        found = other = [x[i]]
        found[0] = found[0] + 1
        out[i] = other[0]
    return out


@pytest.mark.parametrize("kernel", [appended_in_a_branch, with_two_names, with_rows_that_are_one])
def test_what_tracing_would_get_wrong_is_refused(kernel):
    with pytest.raises(exc.StatementNotSupported, match="list"):
        helion.kernel(kernel)(torch.ones(3), torch.tensor([1, 0, 2]))


def fill_each(xs, value: float):
    for row in hl.grid(xs[0].size(0)):
        for x in xs:
            for tile in hl.tile(x.size(1)):
                x[row, tile] = value
    return xs


def test_a_loop_in_an_unrolled_one_has_a_block_size_each_time_and_the_error_says_so() -> None:
    xs = tuple(torch.zeros(4, 20) for _ in range(2))
    kernel = helion.kernel(fill_each, config=helion.Config(block_sizes=[16]))
    with pytest.raises(exc.InvalidConfig, match=r"\(tile, tile again\).*hl\.register_block_size"):
        kernel(xs, 1.0)
