"""Kernels of recurrent layers with gates in the exponent, and of attention that forgets."""

from __future__ import annotations

import torch

import helion.language as hl

from .table import Published
from .table import randn


def mlstm_recurrent(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, i: torch.Tensor, f: torch.Tensor, eps: float
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """A matrix memory with exponential gates: what is held is smaller by exp(m), the largest gate so far."""
    batch, heads, length, dk = q.size()
    dv = v.size(-1)
    out = torch.empty_like(v)
    memory = torch.empty([batch, heads, dk, dv], dtype=torch.float32, device=q.device)
    normalizer = torch.empty([batch, heads, dk], dtype=torch.float32, device=q.device)
    maximum = torch.empty([batch, heads], dtype=torch.float32, device=q.device)
    for b, h in hl.grid([batch, heads]):
        c = hl.zeros([dk, dv])
        n = hl.zeros([dk])
        m = hl.zeros([])
        for t in hl.grid(length):
            log_f = torch.nn.functional.logsigmoid(f[b, h, t])
            m_new = torch.maximum(log_f + m, i[b, h, t])
            keep = torch.exp(log_f + m - m_new)
            add = torch.exp(i[b, h, t] - m_new)
            key, value, query = k[b, h, t, :] * dk**-0.5, v[b, h, t, :], q[b, h, t, :]
            c = keep * c + add * (key[:, None] * value[None, :])
            n = keep * n + add * key
            m = m_new
            size = torch.maximum((n * query).sum().abs(), torch.exp(-m))
            out[b, h, t, :] = (c * query[:, None]).sum(0) / (size + eps)
        memory[b, h, :, :] = c
        normalizer[b, h, :] = n
        maximum[b, h] = m
    return out, (memory, normalizer, maximum)


def mlstm_recurrent_reference(q, k, v, i, f, eps):
    batch, heads, length, dk = q.shape
    c, n, m = q.new_zeros(batch, heads, dk, v.size(-1)), q.new_zeros(batch, heads, dk), q.new_zeros(batch, heads)
    out = torch.empty_like(v)
    for t in range(length):
        log_f = torch.nn.functional.logsigmoid(f[:, :, t])
        new = torch.maximum(log_f + m, i[:, :, t])
        keep, add, m = (log_f + m - new).exp(), (i[:, :, t] - new).exp(), new
        key = k[:, :, t] / dk**0.5
        c = keep[..., None, None] * c + add[..., None, None] * key[..., None] * v[:, :, t, None, :]
        n = keep[..., None] * n + add[..., None] * key
        size = torch.maximum((n * q[:, :, t]).sum(-1).abs(), (-m).exp())
        out[:, :, t] = torch.einsum("bhk,bhkv->bhv", q[:, :, t], c) / (size + eps)[..., None]
    return out, (c, n, m)


def make_mlstm(rng):
    q, k, v = (randn(rng, 2, 2, 6, 8) for _ in range(3))
    return q, k, v, randn(rng, 2, 2, 6), randn(rng, 2, 2, 6) + 2, 1e-6


def forgetting_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, log_f: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention whose scores lose what the forget gates between the query and the key add up to."""
    heads, length, width = q.size()
    width = hl.specialize(width)
    decay = torch.cumsum(log_f.to(torch.float32), dim=-1)
    out = torch.empty_like(q)
    lse = torch.empty([heads, length], dtype=torch.float32, device=q.device)
    for h, rows in hl.tile([heads, length], block_size=[1, None]):
        head = h.begin
        queries = q[head, rows, :] * width**-0.5
        m = hl.full([rows], float("-inf"))
        total = hl.zeros([rows])
        acc = hl.zeros([rows, width])
        for columns in hl.tile(rows.end):
            scores = hl.dot(queries, k[head, columns, :].T).to(torch.float32)
            scores = scores + decay[head, rows][:, None] - decay[head, columns][None, :]
            scores = torch.where(rows.index[:, None] >= columns.index[None, :], scores, float("-inf"))
            m_new = torch.maximum(m, scores.amax(-1))
            p = torch.exp(scores - m_new[:, None])
            alpha = torch.exp(m - m_new)
            total = total * alpha + p.sum(-1)
            acc = torch.addmm(acc * alpha[:, None], p.to(v.dtype), v[head, columns, :])
            m = m_new
        out[head, rows, :] = (acc / total[:, None]).to(out.dtype)
        lse[head, rows] = m + torch.log(total)
    return out, lse


def forgetting_attention_reference(q, k, v, log_f):
    decay = log_f.cumsum(-1)
    scores = q @ k.mT / q.size(-1) ** 0.5 + decay[:, :, None] - decay[:, None, :]
    scores = scores.masked_fill(torch.ones(scores.shape[1:], dtype=torch.bool).triu(1), float("-inf"))
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


def make_forgetting(rng):
    q, k, v = (randn(rng, 2, 37, 16) for _ in range(3))
    return q, k, v, torch.nn.functional.logsigmoid(randn(rng, 2, 37) + 1)


ROWS = {
    "mlstm_recurrent": Published(mlstm_recurrent, make_mlstm, mlstm_recurrent_reference, "xLSTM", 256),
    "forgetting_attention": Published(
        forgetting_attention, make_forgetting, forgetting_attention_reference, "forgetting-transformer", 128
    ),
}
