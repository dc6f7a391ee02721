"""Rotary position embedding: pairs of features of each query or key, rotated by an angle that grows with the position.

    angle[position, i] = position * base ** (-2 * i / head)        (Su et al., "RoFormer", arXiv:2104.09864)

Feature i is paired with feature i + head / 2.  Cosines and sines are given, as a model computes them once for all
layers.

Run it: python examples/rope.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl


@helion.kernel
def rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x [batch, heads, length, head] rotated; cos and sin are [length, head / 2]."""
    length = x.size(2)
    half = hl.specialize(x.size(3)) // 2
    flat = x.flatten(0, 1)
    out = torch.empty_like(flat)
    for heads, positions in hl.tile([flat.size(0), length]):
        first = flat[heads, positions, :half].to(torch.float32)
        second = flat[heads, positions, half:].to(torch.float32)
        c, s = cos[positions, :].to(torch.float32)[None], sin[positions, :].to(torch.float32)[None]
        out[heads, positions, :half] = first * c - second * s
        out[heads, positions, half:] = second * c + first * s
    return out.view(x.size())


def reference(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def angles(length: int, head: int, base: float = 10_000.0) -> torch.Tensor:
    """Angles [length, head / 2] in float64."""
    frequency = base ** (-torch.arange(0, head, 2, dtype=torch.float64) / head)
    return torch.outer(torch.arange(length, dtype=torch.float64), frequency)


def make_args(
    batch: int, heads: int, length: int, head: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x [batch, heads, length, head], cos and sin [length, head / 2]."""
    angle = angles(length, head).to(device)
    x = torch.randn(batch, heads, length, head, device=device).to(dtype)
    return x, angle.cos().to(dtype), angle.sin().to(dtype)


def main() -> None:
    args = make_args(2, 8, 1024, 64, device="cuda" if torch.cuda.is_available() else "cpu")
    error = (rope(*args) - reference(*args)).abs().max().item()
    print(f"rope: {list(args[0].shape)}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
