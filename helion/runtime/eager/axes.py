"""Marks of device values in ref mode: the loop axis of each dimension, and whose the dimensions of results are.

Values that device code makes are PyTorch's own tensors; their marks tell host tensors from device values, give ragged
loops their masks, and tell the one element of a partial tile from a dimension of size 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves
from torch.utils._pytree import tree_map

from ...language.containers import tensors_of_call
from ...language.creation import full
from ...language.creation import iota
from ...language.eager_tile import EagerInt
from ...language.eager_tile import EagerTile
from ...language.eager_tile import is_length_of_tile
from ...language.indexing import index_list
from ...language.indexing import normalize_index
from ...language.matmul import dot
from ...language.op import Op
from ...language.reductions import reduce
from ...language.scans import associative_scan
from ...language.scans import cumprod
from ...language.scans import cumsum
from ...language.sorting import sort_keys
from ...language.subscripts import subscript
from ...language.tile import tile_index
from ...language.views import join
from ...language.views import split
from ...language.views import take_along_dim
from .alignment import MARK as _MARK
from .alignment import JaggedAxis
from .alignment import Lanes
from .alignment import Stretched
from .sizes import axes_of_shape
from .subscripts import axes_of_part

Axes = tuple[Any, ...]

_RESHAPING = frozenset(["view", "reshape", "flatten", "unflatten", "squeeze"])
PRODUCTS = frozenset(["matmul", "mm", "bmm", "addmm", "baddbmm", "__matmul__"])
#: Those whose result may have the shape of an operand by chance.
_CONTRACTIONS = frozenset(
    ["einsum", "tensordot", "linear", "bilinear", "mv", "addmv", "inner", "outer", "dot", "vecdot", "__rmatmul__"]
)
#: Those that put dimensions in another order.
_PERMUTING = frozenset(
    ["T", "mT", "H", "mH", "t", "transpose", "swapaxes", "swapdims", "permute", "movedim", "moveaxis"]
)


def is_device_value(tensor: torch.Tensor) -> bool:
    """Whether a tensor was made in device code."""
    return _MARK in tensor.__dict__


def axes_of(tensor: torch.Tensor) -> Axes:
    """The loop axis of each dimension, None where it is not known."""
    axes: Axes | None = tensor.__dict__.get(_MARK)
    return (None,) * tensor.dim() if axes is None else axes


def mark(result: Any, axes: Sequence[Any] | None = None) -> Any:
    """Mark every tensor in `result` as a device value; `axes` for those it fits."""
    for leaf in tree_leaves(result):
        if isinstance(leaf, torch.Tensor) and not (is_device_value(leaf) and axes is None):
            fits = axes is not None and len(axes) == leaf.dim()
            setattr(leaf, _MARK, tuple(axes) if fits and axes is not None else None)
    return result


def axes_of_index(sizes: Sequence[int], index: Any) -> list[Any]:
    """The loop axis of each dimension of `x[index]` for `x` of shape `sizes`."""
    items = normalize_index(sizes, index, "indexing")
    gathered = broadcast_axes([item.value for item in items if item.kind == "tensor"])
    axes: list[Any] = []
    placed = False
    for item in items:
        if item.kind == "tile":
            axes.append(item.value.axis)
        elif item.kind in ("slice", "new"):
            axes.append(None)
        elif item.kind == "tensor" and not placed:
            axes.extend(gathered)
            placed = True
    return axes


def broadcast_axes(tensors: Sequence[torch.Tensor]) -> list[Any]:
    """The axes of the broadcast of some tensors: for each dimension the first known one of a full operand."""
    ndim = max((t.dim() for t in tensors), default=0)
    axes: list[Any] = [None] * ndim
    for tensor in tensors:
        for i, axis in enumerate(axes_of(tensor)):
            at = ndim - tensor.dim() + i
            if (
                (axes[at] is None and axis is not None)
                or (isinstance(axes[at], Lanes) and isinstance(axis, JaggedAxis))
                or (isinstance(axes[at], Stretched) and axis is not None)
            ):
                axes[at] = axis
    return axes


def axes_of_op(op: Op, args: tuple[Any, ...]) -> list[Any] | None:
    """The axes of the result of a language op, where they follow from its arguments."""
    if op.access is not None and op.access.addresses_at is None:
        index = args[op.access.index_at]
        axes = axes_of_index(args[0].shape, index)
        tensors = [e for e in index_list(index) if isinstance(e, torch.Tensor) and e.dim()]
        # A vector made by one of which it is not known whose it is: nor is it of that one.
        return None if len(axes) == 1 and any(e.__dict__.get(_MARK) is None for e in tensors) else axes
    if op is tile_index:
        return [args[0].axis]
    if op is iota:
        tile = args[1].source if isinstance(args[1], EagerInt) else None
        if isinstance(tile, EagerTile):
            return [tile.axis]
        return [Stretched()] if is_length_of_tile(args[1]) else None if isinstance(args[1], EagerInt) else [None]
    if op is full:
        return axes_of_shape(args[0])
    if op is subscript:
        return axes_of_part(args[0], args[1], axes_of(args[0]))
    if op is dot:
        return [*axes_of(args[0])[:-1], axes_of(args[1])[-1]]
    values = tensors_of_call(args, {})
    if op is split:
        return list(axes_of(args[0])[:-1])
    if op is join:
        return [*broadcast_axes(values), None]
    if op is reduce and values:
        dim, keep = args[2] % values[0].dim(), args[4]
        return [None if d == dim else a for d, a in enumerate(broadcast_axes(values)) if keep or d != dim]
    if op is take_along_dim:
        (_, index, dim), rank = args, args[0].dim()
        along = axes_of(index)[dim]
        return [along if d == dim % rank else a for d, a in enumerate(broadcast_axes([index, args[0]]))]
    if op in (associative_scan, cumsum, cumprod, sort_keys) and values:
        return broadcast_axes(values)
    return None


def axes_of_view(value: torch.Tensor, shape: Sequence[int]) -> list[Any]:
    """The axes of a value in another shape: of the dimensions that it keeps as they are."""
    axes: list[Any] = [None] * len(shape)
    place = 0
    for d, size in enumerate(value.shape):
        before = math.prod(value.shape[:d])
        same = (i for i in range(place, len(shape)) if shape[i] == size and math.prod(shape[:i]) == before)
        at = next(same, None)
        if at is not None:
            axes[at], place = axes_of(value)[d], at + 1
    return axes


def _permuted(func: Callable[..., Any], args: Any, axes: Axes) -> list[Any]:
    """The axes of the result of a function that puts dimensions in another order: strides tell where they went."""
    (tensor, *rest), kwargs = args
    probe = torch.empty_strided([1] * tensor.dim(), list(range(1, tensor.dim() + 1)), device="meta")
    return [axes[stride - 1] for stride in func(probe, *rest, **kwargs).stride()]


def _probed(func: Callable[..., Any], args: Any, tensors: Sequence[torch.Tensor]) -> list[Any] | None:
    """The axes of the results of a function of any kind: each axis gets a size that nothing else has, and the sizes of
    the results tell where it went.
    """
    known = list(dict.fromkeys(axis for tensor in tensors for axis in axes_of(tensor) if axis is not None))
    if not known:
        return None
    # Larger than what sizes add up to: 3 columns beside 1 are 4.
    first = 4097 + sum(tensor.numel() for tensor in tensors)
    found = {first + i: axis for i, axis in enumerate(known)}

    def probe(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        sizes = [n if axis is None else first + known.index(axis) for axis, n in zip(axes_of(leaf), leaf.shape)]
        return torch.empty(sizes, dtype=leaf.dtype, device="meta")

    positional, named = tree_map(probe, args)
    try:
        results = tree_leaves(func(*positional, **named))
    except (RuntimeError, IndexError):
        return None  # one operand has all of a dimension of which another has a tile
    axes = [[found.get(n) for n in result.shape] for result in results if isinstance(result, torch.Tensor)]
    return axes[0] if axes and all(own == axes[0] for own in axes) else None


def axes_of_call(func: Callable[..., Any], name: str, args: Any, result: Any) -> list[Any] | None:
    """The axes of the result, or of all results, of a torch function; None where they are not known."""
    tensors = tensors_of_call(*args)
    if name in ("expand_as", "broadcast_tensors"):
        return broadcast_axes(tensors)
    if not isinstance(result, torch.Tensor):
        return _probed(func, args, tensors) if isinstance(result, (tuple, list)) else None
    if name in _RESHAPING and len(tensors) == 1:
        return axes_of_view(tensors[0], result.shape)
    if name in PRODUCTS:
        if len(tensors) > 1 and result.dim() == tensors[-1].dim() == tensors[-2].dim() > 1:
            return [*axes_of(tensors[-2])[:-1], axes_of(tensors[-1])[-1]]
        return _probed(func, args, tensors)
    if name in _PERMUTING and tensors:
        return _permuted(func, args, axes_of(tensors[0]))
    if name in ("expand", "broadcast_to"):
        return None  # of the shape that they are given
    if name == "unsqueeze":
        axes = list(axes_of(tensors[0]))
        place = args[0][1] if len(args[0]) > 1 else args[1]["dim"]
        axes.insert(place % result.dim(), None)
        return axes
    try:
        same_shape = tensors and torch.broadcast_shapes(*(t.shape for t in tensors)) == result.shape
    except RuntimeError:
        same_shape = False
    if same_shape and name not in _CONTRACTIONS:
        return broadcast_axes(tensors)
    return _probed(func, args, tensors) if tensors else None
