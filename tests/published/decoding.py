"""Kernels of one step of decoding: states and caches in slots, packed masks, sampling of drafts."""

from __future__ import annotations

import torch

import helion.language as hl

from .table import Published
from .table import integers
from .table import randn


def apply_token_bitmask(logits: torch.Tensor, bitmask: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    vocabulary = logits.size(1)
    for i in hl.grid(rows.size(0)):
        row = rows[i]
        for words in hl.tile(bitmask.size(1)):
            packed = bitmask[row, words]
            bits = (packed[:, None] >> hl.arange(32)[None, :]) & 1
            columns = words.index[:, None] * 32 + hl.arange(32)[None, :]
            banned = (bits == 0) & (columns < vocabulary)
            hl.store(logits, [row, columns], float("-inf"), extra_mask=banned)
    return logits


def apply_token_bitmask_reference(logits, bitmask, rows):
    for row in rows.tolist():
        for column in range(logits.size(1)):
            if not (int(bitmask[row, column // 32]) >> (column % 32)) & 1:
                logits[row, column] = float("-inf")
    return logits


def make_bitmask(rng):
    return randn(rng, 4, 75), integers(rng, -(2**31), 2**31, 4, 3).to(torch.int32), torch.tensor([2, 0])


def normalize(x, weight, eps):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def qk_norm_rope(
    qkv: torch.Tensor,
    q_weight: torch.Tensor,
    k_weight: torch.Tensor,
    positions: torch.Tensor,
    cos_sin: torch.Tensor,
    heads: int,
    kv_heads: int,
    eps: float,
) -> torch.Tensor:
    tokens = qkv.size(0)
    width = hl.specialize(q_weight.size(0))
    half = width // 2
    packed = qkv.view(tokens, -1, width)
    for t, h in hl.tile([tokens, heads + kv_heads], block_size=[None, 1]):
        position = positions[t]
        cos, sin = cos_sin[position, :half], cos_sin[position, half:]
        x = packed[t, h.begin, :].to(torch.float32)
        if h.begin < heads:
            x = normalize(x, q_weight[:], eps)
        else:
            x = normalize(x, k_weight[:], eps)
        low, high = x[:, :half], x[:, half:]
        packed[t, h.begin, :] = torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1)
    return qkv


def qk_norm_rope_reference(qkv, q_weight, k_weight, positions, cos_sin, heads, kv_heads, eps):
    width = q_weight.size(0)
    packed = qkv.view(qkv.size(0), -1, width)
    cos, sin = cos_sin[positions].chunk(2, -1)
    for h in range(heads + kv_heads):
        x = normalize(packed[:, h], q_weight if h < heads else k_weight, eps)
        low, high = x.chunk(2, -1)
        packed[:, h] = torch.cat([low * cos - high * sin, high * cos + low * sin], -1)
    return qkv


def make_qk_norm_rope(rng):
    weights = randn(rng, 16), randn(rng, 16)
    return randn(rng, 5, 8 * 16), *weights, integers(rng, 0, 9, 5), randn(rng, 9, 16), 4, 2, 1e-6


PAD = -1


def causal_conv1d_update(
    x: torch.Tensor, state: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, slots: torch.Tensor
) -> torch.Tensor:
    batch, channels = x.size()
    width = hl.specialize(weight.size(1))
    out = torch.zeros_like(x)
    for b in hl.grid(batch):
        slot = slots[b]
        if slot == PAD:
            continue
        for c in hl.tile(channels):
            new = x[b, c].to(torch.float32)
            acc = new * weight[c, width - 1]
            for i in hl.static_range(width - 1):
                old = state[slot, c, i]
                acc += old * weight[c, i]
                if i > 0:
                    state[slot, c, i - 1] = old
            state[slot, c, width - 2] = new
            if bias is not None:
                acc += bias[c]
            out[b, c] = acc * torch.sigmoid(acc)
    return out


def causal_conv1d_update_reference(x, state, weight, bias, slots):
    out = torch.zeros_like(x)
    for b, slot in enumerate(slots.tolist()):
        if slot >= 0:
            window = torch.cat([state[slot], x[b][:, None]], 1)
            state[slot] = window[:, 1:]
            out[b] = torch.nn.functional.silu((window * weight).sum(1) + bias)
    return out


def selective_state_update(
    state: torch.Tensor,
    x: torch.Tensor,
    dt: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    d: torch.Tensor,
    z: torch.Tensor,
    dt_bias: torch.Tensor,
    slots: torch.Tensor,
    dt_softplus: bool,
) -> torch.Tensor:
    batch, heads, width = x.size()
    group = heads // b.size(1)
    out = torch.empty_like(x)
    for i, h in hl.grid([batch, heads]):
        slot = slots[i]
        step = dt[i, h] + dt_bias[h]
        if dt_softplus:
            step = torch.where(step <= 20.0, torch.log1p(torch.exp(step)), step)
        decay = torch.exp(a[h] * step)
        b_row, c_row = b[i, h // group, :], c[i, h // group, :]
        for p in hl.tile(width):
            value, gate = x[i, h, p], z[i, h, p]
            new = state[slot, h, p, :] * decay + (step * value)[:, None] * b_row[None, :]
            state[slot, h, p, :] = new
            y = (new * c_row).sum(-1) + value * d[h]
            out[i, h, p] = y * gate * torch.sigmoid(gate)
    return out


def selective_state_update_reference(state, x, dt, a, b, c, d, z, dt_bias, slots, dt_softplus):
    group = x.size(1) // b.size(1)
    step = torch.nn.functional.softplus(dt + dt_bias)
    b, c = (t.repeat_interleave(group, 1) for t in (b, c))
    new = state[slots] * torch.exp(a * step)[..., None, None] + (step[..., None] * x)[..., None] * b[:, :, None]
    state[slots] = new
    y = (new * c[:, :, None]).sum(-1) + x * d[:, None]
    return y * torch.nn.functional.silu(z)


def make_selective_state(rng):
    state, x, dt = randn(rng, 6, 4, 12, 8), randn(rng, 3, 4, 12), randn(rng, 3, 4)
    b, c = randn(rng, 3, 2, 8), randn(rng, 3, 2, 8)
    rest = randn(rng, 4), randn(rng, 3, 4, 12), randn(rng, 4), torch.tensor([4, 0, 2]), True
    return state, x, dt, -torch.rand(4, generator=rng), b, c, *rest


def rejection_random_sample(
    starts: torch.Tensor,
    drafts: torch.Tensor,
    draft_probs: torch.Tensor | None,
    target_probs: torch.Tensor,
    bonus: torch.Tensor,
    recovered: torch.Tensor,
    uniform: torch.Tensor,
    longest: int,
) -> torch.Tensor:
    batch = starts.size(0) - 1
    out = torch.full([batch, longest + 1], -1, dtype=torch.int64, device=drafts.device)
    for i in hl.grid(batch):
        first, count = starts[i], starts[i + 1] - starts[i]
        rejected = False
        for j in hl.grid(count):
            if not rejected:
                at = first + j
                token = drafts[at]
                draft_prob = 1.0 if draft_probs is None else draft_probs[at, token]
                if draft_prob > 0 and target_probs[at, token] / draft_prob >= uniform[at]:
                    out[i, j] = token
                else:
                    rejected = True
                    out[i, j] = recovered[at]
        if not rejected:
            out[i, count] = bonus[i]
    return out


def rejection_random_sample_reference(starts, drafts, draft_probs, target_probs, bonus, recovered, uniform, longest):
    out = torch.full([starts.numel() - 1, longest + 1], -1, dtype=torch.int64)
    for i, (begin, end) in enumerate(zip(starts.tolist(), starts.tolist()[1:])):
        for j, at in enumerate(range(begin, end)):
            token = int(drafts[at])
            if target_probs[at, token] / draft_probs[at, token] < uniform[at]:
                out[i, j] = recovered[at]
                break
            out[i, j] = token
        else:
            out[i, end - begin] = bonus[i]
    return out


def make_rejection(rng):
    draft, target = (torch.softmax(randn(rng, 9, 11), 1) for _ in range(2))
    drafts, recovered = integers(rng, 0, 11, 9), integers(rng, 0, 11, 9)
    starts, uniform = torch.tensor([0, 3, 3, 7, 9]), torch.rand(9, generator=rng) * 0.7
    return starts, drafts, draft, target, integers(rng, 0, 11, 4), recovered, uniform, 4


def rwkv7(
    r: torch.Tensor, w: torch.Tensor, k: torch.Tensor, v: torch.Tensor, a: torch.Tensor, b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    batch, length, heads, width = r.size()
    width = hl.specialize(width)
    out = torch.empty_like(v)
    last = r.new_zeros(batch, heads, width, width)
    for i, h, rows in hl.tile([batch, heads, width], block_size=[1, 1, None]):
        i, h = i.begin, h.begin
        state = hl.zeros([rows, width])
        for t in hl.grid(length):
            decay = torch.exp(-torch.exp(w[i, t, h, :]))
            removed = (state * a[i, t, h, :]).sum(-1, keepdim=True)
            state = state * decay + removed * b[i, t, h, :] + v[i, t, h, rows][:, None] * k[i, t, h, :]
            out[i, t, h, rows] = (state * r[i, t, h, :]).sum(-1)
        last[i, h, rows, :] = state
    return out, last


def rwkv7_reference(r, w, k, v, a, b):
    state, out = r.new_zeros(r.size(0), r.size(2), r.size(3), r.size(3)), []
    for t in range(r.size(1)):
        removed = (state * a[:, t, :, None]).sum(-1, keepdim=True)
        state = state * torch.exp(-torch.exp(w[:, t]))[:, :, None] + removed * b[:, t, :, None]
        state = state + v[:, t, :, :, None] * k[:, t, :, None]
        out.append((state * r[:, t, :, None]).sum(-1))
    return torch.stack(out, 1), state


ROWS = {
    "apply_token_bitmask": Published(
        apply_token_bitmask, make_bitmask, apply_token_bitmask_reference, "xgrammar", written=(0,)
    ),
    "qk_norm_rope": Published(qk_norm_rope, make_qk_norm_rope, qk_norm_rope_reference, "vLLM", 64, written=(0,)),
    "causal_conv1d_update": Published(
        causal_conv1d_update,
        lambda rng: (
            randn(rng, 4, 20),
            randn(rng, 6, 20, 3),
            randn(rng, 20, 4),
            randn(rng, 20),
            torch.tensor([5, -1, 0, 2]),
        ),
        causal_conv1d_update_reference,
        "causal-conv1d",
        64,
        written=(1,),
    ),
    "selective_state_update": Published(
        selective_state_update, make_selective_state, selective_state_update_reference, "mamba_ssm", 64, written=(0,)
    ),
    "rejection_random_sample": Published(
        rejection_random_sample, make_rejection, rejection_random_sample_reference, "vLLM"
    ),
    "rwkv7": Published(
        rwkv7,
        lambda rng: tuple(randn(rng, 2, 7, 2, 16) * 0.3 for _ in range(6)),
        rwkv7_reference,
        "flash-linear-attention",
        64,
    ),
}
