"""Reading and writing host tensors: `hl.load`, `hl.store`.

`x[index]` and `x[index] = value` in device code are `hl.load` and `hl.store`.  What an index means is in
`indexing`; read-modify-write is in `atomics`, parts of device values are in `subscripts`.
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
from .indexing import normalize_index
from .op import Effect
from .op import device_op

#: Values of `eviction_policy`; None leaves it to the config key `load_eviction_policies`.
EVICTION_POLICIES = (None, "", "evict_first", "evict_last")


def _check_target(tensor: Any, what: str) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise exc.InvalidAPIUsage(f"{what} needs a tensor, got {type(tensor).__name__}")


def _check_places(tensor: torch.Tensor, index: Any) -> None:
    """A store needs a place for each element, as PyTorch's in-place operations do: of a dimension that was expanded all
    elements are one, and which of the values it would get is anybody's guess.
    """
    places = [isinstance(stride, int) and stride == 0 for stride in tensor.stride()]
    if not any(places):
        return
    for item in normalize_index(tensor.shape, index, "store"):
        if item.kind == "new" or not places[item.dim] or (item.kind == "scalar" and isinstance(item.value, int)):
            continue
        size = tensor.shape[item.dim]
        if not isinstance(size, int) or size > 1:
            raise exc.InvalidAPIUsage(
                f"a store to a tensor whose dimension {item.dim} was expanded: its elements are one (stride 0)",
                fix="store to a tensor with memory for each element: make one with `.contiguous()` or `.clone()`.",
            )


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


@device_op(effect=Effect.WRITE)
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
        exc.InvalidAPIUsage: the tensor was expanded in a dimension of the index.
    """
    raise NotImplementedError


@store.set_shape_rule
def _(tensor: torch.Tensor, index: Any, value: Any, extra_mask: Any) -> None:
    _check_target(tensor, "hl.store")
    _check_places(tensor, index)
    shape = indexed_shape(tensor, index, "store")
    check_value(value, shape, "hl.store")
    check_mask(extra_mask, shape, "hl.store")


@store.set_eager_rule
def _(tensor: torch.Tensor, index: Any, value: Any, extra_mask: Any) -> None:
    _check_target(tensor, "hl.store")
    _check_places(tensor, index)
    EagerAccess(tensor, index, extra_mask, "store").write(value)
