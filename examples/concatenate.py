"""Concatenation of two matrices along their columns, in one kernel.

A tile of the result may lie in the first matrix, in the second, or across the seam: both are loaded with a mask, and
what is masked is not read from memory.

Run it: python examples/concatenate.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def concatenate(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """torch.cat([x, y], dim=1) for x [m, a] and y [m, b] of one dtype."""
    m, a = x.shape
    out = torch.empty([m, a + y.size(1)], dtype=x.dtype, device=x.device)
    for rows, columns in hl.tile([m, out.size(1)]):
        inside = columns.index < a
        left = hl.load(x, [rows, columns.index], extra_mask=inside[None, :])
        right = hl.load(y, [rows, columns.index - a], extra_mask=~inside[None, :])
        out[rows, columns] = torch.where(inside[None, :], left, right)
    return out


def reference(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    return torch.cat([x, y], dim=1)


def make_args(
    m: int, a: int, b: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices [m, a] and [m, b]."""
    return torch.randn(m, a, device=device).to(dtype), torch.randn(m, b, device=device).to(dtype)


def main() -> None:
    args = make_args(500, 300, 700, device="cuda" if torch.cuda.is_available() else "cpu")
    same = torch.equal(concatenate(*args), reference(*args))
    print(f"concatenate: {list(args[0].shape)} and {list(args[1].shape)}, {'equal' if same else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
