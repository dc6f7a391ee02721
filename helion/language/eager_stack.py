"""Eager rules of stack tensors: tensors made from addresses."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import torch

from .eager_access import EagerAccess
from .eager_access import as_moved
from .held import check_held
from .stack import stack_load
from .stack import stack_store


def _tensor_at(address: int, like: torch.Tensor) -> torch.Tensor:
    """A tensor of `like`'s shape, strides and dtype over the memory at `address`."""
    span = 1 + sum((n - 1) * s for n, s in zip(like.shape, like.stride(), strict=True)) if like.numel() else 0
    if span == 0:
        return torch.empty_like(like)
    nbytes = span * like.element_size()
    if like.device.type == "cpu":
        flat = torch.frombuffer((ctypes.c_char * nbytes).from_address(address), dtype=torch.uint8)
    else:
        flat = torch.as_tensor(_DeviceMemory(address, nbytes), device=like.device)
    return flat.view(like.dtype).as_strided(like.shape, like.stride())


class _DeviceMemory:
    """Memory on a GPU, described by the CUDA array interface (version 3)."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (nbytes,),
            "typestr": "|u1",
            "data": (address, False),
            "version": 3,
        }


def _members(like: torch.Tensor, dev_ptrs: torch.Tensor) -> Iterator[torch.Tensor]:
    addresses = as_moved(dev_ptrs).flatten().tolist()
    return (_tensor_at(address, like) for address in addresses)


def _mask_parts(extra_mask: Any, dev_ptrs: torch.Tensor, shape: list[int]) -> list[Any]:
    count = dev_ptrs.numel()
    if not isinstance(extra_mask, torch.Tensor):
        return [extra_mask] * count
    return list(extra_mask.expand(*dev_ptrs.shape, *shape).reshape(count, *shape))


@stack_load.set_eager_rule
def _(tensor_like: torch.Tensor, dev_ptrs: torch.Tensor, index: Any, extra_mask: Any) -> torch.Tensor:
    shape = EagerAccess(tensor_like, index, False, "stack tensor").shape
    masks = _mask_parts(extra_mask, dev_ptrs, shape)
    parts = [
        EagerAccess(member, index, mask, "stack tensor").read()
        for member, mask in zip(_members(tensor_like, dev_ptrs), masks, strict=True)
    ]
    if not parts:
        return tensor_like.new_empty([*dev_ptrs.shape, *shape])
    return torch.stack(parts).reshape([*dev_ptrs.shape, *shape])


@stack_store.set_eager_rule
def _(tensor_like: torch.Tensor, dev_ptrs: torch.Tensor, index: Any, value: Any, extra_mask: Any) -> None:
    shape = EagerAccess(tensor_like, index, False, "stack tensor").shape
    masks = _mask_parts(extra_mask, dev_ptrs, shape)
    if not isinstance(value, torch.Tensor):
        check_held(value, tensor_like.dtype, "hl.store", alone=True)
        value = torch.full((), value, dtype=tensor_like.dtype, device=tensor_like.device)
    values = value.expand([*dev_ptrs.shape, *shape]).reshape(dev_ptrs.numel(), *shape)
    for member, part, mask in zip(_members(tensor_like, dev_ptrs), values, masks, strict=True):
        EagerAccess(member, index, mask, "stack tensor").write(part)
