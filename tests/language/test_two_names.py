"""One value under several names, of which a loop changes some."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from tests.support import run_everywhere

CONFIG = helion.Config(block_sizes=[8])


def everywhere(kernel, args, expected, **options):
    kernel = helion.kernel(kernel, config=CONFIG)
    run_everywhere(kernel, args, expected, configs=[CONFIG], reference_args=args, capabilities=[80], **options)


def still_read(x: torch.Tensor, steps: int) -> torch.Tensor:
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        start = x[t]
        total = start
        for _ in hl.grid(steps):
            total = start + 0.5 * total
        out[t] = total
    return out


def both_changed(x: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    out, other = torch.empty_like(x), torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        start = x[t]
        up, down = start, start
        for _ in hl.grid(steps):
            up = up + 1
            down = down * 0.5
        out[t] = up
        other[t] = down
    return out, other


def while_it_grows(x: torch.Tensor, steps: int) -> torch.Tensor:
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        start = x[t].abs() + 1
        total = start
        count = 0
        while count < steps:
            total = start + 0.5 * total
            count = count + 1
        out[t] = total
    return out


def bound_of_the_inner_axis(lengths: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(lengths)
    for row in hl.grid(lengths.size(0)):
        length = lengths[row]
        count = length
        for _, _ in hl.grid([3, length]):
            count = count + 1
        out[row] = count
    return out


def iterated(x: torch.Tensor, steps: int) -> torch.Tensor:
    total = x
    for _ in range(steps):
        total = x + 0.5 * total
    return total


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_loop_changes_one_and_reads_the_other(steps):
    x = torch.randint(-9, 9, (20,)).double()
    everywhere(still_read, (x, steps), iterated, error_scale=0)
    everywhere(while_it_grows, (x, steps), lambda x, steps: iterated(x.abs() + 1, steps), error_scale=0)


def test_a_loop_changes_both():
    x = torch.randint(-9, 9, (20,)).double()
    everywhere(both_changed, (x, 3), lambda x, steps: (x + steps, x * 0.5**steps), error_scale=0)


def test_a_loop_changes_what_was_the_bound_of_its_inner_axis():
    kernel = helion.kernel(bound_of_the_inner_axis, config=helion.Config())
    lengths = torch.tensor([0, 1, 4, 2])
    run_everywhere(
        kernel, (lengths,), lambda n: 4 * n, configs=[helion.Config()], reference_args=(lengths,), capabilities=[80]
    )
