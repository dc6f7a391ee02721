"""Causal attention that can be trained: the backward pass of `attention_causal.py`, as a `torch.autograd.Function`.

With weights p = softmax(q k^T / sqrt(head)) and the result o = p v, gradients follow from that of o:

    dv = p^T do        ds = p * (do v^T - rowsum(do * o))        dq = ds k / sqrt(head)        dk = ds^T q / sqrt(head)

Weights are not kept but made again, from one number of each row of the forward pass, the logarithm of the softmax's
total (Dao, "FlashAttention-2", arXiv:2307.08691).  Sums over keys (dq) and over queries (dk, dv) are two loops that do
not need each other: each has programs of its own, in one launch, and nothing is added up in memory.  A head of keys is
shared by several heads of queries; its program goes through all of them.

Run it: python examples/attention_backward.py
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import torch

if __name__ == "__main__":  # `examples` is found from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import helion
import helion.language as hl
from examples.attention_causal import attend
from examples.attention_causal import make_args
from examples.attention_causal import reference


@helion.kernel
def attention_forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention of q [batch, heads, length, head] over k and v [batch, kv_heads, length, head].

    Returns:
        The result, as q; and for each row log2 of the sum of its exponentials [batch, heads, length], float32.
    """
    _, heads, length, head = q.shape
    head = hl.specialize(head)
    shared = heads // k.size(1)
    queries, keys, values = (t.flatten(0, 1) for t in (q, k, v))
    out = torch.empty_like(queries)
    logs = torch.empty(queries.shape[:2], dtype=torch.float32, device=q.device)
    scale = 1.0 / math.sqrt(head) * math.log2(math.e)
    for one, rows in hl.tile([queries.size(0), length], block_size=[1, None]):
        acc, total, largest = attend(queries[one.begin, rows, :], keys, values, one.begin // shared, rows, scale)
        out[one.begin, rows, :] = acc * (1.0 / total)[:, None]
        logs[one.begin, rows] = largest + torch.log2(total)
    return out.view(q.size()), logs.view(q.shape[:3])


@helion.kernel
def row_products(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Sums of a * b over the last dimension, float32, for tensors [batch, heads, length, head]."""
    left, right = a.flatten(0, 2), b.flatten(0, 2)
    out = torch.empty([left.size(0)], dtype=torch.float32, device=a.device)
    for rows in hl.tile(left.size(0)):
        out[rows] = (left[rows, :].to(torch.float32) * right[rows, :].to(torch.float32)).sum(dim=1)
    return out.view(a.shape[:3])


@helion.kernel
def attention_backward(
    grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, logs: torch.Tensor, inner: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k and v.

    Args:
        grad: gradient of the result, [batch, heads, length, head].
        q: as grad; k and v [batch, kv_heads, length, head].
        logs: as `attention_forward` returns them.
        inner: `row_products` of grad and the result.
    """
    _, heads, length, head = q.shape
    head = hl.specialize(head)
    shared = heads // k.size(1)
    queries, keys, values, grads = (t.flatten(0, 1) for t in (q, k, v, grad))
    lse, delta = logs.flatten(0, 1), inner.flatten(0, 1)
    dq, dk, dv = torch.empty_like(queries), torch.empty_like(keys), torch.empty_like(values)
    scale = 1.0 / math.sqrt(head)
    to_log2 = scale * math.log2(math.e)
    for one, rows in hl.tile([queries.size(0), length], block_size=[1, None]):
        source = one.begin // shared
        query, dy = queries[one.begin, rows, :], grads[one.begin, rows, :]
        log, part = lse[one.begin, rows], delta[one.begin, rows]
        acc = hl.zeros([rows, head], dtype=torch.float32)
        for columns in hl.tile(rows.end):
            key = keys[source, columns, :]
            scores = hl.dot(query, key.t(), out_dtype=torch.float32)
            weights = torch.exp2(scores * to_log2 - log[:, None])
            if columns.end > rows.begin:
                weights = torch.where(rows.index[:, None] >= columns.index[None, :], weights, 0.0)
            slopes = hl.dot(dy, values[source, columns, :].t(), out_dtype=torch.float32)
            acc = hl.dot((weights * (slopes - part[:, None])).to(q.dtype), key, acc=acc)
        dq[one.begin, rows, :] = acc * scale
    for one, columns in hl.tile([keys.size(0), length], block_size=[1, None]):
        key, value = keys[one.begin, columns, :], values[one.begin, columns, :]
        of_key = hl.zeros([columns, head], dtype=torch.float32)
        of_value = hl.zeros([columns, head], dtype=torch.float32)
        for i in hl.grid(shared):
            source = one.begin * shared + i
            for rows in hl.tile(columns.begin, length):
                # Turned around, keys by queries: the operands of both sums are then as they are needed.
                query, dy = queries[source, rows, :], grads[source, rows, :]
                scores = hl.dot(key, query.t(), out_dtype=torch.float32)
                weights = torch.exp2(scores * to_log2 - lse[source, rows][None, :])
                if rows.begin < columns.end:
                    weights = torch.where(rows.index[None, :] >= columns.index[:, None], weights, 0.0)
                of_value = hl.dot(weights.to(v.dtype), dy, acc=of_value)
                slopes = hl.dot(value, dy.t(), out_dtype=torch.float32) - delta[source, rows][None, :]
                of_key = hl.dot((weights * slopes).to(k.dtype), query, acc=of_key)
        dk[one.begin, columns, :] = of_key * scale
        dv[one.begin, columns, :] = of_value
    return dq.view(q.size()), dk.view(k.size()), dv.view(v.size())


class CausalAttention(torch.autograd.Function):
    """`CausalAttention.apply(q, k, v)`: as `attention_causal`, with gradients."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out, logs = attention_forward(q, k, v)
        ctx.save_for_backward(q, k, v, out, logs)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        q, k, v, out, logs = ctx.saved_tensors
        grad = grad.contiguous()
        return attention_backward(grad, q, k, v, logs, row_products(grad, out))


def reference_backward(
    grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, logs: torch.Tensor, inner: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """`attention_backward` in PyTorch."""
    inputs = [t.detach().requires_grad_() for t in (q, k, v)]
    with torch.enable_grad():
        return torch.autograd.grad(reference(*inputs), inputs, grad)


def make_backward_args(
    batch: int,
    heads: int,
    kv_heads: int,
    length: int,
    head: int,
    dtype: torch.dtype = torch.float16,
    device: str = "cpu",
) -> tuple[torch.Tensor, ...]:
    """A gradient and q [batch, heads, length, head], k and v [batch, kv_heads, length, head], and what the forward pass
    keeps of each row.
    """
    q, k, v = make_args(batch, heads, kv_heads, length, head, dtype, device)
    grad = torch.randn(q.shape, device=device).to(dtype)
    wide = [t.float() for t in (q, *(t.repeat_interleave(heads // kv_heads, 1) for t in (k, v)))]
    scores = wide[0] @ wide[1].mT / math.sqrt(head)
    scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf"))
    logs = torch.logsumexp(scores, -1) * math.log2(math.e)
    return grad, q, k, v, logs, ((scores.softmax(-1) @ wide[2]) * grad.float()).sum(-1)


def main() -> None:
    args = make_args(2, 8, 2, 256, 64, torch.float32, "cuda" if torch.cuda.is_available() else "cpu")
    inputs = [t.requires_grad_() for t in args]
    grad = torch.randn_like(args[0])
    expected = torch.autograd.grad(reference(*inputs), inputs, grad)
    for name, actual, wanted in zip("qkv", torch.autograd.grad(CausalAttention.apply(*inputs), inputs, grad), expected):
        print(f"attention_backward: d{name} {list(actual.shape)}, largest error {(actual - wanted).abs().max():.1e}")


if __name__ == "__main__":
    main()
