"""Kernels that change how numbers are laid out or compared: butterflies, 2:4 sparsity, rotations, distances."""

from __future__ import annotations

import torch

import helion.language as hl

from .table import Published
from .table import integers
from .table import randn


def hadamard(x: torch.Tensor, scale: float) -> torch.Tensor:
    """Each row times Hadamard's matrix, by butterflies."""
    rows = x.size(0)
    n = hl.specialize(x.size(1))
    out = torch.empty_like(x)
    for t in hl.tile(rows):
        v = x[t, :].to(torch.float32)
        step = 1
        while step < n:
            pairs = v.reshape(t, n // (2 * step), 2, step)
            low, high = pairs[:, :, 0, :], pairs[:, :, 1, :]
            v = torch.stack([low + high, low - high], dim=2).reshape(t, n)
            step *= 2
        out[t, :] = (v * scale).to(x.dtype)
    return out


def hadamard_reference(x, scale):
    matrix = torch.ones(1, 1, dtype=x.dtype)
    while matrix.size(0) < x.size(1):
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return x @ matrix * scale


def sparsify_24(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The two largest of every four in a row, and where they stood: two bits each, four groups in an int16."""
    m, n = x.size()
    packed = torch.empty([m, n // 2], dtype=x.dtype, device=x.device)
    places = torch.empty([m, n // 16], dtype=torch.int16, device=x.device)
    fours = x.view(m, n // 16, 4, 4)
    halves = packed.view(m, n // 16, 4, 2)
    for rows, words in hl.tile([m, n // 16]):
        group = fours[rows, words, :, :]
        size = group.abs()
        lane = hl.arange(4)
        ahead = (size[:, :, :, None, :] > size[:, :, :, :, None]) | (
            (size[:, :, :, None, :] == size[:, :, :, :, None]) & (lane[None, :] < lane[:, None])
        )
        kept = ahead.to(torch.int32).sum(-1) < 2
        first = torch.argmax(kept.to(torch.int32), dim=-1)
        second = 3 - torch.argmax(kept.flip(-1).to(torch.int32), dim=-1)
        both = torch.stack([first, second], dim=-1)
        halves[rows, words, :, :] = torch.gather(group, 3, both)
        bits = first | (second << 2)
        places[rows, words] = (bits << (4 * lane)).sum(-1).to(torch.int16)
    return packed, places


def sparsify_24_reference(x):
    fours = x.view(x.size(0), -1, 4)
    both = fours.abs().topk(2, dim=-1).indices.sort(-1).values
    bits = (both[..., 0] | (both[..., 1] << 2)).view(x.size(0), -1, 4)
    words = (bits << (4 * torch.arange(4))).sum(-1).to(torch.int16)
    return fours.gather(2, both).reshape(x.size(0), -1), words


def rotate_pairs(q: torch.Tensor, k: torch.Tensor, freqs: torch.Tensor, backward: bool) -> None:
    """Pairs of neighbours as complex numbers, times those of their positions; the gradient is the other way round."""
    batch, length, _, width = q.size()
    cos_sin = torch.view_as_real(freqs)
    pairs = [x.view(batch * length, x.size(2), width // 2, 2) for x in (q, k)]
    for t in hl.tile(batch * length):
        position = t.index % length
        cos, sin = cos_sin[position, :, 0][:, None, :], cos_sin[position, :, 1][:, None, :]
        if backward:
            sin = -sin
        for x in pairs:
            real, imag = x[t, :, :, 0], x[t, :, :, 1]
            x[t, :, :, 0] = real * cos - imag * sin
            x[t, :, :, 1] = real * sin + imag * cos


def rotate_pairs_reference(q, k, freqs, backward):
    turn = freqs.conj() if backward else freqs
    for x in (q, k):
        rotated = torch.view_as_complex(x.view(*x.shape[:-1], -1, 2).contiguous()) * turn[None, :, None, :]
        x.copy_(torch.view_as_real(rotated).flatten(-2))


def make_pairs(rng):
    angles = randn(rng, 7, 4)
    return randn(rng, 2, 7, 3, 8), randn(rng, 2, 7, 1, 8), torch.polar(torch.ones_like(angles), angles), True


def total_variation(
    p: torch.Tensor, q: torch.Tensor, labels: torch.Tensor, ignored: int, reduction: hl.constexpr
) -> tuple[torch.Tensor, torch.Tensor]:
    """Half of the sum of |p - q| in each row, and the gradient of p; rows with an ignored label count 0."""
    rows, width = p.size()
    out = torch.empty_like(p) if reduction == "none" else p.new_zeros([rows])
    grad = torch.empty_like(p)
    counted = int((labels != ignored).sum())
    match reduction:
        case "mean":
            weight = 1.0 / max(counted * width, 1)
        case "batchmean":
            weight = 1.0 / max(counted, 1)
        case _:
            weight = 1.0
    for t in hl.tile(rows):
        taken = (labels[t] != ignored)[:, None]
        total = hl.zeros([t])
        for columns in hl.tile(width):
            difference = p[t, columns] - q[t, columns]
            half = torch.where(taken, 0.5 * weight * difference.abs(), 0.0)
            grad[t, columns] = torch.where(taken, torch.where(difference > 0, 0.5, -0.5) * weight, 0.0)
            if reduction == "none":
                out[t, columns] = half
            else:
                total += half.sum(-1)
        if reduction != "none":
            out[t] = total
    return out, grad


def total_variation_reference(p, q, labels, ignored, reduction):
    taken = (labels != ignored)[:, None]
    weight = {"mean": 1 / (taken.sum().item() * p.size(1)), "batchmean": 1 / taken.sum().item()}.get(reduction, 1.0)
    half = (p - q).abs() / 2 * weight * taken
    grad = torch.where(p > q, 0.5, -0.5) * weight * taken
    return (half if reduction == "none" else half.sum(-1)), grad.to(p.dtype)


def make_distributions(rng):
    labels = integers(rng, 0, 5, 9)
    labels[2] = -100
    return randn(rng, 9, 50).softmax(-1), randn(rng, 9, 50).softmax(-1), labels, -100, "batchmean"


ROWS = {
    "hadamard": Published(hadamard, lambda rng: (randn(rng, 9, 64), 0.125), hadamard_reference, "Dao-AILab", 64),
    "sparsify_24": Published(sparsify_24, lambda rng: (randn(rng, 6, 48),), sparsify_24_reference, "xFormers"),
    "rotate_pairs": Published(rotate_pairs, make_pairs, rotate_pairs_reference, "Liger-Kernel", written=(0, 1)),
    "total_variation": Published(total_variation, make_distributions, total_variation_reference, "Liger-Kernel", 64),
}
