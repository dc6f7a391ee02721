"""Grouped matrix product: groups of rows, of different sizes, each with a matrix of its own.

Group g has the rows offsets[g] to offsets[g + 1] of x.  A program takes one tile of rows and one of columns; of which
group its rows are it finds from the offsets.  There are programs for as many tiles as there can be, and those behind
the last tile end at once: the host need not know how long the groups are.  (Programs that went over all rows of a group
would wait for the longest one: 372 us instead of 231 on an H100.)

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
    groups = hl.specialize(groups)
    block = hl.register_block_size(16, 128)
    out = torch.empty([x.size(0), n], dtype=x.dtype, device=x.device)
    # The last tile of each group may be partial.
    for slot, columns in hl.tile([helion.cdiv(x.size(0), block) + groups, n], block_size=[1, None]):
        group, first = group_of(offsets, groups, slot.begin, block)
        if group < groups:
            rows = first + hl.arange(block)
            inside = (rows < offsets[group + 1])[:, None]
            acc = hl.zeros([block, columns], dtype=torch.float32)
            for inner in hl.tile(k):
                acc = torch.addmm(acc, hl.load(x, [rows, inner], extra_mask=inside), weight[group, inner, columns])
            hl.store(out, [rows, columns], acc.to(out.dtype), extra_mask=inside)
    return out


def group_of(
    offsets: torch.Tensor, groups: int, slot: int | torch.Tensor, block: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The group that a tile of `block` rows is of, where tiles of all groups are numbered one after another, and the
    tile's first row; for tiles behind the last one the group is `groups`.
    """
    numbers = hl.arange(groups)
    tiles = (offsets[numbers + 1] - offsets[numbers] + block - 1) // block
    before = torch.cumsum(tiles, 0) <= slot
    group = before.to(offsets.dtype).sum()
    return group, offsets[group] + (slot - torch.where(before, tiles, 0).sum()) * block


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
