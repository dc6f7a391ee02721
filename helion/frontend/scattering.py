"""Rules for torch ops that write elements of device values to computed places: scatter, index_put, histograms, ...

A device value has no address to write to.  Along a dimension of constant size each place looks for what goes there:
indices are compared with all places, and what hits one is reduced (`_scattered`).  Where nothing is reduced, the last
of several writes to one place counts, as in PyTorch on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from .. import exc
from ..ir.reduction_ops import REDUCTIONS
from ..ir.symbols import is_symbolic
from ..ir.symbols import symbols_of
from ..language.shapes import same_size
from ..numbers import next_power_of_2
from .decompositions import rule
from .rearranging import constant_size
from .rearranging import dim_of
from .rearranging import index_several
from .rearranging import placed
from .rearranging import positions
from .rearranging import take

_aten = torch.ops.aten

#: What PyTorch calls reductions -> the reduction of the IR, and the pointwise op that takes the old element in.
_SAME = {"add": "sum", "multiply": "prod", "sum": "sum", "prod": "prod", "amax": "amax", "amin": "amin", "mean": "mean"}
_REDUCE = {
    "sum": _aten.sum.dim_IntList,
    "mean": _aten.sum.dim_IntList,
    "prod": _aten.prod.dim_int,
    "amax": _aten.amax.default,
    "amin": _aten.amin.default,
}
_COMBINE: dict[str, Any] = {
    "sum": torch.add,
    "mean": torch.add,
    "prod": torch.mul,
    "amax": torch.maximum,
    "amin": torch.minimum,
}


#: Elements of the largest tensor that Triton has (triton.language.core.TRITON_MAX_TENSOR_NUMEL).
_MOST = 1 << 20


def _check_comparisons(places: int, indices: int) -> None:
    """Raise where comparing all indices with all places is more than one value holds."""
    if next_power_of_2(max(places, 1)) * next_power_of_2(max(indices, 1)) > _MOST:
        raise exc.TorchOpTracingError(
            op="writing to computed places",
            reason=f"{indices} indices are compared with {places} places, at most {_MOST} pairs",
            fix="write to a host tensor instead: `hl.atomic_add(out, [index], values)`, `out[index] = values`.",
        )


def _number(value: Any, dtype: torch.dtype) -> torch.Tensor:
    return torch.full((), value, dtype=dtype)


def _scattered(
    x: torch.Tensor,
    dim: int,
    index: torch.Tensor,
    src: torch.Tensor,
    reduce: str | None = None,
    include_self: bool = True,
) -> torch.Tensor:
    """`x` with `x[.., index[.., i, ..], ..] = src[.., i, ..]` along `dim`, or reduced by `reduce`.

    Args:
        index: of `src`'s size along `dim` and `x`'s, or 1, along the others; a place outside of `x` is nowhere.
        src: of `x`'s dtype; of sizes that broadcast with the index.
    """
    if x.dtype is torch.bool and reduce is not None:
        numbers = (t.to(torch.int32) for t in (x, src))
        first, second = numbers
        return _scattered(first, dim, index, second, reduce, include_self) != 0
    rank = x.dim() + 1
    _check_comparisons(constant_size(x, dim, "scatter"), constant_size(index, dim, "scatter"))
    places = placed(positions(constant_size(x, dim, "scatter")), dim, rank)
    hit = index.unsqueeze(dim) == places  # [.., place, source, ..]
    if reduce is None:
        order = placed(positions(constant_size(index, dim, "scatter")), dim + 1, rank)
        last = torch.amax(torch.where(hit, order, -1), dim + 1)
        shape = [*x.shape]
        found = take_along(src, torch.clamp_min(last, 0).expand(shape), dim)
        return torch.where(last >= 0, found, x)
    op = _REDUCE[reduce]
    neutral = REDUCTIONS[op].neutral(x.dtype)
    wide = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    given = torch.where(hit, src.to(wide).unsqueeze(dim), _number(neutral, wide))
    dims: Any = dim + 1 if reduce == "prod" else [dim + 1]
    total = op(given, dims, False, **({"dtype": wide} if reduce in ("sum", "prod", "mean") else {}))
    count = torch.sum(hit.to(torch.int32), dim + 1, dtype=torch.int32)
    if include_self:
        result = _COMBINE[reduce](x.to(wide), total)
        count = count + 1
    else:
        result = torch.where(count > 0, total, x.to(wide))
    if reduce == "mean":
        count = torch.clamp_min(count, 1).to(wide)
        result = result / count if wide.is_floating_point else torch.div(result, count, rounding_mode="floor")
    return result.to(x.dtype)


def take_along(x: torch.Tensor, index: torch.Tensor, dim: int) -> torch.Tensor:
    """`torch.gather` of operands that broadcast along the other dimensions."""
    shape = [*index.shape]
    shape[dim] = x.size(dim)
    return torch.gather(x.expand(shape), dim, index)


def _fitted(x: torch.Tensor, like: torch.Tensor, keep: int, fill: Any, what: str) -> torch.Tensor:
    """A value with the sizes of another: cut or filled up in all dimensions but one."""
    for d in range(x.dim()):
        if d == keep or same_size(x.size(d), like.size(d)):
            continue
        n, wanted = constant_size(x, d, what), constant_size(like, d, what)
        pad = [0, 0] * (x.dim() - 1 - d) + [0, wanted - n]
        x = torch.narrow(x, d, 0, wanted) if n > wanted else torch.constant_pad_nd(x, pad, fill)
    return x


def _scatter_any(
    x: torch.Tensor, dim: int, index: torch.Tensor, src: Any, reduce: str | None = None, include_self: bool = True
) -> torch.Tensor:
    """torch.scatter: the index may be smaller than `x`, and `src` larger than the index or a number."""
    if x.dim() == 0 or index.dim() == 0:
        scalar = x.dim() == 0
        x, index = (t.unsqueeze(0) if t.dim() == 0 else t for t in (x, index))
        src = src.unsqueeze(0) if isinstance(src, torch.Tensor) and src.dim() == 0 else src
        result = _scatter_any(x, dim, index, src, reduce, include_self)
        return result.squeeze(0) if scalar else result
    dim = dim_of(x, dim)
    if not symbols_of(index.size(dim)) and index.size(dim) == 0:
        return x.clone()
    if reduce is not None:
        reduce = _SAME[reduce]
    if isinstance(src, torch.Tensor):
        n, wanted = (constant_size(t, dim, "scatter") for t in (src, index))
        src = torch.narrow(src, dim, 0, wanted) if n > wanted else src
        src = _fitted(src, index, dim, 0, "scatter").to(x.dtype)
    else:
        src = _number(src, x.dtype).expand(index.shape)
    index, src = _fitted(index, x, dim, -1, "scatter"), _fitted(src, x, dim, 0, "scatter")
    return _scattered(x, dim, index, src, reduce, include_self)


@rule(_aten.scatter.src, _aten.scatter.value, _aten.scatter.reduce, _aten.scatter.value_reduce)
def _scatter(x: torch.Tensor, dim: int, index: torch.Tensor, src: Any, *, reduce: str | None = None) -> torch.Tensor:
    return _scatter_any(x, dim, index, src, reduce)


@rule(_aten.scatter_add.default)
def _scatter_add(x: torch.Tensor, dim: int, index: torch.Tensor, src: torch.Tensor) -> torch.Tensor:
    return _scatter_any(x, dim, index, src, "sum")


@rule(_aten.scatter_reduce.two)
def _scatter_reduce(
    x: torch.Tensor, dim: int, index: torch.Tensor, src: torch.Tensor, reduce: str, *, include_self: bool = True
) -> torch.Tensor:
    return _scatter_any(x, dim, index, src, reduce, include_self)


# -- slices of one dimension -----------------------------------------------------------------------------------


def _scatter_slices(
    x: torch.Tensor, dim: int, index: torch.Tensor, src: Any, reduce: str | None = None, include_self: bool = True
) -> torch.Tensor:
    """Slices of `src` to the places of a 1-d index along `dim`."""
    if x.dim() == 0:
        flat = src.reshape([-1]) if isinstance(src, torch.Tensor) and src.dim() == 0 else src
        return _scatter_slices(x.unsqueeze(0), 0, index, flat, reduce, include_self).squeeze(0)
    dim = dim_of(x, dim)
    index = index.unsqueeze(0) if index.dim() == 0 else index
    n = constant_size(x, dim, "index_add")
    shape = [*x.shape]
    shape[dim] = constant_size(index, 0, "index_add")
    if shape[dim] == 0:
        return x.clone()
    if not isinstance(src, torch.Tensor):
        src = _number(src, x.dtype)
    src = src.unsqueeze(0) if src.dim() == 0 and len(shape) == 1 else src
    index = placed(torch.where(index < 0, index + n, index), dim, x.dim())
    return _scattered(x, dim, index, src.to(x.dtype).expand(shape), reduce, include_self)


@rule(_aten.index_add.default)
def _index_add(x: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, *, alpha: Any = 1) -> torch.Tensor:
    return _scatter_slices(x, dim, index, source * alpha if is_symbolic(alpha) or alpha != 1 else source, "sum")


@rule(_aten.index_copy.default)
def _index_copy(x: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    return _scatter_slices(x, dim, index, source)


@rule(_aten.index_fill.int_Scalar, _aten.index_fill.int_Tensor)
def _index_fill(x: torch.Tensor, dim: int, index: torch.Tensor, value: Any) -> torch.Tensor:
    return _scatter_slices(x, dim, index, value)


@rule(_aten.index_reduce.default)
def _index_reduce(
    x: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, reduce: str, *, include_self: bool = True
) -> torch.Tensor:
    return _scatter_slices(x, dim, index, source, _SAME[reduce], include_self)


# -- several dimensions ----------------------------------------------------------------------------------------


def _masked(x: torch.Tensor, mask: torch.Tensor, values: torch.Tensor, accumulate: bool) -> torch.Tensor:
    """`x[mask] = values`: one value for all, or one for each true element in their order."""
    mask = mask != 0 if mask.dtype is torch.uint8 else mask
    spread = mask
    for _ in range(x.dim() - mask.dim()):
        spread = spread.unsqueeze(-1)
    if values.dim() == 0 or all(size == 1 for size in values.shape):
        new = values.reshape([]).to(x.dtype)
    elif mask.dim() == x.dim() and values.dim() == 1:
        new = torch.masked_scatter(torch.zeros_like(x), mask, values.to(x.dtype))
    else:
        raise exc.DataDependentOutputShapeNotSupported(op="writing slices to the places of a mask")
    return torch.where(spread, x + new if accumulate else new, x)


@rule(_aten.index_put.default, _aten._unsafe_index_put.default)
def _index_put(x: torch.Tensor, indices: Sequence[Any], values: torch.Tensor, accumulate: bool = False) -> torch.Tensor:
    used = [(dim, index) for dim, index in enumerate(indices) if index is not None]
    if any(index.dtype in (torch.bool, torch.uint8) for _, index in used):
        if len(used) > 1 or used[0][0] != 0:
            raise exc.DataDependentOutputShapeNotSupported(op="indexing with a mask")
        return _masked(x, used[0][1], values, accumulate)
    dims = [dim for dim, _ in used]
    sizes = [constant_size(x, dim, "index_put") for dim in dims]
    rest = [d for d in range(x.dim()) if d not in dims]
    place: Any = 0
    for n, (_, index) in zip(sizes, used):
        place = place * n + torch.where(index < 0, index + n, index)
    lead = [constant_size(place, d, "index_put") for d in range(place.dim())]
    kept = [x.size(d) for d in rest]
    # where the places are among the dimensions of x[indices], to which values broadcast
    front = 0 if dims != list(range(dims[0], dims[0] + len(dims))) else dims[0]
    values = values.to(x.dtype).expand([*kept[:front], *lead, *kept[front:]])
    order = [*range(front, front + len(lead)), *range(front), *range(front + len(lead), values.dim())]
    source = values.permute(order).reshape([math.prod(lead), *kept])
    flat = x.permute([*dims, *rest]).reshape([math.prod(sizes), *kept])
    if math.prod(lead) == 0:
        return x.clone()
    written = _scattered(
        flat, 0, placed(place.reshape([-1]), 0, flat.dim()), source, "sum" if accumulate else None
    ).reshape([*sizes, *kept])
    back = [[*dims, *rest].index(d) for d in range(x.dim())]
    return written.permute(back)


def _flat_size(x: torch.Tensor, what: str) -> int:
    return math.prod(constant_size(x, d, what) for d in range(x.dim()))


@rule(_aten.put.default)
def _put(x: torch.Tensor, index: torch.Tensor, source: torch.Tensor, accumulate: bool = False) -> torch.Tensor:
    count = _flat_size(x, "put")
    flat = [t.reshape([-1]) for t in (x, index, source)]
    return _index_put(flat[0], [flat[1]], flat[2], accumulate).reshape(x.shape) if count else x.clone()


@rule(_aten.take.default)
def _take_flat(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return index_several(x.reshape([-1]), [0], [torch.where(index < 0, index + _flat_size(x, "take"), index)])


@rule(_aten.masked_scatter.default)
def _masked_scatter(x: torch.Tensor, mask: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    x, mask = torch.broadcast_tensors(x, mask)
    n, count = (_flat_size(t, "masked_scatter") for t in (x, source))
    if not n or not count:
        return x.clone()
    flat = mask.reshape([-1])
    at = torch.clamp(torch.cumsum(flat.to(torch.int32), 0) - 1, 0, count - 1)
    found = take(source.to(x.dtype).reshape([-1]), at, 0)
    return torch.where(flat, found, x.reshape([-1])).reshape(x.shape)


@rule(_aten.diagonal_scatter.default)
def _diagonal_scatter(x: torch.Tensor, src: torch.Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    dim1, dim2 = dim_of(x, dim1), dim_of(x, dim2)
    rows, columns = (constant_size(x, d, "diagonal_scatter") for d in (dim1, dim2))
    places = [placed(positions(n), d, x.dim()) for n, d in ((rows, dim1), (columns, dim2))]
    on = places[0] + offset == places[1]
    # The diagonal as rows of x: its first element is in row -offset, or 0.
    start = max(-offset, 0)
    length = constant_size(src, src.dim() - 1, "diagonal_scatter")
    by_row = torch.constant_pad_nd(src, [start, rows - start - length])
    order = list(range(by_row.dim() - 1))
    order.insert(dim1 if dim1 < dim2 else dim1 - 1, by_row.dim() - 1)
    return torch.where(on, by_row.permute(order).unsqueeze(dim2), x)


@rule(_aten.as_strided_scatter.default)
def _as_strided_scatter(
    x: torch.Tensor, src: torch.Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> torch.Tensor:
    count = _flat_size(x, "as_strided_scatter")
    numbers = torch.arange(count).reshape(x.shape)
    place = torch.as_strided(numbers, size, stride, storage_offset)
    return _put(x, place, src.to(x.dtype).expand(list(size)))


# -- segments and histograms -----------------------------------------------------------------------------------


@rule(_aten.segment_reduce.default)
def _segment_reduce(
    data: torch.Tensor,
    reduce: str,
    *,
    lengths: torch.Tensor | None = None,
    indices: torch.Tensor | None = None,
    offsets: torch.Tensor | None = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: Any = None,
) -> torch.Tensor:
    axis = dim_of(data, axis)
    if offsets is None:
        assert lengths is not None
        ends = torch.cumsum(lengths, axis)
        starts = ends - lengths
    else:
        count = constant_size(offsets, axis, "segment_reduce") - 1
        starts, ends = torch.narrow(offsets, axis, 0, count), torch.narrow(offsets, axis, 1, count)
    op = {"max": "amax", "min": "amin"}.get(reduce, reduce)
    neutral = REDUCTIONS[_REDUCE[op]].neutral(data.dtype) if initial is None else initial
    at = placed(positions(constant_size(data, axis, "segment_reduce")), axis + 1, axis + 2)
    inside = (at >= starts.unsqueeze(axis + 1)) & (at < ends.unsqueeze(axis + 1))  # [.., segment, element]
    spread = inside
    for _ in range(data.dim() - axis - 1):
        spread = spread.unsqueeze(-1)
    unit = REDUCTIONS[_REDUCE[op]].neutral(data.dtype)
    given = torch.where(spread, data.unsqueeze(axis), _number(unit, data.dtype))
    total = _REDUCE[op](given, axis + 1 if op == "prod" else [axis + 1], False)
    total = _COMBINE[op](total, _number(neutral, data.dtype))
    if op == "mean":
        counted = torch.sum(spread.to(torch.int32), axis + 1, dtype=torch.int32)
        empty = math.nan if initial is None else initial
        total = torch.where(counted > 0, total / counted, _number(empty, data.dtype))
    return total


@rule(_aten.histc.default)
def _histc(x: torch.Tensor, bins: int = 100, min: Any = 0, max: Any = 0) -> torch.Tensor:
    flat = x.reshape([-1])
    count = constant_size(flat, 0, "histc")
    low, high = _number(min, x.dtype), _number(max, x.dtype)
    if min == max and count:
        low, high = torch.amin(flat), torch.amax(flat)
    same = low == high
    low, high = torch.where(same, low - 1, low), torch.where(same, high + 1, high)
    place = torch.floor((flat - low) / (high - low) * bins)
    place = torch.where(flat == high, bins - 1, torch.clamp(place, 0, bins - 1))
    place = torch.where((flat >= low) & (flat <= high), place, -1.0).to(torch.int32)
    zeros = torch.zeros([bins], dtype=x.dtype)
    return _scattered(zeros, 0, place, torch.ones([count], dtype=x.dtype), "sum") if count else zeros


@rule(_aten.nonzero_static.default)
def _nonzero_static(x: torch.Tensor, *, size: int, fill_value: int = -1) -> torch.Tensor:
    count = _flat_size(x, "nonzero_static")
    mask = (x != 0).reshape([-1])
    place = torch.where(mask, torch.cumsum(mask.to(torch.int32), 0) - 1, -1)
    missing = torch.full([size], -1, dtype=torch.int32)
    flat = _scattered(missing, 0, place, positions(count)) if count and size else missing
    columns: list[torch.Tensor] = []
    rest = torch.clamp_min(flat, 0)
    for n in reversed([constant_size(x, d, "nonzero_static") for d in range(x.dim())]):
        columns.insert(0, torch.where(flat < 0, fill_value, rest % n).to(torch.int64))
        rest = torch.div(rest, n, rounding_mode="floor")
    return torch.stack(columns, 1) if columns else torch.full([size, 0], fill_value, dtype=torch.int64)
