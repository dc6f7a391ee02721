"""Reductions of PyTorch's: sums, products, extrema and their places, along one dimension."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.fx

from ...ir.nodes import GETITEM
from ...ir.nodes import Memory
from ...ir.nodes import Product
from ...ir.nodes import Reduction
from ...ir.nodes import tensor_of
from ...ir.reduction_ops import REDUCTIONS
from ...ir.symbols import shape_exprs
from ..text import Text
from ..text import call
from .axes import along
from .dtypes import triton_dtype
from .emitter import KernelEmitter
from .emitter import Rules
from .emitter import pretty_name
from .ops import MOVES
from .ops import POINTWISE_ROWS
from .ops import SUMS

#: What CombineOps makes products of.
_ADDED = (torch.float32, torch.float16, torch.bfloat16)


def emit_reduction(k: KernelEmitter, node: torch.fx.Node) -> None:
    """One reduction; the padding is set to its neutral element first, where it is not that already."""
    reduction = Reduction.of(node)
    value = tensor_of(reduction.source)
    operand = k.masked(reduction.source, reduction.dim, reduction.kind.neutral(value.dtype))
    if operand != k.text(reduction.source):
        k.comment(node)
        operand = k.define(f"{pretty_name(node)}_in", operand)
    elif reduction.kind.name == "sum":
        operand = summand(k, reduction.source)
    operand = detached(k, reduction.source, operand)
    if reduction.kind.returns_index:
        _emit_place(k, reduction, operand)
    else:
        k.assign(node, _reduced(k, reduction, operand))
    if node in k.settle:
        k.assign(node, k.helper("hlt_settled", k.text(node)))


def summand(k: KernelEmitter, source: torch.fx.Node) -> Text:
    """A value that is added up along a dimension.

    Triton's pass CombineOps (3.6 and 3.7) makes a tl.dot of a sum over `x[:, :, None] * y[None]`: in TF32, of sizes
    that the dot gets wrong (2 or 4 elements), and along whichever dimension the sum is.
    """
    value, text = tensor_of(source), k.text(source)
    product = source.target is torch.ops.aten.mul.Tensor and value.dtype in _ADDED and value.dim() >= 3
    return k.helper("hlt_apart", text) if product and all(map(_grows(value), source.all_input_nodes)) else text


def detached(k: KernelEmitter, source: torch.fx.Node, text: Text) -> Text:
    """The text of a value that is reduced.

    Triton's pass OptimizeTMemLayouts (3.7) asserts where a vector that follows from a product in tensor memory, by
    reductions and elementwise, is reduced to a scalar: `(a @ b).sum()`.  It does not look past a scan.
    """
    if tensor_of(source).dim() != 1 or not k.module.features.tensor_memory or not may_follow_product(source):
        return text
    return k.helper("hlt_detached", text)


def in_order(k: KernelEmitter, source: torch.fx.Node, text: Text) -> Text:
    """The text of a value that is reduced together with others.

    Triton's pass Combine (3.6 and 3.7) lets a reshape to a vector that is only reduced give its elements in an order of
    its own, and the other values stay in theirs: `x.reshape(-1).argmax()`.
    """
    if tensor_of(source).dim() != 1 or Memory.match(source) is not None:
        return text
    return k.helper("hlt_in_order", text)


def may_follow_product(node: torch.fx.Node) -> bool:
    """Whether a value may come from a product of matrices, of this loop or through what the loop carries."""
    open_, seen = [node], {node}
    while open_:
        found = open_.pop()
        if found.op == "placeholder" or found.target is GETITEM or Product.match(found):
            return True
        open_ += [source for source in found.all_input_nodes if source not in seen]
        seen.update(open_)
    return False


def _grows(value: torch.Tensor) -> Callable[[torch.fx.Node], bool]:
    """Whether an operand is, or may be, repeated along a dimension of `value`."""
    expand = torch.ops.aten.expand.default
    return lambda node: node.target is expand or shape_exprs(tensor_of(node).shape) != shape_exprs(value.shape)


def _reduce(function: str, operand: object, reduction: Reduction, *combine: object) -> Text:
    return call(function, operand, reduction.dim, *combine, **({"keep_dims": True} if reduction.keepdim else {}))


def _reduced(k: KernelEmitter, reduction: Reduction, operand: Text) -> Text:
    dtype, name = tensor_of(reduction.source).dtype, reduction.kind.name
    if name == "sum" and _may_round_apart(k, reduction):
        return _reduce("tl.reduce", operand, reduction, k.module.helper("hlt_rounded_add"))
    if name == "sum":
        total = _reduce("tl.sum", operand, reduction)  # Triton's of 8 and 16 bits has 32
        is_short = dtype.itemsize < 4 and not dtype.is_floating_point
        return total.to(triton_dtype(dtype)) if is_short else total
    if name == "prod":
        return _reduce("tl.reduce", operand, reduction, k.module.helper("hlt_multiply"))
    short = name.removeprefix("a")
    if dtype.is_floating_point:  # tl.max drops nan; torch.amax passes it on
        text = _reduce("tl.reduce", _comparable(operand, dtype), reduction, k.module.helper(f"hlt_{short}_nan"))
        return text.to(triton_dtype(dtype)) if _is_narrow(dtype) else text
    text = _reduce(f"tl.{short}", _comparable(operand, dtype), reduction)
    return text.differs(0) if dtype is torch.bool else text.to(triton_dtype(dtype))


#: Lanes of a warp: along a longer dimension each has several elements, whose sums they exchange, or warps do.
_LANES = 32


#: Their last instruction is one of its own.
_INSTRUCTIONS = {torch.ops.aten.exp.default, torch.ops.aten.exp2.default, torch.ops.aten.sqrt.default}


def _may_round_apart(k: KernelEmitter, reduction: Reduction) -> bool:
    """Whether lanes may begin a sum with products of their own, and so have sums that differ in the last bit."""
    return may_round_apart(k, reduction.source, reduction.dim)


def may_round_apart(k: KernelEmitter, source: torch.fx.Node, dim: int) -> bool:
    """Whether a value that is reduced may be a product, of which each lane has one."""
    value = tensor_of(source)
    if value.dtype not in (torch.float32, torch.float64) or not _is_computed(source):
        return False
    return k.extents.known(value.shape[dim]) <= _LANES


def _is_computed(node: torch.fx.Node) -> bool:
    """Whether the last operation of a value may be a multiplication."""
    if node.target in MOVES:
        return any(tensor_of(source).is_floating_point() and _is_computed(source) for source in node.all_input_nodes)
    return node.target in POINTWISE_ROWS and node.target not in SUMS and node.target not in _INSTRUCTIONS


def _is_narrow(dtype: torch.dtype) -> bool:
    return dtype in (torch.float16, torch.bfloat16)


def _comparable(operand: Text, dtype: torch.dtype) -> Text:
    """16-bit values are compared in float32, exactly."""
    return operand.to("tl.float32") if _is_narrow(dtype) else operand.to("tl.int32") if dtype is torch.bool else operand


def _emit_place(k: KernelEmitter, reduction: Reduction, operand: Text) -> None:
    """argmax and argmin."""
    value, dim = tensor_of(reduction.source), reduction.dim
    places = k.axes.positions(value.shape[dim])
    if places is None:
        k.check_derived(value.shape[dim], "a position in")
        places = call("tl.arange", 0, k.extents(value.shape[dim]))
    positions = along(places, dim, value.dim())
    positions = k.define("positions", call("tl.broadcast_to", positions, k.shape(value.shape)))
    combine = k.module.helper(f"hlt_{reduction.kind.name}_combine")
    operand = _comparable(in_order(k, reduction.source, operand), value.dtype)
    text = _reduce("tl.reduce", f"({operand}, {positions})", reduction, combine)
    _, index = k.assign_several(reduction.node, text, ["best", pretty_name(reduction.node)])
    k.scope.add(f"{index} = {index.to('tl.int64')}")
    k.set_text(reduction.node, index)


RULES: Rules = dict.fromkeys(REDUCTIONS, emit_reduction)
