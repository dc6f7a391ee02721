"""`hl.stacktensor_like`: one tensor made of many, given by their addresses.

A `StackTensor` is a stack of tensors that share shape, strides and dtype with a template but lie anywhere
in memory (for example one buffer per peer).  Indexing it loads from, or stores to, every one of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from .. import exc
from .indexing import check_mask
from .indexing import check_value
from .indexing import indexed_shape
from .memory import load
from .memory import store
from .op import Effect
from .op import device_op


@dataclasses.dataclass(frozen=True, eq=False)
class StackTensor:
    """A stack of tensors; made by `hl.stacktensor_like`.

    Attributes:
        tensor_like: template of shape, strides and dtype.
        dev_ptrs: int64 or uint64 tensor of addresses (a device value), one per stacked tensor.
    """

    tensor_like: torch.Tensor
    dev_ptrs: torch.Tensor

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the stacked tensors."""
        return self.tensor_like.dtype

    @property
    def shape(self) -> torch.Size:
        """Shape of the addresses followed by the template's."""
        return torch.Size((*self.dev_ptrs.shape, *self.tensor_like.shape))

    def __getitem__(self, index: Any) -> torch.Tensor:
        result: torch.Tensor = stack_load(self.tensor_like, self.dev_ptrs, _tuple(index), None)
        return result

    def __setitem__(self, index: Any, value: Any) -> None:
        stack_store(self.tensor_like, self.dev_ptrs, _tuple(index), value, None)


def _tuple(index: Any) -> tuple[Any, ...]:
    return tuple(index) if isinstance(index, (tuple, list)) else (index,)


def stacktensor_like(tensor: torch.Tensor, dev_ptrs: torch.Tensor) -> StackTensor:
    """A stack of tensors like `tensor` at the addresses `dev_ptrs`, in device code.

    Args:
        tensor: host tensor whose shape, strides and dtype all stacked tensors have.
        dev_ptrs: int64 or uint64 tensor of addresses in device memory (`t.data_ptr()`), any shape.

    Returns:
        A `StackTensor`: `stack[index]` has shape `dev_ptrs.shape + tensor[index].shape`, and a value
        stored to `stack[index]` broadcasts to that.

    Raises:
        exc.UnsupportedDtype: `dev_ptrs` is not a tensor of 64-bit integers.
    """
    if not isinstance(tensor, torch.Tensor) or not isinstance(dev_ptrs, torch.Tensor):
        raise exc.InvalidAPIUsage("hl.stacktensor_like needs two tensors")
    if dev_ptrs.dtype not in (torch.int64, torch.uint64):
        raise exc.UnsupportedDtype(op="hl.stacktensor_like(dev_ptrs)", dtype=dev_ptrs.dtype)
    return StackTensor(tensor, dev_ptrs)


@device_op(effect=Effect.READ)
def stack_load(
    tensor_like: torch.Tensor, dev_ptrs: torch.Tensor, index: Sequence[Any], extra_mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Load `index` of each stacked tensor; what `stack[index]` records.

    Args:
        tensor_like: template.
        dev_ptrs: addresses.
        index: one element per dimension of the template.
        extra_mask: bool tensor that broadcasts to the result.

    Returns:
        Tensor of shape `dev_ptrs.shape + tensor_like[index].shape`.
    """
    raise NotImplementedError


@stack_load.set_shape_rule
def _(tensor_like: torch.Tensor, dev_ptrs: torch.Tensor, index: Any, extra_mask: Any) -> torch.Tensor:
    shape = [*dev_ptrs.shape, *indexed_shape(tensor_like, index, "stack tensor")]
    check_mask(extra_mask, shape, "stack tensor")
    return torch.empty(shape, dtype=tensor_like.dtype, device=tensor_like.device)


@device_op(effect=Effect.WRITE)
def stack_store(
    tensor_like: torch.Tensor,
    dev_ptrs: torch.Tensor,
    index: Sequence[Any],
    value: torch.Tensor | float,
    extra_mask: torch.Tensor | None = None,
) -> None:
    """Store to `index` of each stacked tensor; what `stack[index] = value` records.

    Args as `stack_load`; `value` broadcasts to the shape that `stack_load` gives.
    """
    raise NotImplementedError


@stack_store.set_shape_rule
def _(tensor_like: torch.Tensor, dev_ptrs: torch.Tensor, index: Any, value: Any, extra_mask: Any) -> None:
    shape = [*dev_ptrs.shape, *indexed_shape(tensor_like, index, "stack tensor")]
    check_value(value, shape, "stack tensor")
    check_mask(extra_mask, shape, "stack tensor")


@load.set_redirect
def _(tensor: Any, index: Any, extra_mask: Any, eviction_policy: Any) -> Any:
    if isinstance(tensor, StackTensor):
        return stack_load(tensor.tensor_like, tensor.dev_ptrs, _tuple(index), extra_mask)
    return NotImplemented


@store.set_redirect
def _(tensor: Any, index: Any, value: Any, extra_mask: Any) -> Any:
    if isinstance(tensor, StackTensor):
        return stack_store(tensor.tensor_like, tensor.dev_ptrs, _tuple(index), value, extra_mask)
    return NotImplemented
