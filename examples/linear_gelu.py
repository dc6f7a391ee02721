"""A linear layer with bias and exact gelu in one kernel on tensor cores, through the CuTe backend.

The weight is [n, k], as `torch.nn.Linear` keeps it, and is read as it lies: its transposed tile is the product's right
operand.

Run it: python examples/linear_gelu.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel(backend="cute")
def linear_gelu(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """gelu(x @ weight.T + bias) for x [m, k], weight [n, k] and bias [n], all bf16 or all fp16."""
    m, k = x.size()
    n = weight.size(0)
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    for rows, columns in hl.tile([m, n]):
        acc = hl.zeros([rows, columns], dtype=torch.float32)
        for inner in hl.tile(k):
            acc = torch.addmm(acc, x[rows, inner], weight[columns, inner].t())
        out[rows, columns] = torch.nn.functional.gelu(acc + bias[columns]).to(x.dtype)
    return out


def reference(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch, in float32."""
    linear = torch.nn.functional.linear(x.float(), weight.float(), bias.float())
    return torch.nn.functional.gelu(linear).to(x.dtype)


def make_args(
    m: int, n: int, k: int, dtype: torch.dtype = torch.bfloat16, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x [m, k], weight [n, k], bias [n]."""
    x = torch.randn(m, k, device=device).to(dtype)
    weight = (torch.randn(n, k, device=device) / k**0.5).to(dtype)
    return x, weight, torch.randn(n, device=device).to(dtype)


def main() -> None:
    args = make_args(512, 384, 256, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (linear_gelu(*args).float() - reference(*args).float()).abs().max().item()
    print(f"linear_gelu: {list(args[0].shape)} x {list(args[1].shape)}: largest error {error:.1e}")


if __name__ == "__main__":
    main()
