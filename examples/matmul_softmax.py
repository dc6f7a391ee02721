"""Matrix product and softmax over the result's rows, in one kernel: a classifier's last layer, or the router of a
mixture of experts.

A program computes whole rows, so the logits never go to memory.

Run it: python examples/matmul_softmax.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def matmul_softmax(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """softmax(x @ y, dim=1) for x [m, k] and y [k, n]."""
    m, k = x.shape
    n = hl.specialize(y.size(1))
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    for rows in hl.tile(m):
        acc = hl.zeros([rows, n], dtype=torch.float32)
        for inner in hl.tile(k):
            acc = torch.addmm(acc, x[rows, inner], y[inner, :])
        out[rows, :] = torch.softmax(acc, dim=1)
    return out


def reference(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    return torch.softmax(x @ y, dim=1)


def make_args(
    m: int, k: int, n: int, dtype: torch.dtype = torch.bfloat16, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices [m, k] and [k, n]."""
    x = (torch.randn(m, k, device=device) / k**0.5).to(dtype)
    return x, torch.randn(k, n, device=device).to(dtype)


def main() -> None:
    args = make_args(512, 256, 100, dtype=torch.float32, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (matmul_softmax(*args) - reference(*args)).abs().max().item()
    print(f"matmul_softmax: {list(args[0].shape)} @ {list(args[1].shape)}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
