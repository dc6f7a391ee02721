"""What happens to a language op's arguments before the call is recorded: casts of stored values, views instead of
loads, ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import torch

from .. import exc
from ..ir.device_ir import TracedTile
from ..language.op import Op

if TYPE_CHECKING:
    from .tracer import Tracer


class Answer:
    """A preparation's final result: nothing more is recorded."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _prepare_store(tracer: Tracer, tensor: Any, index: Any, value: Any, extra_mask: Any) -> Any:
    if tracer.is_device_value(tensor):
        raise exc.InvalidAPIUsage(
            "hl.store/assignment into a device value",
            fix="device values are immutable: use torch.where to change part of one.",
        )
    if isinstance(value, torch.Tensor):
        tracer.operand(value)
        value = tracer.cast(value, tensor.dtype)
    return tensor, index, value, extra_mask


def _prepare_load(tracer: Tracer, tensor: Any, index: Any, extra_mask: Any, eviction_policy: Any) -> Any:
    if tracer.is_device_value(tensor):
        from ..language import subscript

        return Answer(subscript(tensor, index))
    return tensor, index, extra_mask, eviction_policy


def _prepare_subscript(tracer: Tracer, tensor: Any, index: Any) -> Any:
    from ..language.memory import check_subscript

    check_subscript(tensor, index)
    tracer.operand(tensor)
    elements = list(index) if isinstance(index, (tuple, list)) else [index]
    if Ellipsis in elements:
        at = elements.index(Ellipsis)
        fill = tensor.dim() - sum(e is not None and e is not Ellipsis for e in elements)
        elements[at : at + 1] = [slice(None)] * fill
    named = sum(e is not None for e in elements)
    if named > tensor.dim():
        raise exc.RankMismatch(what="a device value", expected=tensor.dim(), actual=named)
    for position, element in enumerate(elements):
        if element is None:
            tensor = torch.unsqueeze(tensor, position)
    return Answer(tensor)


def _prepare_stack_store(tracer: Tracer, like: Any, pointers: Any, index: Any, value: Any, extra_mask: Any) -> Any:
    if isinstance(value, torch.Tensor):
        tracer.operand(value)
        value = tracer.cast(value, like.dtype)
    return like, pointers, index, value, extra_mask


OP_PREPARATION: dict[str, Any] = {
    "stack_store": _prepare_stack_store,
    "store": _prepare_store,
    "load": _prepare_load,
    "subscript": _prepare_subscript,
}

# Ops whose first argument is a host tensor and whose second is an index into it.
MEMORY_OPS = frozenset(
    {"load", "store", *(f"atomic_{name}" for name in ("add", "and", "or", "xor", "max", "min", "xchg", "cas"))}
)

# Ops whose first argument is a host tensor -> position of the index into it.
INDEX_AT = {**dict.fromkeys(MEMORY_OPS, 1), "stack_load": 2, "stack_store": 2}


def takes_tiles(op: Op) -> bool:
    """Whether an op takes tiles as tiles; every other op sees a tile as its size."""
    return op.name in INDEX_AT or op.name.startswith("tile_") or op.name == "subscript"


def sizes_of_tiles(value: Any) -> Any:
    """Tiles in shape positions stand for their size."""
    if isinstance(value, TracedTile):
        return value.block_size
    if isinstance(value, (list, tuple)):
        return type(value)(sizes_of_tiles(v) for v in value) if type(value) in (list, tuple) else value
    return value
