"""Batched matrix product: tiles of three dimensions.

Run it: python examples/bmm.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def bmm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b for a [batch, m, k] and b [batch, k, n] of one dtype."""
    batch, m, k = a.shape
    n = b.size(2)
    out = torch.empty([batch, m, n], dtype=a.dtype, device=a.device)
    for batches, rows, columns in hl.tile([batch, m, n]):
        acc = hl.zeros([batches, rows, columns], dtype=torch.float32)
        for inner in hl.tile(k):
            acc = torch.baddbmm(acc, a[batches, rows, inner], b[batches, inner, columns])
        out[batches, rows, columns] = acc
    return out


def reference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    return torch.bmm(a, b)


def make_args(
    batch: int, m: int, k: int, n: int, dtype: torch.dtype = torch.float16, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tensors [batch, m, k] and [batch, k, n], scaled so that the result's elements are near 1."""
    a = torch.randn(batch, m, k, device=device) / k**0.5
    return a.to(dtype), torch.randn(batch, k, n, device=device).to(dtype)


def main() -> None:
    a, b = make_args(8, 256, 128, 192, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (bmm(a, b) - reference(a, b)).abs().max().item()
    print(f"bmm: {list(a.shape)} @ {list(b.shape)} {a.dtype}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
