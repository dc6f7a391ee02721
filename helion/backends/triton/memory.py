"""Loads, stores and atomics: from an index to Triton's pointers, block pointers or tensor descriptors."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.fx

from ... import exc
from ... import language as hl
from ...ir.axes import with_values
from ...ir.device_ir import AxisKind
from ...language.indexing import IndexItem
from ...language.indexing import normalize_index
from ..expressions import literal
from ..expressions import wrap
from .dtypes import triton_dtype
from .emitter import KernelEmitter
from .emitter import Rules


@dataclasses.dataclass
class Access:
    """One access with ordinary pointers.

    Attributes:
        pointer: text of the pointer tensor.
        mask: text of its mask, None when every element is inside.
        rank: dimensions of the pointer tensor.
    """

    pointer: str
    mask: str | None
    rank: int


def index_items(node: torch.fx.Node) -> list[IndexItem]:
    """The normalized index of a memory node; tensor elements are nodes, not FakeTensors."""
    tensor = node.args[0].meta["val"]  # type: ignore[union-attr]
    elements = list(node.args[1])  # type: ignore[arg-type]
    items = normalize_index(tensor.shape, with_values(elements), "index")
    by_value = {id(e.meta["val"]): e for e in elements if isinstance(e, torch.fx.Node)}
    return [
        dataclasses.replace(item, value=by_value[id(item.value)]) if isinstance(item.value, torch.Tensor) else item
        for item in items
    ]


def pointer_access(k: KernelEmitter, node: torch.fx.Node, extra_mask: Any) -> Access:
    """Pointer and mask of a memory node."""
    host = node.args[0]
    tensor = host.meta["val"]  # type: ignore[union-attr]
    items = index_items(node)
    gathered = [item for item in items if item.kind == "tensor"]
    gather_rank = max((item.value.meta["val"].dim() for item in gathered), default=0)
    rank = sum(item.kind in ("tile", "slice", "new") for item in items) + gather_rank
    if k.flat_root and rank == len(k.root.axes):
        rank = 1
    terms: list[str] = []
    masks: list[str] = []
    position = 0
    gather_at: int | None = None
    bounded = node.meta.get("bounded_dims", ())
    for item in items:
        if item.kind == "new":
            position += 1
            continue
        stride = k.number(tensor.stride(item.dim))
        size = tensor.size(item.dim)
        if item.kind == "scalar":
            index = _scalar_index(k, item, size)
            if index != "0":
                terms.append(_scaled(index, stride, k.wide_index))
            continue
        if item.kind == "tensor":
            if gather_at is None:
                gather_at, position = position, position + gather_rank
            value_rank = item.value.meta["val"].dim()
            text = _place_block(k.text(item.value), value_rank, gather_at + gather_rank - value_rank, rank)
            terms.append(_scaled(text, stride, k.wide_index))
            for d in range(value_rank):
                mask = k.dim_mask(item.value, d)
                if mask is not None:
                    masks.append(k.along(mask, gather_at + gather_rank - value_rank + d, rank))
            continue
        index, mask = _range_of(k, item, size)
        place = 0 if rank == 1 and k.flat_root else position
        if item.kind == "tile" and item.dim in bounded:
            inside = f"({index} >= 0) & ({index} < {wrap(k.number(size))})"
            masks.append(k.along(f"({inside})", place, rank))
        if mask is not None:
            masks.append(k.along(mask, place, rank))
        terms.append(_scaled(k.along(index if not _compound(index) else f"({index})", place, rank), stride, False))
        position += 1
    if extra_mask is not None:
        masks.append(_full_rank(k, extra_mask))
    pointer = " + ".join([host.args[0], *terms])  # type: ignore[list-item, union-attr]
    unique = list(dict.fromkeys(masks))
    return Access(pointer, " & ".join(map(wrap_mask, unique)) if unique else None, rank)


def _scalar_index(k: KernelEmitter, item: IndexItem, size: Any) -> str:
    """One index: a value of the kernel as it is, a number counted from the end if it is negative."""
    if isinstance(item.value, torch.fx.Node):
        return k.text(item.value)
    text = k.number(item.value)
    if isinstance(item.value, int) or k.is_nonnegative(item.value):
        return text
    return f"tl.where({wrap(text)} < 0, {wrap(text)} + {wrap(k.number(size))}, {text})"


def wrap_mask(text: str) -> str:
    """A mask as an operand of `&`."""
    return text if ("<" not in text and ">" not in text) or text.startswith("(") else f"({text})"


def _full_rank(k: KernelEmitter, mask: Any) -> str:
    return k.text(mask)


def _compound(text: str) -> bool:
    return any(op in text for op in (" + ", " - ", " * "))


def _scaled(index: str, stride: str, widen: bool) -> str:
    if widen:
        index = f"{wrap(index)}.to(tl.int64)" if not index.lstrip("-").isdigit() else index
    if stride == "1":
        return wrap(index) if " - " in index else index
    return f"{wrap(index)} * {wrap(stride)}" if not index.endswith("]") else f"{index} * {wrap(stride)}"


def _place_block(text: str, value_rank: int, start: int, rank: int) -> str:
    """A value of several dimensions placed at dimensions start.. of `rank`."""
    if value_rank == rank:
        return text
    places = ", ".join(":" if start <= i < start + value_rank else "None" for i in range(rank))
    return f"{text}[{places}]"


def _range_of(k: KernelEmitter, item: IndexItem, size: Any) -> tuple[str, str | None]:
    """Indices and mask (1-d texts) of a tile or slice element."""
    if item.kind == "tile":
        tile = item.value
        index = k.index(tile.axis)
        offset = tile.offset
        if not (isinstance(offset, int) and offset == 0):
            index = (
                f"{index} + {wrap(k.number(offset))}"
                if not isinstance(offset, int) or offset > 0
                else f"{index} - {-offset}"
            )
        return index, k.mask(tile.axis)
    start, length, step = item.value
    lanes = k.whole_range(length)
    index = lanes if step == 1 else f"{lanes} * {step}"
    if not (isinstance(start, int) and start == 0):
        index = f"{k.number(start)} + {index}"
    return index, k.whole_mask(length)


# -- emitters ----------------------------------------------------------------------------------------------------


def emit_load(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.load."""
    _, _, extra_mask, eviction = node.args
    block = _block_access(k, node, extra_mask)
    if block is not None:
        k.assign(node, block.load())
        return
    access = pointer_access(k, node, extra_mask)
    arguments = [access.pointer]
    if access.mask is not None:
        # Triton casts an integer to every dtype but the 8-bit floats.
        narrow = node.meta["val"].dtype.itemsize == 1 and node.meta["val"].dtype.is_floating_point
        arguments += [access.mask, "other=0.0" if narrow else "other=0"]
    policy = eviction if eviction is not None else _policy(k.schedule.eviction.get(node, ""))
    if policy:
        arguments.append(f"eviction_policy={policy!r}")
    text = f"tl.load({', '.join(arguments)})"
    if access.mask is not None and access.rank == 0 and "[" in access.mask:
        raise exc.ShapeMismatch("a scalar load has a mask of several elements", fix="reduce the mask first.")
    k.assign(node, text)


def _policy(name: str) -> str:
    return {"": "", "first": "evict_first", "last": "evict_last"}[name]


def _value(k: KernelEmitter, value: Any, dtype: torch.dtype) -> str:
    """A value to be written: in the tensor's dtype already, or a number."""
    if isinstance(value, torch.fx.Node):
        return k.text(value)
    text = k.text(value)
    if dtype is torch.bool:
        return f"{text} != 0" if text not in ("True", "False") else text
    return text


def emit_store(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.store."""
    host, _, value, extra_mask = node.args
    dtype = host.meta["val"].dtype  # type: ignore[union-attr]
    text = _value(k, value, dtype)
    block = _block_access(k, node, extra_mask)
    if block is not None:
        shape = k.shape(block.result_shape)
        if not isinstance(value, torch.fx.Node):
            text = f"tl.full({shape}, {text}, {triton_dtype(dtype)})"
        elif (
            value.meta["val"].dim() == 0
            or any(isinstance(s, int) and s == 1 for s in value.meta["val"].shape)
            or (value.meta["val"].dim() < len(block.result_shape))
        ):
            text = f"tl.broadcast_to({text}, {shape})"
        k.statement(node, block.store(text))
        return
    access = pointer_access(k, node, extra_mask)
    arguments = [access.pointer, text]
    if access.mask is not None:
        arguments.append(access.mask)
    k.statement(node, f"tl.store({', '.join(arguments)})")


def emit_atomic(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.atomic_*."""
    name = node.target.name  # type: ignore[union-attr]
    host = node.args[0]
    dtype = host.meta["val"].dtype  # type: ignore[union-attr]
    if name == "atomic_cas":
        _, _, expected, value, sem, extra_mask = node.args
        values = [_typed(k, expected, dtype), _typed(k, value, dtype)]
    else:
        _, _, value, sem, extra_mask = node.args
        values = [_typed(k, value, dtype)]
    access = pointer_access(k, node, extra_mask)
    arguments = [access.pointer, *values]
    if name == "atomic_cas":
        if access.mask is not None:
            raise exc.BackendUnsupported(
                backend="triton",
                reason="hl.atomic_cas has no mask in Triton, and this tile may be partial",
                fix="use hl.grid, or a block size that divides the range.",
            )
    elif access.mask is not None:
        arguments.append(access.mask)
    text = f"tl.{name}({', '.join(arguments)}, sem={sem!r})"
    if node.users:
        k.assign(node, text)
    else:
        k.statement(node, text)


def _typed(k: KernelEmitter, value: Any, dtype: torch.dtype) -> str:
    if isinstance(value, torch.fx.Node):
        return k.text(value)
    return f"tl.full([], {literal(value) if isinstance(value, (int, float)) else k.text(value)}, {triton_dtype(dtype)})"


# -- block pointers and tensor descriptors ----------------------------------------------------------------------------


@dataclasses.dataclass
class BlockAccess:
    """An access through tl.make_block_ptr or tl.make_tensor_descriptor."""

    kind: str
    handle: str
    offsets: list[str]
    boundary: list[int]
    result_shape: list[Any]

    def load(self) -> str:
        if self.kind == "tensor_descriptor":
            return f"{self.handle}.load([{', '.join(self.offsets)}])"
        check = f", boundary_check={self.boundary}, padding_option='zero'" if self.boundary else ""
        return f"tl.load({self.handle}{check})"

    def store(self, value: str) -> str:
        if self.kind == "tensor_descriptor":
            return f"{self.handle}.store([{', '.join(self.offsets)}], {value})"
        check = f", boundary_check={self.boundary}" if self.boundary else ""
        return f"tl.store({self.handle}, {value}{check})"


def block_eligible(k: KernelEmitter, node: torch.fx.Node, kind: str) -> bool:
    """Whether an access is a box of the tensor, which is what block pointers and descriptors address.

    Other accesses of the same kernel use plain pointers whatever `indexing` says.
    """
    if node.args[-1 if node.target.name == "store" else 2] is not None:  # type: ignore[union-attr]
        return False
    if k.flat_root or k.wide_index:
        return False
    tensor = node.args[0].meta["val"]  # type: ignore[union-attr]
    items = index_items(node)
    boxes = [item for item in items if item.kind in ("tile", "slice")]
    if not boxes or any(item.kind in ("tensor", "new") for item in items):
        return False
    for item in boxes:
        if item.kind == "slice":
            start, length, step = item.value
            if step != 1 or not (isinstance(start, int) and start == 0):
                return False
            if k.whole_mask(length) is not None and str(length) != str(tensor.size(item.dim)):
                return False
            continue
        axis = item.value.axis
        if axis.kind is AxisKind.GRID or isinstance(item.value.offset, torch.Tensor):
            return False
        # The hardware clips at the tensor's edge, not at the loop's end: they must be the same place.
        if k.schedule.needs_mask(axis) and str(axis.end) != str(tensor.size(item.dim)):
            return False
        if not (isinstance(item.value.offset, int) and item.value.offset == 0):
            return False
    if tensor.dtype is torch.bool:
        return False
    return kind != "tensor_descriptor" or _descriptor_eligible(k, node, tensor, items)


def _descriptor_eligible(k: KernelEmitter, node: torch.fx.Node, tensor: torch.Tensor, items: list[IndexItem]) -> bool:
    """TMA's rules: 2 to 5 dimensions, unit inner stride, other strides multiples of 16 bytes, inner box of 16 bytes or
    more.
    """
    boxes = [item for item in items if item.kind != "scalar"]
    if not 2 <= len(boxes) <= 5 or not all(
        _joins_next(k, node, tensor, items, i) for i, item in enumerate(items) if item.kind == "scalar"
    ):
        return False
    strides = tensor.stride()
    if not all(isinstance(s, int) for s in strides) or strides[-1] != 1:
        return False
    if any((s * tensor.element_size()) % 16 or s == 0 for s in strides[:-1]):
        return False
    if any(isinstance(s, int) and s == 0 for s in tensor.shape) or tensor.storage_offset() * tensor.element_size() % 16:
        return False
    inner = items[-1]
    size = tensor.shape[-1] if inner.kind == "slice" else inner.value.block_size
    resolved = k.schedule.size(size)
    if not isinstance(resolved, int) or k.padded(resolved) * tensor.element_size() < 16:
        return False
    for item in boxes:
        resolved = k.schedule.size(item.value[1] if item.kind == "slice" else item.value.block_size)
        if not isinstance(resolved, int) or k.padded(resolved) > 256:  # a TMA box has at most 256 elements a side
            return False
    return True


def _joins_next(
    k: KernelEmitter, node: torch.fx.Node, tensor: torch.Tensor, items: list[IndexItem], position: int
) -> bool:
    """Whether a dimension that has one index can be part of the next one's coordinate, as in a view that flattens the
    two.

    They must lie one behind the other in memory, and the box must stay inside its own dimension: past it, the flat one
    goes on.
    """
    item = items[position]
    if position + 1 == len(items) or not isinstance(item.value, (int, torch.SymInt)):
        return False
    following = items[position + 1]
    size = tensor.size(following.dim)
    if not isinstance(size, int) or tensor.stride(item.dim) != size * tensor.stride(following.dim):
        return False
    if following.kind == "tile":
        return not k.schedule.needs_mask(following.value.axis) and following.dim not in node.meta.get(
            "bounded_dims", ()
        )
    return following.kind == "scalar" or k.whole_mask(following.value[1]) is None


def _block_access(k: KernelEmitter, node: torch.fx.Node, extra_mask: Any) -> BlockAccess | None:
    kind = k.schedule.indexing.get(node, "pointer")
    if kind == "pointer" or not block_eligible(k, node, kind):
        return None
    name = node.args[0].args[0]  # type: ignore[union-attr]
    tensor = node.args[0].meta["val"]  # type: ignore[union-attr]
    shape, strides, offsets, block, boundary, result = [], [], [], [], [], []  # type: ignore[var-annotated]
    base = str(name)
    flattened = False
    flat: list[tuple[str, Any]] = []  # index and size of dimensions that the next box's coordinate takes in
    for item in index_items(node):
        stride = k.number(tensor.stride(item.dim))
        if item.kind == "scalar":
            index = _scalar_index(k, item, tensor.size(item.dim))
            if kind == "tensor_descriptor":
                flat.append((index, tensor.size(item.dim)))
            else:
                base += f" + {_scaled(index, stride, False)}"
            continue
        if item.kind == "tile":
            size, offset = item.value.block_size, k.start(item.value.axis)
            masked = k.schedule.needs_mask(item.value.axis)
        else:
            size, offset = item.value[1], "0"
            masked = k.whole_mask(size) is not None
        if masked:
            boundary.append(len(shape))
        result.append(size)
        extent = tensor.size(item.dim)
        for index, outer in reversed(flat):
            offset = f"{wrap(index)} * {k.number(extent)}" + (f" + {offset}" if offset != "0" else "")
            extent = outer * extent
        flattened, flat = flattened or bool(flat), []
        shape.append(k.number(extent))
        strides.append(stride)
        offsets.append(offset)
        block.append(k.extent(size))
    sizes = f"[{', '.join(shape)}], [{', '.join(strides)}]"
    if kind == "tensor_descriptor":
        handle = k.kernel_scope.define(
            f"{name}_{'flat_' if flattened else ''}desc_{'_'.join(block)}".replace(" * ", "x").replace(" // ", "_by_"),
            f"{k.module.descriptor()}({name}, {sizes}, [{', '.join(block)}])",
        )
        return BlockAccess(kind, handle, offsets, boundary, result)
    order = sorted(range(len(strides)), key=lambda d: (strides[d] != "1", -d))
    text = f"tl.make_block_ptr({base}, {sizes}, [{', '.join(offsets)}], [{', '.join(block)}], {order})"
    return BlockAccess(kind, text, offsets, boundary, result)


_ATOMICS = (
    hl.atomic_add,
    hl.atomic_and,
    hl.atomic_or,
    hl.atomic_xor,
    hl.atomic_max,
    hl.atomic_min,
    hl.atomic_xchg,
    hl.atomic_cas,
)
RULES: Rules = {hl.load: emit_load, hl.store: emit_store, **dict.fromkeys(_ATOMICS, emit_atomic)}
