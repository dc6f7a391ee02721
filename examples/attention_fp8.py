"""Attention in fp8: queries, keys and values are float8_e4m3fn with one scale per head.

Both products run on fp8 tensor cores and are summed in float32.  The weights of the softmax are at most 1, so they are
multiplied by 256 before they are rounded to fp8, whose numbers end at 448: the small ones keep more bits.  Tensor cores
read both operands of an fp8 product along the inner dimension, so the values come transposed.  Needs compute capability
8.9 or more.

Run it: python examples/attention_fp8.py
"""

from __future__ import annotations

import math

import torch

import helion
import helion.language as hl

_WEIGHT_SCALE = 256.0


@helion.kernel
def attention_fp8(
    q: torch.Tensor,
    k: torch.Tensor,
    vt: torch.Tensor,
    q_scale: torch.Tensor,
    k_scale: torch.Tensor,
    v_scale: torch.Tensor,
) -> torch.Tensor:
    """Attention in bf16 of fp8 q [count, m, head] over k [count, n, head] and vt [count, head, n], scales [count]
    (float32).
    """
    count, m, head = q.shape
    head, n = hl.specialize(head), k.size(1)
    assert k.size(2) == vt.size(1) == head, "q, k and v have heads of one size"
    out = torch.empty([count, m, head], dtype=torch.bfloat16, device=q.device)
    scale = math.log2(math.e) / math.sqrt(head)
    for one, rows in hl.tile([count, m], block_size=[1, None]):
        query = q[one.begin, rows, :]
        factor = q_scale[one.begin] * k_scale[one.begin] * scale
        largest = hl.full([rows], float("-inf"), dtype=torch.float32)
        total = hl.zeros([rows], dtype=torch.float32)
        acc = hl.zeros([rows, head], dtype=torch.float32)
        for columns in hl.tile(n):
            scores = hl.dot(query, k[one.begin, columns, :].t(), out_dtype=torch.float32) * factor
            grown = torch.maximum(largest, scores.amax(dim=1))
            weights = torch.exp2(scores - grown[:, None]) * _WEIGHT_SCALE
            shrink = torch.exp2(largest - grown)
            total = total * shrink + weights.sum(dim=1)
            acc = hl.dot(weights.to(torch.float8_e4m3fn), vt[one.begin, :, columns].t(), acc=acc * shrink[:, None])
            largest = grown
        out[one.begin, rows, :] = (acc / total[:, None] * v_scale[one.begin]).to(torch.bfloat16)
    return out


def reference(
    q: torch.Tensor,
    k: torch.Tensor,
    vt: torch.Tensor,
    q_scale: torch.Tensor,
    k_scale: torch.Tensor,
    v_scale: torch.Tensor,
) -> torch.Tensor:
    """The same in PyTorch, in the scales' precision; weights are not rounded."""
    wide = q_scale.dtype
    q, k, v = (t.to(wide) * s[:, None, None] for t, s in ((q, q_scale), (k, k_scale), (vt.transpose(1, 2), v_scale)))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def quantize(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x [count, ...] in float8_e4m3fn, and the scale of each entry, [count] float32: x is about their product."""
    scale = x.abs().amax(dim=(1, 2)) / torch.finfo(torch.float8_e4m3fn).max
    return (x / scale[:, None, None]).to(torch.float8_e4m3fn), scale


def make_args(
    count: int, m: int, n: int, head: int, dtype: torch.dtype = torch.float8_e4m3fn, device: str = "cpu"
) -> tuple[torch.Tensor, ...]:
    """Quantized q [count, m, head], k [count, n, head], v transposed [count, head, n], and their scales."""
    q, q_scale = quantize(torch.randn(count, m, head, device=device))
    k, k_scale = quantize(torch.randn(count, n, head, device=device))
    vt, v_scale = quantize(torch.randn(count, head, n, device=device))
    return q, k, vt, q_scale, k_scale, v_scale


def main() -> None:
    args = make_args(8, 384, 512, 64, device="cuda" if torch.cuda.is_available() else "cpu")
    want = reference(*args)
    error = ((attention_fp8(*args) - want).abs().max() / want.abs().max()).item()
    print(f"attention_fp8: {list(args[0].shape)}, largest error {error:.1e} of the largest value")


if __name__ == "__main__":
    main()
