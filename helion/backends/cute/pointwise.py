"""ATen pointwise operations of the device IR as epilogue statements.

One table from ATen operation to the row of `epilogue.OPS` it is; a few operations are several rows. The IR has already
put casts around every operation, so each computes in the type of its node.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Sequence

import torch
import torch.fx

from .spec import Input
from .spec import Statement

__all__ = ["PointwiseOps"]

# fx names a node without a variable of its own after the overload: mul_tensor_1, convert_element_type_default.
_OVERLOAD_IN_NAME = re.compile(r"_(default|tensor|scalar|self|tensor_tensor|tensor_scalar)(?=_\d+$|$)")


_aten = torch.ops.aten

_UNARY_AND_BINARY = """
    abs neg exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal sin cos tan tanh sigmoid erf
    floor ceil trunc round maximum minimum logical_and logical_or
"""
_TENSOR_OR_SCALAR = "add sub mul div eq ne lt le gt ge"
# ATen packet.overload -> operation of the printed epilogue, the arguments in the same order.
_SAME: dict[str, str] = {
    **{f"{name}.default": name for name in _UNARY_AND_BINARY.split()},
    **{f"{name}.{overload}": name for name in _TENSOR_OR_SCALAR.split() for overload in ("Tensor", "Scalar")},
    "pow.Tensor_Tensor": "pow",
    "pow.Tensor_Scalar": "pow",
    "pow.Scalar": "pow",
    "where.self": "where",
    "clamp_min.default": "maximum",
    "clamp_max.default": "minimum",
}


def _overload(name: str) -> torch._ops.OpOverload:
    packet, overload = name.split(".")
    return getattr(getattr(_aten, packet), overload)


_ROWS = {_overload(name): op for name, op in _SAME.items()}
_CONVERT = torch.ops.prims.convert_element_type.default


class PointwiseOps:
    """Emits statements for pointwise nodes.

    Args:
        fresh: makes a name unique.
        emit: takes each statement.
    """

    def __init__(self, fresh: Callable[[str], str], emit: Callable[[Statement], None]) -> None:
        self._fresh = fresh
        self._emit = emit
        self._special: dict[torch._ops.OpOverload, Callable[[torch.fx.Node, Sequence[Input]], Input]] = {
            _CONVERT: self._convert,
            _aten.clamp.default: self._clamp,
            _aten.relu.default: lambda node, inputs: self._one(node, "maximum", (inputs[0], 0)),
            _aten.logical_not.default: self._logical_not,
        }

    def knows(self, node: torch.fx.Node) -> bool:
        """Whether ``node`` is an operation of the table, without keyword arguments that change it."""
        return (node.target in _ROWS or node.target in self._special) and not node.kwargs

    def emit(self, node: torch.fx.Node, inputs: Sequence[Input]) -> Input:
        """Statements for ``node`` on ``inputs``; returns the name of its value."""
        target = node.target
        assert isinstance(target, torch._ops.OpOverload)
        special = self._special.get(target)
        if special is not None:
            return special(node, inputs)
        return self._one(node, _ROWS[target], tuple(inputs))

    def _one(self, node: torch.fx.Node, op: str, inputs: tuple[Input, ...]) -> str:
        location = node.meta.get("location")
        comment = location.short() if location is not None else ""
        name = self._fresh(_readable(node.name))
        self._emit(Statement(name, op, inputs, node.meta["val"].dtype, comment))
        return name

    def _convert(self, node: torch.fx.Node, inputs: Sequence[Input]) -> Input:
        return self._one(node, "cast", (inputs[0],))

    def _clamp(self, node: torch.fx.Node, inputs: Sequence[Input]) -> Input:
        value = inputs[0]
        for bound, op in zip(inputs[1:], ("maximum", "minimum")):
            if bound is not None:
                value = self._one(node, op, (value, bound))
        return value

    def _logical_not(self, node: torch.fx.Node, inputs: Sequence[Input]) -> Input:
        return self._one(node, "eq", (inputs[0], False))


def _readable(name: str) -> str:
    """A node's name without the overload in it."""
    return _OVERLOAD_IN_NAME.sub("", name).replace("convert_element_type", "cast")
