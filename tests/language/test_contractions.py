"""`einsum`, `tensordot` and `linear` of values whose dimensions PyTorch merges, of sizes that a GPU pads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import helion
import helion.language as hl
from tests.support import run_everywhere

pytestmark = pytest.mark.slow

#: Equations, with the sizes of the first operand's dimensions after the tile's `t`, and those of the others.
EINSUMS = [
    ("tij,lj->til", (8, 8), (8, 8)),
    ("tij,jl->til", (7, 12), (12, 5)),
    ("ki,tij->tkj", (8, 8), (8, 8)),
    ("tnk,n->tk", (5, 7), (5,)),
    ("tnk,tn->tk", (5, 7), (5,)),
    ("tij,tkj->tki", (6, 8), (3, 8)),
    ("tij,ij->t", (6, 8), (6, 8)),
    ("tij,ijk->tk", (6, 8), (6, 8, 4)),
    ("thk,thkv->thv", (3, 8), (3, 8, 4)),
    ("tij,lj->lit", (3, 16), (5, 16)),
    ("tij,lj", (8, 8), (8, 8)),
]

SMALL = [helion.Config(block_sizes=[4])]


def everywhere(fn: Callable[..., Any], args: tuple[Any, ...], reference: Callable[..., Any]) -> None:
    run_everywhere(fn, args, reference, capabilities=[90], configs=SMALL, uses_dot=True)


def by_einsum(equation: str, tile_at: int):
    """A kernel of one equation; `tile_at` is which operand has no tile: 0 where the matrix comes first, else 1."""
    with_tile = equation.partition("->")[0].split(",")[1 - tile_at]
    both = "t" in equation.partition("->")[0].split(",")[0] and "t" in equation.partition("->")[0].split(",")[1]
    assert with_tile
    out_labels = equation.partition("->")[2]
    place = out_labels.index("t") if out_labels else sorted("til").index("t")

    def kernel(x: torch.Tensor, y: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        for t in hl.tile(x.size(0)):
            a = x[t, ...]
            b = y[t, ...] if both else y[...]
            value = torch.einsum(equation, b, a) if tile_at == 0 else torch.einsum(equation, a, b)
            if place == 0:
                out[t, ...] = value
            else:
                out[..., t] = value
        return out

    return kernel


#: Every one in float32, some in float16 too.
CASES = [(*row, torch.float32) for row in EINSUMS] + [(*row, torch.float16) for row in EINSUMS[:8:3]]


@pytest.mark.parametrize("equation, first, second, dtype", CASES, ids=lambda value: str(value))
def test_einsum_of_dimensions_that_a_gpu_pads(equation, first, second, dtype, seed):
    n = 21
    tile_at = 0 if equation.startswith("ki") else 1
    both = all("t" in term for term in equation.partition("->")[0].split(","))
    x = (torch.randn(n, *first) / 4).to(dtype)  # so that sums in tf32 are as exact as they are to be
    y = torch.randn(*((n,) if both else ()), *second).to(dtype)
    operands = (y, x) if tile_at == 0 else (x, y)
    out = torch.empty_like(torch.einsum(equation, *operands))

    def reference(x: torch.Tensor, y: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        return torch.einsum(equation, *((y, x) if tile_at == 0 else (x, y)))

    everywhere(by_einsum(equation, tile_at), (x, y, out), reference)


def layers(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    plain = torch.empty([x.size(0), x.size(1), weight.size(0)], dtype=x.dtype, device=x.device)
    added, dotted = torch.empty_like(plain), torch.empty_like(plain)
    for t in hl.tile(x.size(0)):
        plain[t, :, :] = F.linear(x[t, :, :], weight[:, :])
        added[t, :, :] = F.linear(x[t, :, :], weight[:, :], bias[:])
        dotted[t, :, :] = torch.tensordot(x[t, :, :], weight[:, :], dims=([2], [1]))
    return plain, added, dotted


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_and_tensordot_of_dimensions_that_a_gpu_pads(dtype, seed):
    def reference(x, weight, bias):
        return F.linear(x, weight), F.linear(x, weight, bias), torch.tensordot(x, weight, dims=([2], [1]))

    args = ((torch.randn(19, 3, 8) / 4).to(dtype), torch.randn(5, 8).to(dtype), torch.randn(5).to(dtype))
    everywhere(layers, args, reference)


def three(x: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t, :, :] = torch.einsum("ki,bij,lj->bkl", d[:, :], x[t, :, :], d[:, :])
    return out


def test_einsum_of_three_operands(seed):
    args = (torch.randn(9, 8, 8), torch.randn(8, 8) / 4)  # small, as two products in tf32 are less exact than one
    everywhere(three, args, lambda x, d: torch.einsum("ki,bij,lj->bkl", d, x, d))
