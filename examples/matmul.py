"""Matrix product, accumulated in float32.

`hl.tile([m, n])` makes one program per tile of the result; the loop over k inside it becomes a loop in the kernel that
feeds the tensor cores.  Which sizes the tiles have, in which order programs visit them and how deep the loop is
pipelined is the config's business, not the kernel's.

Run it: python examples/matmul.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b for a [m, k] and b [k, n] of one dtype."""
    m, k = a.shape
    k2, n = b.shape
    assert k == k2, f"inner sizes differ: {k} and {k2}"
    out = torch.empty([m, n], dtype=a.dtype, device=a.device)
    for rows, columns in hl.tile([m, n]):
        acc = hl.zeros([rows, columns], dtype=torch.float32)
        for inner in hl.tile(k):
            acc = torch.addmm(acc, a[rows, inner], b[inner, columns])
        out[rows, columns] = acc
    return out


def reference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    return a @ b


def make_args(
    m: int, k: int, n: int, dtype: torch.dtype = torch.float16, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices [m, k] and [k, n], scaled so that the result's elements are near 1."""
    return (torch.randn(m, k, device=device) / k**0.5).to(dtype), torch.randn(k, n, device=device).to(dtype)


def main() -> None:
    a, b = make_args(512, 768, 384, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (matmul(a, b) - reference(a, b)).abs().max().item()
    print(f"matmul: {list(a.shape)} @ {list(b.shape)} {a.dtype}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
