"""What the padding of a value holds, so that masks are printed only where they matter.

On a GPU a tile has a power-of-two extent; positions past the end of its range are padding.  Loads put 0
there.  A reduction needs its neutral element there.  For each value and dimension this analysis finds the
constant that the padding along that dimension holds, if there is one; a backend masks an operand only when that is
not what the consumer needs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.fx

from ..language.op import Op
from .device_ir import DeviceIR
from .device_ir import GraphInfo
from .pointwise import CONVERT
from .pointwise import POINTWISE
from .reduction_ops import REDUCTIONS
from .reduction_ops import reduced_dim

_aten = torch.ops.aten


class _Unknown:
    def __repr__(self) -> str:
        return "unknown"


UNKNOWN = _Unknown()
Fill = Any  # a number, or UNKNOWN


def assign_padding(ir: DeviceIR) -> None:
    """Set `meta["padding"]` on every node that holds a tensor: per dimension, a number or `UNKNOWN`."""
    for info in ir.graphs:
        for node in info.graph.nodes:
            node.meta.pop("padding", None)
    for root in ir.roots:
        _graph(ir, ir.graphs[root.graph_id])


def padding_of(node: torch.fx.Node, dim: int) -> Fill:
    """What `node` holds past the end of dimension `dim`."""
    fills = node.meta.get("padding")
    return fills[dim] if fills else UNKNOWN


def padding_is(node: torch.fx.Node, dim: int, wanted: Any) -> bool:
    """Whether the padding along `dim` is known to be `wanted`."""
    fill = padding_of(node, dim)
    if fill is UNKNOWN:
        return False
    return bool(fill == wanted and math.copysign(1, fill) == math.copysign(1, wanted)) or (fill == wanted == 0)


def _graph(ir: DeviceIR, info: GraphInfo) -> None:
    for node in info.graph.nodes:
        value = node.meta.get("val")
        for sub in ir.subgraphs_of(node):
            _graph(ir, sub)
        if isinstance(value, torch.Tensor) and node.op == "call_function":
            node.meta["padding"] = _padding(node, value)


def _padding(node: torch.fx.Node, value: torch.Tensor) -> list[Fill]:
    unknown: list[Fill] = [UNKNOWN] * value.dim()
    target = node.target
    if isinstance(target, Op):
        if target.name == "load":
            return [0] * value.dim()
        if target.name == "full" and isinstance(node.args[1], (bool, int, float)):
            return [node.args[1]] * value.dim()
        return unknown
    if target in POINTWISE:
        return [_pointwise_fill(node, dim, value) for dim in range(value.dim())]
    if target in REDUCTIONS:
        source = list(node.args[0].meta.get("padding") or [UNKNOWN] * node.args[0].meta["val"].dim())  # type: ignore[union-attr]
        dim = reduced_dim(node)
        fills = [_reduced_fill(node, fill) for fill in source]
        fills[dim : dim + 1] = [UNKNOWN] if node.args[2] else []
        return fills
    source_node = node.args[0] if node.args else None
    if not isinstance(source_node, torch.fx.Node):
        return unknown
    fills = list(source_node.meta.get("padding") or [])
    if not fills:
        return unknown
    if target is _aten.unsqueeze.default:
        fills.insert(node.args[1] % value.dim(), UNKNOWN)  # type: ignore[arg-type, operator]
        return fills
    if target is _aten.permute.default:
        return [fills[d] for d in node.args[1]]  # type: ignore[index, union-attr]
    if target in (_aten.view.default, _aten.squeeze.dims):
        shape = source_node.meta["val"].shape
        known = {f if f is UNKNOWN else float(f) for f, size in zip(fills, shape) if not _is_one(size)}
        same = next(iter(known)) if len(known) == 1 else UNKNOWN
        return unknown if same is UNKNOWN else [next(f for f in fills if f is not UNKNOWN)] * value.dim()
    if target is _aten.expand.default:
        return [*([UNKNOWN] * (value.dim() - len(fills))), *fills]
    return unknown


def _reduced_fill(node: torch.fx.Node, fill: Fill) -> Fill:
    """A row that is all padding reduces to the padding for these."""
    name = REDUCTIONS[node.target].name  # type: ignore[index]
    if fill is UNKNOWN or (name not in ("amax", "amin") and not (name == "sum" and fill == 0)):
        return UNKNOWN
    return fill


def _pointwise_fill(node: torch.fx.Node, dim: int, value: torch.Tensor) -> Fill:
    """The op applied to its operands' padding, when all of it is known."""
    args: list[Any] = []
    for arg in node.args:
        if isinstance(arg, torch.fx.Node):
            operand = arg.meta["val"]
            position = dim - (value.dim() - operand.dim())
            fills = arg.meta.get("padding")
            if position < 0 or not fills or fills[position] is UNKNOWN or _is_one(operand.shape[position]):
                return UNKNOWN
            args.append(torch.tensor(fills[position], dtype=operand.dtype))
        elif isinstance(arg, (bool, int, float)) or node.target is CONVERT or arg is None:
            args.append(arg)
        else:
            return UNKNOWN
    if node.target is CONVERT:
        return args[0].to(args[1]).item()
    try:
        result = node.target(*args, **node.kwargs)  # type: ignore[operator]
    except (RuntimeError, TypeError, NotImplementedError):
        return UNKNOWN  # an op PyTorch has no CPU kernel for in this dtype
    number = result.item()
    return UNKNOWN if isinstance(number, float) and math.isnan(number) else number


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1
