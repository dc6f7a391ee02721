"""Sums: over the rows of a matrix, over very long rows, and over everything.

* `sum_rows`: one tile holds whole rows.  The config key `reduction_loops` turns the reduction into a loop when rows
  are long.
* `long_sum`: the loop written out.  Partial sums are kept per lane and added up once at the end, which is one
  reduction across threads per row instead of one per tile.
* `sum_all`: every program adds its part to one number with an atomic.

Run it: python examples/reductions.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def sum_rows(x: torch.Tensor) -> torch.Tensor:
    """x.sum(dim=1) of a matrix, in float32 for half precision inputs."""
    out = torch.empty([x.size(0)], dtype=x.dtype, device=x.device)
    for rows in hl.tile(x.size(0)):
        out[rows] = x[rows, :].sum(dim=1)
    return out


@helion.kernel
def long_sum(x: torch.Tensor) -> torch.Tensor:
    """x.sum(dim=1) of a matrix with few, long rows."""
    m, n = x.shape
    out = torch.empty([m], dtype=x.dtype, device=x.device)
    lanes = hl.register_block_size(n)
    for rows in hl.tile(m):
        partial = hl.zeros([rows, lanes], dtype=torch.float32)
        for columns in hl.tile(n, block_size=lanes):
            partial = partial + x[rows, columns]
        out[rows] = partial.sum(dim=1)
    return out


@helion.kernel
def sum_all(x: torch.Tensor) -> torch.Tensor:
    """The sum of a vector as a tensor of one element, float32."""
    out = torch.zeros([1], dtype=torch.float32, device=x.device)
    for tile in hl.tile(x.size(0)):
        hl.atomic_add(out, [0], x[tile].to(torch.float32).sum())
    return out


def reference(x: torch.Tensor) -> torch.Tensor:
    """`sum_rows` and `long_sum` in PyTorch."""
    return x.sum(dim=1)


def reference_all(x: torch.Tensor) -> torch.Tensor:
    """`sum_all` in PyTorch."""
    return x.sum().reshape(1)


def make_args(m: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[torch.Tensor]:
    """A matrix [m, n]."""
    return (torch.randn(m, n, device=device).to(dtype),)


def make_vector(n: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[torch.Tensor]:
    """A vector [n]."""
    return (torch.randn(n, device=device).to(dtype),)


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for kernel, shape in ((sum_rows, (2048, 1000)), (long_sum, (4, 1_000_000))):
        (x,) = make_args(*shape, device=device)
        error = (kernel(x) - reference(x.double())).abs().max().item()
        print(f"{kernel.name}: {list(x.shape)}, largest error {error:.1e}")
    (x,) = make_vector(1_000_000, device=device)
    print(f"sum_all: {list(x.shape)}, error {(sum_all(x) - reference_all(x.double())).abs().max().item():.1e}")


if __name__ == "__main__":
    main()
