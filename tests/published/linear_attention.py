"""Kernels of linear attention and state-space models: recurrences, chunks, convolutions."""

from __future__ import annotations

import torch

import helion
import helion.language as hl

from .table import Published
from .table import randn


def chunk_local_cumsum(g: torch.Tensor, chunk: hl.constexpr) -> torch.Tensor:
    batch, length, heads = g.size()
    out = torch.empty_like(g)
    for b, c, h in hl.tile([batch, length // chunk, heads], block_size=[1, 1, None]):
        rows = c.begin * chunk + hl.arange(chunk)
        out[b.begin, rows, h] = hl.cumsum(g[b.begin, rows, h], dim=0)
    return out


def fused_recurrent_gla(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    batch, heads, length, dk = q.size()
    dv = v.size(-1)
    out = torch.empty_like(v)
    state = torch.empty([batch, heads, dk, dv], dtype=torch.float32, device=q.device)
    for b, h, tv in hl.tile([batch, heads, dv], block_size=[1, 1, None]):
        i, j = b.begin, h.begin
        s = hl.zeros([dk, tv])
        for t in hl.grid(length):
            s = s * torch.exp(g[i, j, t, :])[:, None] + k[i, j, t, :][:, None] * v[i, j, t, tv][None, :]
            out[i, j, t, tv] = (s * (q[i, j, t, :] * scale)[:, None]).sum(0)
        state[i, j, :, tv] = s
    return out, state


def fused_recurrent_gla_reference(q, k, v, g, scale):
    s = q.new_zeros(*q.shape[:2], q.size(-1), v.size(-1))
    out = torch.empty_like(v)
    for t in range(q.size(2)):
        s = s * g[:, :, t].exp()[..., None] + k[:, :, t, :, None] * v[:, :, t, None, :]
        out[:, :, t] = torch.einsum("bhk,bhkv->bhv", q[:, :, t] * scale, s)
    return out, s


def chunk_retention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, decay: torch.Tensor) -> torch.Tensor:
    heads, length, dk = q.size()
    dv = v.size(-1)
    chunk = 16
    out = torch.empty_like(v)
    for h in hl.grid(heads):
        log_decay = torch.log(decay[h])
        state = hl.zeros([dk, dv])
        for t in hl.tile(length, block_size=chunk):
            lane = (t.index - t.begin).to(torch.float32)
            qc, kc, vc = q[h, t, :], k[h, t, :], v[h, t, :]
            mask = lane[:, None] >= lane[None, :]
            weights = torch.where(mask, torch.exp((lane[:, None] - lane[None, :]) * log_decay), 0.0)
            inner = torch.mm(torch.mm(qc, kc.T) * weights, vc)
            across = torch.mm(qc, state) * torch.exp((lane + 1) * log_decay)[:, None]
            out[h, t, :] = inner + across
            carried = torch.exp((chunk - 1 - lane) * log_decay)[:, None] * kc
            state = state * torch.exp(chunk * log_decay) + torch.mm(carried.T, vc)
    return out


def chunk_retention_reference(q, k, v, decay):
    at = torch.arange(q.size(1), dtype=q.dtype)
    weights = torch.tril(decay[:, None, None] ** (at[:, None] - at))
    return (q @ k.mT * weights) @ v


def delta_rule(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    heads, length, dk = q.size()
    dv = v.size(-1)
    out = torch.empty_like(v)
    for h, tv in hl.tile([heads, dv], block_size=[1, None]):
        state = hl.zeros([dk, tv])
        for t in hl.grid(length):
            key = k[h.begin, t, :]
            predicted = (state * key[:, None]).sum(0)
            update = beta[h.begin, t] * (v[h.begin, t, tv] - predicted)
            state = state + key[:, None] * update[None, :]
            out[h.begin, t, tv] = (state * q[h.begin, t, :][:, None]).sum(0)
    return out


def delta_rule_reference(q, k, v, beta):
    state = q.new_zeros(q.size(0), q.size(2), v.size(2))
    out = torch.empty_like(v)
    for t in range(q.size(1)):
        update = beta[:, t, None] * (v[:, t] - torch.einsum("hk,hkv->hv", k[:, t], state))
        state = state + k[:, t, :, None] * update[:, None]
        out[:, t] = torch.einsum("hk,hkv->hv", q[:, t], state)
    return out


def causal_conv1d(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, silu: bool) -> torch.Tensor:
    batch, channels, length = x.size()
    width = hl.specialize(weight.size(1))
    out = torch.empty_like(x)
    for b, c, t in hl.tile([batch, channels, length]):
        acc = hl.zeros([b, c, t])
        for w in hl.static_range(width):
            acc = acc + x[b, c, t - (width - 1 - w)] * weight[c, w]
        if bias is not None:
            acc = acc + bias[c]
        if silu:
            acc = acc * torch.sigmoid(acc)
        out[b, c, t] = acc
    return out


def causal_conv1d_reference(x, weight, bias, silu):
    width = weight.size(1)
    padded = torch.nn.functional.pad(x, (width - 1, 0))
    out = torch.nn.functional.conv1d(padded, weight[:, None], bias, groups=x.size(1))
    return torch.nn.functional.silu(out) if silu else out


def selective_scan(
    u: torch.Tensor, delta: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor
) -> torch.Tensor:
    batch, dim, length = u.size()
    n = a.size(1)
    out = torch.empty_like(u)
    for i, td in hl.tile([batch, dim], block_size=[1, None]):
        state = hl.zeros([td, n])
        for t in hl.grid(length):
            step = torch.nn.functional.softplus(delta[i.begin, td, t])
            x = u[i.begin, td, t]
            state = state * torch.exp(step[:, None] * a[td, :]) + (step * x)[:, None] * b[i.begin, :, t][None, :]
            out[i.begin, td, t] = (state * c[i.begin, :, t]).sum(-1) + d[td] * x
    return out


def selective_scan_reference(u, delta, a, b, c, d):
    step = torch.nn.functional.softplus(delta)
    state = u.new_zeros(u.size(0), u.size(1), a.size(1))
    out = torch.empty_like(u)
    for t in range(u.size(2)):
        s = step[:, :, t, None]
        state = state * torch.exp(s * a) + s * u[:, :, t, None] * b[:, None, :, t]
        out[:, :, t] = (state * c[:, None, :, t]).sum(-1) + d * u[:, :, t]
    return out


def rwkv4(w: torch.Tensor, u: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    batch, length, channels = k.size()
    out = torch.empty_like(v)
    for b, c in hl.tile([batch, channels]):
        decay, bonus = -torch.exp(w[c]), u[c]
        num, den = hl.zeros([b, c]), hl.zeros([b, c])
        high = hl.full([b, c], -1e38)
        for t in hl.grid(length):
            key, value = k[b, t, c], v[b, t, c]
            m = torch.maximum(high, key + bonus)
            e1, e2 = torch.exp(high - m), torch.exp(key + bonus - m)
            out[b, t, c] = (e1 * num + e2 * value) / (e1 * den + e2)
            m = torch.maximum(high + decay, key)
            e1, e2 = torch.exp(high + decay - m), torch.exp(key - m)
            num, den, high = e1 * num + e2 * value, e1 * den + e2, m
    return out


def rwkv4_reference(w, u, k, v):
    out, decay = torch.empty_like(v), -torch.exp(w)
    for t in range(k.size(1)):
        past = torch.arange(t - 1, -1, -1, dtype=k.dtype)
        weights = torch.cat([k[:, :t] + past[None, :, None] * decay, (k[:, t] + u)[:, None]], 1).softmax(1)
        out[:, t] = (weights * v[:, : t + 1]).sum(1)
    return out


def l2norm(x: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    out = torch.empty_like(x)
    rstd = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    for t in hl.tile(x.size(0)):
        values = x[t, :]
        r = 1 / torch.sqrt(torch.sum(values * values, dim=1) + eps)
        out[t, :] = values * r[:, None]
        rstd[t] = r
    return out, rstd


def token_shift(x: torch.Tensor, mix: torch.Tensor) -> torch.Tensor:
    batch, length, dim = x.size()
    out = torch.empty_like(x)
    for b, t, d in hl.tile([batch, length, dim]):
        now, before = x[b, t, d], x[b, t - 1, d]
        out[b, t, d] = now + (before - now) * mix[d]
    return out


def gated_delta_rule(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, beta: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    batch, tokens, heads, dim_k = q.size()
    dim_v = v.size(3)
    out = torch.empty_like(v)
    final = torch.empty([batch, heads, dim_k, dim_v], dtype=torch.float32, device=q.device)
    for b, h in hl.grid([batch, heads]):
        for columns in hl.tile(dim_v):
            state = hl.zeros([dim_k, columns])
            for t in hl.grid(tokens):
                key = k[b, t, h, :]
                state = state * torch.exp(g[b, t, h])
                error = v[b, t, h, columns] - (state * key[:, None]).sum(0)
                state = state + key[:, None] * (error * beta[b, t, h])[None, :]
                out[b, t, h, columns] = (state * q[b, t, h, :][:, None]).sum(0)
            final[b, h, :, columns] = state
    return out, final


def gated_delta_rule_reference(q, k, v, g, beta):
    batch, tokens, heads, dim_k = q.shape
    state, outs = q.new_zeros(batch, heads, dim_k, v.size(3)), []
    for t in range(tokens):
        state = state * g[:, t, :, None, None].exp()
        error = v[:, t] - torch.einsum("bhkv,bhk->bhv", state, k[:, t])
        state = state + torch.einsum("bhk,bhv->bhkv", k[:, t], error * beta[:, t, :, None])
        outs.append(torch.einsum("bhkv,bhk->bhv", state, q[:, t]))
    return torch.stack(outs, 1), state


def ssd_chunk_state(
    x: torch.Tensor, b: torch.Tensor, dt: torch.Tensor, decay: torch.Tensor, chunk: int
) -> torch.Tensor:
    tokens, heads, dim = x.size()
    chunks = helion.cdiv(tokens, chunk)
    states = torch.empty([chunks, heads, dim, b.size(1)], dtype=torch.float32, device=x.device)
    for c, h in hl.grid([chunks, heads]):
        end = min((c + 1) * chunk, tokens)
        total = decay[end - 1, h]
        for d in hl.tile(dim):
            acc = hl.zeros([d, b.size(1)])
            for t in hl.tile(c * chunk, end):
                weight = torch.exp(total - decay[t, h]) * dt[t, h]
                acc = hl.dot((x[t, h, d] * weight[:, None]).T, b[t, :], acc=acc)
            states[c, h, d, :] = acc
    return states


def ssd_chunk_state_reference(x, b, dt, decay, chunk):
    parts = [slice(i, min(i + chunk, len(x))) for i in range(0, len(x), chunk)]
    weight = [(decay[p][-1:] - decay[p]).exp() * dt[p] for p in parts]
    return torch.stack([torch.einsum("thd,tn,th->hdn", x[p], b[p], w) for p, w in zip(parts, weight)])


def hgrn_scan(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)

    def step(left_g, left_h, right_g, right_h):
        return left_g + right_g, left_h * torch.exp(right_g) + right_h

    for b, d in hl.tile([x.size(0), x.size(2)]):
        _, h = hl.associative_scan(step, (g[b, :, d], x[b, :, d]), dim=1)
        out[b, :, d] = h
    return out


def hgrn_scan_reference(x, g):
    h, outs = torch.zeros_like(x[:, 0]), []
    for t in range(x.size(1)):
        h = h * g[:, t].exp() + x[:, t]
        outs.append(h)
    return torch.stack(outs, 1)


ROWS = {
    "chunk_local_cumsum": Published(
        chunk_local_cumsum,
        lambda rng: (randn(rng, 2, 32, 5), 8),
        lambda g, chunk: g.unflatten(1, (-1, chunk)).cumsum(2).flatten(1, 2),
        "flash-linear-attention",
    ),
    "fused_recurrent_gla": Published(
        fused_recurrent_gla,
        lambda rng: (*(randn(rng, 2, 2, 6, n) for n in (8, 8, 12)), -randn(rng, 2, 2, 6, 8).abs(), 0.35),
        fused_recurrent_gla_reference,
        "flash-linear-attention",
        64,
    ),
    "chunk_retention": Published(
        chunk_retention,
        lambda rng: (*(randn(rng, 2, 48, 16) for _ in range(3)), torch.tensor([0.9, 0.97])),
        chunk_retention_reference,
        "flash-linear-attention",
        512,
    ),
    "delta_rule": Published(
        delta_rule,
        lambda rng: (
            randn(rng, 2, 10, 8),
            torch.nn.functional.normalize(randn(rng, 2, 10, 8), dim=-1),
            randn(rng, 2, 10, 12),
            torch.rand(2, 10, generator=rng),
        ),
        delta_rule_reference,
        "flash-linear-attention",
        128,
    ),
    "causal_conv1d": Published(
        causal_conv1d,
        lambda rng: (randn(rng, 2, 6, 20), randn(rng, 6, 4), randn(rng, 6), True),
        causal_conv1d_reference,
        "causal-conv1d",
    ),
    "causal_conv1d_without_bias": Published(
        causal_conv1d,
        lambda rng: (randn(rng, 2, 6, 20), randn(rng, 6, 3), None, False),
        causal_conv1d_reference,
        "causal-conv1d",
    ),
    "selective_scan": Published(
        selective_scan,
        lambda rng: (
            randn(rng, 2, 10, 9),
            randn(rng, 2, 10, 9),
            -randn(rng, 10, 4).abs(),
            randn(rng, 2, 4, 9),
            randn(rng, 2, 4, 9),
            randn(rng, 10),
        ),
        selective_scan_reference,
        "Mamba",
        64,
    ),
    "rwkv4": Published(
        rwkv4,
        lambda rng: (randn(rng, 7), randn(rng, 7), randn(rng, 2, 9, 7), randn(rng, 2, 9, 7)),
        rwkv4_reference,
        "RWKV",
        64,
    ),
    "l2norm": Published(
        l2norm,
        lambda rng: (randn(rng, 9, 20), 1e-6),
        lambda x, eps: ((r := (x * x).sum(1).add(eps).rsqrt())[:, None] * x, r),
        "flash-linear-attention",
    ),
    "token_shift": Published(
        token_shift,
        lambda rng: (randn(rng, 2, 9, 7), randn(rng, 7)),
        lambda x, mix: x + (torch.nn.functional.pad(x, (0, 0, 1, -1)) - x) * mix,
        "RWKV",
    ),
    "gated_delta_rule": Published(
        gated_delta_rule,
        lambda rng: (
            randn(rng, 2, 7, 2, 16),
            torch.nn.functional.normalize(randn(rng, 2, 7, 2, 16), dim=-1),
            randn(rng, 2, 7, 2, 20),
            -torch.rand(2, 7, 2, generator=rng),
            torch.rand(2, 7, 2, generator=rng),
        ),
        gated_delta_rule_reference,
        "flash-linear-attention",
        128,
    ),
    "ssd_chunk_state": Published(
        ssd_chunk_state,
        lambda rng: (
            randn(rng, 21, 2, 20),
            randn(rng, 21, 16),
            torch.rand(21, 2, generator=rng),
            -torch.rand(21, 2, generator=rng).cumsum(0),
            8,
        ),
        ssd_chunk_state_reference,
        "Mamba",
        128,
    ),
    "hgrn_scan": Published(
        hgrn_scan,
        lambda rng: (randn(rng, 3, 16, 20), -torch.rand(3, 16, 20, generator=rng)),
        hgrn_scan_reference,
        "flash-linear-attention",
        64,
    ),
}
