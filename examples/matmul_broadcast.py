"""A batch of matrices times one matrix: [batch, m, k] @ [k, n].

A tile of block size 1 is one matrix of the batch, and `tile.begin` its number.  x may have any strides: nothing is
copied to make the batch contiguous, as `x.reshape(-1, k) @ weight` would do.

Run it: python examples/matmul_broadcast.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def matmul_broadcast(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x @ weight for x [batch, m, k] and weight [k, n]."""
    batch, m, k = x.shape
    n = weight.size(1)
    out = torch.empty([batch, m, n], dtype=x.dtype, device=x.device)
    for batches, rows, columns in hl.tile([batch, m, n], block_size=[1, None, None]):
        acc = hl.zeros([rows, columns], dtype=torch.float32)
        for inner in hl.tile(k):
            acc = torch.addmm(acc, x[batches.begin, rows, inner], weight[inner, columns])
        out[batches.begin, rows, columns] = acc
    return out


def reference(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    return x @ weight


def make_args(
    batch: int, m: int, k: int, n: int, dtype: torch.dtype = torch.bfloat16, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """x [batch, m, k], with the batch as its second dimension in memory, and weight [k, n]."""
    x = (torch.randn(m, batch, k, device=device) / k**0.5).to(dtype).transpose(0, 1)
    return x, torch.randn(k, n, device=device).to(dtype)


def main() -> None:
    args = make_args(4, 200, 256, 192, dtype=torch.float16, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (matmul_broadcast(*args) - reference(*args)).abs().max().item()
    print(f"matmul_broadcast: {list(args[0].shape)} @ {list(args[1].shape)}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
