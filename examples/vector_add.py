"""Elementwise addition of two, eight, sixteen, or any number of tensors.

The smallest kernels there are.  `hl.tile(out.size())` covers a tensor of any rank; each tile becomes one
program on the GPU.  Adding many inputs in one kernel reads each of them once, where PyTorch would write and read an
intermediate result per addition.

Run it: python examples/vector_add.py
"""

from __future__ import annotations

import functools

import torch

import helion
import helion.language as hl


@helion.kernel
def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x + y, for tensors of one shape."""
    out = torch.empty_like(x)
    for tile in hl.tile(out.size()):
        out[tile] = x[tile] + y[tile]
    return out


@helion.kernel
def add_8(
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    d: torch.Tensor,
    e: torch.Tensor,
    f: torch.Tensor,
    g: torch.Tensor,
    h: torch.Tensor,
) -> torch.Tensor:
    """The sum of eight tensors of one shape."""
    out = torch.empty_like(a)
    for tile in hl.tile(out.size()):
        left = (a[tile] + b[tile]) + (c[tile] + d[tile])
        right = (e[tile] + f[tile]) + (g[tile] + h[tile])
        out[tile] = left + right
    return out


@helion.kernel
def add_16(
    x0: torch.Tensor,
    x1: torch.Tensor,
    x2: torch.Tensor,
    x3: torch.Tensor,
    x4: torch.Tensor,
    x5: torch.Tensor,
    x6: torch.Tensor,
    x7: torch.Tensor,
    x8: torch.Tensor,
    x9: torch.Tensor,
    x10: torch.Tensor,
    x11: torch.Tensor,
    x12: torch.Tensor,
    x13: torch.Tensor,
    x14: torch.Tensor,
    x15: torch.Tensor,
) -> torch.Tensor:
    """The sum of sixteen tensors of one shape."""
    out = torch.empty_like(x0)
    for tile in hl.tile(out.size()):
        first = x0[tile] + x1[tile] + x2[tile] + x3[tile]
        second = x4[tile] + x5[tile] + x6[tile] + x7[tile]
        third = x8[tile] + x9[tile] + x10[tile] + x11[tile]
        fourth = x12[tile] + x13[tile] + x14[tile] + x15[tile]
        out[tile] = (first + second) + (third + fourth)
    return out


@helion.kernel
def add_all(tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The sum of a tuple of tensors of one shape; the loop over the tuple is unrolled."""
    out = torch.empty_like(tensors[0])
    for tile in hl.tile(out.size()):
        total = tensors[0][tile]
        for tensor in tensors[1:]:
            total = total + tensor[tile]
        out[tile] = total
    return out


def reference(*tensors: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    return functools.reduce(torch.add, tensors)


def reference_all(tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """`add_all` in PyTorch."""
    return reference(*tensors)


def make_args(count: int, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[torch.Tensor, ...]:
    """`count` tensors [n]."""
    return tuple(torch.randn(n, device=device).to(dtype) for _ in range(count))


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for kernel, count in ((add, 2), (add_8, 8), (add_16, 16)):
        args = make_args(count, 1 << 20, device=device)
        error = (kernel(*args) - reference(*args)).abs().max().item()
        print(f"{kernel.name}: {count} inputs of {1 << 20} elements, largest error {error:.1e}")
    args = make_args(5, 1 << 20, device=device)
    error = (add_all(args) - reference_all(args)).abs().max().item()
    print(f"{add_all.name}: a tuple of {len(args)}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
