"""Softmax over rows, three ways.

* `softmax`: a whole row is one tile.  Simplest, and fastest while a row fits into registers.
* `softmax_looped`: the row is read in tiles, three times: maximum, sum, result.
* `softmax_online`: two passes.  Maximum and sum are found together: whenever the running maximum grows, the sum
  so far is rescaled (Milakov and Gimelshein, "Online normalizer calculation for softmax", arXiv:1805.02867).

Run it: python examples/softmax.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def softmax(x: torch.Tensor) -> torch.Tensor:
    """softmax(x, dim=1) of a matrix."""
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0)):
        out[rows, :] = torch.softmax(x[rows, :], dim=1)
    return out


@helion.kernel
def softmax_looped(x: torch.Tensor) -> torch.Tensor:
    """softmax(x, dim=1), a row in tiles, three passes."""
    m, n = x.shape
    out = torch.empty_like(x)
    for rows in hl.tile(m):
        largest = hl.full([rows], float("-inf"), dtype=torch.float32)
        for columns in hl.tile(n):
            largest = torch.maximum(largest, x[rows, columns].to(torch.float32).amax(dim=1))
        total = hl.zeros([rows], dtype=torch.float32)
        for columns in hl.tile(n):
            total = total + torch.exp(x[rows, columns] - largest[:, None]).sum(dim=1)
        for columns in hl.tile(n):
            out[rows, columns] = torch.exp(x[rows, columns] - largest[:, None]) / total[:, None]
    return out


@helion.kernel
def softmax_online(x: torch.Tensor) -> torch.Tensor:
    """softmax(x, dim=1), a row in tiles, two passes."""
    m, n = x.shape
    out = torch.empty_like(x)
    for rows in hl.tile(m):
        largest = hl.full([rows], float("-inf"), dtype=torch.float32)
        total = hl.zeros([rows], dtype=torch.float32)
        for columns in hl.tile(n):
            values = x[rows, columns].to(torch.float32)
            grown = torch.maximum(largest, values.amax(dim=1))
            total = total * torch.exp(largest - grown) + torch.exp(values - grown[:, None]).sum(dim=1)
            largest = grown
        for columns in hl.tile(n):
            out[rows, columns] = torch.exp(x[rows, columns] - largest[:, None]) / total[:, None]
    return out


def reference(x: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    return torch.softmax(x, dim=1)


def make_args(m: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[torch.Tensor]:
    """A matrix [m, n]."""
    return (torch.randn(m, n, device=device).to(dtype) * 4,)


def main() -> None:
    (x,) = make_args(1024, 1000, device="cuda" if torch.cuda.is_available() else "cpu")
    for kernel in (softmax, softmax_looped, softmax_online):
        error = (kernel(x) - reference(x)).abs().max().item()
        print(f"{kernel.name}: {list(x.shape)}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
