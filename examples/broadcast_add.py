"""Addition with broadcasting: `torch.broadcast_tensors` in host code gives views with strides of zero.

The kernel then sees two tensors of one shape; an element that is broadcast is read from one address, so no memory
is spent on the expanded tensors.

Run it: python examples/broadcast_add.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def broadcast_add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x + y under PyTorch's broadcasting rules."""
    x, y = torch.broadcast_tensors(x, y)
    out = torch.empty(x.shape, dtype=torch.promote_types(x.dtype, y.dtype), device=x.device)
    for tile in hl.tile(out.size()):
        out[tile] = x[tile] + y[tile]
    return out


def reference(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    return x + y


def make_args(
    m: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """A column [m, 1] and a row [n]."""
    return torch.randn(m, 1, device=device).to(dtype), torch.randn(n, device=device).to(dtype)


def main() -> None:
    x, y = make_args(1024, 2048, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (broadcast_add(x, y) - reference(x, y)).abs().max().item()
    print(f"broadcast_add: {list(x.shape)} + {list(y.shape)}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
