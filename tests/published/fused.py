"""Kernels that fuse what is around products and norms: losses over a vocabulary, gates, quantization, sparse blocks."""

from __future__ import annotations

import torch

import helion
import helion.language as hl

from .table import Published
from .table import integers
from .table import randn


def linear_cross_entropy(x: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, softcap: float) -> torch.Tensor:
    rows, hidden = x.size()
    vocabulary = weight.size(0)
    losses = torch.empty([rows], dtype=torch.float32, device=x.device)
    for t in hl.tile(rows):
        high = hl.full([t], float("-inf"))
        total = hl.zeros([t])
        picked = hl.zeros([t])
        for v in hl.tile(vocabulary):
            logits = hl.zeros([t, v], dtype=torch.float32)
            for k in hl.tile(hidden):
                logits = hl.dot(x[t, k], weight[v, k].T, acc=logits)
            logits = softcap * torch.tanh(logits / softcap)
            logits = torch.where(v.index[None, :] < vocabulary, logits, float("-inf"))
            grown = torch.maximum(high, logits.amax(1))
            total = total * torch.exp(high - grown) + torch.exp(logits - grown[:, None]).sum(1)
            high = grown
            picked += torch.where(v.index[None, :] == targets[t][:, None], logits, 0.0).sum(1)
        losses[t] = high + torch.log(total) - picked
    return losses


def linear_cross_entropy_reference(x, weight, targets, softcap):
    logits = softcap * torch.tanh(x @ weight.T / softcap)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def gated_rms_norm(x: torch.Tensor, z: torch.Tensor, weight: torch.Tensor, groups: int, eps: float) -> torch.Tensor:
    rows, hidden = x.shape
    per = hl.specialize(hidden // groups)
    out = torch.empty_like(x)
    for t, g in hl.tile([rows, groups], block_size=[None, 1]):
        columns = g.begin * per + hl.arange(per)
        gate = z[t, columns].float()
        value = x[t, columns].float() * gate * torch.sigmoid(gate)
        scale = torch.rsqrt(value.pow(2).mean(-1, keepdim=True) + eps)
        out[t, columns] = (value * scale * weight[columns][None, :]).to(out.dtype)
    return out


def gated_rms_norm_reference(x, z, weight, groups, eps):
    value = (x * torch.nn.functional.silu(z)).unflatten(1, (groups, -1))
    return (value * torch.rsqrt(value.pow(2).mean(-1, keepdim=True) + eps)).flatten(1) * weight


def silu_and_mul_quant(x: torch.Tensor, group: hl.constexpr) -> tuple[torch.Tensor, torch.Tensor]:
    rows, n = x.size(0), x.size(1) // 2
    out = torch.empty([rows, n], dtype=torch.int8, device=x.device)
    scales = torch.empty([rows, n // group], dtype=torch.float32, device=x.device)
    for t, c in hl.tile([rows, n], block_size=[None, group]):
        gate, up = x[t, c].float(), x[t, c + n].float()
        y = gate * torch.sigmoid(gate) * up
        scale = torch.clamp(y.abs().amax(-1) / 127.0, min=1e-10)
        out[t, c] = torch.clamp(torch.round(y / scale[:, None]), -127, 127).to(torch.int8)
        scales[t, c.id] = scale
    return out, scales


def silu_and_mul_quant_reference(x, group):
    gate, up = x.chunk(2, 1)
    y = (torch.nn.functional.silu(gate) * up).unflatten(1, (-1, group))
    scales = (y.abs().amax(-1) / 127.0).clamp(min=1e-10)
    return torch.round(y / scales[..., None]).clamp(-127, 127).flatten(1), scales


def align_tokens_to_blocks(experts: torch.Tensor, count: int, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    n = experts.numel()
    count = hl.specialize(count)
    flat = experts.view(-1)
    slots = n + count * (block - 1)
    order = torch.full([slots], n, dtype=torch.int32, device=experts.device)
    ends = torch.empty([count], dtype=torch.int32, device=experts.device)
    for _ in hl.tile(1, block_size=1):
        counts = hl.zeros([count], dtype=torch.int32)
        for t in hl.tile(n):
            here = flat[t][:, None] == hl.arange(count)[None, :]
            counts += here.to(torch.int32).sum(0)
        ends[:] = torch.cumsum((counts + block - 1) // block * block, 0)
    hl.barrier()
    for e in hl.grid(count):
        seen = 0
        if e > 0:
            seen = ends[e - 1]
        for t in hl.tile(n):
            mine = (flat[t] == e).to(torch.int32)
            hl.store(order, [seen + torch.cumsum(mine, 0) - mine], t.index.to(torch.int32), extra_mask=mine != 0)
            seen += mine.sum()
    return order, ends


def align_tokens_to_blocks_reference(experts, count, block):
    flat, n = experts.flatten(), experts.numel()
    order, ends = torch.full([n + count * (block - 1)], n, dtype=torch.int32), torch.empty(count, dtype=torch.int32)
    at = 0
    for e in range(count):
        places = (flat == e).nonzero()[:, 0].int()
        order[at : at + len(places)] = places
        at += helion.cdiv(len(places), block) * block
        ends[e] = at
    return order, ends


def sparsemax(x: torch.Tensor) -> torch.Tensor:
    n = hl.specialize(x.size(1))
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        row = x[t, :] - x[t, :].amax(-1, keepdim=True)
        ordered = torch.sort(row, dim=-1, descending=True).values
        sums = torch.cumsum(ordered, -1)
        k = hl.arange(1, n + 1)[None, :]
        support = (1 + k * ordered > sums).to(torch.int32).sum(-1)
        tau = (torch.where(k == support[:, None], sums, 0.0).sum(-1) - 1) / support
        out[t, :] = torch.clamp(row - tau[:, None], min=0)
    return out


def sparsemax_reference(x):
    ordered = x.sort(-1, descending=True).values
    k = torch.arange(1, x.size(1) + 1)
    support = (1 + k * ordered > ordered.cumsum(-1)).sum(-1, keepdim=True)
    return (x - (ordered.cumsum(-1).gather(1, support - 1) - 1) / support).clamp(min=0)


def inverse_of_unit_lower(a: torch.Tensor) -> torch.Tensor:
    count, n, _ = a.size()
    n = hl.specialize(n)
    out = torch.empty_like(a)
    for i in hl.grid(count):
        places = hl.arange(n)
        strict = torch.where(places[:, None] > places[None, :], a[i, :, :], 0.0)
        inverse = (places[:, None] == places[None, :]).to(a.dtype)
        for row in hl.grid(1, n):
            mine = torch.where((places == row)[:, None], strict, 0.0).sum(0)
            new = (mine[:, None] * inverse).sum(0)
            inverse = torch.where((places == row)[:, None], inverse - new[None, :], inverse)
        out[i, :, :] = inverse
    return out


def dynamic_tanh_backward(
    dy: torch.Tensor, x: torch.Tensor, alpha: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    rows, n = x.size()
    dx = torch.empty_like(x)
    dalpha = torch.zeros([1], device=x.device)
    dweight, dbias = torch.zeros([n], device=x.device), torch.zeros([n], device=x.device)
    for t, c in hl.tile([rows, n]):
        th = torch.tanh(alpha[0] * x[t, c])
        slope = dy[t, c] * weight[c] * (1 - th * th)
        dx[t, c] = slope * alpha[0]
        hl.atomic_add(dalpha, [0], (slope * x[t, c]).sum())
        hl.atomic_add(dweight, [c], (dy[t, c] * th).sum(0))
        hl.atomic_add(dbias, [c], dy[t, c].sum(0))
    return dx, dalpha, dweight, dbias


def dynamic_tanh_backward_reference(dy, x, alpha, weight):
    inputs = [v.detach().requires_grad_() for v in (x, alpha, weight)]
    with torch.enable_grad():
        y = torch.tanh(inputs[1] * inputs[0]) * inputs[2]
        return (*torch.autograd.grad(y, inputs, dy), dy.sum(0))


def block_sparse_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, columns: torch.Tensor, offsets: torch.Tensor, block: hl.constexpr
) -> torch.Tensor:
    length, head = q.size()
    head = hl.specialize(head)
    out = torch.empty_like(q)
    scale = head**-0.5
    for rows in hl.tile(length, block_size=block):
        query = q[rows, :] * scale
        high, total = hl.full([rows], float("-inf")), hl.zeros([rows])
        acc = hl.zeros([rows, head])
        for i in hl.grid(offsets[rows.id], offsets[rows.id + 1]):
            start = columns[i] * block
            keys = start + hl.arange(block)
            inside = keys < k.size(0)
            scores = query @ hl.load(k, [keys, slice(None)], extra_mask=inside[:, None]).T
            scores = torch.where(inside[None, :] & (keys[None, :] <= rows.index[:, None]), scores, float("-inf"))
            grown = torch.maximum(high, scores.amax(1))
            p, shrink = torch.exp(scores - grown[:, None]), torch.exp(high - grown)
            total = total * shrink + p.sum(1)
            acc = hl.dot(p, hl.load(v, [keys, slice(None)], extra_mask=inside[:, None]), acc=acc * shrink[:, None])
            high = grown
        out[rows, :] = acc / total[:, None]
    return out


def block_sparse_attention_reference(q, k, v, columns, offsets, block):
    n = q.size(0)
    seen = torch.zeros(n, n, dtype=torch.bool)
    for row, (begin, end) in enumerate(zip(offsets.tolist(), offsets.tolist()[1:])):
        for column in columns[begin:end].tolist():
            seen[row * block : (row + 1) * block, column * block : (column + 1) * block] = True
    scores = (q @ k.T * q.size(1) ** -0.5).masked_fill(~seen.tril(), float("-inf"))
    return scores.softmax(-1) @ v


def scaled_index_add(x: torch.Tensor, index: torch.Tensor, source: torch.Tensor, scale: torch.Tensor, alpha: float):
    for i, t, c in hl.tile([index.size(0), source.size(1), source.size(2)], block_size=[1, None, None]):
        row = index[i.begin]
        x[row, t, c] = x[row, t, c] + alpha * scale[c] * source[i.begin, t, c]
    return x


def scaled_index_add_reference(x, index, source, scale, alpha):
    return x.index_add_(0, index, source * scale, alpha=alpha)


def quadratic_linear_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    heads, length, width = q.size()
    width, head = hl.specialize((width, v.size(2)))
    out = torch.empty_like(v)
    for h, rows in hl.tile([heads, length], block_size=[1, None]):
        acc, norm = hl.zeros([rows, head]), hl.zeros([rows])
        for c in hl.tile(0, rows.end):
            s = hl.dot(q[h.begin, rows, :], k[h.begin, c, :].T) * width**-0.5
            s = torch.where(rows.index[:, None] >= c.index[None, :], 1 + s + 0.5 * s * s, 0.0)
            acc = hl.dot(s, v[h.begin, c, :], acc=acc)
            norm += s.sum(-1)
        out[h.begin, rows, :] = acc / (norm[:, None] + 1e-6)
    return out


def quadratic_linear_attention_reference(q, k, v):
    s = q @ k.mT * q.size(-1) ** -0.5
    s = (1 + s + 0.5 * s * s).tril()
    return s @ v / (s.sum(-1, keepdim=True) + 1e-6)


def make_block_sparse(rng):
    columns, offsets = torch.tensor([0, 0, 1, 2, 1, 3]), torch.tensor([0, 1, 3, 4, 6])
    return *(randn(rng, 60, 32) for _ in range(3)), columns, offsets, 16


ROWS = {
    "linear_cross_entropy": Published(
        linear_cross_entropy,
        lambda rng: (randn(rng, 20, 24), randn(rng, 45, 24), integers(rng, 0, 45, 20), 15.0),
        linear_cross_entropy_reference,
        "Liger-Kernel",
        64,
    ),
    "gated_rms_norm": Published(
        gated_rms_norm,
        lambda rng: (randn(rng, 7, 48), randn(rng, 7, 48), randn(rng, 48), 3, 1e-5),
        gated_rms_norm_reference,
        "mamba_ssm",
        32,
    ),
    "silu_and_mul_quant": Published(
        silu_and_mul_quant, lambda rng: (randn(rng, 5, 64), 8), silu_and_mul_quant_reference, "SGLang", 32
    ),
    "align_tokens_to_blocks": Published(
        align_tokens_to_blocks,
        lambda rng: (integers(rng, 0, 5, 13, 2), 5, 4),
        align_tokens_to_blocks_reference,
        "vLLM",
    ),
    "sparsemax": Published(sparsemax, lambda rng: (randn(rng, 7, 20),), sparsemax_reference, "Liger-Kernel", 64),
    "inverse_of_unit_lower": Published(
        inverse_of_unit_lower,
        lambda rng: (randn(rng, 3, 16, 16) * 0.3,),
        lambda a: torch.linalg.inv(a.tril(-1) + torch.eye(16, dtype=a.dtype)),
        "flash-linear-attention",
        256,
    ),
    "dynamic_tanh_backward": Published(
        dynamic_tanh_backward,
        lambda rng: (randn(rng, 9, 20), randn(rng, 9, 20), randn(rng, 1), randn(rng, 20)),
        dynamic_tanh_backward_reference,
        "Liger-Kernel",
        128,
    ),
    "block_sparse_attention": Published(
        block_sparse_attention, make_block_sparse, block_sparse_attention_reference, "xformers", 64
    ),
    "scaled_index_add": Published(
        scaled_index_add,
        lambda rng: (randn(rng, 6, 5, 20), torch.tensor([4, 0, 3]), randn(rng, 3, 5, 20), randn(rng, 20), 0.5),
        scaled_index_add_reference,
        "xformers",
        written=(0,),
    ),
    "quadratic_linear_attention": Published(
        quadratic_linear_attention,
        lambda rng: (randn(rng, 2, 37, 16), randn(rng, 2, 37, 16), randn(rng, 2, 37, 24)),
        quadratic_linear_attention_reference,
        "flash-linear-attention",
        128,
    ),
}
