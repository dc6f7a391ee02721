"""Which accesses are boxes of their tensors: those that block pointers and tensor descriptors can make.

Not here: how they are printed (`memory`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from ..._compat_torch import storage_identity
from ...config import Config
from ...ir.axes import index_items
from ...ir.device_ir import Axis
from ...ir.device_ir import AxisKind
from ...ir.device_ir import GraphKind
from ...ir.device_ir import KernelIR
from ...ir.effects import written_storages
from ...ir.nodes import Load
from ...ir.nodes import Memory
from ...ir.nodes import Store
from ...ir.signs import is_nonnegative
from ...ir.symbols import expr_of
from ...language.indexing import IndexItem
from .extents import Sizes
from .schedule import multiplies
from .schedule import resolve


def moves_boxes(ir: KernelIR, config: Config, minimum: Mapping[Any, int]) -> bool:
    """Whether descriptors can be made for all that is loaded in the loops with products, and nothing writes, and for
    all that is stored.

    Args:
        ir: the kernel.
        config: complete.
        minimum: sizes of whole dimensions that must be padded further.
    """
    device, space = ir.device, ir.device.space
    sizes = Sizes(resolve(ir, ir, config), space.block_of, space.depends_on_device, minimum)
    loops = [info for info in device.graphs if info.kind is GraphKind.LOOP and multiplies(device, info)]
    inner = {held.id for loop in loops for held in device.inside(loop)}
    written, wide = written_storages(device), space.index_dtype is torch.int64
    for info, node in device.nodes():
        memory, load = Memory.match(node), Load.match(node)
        if memory is None or (load is not None and info.id not in inner):
            continue
        if not (load or Store.match(node)) or not is_box(memory, "tensor_descriptor", sizes, wide=wide):
            return False
        if load is not None and storage_identity(load.tensor) in written:
            return False
    return True


def is_box(memory: Memory, kind: str, sizes: Sizes, *, wide: bool) -> bool:
    """Whether an access is a box of the tensor, which is what block pointers and descriptors address.

    Other accesses of the same kernel use plain pointers whatever `indexing` says.

    Args:
        memory: the access.
        kind: "block_ptr" or "tensor_descriptor".
        sizes: what its dimensions are under a Config.
        wide: indices are int64.
    """
    if memory.extra_mask is not None or sizes.flat or wide:
        return False
    tensor, items = memory.tensor, index_items(memory)
    boxes = [item for item in items if item.kind in ("tile", "slice")]
    if not boxes or any(item.kind in ("tensor", "new") or item.repeats for item in items):
        return False
    for item in boxes:
        size = str(tensor.size(item.dim))
        if item.kind == "slice":
            start, length, step = item.value
            if step != 1 or not is_zero(start) or not (sizes.is_whole(length) or str(length) == size):
                return False
            continue
        axis = item.value.axis
        if axis.kind is AxisKind.GRID or not is_zero(item.value.offset):
            return False
        # The hardware clips at the tensor's edge, not at the loop's end: they must be the same place.
        if sizes.schedule.needs_mask(axis) and str(axis.end) != size:
            return False
    if tensor.dtype is torch.bool:
        return False
    return kind != "tensor_descriptor" or _may_be_described(memory, items, sizes)


def _may_be_described(memory: Memory, items: list[IndexItem], sizes: Sizes) -> bool:
    """TMA's rules: 2 to 5 dimensions, unit inner stride, other strides multiples of 16 bytes, inner box of 16 bytes or
    more.  A dimension that has one index is part of the next one's coordinate, or else a side of one of the box.
    """
    tensor, itemsize, items = memory.tensor, memory.tensor.element_size(), innermost_last(memory.tensor, items)
    boxes = [item for i, item in enumerate(items) if item.kind != "scalar" or not joins_next(memory, items, i, sizes)]
    if not 2 <= len(boxes) <= 5 or items[-1].kind == "scalar":
        return False
    if any(item.kind == "scalar" and not isinstance(item.value, (int, torch.SymInt)) for item in items):
        return False  # a value of the kernel is no coordinate
    strides = [tensor.stride(item.dim) for item in items]
    if not all(isinstance(s, int) for s in strides) or strides[-1] != 1:
        return False
    if any((s * itemsize) % 16 or s == 0 for s in strides[:-1]):
        return False
    if items[-1].kind == "tile" and not _starts_aligned(items[-1].value.axis, itemsize):
        return False
    if Store.match(memory.node) and any(_may_begin_below_zero(item, sizes) for item in boxes):
        return False
    if any(is_zero(s) for s in tensor.shape) or tensor.storage_offset() * itemsize % 16:
        return False
    sides = list(map(box_size, boxes))
    if not all(isinstance(sizes.schedule.size(side), int) for side in sides):
        return False
    elements = list(map(sizes.known, sides))
    # The buffers of a pipelined loop's stages lie close together, and TMA writes to multiples of 128 bytes: with
    # smaller boxes a kernel stopped with a misaligned address.
    if Load.match(memory.node) and math.prod(elements) * itemsize < 128:
        return False
    return elements[-1] * itemsize >= 16 and max(elements) <= 256  # a TMA box has at most 256 elements a side


def innermost_last(tensor: torch.Tensor, items: list[IndexItem]) -> list[IndexItem]:
    """The items of a box with the one whose elements are neighbours in memory last, where TMA wants it: the weight of a
    linear layer is the view `weight.t()` in most programs.  The item that was last takes its place.
    """
    unit = [i for i, item in enumerate(items) if item.kind != "scalar" and tensor.stride(item.dim) == 1]
    if not unit or len(items) - 1 in unit or items[-1].kind == "scalar":
        return items
    turned = list(items)
    turned[unit[-1]], turned[-1] = turned[-1], turned[unit[-1]]
    return turned


def _starts_aligned(axis: Axis, itemsize: int) -> bool:
    """Whether the tiles of an axis begin at multiples of 16 bytes. An H200 stopped with an illegal instruction where
    those of a descriptor's last dimension began at element 1; no manual that we know has the rule.
    """
    begin = axis.begin
    return isinstance(begin, (int, torch.SymInt)) and bool((expr_of(begin) * itemsize % 16).is_zero)


def _may_begin_below_zero(item: IndexItem, sizes: Sizes) -> bool:
    """Whether tiles may begin in front of the tensor. An H100 stopped with an illegal instruction where a store by a
    descriptor did, though all that is outside of the tensor is left out; loads may begin there.
    """
    space = sizes.schedule.device.space
    begin = item.value.axis.begin if item.kind == "tile" else 0
    known = isinstance(begin, (int, torch.SymInt))
    return not (known and is_nonnegative(expr_of(begin), space.origins.get, space.axes.__getitem__))


def box_size(item: IndexItem) -> Any:
    """How long a box is in a dimension."""
    if item.kind == "scalar":
        return 1
    return item.value[1] if item.kind == "slice" else item.value.block_size


def joins_next(memory: Memory, items: list[IndexItem], position: int, sizes: Sizes) -> bool:
    """Whether a dimension that has one index can be part of the next one's coordinate, as in a view that flattens the
    two.

    They must lie one behind the other in memory, and the box must stay inside its own dimension: past it, the flat one
    goes on.
    """
    item, tensor = items[position], memory.tensor
    if position + 1 == len(items):
        return False
    following = items[position + 1]
    size = tensor.size(following.dim)
    if not isinstance(size, int) or tensor.stride(item.dim) != size * tensor.stride(following.dim):
        return False
    if following.kind == "tile":
        bounded = memory.node.meta.get("bounded_dims", ())
        return not sizes.schedule.needs_mask(following.value.axis) and following.dim not in bounded
    return following.kind == "scalar" or sizes.is_whole(following.value[1])


def is_zero(number: Any) -> bool:
    """Whether a number is surely 0."""
    return isinstance(number, int) and number == 0
