"""Kernels around tables, codes and bits: optimizers in 8 bits, code books, sampling of images, bags of embeddings."""

from __future__ import annotations

import torch

import helion.language as hl

from .table import Published
from .table import integers
from .table import randn


def adam_8bit(
    p: torch.Tensor,
    g: torch.Tensor,
    m: torch.Tensor,
    v: torch.Tensor,
    m_scale: torch.Tensor,
    v_scale: torch.Tensor,
    m_book: torch.Tensor,
    v_book: torch.Tensor,
    lr: float,
    step: int,
    betas: tuple[float, float] = (0.9, 0.999),
    block: int = 16,
) -> None:
    beta1, beta2 = betas
    correction1, correction2 = 1 - beta1**step, 1 - beta2**step
    for t in hl.tile(p.numel(), block_size=block):
        grad = g[t].to(torch.float32)
        first = m_book[m[t].to(torch.int32)] * m_scale[t.id]
        second = v_book[v[t].to(torch.int32)] * v_scale[t.id]
        first = beta1 * first + (1 - beta1) * grad
        second = beta2 * second + (1 - beta2) * grad * grad
        p[t] -= lr * (first / correction1) / (torch.sqrt(second / correction2) + 1e-8)
        for codes, scales, book, value in ((m, m_scale, m_book, first), (v, v_scale, v_book, second)):
            scale = value.abs().amax()
            scales[t.id] = scale
            codes[t] = nearest_code(value / scale, book).to(torch.uint8)


def nearest_code(value, book):
    """The place of the nearest entry of a sorted book, by bisection."""
    low = torch.zeros_like(value, dtype=torch.int32)
    high = torch.full_like(low, book.size(0) - 1)
    for _ in range(book.size(0).bit_length()):
        middle = (low + high) // 2
        above = book[middle] < value
        low = torch.where(above, torch.minimum(middle + 1, high), low)
        high = torch.where(above, high, middle)
    before = torch.clamp(low - 1, min=0)
    return torch.where((value - book[before]).abs() <= (book[low] - value).abs(), before, low)


def adam_8bit_reference(p, g, m, v, m_scale, v_scale, m_book, v_book, lr, step):
    spread = torch.arange(p.numel()) // 16
    first = 0.9 * m_book[m.long()] * m_scale[spread] + 0.1 * g
    second = 0.999 * v_book[v.long()] * v_scale[spread] + 0.001 * g * g
    p -= lr * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    for codes, scales, book, value in ((m, m_scale, m_book, first), (v, v_scale, v_book, second)):
        for i in range(scales.numel()):
            part = value[spread == i]
            scales[i] = part.abs().amax()
            codes[spread == i] = (part[:, None] / scales[i] - book).abs().argmin(1).to(codes.dtype)


def make_adam(rng):
    p, g = randn(rng, 50), randn(rng, 50)
    codes = tuple(integers(rng, 0, 256, 50).to(torch.uint8) for _ in range(2))
    scales = tuple(torch.rand(4, generator=rng) for _ in range(2))
    return p, g, *codes, *scales, torch.linspace(-1, 1, 256), torch.linspace(0, 1, 256) ** 2, 1e-2, 3


NF4 = torch.tensor([-1.0, -0.7, -0.53, -0.39, -0.28, -0.18, -0.09, 0.0, 0.08, 0.16, 0.25, 0.34, 0.44, 0.56, 0.72, 1.0])


def dequantize_nf4(packed: torch.Tensor, scales: torch.Tensor, shape: tuple[int, int], block: int) -> torch.Tensor:
    out = torch.empty(shape, dtype=torch.bfloat16, device=packed.device)
    flat = out.view(-1)
    for t in hl.tile(packed.numel()):
        byte = packed[t].to(torch.int32)
        scale = scales[t.index // (block // 2)]
        high, low = NF4[byte >> 4] * scale, NF4[byte & 0xF] * scale
        flat[2 * t.index] = high.to(torch.bfloat16)
        flat[2 * t.index + 1] = low.to(torch.bfloat16)
    return out


def dequantize_nf4_reference(packed, scales, shape, block):
    codes = torch.stack([packed >> 4, packed & 15], 1).reshape(-1).long()
    values = NF4.double()[codes].reshape(-1, block) * scales[:, None]
    return values.reshape(shape)


def gptq_matmul(
    x: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, group: torch.Tensor
) -> torch.Tensor:
    m, k = x.size()
    n = packed.size(1)
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    block_k = hl.register_block_size(16, k)
    for rows, cols in hl.tile([m, n]):
        acc = hl.zeros([rows, cols], dtype=torch.float32)
        for ks in hl.tile(k, block_size=block_k):
            words = packed[ks.index // 8, cols]
            codes = (words >> ((ks.index % 8) * 4)[:, None]) & 0xF
            groups = group[ks]
            zero = (zeros[groups, cols.index // 8] >> ((cols.index % 8) * 4)[None, :]) & 0xF
            weight = (codes - zero).to(x.dtype) * scales[groups, cols]
            acc = torch.addmm(acc, x[rows, ks], weight)
        out[rows, cols] = acc.to(x.dtype)
    return out


def gptq_matmul_reference(x, packed, scales, zeros, group):
    shifts = torch.arange(8) * 4
    codes = ((packed.long()[:, None] >> shifts[:, None]) & 15).reshape(x.size(1), -1)
    zero = ((zeros.long()[..., None] >> shifts) & 15).reshape(zeros.size(0), -1)
    return x @ ((codes - zero[group]) * scales[group])


def make_gptq(rng):
    words = lambda *size: integers(rng, -(2**31), 2**31, *size).to(torch.int32)  # noqa: E731
    return randn(rng, 9, 64), words(8, 24), randn(rng, 4, 24), words(4, 3), integers(rng, 0, 4, 64)


def stochastic_bf16(x: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x, dtype=torch.bfloat16)
    for t in hl.tile(x.size()):
        pattern = x[t].view(torch.int32)
        pattern = (pattern + (bits[t] & 0xFFFF)) & -65536
        out[t] = pattern.view(torch.float32).to(torch.bfloat16)
    return out


def stochastic_bf16_reference(x, bits):
    pattern = (x.float().view(torch.int32) + (bits & 0xFFFF).int()) & -65536
    return pattern.view(torch.float32).double()


def deformable_sampling(
    value: torch.Tensor, shapes: torch.Tensor, starts: torch.Tensor, places: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    batch, _, heads, width = value.size()
    queries, levels, points = hl.specialize((places.size(1), places.size(3), places.size(4)))
    out = torch.empty([batch, queries, heads, width], dtype=value.dtype, device=value.device)
    for b, h, q in hl.tile([batch, heads, queries], block_size=[1, 1, None]):
        acc = hl.zeros([q, width])
        for level in hl.grid(levels):
            rows, cols, start = shapes[level, 0], shapes[level, 1], starts[level]
            for point in range(points):
                x = places[b.begin, q, h.begin, level, point, 0] * cols - 0.5
                y = places[b.begin, q, h.begin, level, point, 1] * rows - 0.5
                left, top = torch.floor(x).to(torch.int32), torch.floor(y).to(torch.int32)
                sampled = hl.zeros([q, width])
                for dy in range(2):
                    for dx in range(2):
                        row, col = top + dy, left + dx
                        share = (1 - (x - col).abs()) * (1 - (y - row).abs())
                        inside = (row >= 0) & (row < rows) & (col >= 0) & (col < cols)
                        at = start + row * cols + col
                        corner = hl.load(value, [b.begin, at, h.begin, slice(None)], extra_mask=inside[:, None])
                        sampled += corner * share[:, None]
                acc += sampled * weights[b.begin, q, h.begin, level, point][:, None]
        out[b.begin, q, h.begin, :] = acc
    return out


def deformable_sampling_reference(value, shapes, starts, places, weights):
    out = 0
    for level, ((rows, cols), start) in enumerate(zip(shapes.long().tolist(), starts.long().tolist())):
        image = value[:, start : start + rows * cols].permute(0, 2, 3, 1).flatten(0, 1).unflatten(-1, (rows, cols))
        grid = 2 * places[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1
        found = torch.nn.functional.grid_sample(image, grid, align_corners=False)
        share = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)
        out = out + (found * share[:, None]).sum(-1)
    return out.unflatten(0, (value.size(0), -1)).permute(0, 3, 1, 2)


def make_deformable(rng):
    value, places = randn(rng, 2, 26, 2, 8), torch.rand(2, 5, 2, 2, 3, 2, generator=rng) * 1.2 - 0.1
    weights = torch.softmax(randn(rng, 2, 5, 2, 6), -1).reshape(2, 5, 2, 2, 3)
    return value, torch.tensor([[4, 5], [2, 3]]), torch.tensor([0, 20]), places, weights


def embedding_bag(
    table: torch.Tensor, indices: torch.Tensor, offsets: torch.Tensor, weights: torch.Tensor | None, mean: bool
) -> torch.Tensor:
    bags = offsets.size(0) - 1
    out = torch.empty([bags, table.size(1)], dtype=table.dtype, device=table.device)
    for bag, cols in hl.tile([bags, table.size(1)]):
        starts, ends = offsets[bag], offsets[bag.index + 1]
        lengths = ends - starts
        acc = hl.zeros([bag, cols], dtype=torch.float32)
        for j in hl.jagged_tile(lengths):
            at = starts[:, None] + j.index[None, :]
            rows = table[indices[at], cols]
            if weights is not None:
                rows = rows * weights[at][:, :, None]
            acc = acc + rows.sum(1)
        if mean:
            acc = acc / torch.clamp(lengths, min=1)[:, None]
        out[bag, cols] = acc.to(table.dtype)
    return out


def embedding_bag_reference(table, indices, offsets, weights, mean):
    out = torch.zeros(offsets.numel() - 1, table.size(1), dtype=table.dtype)
    for i, (begin, end) in enumerate(zip(offsets.tolist(), offsets.tolist()[1:])):
        out[i] = (table[indices[begin:end]] * weights[begin:end, None]).sum(0)
        out[i] /= max(end - begin, 1) if mean else 1
    return out


def make_bags(rng):
    return randn(rng, 30, 20), integers(rng, 0, 30, 17), torch.tensor([0, 4, 4, 11, 17]), randn(rng, 17), True


def gram_upper(x: torch.Tensor) -> torch.Tensor:
    """`x @ x.T` from half of the tiles: each is stored twice, the second time transposed (Muon's products)."""
    n, k = x.size()
    out = torch.empty([n, n], dtype=x.dtype, device=x.device)
    block = hl.register_block_size(16, 64)
    for rows, cols in hl.tile([n, n], block_size=[block, block]):
        if rows.begin <= cols.begin:
            acc = hl.zeros([rows, cols], dtype=torch.float32)
            for c in hl.tile(k):
                acc = hl.dot(x[rows, c], x[cols, c].T, acc=acc)
            out[rows, cols] = acc
            if rows.begin < cols.begin:
                out[cols, rows] = acc.T
    return out


def grpo_loss(
    logits: torch.Tensor,
    tokens: torch.Tensor,
    old: torch.Tensor | None,
    ref: torch.Tensor | None,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    temperature: float,
    beta: float,
    low: float,
    high: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batch, length, vocabulary = logits.size()
    loss, kl, clipped = (torch.zeros([batch, length], device=logits.device) for _ in range(3))
    for b, t in hl.grid([batch, length]):
        if mask[b, t] == 0:
            continue
        top, total = hl.full([], float("-inf")), hl.zeros([])
        for v in hl.tile(vocabulary):
            part = logits[b, t, v].to(torch.float32) / temperature
            new = torch.maximum(top, part.amax())
            total = total * torch.exp(top - new) + torch.exp(part - new).sum()
            top = new
        logp = logits[b, t, tokens[b, t]] / temperature - (top + torch.log(total))
        ratio = torch.exp(logp - (logp if old is None else old[b, t]))
        bounded = torch.clamp(ratio, 1 - low, 1 + high)
        gain = advantages[b]
        value = -torch.minimum(ratio * gain, bounded * gain)
        if beta != 0.0:
            distance = ref[b, t] - logp
            divergence = torch.exp(distance) - distance - 1
            kl[b, t] = divergence
            value = value + beta * divergence
        loss[b, t] = value
        clipped[b, t] = ((ratio < 1 - low) & (gain < 0)) | ((ratio > 1 + high) & (gain > 0))
    return loss, kl, clipped


def grpo_loss_reference(logits, tokens, old, ref, advantages, mask, temperature, beta, low, high):
    logp = torch.log_softmax(logits / temperature, -1).gather(-1, tokens[..., None])[..., 0]
    ratio, gain = torch.exp(logp - old), advantages[:, None]
    value = -torch.minimum(ratio * gain, ratio.clamp(1 - low, 1 + high) * gain)
    kl = torch.exp(ref - logp) - (ref - logp) - 1
    clipped = ((ratio < 1 - low) & (gain < 0)) | ((ratio > 1 + high) & (gain > 0))
    return (value + beta * kl) * mask, kl * mask, clipped * mask


def make_grpo(rng):
    logits, tokens = randn(rng, 3, 5, 33), integers(rng, 0, 33, 3, 5)
    old, ref = (-4 + 0.3 * randn(rng, 3, 5) for _ in range(2))
    return logits, tokens, old, ref, randn(rng, 3), integers(rng, 0, 2, 3, 5), 0.9, 0.04, 0.2, 0.28


ROWS = {
    "adam_8bit": Published(adam_8bit, make_adam, adam_8bit_reference, "bitsandbytes", 64, written=(0, 2, 3, 4, 5)),
    "dequantize_nf4": Published(
        dequantize_nf4,
        lambda rng: (integers(rng, 0, 256, 48).to(torch.uint8), torch.rand(6, generator=rng), (8, 12), 16),
        dequantize_nf4_reference,
        "bitsandbytes",
    ),
    "gptq_matmul": Published(gptq_matmul, make_gptq, gptq_matmul_reference, "GPTQModel", 256),
    "stochastic_bf16": Published(
        stochastic_bf16,
        lambda rng: (randn(rng, 7, 30), integers(rng, 0, 2**31, 7, 30).to(torch.int32)),
        stochastic_bf16_reference,
        "torchao",
    ),
    "deformable_sampling": Published(
        deformable_sampling, make_deformable, deformable_sampling_reference, "Deformable DETR", 64
    ),
    "embedding_bag": Published(embedding_bag, make_bags, embedding_bag_reference, "FBGEMM", 64),
    "gram_upper": Published(gram_upper, lambda rng: (randn(rng, 40, 24),), lambda x: x @ x.T, "Muon", 128),
    "grpo_loss": Published(grpo_loss, make_grpo, grpo_loss_reference, "Liger-Kernel", 64),
}
