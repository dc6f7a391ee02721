"""Accumulators of `helion.next_power_of_2(n)` elements with loads of n: n elements count, padding is not stored."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere

ONE = {"capabilities": [90], "error_scale": 16}


def row_sums(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0)], dtype=x.dtype, device=x.device)
    for rows in hl.tile(x.size(0)):
        acc = hl.full([rows, helion.next_power_of_2(x.size(1))], 1.0)
        out[rows] = (acc + x[rows, :] + 1).sum(-1)
    return out


@pytest.mark.parametrize("static", [True, False])
def test_padding_does_not_count_in_a_sum(seed: int, static: bool) -> None:
    run_everywhere(row_sums, (torch.randn(20, 30),), lambda x: (x + 2).sum(-1), static_shapes=static, **ONE)


def running(x: torch.Tensor, count: int) -> torch.Tensor:
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0)):
        acc = hl.zeros([rows, helion.next_power_of_2(x.size(1))])
        for _ in hl.grid(count):
            acc = acc + x[rows, :]
        out[rows, :] = acc / acc.sum(-1, keepdim=True)
    return out


def test_a_loop_carries_it(seed: int) -> None:
    run_everywhere(running, (torch.rand(20, 21) + 1, 3), lambda x, count: x / x.sum(-1, keepdim=True), **ONE)


def stored(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0)):
        value = hl.arange(helion.next_power_of_2(x.size(1)))
        out[rows, :] = value[None, :].expand(rows, value.size(0)).to(x.dtype)
    return out


def test_padding_is_not_stored() -> None:
    run_everywhere(stored, (torch.empty(6, 13),), lambda x: torch.arange(13.0).expand(6, 13), **ONE)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(q)
    dim = helion.next_power_of_2(q.size(1))
    for rows in hl.tile(q.size(0)):
        largest, total = hl.full([rows], float("-inf")), hl.zeros([rows])
        acc = hl.zeros([rows, dim])
        for columns in hl.tile(k.size(0)):
            scores = hl.dot(q[rows, :], k[columns, :].T)
            grown = torch.maximum(largest, scores.amax(-1))
            p = torch.exp(scores - grown[:, None])
            scale = torch.exp(largest - grown)
            total = total * scale + p.sum(-1)
            acc = acc * scale[:, None] + hl.dot(p, v[columns, :])
            largest = grown
        out[rows, :] = acc / total[:, None]
    return out


def test_accumulators_of_products(seed: int) -> None:
    args = tuple(torch.randn(size, 24) for size in (20, 30, 30))
    run_everywhere(attention, args, lambda q, k, v: torch.softmax(q @ k.T, -1) @ v, uses_dot=True, **ONE)


def fused(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), b.size(1)], dtype=a.dtype, device=a.device)
    for rows in hl.tile(a.size(0)):
        acc = hl.zeros([rows, helion.next_power_of_2(b.size(1))])
        for inner in hl.tile(a.size(1)):
            acc = torch.addmm(acc, a[rows, inner], b[inner, :])
        out[rows, :] = acc
    return out


@pytest.mark.parametrize("n", [7, 12, 20])
def test_addmm_into_one(seed: int, n: int) -> None:
    run_everywhere(fused, (torch.randn(20, 40) / 4, torch.randn(40, n)), torch.matmul, uses_dot=True, **ONE)


def mistaken(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(y)
    for rows in hl.tile(y.size(0)):
        out[rows, :] = x[rows, :] + y[rows, :]
    return out


def test_loaded_values_of_both_sizes_are_an_error() -> None:
    with pytest.raises(exc.ShapeMismatch, match="broadcast"):
        helion.kernel(mistaken)(torch.ones(4, 8), torch.ones(4, 7))


def whole(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0)], dtype=x.dtype, device=x.device)
    for rows in hl.tile(x.size(0)):
        acc = hl.zeros([rows, helion.next_power_of_2(x.size(1))])
        for _ in hl.grid(2):
            out[rows] = acc.sum(-1)
            acc = acc + x[rows, :]
    return out


def test_a_loop_that_uses_the_padding_too_is_an_error() -> None:
    with pytest.raises(exc.ControlFlowTensorMismatch, match="'acc'"):
        helion.kernel(whole)(torch.ones(4, 7))
