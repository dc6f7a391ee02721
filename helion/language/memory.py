"""Reading and writing tensors: `hl.load`, `hl.store`, `hl.subscript`.

`x[index]` and `x[index] = value` in device code are `hl.load` and `hl.store`.  What an index means is in
`indexing`; read-modify-write is in `atomics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import exc
from .eager_access import EagerAccess
from .indexing import check_mask
from .indexing import check_value
from .indexing import indexed_shape
from .op import Effect
from .op import device_op

#: Values of `eviction_policy`; None leaves it to the config key `load_eviction_policies`.
EVICTION_POLICIES = (None, "", "evict_first", "evict_last")


def _check_target(tensor: Any, what: str) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise exc.InvalidAPIUsage(f"{what} needs a tensor, got {type(tensor).__name__}")


@device_op(effect=Effect.READ, elementwise=True, padding=lambda *args: 0)
def load(
    tensor: torch.Tensor,
    index: Sequence[Any],
    extra_mask: torch.Tensor | None = None,
    eviction_policy: str | None = None,
) -> torch.Tensor:
    """Read elements of a host tensor: `tensor[index]`, with a mask.

    Args:
        tensor: host tensor of any dtype.
        index: one element per dimension (see `helion.language.indexing`).
        extra_mask: bool tensor that broadcasts to the result's shape; elements where it is False are not
            accessed and read as 0.
        eviction_policy: cache hint, "" | "evict_first" | "evict_last"; None leaves it to the config.

    Returns:
        A tensor of `tensor`'s dtype and the index's shape.

    Raises:
        exc.RankMismatch: the index does not fit the tensor's rank.
        exc.ShapeMismatch: index tensors or mask that do not broadcast.
    """
    raise NotImplementedError


@load.set_shape_rule
def _(tensor: torch.Tensor, index: Any, extra_mask: Any, eviction_policy: str | None) -> torch.Tensor:
    _check_target(tensor, "hl.load")
    shape = indexed_shape(tensor, index, "load")
    check_mask(extra_mask, shape, "hl.load")
    if eviction_policy not in EVICTION_POLICIES:
        raise exc.InvalidAPIUsage(
            f"hl.load: unknown eviction_policy {eviction_policy!r}", fix='use "", "evict_first" or "evict_last".'
        )
    return torch.empty(shape, dtype=tensor.dtype, device=tensor.device)


@load.set_eager_rule
def _(tensor: torch.Tensor, index: Any, extra_mask: Any, eviction_policy: str | None) -> torch.Tensor:
    _check_target(tensor, "hl.load")
    return EagerAccess(tensor, index, extra_mask, "load").read()


@device_op(effect=Effect.WRITE, returns_value=False)
def store(
    tensor: torch.Tensor, index: Sequence[Any], value: torch.Tensor | complex, extra_mask: torch.Tensor | None = None
) -> None:
    """Write elements of a host tensor: `tensor[index] = value`, with a mask.

    Args:
        tensor: host tensor.
        index: one element per dimension (see `helion.language.indexing`).
        value: number, or tensor that broadcasts to the index's shape; converted to `tensor`'s dtype.
        extra_mask: bool tensor that broadcasts to the index's shape; elements where it is False are not
            written.

    Raises:
        exc.RankMismatch: the index does not fit the tensor's rank.
        exc.ShapeMismatch: index tensors, value or mask that do not broadcast.
    """
    raise NotImplementedError


@store.set_shape_rule
def _(tensor: torch.Tensor, index: Any, value: Any, extra_mask: Any) -> None:
    _check_target(tensor, "hl.store")
    shape = indexed_shape(tensor, index, "store")
    check_value(value, shape, "hl.store")
    check_mask(extra_mask, shape, "hl.store")


@store.set_eager_rule
def _(tensor: torch.Tensor, index: Any, value: Any, extra_mask: Any) -> None:
    _check_target(tensor, "hl.store")
    EagerAccess(tensor, index, extra_mask, "store").write(value)


@device_op(takes_tiles=True)
def subscript(tensor: torch.Tensor, index: Sequence[Any]) -> torch.Tensor:
    """View of a device value with dimensions added or kept: `value[:, None]`.

    Args:
        tensor: a device value (not a host tensor).
        index: `:`, `...` and None elements only; dimensions left out at the end stay as they are.

    Returns:
        The same elements with a dimension of size 1 for each None.

    Raises:
        exc.InvalidAPIUsage: other index elements; a device value has no address to read a part from.
        exc.RankMismatch: there are more `:` than dimensions.
    """
    raise NotImplementedError


@subscript.set_shape_rule
def _(tensor: torch.Tensor, index: Any) -> torch.Tensor:
    check_subscript(tensor, index)
    elements = list(index) if isinstance(index, (tuple, list)) else [index]
    if Ellipsis not in elements:
        elements.append(Ellipsis)
    return torch.empty(indexed_shape(tensor, elements, "subscript"), dtype=tensor.dtype, device=tensor.device)


@subscript.set_eager_rule
def _(tensor: torch.Tensor, index: Any) -> torch.Tensor:
    check_subscript(tensor, index)
    elements = index if isinstance(index, (tuple, list)) else (index,)
    named = sum(e is not None and e is not Ellipsis for e in elements)
    if named > tensor.dim():
        raise exc.RankMismatch(what="subscript", expected=tensor.dim(), actual=named)
    return tensor[tuple(elements)]


def check_subscript(tensor: Any, index: Any) -> None:
    """Check that a device value is only reshaped by `index`, not read in part."""
    _check_target(tensor, "hl.subscript")
    for element in index if isinstance(index, (tuple, list)) else (index,):
        if element is None or element is Ellipsis or element == slice(None):
            continue
        if isinstance(element, torch.Tensor) and element.dtype is torch.bool:
            raise exc.DataDependentOutputShapeNotSupported(op="indexing with a mask")
        raise exc.InvalidAPIUsage(
            "a device value can only be indexed with `:`, `...` and None",
            fix=(
                "use torch.where/reductions to pick elements, hl.split for pairs, or load the part you "
                "need from the host tensor."
            ),
        )
