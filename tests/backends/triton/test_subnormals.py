"""Subnormal numbers of float32 are numbers, as to eager PyTorch.

Most of libdevice, as Triton links it, and Triton's own `floor`, `ceil` and `rsqrt` take them for 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import helion
import helion.language as hl

pytestmark = [pytest.mark.compiles, pytest.mark.softgpu(capability=90)]

#: The last is the largest one; zeros keep their sign.
NUMBERS = [1e-40, -1e-40, 2e-39, -5e-39, 1.4e-45, 1.1754942e-38, -1.1754942e-38, 0.0, -0.0, 0.75, -0.5, 1e-20]
ONE = {
    name: getattr(torch, name)
    for name in (
        *("ceil", "floor", "rsqrt", "sin", "sinc", "tan", "asin", "atan", "sinh", "tanh", "asinh", "atanh", "expm1"),
        *("erf", "lgamma"),
    )
} | {
    "log1p": lambda x: torch.log1p(x.double()).to(x.dtype) if x.device.type == "cpu" else torch.log1p(x),
    "remainder": lambda x: x % -1.5,
    "quotient": lambda x: x // 1.5,
    "elu": F.elu,
    "softplus": lambda x: F.softplus(x - 90.0),
    "i1": torch.special.i1,
}
TWO = {name: getattr(torch, name) for name in ("remainder", "fmod", "floor_divide", "atan2", "hypot", "nextafter")}


@pytest.fixture(scope="module")
def numbers() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.tensor(NUMBERS)
    y = torch.tensor([3e-39, -3e-39, 1e-39, 2e-38, 1.4e-45, 1.5, 1.5, 1e-39, -2.0, 1e-39, 1e-40, 3e-40])
    return x, y


def same(got: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    """To 1e-5 of each number, however small, and of the same sign."""
    close = (got.double() - expected.double()).abs() <= 1e-5 * expected.double().abs()
    close |= (got == expected) | (got.isnan() & expected.isnan())
    # Beside 0 one unit of the last place.
    close |= (got.double() - expected.double()).abs() <= 1.5e-45
    assert close.all(), (name, got[~close].tolist(), expected[~close].tolist())
    zeros = (expected == 0) & (got == 0) if name != "i1" else []  # PyTorch has none of -0.0 there
    assert torch.equal(got[zeros].signbit(), expected[zeros].signbit()), name


def test_functions_of_one_operand(softgpu: Any, numbers: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, _ = numbers
    functions = [f if name != "log1p" else torch.log1p for name, f in ONE.items()]

    @helion.kernel(config=helion.Config(block_sizes=[16]))
    def all_of_them(x: torch.Tensor, functions: list[Callable[[torch.Tensor], torch.Tensor]]) -> torch.Tensor:
        out = torch.empty([len(functions), x.size(0)], device=x.device)
        for t in hl.tile(x.size(0)):
            for i, function in enumerate(functions):
                out[i, t] = function(x[t])
        return out

    out = all_of_them(x.to(softgpu.device), functions).cpu()
    for (name, function), got in zip(ONE.items(), out):
        same(got, function(x), name)


def test_functions_of_two_operands(softgpu: Any, numbers: tuple[torch.Tensor, torch.Tensor]) -> None:
    @helion.kernel(config=helion.Config(block_sizes=[16]))
    def all_of_them(
        x: torch.Tensor, y: torch.Tensor, functions: list[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]
    ) -> torch.Tensor:
        out = torch.empty([len(functions), x.size(0)], device=x.device)
        for t in hl.tile(x.size(0)):
            for i, function in enumerate(functions):
                out[i, t] = function(x[t], y[t])
        return out

    x, y = numbers
    out = all_of_them(x.to(softgpu.device), y.to(softgpu.device), list(TWO.values())).cpu()
    for (name, function), got in zip(TWO.items(), out):
        same(got, function(x, y), name)


def test_powers_and_angles(softgpu: Any) -> None:
    @helion.kernel(config=helion.Config(block_sizes=[16]))
    def both(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = torch.empty([2, x.size(0)], device=x.device)
        for t in hl.tile(x.size(0)):
            out[0, t] = x[t] ** y[t]
            out[1, t] = torch.atan2(x[t], y[t])
        return out

    x = torch.tensor([2.0**-126, -(2.0**-126), 1e-40, -1e-40, 1e-40, 2.5, -2.5, -2.5, -2.5, 0.0, -0.0, -0.0, 0.3])
    y = torch.tensor([1.0, 1.0, 1.0, 1.0, -0.5, -100.0, -100.0, -101.0, -99.5, torch.inf, 3.0, -3.0, 80.5])
    out = both(x.to(softgpu.device), y.to(softgpu.device)).cpu()
    same(out[0], x**y, "pow")
    same(out[1], torch.atan2(x, y), "atan2")
