"""Attention within sequences of different lengths that lie one after another in memory, without padding.

`offsets[i]` is where sequence i begins.  A program takes one head of one sequence and loops over its tiles: the bounds
of both loops are numbers loaded from memory.

Run it: python examples/attention_jagged.py
"""

from __future__ import annotations

import itertools
import math

import torch

import helion
import helion.language as hl


@helion.kernel
def attention_jagged(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Attention of q, k, v [tokens, heads, head] within each of the sequences that offsets [sequences + 1] bound."""
    heads, head = q.size(1), hl.specialize(q.size(2))
    assert k.size(2) == v.size(2) == head, "q, k and v have heads of one size"
    out = torch.empty_like(q)
    scale = math.log2(math.e) / math.sqrt(head)
    for sequence, h in hl.grid([offsets.size(0) - 1, heads]):
        begin, end = offsets[sequence], offsets[sequence + 1]
        for rows in hl.tile(begin, end):
            query = q[rows, h, :]
            largest = hl.full([rows], float("-inf"), dtype=torch.float32)
            total = hl.zeros([rows], dtype=torch.float32)
            acc = hl.zeros([rows, head], dtype=torch.float32)
            for columns in hl.tile(begin, end):
                scores = hl.dot(query, k[columns, h, :].t(), out_dtype=torch.float32) * scale
                grown = torch.maximum(largest, scores.amax(dim=1))
                weights = torch.exp2(scores - grown[:, None])
                shrink = torch.exp2(largest - grown)
                total = total * shrink + weights.sum(dim=1)
                acc = hl.dot(weights.to(v.dtype), v[columns, h, :], acc=acc * shrink[:, None])
                largest = grown
            out[rows, h, :] = acc / total[:, None]
    return out


def reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch, one sequence after another."""
    out = torch.empty_like(q)
    bounds = offsets.tolist()
    for begin, end in itertools.pairwise(bounds):
        part = (t[begin:end].transpose(0, 1)[None] for t in (q, k, v))
        out[begin:end] = torch.nn.functional.scaled_dot_product_attention(*part)[0].transpose(0, 1)
    return out


def make_args(
    sequences: int, longest: int, heads: int, head: int, dtype: torch.dtype = torch.float16, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """q, k, v [tokens, heads, head] and offsets [sequences + 1]; lengths are random up to `longest`, the first is 0."""
    lengths = torch.randint(1, longest + 1, [sequences])
    lengths[0] = 0
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    q, k, v = (torch.randn(int(offsets[-1]), heads, head, device=device).to(dtype) for _ in range(3))
    return q, k, v, offsets.to(device)


def main() -> None:
    args = make_args(6, 300, 4, 64, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (attention_jagged(*args) - reference(*args)).abs().max().item()
    print(f"attention_jagged: {args[3].diff().tolist()} tokens, largest error {error:.1e}")


if __name__ == "__main__":
    main()
