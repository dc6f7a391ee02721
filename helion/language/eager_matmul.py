"""Eager rules of `hl.dot` and `hl.dot_scaled`: wide accumulation, decoding of block-scaled operands."""

from __future__ import annotations

import torch

from .. import exc
from .matmul import ACCUMULATE_DTYPES
from .matmul import SCALE_GROUPS
from .matmul import dot
from .matmul import dot_result_dtype
from .matmul import dot_scaled
from .matmul import dot_shape

# Values of the four bits of e2m1: sign, two exponent bits, one mantissa bit (OCP MX v1.0, table 5).
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_FP8_OF_FORMAT = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


@dot.set_eager_rule
def _(a: torch.Tensor, b: torch.Tensor, acc: torch.Tensor | None, out_dtype: torch.dtype | None) -> torch.Tensor:
    dtype = dot_result_dtype(a, b, acc, out_dtype)
    dot_shape(a, b)
    if not dtype.is_floating_point:
        # Integer products are exact in float64 up to K = 2**39, and PyTorch's integer matmul is slow or missing.
        exact = torch.matmul(a.to(torch.float64), b.to(torch.float64)).to(torch.int64)
        return (exact if acc is None else exact + acc).to(dtype)
    summed = ACCUMULATE_DTYPES[a.dtype]
    product = torch.matmul(a.to(summed), b.to(summed))
    return (product if acc is None else product + acc.to(summed)).to(dtype)


@dot_scaled.set_eager_rule
def _(
    a: torch.Tensor,
    a_scale: torch.Tensor | None,
    fmt_a: str,
    b: torch.Tensor,
    b_scale: torch.Tensor | None,
    fmt_b: str,
    acc: torch.Tensor | None,
    out_dtype: torch.dtype | None,
) -> torch.Tensor:
    left, right = _scaled(_decode(a, fmt_a), a_scale), _scaled(_decode(b.mT, fmt_b), b_scale)
    # Of the last tile along K one operand may have been read as far as it goes, and the other one with zeros behind.
    inner = min(left.shape[-1], right.shape[-1])
    product = left[:, :inner] @ right[:, :inner].mT
    if acc is not None:
        product = product + acc.to(torch.float32)
    return product.to(out_dtype or (torch.float32 if acc is None else acc.dtype))


def _decode(rows: torch.Tensor, fmt: str) -> torch.Tensor:
    """[R, K stored] of `fmt` as float32 [R, K]."""
    if fmt == "e2m1":
        table = torch.tensor([*_E2M1, *(-v for v in _E2M1)], dtype=torch.float32, device=rows.device)
        nibbles = torch.stack([rows & 0xF, rows >> 4], dim=-1).flatten(-2)
        return table[nibbles.long()]
    if fmt in _FP8_OF_FORMAT and rows.dtype is torch.uint8:
        rows = rows.contiguous().view(_FP8_OF_FORMAT[fmt])
    return rows.to(torch.float32)


def _scaled(rows: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """Rows times their scales, each of which is of a group of elements."""
    if scale is None:
        return rows
    group = SCALE_GROUPS[scale.dtype]
    if scale.dim() != 2 or scale.shape[0] != rows.shape[0] or scale.shape[1] * group < rows.shape[1]:
        raise exc.ShapeMismatch(
            f"hl.dot_scaled: scales of shape {list(scale.shape)} for an operand of {list(rows.shape)} elements"
        )
    factor = scale.to(torch.float32)
    if scale.dtype is torch.uint8:
        factor = torch.where(scale == 255, torch.nan, torch.exp2(factor - 127.0))
    return rows * factor.repeat_interleave(group, dim=-1)[:, : rows.shape[1]]
