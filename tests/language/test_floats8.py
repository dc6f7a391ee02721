"""8-bit floats outside of products: PyTorch tells and compares them, and does no arithmetic with them."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere


def told(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    same, other, nan = (torch.empty(x.shape, dtype=torch.bool, device=x.device) for _ in range(3))
    chosen = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        same[t] = x[t] == y[t]
        other[t] = x[t] != y[t]
        nan[t] = torch.isnan(x[t])
        chosen[t] = torch.where(x[t].float() > 0, x[t], y[t])
    return same, other, nan, chosen.view(torch.uint8)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_what_tells_them(dtype: torch.dtype, seed: int) -> None:
    x, y = torch.randn(40).to(dtype), torch.randn(40).to(dtype)
    y[:9] = x[:9]
    x[3] = y[5] = float("nan")

    def expected(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        chosen = torch.where(x.float() > 0, x.view(torch.uint8), y.view(torch.uint8))
        return x.float() == y.float(), x.float() != y.float(), x.float().isnan(), chosen

    run_everywhere(told, (x, y), expected, reference_args=(x, y), configs=[{"block_sizes": [16]}], capabilities=[90])


@pytest.mark.parametrize(
    "function",
    [lambda x, y: x + x, lambda x, y: x * 2.0, lambda x, y: x * y, torch.less, lambda x, y: -x, lambda x, y: x.amax(0)],
    ids=["add", "number", "float32", "less", "negative", "largest"],
)
def test_arithmetic_is_refused(function) -> None:
    """It was an error of Triton's, and x * y was computed with y rounded to 8 bits."""

    @helion.kernel(config=helion.Config(block_sizes=[16]))
    def kernel(x, y):
        out = torch.empty_like(y)
        for t in hl.tile(x.size(0)):
            out[t] = function(x[t], y[t]).to(torch.float32)
        return out

    with pytest.raises(exc.UnsupportedDtype, match="float8_e4m3fn"):
        kernel(torch.randn(40).to(torch.float8_e4m3fn), torch.randn(40))
