"""Causal attention with grouped query heads: several heads of queries share one head of keys and values.

A query sees the keys up to its own position, so the loop over keys ends where the tile of queries does: half the work
of full attention.  Only where the tiles meet are there keys that some of the queries do not see; scores of the others
need no comparison. The softmax is found online, as in `attention.py`.  Grouped queries: Ainslie et al., "GQA",
arXiv:2305.13245.

Run it: python examples/attention_causal.py
"""

from __future__ import annotations

import math

import torch

import helion
import helion.language as hl


def attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, source: int, rows: hl.Tile, scale: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The softmax of a tile of queries over the keys that they see, in parts.

    Args:
        query: the tile's queries [rows, head].
        keys: of all heads, [heads, length, head]; values likewise.
        source: the head of keys.
        rows: the tile, whose end is that of the keys.
        scale: of the scores, in units of log(2).

    Returns:
        Sums of values, not yet divided by the total; the total; the largest score, scaled.
    """
    largest = hl.full([rows], float("-inf"), dtype=torch.float32)
    total = hl.zeros([rows], dtype=torch.float32)
    acc = hl.zeros([rows, values.size(-1)], dtype=torch.float32)
    for columns in hl.tile(rows.end):
        scores = hl.dot(query, keys[source, columns, :].t(), out_dtype=torch.float32)
        if columns.end > rows.begin:
            scores = torch.where(rows.index[:, None] >= columns.index[None, :], scores, float("-inf"))
        grown = torch.maximum(largest, scores.amax(dim=1) * scale)
        weights = torch.exp2(scores * scale - grown[:, None])
        shrink = torch.exp2(largest - grown)
        total = total * shrink + weights.sum(dim=1)
        acc = hl.dot(weights.to(values.dtype), values[source, columns, :], acc=acc * shrink[:, None])
        largest = grown
    return acc, total, largest


@helion.kernel
def attention_causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Causal attention of q [batch, heads, length, head] over k and v [batch, kv_heads, length, head]."""
    _, heads, length, head = q.shape
    head = hl.specialize(head)
    shared = heads // k.size(1)
    assert k.size(3) == v.size(3) == head, "q, k and v have heads of one size"
    queries, keys, values = (t.flatten(0, 1) for t in (q, k, v))
    out = torch.empty_like(queries)
    scale = 1.0 / math.sqrt(head) * math.log2(math.e)
    for one, rows in hl.tile([queries.size(0), length], block_size=[1, None]):
        acc, total, _ = attend(queries[one.begin, rows, :], keys, values, one.begin // shared, rows, scale)
        out[one.begin, rows, :] = acc * (1.0 / total)[:, None]
    return out.view(q.size())


def reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def make_args(
    batch: int,
    heads: int,
    kv_heads: int,
    length: int,
    head: int,
    dtype: torch.dtype = torch.float16,
    device: str = "cpu",
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q [batch, heads, length, head], k and v [batch, kv_heads, length, head]."""
    q = torch.randn(batch, heads, length, head, device=device).to(dtype)
    k, v = (torch.randn(batch, kv_heads, length, head, device=device).to(dtype) for _ in range(2))
    return q, k, v


def main() -> None:
    args = make_args(2, 8, 2, 512, 64, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (attention_causal(*args) - reference(*args)).abs().max().item()
    print(f"attention_causal: {list(args[0].shape)}, {args[1].size(1)} heads of keys, largest error {error:.1e}")


if __name__ == "__main__":
    main()
