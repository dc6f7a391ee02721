"""Two reductions of which one needs the other's result, found in one pass over a row that is read in chunks.

A maximum and the sum of exponentials relative to it, and a sum and the sum of squared distances from what is made of
it, the mean say.

A sum of exponentials needs the maximum, so that a row would be read once for each.  Instead every lane of a chunk keeps
the largest value it has seen and its sum relative to that, which shrinks when the value grows (Milakov and Gimelshein,
"Online normalizer calculation for softmax", arXiv:1805.02867); the lanes' sums are made relative to the row's maximum
at the end.  softmax, log_softmax and log-sum-exp are written in this way.

Of a sum every lane keeps the squares of the distances from its own mean as well (Youngs and Cramer, "Some results
relevant to choice of sum and sum-of-product algorithms", 1971); at the end they are made distances from the row's
(Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979).  That is
as exact as PyTorch's own layer norm, unlike the mean of squares less the square of the mean, but where the mean is many
times the deviation less so than two passes are.  So it is done to values of 16 bits, whose own rounding is more.

Not here: the loops (`reductions`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Mapping

import torch
import torch.fx

from .nodes import Reduction
from .nodes import operand
from .nodes import tensor_of
from .pointwise import CONVERT

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


def online_squares(
    reductions: Mapping[torch.fx.Node, Reduction], stage: Mapping[torch.fx.Node, int]
) -> dict[torch.fx.Node, Squares]:
    """Sums of squared distances, by the sum in whose loop they can be found.

    Args:
        reductions: those over one dimension.
        stage: of each node, how many reductions it needs one after the other.

    Returns:
        For each node of a first sum the squares of distances of its values; the first ones if there are several.
    """
    sums = {r.source: r for r in reversed(list(reductions.values())) if r.kind.name == "sum" and stage[r.node] == 0}
    found: dict[torch.fx.Node, Squares] = {}
    for reduction in reductions.values():
        distance = _squared(reduction) if reduction.kind.name == "sum" and stage[reduction.node] == 1 else None
        if distance is None or distance.target is not _aten.sub.Tensor or distance.kwargs:
            continue
        values, center = operand(distance), distance.args[1]
        total = sums.get(values)
        while isinstance(center, torch.fx.Node) and center.target is _aten.expand.default:
            center = operand(center)
        if total is None or not isinstance(center, torch.fx.Node) or not _was_narrow(values):
            continue
        alike = tensor_of(center).dim() == tensor_of(values).dim() and total.dim == reduction.dim
        if alike and total.dim == tensor_of(values).dim() - 1 and tensor_of(center).shape[total.dim] == 1:
            found.setdefault(total.node, Squares(reduction, center))
    return found


@dataclasses.dataclass(frozen=True)
class Squares:
    """The sum of squared distances of a row's elements from a number of the row."""

    total: Reduction
    center: torch.fx.Node


def _was_narrow(values: torch.fx.Node) -> bool:
    """Whether float32 values are numbers of 16 bits."""
    narrow = values.target is CONVERT and tensor_of(operand(values)).dtype in (torch.bfloat16, torch.float16)
    return narrow and tensor_of(values).dtype is torch.float32


def _squared(reduction: Reduction) -> torch.fx.Node | None:
    """What is squared to be reduced."""
    source = reduction.source
    if source.target is _aten.mul.Tensor and source.args[0] is source.args[1]:
        return operand(source)
    return operand(source) if source.target is _aten.pow.Tensor_Scalar and source.args[1] == 2 else None


def next_square(make: Make, values: torch.fx.Node, total: torch.fx.Node, count: torch.fx.Node) -> torch.fx.Node:
    """What one more value adds to a lane's squared distances from its mean.

    Args:
        make: adds nodes to the body of the loop.
        values: the chunk.
        total: each lane's sum, with the chunk.
        count: of the lane's values, with this one, as float32.
    """
    distance = make(_aten.sub.Tensor, (make(_aten.mul.Tensor, (values, count)), total))
    before = make(_aten.clamp_min.default, (make(_aten.sub.Tensor, (count, 1.0)), 1.0))  # the first distance is 0
    weight = make(_aten.reciprocal.default, (make(_aten.mul.Tensor, (count, before)),))
    return make(_aten.mul.Tensor, (make(_aten.mul.Tensor, (distance, distance)), weight))


def squares_of_row(
    make: Make, total: torch.fx.Node, squares: torch.fx.Node, count: torch.fx.Node, center: torch.fx.Node
) -> torch.fx.Node:
    """Lanes' squared distances, from the row's center (which has the reduced dimension, as one)."""
    some = make(_aten.clamp_min.default, (count, 1.0))  # a lane past the end of a short row has no value
    distance = make(_aten.sub.Tensor, (make(_aten.div.Tensor, (total, some)), center))
    apart = make(_aten.mul.Tensor, (make(_aten.mul.Tensor, (distance, distance)), count))
    return make(_aten.add.Tensor, (squares, apart), name="squares_of_row")
