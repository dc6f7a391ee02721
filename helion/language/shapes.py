"""Shape arithmetic for shape rules: sizes that may be symbolic are compared without guarding on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import exc
from .op import current_handler
from .tile import Tile

Size = Any  # int or SymInt


def same_size(left: Size, right: Size) -> bool:
    """Whether two sizes are equal; a tile's size equals only itself.

    Sizes of arguments that may differ from call to call are equal where they are in the call that is traced, which
    becomes a guard.
    """
    if left is right:
        return True
    if isinstance(left, int) and isinstance(right, int):
        return left == right
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # loads sympy

    if isinstance(left, torch.SymInt) and isinstance(right, torch.SymInt) and left.node.expr == right.node.expr:
        return True  # tiles of one block size: the same symbol in two SymInts
    return statically_known_true(left == right) or current_handler("a shape").guard_equal(left, right)


def constant_fix(number: Any, otherwise: str) -> str:
    """What to do about a number that should be a constant: a line for the host code, or else `otherwise`."""
    text = current_handler("a constant").constant_text(number)
    return otherwise if text is None else f"put `{text}` before the loops, so that it is a constant."


def same_shape(left: Sequence[Size], right: Sequence[Size]) -> bool:
    """Whether two shapes have equal sizes (see `same_size`)."""
    return len(left) == len(right) and all(map(same_size, left, right))


def is_one(size: Size) -> bool:
    """Whether a size is the constant 1 (and so broadcasts)."""
    return isinstance(size, int) and size == 1


def broadcast_shapes(*shapes: Sequence[Size], what: str = "operands") -> list[Size]:
    """The broadcast of shapes by PyTorch's rule.

    Raises:
        exc.ShapeMismatch: two sizes differ and neither is 1.
    """
    ndim = max((len(s) for s in shapes), default=0)
    result: list[Size] = [1] * ndim
    for shape in shapes:
        for i, size in enumerate(shape):
            at = ndim - len(shape) + i
            if is_one(size):
                continue
            if is_one(result[at]):
                result[at] = size
            elif not same_size(result[at], size):
                raise exc.ShapeMismatch(
                    f"{what}: shapes do not broadcast: " + " and ".join(shape_text(s) for s in shapes)
                )
    return result


def check_broadcasts_to(shape: Sequence[Size], target: Sequence[Size], what: str) -> None:
    """Raise exc.ShapeMismatch unless `shape` broadcasts to exactly `target`."""
    fits = len(shape) <= len(target) and all(
        is_one(size) or same_size(size, wanted) for size, wanted in zip(reversed(shape), reversed(target), strict=False)
    )
    if not fits:
        raise exc.ShapeMismatch(f"{what}: shape {shape_text(shape)} does not broadcast to {shape_text(target)}")


def shape_text(shape: Sequence[Size]) -> str:
    """A shape for a message: `[64, u0]`."""
    return "[" + ", ".join(str(s) for s in shape) + "]"


def resolve_shape(shape: Any, what: str) -> list[Size]:
    """A shape as users write it (an int or a tile, or a list of ints, SymInts and tiles) as a list of sizes.

    Raises:
        exc.InvalidAPIUsage: an element is neither a size nor a tile.
    """
    items = list(shape) if isinstance(shape, (list, tuple)) else [shape]
    return [resolve_size(item, what) for item in items]


def resolve_size(item: Any, what: str) -> Size:
    """One element of a shape as a size; see `resolve_shape`."""
    if isinstance(item, Tile):
        return item.block_size
    if isinstance(item, (int, torch.SymInt)) and not isinstance(item, bool):
        return item
    if isinstance(item, torch.Tensor):
        raise exc.SizeNotConstant(
            what=f"a size of {what}",
            value="a value computed on the device",
            fix=(
                "take the size of a tile or an argument, and mask what is beyond the length (torch.where, extra_mask=)."
            ),
        )
    raise exc.InvalidAPIUsage(
        f"{what}: {type(item).__name__} is not a size",
        fix="shapes are made of integers, tiles and tile.block_size.",
    )


def normalize_dim(dim: Any, ndim: int, what: str) -> int:
    """`dim` in [0, ndim).

    Raises:
        exc.InvalidAPIUsage: not a constant int, or out of range.
    """
    if not isinstance(dim, int) or isinstance(dim, bool):
        raise exc.InvalidAPIUsage(f"{what}: dim must be a constant integer, got {type(dim).__name__}")
    if not -ndim <= dim < ndim:
        raise exc.InvalidAPIUsage(f"{what}: dim {dim} is out of range for a tensor of {ndim} dimensions")
    return dim % ndim


def canonical_dims(x: torch.Tensor, dims: Sequence[int]) -> list[int]:
    """Dimensions of `x`, counted from the front and sorted; none of a tensor that has none.

    Raises:
        exc.ShapeMismatch: one does not exist or is named twice.
    """
    found = []
    for dim in dims:
        if not -max(x.dim(), 1) <= dim < max(x.dim(), 1):
            raise exc.ShapeMismatch(
                f"dimension {dim} of a value of {x.dim()} dimensions",
                fix="count dimensions from 0, or from -1 backwards.",
            )
        found.append(dim % max(x.dim(), 1))
    if len(set(found)) != len(found):
        raise exc.ShapeMismatch(f"a dimension is named twice in {list(dims)}", fix="name each dimension once.")
    return sorted(found) if x.dim() else []
