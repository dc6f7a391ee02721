"""Atomic read-modify-write of host tensors: `hl.atomic_add` and its family.

All take `(target, index, value, sem)`; what an index means is in `indexing`.  Each returns the old values,
read and replaced in one step per element; there is no order between elements or tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import exc
from .indexing import check_mask
from .indexing import check_value
from .indexing import indexed_shape
from .op import Effect
from .op import Op
from .op import current_handler
from .op import device_op

MEMORY_ORDERS = ("relaxed", "acquire", "release", "acq_rel")

_INTEGERS = frozenset({torch.int32, torch.int64, torch.uint32, torch.uint64})
_FLOATS = frozenset({torch.float32, torch.float64})
#: Op name -> dtypes that GPUs have the operation for.
ATOMIC_DTYPES: dict[str, frozenset[torch.dtype]] = {
    "atomic_add": _INTEGERS | _FLOATS | {torch.float16, torch.bfloat16},
    "atomic_and": _INTEGERS,
    "atomic_or": _INTEGERS,
    "atomic_xor": _INTEGERS,
    "atomic_max": _INTEGERS | _FLOATS,
    "atomic_min": _INTEGERS | _FLOATS,
    "atomic_xchg": _INTEGERS | _FLOATS,
    "atomic_cas": _INTEGERS | _FLOATS,
}


def _atomic_shape(op: Op, target: Any, index: Any, values: Sequence[Any], sem: str, extra_mask: Any) -> torch.Tensor:
    what = f"hl.{op.name}"
    if not isinstance(target, torch.Tensor):
        raise exc.InvalidAPIUsage(f"{what} needs a tensor as its target, got {type(target).__name__}")
    if current_handler(what).is_device_value(target):
        raise exc.AtomicOnDeviceTensor(name=what)
    check_atomic(op, target.dtype, sem)
    shape = indexed_shape(target, index, op.name)
    for value in values:
        check_value(value, shape, what)
    check_mask(extra_mask, shape, what)
    return torch.empty(shape, dtype=target.dtype, device=target.device)


def check_atomic(op: Op, dtype: torch.dtype, sem: str) -> None:
    """Check that GPUs have the atomic for a target's dtype and that the memory order exists."""
    what = f"hl.{op.name}"
    if dtype not in ATOMIC_DTYPES[op.name]:
        raise exc.UnsupportedDtype(
            f"GPUs have no {what} of elements of dtype {dtype}",
            fix="use a target of dtype " + ", ".join(sorted(str(d) for d in ATOMIC_DTYPES[op.name])) + ".",
        )
    if sem not in MEMORY_ORDERS:
        raise exc.InvalidAPIUsage(f"{what}: unknown memory order {sem!r}", fix=f"use one of {MEMORY_ORDERS}.")


def _declare(name: str, effect: str, *, commutes: bool = True) -> Op:
    def atomic(
        target: torch.Tensor,
        index: Sequence[Any],
        value: torch.Tensor | float,
        sem: str = "relaxed",
        extra_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        raise NotImplementedError

    atomic.__name__ = name
    atomic.__doc__ = f"""Atomically set `target[index]` to {effect}.

    Args:
        target: host tensor; dtypes are in `ATOMIC_DTYPES[{name!r}]`.
        index: one element per dimension (see `helion.language.indexing`).
        value: number, or tensor that broadcasts to the index's shape; converted to `target`'s dtype.
        sem: memory order, "relaxed" | "acquire" | "release" | "acq_rel".
        extra_mask: bool tensor; elements where it is False are left alone (their result is 0).

    Returns:
        The old values: a tensor of `target`'s dtype and the index's shape.

    Raises:
        exc.AtomicOnDeviceTensor: `target` was made in device code.
        exc.UnsupportedDtype: GPUs have no such atomic for the dtype.
    """
    op = device_op(effect=Effect.UPDATE, commutes=commutes)(atomic)

    @op.set_shape_rule
    def _(target: Any, index: Any, value: Any, sem: str, extra_mask: Any) -> torch.Tensor:
        return _atomic_shape(op, target, index, [value], sem, extra_mask)

    return op


atomic_add = _declare("atomic_add", "`old + value`")
atomic_and = _declare("atomic_and", "`old & value`")
atomic_or = _declare("atomic_or", "`old | value`")
atomic_xor = _declare("atomic_xor", "`old ^ value`")
atomic_max = _declare("atomic_max", "the larger of `old` and `value`")
atomic_min = _declare("atomic_min", "the smaller of `old` and `value`")
atomic_xchg = _declare("atomic_xchg", "`value`", commutes=False)


@device_op(effect=Effect.UPDATE)
def atomic_cas(
    target: torch.Tensor,
    index: Sequence[Any],
    expected: torch.Tensor | float,
    value: torch.Tensor | float,
    sem: str = "relaxed",
    extra_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Atomically set `target[index]` to `value` where it equals `expected` (bit for bit).

    Args:
        target: host tensor; dtypes are in `ATOMIC_DTYPES["atomic_cas"]`.
        index: one element per dimension (see `helion.language.indexing`).
        expected, value: numbers, or tensors that broadcast to the index's shape.
        sem: memory order, "relaxed" | "acquire" | "release" | "acq_rel".
        extra_mask: bool tensor; elements where it is False are left alone (their result is 0).

    Returns:
        The old values: a tensor of `target`'s dtype and the index's shape.
    """
    raise NotImplementedError


@atomic_cas.set_shape_rule
def _(target: Any, index: Any, expected: Any, value: Any, sem: str, extra_mask: Any) -> torch.Tensor:
    return _atomic_shape(atomic_cas, target, index, [expected, value], sem, extra_mask)


#: Every atomic op.
ATOMIC_OPS: tuple[Op, ...] = (
    atomic_add,
    atomic_and,
    atomic_or,
    atomic_xor,
    atomic_max,
    atomic_min,
    atomic_xchg,
    atomic_cas,
)
