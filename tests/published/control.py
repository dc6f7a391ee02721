"""Kernels whose work depends on data: locks, drafts that are accepted or not, searches, adapters; and fp4."""

from __future__ import annotations

import torch

import helion.language as hl

from .table import Published
from .table import integers
from .table import randn


def layer_norm_backward_with_locks(
    dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, mean: torch.Tensor, rstd: torch.Tensor, locks: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows, n = x.size()
    groups = locks.size(0)
    dx = torch.empty_like(x)
    dw = torch.zeros([groups, n], dtype=torch.float32, device=x.device)
    db = torch.zeros([groups, n], dtype=torch.float32, device=x.device)
    for row in hl.grid(rows):
        normalized = (x[row, :] - mean[row]) * rstd[row]
        scaled = dy[row, :] * weight[:]
        c1 = (normalized * scaled).sum() / n
        c2 = scaled.sum() / n
        dx[row, :] = (scaled - (normalized * c1 + c2)) * rstd[row]
        group = row % groups
        while hl.atomic_cas(locks, [group], 0, 1, sem="acquire") == 1:
            pass
        dw[group, :] = dw[group, :] + dy[row, :] * normalized
        db[group, :] = db[group, :] + dy[row, :]
        hl.atomic_xchg(locks, [group], 0, sem="release")
    return dx, dw.sum(0), db.sum(0)


def layer_norm_backward_reference(dy, x, weight, mean, rstd, locks):
    normalized = (x - mean[:, None]) * rstd[:, None]
    scaled = dy * weight
    c1, c2 = (normalized * scaled).mean(1, keepdim=True), scaled.mean(1, keepdim=True)
    return (scaled - normalized * c1 - c2) * rstd[:, None], (dy * normalized).sum(0), dy.sum(0)


def make_layer_norm(rng):
    x = randn(rng, 11, 20)
    rstd = (x.var(1, correction=0) + 1e-5).rsqrt()
    return randn(rng, 11, 20), x, randn(rng, 20), x.mean(1), rstd, torch.zeros(3, dtype=torch.int32)


def greedy_rejection(
    starts: torch.Tensor, drafts: torch.Tensor, targets: torch.Tensor, bonus: torch.Tensor, longest: int
) -> torch.Tensor:
    requests = starts.size(0) - 1
    out = torch.full([requests, longest + 1], -1, dtype=torch.int64, device=drafts.device)
    for r in hl.grid(requests):
        begin = starts[r]
        count = starts[r + 1] - begin
        rejected = hl.full([], False, dtype=torch.bool)
        for pos in hl.grid(count):
            token = targets[begin + pos]
            out[r, pos] = token
            if drafts[begin + pos] != token:
                rejected = hl.full([], True, dtype=torch.bool)
                break
        if not rejected:
            out[r, count] = bonus[r]
    return out


def greedy_rejection_reference(starts, drafts, targets, bonus, longest):
    out = torch.full((len(starts) - 1, longest + 1), -1)
    for r, (begin, end) in enumerate(zip(starts.tolist(), starts.tolist()[1:])):
        wrong = (drafts[begin:end] != targets[begin:end]).nonzero()
        accepted = int(wrong[0]) + 1 if len(wrong) else end - begin
        out[r, :accepted] = targets[begin : begin + accepted]
        if not len(wrong):
            out[r, end - begin] = bonus[r]
    return out


def make_drafts(rng):
    targets = integers(rng, 0, 9, 12)
    drafts = targets.clone()
    drafts[[2, 7, 8]] = 20
    return torch.tensor([0, 3, 6, 6, 12]), drafts, targets, integers(rng, 0, 9, 4), 6


def top_p_threshold(probs: torch.Tensor, top_p: torch.Tensor, eps: float) -> torch.Tensor:
    out = torch.empty_like(probs)
    for row in hl.grid(probs.size(0)):
        p = probs[row, :]
        low, high = hl.zeros([]), p.amax()
        while high - low > eps:
            middle = (low + high) / 2
            mass = torch.where(p >= middle, p, 0.0).sum()
            if mass >= top_p[row]:
                low = middle
            else:
                high = middle
        kept = torch.where(p >= low, p, 0.0)
        out[row, :] = kept / kept.sum()
    return out


def top_p_threshold_reference(probs, top_p, eps):
    ordered, at = probs.sort(1, descending=True)
    before = ordered.cumsum(1) - ordered
    kept = torch.zeros_like(probs).scatter(1, at, torch.where(before < top_p[:, None], ordered, 0.0))
    return kept / kept.sum(1, keepdim=True)


def prompt_lookup(tokens: torch.Tensor, lengths: torch.Tensor, n: hl.constexpr, k: int) -> torch.Tensor:
    out = torch.full([tokens.size(0), k], -1, dtype=tokens.dtype, device=tokens.device)
    for b in hl.grid(tokens.size(0)):
        length = lengths[b]
        for start in hl.grid(length - n):
            matches = hl.full([], True, dtype=torch.bool)
            for j in hl.static_range(n):
                matches = matches & (tokens[b, start + j] == tokens[b, length - n + j])
            if not matches:
                continue
            for c in hl.tile(k):
                place = start + n + c.index
                value = hl.load(tokens, [b, place], extra_mask=place < length)
                out[b, c] = torch.where(place < length, value, -1)
            break
    return out


def prompt_lookup_reference(tokens, lengths, n, k):
    out = torch.full((tokens.size(0), k), -1)
    for b, length in enumerate(lengths.tolist()):
        row = tokens[b, :length].tolist()
        for start in range(length - n):
            if row[start : start + n] == row[length - n :]:
                found = row[start + n : start + n + k]
                out[b, : len(found)] = torch.tensor(found)
                break
    return out


def lora(
    x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, adapter: torch.Tensor, scale: float, y: torch.Tensor
) -> torch.Tensor:
    for token in hl.grid(x.size(0)):
        which = adapter[token]
        if which < 0:
            continue
        hidden = (a[which, :, :] * x[token, :][None, :]).sum(-1) * scale
        for n in hl.tile(y.size(1)):
            y[token, n] = y[token, n] + (b[which, n, :] * hidden[None, :]).sum(-1)
    return y


def lora_reference(x, a, b, adapter, scale, y):
    for token, which in enumerate(adapter.tolist()):
        if which >= 0:
            y[token] += b[which] @ (a[which] @ x[token]) * scale
    return y


def mxfp4_expert_matmul(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, expert: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    blocks, rows, _ = x.size()
    out = torch.empty([blocks, rows, weight.size(2)], dtype=x.dtype, device=x.device)
    for block in hl.grid(blocks):
        for m, n in hl.tile([rows, weight.size(2)]):
            e = expert[block]
            acc = hl.dot_scaled(x[block, m, :], None, "bf16", weight[e, :, n], scale[e, n, :], "e2m1")
            out[block, m, n] = acc + bias[e, n].float()[None, :]
    return out


E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=torch.float64)


def unpacked(packed: torch.Tensor) -> torch.Tensor:
    """[..., K / 2] as float64 [..., K]."""
    return E2M1[torch.stack([packed & 15, packed >> 4], -1).flatten(-2).long()]


def mxfp4_expert_matmul_reference(x, weight, scale, expert, bias):
    values = unpacked(weight.transpose(1, 2)) * torch.exp2(scale.double() - 127).repeat_interleave(32, 2)
    return torch.stack([x[i] @ values[e].T + bias[e] for i, e in enumerate(expert.tolist())])


def nvfp4_quantize(x: torch.Tensor, scale_of_all: float) -> tuple[torch.Tensor, torch.Tensor]:
    rows, n = x.size()
    packed = torch.empty([rows, n // 2], dtype=torch.uint8, device=x.device)
    scales = torch.empty([rows, n // 16], dtype=torch.float8_e4m3fn, device=x.device)
    for m, g in hl.tile([rows, n // 16], block_size=[None, 1]):
        values = x[m, g.begin * 16 : g.begin * 16 + 16].float()
        scale = (values.abs().amax(-1) / 6.0 * scale_of_all).to(torch.float8_e4m3fn)
        scales[m, g] = scale[:, None]
        factor = scale_of_all / scale.float()
        y = torch.where(scale.float() > 0, factor, 0.0)[:, None] * values
        a = y.abs()
        code = (a > 0.25).int() + (a >= 0.75).int() + (a > 1.25).int() + (a >= 1.75).int()
        code = code + (a > 2.5).int() + (a >= 3.5).int() + (a > 5.0).int()
        code = torch.where(y < 0, code + 8, code)
        low, high = hl.split(code.reshape([m, 8, 2]))
        packed[m, g.begin * 8 : g.begin * 8 + 8] = (low | (high << 4)).to(torch.uint8)
    return packed, scales


def nvfp4_quantize_reference(x, scale_of_all):
    groups = x.float().unflatten(1, (-1, 16))
    scales = (groups.abs().amax(-1) / 6 * scale_of_all).to(torch.float8_e4m3fn)
    y = groups * (scale_of_all / scales.float())[..., None]
    distance = (y.abs()[..., None] - E2M1[:8]).abs()
    code = torch.where(y < 0, 8, 0) + distance.argmin(-1)
    code = code.flatten(1).to(torch.uint8)
    return code[:, ::2] | code[:, 1::2] << 4, scales


ROWS = {
    "layer_norm_backward_with_locks": Published(
        layer_norm_backward_with_locks, make_layer_norm, layer_norm_backward_reference, "FlagGems", 64
    ),
    "greedy_rejection": Published(greedy_rejection, make_drafts, greedy_rejection_reference, "vLLM"),
    "top_p_threshold": Published(
        top_p_threshold,
        lambda rng: (torch.softmax(2 * randn(rng, 5, 30), 1), torch.tensor([0.1, 0.5, 0.7, 0.9, 0.3]), 1e-7),
        top_p_threshold_reference,
        "SGLang",
        64,
    ),
    "prompt_lookup": Published(
        prompt_lookup,
        lambda rng: (integers(rng, 0, 3, 4, 20), torch.tensor([20, 13, 9, 4]), 2, 3),
        prompt_lookup_reference,
        "vLLM",
    ),
    "lora": Published(
        lora,
        lambda rng: (
            randn(rng, 6, 24),
            randn(rng, 3, 8, 24),
            randn(rng, 3, 20, 8),
            torch.tensor([0, -1, 2, 2, 1, -1]),
            0.5,
            randn(rng, 6, 20),
        ),
        lora_reference,
        "vLLM",
        256,
        (5,),
    ),
    "mxfp4_expert_matmul": Published(
        mxfp4_expert_matmul,
        lambda rng: (
            randn(rng, 3, 16, 64, dtype=torch.bfloat16),
            integers(rng, 0, 256, 2, 32, 40).to(torch.uint8),
            integers(rng, 122, 128, 2, 40, 2).to(torch.uint8),
            torch.tensor([1, 0, 1]),
            randn(rng, 2, 40, dtype=torch.bfloat16),
        ),
        mxfp4_expert_matmul_reference,
        "vLLM",
        4,
    ),
    "nvfp4_quantize": Published(
        nvfp4_quantize, lambda rng: (randn(rng, 6, 64), 8.0), nvfp4_quantize_reference, "TransformerEngine"
    ),
}
