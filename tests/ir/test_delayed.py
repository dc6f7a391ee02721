"""Rounded products that are added an iteration later: which are, and that no bit differs."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion.backends.triton.backend import TritonBackend


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    head = hl.specialize(q.size(-1))
    out = torch.empty_like(q)
    for batch, rows in hl.tile([q.size(0), q.size(1)], block_size=[1, None]):
        largest = hl.full([batch, rows], float("-inf"))
        total = hl.zeros([batch, rows])
        acc = hl.zeros([batch, rows, head])
        for columns in hl.tile(k.size(1)):
            scores = torch.einsum("bmd,bnd->bmn", q[batch, rows, :], k[batch, columns, :]).float()
            grown = torch.maximum(largest, scores.amax(-1))
            weights = torch.exp(scores - grown[:, :, None])
            shrink = torch.exp(largest - grown)
            total = total * shrink + weights.sum(-1)
            acc = acc * shrink[:, :, None] + torch.einsum("bmn,bnd->bmd", weights.to(v.dtype), v[batch, columns, :])
            largest = grown
        out[batch, rows, :] = (acc / total[:, :, None]).to(out.dtype)
    return out


def _matrices(*shapes: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(5)
    return tuple(torch.randn(shape).to(torch.bfloat16) for shape in shapes)


def sum_of_products(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0), y.size(1)], dtype=torch.float32, device=x.device)
    for m, n in hl.tile(out.shape):
        acc = hl.zeros([m, n])
        for k in hl.tile(x.size(1)):
            acc = acc + x[m, k] @ y[k, n]
        out[m, n] = acc
    return out


def decayed(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0), y.size(1)], dtype=torch.float32, device=x.device)
    for m, n in hl.tile(out.shape):
        acc = hl.zeros([m, n])
        for k in hl.tile(x.size(1)):
            acc = x[m, k] @ y[k, n] + acc * 0.5
        out[m, n] = acc
    return out


_CASES = {
    "attention": (attention, _matrices((1, 70, 16), (1, 100, 16), (1, 100, 16)), [64, 32]),
    "sum": (sum_of_products, _matrices((70, 100), (100, 40)), [64, 16, 32]),
    "decayed": (decayed, _matrices((70, 100), (100, 40)), [64, 16, 32]),
}


@pytest.mark.compiles
@pytest.mark.softgpu(capability=90)
@pytest.mark.parametrize("name", _CASES)
def test_products_are_added_later_with_the_same_bits(name, softgpu, monkeypatch):
    function, args, sizes = _CASES[name]
    config = helion.Config(block_sizes=sizes, num_warps=4, num_stages=2)
    later = helion.kernel(function, config=config)
    assert "product_before" in later.bind(args).to_triton_code(config)
    found = later(*args)
    monkeypatch.setattr(TritonBackend, "_delayed", lambda self, config: frozenset())
    at_once = helion.kernel(function, config=config)
    assert "product_before" not in at_once.bind(args).to_triton_code(config)
    assert torch.equal(found, at_once(*args))


def keeps_products(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    out = torch.empty([x.size(0), y.size(1)], dtype=torch.float32, device=x.device)
    last = torch.empty_like(out)
    for m, n in hl.tile(out.shape):
        acc = hl.zeros([m, n])
        product = hl.zeros([m, n], dtype=x.dtype)
        for k in hl.tile(x.size(1)):
            product = x[m, k] @ y[k, n]
            acc = acc + product
        out[m, n] = acc
        last[m, n] = product.float()
    return out, last


def starts_with_one(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0), y.size(1)], dtype=torch.float32, device=x.device)
    for m, n in hl.tile(out.shape):
        acc = hl.full([m, n], 1.0)
        for k in hl.tile(x.size(1)):
            acc = acc + x[m, k] @ y[k, n]
        out[m, n] = acc
    return out


@pytest.mark.parametrize(
    "function, config",
    [
        (keeps_products, {}),
        (starts_with_one, {}),
        (sum_of_products, {"num_stages": 1}),
        (sum_of_products, {"block_sizes": [32, 16, 32]}),
        (sum_of_products, {"block_sizes": [128, 256, 32]}),
    ],
)
def test_others_are_added_where_they_are(function, config):
    args = _matrices((300, 100), (100, 300))
    code = (
        helion.kernel(function)
        .bind(args)
        .to_triton_code(helion.Config(**{"block_sizes": [64, 16, 32], "num_warps": 4, "num_stages": 2, **config}))
    )
    assert "product_before" not in code
