"""RMS normalization: each row divided by its root mean square, times a weight per column.

    y = x / sqrt(mean(x**2) + eps) * weight        (Zhang and Sennrich, arXiv:1910.07467)

Computed in float32 whatever the input's dtype, rounded once at the end.

Run it: python examples/rms_norm.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """RMS norm of the rows of a matrix [m, n] with a weight [n]."""
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0)):
        values = x[rows, :].to(torch.float32)
        scale = torch.rsqrt((values * values).mean(dim=1, keepdim=True) + eps)
        out[rows, :] = (values * scale * weight[None, :].to(torch.float32)).to(x.dtype)
    return out


def reference(x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """The same in PyTorch."""
    return torch.nn.functional.rms_norm(x, [x.size(1)], weight, eps)


def make_args(
    m: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """A matrix [m, n], a weight [n] and eps."""
    return torch.randn(m, n, device=device).to(dtype), torch.randn(n, device=device).to(dtype), 1e-5


def main() -> None:
    args = make_args(2048, 1024, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (rms_norm(*args) - reference(*args)).abs().max().item()
    print(f"rms_norm: {list(args[0].shape)}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
