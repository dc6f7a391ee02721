"""Moving elements of device values: `hl.join`, `hl.split`, and picking along a dimension.

Other views are torch's own (`reshape`, `permute`, `unsqueeze`, ...).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import exc
from .eager_access import as_moved
from .eager_tile import extent_of
from .indexing import INDEX_DTYPES
from .op import device_op
from .shapes import broadcast_shapes
from .shapes import constant_fix
from .shapes import normalize_dim
from .shapes import resolve_shape
from .shapes import same_size
from .shapes import shape_text


def check_width(own: torch.dtype, other: torch.dtype) -> None:
    """Check that a value of a dtype has a view as another one, `value.view(dtype)`.

    Raises:
        exc.UnsupportedDtype: elements of the two have other widths.
    """
    if own.itemsize != other.itemsize:
        raise exc.UnsupportedDtype(
            f"a value of {own} in device code has no view as {other}, whose elements have another width",
            fix=f"make the view of the host tensor, before the loops: `y = x.view({other})`, of part of the columns "
            f"`y = x[:, d:].view({other})`; or put elements together by shifts.",
        )


@device_op(shape_args=["shape"])
def lanes_of(tensor: torch.Tensor, shape: Sequence[Any]) -> torch.Tensor:
    """A value whose dimensions of constant size are those of tiles: the first elements of each, as many as a tile has.

    Args:
        tensor: a device value.
        shape: the shape it is given: a tile's size in place of the same constant, other sizes as they are.
    """
    raise NotImplementedError


@lanes_of.set_shape_rule
def _(tensor: torch.Tensor, shape: Sequence[Any]) -> torch.Tensor:
    return torch.empty(resolve_shape(shape, "hl.lanes_of"), dtype=tensor.dtype, device=tensor.device)


@lanes_of.set_eager_rule
def _(tensor: torch.Tensor, shape: Sequence[Any]) -> torch.Tensor:
    for dim, size in enumerate(resolve_shape(shape, "hl.lanes_of")):
        tensor = tensor.narrow(dim, 0, extent_of(size))
    return tensor


@device_op()
def split(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The two halves of a last dimension of size 2.

    Args:
        tensor: [..., 2].

    Returns:
        `tensor[..., 0]` and `tensor[..., 1]`.

    Raises:
        exc.ShapeMismatch: the last dimension is not 2.
    """
    raise NotImplementedError


@split.set_shape_rule
def _(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if not isinstance(tensor, torch.Tensor):
        raise exc.InvalidAPIUsage(f"hl.split needs a tensor, got {type(tensor).__name__}")
    if tensor.dim() == 0 or not (isinstance(tensor.shape[-1], int) and tensor.shape[-1] == 2):
        raise exc.ShapeMismatch(
            f"hl.split needs a last dimension of size 2, got {shape_text(tensor.shape)}",
            fix=constant_fix(tensor.shape[-1] if tensor.dim() else 0, "reshape to [..., n, 2] first."),
        )
    left, right = (torch.empty(tensor.shape[:-1], dtype=tensor.dtype, device=tensor.device) for _ in range(2))
    return left, right


@split.set_eager_rule
def _(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if not isinstance(tensor, torch.Tensor) or tensor.dim() == 0 or tensor.shape[-1] != 2:
        raise exc.ShapeMismatch("hl.split needs a last dimension of size 2", fix="reshape to [..., n, 2] first.")
    return tensor[..., 0], tensor[..., 1]


@device_op()
def join(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Two tensors side by side in a new last dimension.

    Args:
        left, right: tensors that broadcast with each other; dtypes promote as in torch.stack.

    Returns:
        [..., 2] with `result[..., 0] == left` and `result[..., 1] == right`.
    """
    raise NotImplementedError


@join.set_shape_rule
def _(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    for operand in (left, right):
        if not isinstance(operand, torch.Tensor):
            raise exc.InvalidAPIUsage(f"hl.join needs tensors, got {type(operand).__name__}")
    shape = broadcast_shapes(left.shape, right.shape, what="hl.join")
    return torch.empty([*shape, 2], dtype=torch.promote_types(left.dtype, right.dtype), device=left.device)


@join.set_eager_rule
def _(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    dtype = torch.promote_types(left.dtype, right.dtype)
    return torch.stack(torch.broadcast_tensors(left.to(dtype), right.to(dtype)), dim=-1)


@device_op()
def take_along_dim(tensor: torch.Tensor, index: torch.Tensor, dim: int) -> torch.Tensor:
    """Elements of a device value picked along one dimension: what `torch.gather` and the like come down to.

    Args:
        tensor: device value.
        index: integer tensor of the same rank and, except along `dim`, the same shape; values in range.
        dim: dimension to pick along.

    Returns:
        `index`'s shape, `tensor`'s dtype: `result[.., i, ..] = tensor[.., index[.., i, ..], ..]`.
    """
    raise NotImplementedError


@take_along_dim.set_shape_rule
def _(tensor: torch.Tensor, index: torch.Tensor, dim: int) -> torch.Tensor:
    what = "hl.take_along_dim"
    if index.dtype not in INDEX_DTYPES:
        raise exc.InvalidAPIUsage(f"{what}: a tensor of dtype {index.dtype} is not an index")
    at = normalize_dim(dim, tensor.dim(), what)
    fits = index.dim() == tensor.dim() and all(
        d == at or same_size(a, b) for d, (a, b) in enumerate(zip(tensor.shape, index.shape, strict=True))
    )
    if not fits:
        raise exc.ShapeMismatch(
            f"{what}: index of shape {shape_text(index.shape)} for a value of shape {shape_text(tensor.shape)}"
        )
    return torch.empty(index.shape, dtype=tensor.dtype, device=tensor.device)


@take_along_dim.set_eager_rule
def _(tensor: torch.Tensor, index: torch.Tensor, dim: int) -> torch.Tensor:
    try:
        return torch.gather(as_moved(tensor), dim, index.to(torch.int64)).view(tensor.dtype)
    except RuntimeError:
        size, low, high = tensor.size(dim), int(index.min()), int(index.max())
        if low >= 0 and high < size:
            raise
        raise exc.IndexOutOfRange(name="a device value", dim=dim, size=size, low=low, high=high) from None
