"""hl.triton_kernel by name: a `@triton.jit` function of the kernel's module, with what it uses."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

import helion
import helion.language as hl
from tests.support import check

FACTOR = tl.constexpr(3)

pytestmark = pytest.mark.compiles


@triton.jit
def _twice(v):
    return v * 2


@triton.jit
def _mixed(a, b):
    return _twice(a) + b * FACTOR


@triton.jit
def _around(a):
    return a + 1, a - 1


@helion.kernel(config=helion.Config(block_sizes=[16]))
def around_mixed(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    above, below = torch.empty_like(x), torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        value = hl.triton_kernel("_mixed", args=(x[t], y[t]), output_like=x[t])
        above[t], below[t] = hl.triton_kernel("_around", args=(value,), output_like=(value, value))
    return above, below


@pytest.mark.softgpu(capability=90)
def test_a_function_is_named_and_brings_what_it_uses(softgpu) -> None:
    x, y = torch.randn(40), torch.randn(40)
    result = around_mixed(x.to(softgpu.device), y.to(softgpu.device))
    middle = x.double() * 2 + y.double() * 3
    check(result, (middle + 1, middle - 1), "by name", error_scale=4)
