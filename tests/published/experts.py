"""Kernels of mixtures of experts: routing, sorting tokens by expert, grouped products, combining."""

from __future__ import annotations

import torch

import helion
import helion.language as hl

from .table import Published
from .table import integers
from .table import randn


def topk_softmax(gates: torch.Tensor, k: hl.constexpr, renormalize: bool) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, experts = gates.size()
    weights = torch.empty([tokens, k], dtype=torch.float32, device=gates.device)
    ids = torch.empty([tokens, k], dtype=torch.int32, device=gates.device)
    for t in hl.tile(tokens):
        left = torch.softmax(gates[t, :], dim=-1)
        total = hl.zeros([t])
        for i in hl.static_range(k):
            best = left.amax(-1)
            at = left.argmax(-1)
            weights[t, i] = best
            ids[t, i] = at
            total += best
            left = torch.where(hl.arange(experts)[None, :] == at[:, None], -1.0, left)
        if renormalize:
            for i in hl.static_range(k):
                weights[t, i] = weights[t, i] / total
    return weights, ids


def topk_softmax_reference(gates, k, renormalize):
    weights, ids = gates.softmax(-1).topk(k, -1)
    return weights / weights.sum(-1, keepdim=True) if renormalize else weights, ids.int()


def count_tokens(ids: torch.Tensor, experts: int, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    counts = torch.zeros([experts], dtype=torch.int32, device=ids.device)
    starts = torch.zeros([experts + 1], dtype=torch.int32, device=ids.device)
    flat = ids.view(-1)
    for t in hl.tile(flat.size(0)):
        hl.atomic_add(counts, [flat[t]], 1)
    hl.barrier()
    for _ in hl.grid(1):
        padded = (counts[:] + block - 1) // block * block
        starts[1 : experts + 1] = torch.cumsum(padded, 0)
    return counts, starts


def count_tokens_reference(ids, experts, block):
    counts = torch.bincount(ids.flatten(), minlength=experts)
    padded = (counts + block - 1) // block * block
    return counts.int(), torch.nn.functional.pad(padded.cumsum(0), (1, 0)).int()


def grouped_matmul(x: torch.Tensor, weight: torch.Tensor, order: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    experts, k, n = weight.size()
    out = torch.zeros([order.size(0), n], dtype=torch.float32, device=x.device)
    for e in hl.grid(experts):
        begin, end = starts[e], starts[e + 1]
        for tn in hl.tile(n):
            for rows in hl.tile(begin, end):
                acc = hl.zeros([rows, tn], dtype=torch.float32)
                for tk in hl.tile(k):
                    acc = torch.addmm(acc, x[order[rows], tk], weight[e, tk, tn])
                out[rows, tn] = acc
    return out


def grouped_matmul_reference(x, weight, order, starts):
    parts = x[order].split(starts.diff().tolist())
    return torch.cat([part @ w for part, w in zip(parts, weight, strict=True)])


def combine(y: torch.Tensor, places: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    tokens, k = places.size()
    k = hl.specialize(k)
    out = torch.empty([tokens, y.size(1)], dtype=y.dtype, device=y.device)
    for t, c in hl.tile([tokens, y.size(1)]):
        acc = hl.zeros([t, c])
        for i in range(k):
            acc += y[places[t, i], c] * weights[t, i]
        out[t, c] = acc
    return out


def combine_reference(y, places, weights):
    return (y[places] * weights[..., None]).sum(1)


def load_balancing_loss(probs: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    tokens, experts = probs.size()
    k = hl.specialize(ids.size(1))
    importance = torch.zeros([experts], device=probs.device)
    load = torch.zeros([experts], device=probs.device)
    for t in hl.tile(tokens):
        p = probs[t, :]
        hits = (ids[t, :][:, :, None] == hl.arange(experts)[None, None, :]).to(torch.float32).sum(1)
        hl.atomic_add(importance, [slice(0, helion.cdiv(experts, 1))], p.sum(0))
        hl.atomic_add(load, [slice(None)], hits.sum(0))
    return (importance * load).sum() * experts / (tokens * tokens * k)


def load_balancing_loss_reference(probs, ids):
    tokens, experts = probs.shape
    load = torch.bincount(ids.flatten(), minlength=experts).to(probs.dtype)
    return (probs.sum(0) * load).sum() * experts / (tokens * tokens * ids.size(1))


ROWS = {
    "topk_softmax": Published(
        topk_softmax, lambda rng: (randn(rng, 9, 12), 3, True), topk_softmax_reference, "vLLM", 32
    ),
    "count_tokens": Published(
        count_tokens, lambda rng: (integers(rng, 0, 6, 20, 2), 6, 8), count_tokens_reference, "SGLang"
    ),
    "grouped_matmul": Published(
        grouped_matmul,
        lambda rng: (
            randn(rng, 20, 32),
            randn(rng, 3, 32, 24),
            torch.randperm(20, generator=rng),
            torch.tensor([0, 7, 7, 20]),
        ),
        grouped_matmul_reference,
        "Megablocks",
        256,
    ),
    "combine": Published(
        combine,
        lambda rng: (randn(rng, 20, 16), torch.randperm(20, generator=rng).reshape(10, 2), randn(rng, 10, 2)),
        combine_reference,
        "vLLM",
    ),
    "load_balancing_loss": Published(
        load_balancing_loss,
        lambda rng: (randn(rng, 20, 6).softmax(-1), integers(rng, 0, 6, 20, 2)),
        load_balancing_loss_reference,
        "Megablocks",
        64,
    ),
}
