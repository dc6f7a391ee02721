"""Loads, stores and atomics: from an index to Triton's pointers, block pointers or tensor descriptors."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import torch
import torch.fx

from ... import _compat_torch
from ... import exc
from ... import language as hl
from ...ir.axes import index_items
from ...ir.nodes import Atomic
from ...ir.nodes import Load
from ...ir.nodes import Memory
from ...ir.nodes import Store
from ...ir.nodes import tensor_of
from ...ir.symbols import expr_of
from ...language.indexing import IndexItem
from ...language.op import ALL_OPS
from ..text import Text
from ..text import as_text
from ..text import call
from ..text import listed
from ..text import total
from .axes import along
from .axes import spread
from .boxes import box_size
from .boxes import innermost_last
from .boxes import is_box
from .boxes import is_zero
from .boxes import joins_next
from .dtypes import is_negative_zero
from .dtypes import negative_zero
from .dtypes import triton_dtype
from .emitter import KernelEmitter
from .emitter import Rules


@dataclasses.dataclass
class Access:
    """One access with ordinary pointers.

    Attributes:
        tensor: name of the host tensor.
        offset: what is added to its address, in elements.
        mask: text of its mask, None when every element is inside.
        rank: dimensions of the pointer tensor.
        shape: dimensions that the offset does not have, as all of them are new ones; None if it has them.
    """

    tensor: str
    offset: list[Text]
    mask: Text | None
    rank: int
    shape: Text | None

    @property
    def pointer(self) -> Text:
        text = total([Text(self.tensor), *self.offset])
        return text if self.shape is None else call("tl.broadcast_to", text, self.shape)


def pointer_access(k: KernelEmitter, memory: Memory, extra_mask: Any) -> Access:
    """Pointer and mask of a memory node."""
    tensor, items = memory.tensor, index_items(memory)
    gather_rank = max((tensor_of(item.value).dim() for item in items if item.kind == "tensor"), default=0)
    rank = sum(item.kind in ("tile", "slice", "new") for item in items) + gather_rank
    flat = rank > 0 and rank == len(k.extents.flat)
    if flat:
        rank = 1
    terms: list[Text] = []
    masks: list[Text | None] = []
    position = 0
    gather_at: int | None = None
    bounded = memory.node.meta.get("bounded_dims", ())
    for item in items:
        if item.kind == "new":
            position += 1
            continue
        stride, size = k.number(tensor.stride(item.dim)), tensor.size(item.dim)
        if item.kind == "scalar":
            index = _scalar_index(k, item, size)
            if index.number != 0:
                terms.append(_scaled(index if isinstance(item.value, int) else _widened(k, index, item.value), stride))
            continue
        if item.kind == "tensor":
            if gather_at is None:
                gather_at, position = position, position + gather_rank
            value_rank = tensor_of(item.value).dim()
            first = gather_at + gather_rank - value_rank
            index = spread(k.text(item.value), first, value_rank, rank)
            terms.append(_scaled(_widened(k, index, item.value), stride))
            for d in range(value_rank):
                mask = k.axes.dim_mask(item.value, d)
                if mask is None and expr_of(tensor_of(item.value).shape[d]) in k.facts.merged:
                    k.check_derived(tensor_of(item.value).shape[d], "an index tensor with")
                masks.append(mask and along(mask, first + d, rank))
            continue
        index, mask = _range_of(k, item)
        place = 0 if flat else position
        if item.repeats:
            stride = as_text(0)
        elif item.kind == "tile" and item.dim in bounded:
            masks.append(along((index >= 0) & (index < k.number(size)), place, rank))
        masks.append(mask and along(mask, place, rank))
        terms.append(_scaled(along(index, place, rank), stride))
        position += 1
    if extra_mask is not None:
        masks.append(k.text(extra_mask))
    only_new = rank > 0 and all(item.kind in ("new", "scalar") for item in items)  # `x[None, i]`
    return Access(memory.name, terms, all_of(masks), rank, k.shape([1] * rank) if only_new else None)


def all_of(masks: Iterable[Text | None]) -> Text | None:
    """Where all of some masks hold; None stands for everywhere."""
    given = list(dict.fromkeys(mask for mask in masks if mask is not None))
    return functools.reduce(Text.__and__, given) if given else None


def _scalar_index(k: KernelEmitter, item: IndexItem, size: Any) -> Text:
    """One index: a value of the kernel as it is, a number counted from the end if it is negative."""
    text = k.number(item.value)
    if isinstance(item.value, (torch.fx.Node, int)) or k.numbers.is_nonnegative(item.value):
        return text
    return call("tl.where", text < 0, text + k.number(size), text)


def _widened(k: KernelEmitter, index: Text, value: Any) -> Text:
    """An index that does not overflow when it is scaled, nor when offsets are added: an int16 times a stride is one of
    16 bits to Triton."""
    if k.axes.wide and not isinstance(value, torch.fx.Node):
        return call("tl.cast", index, "tl.int64")  # of a loop that Triton unrolls it is a Python number
    if k.axes.wide:
        return index.to("tl.int64")
    narrow = isinstance(value, torch.fx.Node) and tensor_of(value).dtype.itemsize < torch.int32.itemsize
    return index.to("tl.int32") if narrow else index


def _scaled(index: Text, stride: Text) -> Text:
    return index if stride.number == 1 else index * stride


def _range_of(k: KernelEmitter, item: IndexItem) -> tuple[Text, Text | None]:
    """Indices and mask (1-d texts) of a tile or slice element."""
    if item.kind == "tile":
        tile = item.value
        return _shifted(k, k.axes.index(tile.axis), tile.offset), k.axes.mask(tile.axis)
    start, length, step = item.value
    lanes = k.axes.whole_range(length)
    index = lanes if step == 1 else lanes * step
    return (index if is_zero(start) else k.number(start) + index), k.axes.whole_mask(length)


def _shifted(k: KernelEmitter, index: Text, offset: Any) -> Text:
    if is_zero(offset):
        return index
    return index - -offset if isinstance(offset, int) and offset < 0 else index + k.number(offset)


# -- rules -------------------------------------------------------------------------------------------------------


def emit_load(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.load."""
    load = Load.of(node)
    block = _block_access(k, load)
    if block is not None:
        k.assign(node, block.load(k.shape(block.box_shape), _cache_modifier(k, node)))
        return
    access = pointer_access(k, load, load.extra_mask)
    arguments, options = [access.pointer], {}
    if access.mask is not None:
        # Triton casts an integer to every dtype but the 8-bit floats.
        narrow = load.result.dtype.itemsize == 1 and load.result.dtype.is_floating_point
        arguments.append(access.mask)
        options["other"] = "0.0" if narrow else "0"
    policy = load.eviction_policy or _POLICIES[k.schedule.eviction.get(node, "")] or _in_chunks(node)
    cached = _cache_modifier(k, node)
    if policy and not cached:  # PTX has one or the other
        options["eviction_policy"] = repr(policy)
    k.assign(node, call("tl.load", *arguments, **options, **cached))


def _cache_modifier(k: KernelEmitter, node: torch.fx.Node) -> dict[str, str]:
    """The option of tl.load and tl.store, where the Config has one for this access."""
    modifier = k.schedule.cache.get(node)
    return {"cache_modifier": repr(modifier)} if modifier else {}


def _in_chunks(node: torch.fx.Node) -> str:
    """What the cache should do with a row that is read in chunks: keep it until it has been read for the last time."""
    comes_again = node.meta.get("comes_again")
    return "" if comes_again is None else "evict_last" if comes_again else "evict_first"


_POLICIES = {"": "", "first": "evict_first", "last": "evict_last"}


def emit_store(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.store."""
    store = Store.of(node)
    value, dtype = store.value, store.tensor.dtype
    text = k.text(value)
    if dtype is torch.bool and not isinstance(value, (torch.fx.Node, bool)):
        text = text.differs(0)
    elif is_negative_zero(value) and dtype.is_floating_point and dtype.itemsize > 1:
        text = negative_zero(dtype)
    block = _block_access(k, store)
    if block is None:
        access = pointer_access(k, store, store.extra_mask)
        arguments = [access.pointer, text, *([access.mask] if access.mask else [])]
        # Results of rows that are read in chunks leave the cache first: the next chunks are in it.
        modifier = _cache_modifier(k, node) or ({"cache_modifier": "'.cs'"} if node.meta.get("of_chunk") else {})
        k.statement(node, call("tl.store", *arguments, **modifier))
        return
    shape = k.shape(block.result_shape)
    if not isinstance(value, torch.fx.Node):
        text = call("tl.full", shape, text, triton_dtype(dtype))
    elif tensor_of(value).dim() < len(block.result_shape) or 1 in [s for s in tensor_of(value).shape if type(s) is int]:
        rank, full = tensor_of(value).dim(), len(block.result_shape)
        text = call("tl.broadcast_to", spread(text, full - rank, rank, full) if rank else text, shape)
    k.statement(node, block.store(text, _cache_modifier(k, node)))


def emit_atomic(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.atomic_*."""
    atomic = Atomic.of(node)
    dtype = triton_dtype(atomic.tensor.dtype)
    values = [
        k.text(v) if isinstance(v, torch.fx.Node) else call("tl.full", "[]", k.text(v), dtype) for v in atomic.values
    ]
    access = pointer_access(k, atomic, atomic.extra_mask)
    if len(values) > 1 and access.rank:  # Triton broadcasts the operand of every atomic but those of this one
        ranks = [tensor_of(v).dim() if isinstance(v, torch.fx.Node) else 0 for v in atomic.values]
        full = k.shape(atomic.result.shape)
        values = [
            call("tl.broadcast_to", spread(value, access.rank - rank, rank, access.rank) if rank else value, full)
            for value, rank in zip(values, ranks)
        ]
    if access.mask is not None and len(values) > 1:
        text = _masked_swap(atomic, access, values)
    else:
        arguments = [access.pointer, *values, *([access.mask] if access.mask else [])]
        text = call(f"tl.{atomic.op.name}", *arguments, sem=repr(atomic.sem))
    if node.users:
        k.assign(node, text)
    else:
        k.statement(node, text)


def _masked_swap(atomic: Atomic, access: Access, values: list[Text]) -> Text:
    """A compare-and-swap with a mask, which Triton's has not: lanes outside exchange a value for itself, in the
    tensor's first element, which leaves it as it is whatever it is.

    Raises:
        exc.BackendUnsupported: the tensor has no elements.
    """
    if isinstance(atomic.tensor.numel(), int) and atomic.tensor.numel() == 0:
        raise exc.BackendUnsupported(
            backend="triton",
            reason=f"hl.{atomic.op.name} of {atomic.name!r}, which has no elements",
            fix=f"return before the loops: `if {atomic.name}.numel() == 0: return ...`.",
        )
    mask, (expected, value) = access.mask, values
    pointer = call("tl.where", mask, access.pointer, access.tensor)
    text = call(
        f"tl.{atomic.op.name}", pointer, expected, call("tl.where", mask, value, expected), sem=repr(atomic.sem)
    )
    return call("tl.where", mask, text, 0)


def emit_flags(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.signal and hl.wait: one block of flags at least, so that all threads of the program take part."""
    flags = Memory.of(node)
    (value,) = flags.values
    access = pointer_access(k, flags, flags.extra_mask)
    pointer = access.pointer if access.rank else access.pointer + call("tl.arange", 0, 1)
    arguments = [pointer, k.text(value), *([access.mask] if access.mask else [])]
    k.statement(node, k.helper(f"hlt_{flags.op.name}", *arguments))


# -- block pointers and tensor descriptors ----------------------------------------------------------------------------


@dataclasses.dataclass
class BlockAccess:
    """An access through tl.make_block_ptr or tl.make_tensor_descriptor.

    Attributes:
        handle: the block pointer, or the descriptor.
        offsets: where a descriptor's box begins; None for a block pointer.
        boundary: dimensions in which the box may leave the tensor.
        result_shape: what the kernel reads or writes.
        box: the shape of a descriptor's box, where that has dimensions of one besides; None where it has none.
        turned: which dimension of that each of the box is, two of them exchanged; None where they are the same.
    """

    handle: Text
    offsets: Text | None
    boundary: list[int]
    result_shape: list[Any]
    box: Text | None = None
    turned: list[int] | None = None

    @property
    def box_shape(self) -> list[Any]:
        """`result_shape` in the order of the box."""
        return [self.result_shape[d] for d in self.turned] if self.turned else self.result_shape

    def load(self, shape: Text, options: dict[str, str]) -> Text:
        """The load, of `box_shape`; descriptors take no options."""
        if self.offsets is not None:
            text = call(f"{self.handle}.load", self.offsets)
            text = text if self.box is None else call("tl.reshape", text, shape)
            return text if self.turned is None else call("tl.permute", text, self.turned)
        padding = {"padding_option": "'zero'"} if self.boundary else {}
        return call("tl.load", self.handle, **self._check(), **padding, **options)

    def store(self, value: Text, options: dict[str, str]) -> Text:
        """The store; descriptors take no options."""
        if self.offsets is not None:
            value = value if self.turned is None else call("tl.permute", value, self.turned)
            value = value if self.box is None else call("tl.reshape", value, self.box)
            return call(f"{self.handle}.store", self.offsets, value)
        return call("tl.store", self.handle, value, **self._check(), **options)

    def _check(self) -> dict[str, object]:
        return {"boundary_check": self.boundary} if self.boundary else {}


def _block_access(k: KernelEmitter, memory: Memory) -> BlockAccess | None:
    kind = k.schedule.indexing.get(memory.node, "pointer")
    if kind == "pointer" or not is_box(memory, kind, k.extents, wide=k.axes.wide):
        return None
    # What a descriptor stores or loads is not ordered by a barrier of the threads.
    if kind == "tensor_descriptor" and _compat_torch.storage_identity(memory.tensor) in k.barriers.storages:
        return None
    tensor = memory.tensor
    given = items = index_items(memory)
    if kind == "tensor_descriptor":
        items = innermost_last(tensor, given)
    begins = [item.value.axis.begin for item in items if item.kind == "tile"]
    # Coordinates of boxes are int32.
    if any(isinstance(begin, torch.SymInt) and k.numbers.is_wide(begin) for begin in begins):
        return None
    shape, strides, offsets, block, boundary, result = [], [], [], [], [], []  # type: ignore[var-annotated]
    base = Text(memory.name)
    flattened = False
    flat: list[tuple[Text, Any]] = []  # index and size of dimensions that the next box's coordinate takes in
    bounded = memory.node.meta.get("bounded_dims", ())
    for i, item in enumerate(items):
        stride, extent = k.number(tensor.stride(item.dim)), tensor.size(item.dim)
        index = [_scalar_index(k, item, extent)] if item.kind == "scalar" else []
        if index and kind == "block_ptr":
            base += _scaled(_widened(k, index[0], item.value), stride)
            continue
        if index and joins_next(memory, items, i, k.extents):
            flat.append((index[0], extent))
            continue
        size = box_size(item)
        tiled = item.kind == "tile"
        # Tiles that are all whole may leave the tensor yet: it is shorter than the loop, which may begin below 0.
        leaves = (
            k.schedule.needs_mask(item.value.axis) or item.dim in bounded if tiled else not k.extents.is_whole(size)
        )
        if leaves:
            boundary.append(len(shape))
        if not index:
            result.append(size)
        coordinate = [k.axes.start(item.value.axis)] if tiled else index
        for index, outer in reversed(flat):
            coordinate.insert(0, index * k.number(extent))
            extent = outer * extent
        flattened, flat = flattened or bool(flat), []
        shape.append(k.number(extent))
        strides.append(stride)
        offsets.append(total(coordinate or [as_text(0)]))
        block.append(k.extents(size))
    box = (listed(shape), listed(strides), listed(block))
    if kind == "tensor_descriptor":
        kinds = ["turned_"] * (items is not given) + ["flat_"] * flattened
        name = f"{memory.name}_{''.join(kinds)}desc_{'_'.join(map(str, block)).replace(' // ', '_by_')}"
        handle = k.top.share(name, call(k.module.descriptor(), memory.name, *box))
        kept = [item.dim for item in given if item.kind != "scalar"]
        turned = None if items is given else [kept.index(item.dim) for item in items if item.kind != "scalar"]
        wanted = result if turned is None else [result[d] for d in turned]  # an exchange undoes itself
        sides = None if len(result) == len(block) else box[2]
        return BlockAccess(handle, listed(offsets), boundary, wanted, sides, turned)
    order = sorted(range(len(strides)), key=lambda d: (strides[d].number != 1, -d))
    handle = call("tl.make_block_ptr", base, *box[:2], listed(offsets), box[2], order)
    return BlockAccess(handle, None, boundary, result)


RULES: Rules = {op: emit_atomic for op in ALL_OPS.values() if Atomic.knows(op)}
RULES |= {hl.load: emit_load, hl.store: emit_store, hl.signal: emit_flags, hl.wait: emit_flags}
