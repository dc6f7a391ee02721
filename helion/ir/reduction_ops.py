"""The reductions of the IR: which ATen ops they are, their neutral elements and how partial results combine.

All reduce over one dimension, given as a non-negative int; `mean`, `var` and the like are decomposed into
these by the front end.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import torch

from .. import exc

_aten = torch.ops.aten


@dataclasses.dataclass(frozen=True)
class Reduction:
    """One kind of reduction.

    Attributes:
        op: the ATen overload, called as `op(x, [dim], keepdim)` (or `op(x, dim, keepdim)` where `dim_is_list` is
            False).
        dim_is_list: how the op takes its dimension.
        combine: pointwise op that merges two partial results.
        returns_index: argmax/argmin: the result is a position.
    """

    name: str
    op: torch._ops.OpOverload
    dim_is_list: bool
    combine: torch._ops.OpOverload | None
    returns_index: bool = False

    def neutral(self, dtype: torch.dtype) -> Any:
        """The value that leaves a result unchanged: what padding must hold before reducing."""
        if self.name == "sum":
            return False if dtype is torch.bool else 0
        if self.name == "prod":
            return 1
        highest = self.name in ("amin", "argmin")
        if dtype.is_floating_point:
            return math.inf if highest else -math.inf
        if dtype is torch.bool:
            return highest
        info = torch.iinfo(dtype)
        return info.max if highest else info.min


REDUCTIONS: dict[torch._ops.OpOverload, Reduction] = {
    r.op: r
    for r in (
        Reduction("sum", _aten.sum.dim_IntList, True, _aten.add.Tensor),
        Reduction("prod", _aten.prod.dim_int, False, _aten.mul.Tensor),
        Reduction("amax", _aten.amax.default, True, _aten.maximum.default),
        Reduction("amin", _aten.amin.default, True, _aten.minimum.default),
        Reduction("argmax", _aten.argmax.default, False, None, returns_index=True),
        Reduction("argmin", _aten.argmin.default, False, None, returns_index=True),
    )
}


#: torch's functions that have no value where there are no elements.
_NEED_ELEMENTS = frozenset(["amax", "amin", "argmax", "argmin", "aminmax", "max", "min"])


def check_has_elements(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Check a call of torch's that takes the largest or smallest element: that there is one.  (What is made of such
    calls, softmax for one, has a result where there is none.)

    Raises:
        exc.EmptyReduction: a dimension has size 0.
    """
    x = args[0] if args else kwargs.get("input")
    if name not in _NEED_ELEMENTS or not isinstance(x, torch.Tensor):
        return
    dims = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
    if isinstance(dims, torch.Tensor) or isinstance(kwargs.get("other"), torch.Tensor):
        return  # the larger of two
    if isinstance(dims, int):
        dims = [dims]
    for dim in dims or range(x.dim()):
        if -x.dim() <= dim < x.dim() and isinstance(x.shape[dim], int) and x.shape[dim] == 0:
            raise exc.EmptyReduction(op=name, dim=dim % x.dim())


def reduced_dim(node: torch.fx.Node) -> int:
    """The dimension a reduction node reduces over."""
    dim: Any = node.args[1]
    return int(dim[0] if isinstance(dim, (list, tuple)) else dim)
