"""Attention whose scores pass through a function of the caller's choice before the softmax.

The function gets a tile of scores, the number of the head, and the positions of queries and keys; it is inlined into
the kernel, and tensors it closes over become arguments.  `alibi` and `sliding_window` below are two such functions.

Run it: python examples/attention_flex.py
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

import helion
import helion.language as hl

#: (scores, head, positions of queries [m, 1], positions of keys [1, n]) -> scores; -inf forbids a pair.
Score = Callable[[torch.Tensor, Any, torch.Tensor, torch.Tensor], torch.Tensor]


@helion.kernel
def attention_flex(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, score: Score) -> torch.Tensor:
    """softmax(score(q @ k.T / sqrt(head))) @ v for q [batch, heads, m, head] and k, v [batch, heads, n, head]."""
    _, heads, m, head = q.shape
    head, n = hl.specialize(head), k.size(2)
    assert k.size(3) == v.size(3) == head, "q, k and v have heads of one size"
    queries, keys, values = (t.flatten(0, 1) for t in (q, k, v))
    out = torch.empty_like(queries)
    scale, log2e = 1.0 / math.sqrt(head), math.log2(math.e)
    for one, rows in hl.tile([queries.size(0), m], block_size=[1, None]):
        query = queries[one.begin, rows, :]
        largest = hl.full([rows], float("-inf"), dtype=torch.float32)
        total = hl.zeros([rows], dtype=torch.float32)
        acc = hl.zeros([rows, head], dtype=torch.float32)
        for columns in hl.tile(n):
            raw = hl.dot(query, keys[one.begin, columns, :].t(), out_dtype=torch.float32) * scale
            scores = score(raw, one.begin % heads, rows.index[:, None], columns.index[None, :]) * log2e
            grown = torch.maximum(largest, scores.amax(dim=1))
            base = torch.where(grown == float("-inf"), 0.0, grown)
            weights = torch.exp2(scores - base[:, None])
            shrink = torch.exp2(largest - base)
            total = total * shrink + weights.sum(dim=1)
            acc = hl.dot(weights.to(v.dtype), values[one.begin, columns, :], acc=acc * shrink[:, None])
            largest = grown
        out[one.begin, rows, :] = acc / torch.where(total == 0.0, 1.0, total)[:, None]
    return out.view(q.size())


def alibi(slopes: torch.Tensor) -> Score:
    """A penalty that grows with the distance, with a slope per head (Press et al., arXiv:2108.12409)."""
    return lambda scores, head, query, key: scores - slopes[head] * (query - key).abs()


def sliding_window(size: int) -> Score:
    """Only the last `size` keys, the query's own included."""
    return lambda scores, head, query, key: torch.where((query >= key) & (query - key < size), scores, float("-inf"))


def reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, score: Score) -> torch.Tensor:
    """The same in PyTorch."""
    scores = q @ k.transpose(2, 3) / math.sqrt(q.size(3))
    positions = torch.arange(q.size(2), device=q.device)[:, None], torch.arange(k.size(2), device=q.device)[None, :]
    for head in range(q.size(1)):
        scores[:, head] = score(scores[:, head], head, *positions)
    return torch.softmax(scores, dim=3) @ v


def make_args(
    batch: int, heads: int, m: int, n: int, head: int, dtype: torch.dtype = torch.float16, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Score]:
    """q [batch, heads, m, head], k and v [batch, heads, n, head], and `alibi` with slopes for the heads."""
    q = torch.randn(batch, heads, m, head, device=device).to(dtype)
    k, v = (torch.randn(batch, heads, n, head, device=device).to(dtype) for _ in range(2))
    slopes = 2.0 ** (-8.0 * torch.arange(1, heads + 1, device=device) / heads)
    return q, k, v, alibi(slopes)


def main() -> None:
    q, k, v, score = make_args(2, 4, 384, 384, 64, device="cuda" if torch.cuda.is_available() else "cpu")
    for name, function in (("alibi", score), ("sliding_window", sliding_window(100))):
        error = (attention_flex(q, k, v, function) - reference(q, k, v, function)).abs().max().item()
        print(f"attention_flex: {list(q.shape)}, {name}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
