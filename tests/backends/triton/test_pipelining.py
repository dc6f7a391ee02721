"""Loops whose products share a loaded operand: the backward passes of attention."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from tests.support import run_everywhere


def of_keys(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, do: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(k)
    width = hl.specialize(q.size(1))
    for c in hl.tile(k.size(0)):
        acc = hl.zeros([c, width])
        for r in hl.tile(q.size(0)):
            weights = hl.dot(q[r, :], k[c, :].t(), out_dtype=torch.float32)
            grads = hl.dot(do[r, :], v[c, :].t(), out_dtype=torch.float32) * weights
            acc = hl.dot(grads.to(q.dtype).t(), q[r, :], acc=acc)
        out[c, :] = acc.to(q.dtype)
    return out


def of_queries(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, do: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(q)
    width = hl.specialize(q.size(1))
    for r in hl.tile(q.size(0)):
        acc = hl.zeros([r, width])
        for c in hl.tile(k.size(0)):
            weights = hl.dot(q[r, :], k[c, :].t(), out_dtype=torch.float32)
            grads = hl.dot(do[r, :], v[c, :].t(), out_dtype=torch.float32) * weights
            acc = hl.dot(grads.to(q.dtype), k[c, :], acc=acc)
        out[r, :] = acc.to(q.dtype)
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [{}, {"range_num_stages": [0, 3]}], ids=str)
@pytest.mark.parametrize("function", [of_keys, of_queries])
def test_stages_do_not_race(function, config, dtype, seed: int) -> None:
    """Triton copied the next tile over one that a product still read, or read one that was not turned around yet."""

    def expected(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, do: torch.Tensor) -> torch.Tensor:
        grads = (q @ k.T) * (do @ v.T)
        return grads.T @ q if function is of_keys else grads @ k

    args = tuple((torch.randn(rows, 16) * 0.3).to(dtype) for rows in (64, 70, 70, 64))
    run_everywhere(
        function,
        args,
        expected,
        configs=[{"block_sizes": [64, 32], "num_warps": 4, "num_stages": 2, **config}],
        capabilities=[90],
        uses_dot=True,
        error_scale=16,
    )


def test_products_of_several_loads_keep_their_stages() -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = torch.empty([x.size(0), y.size(1)], device=x.device)
        for m, n in hl.tile([x.size(0), y.size(1)]):
            acc = hl.zeros([m, n])
            for k in hl.tile(x.size(1)):
                acc = hl.dot(x[m, k], y[k, n], acc=acc)
            out[m, n] = acc
        return out

    kernel = helion.kernel(function, config=helion.Config(block_sizes=[16, 16, 16], num_stages=3))
    assert "num_stages=1" not in kernel.bind((torch.randn(64, 64), torch.randn(64, 64))).to_triton_code()
