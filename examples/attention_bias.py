"""Attention with a bias added to the scores: relative positions, pair representations, or a mask (-inf where it
forbids).

A row of the bias may forbid every key of a tile, or every key there is: then the running maximum stays -inf, and is
replaced by 0 before it is subtracted, so that no nan arises; a query that sees nothing gets 0.

Run it: python examples/attention_bias.py
"""

from __future__ import annotations

import math

import torch

import helion
import helion.language as hl


@helion.kernel
def attention_bias(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """softmax(q @ k.T / sqrt(head) + bias) @ v.

    q is [batch, heads, m, head], k and v are [batch, heads, n, head], bias is [heads, m, n], the same for every batch.
    """
    _, heads, m, head = q.shape
    head, n = hl.specialize(head), k.size(2)
    assert k.size(3) == v.size(3) == head, "q, k and v have heads of one size"
    queries, keys, values = (t.flatten(0, 1) for t in (q, k, v))
    out = torch.empty_like(queries)
    log2e = math.log2(math.e)
    scale = log2e / math.sqrt(head)
    for one, rows in hl.tile([queries.size(0), m], block_size=[1, None]):
        query = queries[one.begin, rows, :]
        largest = hl.full([rows], float("-inf"), dtype=torch.float32)
        total = hl.zeros([rows], dtype=torch.float32)
        acc = hl.zeros([rows, head], dtype=torch.float32)
        for columns in hl.tile(n):
            added = bias[one.begin % heads, rows, columns].to(torch.float32) * log2e
            scores = hl.dot(query, keys[one.begin, columns, :].t(), out_dtype=torch.float32) * scale + added
            grown = torch.maximum(largest, scores.amax(dim=1))
            base = torch.where(grown == float("-inf"), 0.0, grown)
            weights = torch.exp2(scores - base[:, None])
            shrink = torch.exp2(largest - base)
            total = total * shrink + weights.sum(dim=1)
            acc = hl.dot(weights.to(v.dtype), values[one.begin, columns, :], acc=acc * shrink[:, None])
            largest = grown
        out[one.begin, rows, :] = acc / torch.where(total == 0.0, 1.0, total)[:, None]
    return out.view(q.size())


def reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return torch.where((bias == float("-inf")).all(dim=-1)[None, :, :, None], 0.0, out)


def make_args(
    batch: int, heads: int, m: int, n: int, head: int, dtype: torch.dtype = torch.float16, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """q, k, v and a bias [heads, m, n] that forbids one pair in eight, and everything to the first query."""
    q = torch.randn(batch, heads, m, head, device=device).to(dtype)
    k, v = (torch.randn(batch, heads, n, head, device=device).to(dtype) for _ in range(2))
    bias = torch.randn(heads, m, n, device=device)
    bias[torch.rand(heads, m, n, device=device) < 0.125] = float("-inf")
    bias[:, 0] = float("-inf")
    return q, k, v, bias.to(dtype)


def main() -> None:
    args = make_args(2, 4, 384, 512, 64, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (attention_bias(*args) - reference(*args)).abs().max().item()
    print(f"attention_bias: {list(args[0].shape)}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
