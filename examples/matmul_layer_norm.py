"""Matrix product, bias and layer normalization of the result's rows, in one kernel.

A program computes whole rows, so that mean and variance are at hand before anything is written.  That suits results of
up to about a thousand columns; wider rows do not fit into a program's registers.

Run it: python examples/matmul_layer_norm.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def matmul_layer_norm(
    x: torch.Tensor, y: torch.Tensor, bias: torch.Tensor, weight: torch.Tensor, shift: torch.Tensor, eps: float = 1e-5
) -> torch.Tensor:
    """layer_norm(x @ y + bias) * weight + shift for x [m, k], y [k, n], and bias, weight and shift [n]."""
    m, k = x.shape
    n = hl.specialize(y.size(1))
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    for rows in hl.tile(m):
        acc = hl.zeros([rows, n], dtype=torch.float32)
        for inner in hl.tile(k):
            acc = torch.addmm(acc, x[rows, inner], y[inner, :])
        row = acc + bias[:].to(torch.float32)
        variance, mean = torch.var_mean(row, dim=1, keepdim=True, correction=0)
        normalized = (row - mean) * torch.rsqrt(variance + eps)
        out[rows, :] = normalized * weight[:].to(torch.float32) + shift[:].to(torch.float32)
    return out


def reference(
    x: torch.Tensor, y: torch.Tensor, bias: torch.Tensor, weight: torch.Tensor, shift: torch.Tensor, eps: float = 1e-5
) -> torch.Tensor:
    """The same in PyTorch."""
    return torch.nn.functional.layer_norm(x @ y + bias, [y.size(1)], weight, shift, eps)


def make_args(
    m: int, k: int, n: int, dtype: torch.dtype = torch.bfloat16, device: str = "cpu"
) -> tuple[torch.Tensor, ...]:
    """x [m, k], y [k, n], bias, weight and shift [n]."""
    x = (torch.randn(m, k, device=device) / k**0.5).to(dtype)
    bias, weight, shift = (torch.randn(n, device=device).to(dtype) for _ in range(3))
    return x, torch.randn(k, n, device=device).to(dtype), bias, weight, shift


def main() -> None:
    args = make_args(512, 256, 400, dtype=torch.float32, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (matmul_layer_norm(*args) - reference(*args)).abs().max().item()
    print(f"matmul_layer_norm: {list(args[0].shape)} @ {list(args[1].shape)}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
