"""Sums of runs of rows: segment i of the result is the sum of rows offsets[i] to offsets[i + 1].

That is the readout of a graph network, or the pooling of an embedding bag.  One program sums one segment, for one tile
of columns, in an order that does not depend on the schedule of the others: unlike with atomics, the result is the same
in every run.

Run it: python examples/segment_sum.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def segment_sum(x: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Sums [segments, n], float32, of runs of rows of x [rows, n]; offsets [segments + 1] are ascending."""
    segments, n = offsets.size(0) - 1, x.size(1)
    out = torch.empty([segments, n], dtype=torch.float32, device=x.device)
    for segment, columns in hl.tile([segments, n], block_size=[1, None]):
        total = hl.zeros([columns], dtype=torch.float32)
        for rows in hl.tile(offsets[segment.begin], offsets[segment.begin + 1]):
            total = total + x[rows, columns].to(torch.float32).sum(dim=0)
        out[segment.begin, columns] = total
    return out


def reference(x: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return torch.segment_reduce(wide, "sum", offsets=offsets, axis=0, initial=0)


def make_args(
    segments: int, most: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """x [rows, n] and offsets; a segment has up to `most` rows, the first has none."""
    lengths = torch.randint(1, most + 1, [segments])
    lengths[0] = 0
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return torch.randn(int(offsets[-1]), n, device=device).to(dtype), offsets.to(device)


def main() -> None:
    args = make_args(50, 100, 200, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (segment_sum(*args) - reference(*args)).abs().max().item()
    print(f"segment_sum: {list(args[0].shape)} in {args[1].numel() - 1} segments, largest error {error:.1e}")


if __name__ == "__main__":
    main()
