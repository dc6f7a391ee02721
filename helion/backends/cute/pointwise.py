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
    floor ceil trunc round maximum minimum logical_and logical_or logical_xor
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
_SUMS = tuple(_overload(f"{name}.{overload}") for name in ("add", "sub") for overload in ("Tensor", "Scalar"))
# Of truth values, and of nothing else.
_OF_BOOLS = {_overload(f"bitwise_{name}.Tensor"): f"logical_{name}" for name in ("and", "or", "xor")}
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
            _aten.bitwise_not.default: self._logical_not,
            _aten.sign.default: self._sign,
        }

    def knows(self, node: torch.fx.Node) -> bool:
        """Whether ``node`` is an operation of the table, without keyword arguments that change it (but a factor)."""
        if node.target in _OF_BOOLS or node.target is _aten.bitwise_not.default:
            return node.meta["val"].dtype is torch.bool
        return (node.target in _ROWS or node.target in self._special) and not node.kwargs.keys() - {"alpha"}

    def emit(self, node: torch.fx.Node, inputs: Sequence[Input]) -> Input:
        """Statements for ``node`` on ``inputs``; returns the name of its value.

        Args:
            node: one that it knows.
            inputs: of its arguments; the factor ``alpha`` of a sum or a difference is the third.
        """
        target = node.target
        assert isinstance(target, torch._ops.OpOverload)
        special = self._special.get(target)
        if special is not None:
            return special(node, inputs)
        if len(inputs) > 2 and target in _SUMS:
            inputs = (inputs[0], self._one(node, "mul", (inputs[1], inputs[2])))
        return self._one(node, _OF_BOOLS.get(target) or _ROWS[target], tuple(inputs))

    def _one(self, node: torch.fx.Node, op: str, inputs: tuple[Input, ...], dtype: torch.dtype | None = None) -> str:
        location = node.meta.get("location")
        comment = location.short() if location is not None else ""
        name = self._fresh(_readable(node.name))
        self._emit(Statement(name, op, inputs, dtype or node.meta["val"].dtype, comment))
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

    def _sign(self, node: torch.fx.Node, inputs: Sequence[Input]) -> Input:
        below, above = (self._one(node, op, (inputs[0], 0), torch.bool) for op in ("lt", "gt"))
        return self._one(node, "where", (above, 1, self._one(node, "where", (below, -1, 0))))


def _readable(name: str) -> str:
    """A node's name without the overload in it."""
    return _OVERLOAD_IN_NAME.sub("", name).replace("convert_element_type", "cast")
