"""Rules for torch ops that move elements of device values, scan them, or multiply matrices.

A device value has no address, so a part of one is picked with a mask and a reduction (`select`), or with
`hl.take_along_dim` (`flip`, `gather`, slices); parts are put together with `torch.where` (`stack`, `cat`).
All of this is along dimensions of constant size: where a tile ends is not known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import torch

from .. import exc
from .._compat_tracing import decomposition_table
from ..ir.reduction_ops import REDUCTIONS
from ..ir.symbols import symbols_of
from ..language import arange
from ..language import associative_scan
from ..language import full
from ..language import iota
from ..language import join
from ..language import split
from ..language import take_along_dim
from ..language import torch_overrides
from ..language.shapes import constant_fix
from ..language.shapes import same_size
from .decompositions import rule

_aten = torch.ops.aten
_WHOLE = 2**63 - 1  # PyTorch's "to the end" of a slice


def constant_size(x: torch.Tensor, dim: int, op: str) -> int:
    """The size of a dimension, which must be constant."""
    size = x.size(dim)
    if symbols_of(size):
        raise exc.TorchOpTracingError(
            op=f"torch.{op}",
            reason=f"dimension {dim} has no constant size",
            fix=constant_fix(size, "use a dimension of constant size (`:`), or index the host tensor instead."),
        )
    return int(size)


def dim_of(x: torch.Tensor, dim: int) -> int:
    """A dimension counted from the front."""
    if x.dim() == 0 or not -x.dim() <= dim < x.dim():
        raise exc.ShapeMismatch(f"dimension {dim} of a value of {x.dim()} dimensions")
    return dim % x.dim()


def placed(values: torch.Tensor, dim: int, rank: int) -> torch.Tensor:
    """A 1-d value as dimension `dim` of `rank`."""
    for d in range(rank):
        if d != dim:
            values = values.unsqueeze(d)
    return values


def positions(n: int) -> torch.Tensor:
    """0, 1, ..., n - 1."""
    result: torch.Tensor = iota(0, n, 1, torch.int32)
    return result


def take(x: torch.Tensor, index: torch.Tensor, dim: int) -> torch.Tensor:
    """The slices of `x` at a 1-d index along `dim`."""
    shape = [*x.shape]
    shape[dim] = index.size(0)
    result: torch.Tensor = take_along_dim(x, placed(index, dim, x.dim()).expand(shape), dim)
    return result


def nothing_larger(dtype: torch.dtype) -> Any:
    """The number that no element of a dtype is below."""
    return REDUCTIONS[_aten.amax.default].neutral(dtype)


@rule(_aten.diag_embed.default)
def _diag_embed(x: torch.Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> torch.Tensor:
    """PyTorch's own rule, of a tile's dimension with its elements: what that calculates is the size of a full tile."""
    last, dims = x.shape[-1], sorted(d % (x.dim() + 1) for d in (dim1, dim2))
    if isinstance(last, int) or offset != 0 or dims != [x.dim() - 1, x.dim()]:
        made: torch.Tensor = decomposition_table[_aten.diag_embed.default](x, offset, dim1, dim2)
        return made
    places = arange(last)
    return torch.where(places[:, None] == places[None, :], x.unsqueeze(-2), torch.full((), 0, dtype=x.dtype))


# -- one slice, some slices ----------------------------------------------------------------------------------


@rule(_aten.select.int)
def select(x: torch.Tensor, dim: int, index: Any) -> torch.Tensor:
    """The elements at one place of a dimension; a number of the kernel's may be negative too."""
    dim = dim_of(x, dim)
    n = constant_size(x, dim, "select")
    if isinstance(index, int):
        if not -n <= index < n:
            raise exc.IndexOutOfRange(name="a device value", dim=dim, size=n, low=index, high=index)
        index %= n
    if n == 1:
        return x.squeeze(dim)
    if x.dtype is torch.bool:
        return select(x.to(torch.int32), dim, index) != 0
    chosen = positions(n) == index
    if not isinstance(index, int):
        chosen = chosen | (positions(n) - n == index)
    chosen = placed(chosen, dim, x.dim())
    # The largest of one element and nothing: the element itself, nan and -0.0 included.
    return torch.amax(torch.where(chosen, x, torch.full((), nothing_larger(x.dtype), dtype=x.dtype)), dim)


@rule(_aten.slice.Tensor)
def stretch(x: torch.Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> torch.Tensor:
    """The elements of a dimension between two places, some apart: torch's slice."""
    dim = dim_of(x, dim)
    if start in (None, 0) and end in (None, _WHOLE) and step == 1:
        return x.clone()  # PyTorch wants another tensor from a view
    n = constant_size(x, dim, "slice")
    first, last, step = slice(start, end, step).indices(n)
    length = len(range(first, last, step))
    if length == n:
        return x.clone()
    return take(x, positions(length) * step + first, dim)


@rule(_aten.split_with_sizes.default, _aten.unsafe_split_with_sizes.default)
def _split_with_sizes(x: torch.Tensor, sizes: Sequence[int], dim: int = 0) -> list[torch.Tensor]:
    parts, start = [], 0
    for size in sizes:
        parts.append(stretch(x, dim, start, start + size))
        start += size
    return parts


@rule(_aten.split.Tensor, _aten.unsafe_split.Tensor)
def _split(x: torch.Tensor, size: int, dim: int = 0) -> list[torch.Tensor]:
    n = constant_size(x, dim_of(x, dim), "split")
    return _split_with_sizes(x, [min(size, n - start) for start in range(0, n, size)] if size else [0], dim)


@rule(_aten.unbind.int)
def _unbind(x: torch.Tensor, dim: int = 0) -> list[torch.Tensor]:
    dim = dim_of(x, dim)
    n = constant_size(x, dim, "unbind")
    if n == 2 and dim == x.dim() - 1 and x.dim() > 1:
        return list(split(x))
    return [select(x, dim, i) for i in range(n)]


@rule(_aten.diagonal.default)
def _diagonal(x: torch.Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> torch.Tensor:
    dim1, dim2 = dim_of(x, dim1), dim_of(x, dim2)
    rows, columns = (constant_size(x, d, "diagonal") for d in (dim1, dim2))
    if x.dtype is torch.bool:
        return _diagonal(x.to(torch.int32), offset, dim1, dim2) != 0
    start = max(-offset, 0)
    length = max(min(rows - start, columns - max(offset, 0)), 0)
    on = placed(positions(rows) + offset, dim1, x.dim()) == placed(positions(columns), dim2, x.dim())
    picked = torch.amax(torch.where(on, x, torch.full((), nothing_larger(x.dtype), dtype=x.dtype)), dim2)
    row_dim = dim1 if dim1 < dim2 else dim1 - 1
    order = [*(d for d in range(picked.dim()) if d != row_dim), row_dim]
    return stretch(picked, row_dim, start, start + length).permute(order)


# -- picking with an index ---------------------------------------------------------------------------------------


@rule(_aten.flip.default)
def _flip(x: torch.Tensor, dims: Sequence[int]) -> torch.Tensor:
    for dim in {dim_of(x, d) for d in dims} if x.dim() else ():
        n = constant_size(x, dim, "flip")
        x = take(x, (n - 1) - positions(n), dim)
    return x


@rule(_aten.roll.default)
def _roll(x: torch.Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> torch.Tensor:
    if not dims:
        rolled: torch.Tensor = x if x.dim() == 0 else _roll(x.reshape(-1), shifts, (0,)).reshape(x.shape)
        return rolled
    for shift, dim in zip(shifts, dims, strict=True):
        at = dim_of(x, dim)
        n = constant_size(x, at, "roll")
        x = take(x, torch.remainder(positions(n) - shift, n), at)
    return x


@rule(_aten.gather.default)
def _gather(x: torch.Tensor, dim: int, index: torch.Tensor, *, sparse_grad: bool = False) -> torch.Tensor:
    if x.dim() == 0 or index.dim() == 0:
        raise exc.TorchOpTracingError(
            op="torch.gather", reason="an operand has no dimension", fix="use the value itself."
        )
    dim = dim_of(x, dim)
    for d in range(x.dim()):
        if d != dim and not same_size(x.size(d), index.size(d)):
            x = stretch(x, d, 0, constant_size(index, d, "gather"))
    result: torch.Tensor = take_along_dim(x, index, dim)
    return result


@rule(_aten.index_select.default)
def _index_select(x: torch.Tensor, dim: int, index: torch.Tensor) -> torch.Tensor:
    if x.dim() == 0:
        return x
    return take(x, index if index.dim() else index.unsqueeze(0), dim_of(x, dim))


@rule(_aten.index.Tensor)
def index(x: torch.Tensor, indices: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """Elements at index tensors, one for each dimension or None, as PyTorch does."""
    used = [(dim, index) for dim, index in enumerate(indices) if index is not None]
    if any(index.dtype in (torch.bool, torch.uint8) for _, index in used):
        raise exc.DataDependentOutputShapeNotSupported(op="indexing with a mask")
    positive = [torch.where(index < 0, index + constant_size(x, dim, "index"), index) for dim, index in used]
    if len(used) == 1 and used[0][1].dim() == 1:
        return take(x, positive[0], used[0][0])
    return index_several(x, [dim for dim, _ in used], positive)


def index_several(x: torch.Tensor, dims: list[int], indices: list[torch.Tensor]) -> torch.Tensor:
    """Elements at places that index tensors give together: those of one dimension made of all that are indexed."""
    rest = [d for d in range(x.dim()) if d not in dims]
    sizes = [constant_size(x, d, "index") for d in dims]
    place = indices[0]
    for n, index in zip(sizes[1:], indices[1:]):
        place = place * n + index
    shape = [constant_size(place, d, "index") for d in range(place.dim())]
    flat = x.permute([*dims, *rest]).reshape([math.prod(sizes), *(x.size(d) for d in rest)])
    found = take(flat, place.reshape([-1]), 0).reshape([*shape, *(x.size(d) for d in rest)])
    if dims != list(range(dims[0], dims[0] + len(dims))):
        return found  # apart from each other: in front, as in PyTorch
    after = list(range(len(shape), len(shape) + dims[0]))
    order = [*after, *range(len(shape)), *range(len(shape) + dims[0], found.dim())]
    return found if order == sorted(order) else found.permute(order)


@rule(_aten.as_strided.default)
def _as_strided(x: torch.Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Any:
    if not x.is_contiguous():
        raise exc.TorchOpTracingError(
            op="torch.as_strided", reason="a device value has no memory", fix="use reshape, permute or indexing."
        )
    count = math.prod(constant_size(x, d, "as_strided") for d in range(x.dim()))
    place = full([], storage_offset or 0, dtype=torch.int64)
    for d, (n, step) in enumerate(zip(size, stride)):
        place = place + (iota(0, n, 1, torch.int64) * step).reshape([n, *[1] * (len(size) - 1 - d)])
    flat = x.reshape([count])
    return take(flat, place.reshape([-1]), 0).reshape(list(size))


# -- putting together ------------------------------------------------------------------------------------------------


def _promoted(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [tensor.to(dtype) for tensor in tensors]


@rule(_aten.stack.default)
def _stack(tensors: Sequence[torch.Tensor], dim: int = 0) -> torch.Tensor:
    parts = _promoted(tensors)
    rank = parts[0].dim() + 1
    dim = dim_of(parts[0].unsqueeze(0), dim)
    if len(parts) == 2 and dim == rank - 1 and rank > 1:
        pair: torch.Tensor = join(*parts)
        return pair
    at = placed(positions(len(parts)), dim, rank)
    shape = [*parts[0].shape]
    shape.insert(dim, len(parts))
    result = parts[0].unsqueeze(dim).expand(shape)
    for i, part in enumerate(parts[1:], 1):
        result = torch.where(at == i, part.unsqueeze(dim), result)
    return result


@rule(_aten.cat.default)
def _cat(tensors: Sequence[torch.Tensor], dim: int = 0) -> torch.Tensor:
    tensors = [t for t in tensors if not (t.dim() == 1 and not symbols_of(t.size(0)) and t.size(0) == 0)] or tensors[:1]
    parts = _promoted(tensors)
    if len(parts) == 1:
        return parts[0]
    dim = dim_of(parts[0], dim)
    sizes = [constant_size(part, dim, "cat") for part in parts]
    every = positions(sum(sizes))
    place = placed(every, dim, parts[0].dim())
    result: torch.Tensor | None = None
    start = 0
    for part, size in zip(parts, sizes, strict=True):
        if size:
            moved = take(part, torch.clamp(every - start, 0, size - 1), dim)
            result = moved if result is None else torch.where(place >= start, moved, result)
        start += size
    return parts[0] if result is None else result


@rule(_aten.constant_pad_nd.default)
def _constant_pad_nd(x: torch.Tensor, pad: Sequence[int], value: Any = 0) -> torch.Tensor:
    for i in range(len(pad) // 2):
        dim = x.dim() - 1 - i
        before, after = pad[2 * i], pad[2 * i + 1]
        if before == 0 and after == 0:
            continue
        n = constant_size(x, dim, "pad")
        source = positions(n + before + after) - before
        inside = placed((source >= 0) & (source < n), dim, x.dim())
        moved = take(x, torch.clamp(source, 0, max(n - 1, 0)), dim)
        x = torch.where(inside, moved, torch.full((), value, dtype=x.dtype))
    return x


# -- scans ---------------------------------------------------------------------------------------------------------


def _running(scan: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def along(x: torch.Tensor, dim: int, *, dtype: torch.dtype | None = None) -> torch.Tensor:
        if x.dim() == 0:
            return x.to(dtype or (x.dtype if x.dtype.is_floating_point else torch.int64))
        return scan(x, dim, dtype=dtype)

    return along


rule(_aten.cumsum.default)(_running(torch_overrides.cumsum))
rule(_aten.cumprod.default)(_running(torch_overrides.cumprod))


def _log_add(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.logaddexp(a, b)


@rule(_aten.logcumsumexp.default)
def _logcumsumexp(x: torch.Tensor, dim: int) -> torch.Tensor:
    if x.dim() == 0:
        return x
    result: torch.Tensor = associative_scan(_log_add, x, dim)
    return result


def _running_extreme(x: torch.Tensor, dim: int, largest: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and positions of cummax/cummin: the latest of equal elements, nan passed on."""
    if x.dim() == 0:
        return x, torch.zeros_like(x, dtype=torch.int64)
    dim = dim_of(x, dim)
    at = placed(positions(constant_size(x, dim, "cummax" if largest else "cummin")), dim, x.dim()).expand(x.shape)

    def combine(
        a: torch.Tensor, i: torch.Tensor, b: torch.Tensor, j: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        later = (b >= a if largest else b <= a) | (b != b)
        return torch.where(later, b, a), torch.where(later, j, i)

    values, places = associative_scan(combine, (x, at), dim)
    return values, places.to(torch.int64)


@rule(_aten.cummax.default)
def _cummax(x: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    return _running_extreme(x, dim, largest=True)


@rule(_aten.cummin.default)
def _cummin(x: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    return _running_extreme(x, dim, largest=False)


# -- products and shifts -----------------------------------------------------------------------------------------------


for _name in ("mm", "bmm", "addmm", "baddbmm", "addbmm"):  # with the parameters that device code's have
    rule(getattr(_aten, _name).default)(getattr(torch_overrides, _name))


@rule(_aten.__lshift__.Tensor, _aten.__lshift__.Scalar)
def _left_shift(x: torch.Tensor, by: Any) -> torch.Tensor:
    return torch.bitwise_left_shift(x, by)


@rule(_aten.__rshift__.Tensor, _aten.__rshift__.Scalar)
def _right_shift(x: torch.Tensor, by: Any) -> torch.Tensor:
    return torch.bitwise_right_shift(x, by)
