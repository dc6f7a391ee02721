"""Matrix product with the inner dimension split over programs that add their parts with atomics.

For small results with a long inner dimension: one program per tile of the result would leave most of the GPU idle.
The order in which parts are added is not fixed, so the last bits of the result can differ between runs.

Run it: python examples/matmul_split_k.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def matmul_split_k(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b in float32 for a [m, k] and b [k, n]."""
    m, k = a.shape
    _, n = b.shape
    out = torch.zeros([m, n], dtype=torch.float32, device=a.device)
    part = hl.register_block_size(256, 8192)
    for rows, columns, outer in hl.tile([m, n, k], block_size=[None, None, part]):
        acc = hl.zeros([rows, columns], dtype=torch.float32)
        for inner in hl.tile(outer.begin, outer.end):
            acc = torch.addmm(acc, a[rows, inner], b[inner, columns])
        hl.atomic_add(out, [rows, columns], acc)
    return out


def reference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    return (a @ b).to(torch.promote_types(a.dtype, torch.float32))


def make_args(
    m: int, k: int, n: int, dtype: torch.dtype = torch.float16, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices [m, k] and [k, n], scaled so that the result's elements are near 1."""
    return (torch.randn(m, k, device=device) / k**0.5).to(dtype), torch.randn(k, n, device=device).to(dtype)


def main() -> None:
    a, b = make_args(64, 16384, 64, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (matmul_split_k(a, b) - reference(a.double(), b.double())).abs().max().item()
    print(f"matmul_split_k: {list(a.shape)} @ {list(b.shape)} {a.dtype}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
