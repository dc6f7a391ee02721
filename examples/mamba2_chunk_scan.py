"""Mamba-2, last part: the outputs of a chunk, from the state before it and from the chunk's own steps.

    y[t] = exp(sums[t]) * C[t] . state  +  sum over s <= t of  (C[t] . B[s]) * exp(sums[t] - sums[s]) * dt[s] * x[s]  +
    D * x[t]

sums is the cumulative sum of dt * A within the chunk.  The second term is causal attention without softmax, whose
scores decay (Dao and Gu, "Transformers are SSMs", arXiv:2405.21060, section 6).

Run it: python examples/mamba2_chunk_scan.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def mamba2_chunk_scan(
    x: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    dt: torch.Tensor,
    sums: torch.Tensor,
    states: torch.Tensor,
    d: torch.Tensor,
) -> torch.Tensor:
    """Outputs [batch, length, heads, p], of x's dtype.

    Args:
        x: inputs [batch, length, heads, p].
        b, c: projections [batch, length, groups, n]; heads / groups heads share one.
        dt, sums: step sizes and their decayed cumulative sums [batch, heads, chunks, size], float32.
        states: the state before each chunk [batch, chunks, heads, n, p].
        d: weight of the input itself [heads].
    """
    batch, heads, chunks, size = dt.shape
    p, n = x.size(3), hl.specialize(b.size(3))
    assert c.size(3) == states.size(3) == n, "b, c and the states have one size of state"
    shared = heads // b.size(2)
    out = torch.empty_like(x)
    for one, head, chunk, rows, columns in hl.tile([batch, heads, chunks, size, p], block_size=[1, 1, 1, None, None]):
        i, h, k = one.begin, head.begin, chunk.begin
        begin = k * size
        reading = c[i, begin + rows.index, h // shared, :]
        decayed = sums[i, h, k, rows]
        acc = hl.dot(reading, states[i, k, h, :, columns], out_dtype=torch.float32) * torch.exp(decayed)[:, None]
        for steps in hl.tile(rows.end):
            scores = hl.dot(reading, b[i, begin + steps.index, h // shared, :].t(), out_dtype=torch.float32)
            causal = rows.index[:, None] >= steps.index[None, :]
            gap = torch.where(causal, decayed[:, None] - sums[i, h, k, steps][None, :], float("-inf"))
            weights = scores * torch.exp(gap) * dt[i, h, k, steps][None, :]
            acc = hl.dot(weights.to(x.dtype), x[i, begin + steps.index, h, columns], acc=acc)
        skip = x[i, begin + rows.index, h, columns].to(torch.float32) * d[h].to(torch.float32)
        out[i, begin + rows.index, h, columns] = acc + skip
    return out


def reference(
    x: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    dt: torch.Tensor,
    sums: torch.Tensor,
    states: torch.Tensor,
    d: torch.Tensor,
) -> torch.Tensor:
    """The same in PyTorch."""
    batch, heads, chunks, size = dt.shape
    wide = torch.promote_types(x.dtype, torch.float32)
    inputs = x.to(wide).reshape(batch, chunks, size, heads, -1)
    b, c = (
        t.to(wide).repeat_interleave(heads // t.size(2), dim=2).reshape(batch, chunks, size, heads, -1) for t in (b, c)
    )
    gap = sums[..., :, None] - sums[..., None, :]
    causal = torch.ones(size, size, dtype=torch.bool, device=x.device).tril()
    weights = (
        torch.einsum("bcthn,bcshn->bhcts", c, b) * torch.exp(torch.where(causal, gap, float("-inf"))) * dt[..., None, :]
    )
    inside = torch.einsum("bhcts,bcshp->bcthp", weights.to(wide), inputs)
    before = torch.einsum("bcthn,bchnp,bhct->bcthp", c, states.to(wide), torch.exp(sums).to(wide))
    return (inside + before + inputs * d.to(wide)[:, None]).reshape(x.shape).to(x.dtype)


def make_args(
    batch: int, chunks: int, size: int, heads: int, groups: int, p: int, n: int,
    dtype: torch.dtype = torch.bfloat16, device: str = "cpu",
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """Arguments for a sequence of chunks * size steps."""
    x = torch.randn(batch, chunks * size, heads, p, device=device).to(dtype)
    b, c = ((torch.randn(batch, chunks * size, groups, n, device=device) / n**0.5).to(dtype) for _ in range(2))
    dt = torch.rand(batch, heads, chunks, size, device=device) * 0.2
    sums = (dt * -torch.rand(heads, device=device)[None, :, None, None]).cumsum(dim=3)
    states = torch.randn(batch, chunks, heads, n, p, device=device).to(dtype)
    return x, b, c, dt, sums, states, torch.randn(heads, device=device).to(dtype)


def main() -> None:
    args = make_args(1, 4, 64, 4, 1, 64, 32, dtype=torch.float32, device="cuda" if torch.cuda.is_available() else "cpu")
    want = reference(*args)
    error = ((mamba2_chunk_scan(*args) - want).abs().max() / want.abs().max()).item()
    print(f"mamba2_chunk_scan: {list(want.shape)}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
