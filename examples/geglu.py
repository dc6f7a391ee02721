"""GeGLU on one packed matrix: the left half of its columns is the gate, the right half the values.

    y = gelu(x[:, :n]) * x[:, n:]        (Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202)

A layer that projects to both halves at once leaves them side by side; `columns + n` is the same tile, n columns to the
right.

Run it: python examples/geglu.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def geglu(x: torch.Tensor) -> torch.Tensor:
    """gelu(left half) * right half, [m, n], of a matrix [m, 2 * n]; gelu in its tanh approximation."""
    m = x.size(0)
    n = x.size(1) // 2
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    for rows, columns in hl.tile([m, n]):
        gate = torch.nn.functional.gelu(x[rows, columns].to(torch.float32), approximate="tanh")
        out[rows, columns] = gate * x[rows, columns + n].to(torch.float32)
    return out


def reference(x: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    gate, value = x.chunk(2, dim=1)
    return torch.nn.functional.gelu(gate, approximate="tanh") * value


def make_args(m: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[torch.Tensor]:
    """A matrix [m, 2 * n]."""
    return (torch.randn(m, 2 * n, device=device).to(dtype),)


def main() -> None:
    (x,) = make_args(1024, 2048, device="cuda" if torch.cuda.is_available() else "cpu")
    print(f"geglu: {list(x.shape)}, largest error {(geglu(x) - reference(x)).abs().max().item():.1e}")


if __name__ == "__main__":
    main()
