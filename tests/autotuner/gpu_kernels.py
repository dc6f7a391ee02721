"""Real kernels for the autotuner's tests, in a file that worker processes can import."""

from __future__ import annotations

from collections.abc import Callable

import torch

import helion
import helion.language as hl


def twice(v: torch.Tensor) -> torch.Tensor:
    return v * 2


@helion.kernel
def double(x: torch.Tensor) -> torch.Tensor:
    """Inlines a helper; its generated source stands by itself."""
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = twice(x[tile])
    return out


@helion.kernel
def row_sum(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0)], dtype=x.dtype, device=x.device)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile, :].sum(-1)
    return out


@helion.kernel
def with_epilogue(x: torch.Tensor, epilogue: Callable[..., torch.Tensor]) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = epilogue(x[tile])
    return out


@helion.kernel
def with_tiled_epilogue(x: torch.Tensor, epilogue: Callable[..., torch.Tensor]) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = epilogue(x[tile], tile)
    return out
