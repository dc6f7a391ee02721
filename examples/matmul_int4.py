"""Matrix product with 4-bit weights: two weights in a byte, one scale for each group of them along the inner dimension.

    weight[i, j] = (nibble[i, j] - 8) * scale[i // group, j]

The low nibbles hold the first half of the rows of the weight, the high nibbles the second half.  So both halves are
multiplied with a contiguous part of the other operand, and no element has to move between threads.  Weights are read
once, at half a byte each: that is what makes small batches fast.

Run it: python examples/matmul_int4.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def matmul_int4(x: torch.Tensor, packed: torch.Tensor, scale: torch.Tensor, group: hl.constexpr) -> torch.Tensor:
    """x @ weight for x [m, k], packed weights [k / 2, n] (uint8) and scales [k / group, n]; group divides k / 2."""
    m, k = x.shape
    half, n = packed.shape
    assert k == 2 * half, f"{half} rows of packed weights for {k} columns"
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    for rows, columns in hl.tile([m, n]):
        acc = hl.zeros([rows, columns], dtype=torch.float32)
        for inner in hl.tile(half, block_size=group):
            both = packed[inner, columns].to(torch.int32)
            low = ((both & 15) - 8).to(torch.float32) * scale[inner.id, columns][None, :].to(torch.float32)
            high = ((both >> 4) - 8).to(torch.float32) * scale[inner.id + half // group, columns][None, :].to(
                torch.float32
            )
            acc = hl.dot(x[rows, inner], low.to(x.dtype), acc=acc)
            acc = hl.dot(x[rows, inner + half], high.to(x.dtype), acc=acc)
        out[rows, columns] = acc
    return out


def pack(nibbles: torch.Tensor) -> torch.Tensor:
    """Integers 0 to 15 [k, n] as uint8 [k / 2, n]: row i in the low half of a byte, row i + k / 2 in the high one."""
    low, high = nibbles.to(torch.uint8).chunk(2)
    return low | (high << 4)


def reference(x: torch.Tensor, packed: torch.Tensor, scale: torch.Tensor, group: int) -> torch.Tensor:
    """The same in PyTorch."""
    nibbles = torch.cat([packed & 15, packed >> 4])
    weight = (nibbles.to(x.dtype) - 8) * scale.to(x.dtype).repeat_interleave(group, dim=0)
    return x @ weight


def make_args(
    m: int, k: int, n: int, group: int, dtype: torch.dtype = torch.bfloat16, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """x [m, k], random packed weights, scales that make the result's elements about 1."""
    x = (torch.randn(m, k, device=device) / k**0.5).to(dtype)
    packed = pack(torch.randint(0, 16, [k, n], device=device))
    return x, packed, (torch.rand(k // group, n, device=device) * 0.2 + 0.1).to(dtype), group


def main() -> None:
    args = make_args(64, 1024, 512, 64, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (matmul_int4(*args).double() - reference(args[0].double(), *args[1:])).abs().max().item()
    print(f"matmul_int4: {list(args[0].shape)} @ {list(args[1].shape)} bytes, largest error {error:.1e}")


if __name__ == "__main__":
    main()
