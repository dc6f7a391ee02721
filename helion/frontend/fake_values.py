"""Abstract values of device code made without PyTorch's dispatcher: most of a trace's time went into its fake tensors.

Not here: what an op does (`tracer`), and shapes that broadcast by a guard or not at all, which PyTorch judges.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from .._compat_tracing import no_dispatch
from ..language.views import check_width

_NUMBERS = (int, float, bool, str, type(None))


def fake_value(like: torch.Tensor, shape: Sequence[Any], dtype: torch.dtype) -> torch.Tensor:
    """A contiguous value of this shape and dtype, of the mode and device of another one."""
    assert isinstance(like, FakeTensor)
    with no_dispatch():
        meta = torch.empty(shape, dtype=dtype, device="meta")
    return FakeTensor(like.fake_mode, meta, like.fake_device)


def pointwise_result(op: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> torch.Tensor:
    """What an op on elements gives; raises what PyTorch does."""
    tensors = [a for a in args if isinstance(a, torch.Tensor)]
    shape = _broadcast([t.shape for t in tensors])
    operands = tuple(
        (a.dtype, a.dim() > 0) if isinstance(a, torch.Tensor) else (type(a), a) for a in (*args, *kwargs.values())
    )
    apart = {t.fake_device if isinstance(t, FakeTensor) else None for t in tensors}
    known = all(isinstance(kind, torch.dtype) or kind in _NUMBERS for kind, _ in operands)
    alike = shape is not None and known and len(apart) == 1
    dtype = _dtype(op, operands, tuple(kwargs), torch.get_default_dtype()) if alike else None
    return op(*args, **kwargs) if dtype is None else fake_value(tensors[0], shape or (), dtype)


@functools.lru_cache(4096)
def _dtype(
    op: torch._ops.OpOverload, operands: Sequence[Any], names: Sequence[str], default: torch.dtype
) -> torch.dtype | None:
    """The dtype of a result, for operands (dtype, whether it has dimensions) or (type, number); None if PyTorch refuses
    them, which it says better of the values themselves.

    `default`: the default dtype, which operations on integers ask for.
    """
    with no_dispatch():
        made = [
            torch.empty([2] * what, dtype=kind, device="meta") if isinstance(kind, torch.dtype) else what
            for kind, what in operands
        ]
        count = len(made) - len(names)
        try:
            return op(*made[:count], **dict(zip(names, made[count:]))).dtype
        except (RuntimeError, TypeError, NotImplementedError):
            return None


def _broadcast(shapes: Sequence[torch.Size]) -> list[Any] | None:
    """The shape of all together where sizes are 1 or one expression; None otherwise."""
    rank = max(map(len, shapes), default=0)
    found: list[Any] = [1] * rank
    for shape in shapes:
        for place, size in enumerate(shape, rank - len(shape)):
            if _is_one(found[place]):
                found[place] = size
            elif not _is_one(size) and not _is_same(size, found[place]):
                return None
    return found


def _is_one(size: Any) -> bool:
    return type(size) is int and size == 1


def _is_same(size: Any, other: Any) -> bool:
    if type(size) is int or type(other) is int:
        return type(size) is type(other) and size == other
    return bool(size.node.expr == other.node.expr)


def reinterpreted(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`value.view(dtype)`.

    Raises:
        exc.UnsupportedDtype: elements of the two have other widths.
    """
    check_width(value.dtype, dtype)
    viewed: torch.Tensor = torch.ops.aten.view.dtype(value, dtype)
    return viewed
