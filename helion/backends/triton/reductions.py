"""Reductions of PyTorch's: sums, products, extrema and their places, along one dimension."""

from __future__ import annotations

import torch
import torch.fx

from ...ir.reduction_ops import REDUCTIONS
from ...ir.reduction_ops import reduced_dim
from .dtypes import triton_dtype
from .emitter import KernelEmitter
from .emitter import Rules
from .emitter import pretty_name


def emit_reduction(k: KernelEmitter, node: torch.fx.Node) -> None:
    """One reduction; the padding is set to its neutral element first, where it is not that already."""
    reduction = REDUCTIONS[node.target]  # type: ignore[index]
    source: torch.fx.Node = node.args[0]  # type: ignore[assignment]
    dim = reduced_dim(node)
    value = source.meta["val"]
    operand = k.masked(source, dim, reduction.neutral(value.dtype))
    if operand != k.text(source):
        name = k.names.unique(f"{pretty_name(node)}_in")
        k.comment(node)
        k.scope.add(f"{name} = {operand}")
        operand = name
    keep = ", keep_dims=True" if node.args[2] else ""
    floating = value.dtype.is_floating_point
    narrow = value.dtype in (torch.float16, torch.bfloat16)
    if reduction.name == "sum":
        k.assign(node, f"tl.sum({operand}, {dim}{keep})")
    elif reduction.name == "prod":
        k.assign(node, f"tl.reduce({operand}, {dim}, {k.module.helper('hlt_multiply')}{keep})")
    elif reduction.name in ("amax", "amin"):
        short = reduction.name[1:]
        if not floating:
            wide = ".to(tl.int32)" if value.dtype is torch.bool else ""
            back = " != 0" if value.dtype is torch.bool else f".to({triton_dtype(value.dtype)})"
            k.assign(node, f"tl.{short}({operand}{wide}, {dim}{keep}){back}")
        else:
            # tl.max drops nan; torch.amax passes it on.  16-bit values are compared in float32, exactly.
            widened = f"{operand}.to(tl.float32)" if narrow else operand
            back = f".to({triton_dtype(value.dtype)})" if narrow else ""
            k.assign(node, f"tl.reduce({widened}, {dim}, {k.module.helper(f'hlt_{short}_nan')}{keep}){back}")
    else:
        widened = (
            f"{operand}.to(tl.float32)"
            if narrow
            else f"{operand}.to(tl.int32)"
            if value.dtype is torch.bool
            else operand
        )
        extent = k.extent(value.shape[dim])
        places = k.along(f"tl.arange(0, {extent})", dim, value.dim())
        positions = k.names.unique("positions")
        k.scope.add(f"{positions} = tl.broadcast_to({places}, {k.shape(value.shape)})")
        best = k.names.unique("best")
        index = k.names.unique(pretty_name(node))
        k.comment(node)
        combine = k.module.helper(f"hlt_{reduction.name}_combine")
        k.scope.add(f"{best}, {index} = tl.reduce(({widened}, {positions}), {dim}, {combine}{keep})")
        k.scope.add(f"{index} = {index}.to(tl.int64)")
        k.texts[node] = index
    if node in k.settle:
        k.assign(node, f"{k.module.helper('hlt_settled')}({k.texts[node]})")


RULES: Rules = dict.fromkeys(REDUCTIONS, emit_reduction)
