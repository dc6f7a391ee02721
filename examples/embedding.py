"""Embedding lookup: rows of a table gathered by index.

`table[ids[rows], columns]` indexes one dimension with a tensor of row numbers and the other with a tile.

Run it: python examples/embedding.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def embedding(ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """table[ids] for ids of any shape and a table [vocabulary, width]; the ids must be in range."""
    flat = ids.reshape(-1)
    width = table.size(1)
    out = torch.empty([flat.size(0), width], dtype=table.dtype, device=table.device)
    for rows, columns in hl.tile([flat.size(0), width]):
        out[rows, columns] = table[flat[rows], columns]
    return out.view(*ids.shape, width)


def reference(ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    return torch.nn.functional.embedding(ids, table)


def make_args(
    batch: int, length: int, vocabulary: int, width: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [batch, length] (int64) and a table [vocabulary, width]."""
    ids = torch.randint(0, vocabulary, [batch, length], device=device)
    return ids, torch.randn(vocabulary, width, device=device).to(dtype)


def main() -> None:
    ids, table = make_args(8, 256, 5000, 512, device="cuda" if torch.cuda.is_available() else "cpu")
    same = torch.equal(embedding(ids, table), reference(ids, table))
    print(f"embedding: {list(ids.shape)} ids into {list(table.shape)}, {'equal' if same else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
