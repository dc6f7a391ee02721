"""Elementwise exponential: any torch function on tiles is device code.

Half precision inputs are computed in float32 and rounded once at the end, as PyTorch does.

Run it: python examples/exp.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def exp(x: torch.Tensor) -> torch.Tensor:
    """e**x."""
    out = torch.empty_like(x)
    for tile in hl.tile(out.size()):
        out[tile] = torch.exp(x[tile])
    return out


def reference(x: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    return torch.exp(x)


def make_args(m: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[torch.Tensor]:
    """A tensor [m, n]."""
    return (torch.randn(m, n, device=device).to(dtype),)


def main() -> None:
    (x,) = make_args(1024, 1024, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (exp(x) - reference(x)).abs().max().item()
    print(f"exp: {list(x.shape)}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
