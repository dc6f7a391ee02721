"""Scaled dot-product attention that never stores the matrix of scores.

For each tile of queries the keys and values are visited tile by tile; the softmax is found online, rescaling the
output so far whenever the running maximum grows (Dao et al., "FlashAttention", arXiv:2205.14135).  Exponentials are
taken to base 2, which is one instruction on a GPU: exp(x) = exp2(x * log2(e)).

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
    count = q.size(0) * q.size(1)
    queries = q.reshape(count, m, head)
    keys = k.reshape(count, n, head)
    values = v.reshape(count, n, head)
    out = torch.empty_like(queries)
    scale = 1.0 / math.sqrt(head) * math.log2(math.e)
    for batch, rows in hl.tile([queries.size(0), m]):
        largest = hl.full([batch, rows], float("-inf"), dtype=torch.float32)
        total = hl.zeros([batch, rows], dtype=torch.float32)
        acc = hl.zeros([batch, rows, head], dtype=torch.float32)
        query = queries[batch, rows, :]
        for columns in hl.tile(n):
            scores = torch.bmm(query, keys[batch, columns, :].transpose(1, 2)).to(torch.float32) * scale
            grown = torch.maximum(largest, scores.amax(dim=-1))
            weights = torch.exp2(scores - grown[:, :, None])
            shrink = torch.exp2(largest - grown)
            total = total * shrink + weights.sum(dim=-1)
            acc = torch.baddbmm(acc * shrink[:, :, None], weights.to(v.dtype), values[batch, columns, :])
            largest = grown
        out[batch, rows, :] = acc / total[:, :, None]
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
