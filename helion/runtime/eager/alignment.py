"""Operands in ref mode: aligned by tile (`language.alignment`), by the marks that values carry."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map

from ... import exc
from ...language.alignment import Dim
from ...language.alignment import places
from ...language.alignment import places_of_tiles
from ...language.alignment import two_tiles
from ...language.alignment import vector_beside_its_tile
from ...language.containers import tensors_of_call
from ...language.eager_tile import EagerTile
from ...language.op import Op
from ...numbers import next_power_of_2

#: The attribute in which a device value has its loop axes.
MARK = "_helion_axes"
#: Operators whose ATen op has another name.
_OPERATORS = {"truediv": "div", "floordiv": "floor_divide", "sub": "sub", "invert": "bitwise_not"}
#: Gives the loop axis of each dimension of a value.
AxesOf = Callable[[torch.Tensor], Sequence[Any]]
#: For each dimension of an operand of higher rank, the one of another operand that goes with it.
Rule = Callable[[Sequence[Dim], Sequence[Dim]], "list[int | None] | None"]
#: Makes a view of a value with its dimensions in an order, None for new ones.
Arranged = Callable[[torch.Tensor, Sequence[int | None]], torch.Tensor]


def marked(value: torch.Tensor, axes: Sequence[Any]) -> torch.Tensor:
    """A device value, with the loop axis of each dimension."""
    setattr(value, MARK, tuple(axes))
    return value


@functools.cache
def is_pointwise(name: str) -> bool:
    """Whether a torch function, by its name, works element by element on operands that broadcast."""
    plain = name.strip("_")
    plain = _OPERATORS.get(plain, plain)
    if name.startswith("__r") and not hasattr(torch.ops.aten, plain):
        plain = _OPERATORS.get(plain[1:], plain[1:])
    packet = getattr(torch.ops.aten, plain, None)
    return packet is not None and any(torch.Tag.pointwise in getattr(packet, o).tags for o in packet.overloads())


@dataclasses.dataclass(frozen=True, eq=False)
class JaggedAxis:
    """The axis of a loop of hl.jagged_tile."""


@dataclasses.dataclass(frozen=True, eq=False)
class Lanes:
    """In place of the loop axis of a dimension: it has one lane per element of a full tile.

    Attributes:
        block: the registered block size that the dimension was made with, if one was.
    """

    block: Any = None


@dataclasses.dataclass(frozen=True)
class Stretched(Lanes):
    """In place of the loop axis of a dimension whose length a tile's block size has a part in:
    `x[t.begin - 2 : t.begin + t.block_size + 2]`.
    """


def with_lanes(value: torch.Tensor, axes: Sequence[Any], wanted: dict[int, tuple[int, int]]) -> torch.Tensor:
    """A value of constant sizes as one that has a partial tile's elements.

    Args:
        value: a device value.
        axes: the loop axes of its dimensions.
        wanted: for dimensions, counted from the end: the block size of a partial tile, and how many elements it has.
    """
    cuts = [
        (dim, few)
        for dim in range(value.dim())
        for many, few in [wanted.get(value.dim() - dim, (-1, -1))]
        if axes[dim] is None and value.shape[dim] == many
    ]
    for dim, few in cuts:
        value = value.narrow(dim, 0, few)
    return value


def operands_of_product(
    op: Op, args: tuple[Any, ...], active: Sequence[EagerTile], axes_of: AxesOf, name_of: Callable[[Any], str]
) -> tuple[Any, ...]:
    """The arguments of an op; those of a matrix product with as many columns of the accumulator as it has.

    Raises:
        exc.ShapeMismatch: the product is over elements of two tiles.
    """
    if op.product is None:
        return args
    a, b = axes_of(args[op.product.a_at]), axes_of(args[op.product.b_at])
    check_one_tile([a[-1:], b[-2:-1]], active, name_of)
    if not isinstance(args[op.positions["acc"]], torch.Tensor):
        return args
    at = op.positions["acc"]
    columns = args[op.product.b_at].shape[-1:]
    acc = with_lanes(args[at], axes_of(args[at]), padded([args[at]], axes_of, columns))
    return (*args[:at], acc, *args[at + 1 :])


def partial_tiles(axes: Sequence[Any], active: Sequence[EagerTile]) -> dict[int, tuple[int, int]]:
    """For dimensions that are a partial tile's, counted from the end: its block size, and how many elements it has."""
    partial = {id(tile.axis): tile for tile in active if 1 < int(tile.block_size) > tile.extent}
    rank = len(axes)
    return {
        rank - dim: (int(partial[id(axis)].block_size), partial[id(axis)].extent)
        for dim, axis in enumerate(axes)
        if axis is not None and id(axis) in partial
    }


def padded(tensors: Sequence[torch.Tensor], axes_of: AxesOf, shape: Sequence[int] = ()) -> dict[int, tuple[int, int]]:
    """For dimensions, counted from the end, of which an operand (or `shape`) has n elements and another one the power
    of two that n is padded to: that, and n."""
    sizes: dict[int, set[int]] = {}
    for known in (*(t.shape for t in tensors), shape):
        for place, size in enumerate(reversed(known), 1):
            sizes.setdefault(place, set()).add(int(size))
    for tensor in tensors:
        for place, axis in enumerate(reversed(axes_of(tensor)), 1):
            if axis is not None:
                sizes.pop(place, None)
    found = {place: min(n for n in held if n > 1) for place, held in sizes.items() if max(held) > 1}
    return {place: (next_power_of_2(n), n) for place, n in found.items() if n < next_power_of_2(n) in sizes[place]}


def to_shape(
    value: torch.Tensor,
    shape: Sequence[int],
    axes: Sequence[Any],
    axes_of: AxesOf,
    arranged: Arranged,
    rule: Rule = places,
) -> torch.Tensor:
    """A device value as one whose dimensions align from the right with those of `shape`, which run over `axes`."""
    if not 0 < value.dim() < len(shape):
        return value
    at = rule(
        [Dim(size, _tile(axis)) for size, axis in zip(value.shape, axes_of(value), strict=True)],
        [Dim(size, _tile(axis)) for size, axis in zip(shape, axes, strict=True)],
    )
    return value if at is None else arranged(value, at)


def _tile(axis: Any) -> Any:
    return None if isinstance(axis, Lanes) else axis


def check_one_tile(dims: Sequence[Sequence[Any]], active: Sequence[EagerTile], name_of: Callable[[Any], str]) -> None:
    """Check that dimensions which go together, counted from the end, have the elements of one tile.

    Args:
        dims: the loop axes of each operand.
        active: the tiles around.
        name_of: what the user's code calls a tile.

    Raises:
        exc.ShapeMismatch: they are two tiles', even if those have equally many elements here.
    """
    for met in itertools.zip_longest(*map(reversed, dims)):
        tiles = [tile for tile in active if any(tile.axis is axis for axis in met)]
        tiles = [tile for tile in tiles if not getattr(tile.axis, "is_one", False)]  # one element broadcasts
        if len(tiles) > 1:
            raise two_tiles(name_of(tiles[0]), name_of(tiles[1]))


def tile_of_two(axes: Sequence[Any], active: Sequence[EagerTile], other: EagerTile | None) -> EagerTile | None:
    """A tile that two of the dimensions have, or the other one."""
    return next((tile for tile in active if sum(tile.axis is axis for axis in axes) > 1), other)


def check_rank(
    axes: Sequence[Any],
    rank: int,
    active: Sequence[EagerTile],
    beside: EagerTile | None,
    name_of: Callable[[Any], str],
) -> None:
    """Check that a value to be stored has no more dimensions of tiles than its place: with a block size of 1 it would
    fit all the same.

    Args:
        axes: the value's.
        rank: of the place.
        active: the tiles around.
        beside: a tile that was an index beside a vector of its own, which may be what is wrong.
        name_of: what the user's code calls a tile.

    Raises:
        exc.ShapeMismatch: it has.
    """
    for tile in active:
        if any(tile.axis is axis for axis in axes[: max(len(axes) - rank, 0)]):
            name = name_of(tile)
            raise exc.ShapeMismatch(
                f"a value with a dimension of tile {name!r} does not broadcast to a place of {rank}",
                fix=None if beside is None else vector_beside_its_tile(name_of(beside)),
            )


def aligned(
    name: str, args: Any, kwargs: Any, active: Sequence[EagerTile], axes_of: AxesOf, arranged: Arranged
) -> tuple[Any, Any]:
    """The arguments of a torch function; those of a pointwise one, or of `expand_as`, aligned by tile."""
    tensors = tensors_of_call(args, kwargs)
    if len(tensors) < 2 or not (name == "expand_as" or is_pointwise(name)):
        return args, kwargs
    if len({t.dim() for t in tensors if t.dim()}) > 1:
        args, kwargs = _each_to_largest(args, kwargs, axes_of, arranged, places_of_tiles)
        tensors = tensors_of_call(args, kwargs)
    wanted = padded(tensors, axes_of)
    wanted |= {place: cut for t in tensors for place, cut in partial_tiles(axes_of(t), active).items()}
    if wanted:

        def cut(leaf: Any) -> Any:
            known = isinstance(leaf, torch.Tensor) and leaf.__dict__.get(MARK) is not None
            return marked(with_lanes(leaf, axes_of(leaf), wanted), axes_of(leaf)) if known else leaf

        args, kwargs = tree_map(cut, args), tree_map(cut, kwargs)
        tensors = tensors_of_call(args, kwargs)
    if len({t.dim() for t in tensors if t.dim()}) < 2:
        return args, kwargs
    return _each_to_largest(args, kwargs, axes_of, arranged, places)


def _each_to_largest(args: Any, kwargs: Any, axes_of: AxesOf, arranged: Arranged, rule: Rule) -> tuple[Any, Any]:
    """The arguments of a pointwise function, those of lower rank than the largest as one rule has them go with it."""
    largest = max(tensors_of_call(args, kwargs), key=torch.Tensor.dim)

    def align(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return to_shape(leaf, largest.shape, axes_of(largest), axes_of, arranged, rule)

    return tree_map(align, args), tree_map(align, kwargs)
