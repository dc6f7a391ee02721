"""Combine functions of `hl.reduce` and `hl.associative_scan`: traced into graphs of scalars."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from typing import Any

import torch

from .. import exc
from ..ir.device_ir import GraphKind
from ..language.combine import as_flat_combine
from ..language.combine import operands

if TYPE_CHECKING:
    from .tracer import Tracer


def trace_combine(tracer: Tracer, combine_fn: Callable[..., Any], x: Any, name: str) -> int:
    """Trace a combine function.

    Args:
        tracer: records the function's body.
        combine_fn: the user's function, in any form of `language.combine`.
        x: the operands of the reduction or scan.
        name: the op's name.

    Returns:
        Id of a graph of kind COMBINE: placeholders are the left values, then the right ones, all 0-d tensors;
        outputs are the combined values in the operands' dtypes.

    Raises:
        exc.InvalidAPIUsage: the function uses values of the kernel around it.
    """
    values = operands(x, f"hl.{name}")
    combine = as_flat_combine(combine_fn, len(values), f"hl.{name}")
    with tracer.graph(GraphKind.COMBINE) as builder:
        scalars: list[torch.Tensor] = []
        for side in ("left", "right"):
            for i, value in enumerate(values):
                with tracer.paused():
                    scalar = torch.empty([], dtype=value.dtype, device=value.device)
                node = builder.graph.placeholder(f"{side}_{i}" if len(values) > 1 else side)
                node.meta.update(val=scalar, location=tracer.location)
                builder.own(scalar, node)
                scalars.append(scalar)
        outputs = []
        for result, value in zip(combine(*scalars), values, strict=True):
            if not isinstance(result, torch.Tensor):
                result = tracer.scalar_tensor(result, value.dtype)
            if result.dim() != 0:
                raise exc.InvalidAPIUsage(
                    f"hl.{name}: combine_fn must compute element by element, its result has {result.dim()} dimensions"
                )
            outputs.append(tracer.operand(tracer.cast(result, value.dtype)))
        builder.graph.output(outputs)
    if builder.inputs:
        raise exc.InvalidAPIUsage(
            f"hl.{name}: combine_fn uses a device value from outside it",
            fix="pass it as another operand: a tuple of tensors is reduced together.",
        )
    return builder.info.id
