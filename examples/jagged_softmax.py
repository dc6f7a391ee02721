"""Softmax within rows of different lengths that lie one after another in memory.

The columns of row i are elements offsets[i] to offsets[i + 1].  The first loop finds maximum and sum together, as in
`softmax.py`; elements beyond the end of a row read as 0, so for the maximum they are replaced by -inf.

Run it: python examples/jagged_softmax.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def jagged_softmax(values: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """The softmax of each of the rows that offsets [rows + 1] bound in a vector."""
    out = torch.empty_like(values)
    for rows in hl.tile(offsets.size(0) - 1):
        starts = offsets[rows]
        lengths = offsets[rows.index + 1] - starts
        largest = hl.full([rows], float("-inf"), dtype=torch.float32)
        total = hl.zeros([rows], dtype=torch.float32)
        for columns in hl.jagged_tile(lengths):
            elements = values[starts[:, None] + columns.index[None, :]].to(torch.float32)
            grown = torch.maximum(largest, elements.amax(dim=1))
            base = torch.where(grown == float("-inf"), 0.0, grown)
            total = total * torch.exp(largest - base) + torch.exp(elements - base[:, None]).sum(dim=1)
            largest = grown
        for columns in hl.jagged_tile(lengths):
            places = starts[:, None] + columns.index[None, :]
            out[places] = torch.exp(values[places].to(torch.float32) - largest[:, None]) / total[:, None]
    return out


def reference(values: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch, one row after another."""
    return torch.cat([torch.softmax(part, dim=0) for part in values.tensor_split(offsets.cpu()[1:-1])])


def make_args(
    rows: int, longest: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """A vector and offsets [rows + 1]; a row has up to `longest` elements, the first has none."""
    lengths = torch.randint(1, longest + 1, [rows])
    lengths[0] = 0
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return (torch.randn(int(offsets[-1]), device=device) * 3).to(dtype), offsets.to(device)


def main() -> None:
    args = make_args(60, 300, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (jagged_softmax(*args) - reference(*args)).abs().max().item()
    print(f"jagged_softmax: {args[1].numel() - 1} rows, {args[0].numel()} elements, largest error {error:.1e}")


if __name__ == "__main__":
    main()
