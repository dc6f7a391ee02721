"""A row of the table of published kernels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch


@dataclasses.dataclass(frozen=True)
class Published:
    """A kernel and what it computes.

    Attributes:
        kernel: the kernel function.
        make: its arguments, from a seeded generator.
        reference: the same results from the same arguments, in PyTorch; arguments that the kernel writes count.
        source: who publishes such a kernel.
        error: rounding errors of results that are allowed, as `tests.support.check` takes them.
        written: positions of arguments that are compared too.
    """

    kernel: Callable[..., Any]
    make: Callable[[torch.Generator], tuple[Any, ...]]
    reference: Callable[..., Any]
    source: str
    error: float = 16.0
    written: tuple[int, ...] = ()


def randn(rng: torch.Generator, *size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Normal numbers from a generator."""
    return torch.randn(size, generator=rng).to(dtype)


def integers(rng: torch.Generator, low: int, high: int, *size: int) -> torch.Tensor:
    """int64 numbers in [low, high) from a generator."""
    return torch.randint(low, high, size, generator=rng)
