"""Mamba-2, first part: what each chunk of a sequence adds to the state, were the state zero before it.

    states[p, n] = sum over t in chunk of  exp(total - sums[t]) * dt[t] * x[t, p] * B[t, n]

sums is the cumulative sum of dt * A within the chunk and total its last element: the decay from step t to the chunk's
end.  It is a product of matrices over the chunk's steps (Dao and Gu, "Transformers are SSMs", arXiv:2405.21060, section
6).  A recurrence over chunks then makes the states that `mamba2_chunk_scan.py` begins with.

Run it: python examples/mamba2_chunk_state.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def mamba2_chunk_state(x: torch.Tensor, b: torch.Tensor, dt: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
    """States [batch, chunks, heads, p, n], float32.

    Args:
        x: inputs [batch, length, heads, p].
        b: input projections [batch, length, groups, n]; heads / groups heads share one.
        dt: step sizes [batch, heads, chunks, size], float32.
        sums: cumulative sums of dt * A within chunks, of the same shape.
    """
    batch, heads, chunks, size = dt.shape
    groups = b.size(2)
    p, n = x.size(3), b.size(3)
    shared = heads // groups
    out = torch.empty([batch, chunks, heads, p, n], dtype=torch.float32, device=x.device)
    for one, head, chunk, rows, columns in hl.tile([batch, heads, chunks, p, n], block_size=[1, 1, 1, None, None]):
        i, h, c = one.begin, head.begin, chunk.begin
        total = sums[i, h, c, size - 1]
        acc = hl.zeros([rows, columns], dtype=torch.float32)
        for steps in hl.tile(size):
            weight = torch.exp(total - sums[i, h, c, steps]) * dt[i, h, c, steps]
            places = c * size + steps.index
            inputs = x[i, places, h, rows].to(torch.float32) * weight[:, None]
            acc = hl.dot(inputs.to(x.dtype).t(), b[i, places, h // shared, columns], acc=acc)
        out[i, c, h, rows, columns] = acc
    return out


def reference(x: torch.Tensor, b: torch.Tensor, dt: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    batch, heads, chunks, size = dt.shape
    wide = torch.promote_types(x.dtype, torch.float32)
    inputs = x.to(wide).reshape(batch, chunks, size, heads, -1)
    projections = b.to(wide).repeat_interleave(heads // b.size(2), dim=2).reshape(batch, chunks, size, heads, -1)
    weight = torch.exp(sums[..., -1:] - sums) * dt
    return torch.einsum("bhct,bcthp,bcthn->bchpn", weight.to(wide), inputs, projections)


def make_args(
    batch: int, chunks: int, size: int, heads: int, groups: int, p: int, n: int,
    dtype: torch.dtype = torch.bfloat16, device: str = "cpu",
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """x, b, dt and its decayed sums, for a sequence of chunks * size steps."""
    x = torch.randn(batch, chunks * size, heads, p, device=device).to(dtype)
    b = torch.randn(batch, chunks * size, groups, n, device=device).to(dtype)
    dt = torch.rand(batch, heads, chunks, size, device=device) * 0.2
    decay = -torch.rand(heads, device=device)[None, :, None, None]
    return x, b, dt, (dt * decay).cumsum(dim=3)


def main() -> None:
    args = make_args(1, 4, 64, 4, 1, 64, 32, dtype=torch.float32, device="cuda" if torch.cuda.is_available() else "cpu")
    want = reference(*args)
    error = ((mamba2_chunk_state(*args) - want).abs().max() / want.abs().max()).item()
    print(f"mamba2_chunk_state: {list(want.shape)}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
