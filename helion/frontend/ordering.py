"""Rules for torch ops that put elements of device values in order, or look up places in ordered ones.

What sorting is in device code is in `language.sorting`; torch's own functions (`torch.sort`) get there before PyTorch
sees them, and what PyTorch makes of others (`torch.quantile`) through the rules here.
"""

from __future__ import annotations

from typing import Any

import torch

from ..language import sorting
from .decompositions import rule
from .rearranging import constant_size
from .rearranging import dim_of
from .rearranging import placed
from .rearranging import positions

_aten = torch.ops.aten


# They have the parameters that device code's have.
rule(_aten.sort.default, _aten.sort.stable)(sorting.sort)
rule(_aten.argsort.stable)(sorting.argsort)
rule(_aten.topk.default)(sorting.topk)
rule(_aten.kthvalue.default)(sorting.kthvalue)


# -- the element in the middle, and the most frequent -----------------------------------------------------------


def _middle(x: torch.Tensor, dim: int, keepdim: bool, ignore_nan: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The lower of the two middle elements and its place; the first nan if there is one, unless those are ignored."""
    if x.dim() == 0:
        return x.clone(), torch.zeros([], dtype=torch.int64)
    dim = dim_of(x, dim)
    n = constant_size(x, dim, "median")
    values, places = sorting.sort(x, dim)
    if x.dtype.is_floating_point:
        nans = torch.sum(torch.isnan(x).to(torch.int64), dim, True)  # they are the last ones
        at = torch.clamp_min(n - 1 - nans, 0) // 2
        if not ignore_nan:
            at = torch.where(nans > 0, n - nans, at)
        values, places = (torch.gather(part, dim, at) for part in (values, places))
    else:
        values, places = (torch.narrow(part, dim, (n - 1) // 2, 1) for part in (values, places))
    return (values, places) if keepdim else (values.squeeze(dim), places.squeeze(dim))


@rule(_aten.median.dim)
def _median_dim(x: torch.Tensor, dim: int, keepdim: bool = False) -> Any:
    return _middle(x, dim, keepdim, False)


@rule(_aten.nanmedian.dim)
def _nanmedian_dim(x: torch.Tensor, dim: int, keepdim: bool = False) -> Any:
    return _middle(x, dim, keepdim, True)


@rule(_aten.median.default)
def _median(x: torch.Tensor) -> torch.Tensor:
    return _middle(x.reshape([-1]), 0, False, False)[0]


@rule(_aten.nanmedian.default)
def _nanmedian(x: torch.Tensor) -> torch.Tensor:
    return _middle(x.reshape([-1]), 0, False, True)[0]


@rule(_aten.mode.default)
def _mode(x: torch.Tensor, dim: int = -1, keepdim: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest of the most frequent elements, and its last place."""
    if x.dim() == 0:
        return x.clone(), torch.zeros([], dtype=torch.int64)
    dim = dim_of(x, dim)
    n = constant_size(x, dim, "mode")
    same = (x.unsqueeze(dim) == x.unsqueeze(dim + 1)).to(torch.int32)
    times = torch.sum(same, dim + 1, dtype=torch.int32)
    # Elements in ascending order: the first of the most frequent ones is the smallest.
    values, places = sorting.sort(x, dim)
    best = torch.argmax(torch.gather(times, dim, places), dim, True)
    value = torch.gather(values, dim, best)
    order = placed(positions(n), dim, x.dim())
    equal = (x == value) | ((x != x) & (value != value))
    at = torch.amax(torch.where(equal, order, -1), dim, keepdim).to(torch.int64)
    return (value if keepdim else value.squeeze(dim)), at


# -- places in ordered values -------------------------------------------------------------------------------------


@rule(_aten.searchsorted.Tensor)
def _searchsorted(
    ordered: torch.Tensor,
    values: torch.Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: torch.Tensor | None = None,
) -> torch.Tensor:
    """How many boundaries are below each value; nan is above all of them."""
    constant_size(ordered, ordered.dim() - 1, "searchsorted")
    if sorter is not None:
        ordered = torch.gather(ordered, -1, sorter)
    if ordered.dim() > 1:  # a row of boundaries for each row of values
        ordered = ordered.unsqueeze(-2)
    values = values.unsqueeze(-1)
    not_below = ordered > values if right or side == "right" else ordered >= values
    count = torch.sum(torch.logical_not(not_below).to(torch.int32), -1, dtype=torch.int32)
    return count if out_int32 else count.to(torch.int64)


@rule(_aten.searchsorted.Scalar)
def _searchsorted_number(ordered: torch.Tensor, value: Any, **options: Any) -> torch.Tensor:
    return _searchsorted(ordered, torch.full((), value, dtype=torch.result_type(ordered, value)), **options)


@rule(_aten.bucketize.Tensor)
def _bucketize(
    values: torch.Tensor, boundaries: torch.Tensor, *, out_int32: bool = False, right: bool = False
) -> torch.Tensor:
    return _searchsorted(boundaries, values, out_int32=out_int32, right=right)


@rule(_aten.bucketize.Scalar)
def _bucketize_number(value: Any, boundaries: torch.Tensor, **options: Any) -> torch.Tensor:
    return _searchsorted_number(boundaries, value, **options)
