"""Ops that change a tensor in place, where composite torch functions end that work on a tensor of their own.

Values of the IR never change: the tensor stands for another node afterwards.  That is right as long as nothing else
sees the change, neither a view of the tensor nor a loop that does not know that it changes; otherwise NotImplemented.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import torch

from ..ir.symbols import shape_exprs

if TYPE_CHECKING:
    from .tracer import Tracer

_aten = torch.ops.aten

COPIES = frozenset({_aten.copy_.default, torch.ops.prims.copy_to.default})
#: Ops that give their operand another shape in place, and what does it out of place.
RESHAPING: dict[Any, Any] = {
    _aten.squeeze_: torch.squeeze,
    _aten.unsqueeze_: torch.unsqueeze,
    _aten.transpose_: torch.transpose,
}


def copy_into(tracer: Tracer, target: torch.Tensor, source: torch.Tensor) -> Any:
    """`target.copy_(source)`."""
    builder = tracer.current()
    if not builder.is_private(target):
        return NotImplemented
    value = tracer.cast(source, target.dtype)
    if shape_exprs(value.shape) != shape_exprs(target.shape):
        value = tracer.aten(_aten.expand.default, (value, list(target.shape)), {})
    builder.own(target, tracer.operand(value))
    return target


def reshape(tracer: Tracer, op: torch._ops.OpOverload, target: torch.Tensor, *args: Any) -> Any:
    """`target.squeeze_(dim)` and the like; called with the modes on."""
    builder = tracer.current()
    if not builder.is_private(target):
        return NotImplemented
    # A clone shares no memory with the operand, which stays its only owner.
    node = tracer.operand(RESHAPING[op.overloadpacket](target.clone(), *args))
    with tracer.paused():
        for before in builder.graph.nodes:  # what was computed with the old shape keeps it
            if before.meta.get("val") is target:
                before.meta["val"] = torch.empty(target.shape, dtype=target.dtype, device=target.device)
        op(target, *args)
    builder.own(target, node)
    return target
