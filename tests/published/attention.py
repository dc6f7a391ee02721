"""Attention kernels: sequences of several lengths, windows with sinks, split keys, latent keys, and what goes with
them.
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl

from .table import Published
from .table import randn


def flash_attention_varlen(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, starts: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    heads, dim = q.size(1), q.size(2)
    padded = helion.next_power_of_2(dim)
    out = torch.empty_like(q)
    lse = torch.empty([q.size(0), heads], dtype=torch.float32, device=q.device)
    for seq, h in hl.grid([starts.size(0) - 1, heads]):
        begin, end = starts[seq], starts[seq + 1]
        for rows in hl.tile(begin, end):
            m_i = hl.full([rows], float("-inf"))
            l_i = hl.full([rows], 1.0) * 0
            acc = hl.zeros([rows, padded])
            query = q[rows, h, :]
            for cols in hl.tile(begin, rows.end):
                scores = hl.dot(query, k[cols, h, :].T) * scale
                scores = torch.where(cols.index[None, :] <= rows.index[:, None], scores, float("-inf"))
                m_new = torch.maximum(m_i, scores.amax(-1))
                p = torch.exp(scores - m_new[:, None])
                alpha = torch.exp(m_i - m_new)
                l_i = l_i * alpha + p.sum(-1)
                acc = acc * alpha[:, None]
                acc = acc + hl.dot(p.to(v.dtype), v[cols, h, :])
                m_i = m_new
            out[rows, h, :] = acc / l_i[:, None]
            lse[rows, h] = m_i + torch.log(l_i)
    return out, lse


def flash_attention_varlen_reference(q, k, v, starts, scale):
    out, lse = torch.empty_like(q), torch.empty(q.shape[:2], dtype=q.dtype)
    for begin, end in zip(starts.tolist(), starts.tolist()[1:]):
        part = slice(begin, end)
        scores = torch.einsum("ihd,jhd->hij", q[part], k[part]) * scale
        scores = scores.masked_fill(~torch.ones(end - begin, end - begin).tril().bool(), float("-inf"))
        out[part] = torch.einsum("hij,jhd->ihd", scores.softmax(-1), v[part])
        lse[part] = scores.logsumexp(-1).T
    return out, lse


def window_attention_with_sinks(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sinks: torch.Tensor, window: int, scale: float
) -> torch.Tensor:
    tokens, heads, dim = q.size()
    group = heads // k.size(1)
    out = torch.empty_like(q)
    for h in hl.grid(heads):
        for rows in hl.tile(tokens):
            sink = sinks[h]
            m_i = hl.full([rows], 0.0) + sink
            l_i = hl.full([rows], 1.0)
            acc = hl.zeros([rows, dim])
            first = max(rows.begin - window + 1, 0)
            for cols in hl.tile(first, rows.end):
                scores = hl.dot(q[rows, h, :], k[cols, h // group, :].T) * scale
                distance = rows.index[:, None] - cols.index[None, :]
                scores = torch.where((distance >= 0) & (distance < window), scores, float("-inf"))
                m_new = torch.maximum(m_i, scores.amax(-1))
                p = torch.exp(scores - m_new[:, None])
                alpha = torch.exp(m_i - m_new)
                l_i = l_i * alpha + p.sum(-1)
                acc = acc * alpha[:, None] + hl.dot(p, v[cols, h // group, :])
                m_i = m_new
            out[rows, h, :] = acc / l_i[:, None]
    return out


def window_attention_with_sinks_reference(q, k, v, sinks, window, scale):
    group = q.size(1) // k.size(1)
    k, v = (x.repeat_interleave(group, 1) for x in (k, v))
    scores = torch.einsum("ihd,jhd->hij", q, k) * scale
    i = torch.arange(q.size(0))
    distance = i[:, None] - i[None, :]
    scores = scores.masked_fill((distance < 0) | (distance >= window), float("-inf"))
    scores = torch.cat([scores, sinks[:, None, None].expand(-1, q.size(0), 1)], -1)
    return torch.einsum("hij,jhd->ihd", scores.softmax(-1)[..., :-1], v)


def attention_backward_delta(out: torch.Tensor, dout: torch.Tensor) -> torch.Tensor:
    batch, tokens, heads, _ = out.size()
    delta = torch.empty([batch, heads, tokens], dtype=torch.float32, device=out.device)
    for b, t, h in hl.tile([batch, tokens, heads]):
        product = out[b, t, h, :].float() * dout[b, t, h, :].float()
        delta[b, h, t] = product.sum(-1).permute(0, 2, 1)
    return delta


def flash_decoding(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, splits: int, scale: float) -> torch.Tensor:
    batch, heads, dim = q.size()
    tokens = k.size(1)
    parts = torch.empty([batch, heads, splits, dim], dtype=torch.float32, device=q.device)
    lses = torch.empty([batch, heads, splits], dtype=torch.float32, device=q.device)
    out = torch.empty_like(q)
    for b, h, s in hl.grid([batch, heads, splits]):
        length = helion.cdiv(tokens, splits)
        m, total, acc = hl.full([], float("-inf")), hl.zeros([]), hl.zeros([dim])
        for t in hl.tile(s * length, min((s + 1) * length, tokens)):
            scores = (k[b, t, h, :] * q[b, h, :][None, :]).sum(-1) * scale
            m_new = torch.maximum(m, scores.amax())
            p, alpha = torch.exp(scores - m_new), torch.exp(m - m_new)
            total = total * alpha + p.sum()
            acc = acc * alpha + (p[:, None] * v[b, t, h, :]).sum(0)
            m = m_new
        parts[b, h, s, :] = acc / total
        lses[b, h, s] = m + torch.log(total)
    hl.barrier()
    for b, h in hl.grid([batch, heads]):
        weights = torch.softmax(lses[b, h, :], -1)
        out[b, h, :] = (parts[b, h, :, :] * weights[:, None]).sum(0)
    return out


def flash_decoding_reference(q, k, v, splits, scale):
    p = torch.softmax(torch.einsum("bhd,bthd->bht", q, k) * scale, -1)
    return torch.einsum("bht,bthd->bhd", p, v)


def latent_attention_decode(
    q: torch.Tensor, q_rope: torch.Tensor, latent: torch.Tensor, rope: torch.Tensor, lengths: torch.Tensor, scale: float
) -> torch.Tensor:
    batch, heads, rank = q.size()
    out = torch.empty_like(q)
    for b in hl.grid(batch):
        for h in hl.tile(heads):
            m = hl.full([h], float("-inf"))
            total = hl.zeros([h])
            acc = hl.zeros([h, rank])
            for t in hl.tile(lengths[b]):
                kv = latent[b, t, :]
                scores = hl.dot(q[b, h, :], kv.T)
                scores = hl.dot(q_rope[b, h, :], rope[b, t, :].T, acc=scores) * scale
                m_new = torch.maximum(m, scores.amax(-1))
                p, alpha = torch.exp(scores - m_new[:, None]), torch.exp(m - m_new)
                total = total * alpha + p.sum(-1)
                acc = hl.dot(p, kv, acc=acc * alpha[:, None])
                m = m_new
            out[b, h, :] = acc / total[:, None]
    return out


def latent_attention_decode_reference(q, q_rope, latent, rope, lengths, scale):
    out = torch.empty_like(q)
    for b, n in enumerate(lengths.tolist()):
        scores = (q[b] @ latent[b, :n].T + q_rope[b] @ rope[b, :n].T) * scale
        out[b] = scores.softmax(-1) @ latent[b, :n]
    return out


def multimodal_rotary(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, first: int, second: int) -> torch.Tensor:
    tokens, half = x.size(0), x.size(2) // 2
    out = torch.empty_like(x)
    for t in hl.tile(tokens):
        lane = hl.arange(half)
        section = torch.where(lane < first, 0, torch.where(lane < first + second, 1, 2))
        c = cos[section[None, :], t.index[:, None], lane[None, :]][:, None, :]
        s = sin[section[None, :], t.index[:, None], lane[None, :]][:, None, :]
        low, high = x[t, :, :half], x[t, :, half:]
        out[t, :, :half] = low * c - high * s
        out[t, :, half:] = high * c + low * s
    return out


def multimodal_rotary_reference(x, cos, sin, first, second):
    half = x.size(-1) // 2
    bounds = [0, first, first + second, half]
    c, s = (torch.cat([t[i, :, bounds[i] : bounds[i + 1]] for i in range(3)], -1)[:, None] for t in (cos, sin))
    low, high = x.chunk(2, -1)
    return torch.cat([low * c - high * s, high * c + low * s], -1)


ROWS = {
    "flash_attention_varlen": Published(
        flash_attention_varlen,
        lambda rng: (*(randn(rng, 30, 2, 24) for _ in range(3)), torch.tensor([0, 7, 8, 30]), 0.2),
        flash_attention_varlen_reference,
        "FlashAttention",
        64,
    ),
    "window_attention_with_sinks": Published(
        window_attention_with_sinks,
        lambda rng: (randn(rng, 21, 4, 16), randn(rng, 21, 2, 16), randn(rng, 21, 2, 16), randn(rng, 4), 6, 0.25),
        window_attention_with_sinks_reference,
        "vLLM",
        64,
    ),
    "attention_backward_delta": Published(
        attention_backward_delta,
        lambda rng: (randn(rng, 2, 9, 3, 20), randn(rng, 2, 9, 3, 20)),
        lambda o, do: (o * do).sum(-1).transpose(1, 2),
        "FlashAttention",
        64,
    ),
    "flash_decoding": Published(
        flash_decoding,
        lambda rng: (randn(rng, 2, 3, 16), randn(rng, 2, 37, 3, 16), randn(rng, 2, 37, 3, 16), 4, 0.25),
        flash_decoding_reference,
        "SGLang",
        64,
    ),
    "latent_attention_decode": Published(
        latent_attention_decode,
        lambda rng: (
            randn(rng, 2, 6, 32),
            randn(rng, 2, 6, 16),
            randn(rng, 2, 19, 32),
            randn(rng, 2, 19, 16),
            torch.tensor([19, 4]),
            0.1,
        ),
        latent_attention_decode_reference,
        "SGLang",
        64,
    ),
    "multimodal_rotary": Published(
        multimodal_rotary,
        lambda rng: (randn(rng, 9, 2, 24), randn(rng, 3, 9, 12), randn(rng, 3, 9, 12), 4, 3),
        multimodal_rotary_reference,
        "vLLM",
    ),
}
