"""Attention within sequences of different lengths that lie one after another in memory, without padding.

`offsets[i]` is where sequence i begins.  A program takes some rows of one head of one sequence and loops over all its
tokens: the bounds are numbers loaded from memory.  There are programs for as many rows as the longest sequence has;
where a sequence has fewer, they end at once.  (Programs that went over all rows of a sequence would take as long as it
is, twice the time in all, while the others wait for the longest.)

Run it: python examples/attention_jagged.py
"""

from __future__ import annotations

import itertools
import math

import torch

import helion
import helion.language as hl


@helion.kernel
def attention_jagged(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, offsets: torch.Tensor, longest: int
) -> torch.Tensor:
    """Attention of q, k, v [tokens, heads, head] within each of the sequences that offsets [sequences + 1] bound, none
    of which has more than `longest` tokens.
    """
    heads, head = q.size(1), hl.specialize(q.size(2))
    assert k.size(2) == v.size(2) == head, "q, k and v have heads of one size"
    out = torch.empty_like(q)
    scale = math.log2(math.e) / math.sqrt(head)
    for sequence, h, tile in hl.tile([offsets.size(0) - 1, heads, longest], block_size=[1, 1, None]):
        begin, end = offsets[sequence.begin], offsets[sequence.begin + 1]
        if begin + tile.begin < end:
            rows = begin + tile.index
            inside = (rows < end)[:, None]
            query = hl.load(q, [rows, h.begin, slice(None)], extra_mask=inside)
            largest = hl.full([tile], float("-inf"), dtype=torch.float32)
            total = hl.zeros([tile], dtype=torch.float32)
            acc = hl.zeros([tile, head], dtype=torch.float32)
            for columns in hl.tile(begin, end):
                scores = hl.dot(query, k[columns, h.begin, :].t(), out_dtype=torch.float32) * scale
                grown = torch.maximum(largest, scores.amax(dim=1))
                weights = torch.exp2(scores - grown[:, None])
                shrink = torch.exp2(largest - grown)
                total = total * shrink + weights.sum(dim=1)
                acc = hl.dot(weights.to(v.dtype), v[columns, h.begin, :], acc=acc * shrink[:, None])
                largest = grown
            hl.store(out, [rows, h.begin, slice(None)], acc / total[:, None], extra_mask=inside)
    return out


def reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, offsets: torch.Tensor, longest: int) -> torch.Tensor:
    """The same in PyTorch, one sequence after another."""
    out = torch.empty_like(q)
    bounds = offsets.tolist()
    for begin, end in itertools.pairwise(bounds):
        part = (t[begin:end].transpose(0, 1)[None] for t in (q, k, v))
        out[begin:end] = torch.nn.functional.scaled_dot_product_attention(*part)[0].transpose(0, 1)
    return out


def make_args(
    sequences: int, longest: int, heads: int, head: int, dtype: torch.dtype = torch.float16, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """q, k, v [tokens, heads, head], offsets [sequences + 1] and `longest`; lengths are random up to that, the first is
    0.
    """
    lengths = torch.randint(1, longest + 1, [sequences])
    lengths[0] = 0
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    q, k, v = (torch.randn(int(offsets[-1]), heads, head, device=device).to(dtype) for _ in range(3))
    return q, k, v, offsets.to(device), longest


def main() -> None:
    args = make_args(6, 300, 4, 64, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (attention_jagged(*args) - reference(*args)).abs().max().item()
    print(f"attention_jagged: {args[3].diff().tolist()} tokens, largest error {error:.1e}")


if __name__ == "__main__":
    main()
