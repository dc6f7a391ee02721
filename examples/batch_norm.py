"""Batch normalization in training: columns with their mean taken out, divided by their standard deviation.

    y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias        (Ioffe and Szegedy, arXiv:1502.03167)

Mean and variance are over all rows, so no tile can normalize before every tile has been read once.  Three phases of one
launch, with `hl.barrier()` between them: statistics of blocks of rows, their combination (Chan, Golub and LeVeque,
"Updating formulae and a pairwise algorithm for computing sample variances", 1979), and the normalization.

Run it: python examples/batch_norm.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def batch_norm(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = 1e-5
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Batch norm of the columns of a matrix [m, n] with weight and bias [n].

    Returns:
        y [m, n] of x's dtype; mean [n] and reciprocal standard deviation [n], float32.
    """
    m, n = x.shape
    block = hl.register_block_size(m)
    blocks = helion.cdiv(m, block)
    block_means = torch.empty([blocks, n], dtype=torch.float32, device=x.device)
    block_squares = torch.empty([blocks, n], dtype=torch.float32, device=x.device)
    mean = torch.empty([n], dtype=torch.float32, device=x.device)
    rstd = torch.empty([n], dtype=torch.float32, device=x.device)
    out = torch.empty_like(x)
    for rows, columns in hl.tile([m, n], block_size=[block, None]):
        values = x[rows, columns].to(torch.float32)
        center = values.mean(dim=0)
        centered = values - center[None, :]
        block_means[rows.id, columns] = center
        block_squares[rows.id, columns] = (centered * centered).sum(dim=0)
    hl.barrier()
    for columns in hl.tile(n):
        total = hl.zeros([columns])
        for parts in hl.tile(blocks):
            count = torch.clamp(m - parts.index * block, max=block).to(torch.float32)
            total = total + (block_means[parts, columns] * count[:, None]).sum(dim=0)
        center = total / m
        squares = hl.zeros([columns])
        for parts in hl.tile(blocks):
            count = torch.clamp(m - parts.index * block, max=block).to(torch.float32)
            offset = block_means[parts, columns] - center[None, :]
            squares = squares + (block_squares[parts, columns] + offset * offset * count[:, None]).sum(dim=0)
        mean[columns] = center
        rstd[columns] = torch.rsqrt(squares / m + eps)
    hl.barrier()
    for rows, columns in hl.tile([m, n]):
        normalized = (x[rows, columns].to(torch.float32) - mean[columns][None, :]) * rstd[columns][None, :]
        out[rows, columns] = normalized * weight[columns][None, :] + bias[columns][None, :]
    return out, mean, rstd


def reference(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = 1e-5
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same in PyTorch."""
    return torch.native_batch_norm(x, weight, bias, None, None, True, 0.1, eps)


def make_args(
    m: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """A matrix [m, n] (its mean is not 0), weight [n], bias [n] and eps."""
    x = (torch.randn(m, n, device=device) * 2 + 1).to(dtype)
    return x, torch.randn(n, device=device).to(dtype), torch.randn(n, device=device).to(dtype), 1e-5


def main() -> None:
    args = make_args(4096, 512, device="cuda" if torch.cuda.is_available() else "cpu")
    for name, actual, expected in zip(("y", "mean", "rstd"), batch_norm(*args), reference(*args)):
        print(f"batch_norm: {name} {list(actual.shape)}, largest error {(actual - expected).abs().max().item():.1e}")


if __name__ == "__main__":
    main()
