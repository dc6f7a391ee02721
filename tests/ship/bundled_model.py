"""Kernels for bundles, with the calls that are bundled and what PyTorch says to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import helion
import helion.language as hl

FACTOR = 3.0
SMALL = helion.Config(block_sizes=[32])


def scaled(value: torch.Tensor) -> torch.Tensor:
    return value * FACTOR


@helion.kernel(config=SMALL)
def add(x: torch.Tensor, y: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = scaled(x[tile]) + y[tile] * alpha
    return out


@helion.kernel(config=helion.Config(block_sizes=[2]))
def softmax(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile, :] = torch.softmax(x[tile, :], dim=-1)
    return out


@helion.kernel(config=helion.Config(block_sizes=[16, 16, 16]))
def matmul(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    m, k = x.shape
    _, n = y.shape
    out = torch.empty([m, n], dtype=torch.float32, device=x.device)
    for tile_m, tile_n in hl.tile([m, n]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(k):
            acc = torch.addmm(acc, x[tile_m, tile_k], y[tile_k, tile_n])
        out[tile_m, tile_n] = acc
    return out


@helion.kernel(config=SMALL)
def in_place(x: torch.Tensor, by: int) -> None:
    for tile in hl.tile(x.size(0)):
        x[tile] = x[tile] + by


@helion.kernel(config=SMALL)
def halves(xs: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, int]:
    a, b = xs
    n = a.size(0)
    out = torch.zeros([2 * n], dtype=a.dtype, device=a.device)
    low, high = out[:n], out[n:]
    for tile in hl.tile(n):
        low[tile] = a[tile] - b[tile]
        high[tile] = a[tile] + b[tile]
    return low, out, n


@helion.kernel(config=SMALL)
def of_contiguous(x: torch.Tensor) -> torch.Tensor:
    y = x.contiguous().view(-1)
    out = torch.empty_like(y)
    for tile in hl.tile(y.size(0)):
        out[tile] = y[tile] * 2
    return out.to(torch.float64)


@helion.kernel(config=helion.Config(block_sizes=[32], pid_type="persistent_interleaved"))
def persistent(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] + 1
    return out


@helion.kernel(config=helion.Config(block_sizes=[32], pid_type="persistent_interleaved"))
def persistent_add(x: torch.Tensor, y: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    """As `add`."""
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = scaled(x[tile]) + y[tile] * alpha
    return out


@helion.kernel(config=helion.Config(block_sizes=[16, 16], indexing="tensor_descriptor"))
def described(x: torch.Tensor) -> torch.Tensor:
    """Descriptors are made on the device, in scratch memory."""
    out = torch.empty_like(x)
    for rows, columns in hl.tile(x.shape):
        out[rows, columns] = x[rows, columns] + 1
    return out


@helion.kernel(config=SMALL)
def loud(x: torch.Tensor) -> torch.Tensor:
    print("called")
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile]
    return out


def misaligned(n: int) -> torch.Tensor:
    return torch.randn(n + 1)[1:]


Reference = Callable[..., Any]
#: kernel, a function that makes arguments, and the same in PyTorch.
CALLS: list[tuple[helion.Kernel, Callable[[], tuple[Any, ...]], Reference]] = [
    (add, lambda: (torch.randn(100), torch.randn(100), 2.0), lambda x, y, alpha: FACTOR * x + alpha * y),
    (add, lambda: (misaligned(100), torch.randn(100), 2.0), lambda x, y, alpha: FACTOR * x + alpha * y),
    (softmax, lambda: (torch.randn(8, 33),), lambda x: torch.softmax(x, -1)),
    (matmul, lambda: (torch.randn(32, 48).half(), torch.randn(48, 16).half()), lambda x, y: x.float() @ y.float()),
    (halves, lambda: ([torch.randn(50), torch.randn(50)],), lambda xs: (xs[0] - xs[1], None, 50)),
    (of_contiguous, lambda: (torch.randn(8, 6).t(),), lambda x: (x.contiguous().view(-1) * 2).double()),
    (persistent, lambda: (torch.randn(1000),), lambda x: x + 1),
    (described, lambda: (torch.randn(40, 48),), lambda x: x + 1),
]


def examples() -> dict[helion.Kernel, list[tuple[Any, ...]]]:
    """The calls, for `helion.bundle`."""
    found: dict[helion.Kernel, list[tuple[Any, ...]]] = {in_place: [(torch.zeros(64), 5)]}
    for kernel, make, _ in CALLS:
        found.setdefault(kernel, []).append(make())
    return found


def close(result: Any, expected: Any) -> bool:
    """Whether results agree; None is whatever."""
    if isinstance(expected, tuple):
        return type(result) is tuple and all(map(close, result, expected))
    if isinstance(expected, torch.Tensor):
        return result.dtype == expected.dtype and torch.allclose(result, expected, rtol=1e-3, atol=1e-3)
    return expected is None or bool(result == expected)


def check_all() -> None:
    """Every call, several times, on the GPU that is installed."""
    for kernel, make, reference in CALLS:
        for _ in range(3):
            args = make()
            assert close(kernel(*args), reference(*args)), kernel.name
    x = torch.zeros(64)
    for _ in range(3):
        assert in_place(x, 7) is None
    assert torch.equal(x, torch.full((64,), 21.0))
    assert x._version == 3
