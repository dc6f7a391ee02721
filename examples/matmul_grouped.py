"""Grouped matrix product: groups of rows, of different sizes, each with a matrix of its own.

Group g has the rows offsets[g] to offsets[g + 1] of x.  A program takes one group and one tile of columns, and loops
over the group's rows: the bounds of that loop are loaded from memory.  Nothing is padded, and the group's matrix stays
in the cache.

Run it: python examples/matmul_grouped.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def matmul_grouped(x: torch.Tensor, weight: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """x[offsets[g] : offsets[g + 1]] @ weight[g] for x [rows, k], weight [groups, k, n], offsets [groups + 1]."""
    groups, k, n = weight.shape
    out = torch.empty([x.size(0), n], dtype=x.dtype, device=x.device)
    for group, columns in hl.tile([groups, n], block_size=[1, None]):
        for rows in hl.tile(offsets[group.begin], offsets[group.begin + 1]):
            acc = hl.zeros([rows, columns], dtype=torch.float32)
            for inner in hl.tile(k):
                acc = torch.addmm(acc, x[rows, inner], weight[group.begin, inner, columns])
            out[rows, columns] = acc
    return out


def reference(x: torch.Tensor, weight: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch, one product after another."""
    bounds = offsets.tolist()
    return torch.cat([x[begin:end] @ w for begin, end, w in zip(bounds[:-1], bounds[1:], weight)])


def make_args(
    groups: int, most: int, k: int, n: int, dtype: torch.dtype = torch.bfloat16, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, weight [groups, k, n] and offsets; a group has up to `most` rows, the first has none."""
    sizes = torch.randint(1, most + 1, [groups])
    sizes[0] = 0
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    x = (torch.randn(int(offsets[-1]), k, device=device) / k**0.5).to(dtype)
    return x, torch.randn(groups, k, n, device=device).to(dtype), offsets.to(device)


def main() -> None:
    args = make_args(6, 200, 256, 192, dtype=torch.float16, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (matmul_grouped(*args) - reference(*args)).abs().max().item()
    print(f"matmul_grouped: groups of {args[2].diff().tolist()} rows, largest error {error:.1e}")


if __name__ == "__main__":
    main()
