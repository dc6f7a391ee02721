"""A jagged matrix plus a dense one: row i of the result has the jagged elements of row i added to its first columns.

Two inner loops: over the columns that the longest row of the tile has, and over the rest, which is copied.

Run it: python examples/jagged_dense_add.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def jagged_dense_add(values: torch.Tensor, offsets: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    """dense [rows, n] plus the jagged rows that offsets [rows + 1] bound in values; no row is longer than n."""
    rows, n = dense.shape
    out = torch.empty_like(dense)
    for tile in hl.tile(rows):
        starts = offsets[tile]
        lengths = offsets[tile.index + 1] - starts
        longest = lengths.amax()
        for columns in hl.tile(0, longest):
            places = starts[:, None] + columns.index[None, :]
            jagged = hl.load(values, [places], extra_mask=columns.index[None, :] < lengths[:, None])
            out[tile, columns] = dense[tile, columns] + jagged
        for columns in hl.tile(longest, n):
            out[tile, columns] = dense[tile, columns]
    return out


def reference(values: torch.Tensor, offsets: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    lengths = offsets.diff()
    inside = torch.arange(dense.size(1), device=dense.device)[None, :] < lengths[:, None]
    out = dense.clone()
    out[inside] += values
    return out


def make_args(
    rows: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values, offsets [rows + 1] and a dense matrix [rows, n]; the first jagged row is empty, the last full."""
    lengths = torch.randint(0, n + 1, [rows])
    lengths[0], lengths[-1] = 0, n
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    values = torch.randn(int(offsets[-1]), device=device).to(dtype)
    return values, offsets.to(device), torch.randn(rows, n, device=device).to(dtype)


def main() -> None:
    args = make_args(60, 300, device="cuda" if torch.cuda.is_available() else "cpu")
    same = torch.equal(jagged_dense_add(*args), reference(*args))
    print(f"jagged_dense_add: {args[0].numel()} elements and {list(args[2].shape)}, {'equal' if same else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
