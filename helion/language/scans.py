"""Scans along a dimension: `hl.associative_scan`, `hl.cumsum`, `hl.cumprod`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .. import exc
from .combine import as_flat_combine
from .combine import cast_results
from .combine import operands
from .op import Op
from .op import device_op
from .shapes import normalize_dim

Tensors = Any  # a tensor or a tuple of them


@device_op()
def associative_scan(combine_fn: Callable[..., Any], x: Tensors, dim: int, reverse: bool = False) -> Tensors:
    """Inclusive scan with an associative function: element i combines elements 0..i.

    Args:
        combine_fn: associative, in the forms of `hl.reduce`; `left` is the result for the elements before.
        x: tensor, or tuple of tensors of one shape scanned together.
        dim: dimension to scan along.
        reverse: scan from the end: element i combines elements i..n-1, the last one first.

    Returns:
        Tensor(s) of the operands' shapes and dtypes; a tuple when `x` is one.
    """
    raise NotImplementedError


@associative_scan.set_shape_rule
def _(combine_fn: Callable[..., Any], x: Tensors, dim: int, reverse: bool) -> Tensors:
    values = operands(x, "hl.associative_scan")
    if not callable(combine_fn):
        raise exc.InvalidAPIUsage("hl.associative_scan: combine_fn must be a function")
    normalize_dim(dim, values[0].dim(), "hl.associative_scan")
    results = tuple(torch.empty(v.shape, dtype=v.dtype, device=v.device) for v in values)
    return results if isinstance(x, (tuple, list)) else results[0]


@associative_scan.set_eager_rule
def _(combine_fn: Callable[..., Any], x: Tensors, dim: int, reverse: bool) -> Tensors:
    values = operands(x, "hl.associative_scan")
    at = normalize_dim(dim, values[0].dim(), "hl.associative_scan")
    combine = as_flat_combine(combine_fn, len(values), "hl.associative_scan")
    dtypes = [v.dtype for v in values]
    size = values[0].shape[at]
    if reverse:
        values = tuple(v.flip(at) for v in values)
    # Hillis-Steele: after the step of distance d every element covers 2 d elements up to itself.
    distance = 1
    while distance < size:
        before = [v.narrow(at, 0, size - distance) for v in values]
        after = [v.narrow(at, distance, size - distance) for v in values]
        combined = cast_results(combine(*before, *after), dtypes)
        head = [v.narrow(at, 0, distance) for v in values]
        values = tuple(torch.cat(parts, dim=at) for parts in zip(head, combined, strict=True))
        distance *= 2
    if reverse:
        values = tuple(v.flip(at) for v in values)
    return values if isinstance(x, (tuple, list)) else values[0]


def scan_dtype(dtype: torch.dtype) -> torch.dtype:
    """Result dtype of cumsum and cumprod: as torch's, int64 for integers and bool."""
    return dtype if dtype.is_floating_point else torch.int64


def _declare(name: str, verb: str, along: Callable[..., torch.Tensor]) -> Op:
    def scan(x: torch.Tensor, dim: int, reverse: bool = False) -> torch.Tensor:
        raise NotImplementedError

    scan.__name__ = name
    scan.__doc__ = f"""Running {verb} along a dimension.

    Args:
        x: tensor of a real dtype.
        dim: dimension to run along.
        reverse: run from the end.

    Returns:
        Tensor of the same shape: `x`'s dtype if floating (16-bit ones are summed in float32 and rounded
        once per element), else int64.
    """
    op = device_op()(scan)

    @op.set_shape_rule
    def _(x: torch.Tensor, dim: int, reverse: bool) -> torch.Tensor:
        (value,) = operands(x, f"hl.{name}")
        normalize_dim(dim, value.dim(), f"hl.{name}")
        return torch.empty(value.shape, dtype=scan_dtype(value.dtype), device=value.device)

    @op.set_eager_rule
    def _(x: torch.Tensor, dim: int, reverse: bool) -> torch.Tensor:
        (value,) = operands(x, f"hl.{name}")
        at = normalize_dim(dim, value.dim(), f"hl.{name}")
        summed = torch.float32 if value.dtype in (torch.float16, torch.bfloat16) else scan_dtype(value.dtype)
        value = value.to(summed)
        result = along(value.flip(at), at).flip(at) if reverse else along(value, at)
        return result.to(scan_dtype(x.dtype))

    return op


cumsum = _declare("cumsum", "sum", torch.cumsum)
cumprod = _declare("cumprod", "product", torch.cumprod)
