"""Scaled dot-product attention that never stores the matrix of scores.

For each tile of queries the keys and values are visited tile by tile; the softmax is found online, rescaling the
output so far whenever the running maximum grows (Dao et al., "FlashAttention", arXiv:2205.14135).  Exponentials are
taken to base 2, which is one instruction on a GPU: exp(x) = exp2(x * log2(e)).  Scores are scaled where the maximum is
subtracted, which is one instruction too, a fused multiply-add.

One program takes one head of one batch: a tile of block size 1, whose `begin` is an index, so that all values are
matrices.

Run it: python examples/attention.py
"""

from __future__ import annotations

import math

import torch

import helion
import helion.language as hl


@helion.kernel
def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q @ k.T / sqrt(head)) @ v for q [batch, heads, m, head] and k, v [batch, heads, n, head]."""
    m = q.size(-2)
    n = k.size(-2)
    head = hl.specialize(q.size(-1))
    assert k.size(3) == v.size(3) == head, "q, k and v have heads of one size"
    queries, keys, values = (t.flatten(0, 1) for t in (q, k, v))
    out = torch.empty_like(queries)
    scale = 1.0 / math.sqrt(head) * math.log2(math.e)
    for one, rows in hl.tile([queries.size(0), m], block_size=[1, None]):
        query = queries[one.begin, rows, :]
        largest = hl.full([rows], float("-inf"), dtype=torch.float32)
        total = hl.zeros([rows], dtype=torch.float32)
        acc = hl.zeros([rows, head], dtype=torch.float32)
        for columns in hl.tile(n):
            scores = hl.dot(query, keys[one.begin, columns, :].t(), out_dtype=torch.float32)
            grown = torch.maximum(largest, scores.amax(dim=1) * scale)
            weights = torch.exp2(scores * scale - grown[:, None])
            shrink = torch.exp2(largest - grown)
            total = total * shrink + weights.sum(dim=1)
            acc = hl.dot(weights.to(v.dtype), values[one.begin, columns, :], acc=acc * shrink[:, None])
            largest = grown
        out[one.begin, rows, :] = acc * (1.0 / total)[:, None]
    return out.view(q.size())


def reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def make_args(
    batch: int, heads: int, m: int, n: int, head: int, dtype: torch.dtype = torch.float16, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q [batch, heads, m, head] and k, v [batch, heads, n, head]."""
    q = torch.randn(batch, heads, m, head, device=device).to(dtype)
    k, v = (torch.randn(batch, heads, n, head, device=device).to(dtype) for _ in range(2))
    return q, k, v


def main() -> None:
    args = make_args(2, 4, 512, 512, 64, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (attention(*args) - reference(*args)).abs().max().item()
    print(f"attention: {list(args[0].shape)} {args[0].dtype}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
