"""Matrix product with 16-bit integer weights, exact to the last bit of each weight.

bfloat16 has 8 bits of mantissa, so an int16 does not fit.  Its two bytes do, each by itself: weight = 256 * high + low.
Two products with one shared operand and a sum in float32 lose nothing, which one product with rounded weights would.

Run it: python examples/matmul_int16.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def matmul_int16(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """(x @ weight) * scale in float32 for x [m, k], weight [k, n] (int16) and one scale for each column [n]."""
    m, k = x.shape
    _, n = weight.shape
    out = torch.empty([m, n], dtype=torch.float32, device=x.device)
    for rows, columns in hl.tile([m, n]):
        high_acc = hl.zeros([rows, columns], dtype=torch.float32)
        low_acc = hl.zeros([rows, columns], dtype=torch.float32)
        for inner in hl.tile(k):
            values = x[rows, inner]
            integers = weight[inner, columns].to(torch.int32)
            high_acc = hl.dot(values, (integers >> 8).to(x.dtype), acc=high_acc)
            low_acc = hl.dot(values, (integers & 255).to(x.dtype), acc=low_acc)
        out[rows, columns] = (high_acc * 256.0 + low_acc) * scale[columns][None, :].to(torch.float32)
    return out


def reference(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch, multiplied in float32 or wider."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return (x.to(wide) @ weight.to(wide)) * scale.to(wide)


def make_args(
    m: int, k: int, n: int, dtype: torch.dtype = torch.bfloat16, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x [m, k], weight [k, n] over the whole range of int16, and scales that make the result's elements about 1."""
    x = (torch.randn(m, k, device=device) / k**0.5).to(dtype)
    weight = torch.randint(-(1 << 15), 1 << 15, [k, n], dtype=torch.int16, device=device)
    return x, weight, (torch.rand(n, device=device) + 0.5) / (1 << 14)


def main() -> None:
    args = make_args(256, 1024, 512, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (matmul_int16(*args) - reference(*args)).abs().max().item()
    print(f"matmul_int16: {list(args[0].shape)} @ {list(args[1].shape)}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
