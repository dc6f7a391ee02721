"""Mean of each row's items, where rows have different numbers of items.

The items of row i are rows offsets[i] to offsets[i + 1] of a matrix.  One tile covers several rows at once:
`hl.jagged_tile` runs as far as the longest of them needs, and what lies beyond the end of a row is not read.

Run it: python examples/jagged_mean.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def jagged_mean(values: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Means [rows, n], float32, of values [items, n] with offsets [rows + 1]; rows without items give 0."""
    rows, n = offsets.size(0) - 1, values.size(1)
    out = torch.empty([rows, n], dtype=torch.float32, device=values.device)
    for tile, columns in hl.tile([rows, n]):
        starts = offsets[tile]
        lengths = offsets[tile.index + 1] - starts
        total = hl.zeros([tile, columns], dtype=torch.float32)
        for items in hl.jagged_tile(lengths):
            places = starts[:, None] + items.index[None, :]
            total = total + values[places, columns].to(torch.float32).sum(dim=1)
        out[tile, columns] = total / torch.clamp(lengths, min=1)[:, None]
    return out


def reference(values: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    return torch.segment_reduce(wide, "mean", offsets=offsets, axis=0, initial=0).nan_to_num(0.0)


def make_args(
    rows: int, longest: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values [items, n] and offsets [rows + 1]; a row has up to `longest` items, the first has none."""
    lengths = torch.randint(1, longest + 1, [rows])
    lengths[0] = 0
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return torch.randn(int(offsets[-1]), n, device=device).to(dtype), offsets.to(device)


def main() -> None:
    args = make_args(50, 40, 64, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (jagged_mean(*args) - reference(*args)).abs().max().item()
    print(f"jagged_mean: {args[1].numel() - 1} rows of {list(args[0].shape)}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
