"""A maximum and the sum of exponentials relative to it, found in one pass over a row that is read in chunks.

The sum needs the maximum, so that a row would be read once for each.  Instead every lane of a chunk keeps the largest
value it has seen and its sum relative to that, which shrinks when the value grows (Milakov and Gimelshein, "Online
normalizer calculation for softmax", arXiv:1805.02867); the lanes' sums are made relative to the row's maximum at the
end.  softmax, log_softmax and log-sum-exp are written in this way.

Not here: the loops (`reductions`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Mapping

import torch
import torch.fx

from .nodes import Reduction
from .nodes import operand
from .nodes import tensor_of

_aten = torch.ops.aten

#: `make(target, args, dtype, name)` adds a pointwise node: of a chunk's shape, and of that dtype if one is given.
Make = Callable[..., torch.fx.Node]


def online_sums(reductions: Mapping[torch.fx.Node, Reduction]) -> dict[torch.fx.Node, Reduction]:
    """Sums of exponentials, by the maximum that they are relative to.

    Args:
        reductions: those over one dimension.

    Returns:
        For each node of a maximum the sum of `exp(x - maximum of x)`; the first one if there are several.
    """
    found: dict[torch.fx.Node, Reduction] = {}
    for reduction in reductions.values():
        largest = _relative_to(reduction) if reduction.kind.name == "sum" else None
        if largest is not None and largest in reductions and _is_maximum(reductions[largest], reduction):
            found.setdefault(largest, reduction)
    return found


def _relative_to(reduction: Reduction) -> torch.fx.Node | None:
    """What is subtracted from the exponents of a sum of exponentials."""
    exponential = reduction.source
    difference = operand(exponential) if exponential.target is _aten.exp.default else None
    if difference is None or difference.target is not _aten.sub.Tensor or len(difference.args) != 2:
        return None
    subtracted = difference.args[1]
    while isinstance(subtracted, torch.fx.Node) and subtracted.target in (
        _aten.unsqueeze.default,
        _aten.expand.default,
    ):
        subtracted = operand(subtracted)
    return subtracted if isinstance(subtracted, torch.fx.Node) and not difference.kwargs else None


def _is_maximum(largest: Reduction, total: Reduction) -> bool:
    """Whether a reduction is the maximum of just the values whose exponentials a sum adds up."""
    values = operand(operand(total.source))
    alike = largest.source is values and largest.dim == total.dim and largest.kind.name == "amax"
    return alike and tensor_of(values).dtype in (torch.float32, torch.float64)


def next_total(make: Make, values: torch.fx.Node, largest: torch.fx.Node, total: torch.fx.Node) -> torch.fx.Node:
    """A lane's sum with one more value, relative to the larger of that and the lane's largest so far.

    Args:
        make: adds nodes to the body of the loop.
        values: the chunk.
        largest: each lane's largest value so far.
        total: each lane's sum so far, relative to that.
    """
    distance = make(_aten.abs.default, (make(_aten.sub.Tensor, (values, largest)),))
    smaller = make(_aten.exp.default, (make(_aten.neg.default, (distance,)),), name="shrink")
    grown = make(_aten.add.Tensor, (make(_aten.mul.Tensor, (total, smaller)), 1.0))
    same = make(_aten.add.Tensor, (total, smaller))
    is_larger = make(_aten.gt.Tensor, (values, largest), torch.bool)
    # -inf adds nothing, and has no distance from a lane that has seen nothing else.
    is_nothing = make(_aten.eq.Scalar, (values, -math.inf), torch.bool)
    either = make(_aten.where.self, (is_larger, grown, same))
    return make(_aten.where.self, (is_nothing, total, either), name="total_next")


def relative_to_row(make: Make, largest: torch.fx.Node, total: torch.fx.Node, of_row: torch.fx.Node) -> torch.fx.Node:
    """Lanes' sums, relative to the row's maximum (which has the reduced dimension, as one)."""
    shrink = make(_aten.exp.default, (make(_aten.sub.Tensor, (largest, of_row)),))
    return make(_aten.mul.Tensor, (total, shrink), name="total_of_row")
