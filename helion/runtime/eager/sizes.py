"""Sizes in ref mode: one that is a tile's, or the length of a jagged tile, says whose a dimension is."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import torch

from ...language.eager_tile import EagerInt
from ...language.eager_tile import EagerTile
from ...language.eager_tile import extent_of
from ...language.refusals import squeezes_a_tile
from ...language.shapes import canonical_dims
from .alignment import JaggedAxis
from .alignment import Lanes


def axes_of_shape(shape: Any) -> list[Any]:
    """The axes of a new value whose shape is given by tiles and block sizes."""
    items = shape if isinstance(shape, (list, tuple)) else [shape]
    sources = [item.source if isinstance(item, EagerInt) else item for item in items]
    return [
        source.axis if isinstance(source, EagerTile) else Lanes(source) if isinstance(item, EagerInt) else None
        for item, source in zip(items, sources, strict=True)
    ]


def axes_of_expanded(args: Sequence[Any], kwargs: dict[str, Any], axes_of: Callable[..., Sequence[Any]]) -> list[Any]:
    """The axes of a value that `expand` or `broadcast_to` makes larger: its own, and of the sizes that are tiles."""
    value = args[0] if args else kwargs["input"]
    given = args[1:] or [kwargs.get("size", ())]
    sizes = given[0] if isinstance(given[0], (list, tuple)) else given
    new = len(sizes) - value.dim()
    kept = zip(axes_of(value), value.shape, sizes[new:])
    own = [*[None] * new, *(axis if extent_of(now) in (-1, size) else None for axis, size, now in kept)]
    sources = [size.source if isinstance(size, EagerInt) else size for size in sizes]
    return [source.axis if isinstance(source, EagerTile) else axis for source, axis in zip(sources, own)]


def sizes_with_tiles(
    told: Any, value: torch.Tensor, dim: Sequence[Any], axes: Sequence[Any], active: Sequence[EagerTile]
) -> Any:
    """What `size` or `shape` of a device value tells; where a dimension is a jagged tile's, a shape that is made with
    it has that tile's rows.

    Args:
        told: what PyTorch says.
        dim: the dimension that was asked for, if one was.
    """
    jagged = {tile.axis: tile for tile in active if isinstance(tile.axis, JaggedAxis)}
    if not jagged or jagged.keys().isdisjoint(axes):
        return told
    sizes = [EagerInt(n, source=jagged[axis]) if axis in jagged else n for n, axis in zip(value.shape, axes)]
    return torch.Size(sizes) if isinstance(told, torch.Size) else sizes[dim[0]] if dim else told


def squeezed(args: tuple[Any, ...], kwargs: dict[str, Any], axes: Sequence[Any]) -> tuple[torch.Tensor, list[Any]]:
    """`torch.squeeze(*args, **kwargs)` of a value with these axes, and the axes of the result.

    A tile has a dimension of one where the kernel gives 1 for its block size, and not where the Config does, or where
    it is the last one of its loop and smaller.

    Raises:
        exc.TorchOpTracingError: another tile's dimension is to go.
    """
    x = args[0]
    given = [*args[1:], *kwargs.values()]
    dims = [d for dim in given for d in (dim if isinstance(dim, (tuple, list)) else [dim]) if d is not None]
    of_tiles = {d for d, axis in enumerate(axes) if axis is not None and not getattr(axis, "is_one", False)}
    named = canonical_dims(x, dims) if dims else [d for d in range(x.dim()) if d not in of_tiles]
    for d in named:
        if d in of_tiles:
            raise squeezes_a_tile(d)
    gone = [d for d in named if x.size(d) == 1]
    return torch.squeeze(x, tuple(gone)), [axis for d, axis in enumerate(axes) if d not in gone]
