"""Kernels of serving engines: norms, rotary embeddings, the paged cache, decoding, sampling."""

from __future__ import annotations

import torch

import helion.language as hl

from .table import Published
from .table import integers
from .table import randn


def fused_add_rms_norm(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    n = hl.specialize(x.size(1))
    out = torch.empty_like(x)
    for row in hl.tile(x.size(0)):
        h = x[row, :].float() + residual[row, :].float()
        residual[row, :] = h
        scale = torch.rsqrt((h * h).sum(-1, keepdim=True) / n + eps)
        out[row, :] = h * scale * weight[None, :]
    return out


def fused_add_rms_norm_reference(x, residual, weight, eps):
    h = x + residual
    residual.copy_(h)
    return torch.nn.functional.rms_norm(h, [h.size(1)], weight, eps)


def rotary_neox(positions: torch.Tensor, q: torch.Tensor, cos_sin_cache: torch.Tensor) -> torch.Tensor:
    tokens, heads, dim = q.size()
    half = dim // 2
    out = torch.empty_like(q)
    for t, h in hl.tile([tokens, heads]):
        pos = positions[t]
        cos = cos_sin_cache[pos, 0:half][:, None, :]
        sin = cos_sin_cache[pos, half:dim][:, None, :]
        x1, x2 = q[t, h, 0:half], q[t, h, half:dim]
        out[t, h, 0:half] = x1 * cos - x2 * sin
        out[t, h, half:dim] = x2 * cos + x1 * sin
    return out


def rotary_neox_reference(positions, q, cache):
    cos, sin = cache[positions].chunk(2, -1)
    x1, x2 = q.chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin], -1)


def silu_and_mul(x: torch.Tensor) -> torch.Tensor:
    tokens, d = x.size(0), x.size(1) // 2
    out = torch.empty([tokens, d], dtype=x.dtype, device=x.device)
    for t, c in hl.tile([tokens, d]):
        gate = x[t, c].to(torch.float32)
        out[t, c] = (gate * torch.sigmoid(gate)).to(x.dtype) * x[t, c + d]
    return out


def gelu_tanh_and_mul(x: torch.Tensor) -> torch.Tensor:
    tokens, d = x.size(0), x.size(1) // 2
    out = torch.empty([tokens, d], dtype=x.dtype, device=x.device)
    for t, c in hl.tile([tokens, d]):
        gate, up = x[t, c], x[t, c.index + d]
        out[t, c] = torch.nn.functional.gelu(gate, approximate="tanh") * up
    return out


def reshape_and_cache(key: torch.Tensor, cache: torch.Tensor, slot_mapping: torch.Tensor, block_size: int) -> None:
    for token in hl.grid(key.size(0)):
        slot = slot_mapping[token]
        if slot >= 0:
            block, offset = slot // block_size, slot % block_size
            for h in hl.tile(key.size(1)):
                cache[block, offset, h, :] = key[token, h, :]


def reshape_and_cache_reference(key, cache, slot_mapping, block_size):
    for token, slot in enumerate(slot_mapping.tolist()):
        if slot >= 0:
            cache[slot // block_size, slot % block_size] = key[token]


def paged_attention(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    lengths: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    sequences, heads, dim = q.size()
    page = hl.specialize(k_cache.size(1))
    group = heads // k_cache.size(2)
    out = torch.empty_like(q)
    for s, h in hl.grid([sequences, heads]):
        length = lengths[s]
        kv_head = h // group
        query = q[s, h, :]
        m = hl.full([], float("-inf"))
        total = hl.full([], 0.0)
        acc = hl.zeros([dim])
        for i in hl.grid((length + page - 1) // page):
            block = block_table[s, i]
            offs = hl.arange(page)
            valid = i * page + offs < length
            scores = (k_cache[block, :, kv_head, :] * query[None, :]).sum(-1) * scale
            scores = torch.where(valid, scores, float("-inf"))
            m_new = torch.maximum(m, scores.amax())
            alpha = torch.exp(m - m_new)
            p = torch.exp(scores - m_new)
            total = total * alpha + p.sum()
            acc = acc * alpha + (p[:, None] * v_cache[block, :, kv_head, :]).sum(0)
            m = m_new
        out[s, h, :] = acc / total
    return out


def paged_attention_reference(q, k_cache, v_cache, block_table, lengths, scale):
    out = torch.empty_like(q)
    group = q.size(1) // k_cache.size(2)
    for s, length in enumerate(lengths.tolist()):
        k, v = (
            cache[block_table[s]].flatten(0, 1)[:length].repeat_interleave(group, 1) for cache in (k_cache, v_cache)
        )
        p = torch.softmax(torch.einsum("hd,khd->hk", q[s], k) * scale, -1)
        out[s] = torch.einsum("hk,khd->hd", p, v)
    return out


def make_paged(rng):
    table = torch.randperm(12, generator=rng).reshape(3, 4)
    lengths = torch.tensor([1, 13, 16])
    return randn(rng, 3, 4, 8), randn(rng, 12, 4, 2, 8), randn(rng, 12, 4, 2, 8), table, lengths, 0.35


def merge_attention_states(
    a: torch.Tensor, a_lse: torch.Tensor, b: torch.Tensor, b_lse: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    out, lse = torch.empty_like(a), torch.empty_like(a_lse)
    for t, h in hl.tile([a.size(0), a.size(1)]):
        la, lb = a_lse[t, h], b_lse[t, h]
        m = torch.maximum(la, lb)
        ea, eb = torch.exp(la - m), torch.exp(lb - m)
        total = ea + eb
        out[t, h, :] = a[t, h, :] * (ea / total) + b[t, h, :] * (eb / total)
        lse[t, h] = torch.log(total) + m
    return out, lse


def merge_attention_states_reference(a, a_lse, b, b_lse):
    lse = torch.logaddexp(a_lse, b_lse)
    return a * torch.exp(a_lse - lse)[..., None] + b * torch.exp(b_lse - lse)[..., None], lse


def repetition_penalty(logits: torch.Tensor, seen: torch.Tensor, penalties: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(logits)
    for b, v in hl.tile(logits.shape):
        x = logits[b, v]
        penalty = penalties[b]
        penalized = torch.where(x > 0, x / penalty, x * penalty)
        out[b, v] = torch.where(seen[b, v], penalized, x)
    return out


def repetition_penalty_reference(logits, seen, penalties):
    p = penalties[:, None]
    return torch.where(seen, torch.where(logits > 0, logits / p, logits * p), logits)


def min_p_filter(logits: torch.Tensor, min_p: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(logits)
    for b in hl.tile(logits.size(0)):
        probs = torch.softmax(logits[b, :], dim=-1)
        threshold = min_p[b] * probs.amax(-1)
        out[b, :] = torch.where(probs < threshold, float("-inf"), logits[b, :])
    return out


def min_p_filter_reference(logits, min_p):
    probs = torch.softmax(logits, -1)
    return logits.masked_fill(probs < min_p[:, None] * probs.amax(-1, keepdim=True), float("-inf"))


def greedy_sample(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    batch, vocabulary = logits.size()
    tokens = torch.empty([batch], dtype=torch.int64, device=logits.device)
    logprobs = torch.empty([batch], dtype=torch.float32, device=logits.device)
    for b in hl.tile(batch):
        best = hl.full([b], float("-inf"))
        where = hl.full([b], 0, dtype=torch.int64)
        total = hl.zeros([b])
        for v in hl.tile(vocabulary):
            x = logits[b, v]
            high = x.amax(-1)
            at = x.argmax(-1) + v.begin
            where = torch.where(high > best, at, where)
            m = torch.maximum(best, high)
            total = total * torch.exp(best - m) + torch.exp(x - m[:, None]).sum(-1)
            best = m
        tokens[b] = where
        logprobs[b] = -torch.log(total)
    return tokens, logprobs


def greedy_sample_reference(logits):
    best = logits.log_softmax(-1).max(-1)
    return best.indices, best.values


def ragged_prefill_positions(starts: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    total = int(starts[-1].item())
    positions = torch.empty([total], dtype=torch.int64, device=starts.device)
    for s in hl.grid(seen.size(0)):
        begin, end = starts[s], starts[s + 1]
        for t in hl.tile(begin, end):
            positions[t] = seen[s] + t.index - begin
    return positions


def ragged_prefill_positions_reference(starts, seen):
    return torch.cat([torch.arange(n) + s for n, s in zip(starts.diff().tolist(), seen.tolist(), strict=True)])


ROWS = {
    "fused_add_rms_norm": Published(
        fused_add_rms_norm,
        lambda rng: (randn(rng, 7, 40), randn(rng, 7, 40), randn(rng, 40), 1e-6),
        fused_add_rms_norm_reference,
        "vLLM",
        written=(1,),
    ),
    "rotary_neox": Published(
        rotary_neox,
        lambda rng: (integers(rng, 0, 20, 9), randn(rng, 9, 3, 16), randn(rng, 20, 16)),
        rotary_neox_reference,
        "vLLM",
    ),
    "silu_and_mul": Published(
        silu_and_mul,
        lambda rng: (randn(rng, 6, 50),),
        lambda x: torch.nn.functional.silu(x[:, :25]) * x[:, 25:],
        "vLLM",
    ),
    "gelu_tanh_and_mul": Published(
        gelu_tanh_and_mul,
        lambda rng: (randn(rng, 6, 50),),
        lambda x: torch.nn.functional.gelu(x[:, :25], approximate="tanh") * x[:, 25:],
        "FlashInfer",
    ),
    "reshape_and_cache": Published(
        reshape_and_cache,
        lambda rng: (randn(rng, 5, 3, 8), torch.zeros(4, 4, 3, 8), torch.tensor([9, -1, 0, 15, 6]), 4),
        reshape_and_cache_reference,
        "vLLM",
        written=(1,),
    ),
    "paged_attention": Published(paged_attention, make_paged, paged_attention_reference, "vLLM", 64),
    "merge_attention_states": Published(
        merge_attention_states,
        lambda rng: (randn(rng, 5, 3, 8), randn(rng, 5, 3), randn(rng, 5, 3, 8), randn(rng, 5, 3)),
        merge_attention_states_reference,
        "FlashInfer",
    ),
    "repetition_penalty": Published(
        repetition_penalty,
        lambda rng: (randn(rng, 5, 30), integers(rng, 0, 2, 5, 30).bool(), torch.rand(5, generator=rng) + 1),
        repetition_penalty_reference,
        "TensorRT-LLM",
    ),
    "min_p_filter": Published(
        min_p_filter,
        lambda rng: (randn(rng, 5, 30), torch.rand(5, generator=rng) * 0.3),
        min_p_filter_reference,
        "SGLang",
    ),
    "greedy_sample": Published(
        greedy_sample, lambda rng: (randn(rng, 5, 70),), greedy_sample_reference, "LightLLM", 64
    ),
    "ragged_prefill_positions": Published(
        ragged_prefill_positions,
        lambda rng: (torch.tensor([0, 3, 3, 20]), torch.tensor([5, 0, 2])),
        ragged_prefill_positions_reference,
        "SGLang",
    ),
}
