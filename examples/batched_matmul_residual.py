"""Batched matrix product plus a residual on tensor cores, through the CuTe backend.

Run it: python examples/batched_matmul_residual.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel(backend="cute")
def batched_matmul_residual(x: torch.Tensor, y: torch.Tensor, residual: torch.Tensor, alpha: float) -> torch.Tensor:
    """alpha * (x @ y) + residual for x [b, m, k], y [b, k, n] and residual [b, m, n], all bf16 or all fp16."""
    b, m, k = x.size()
    n = y.size(-1)
    out = torch.empty([b, m, n], dtype=x.dtype, device=x.device)
    for batch, rows, columns in hl.tile([b, m, n]):
        acc = hl.zeros([batch, rows, columns], dtype=torch.float32)
        for inner in hl.tile(k):
            acc = torch.baddbmm(acc, x[batch, rows, inner], y[batch, inner, columns])
        out[batch, rows, columns] = (acc * alpha + residual[batch, rows, columns]).to(x.dtype)
    return out


def reference(x: torch.Tensor, y: torch.Tensor, residual: torch.Tensor, alpha: float) -> torch.Tensor:
    """The same in PyTorch, in float32."""
    return (alpha * (x.float() @ y.float()) + residual.float()).to(x.dtype)


def make_args(
    b: int, m: int, n: int, k: int, dtype: torch.dtype = torch.bfloat16, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """x [b, m, k], y [b, k, n], residual [b, m, n] and a factor."""
    x = torch.randn(b, m, k, device=device).to(dtype)
    y = torch.randn(b, k, n, device=device).to(dtype)
    return x, y, torch.randn(b, m, n, device=device).to(dtype), k**-0.5


def main() -> None:
    args = make_args(3, 256, 384, 128, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (batched_matmul_residual(*args).float() - reference(*args).float()).abs().max().item()
    print(f"batched_matmul_residual: {list(args[0].shape)} @ {list(args[1].shape)}: largest error {error:.1e}")


if __name__ == "__main__":
    main()
