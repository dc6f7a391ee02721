"""`Tile`: the value of a loop variable of `hl.tile`, and the functions that read one.

A tile is a block of consecutive indices `[begin, end)` of one dimension of a loop.  It indexes tensors
(`x[tile]`), gives its indices as a tensor (`tile.index`), and stands for its size in shapes
(`torch.zeros([tile, 8])`).  The tracer and the eager handlers subclass it; how loops are declared is in
`loops`.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING
from typing import Any

import torch

from .. import exc
from .op import current_handler
from .op import device_op

if TYPE_CHECKING:
    from typing_extensions import Self


class Tile(abc.ABC):
    """A block of consecutive indices of one loop dimension.

    Attributes:
        begin: first index (int, or SymInt when tracing).
        end: one past the last index; never beyond the end of the loop's range.
        block_size: the number of indices of a full tile, a constant of the compiled kernel.  The last tile
            of a range may be partial: on a GPU its tensors still have `block_size` elements (masked), in
            eager modes they have `end - begin`.
        id: number of the tile in its loop, from 0.
        count: number of tiles of its loop.
        range_begin, range_end: bounds of the whole loop.
        offset: what was added by `tile + k`; 0 for a loop variable.
        lengths: for a tile of `hl.jagged_tile`, the tensor of row lengths; else None.
    """

    lengths: torch.Tensor | None = None

    @property
    @abc.abstractmethod
    def begin(self) -> Any: ...

    @property
    @abc.abstractmethod
    def end(self) -> Any: ...

    @property
    @abc.abstractmethod
    def block_size(self) -> Any: ...

    @property
    @abc.abstractmethod
    def id(self) -> Any: ...

    @property
    @abc.abstractmethod
    def count(self) -> Any: ...

    @property
    @abc.abstractmethod
    def range_begin(self) -> Any: ...

    @property
    @abc.abstractmethod
    def range_end(self) -> Any: ...

    @property
    @abc.abstractmethod
    def offset(self) -> Any: ...

    @property
    @abc.abstractmethod
    def base(self) -> Tile:
        """The loop variable this tile is a shift of; itself when `offset` is 0."""

    @abc.abstractmethod
    def shifted(self, offset: Any) -> Self:
        """This tile with `offset` (int, SymInt or 0-d integer tensor) added to every index."""

    @property
    def index(self) -> torch.Tensor:
        """The tile's indices: 1-d integer tensor of the size of the tile."""
        index: torch.Tensor = tile_index(self.base)
        if isinstance(self.offset, int) and self.offset == 0:
            return index
        shifted: torch.Tensor = index + self.offset
        return shifted

    def __add__(self, other: Any) -> Self:
        if not _is_scalar_index(other):
            return NotImplemented
        return self.shifted(other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Self:
        if not _is_scalar_index(other):
            return NotImplemented
        return self.shifted(-other)

    #: It is all there is of a loop over a list of one bound, so that `for (t,) in hl.tile([n])` takes it too.
    alone = False

    def __iter__(self) -> Any:
        if self.alone:
            return iter((self,))
        raise exc.FailedToUnpackTile(
            "a tile cannot be iterated over or unpacked",
            fix="index tensors with it, use tile.index, or loop with hl.tile(tile.begin, tile.end); a loop over two "
            "dimensions is `for a, b in hl.tile([m, n])`.",
        )

    def __bool__(self) -> bool:
        raise exc.InvalidAPIUsage("a tile has no truth value", fix="compare tile.begin, tile.id or tile.index instead.")


def _is_scalar_index(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, torch.Tensor):
        return value.dim() == 0 and not value.dtype.is_floating_point and value.dtype is not torch.bool
    return isinstance(value, (int, torch.SymInt))


def _as_tile(name: str, tile: Any) -> Tile:
    if not isinstance(tile, Tile):
        raise exc.InvalidAPIUsage(
            f"hl.{name} needs a tile, got {type(tile).__name__}", fix="pass the variable of an hl.tile() loop."
        )
    return tile


@device_op(takes_tiles=True, elementwise=True)
def tile_index(tile: Tile) -> torch.Tensor:
    """Indices of a tile, same as `tile.index`.

    Args:
        tile: a loop variable of `hl.tile`.

    Returns:
        1-d integer tensor (int32, or int64 where the kernel's index dtype is) of the tile's size.
    """
    raise NotImplementedError


@tile_index.set_shape_rule
def _(tile: Tile) -> torch.Tensor:
    tile = _as_tile("tile_index", tile)
    h = current_handler()
    return torch.empty([tile.block_size], dtype=h.index_dtype, device=h.device)


@tile_index.set_eager_rule
def _(tile: Tile) -> torch.Tensor:
    tile = _as_tile("tile_index", tile)
    h = current_handler()
    return torch.arange(int(tile.begin), int(tile.end), dtype=h.index_dtype, device=h.device)


def tile_begin(tile: Tile) -> Any:
    """First index of a tile, same as `tile.begin`."""
    return _as_tile("tile_begin", tile).begin


def tile_end(tile: Tile) -> Any:
    """One past the last index of a tile, same as `tile.end`."""
    return _as_tile("tile_end", tile).end


def tile_block_size(tile: Tile) -> Any:
    """Size of a full tile of this loop, same as `tile.block_size`."""
    return _as_tile("tile_block_size", tile).block_size


def tile_id(tile: Tile) -> Any:
    """Number of a tile in its loop, same as `tile.id`."""
    return _as_tile("tile_id", tile).id


def tile_count(tile: Tile) -> Any:
    """Number of tiles of a tile's loop, same as `tile.count`."""
    return _as_tile("tile_count", tile).count
