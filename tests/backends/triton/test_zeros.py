"""The sign of zero on Triton, which makes 0.0 of -0.0 in its code and 0 - x of -x."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import helion
import helion.language as hl

pytestmark = [pytest.mark.compiles, pytest.mark.softgpu(capability=90)]


@helion.kernel(config=helion.Config(block_sizes=[8]))
def zeros_of_both_signs(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([9, x.size(0)], dtype=x.dtype, device=x.device)
    for t in hl.tile(x.size(0)):
        v = x[t]
        out[0, t] = -v
        out[1, t] = v * -0.0
        out[2, t] = v + -0.0
        out[3, t] = torch.where(v > 0, -0.0, v)
        out[4, t] = torch.copysign(v, -0.0)
        out[5, t] = torch.full_like(v, -0.0)
        out[6, t] = v.masked_fill(v < 2, -0.0)
        out[7, t] = -0.0
        out[8, t] = -0.0 - v
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_zero_has_the_sign_that_it_has_in_pytorch(softgpu: Any, dtype: torch.dtype) -> None:
    x = torch.tensor([0.0, -0.0, 1.0, -1.0, 2.5, -3.0], dtype=dtype)
    minus = torch.full_like(x, -0.0)
    expected = torch.stack(
        [
            *(-x, x * -0.0, x + -0.0, torch.where(x > 0, -0.0, x), torch.copysign(x, minus)),
            *(minus, x.masked_fill(x < 2, -0.0), minus, -0.0 - x),
        ]
    )
    got = zeros_of_both_signs(x.to(softgpu.device)).cpu()
    assert torch.equal(got, expected)
    assert torch.equal(got.signbit(), expected.signbit()), (got.signbit() != expected.signbit()).nonzero()


@helion.kernel(config=helion.Config(block_sizes=[4]))
def rows_of_one_number(x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    for i in hl.grid(x.size(0)):
        for t in hl.tile(out.size(1)):
            out[i, t] = x[i].to(out.dtype)[None]
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.float8_e4m3fn], ids=str)
def test_a_number_with_a_dimension_more_is_that_number(softgpu: Any, dtype: torch.dtype) -> None:
    x = torch.tensor([0.0, -0.0, 1.0, -2.5])
    got = rows_of_one_number(x.to(softgpu.device), torch.empty([4, 5], dtype=dtype, device=softgpu.device))
    got = got.cpu().float()
    assert torch.equal(got, x[:, None].expand(4, 5))
    assert torch.equal(got.signbit(), x.signbit()[:, None].expand(4, 5))
