"""Loops that carry several variables which begin with one value and take over each other's."""

from __future__ import annotations

import torch

import helion
import helion.language as hl
from tests.support import run_everywhere


def goertzel(x: torch.Tensor, w: float) -> torch.Tensor:
    out = torch.empty([x.size(0), 2], device=x.device)
    for row in hl.tile(x.size(0)):
        now = before = hl.zeros([row], dtype=torch.float32)
        for i in hl.grid(x.size(1)):
            next_one = x[row, i] + w * now - before
            before = now
            now = next_one
        out[row, 0] = now
        out[row, 1] = before
    return out


def delays(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([3, x.size(0)], dtype=x.dtype, device=x.device)
    for row in hl.tile(x.size(0)):
        first = x[row, 0]
        second = first.clone()
        third = first[:, None].squeeze(1)
        for i in hl.grid(x.size(1)):
            third, second, first = second, first, x[row, i] + third
        out[0, row] = first
        out[1, row] = second
        out[2, row] = third
    return out


def fibonacci(counts: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(counts)
    for i in hl.grid(counts.size(0)):
        a = b = counts[i] * 0 + 1
        step = 0
        while step < counts[i]:
            a, b = b, a + b
            step = step + 1
        out[i] = a
    return out


CONFIGS = [{}, {"num_stages": 3}]


def test_a_value_and_the_one_before_it() -> None:
    def expected(x, w):
        now = before = torch.zeros(x.size(0), dtype=torch.float64)
        for i in range(x.size(1)):
            now, before = x[:, i].double() + w * now - before, now
        return torch.stack([now, before], 1).float()

    run_everywhere(goertzel, (torch.randn(5, 9), 0.5), expected, configs=CONFIGS, capabilities=[80, 90], error_scale=20)


def test_what_pytorch_calls_another_tensor_is_one_value_to_triton() -> None:
    def expected(x):
        first = second = third = x[:, 0]
        for i in range(x.size(1)):
            third, second, first = second, first, x[:, i] + third
        return torch.stack([first, second, third])

    for dtype in (torch.int8, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64):
        x = torch.randint(-3, 4, [5, 7]).to(dtype)
        run_everywhere(delays, (x,), expected, reference_args=(x,), configs=[{}], capabilities=[90])


def test_numbers_of_a_while_loop() -> None:
    counts = torch.tensor([0, 1, 2, 5, 9])
    numbers = torch.tensor([1, 1, 2, 8, 55])
    run_everywhere(
        fibonacci, (counts,), lambda counts: numbers, reference_args=(counts,), configs=[{}], capabilities=[90]
    )


def test_bools_take_over_each_other() -> None:
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty(x.size(0), dtype=torch.bool, device=x.device)
        for row in hl.tile(x.size(0)):
            now = before = x[row, 0] > 0
            for i in hl.grid(x.size(1)):
                before, now = now, x[row, i] > 0
            out[row] = before
        return out

    x = torch.randn(20, 6)
    run_everywhere(kernel, (x,), lambda x: x[:, -2] > 0, configs=[{}], capabilities=[90])


def test_the_first_of_two_stays_as_it_is_where_nothing_takes_it_over() -> None:
    @helion.kernel(config=helion.Config(block_sizes=[4]))
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty(x.size(0), device=x.device)
        for row in hl.tile(x.size(0)):
            total = hl.zeros([row])
            for i in hl.grid(x.size(1)):
                total = total + x[row, i]
            out[row] = total
        return out

    assert "bitcast" not in kernel.bind((torch.ones(4, 3),)).to_triton_code()
