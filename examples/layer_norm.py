"""Layer normalization, forward: rows with their mean taken out, divided by their standard deviation.

    y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias        (Ba, Kiros and Hinton, arXiv:1607.06450)

The kernel also returns mean and 1 / standard deviation of each row, which a backward pass needs.

Run it: python examples/layer_norm.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def layer_norm(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = 1e-5
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Layer norm of the rows of a matrix [m, n] with weight and bias [n].

    Returns:
        y [m, n] of x's dtype; mean [m] and reciprocal standard deviation [m], float32.
    """
    m = x.size(0)
    out = torch.empty_like(x)
    mean = torch.empty([m], dtype=torch.float32, device=x.device)
    rstd = torch.empty([m], dtype=torch.float32, device=x.device)
    for rows in hl.tile(m):
        values = x[rows, :].to(torch.float32)
        center = values.mean(dim=1)
        centered = values - center[:, None]
        scale = torch.rsqrt((centered * centered).mean(dim=1) + eps)
        mean[rows] = center
        rstd[rows] = scale
        out[rows, :] = centered * scale[:, None] * weight[:] + bias[:]
    return out, mean, rstd


def reference(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = 1e-5
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same in PyTorch."""
    out, mean, rstd = torch.native_layer_norm(x, [x.size(1)], weight, bias, eps)
    return out, mean.flatten(), rstd.flatten()


def make_args(
    m: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """A matrix [m, n] (its mean is not 0), weight [n], bias [n] and eps."""
    x = (torch.randn(m, n, device=device) * 2 + 1).to(dtype)
    return x, torch.randn(n, device=device).to(dtype), torch.randn(n, device=device).to(dtype), 1e-5


def main() -> None:
    args = make_args(2048, 1024, device="cuda" if torch.cuda.is_available() else "cpu")
    for name, actual, expected in zip(("y", "mean", "rstd"), layer_norm(*args), reference(*args)):
        print(f"layer_norm: {name} {list(actual.shape)}, largest error {(actual - expected).abs().max().item():.1e}")


if __name__ == "__main__":
    main()
