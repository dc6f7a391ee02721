"""Sums: over the rows of a matrix, over very long rows, and over everything.

* `sum_rows`: one tile holds whole rows.  The config key `reduction_loops` turns the reduction into a loop when rows
  are long.
* `long_sum`: rows are too few to keep a GPU busy, so several programs share one; what they found is added afterwards,
  always in the same order.  In a program's loop sums are kept per lane and added up once at the end, which is one
  reduction across threads instead of one per tile.
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


@helion.kernel(ignore_warnings=[helion.exc.TensorOperationInWrapper])  # the sum of the parts
def long_sum(x: torch.Tensor) -> torch.Tensor:
    """x.sum(dim=1) of a matrix with few, long rows."""
    m, n = x.shape
    part, lanes = hl.register_block_size(1024, 16384), hl.register_block_size(n)
    partial = torch.empty([m, helion.cdiv(n, part)], dtype=torch.float32, device=x.device)
    for rows, outer in hl.tile([m, n], block_size=[None, part]):
        sums = hl.zeros([rows, lanes], dtype=torch.float32)
        for columns in hl.tile(outer.begin, outer.end, block_size=lanes):
            sums = sums + x[rows, columns]
        partial[rows, outer.id] = sums.sum(dim=1)
    return partial.sum(dim=1).to(x.dtype)


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
