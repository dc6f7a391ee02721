"""Jagged loops in ref mode: what lies past the end of a row is not accessed, reduced, scanned or multiplied."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from ... import exc
from ...ir.reduction_ops import REDUCTIONS
from ...language.eager_tile import EagerTile
from ...language.indexing import index_list
from ...language.op import Op
from ...language.ragged import with_rows_only
from .alignment import Lanes
from .alignment import marked
from .axes import axes_of
from .axes import axes_of_index


def check_lengths(lengths: torch.Tensor, active: Sequence[EagerTile]) -> None:
    """Check that the dimensions of row lengths are tiles of the loops around.

    Raises:
        exc.InvalidJaggedTileUsage: one is not.
    """
    around = [tile.axis for tile in active]
    for dim, axis in enumerate(axes_of(lengths)):
        if axis not in around:
            raise exc.InvalidJaggedTileUsage(
                f"dimension {dim} of the row lengths is not the tile of a loop around hl.jagged_tile"
            )


def ragged_mask(tensor: torch.Tensor, index: Any, mask: Any, active: Sequence[EagerTile], what: str) -> Any:
    """`mask` narrowed to the elements inside their row, for an access inside ragged loops.

    Args:
        tensor: what is accessed.
        index: the access's index.
        mask: its `extra_mask` (None, bool or tensor).
        active: tiles of the enclosing loops.
        what: op name for messages.

    Returns:
        `mask` itself when no ragged loop is involved, else a bool tensor of the access's rank.

    Raises:
        exc.InvalidJaggedTileUsage: a jagged tile in an index without the rows it belongs to.
    """
    ragged = [tile for tile in active if tile.lengths is not None]
    if not ragged:
        return mask
    axes = axes_of_index(tensor.shape, index)
    for tile in ragged:
        inside = _inside(tile, axes)
        if inside is not None:
            mask = inside if mask is None or mask is True else inside & mask
        elif any(isinstance(e, EagerTile) and e.axis is tile.axis for e in index_list(index)):
            raise exc.InvalidJaggedTileUsage(
                f"{what}: a jagged tile stands in an index without the rows it belongs to",
                fix="index with the tile of the rows too, or with `.index` of the tile where all rows share a place.",
            )
    return mask


def with_rows_of_operands(op: Op, args: tuple[Any, ...], active: Sequence[EagerTile]) -> tuple[Any, ...]:
    """The arguments of a language op, neutral past the ends of rows where it combines elements."""
    if all(tile.lengths is None for tile in active):
        return args
    return with_rows_only(op, args, lambda value, dims, neutral: _filled(value, dims, neutral, active))


# -- reductions of torch's -----------------------------------------------------------------------------------

_NEUTRAL: dict[str, Callable[[torch.dtype], Any]] = {kind.name: kind.neutral for kind in REDUCTIONS.values()}
_NEUTRAL |= {
    "max": _NEUTRAL["amax"],
    "min": _NEUTRAL["amin"],
    **dict.fromkeys(("any", "nansum", "count_nonzero"), lambda dtype: 0),
    "all": lambda dtype: 1,
    **dict.fromkeys(("logsumexp", "softmax", "log_softmax"), lambda dtype: float("-inf")),
    **dict.fromkeys(("special_logsumexp", "special_softmax", "special_log_softmax"), lambda dtype: float("-inf")),
}
_NORMS = frozenset(["norm", "linalg_norm", "linalg_vector_norm"])
_MOMENTS = frozenset(["mean", "var", "std", "var_mean", "std_mean"])
#: What takes a whole dimension in yet another way, and keeps it.
_NOT_HERE = frozenset(["layer_norm", "rms_norm", "group_norm", "softmin", "normalize", "renorm"])
_KNOWN = frozenset(_NEUTRAL) | _NORMS | _MOMENTS | _NOT_HERE | {"aminmax"}


@dataclasses.dataclass(frozen=True)
class _Call:
    """A call of a reduction: its operand, the other arguments by position, those by name, and the dimensions."""

    x: torch.Tensor
    rest: tuple[Any, ...]
    given: dict[str, Any]
    dims: list[int]

    @property
    def keepdim(self) -> bool:
        return bool(self.given.get("keepdim", False))


def _call(name: str, args: Any, kwargs: Any) -> _Call | None:
    """How a reduction is called; None if the call is no such one, `max(a, b)` for example."""
    x, rest = (args[0], args[1:]) if args else (kwargs.get("input"), ())
    if name not in _KNOWN or not isinstance(x, torch.Tensor) or any(isinstance(a, torch.Tensor) for a in rest):
        return None
    names = ("dim", "unbiased", "keepdim") if "var" in name or "std" in name else ("dim", "keepdim")
    names = ("ord", *names) if name in _NORMS else names
    given = {**dict(zip(names, rest)), **kwargs}
    if name in ("var", "std", "var_mean", "std_mean") and isinstance(given.get("dim"), bool):
        del given["dim"]  # x.var(False)
    dim = given.get("dim", kwargs.get("axis"))
    dims = [dim] if isinstance(dim, int) else list(dim or range(x.dim()))
    return _Call(x, tuple(rest), given, [d % max(x.dim(), 1) for d in dims])


def reduced(name: str, func: Callable[..., Any], args: Any, kwargs: Any, active: Sequence[EagerTile]) -> Any:
    """A torch function that combines elements along a jagged dimension, of those inside of rows only.

    Returns:
        The result; NotImplemented if the call is no such one.

    Raises:
        exc.BackendUnsupported: ref mode does not know how.
    """
    call = _call(name, args, kwargs)
    if call is None:
        return NotImplemented
    x = call.x
    inside = _rows(x, range(x.dim()) if name in _NOT_HERE else call.dims, active)
    if inside is None:
        return NotImplemented
    if name in _NOT_HERE:
        raise _unknown(name)
    if name in _MOMENTS:
        unbiased = next((v for v in (*call.rest, kwargs.get("unbiased")) if isinstance(v, bool)), True)
        return _moment(name, x, call.dims, call.keepdim, kwargs.get("correction", int(unbiased)), inside)
    rest, options = call.rest, {k: v for k, v in kwargs.items() if k != "input"}
    if name == "aminmax":
        least = func(_neutral(x, inside, _NEUTRAL["amin"]), *rest, **options).min
        return torch.return_types.aminmax((least, func(_neutral(x, inside, _NEUTRAL["amax"]), *rest, **options).max))
    neutral = _norm_neutral(call) if name in _NORMS else _NEUTRAL[name]
    return func(_neutral(x, inside, neutral), *rest, **options)


def check_keeps_rows(name: str, args: Any, kwargs: Any, result: Any, active: Sequence[EagerTile]) -> None:
    """Check that a torch function has not combined elements along a jagged dimension unseen: of one that ref mode does
    not know, no result may be without the dimension.

    Raises:
        exc.BackendUnsupported: one is.
    """
    results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
    for x in tree_leaves((args, kwargs)):
        if not isinstance(x, torch.Tensor) or not results:
            continue
        axes = list(axes_of(x))
        for tile in active:
            if tile.lengths is None or _inside(tile, axes) is None:
                continue
            if any(tile.axis not in axes_of(r) for r in results):
                raise _unknown(name)


def axes_of_reduction(name: str, args: Any, kwargs: Any) -> list[Any] | None:
    """The axes of what a reduction gives; None for any other call."""
    call = _call(name, args, kwargs)
    if call is None or name in _NOT_HERE or name.endswith("softmax"):
        return None
    axes = list(axes_of(call.x))
    return [None if d in call.dims else axis for d, axis in enumerate(axes) if call.keepdim or d not in call.dims]


def _unknown(name: str) -> exc.BaseError:
    return exc.BackendUnsupported(
        backend="ref mode", reason=f"torch.{name} along a jagged dimension", fix="write it with sums and maxima."
    )


def _neutral(x: torch.Tensor, inside: torch.Tensor, neutral: Callable[[torch.dtype], Any]) -> torch.Tensor:
    return torch.where(inside, x, torch.full((), neutral(x.dtype), dtype=x.dtype, device=x.device))


def _norm_neutral(call: _Call) -> Callable[[torch.dtype], Any]:
    order = call.given.get("ord", call.given.get("p", 2))
    return lambda dtype: float("inf") if isinstance(order, (int, float)) and order < 0 else 0


def _moment(name: str, x: torch.Tensor, dims: list[int], keepdim: bool, correction: Any, inside: torch.Tensor) -> Any:
    wide = x.to(torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype)
    zero = torch.zeros((), dtype=wide.dtype, device=x.device)
    count = inside.expand(x.shape).sum(dims, keepdim=True)
    mean = torch.where(inside, wide, zero).sum(dims, keepdim=True) / count
    centered = torch.where(inside, wide - mean, zero)
    spread = (centered * centered).sum(dims, keepdim=True) / (count - (1 if correction is None else correction))
    first = {"mean": mean, "var": spread, "var_mean": spread}.get(name, spread.sqrt())
    results = [first, mean] if name.endswith("_mean") else [first]
    kept = [value.to(x.dtype) for value in results]
    if not keepdim:
        kept = [value.squeeze(dims) for value in kept]
    return tuple(kept) if len(kept) > 1 else kept[0]


# -- where rows end ------------------------------------------------------------------------------------------


def only_inside(tile: EagerTile, block: Any, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """What a jagged loop carries: of a new value the lanes inside of their row, of the one before the others.

    Either has a lane per element of a full tile, or of this one; made with the loop's `block` size before the loop, it
    has one for each element of the tiles to come.
    """
    axes = [tile.axis if isinstance(axis, Lanes) and axis.block is block else axis for axis in axes_of(new)]
    inside = _inside(tile, axes)
    if inside is None or new is old or new.dim() != old.dim():
        return new
    at = axes.index(tile.axis)
    result = old.clone()
    count = min(new.shape[at], tile.extent)
    part = result.narrow(at, 0, min(count, old.shape[at]))
    if part.shape[at] != count or any(d != at and n != o for d, (n, o) in enumerate(zip(new.shape, old.shape))):
        return new  # another shape, which no loop carries
    part.copy_(torch.where(inside.narrow(at, 0, count), new.narrow(at, 0, count), part))
    return marked(result, axes_of(old))


def _filled(value: torch.Tensor, dims: Sequence[int], neutral: Any, active: Sequence[EagerTile]) -> torch.Tensor:
    inside = _rows(value, dims, active)
    if inside is None:
        return value
    return torch.where(inside, value, torch.full((), neutral, dtype=value.dtype, device=value.device))


def _rows(value: torch.Tensor, dims: Sequence[int], active: Sequence[EagerTile]) -> torch.Tensor | None:
    """Where a value has elements, as far as combining it along `dims` has to know; None where that is everywhere."""
    axes = list(axes_of(value))
    mask: torch.Tensor | None = None
    for tile in active:
        if tile.lengths is None:
            continue
        involved = [tile.axis, *axes_of(tile.lengths)]
        inside = _inside(tile, axes)
        if inside is not None and any(axes[d] is not None and axes[d] in involved for d in dims):
            mask = inside if mask is None else mask & inside
    return mask


def _inside(tile: EagerTile, axes: list[Any]) -> torch.Tensor | None:
    """Whether each element of a value with these axes lies inside its row, size 1 in other dimensions; None when the
    value is not by rows."""
    lengths = tile.lengths
    assert lengths is not None
    rows = axes_of(lengths)
    if tile.axis not in axes or not all(axis in axes for axis in rows):
        return None
    base = tile.base
    positions = torch.arange(int(base.begin), int(base.end), device=lengths.device)
    shape = [1] * len(axes)
    shape[axes.index(tile.axis)] = len(positions)
    order = sorted(range(len(rows)), key=lambda dim: axes.index(rows[dim]))
    placed = [1] * len(axes)
    for dim in order:
        placed[axes.index(rows[dim])] = lengths.shape[dim]
    return positions.reshape(shape) < lengths.permute(order).reshape(placed)
