"""What the padding of a value holds, so that masks are printed only where they matter.

On a GPU a tile has a power-of-two extent; positions past the end of its range are padding.  Loads put 0
there.  A reduction needs its neutral element there.  For each value and dimension this analysis finds the
constant that the padding along that dimension holds, if there is one; a backend masks an operand only when that is
not what the consumer needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import torch
import torch.fx

from .device_ir import DeviceIR
from .device_ir import GraphInfo
from .nodes import Reduction
from .nodes import number
from .nodes import numbers
from .nodes import op_of
from .nodes import operand
from .nodes import tensor_of
from .pointwise import CONVERT
from .pointwise import POINTWISE

_aten = torch.ops.aten


class _Unknown:
    def __repr__(self) -> str:
        return "unknown"


UNKNOWN = _Unknown()
Fill = Any  # a number, or UNKNOWN


#: For each dimension what a value holds past its end: a number, or `UNKNOWN`.
Fills = list[Fill]


def find_padding(ir: DeviceIR) -> Mapping[torch.fx.Node, Fills]:
    """The padding of every node that computes a tensor; placeholders are unknown."""
    found = _Pass(ir)
    for root in ir.roots:
        found.graph(ir.graphs[root.graph_id])
    return found.fills


def is_fill(fill: Fill, wanted: Any) -> bool:
    """Whether padding is known to be `wanted`, of the same sign where that is zero's only difference."""
    if fill is UNKNOWN:
        return False
    return bool(fill == wanted and math.copysign(1, fill) == math.copysign(1, wanted)) or (fill == wanted == 0)


class _Pass:
    def __init__(self, ir: DeviceIR) -> None:
        self.ir = ir
        self.fills: dict[torch.fx.Node, Fills] = {}

    def graph(self, info: GraphInfo) -> None:
        for node in info.graph.nodes:
            for sub in self.ir.subgraphs_of(node):
                self.graph(sub)
            value = node.meta.get("val")
            if isinstance(value, torch.Tensor) and node.op == "call_function":
                self.fills[node] = self._padding(node, value)

    def _padding(self, node: torch.fx.Node, value: torch.Tensor) -> Fills:
        unknown: Fills = [UNKNOWN] * value.dim()
        target: Any = node.target
        if op := op_of(node):
            fill = None if op.padding is None else op.padding(*node.args)
            return unknown if fill is None else [fill] * value.dim()
        if target in POINTWISE:
            return [self._pointwise(node, dim, value) for dim in range(value.dim())]
        source = operand(node) if node.args and isinstance(node.args[0], torch.fx.Node) else None
        fills = list(self.fills.get(source, ())) if source is not None else []
        if source is None or not fills:
            return unknown
        if reduction := Reduction.match(node):
            fills = [_reduced(reduction, fill) for fill in fills]
            fills[reduction.dim : reduction.dim + 1] = [UNKNOWN] if reduction.keepdim else []
            return fills
        if target is _aten.unsqueeze.default:
            fills.insert(number(node, 1) % value.dim(), UNKNOWN)
            return fills
        if target is _aten.permute.default:
            return [fills[d] for d in numbers(node, 1)]
        if target in (_aten.view.default, _aten.squeeze.dims):
            known = [fill for fill, size in zip(fills, tensor_of(source).shape) if not _is_one(size)]
            same = len({f if f is UNKNOWN else float(f) for f in known}) == 1 and known[0] is not UNKNOWN
            return [next(f for f in fills if f is not UNKNOWN)] * value.dim() if same else unknown
        if target is _aten.expand.default:
            return _expanded(fills, tensor_of(source).shape, value.shape)
        return unknown

    def _pointwise(self, node: torch.fx.Node, dim: int, value: torch.Tensor) -> Fill:
        """The op applied to its operands' padding, when all of it is known."""
        target: Any = node.target
        args: list[Any] = []
        for arg in node.args:
            if isinstance(arg, torch.fx.Node):
                taken = tensor_of(arg)
                position = dim - (value.dim() - taken.dim())
                fills = self.fills.get(arg)
                if position < 0 or not fills or fills[position] is UNKNOWN or _is_one(taken.shape[position]):
                    return UNKNOWN
                args.append(torch.tensor(fills[position], dtype=taken.dtype))
            elif isinstance(arg, (bool, int, float)) or target is CONVERT or arg is None:
                args.append(arg)
            else:
                return UNKNOWN
        if target is CONVERT:
            return args[0].to(args[1]).item()
        try:
            result = target(*args, **node.kwargs)
        except (RuntimeError, TypeError, NotImplementedError):
            return UNKNOWN  # an op PyTorch has no CPU kernel for in this dtype
        fill = result.item()
        return UNKNOWN if isinstance(fill, float) and math.isnan(fill) else fill


def _expanded(fills: Fills, shape: Sequence[Any], wanted: Sequence[Any]) -> Fills:
    """What grew repeats its element past the end too: no padding was there to tell of."""
    new = len(wanted) - len(shape)
    grown = [_is_one(size) and not _is_one(into) for size, into in zip(shape, wanted[new:], strict=True)]
    return [*([UNKNOWN] * new), *(UNKNOWN if grew else fill for fill, grew in zip(fills, grown, strict=True))]


def _reduced(reduction: Reduction, fill: Fill) -> Fill:
    """A row that is all padding reduces to the padding for these."""
    keeps = reduction.kind.name in ("amax", "amin") or (reduction.kind.name == "sum" and fill == 0)
    return fill if fill is not UNKNOWN and keeps else UNKNOWN


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1
