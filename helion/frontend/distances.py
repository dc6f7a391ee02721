"""Rules for torch ops on pairs of vectors, written as broadcasts and reductions, and on the parts of a float."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from .composites import pairs
from .decompositions import rule
from .rearranging import constant_size
from .rearranging import take

_aten = torch.ops.aten


def _norm(difference: torch.Tensor, p: float) -> torch.Tensor:
    """The p-norm over the last dimension."""
    if not isinstance(difference.size(-1), torch.SymInt) and difference.size(-1) == 0:
        return torch.zeros(difference.shape[:-1], dtype=difference.dtype)
    size = torch.abs(difference)
    if p == 0:
        return torch.sum((size != 0).to(difference.dtype), -1)
    if p == math.inf:
        return torch.amax(size, -1)
    if p == 1:
        return torch.sum(size, -1)
    if p == 2:
        return torch.sqrt(torch.sum(size * size, -1))
    return torch.pow(torch.sum(torch.pow(size, p), -1), 1 / p)


@rule(_aten._cdist_forward.default)
def _cdist(a: torch.Tensor, b: torch.Tensor, p: float, compute_mode: int | None = None) -> torch.Tensor:
    return _norm(a.unsqueeze(-2) - b.unsqueeze(-3), p)


# PyTorch makes it from a product of full precision; a kernel's may be TF32, of which nothing is left where the squares
# of two neighbours are subtracted.
@rule(_aten._euclidean_dist.default)
def _euclidean_dist(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _cdist(a, b, 2.0)


@rule(_aten._pdist_forward.default)
def _pdist(x: torch.Tensor, p: float = 2.0) -> torch.Tensor:
    first, second, count = pairs(constant_size(x, 0, "pdist"), False)
    return _norm(take(x, first, 0) - take(x, second, 0), p) if count else torch.zeros([0], dtype=x.dtype)


@rule(_aten._trilinear.default)
def _trilinear(
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    expand_a: Sequence[int],
    expand_b: Sequence[int],
    expand_c: Sequence[int],
    sum_dim: Sequence[int],
    unroll_dim: int = 1,
) -> torch.Tensor:
    product: Any = 1
    for operand, dims in ((a, expand_a), (b, expand_b), (c, expand_c)):
        for d in sorted(dims):
            operand = operand.unsqueeze(d)
        product = operand * product
    return torch.sum(product, list(sum_dim), dtype=product.dtype) if sum_dim else product


@rule(_aten.angle.default)
def _angle(x: torch.Tensor) -> torch.Tensor:
    result = x if x.dtype.is_floating_point else x.to(torch.get_default_dtype())
    turned = torch.where(result < 0, torch.full((), math.pi, dtype=result.dtype), torch.zeros_like(result))
    return torch.where(torch.isnan(result), result, turned)


#: dtype -> integers of its width, bits of the mantissa and of the exponent, bias of one beside a mantissa in [0.5, 1).
_PARTS = {torch.float32: (torch.int32, 23, 8, 126), torch.float64: (torch.int64, 52, 11, 1022)}


@rule(_aten.frexp.Tensor)
def _frexp(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    wide = x if x.dtype is torch.float64 else x.to(torch.float32)
    integers, digits, width, bias = _PARTS[wide.dtype]
    scale = 2.0 ** (digits + 1)
    small = torch.abs(wide) < torch.finfo(wide.dtype).tiny  # has no digit before the point: zero, or subnormal
    bits = torch.where(small, wide * scale, wide).view(integers)
    special = (wide == 0) | torch.isnan(wide) | torch.isinf(wide)
    field = (1 << width) - 1
    exponent = ((bits >> digits) & field) - bias - torch.where(small, digits + 1, 0)
    mantissa = ((bits & ~(field << digits)) | (bias << digits)).view(wide.dtype)
    exponent = torch.where(special, 0, exponent).to(torch.int32)
    return torch.where(special, wide, mantissa).to(x.dtype), exponent
