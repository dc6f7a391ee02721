"""Integers of 8 bits beside Python's: results have the dtype and the bits of PyTorch's."""

from __future__ import annotations

import torch

import helion
import helion.language as hl
from tests.support import run_everywhere

CONFIG = {"block_sizes": [16]}


def everywhere(function, x: torch.Tensor, *numbers: int) -> None:
    @helion.kernel(config=helion.Config(**CONFIG))
    def kernel(x, numbers):
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = function(x[tile], *numbers)
        return out

    run_everywhere(kernel, (x, numbers), lambda x, numbers: function(x, *numbers), configs=[CONFIG], capabilities=[80])


def quotients(x, n):
    return x // n + x % n * 3 + x // -1 + x % 300 + torch.div(x, 300, rounding_mode="trunc")


def test_division_of_uint8_by_ints(seed: int) -> None:
    everywhere(quotients, torch.randint(0, 256, [50], dtype=torch.uint8), 7)


def test_division_of_int8_by_ints(seed: int) -> None:
    everywhere(quotients, torch.randint(-128, 128, [50], dtype=torch.int8), 200)


def test_clamp_of_a_carried_uint8(seed: int) -> None:
    @helion.kernel(config=helion.Config(**CONFIG))
    def kernel(x):
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            value = x[tile]
            for _ in hl.grid(3):
                value = torch.clamp(torch.clamp(value + 1, 3, 60), max=55)
            out[tile] = value
        return out

    x = torch.randint(0, 256, [50], dtype=torch.uint8)

    def reference(x):
        for _ in range(3):
            x = torch.clamp(torch.clamp(x + 1, 3, 60), max=55)
        return x

    run_everywhere(kernel, (x,), reference, configs=[CONFIG], capabilities=[80])


def test_sort_along_a_dimension_of_one_element(seed: int) -> None:
    @helion.kernel(config=helion.Config(**CONFIG))
    def kernel(x):
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = torch.sort(x[tile][:, None], dim=1).values.sum(1)
        return out

    run_everywhere(kernel, (torch.randn(50),), lambda x: x.clone(), configs=[CONFIG], capabilities=[80])
