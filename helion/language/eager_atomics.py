"""Eager rules of the atomics: updates one after the other, in the order of the access's elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .atomics import ATOMIC_OPS
from .atomics import atomic_add
from .atomics import check_atomic
from .eager_access import EagerAccess
from .op import Op

Combine = Callable[..., torch.Tensor]

_SIGN_BIT = {torch.uint32: -(2**31), torch.uint64: -(2**63)}
_SAME_WIDTH_INT = {torch.float32: torch.int32, torch.float64: torch.int64}


def _pick(largest: bool) -> Combine:
    choose = torch.maximum if largest else torch.minimum

    def pick(dtype: torch.dtype, old: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        flip = _SIGN_BIT.get(dtype)
        if flip is None:
            return choose(old, value)
        # Unsigned values are moved as signed ones: flipping the sign bit makes their orders agree.
        return choose(old ^ flip, value ^ flip) ^ flip

    return pick


def _compare_and_swap(
    dtype: torch.dtype, old: torch.Tensor, expected: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    bits = _SAME_WIDTH_INT.get(dtype)
    same = old == expected if bits is None else old.view(bits) == expected.contiguous().view(bits)
    return torch.where(same, value, old)


#: Op name -> new values of (dtype, old values, operands...); values are as `eager_access.as_moved` makes them.
COMBINE: dict[str, Combine] = {
    "atomic_add": lambda dtype, old, value: old + value,
    "atomic_and": lambda dtype, old, value: old & value,
    "atomic_or": lambda dtype, old, value: old | value,
    "atomic_xor": lambda dtype, old, value: old ^ value,
    "atomic_max": _pick(True),
    "atomic_min": _pick(False),
    "atomic_xchg": lambda dtype, old, value: value,
    "atomic_cas": _compare_and_swap,
}


def update(
    op: Op, target: torch.Tensor, index: Any, values: tuple[Any, ...], extra_mask: Any, *, want_old: bool = True
) -> torch.Tensor | None:
    """Run one atomic on real tensors.

    Args:
        op: one of `ATOMIC_OPS`.
        target, index, values, extra_mask: the op's arguments.
        want_old: whether the result is used; additions without it run at once instead of one by one.

    Returns:
        The old values, 0 where masked out; None if they are not wanted and were not needed.
    """
    access = EagerAccess(target, index, extra_mask, op.name)
    operands = [access.converted(v) for v in values]
    combine = COMBINE[op.name]
    if access.index is None:  # a view: every element once
        old = access.read()
        access.write_moved(combine(target.dtype, _moved_like(old, operands[0]), *operands))
        return old
    if not want_old and op is atomic_add and _accumulate(access, target, operands[0]):
        return None
    return _one_by_one(access, target, operands, combine)


def _accumulate(access: EagerAccess, target: torch.Tensor, value: torch.Tensor) -> bool:
    """Add all elements at once, repeated places included; False where PyTorch has no kernel for the dtype."""
    if value.dtype is not target.dtype:
        return False
    assert access.index is not None
    positions = access.index
    if access.valid is not None:
        positions, value = tuple(p[access.valid] for p in positions), value[access.valid]
    if value.numel():
        target.index_put_(positions, value, accumulate=True)
    return True


def _moved_like(value: torch.Tensor, operand: torch.Tensor) -> torch.Tensor:
    return value if value.dtype is operand.dtype else value.view(operand.dtype)


def _one_by_one(
    access: EagerAccess, target: torch.Tensor, operands: list[torch.Tensor], combine: Combine
) -> torch.Tensor:
    """Elements that name the same place are updated in turns, the first occurrences first."""
    old = torch.zeros(access.shape, dtype=operands[0].dtype, device=target.device)
    memory = target.view(operands[0].dtype) if target.dtype is not operands[0].dtype else target
    assert access.index is not None
    chosen = torch.ones(access.shape, dtype=torch.bool, device=target.device) if access.valid is None else access.valid
    if target.numel() == 0 or not bool(chosen.any()):
        return old.view(target.dtype)
    places = access.element_ids()[chosen]
    positions = tuple(i[chosen] for i in access.index)
    values = [o[chosen] for o in operands]
    before = torch.empty_like(values[0])
    turn = _occurrence(places)
    for number in range(int(turn.max()) + 1):
        now = turn == number
        at = tuple(p[now] for p in positions)
        seen = memory[at]
        before[now] = seen
        memory[at] = combine(target.dtype, seen, *(v[now] for v in values))
    old[chosen] = before
    return old.view(target.dtype)


def _occurrence(places: torch.Tensor) -> torch.Tensor:
    """For each entry, how many equal entries stand before it."""
    order = torch.argsort(places, stable=True)
    ordered = places[order]
    starts = torch.ones_like(ordered, dtype=torch.bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    counter = torch.arange(len(ordered), device=places.device)
    first = torch.cummax(torch.where(starts, counter, torch.zeros_like(counter)), dim=0).values
    result = torch.empty_like(counter)
    result[order] = counter - first
    return result


def _register(op: Op) -> None:
    def rule(target: torch.Tensor, index: Any, *rest: Any) -> torch.Tensor | None:
        *values, sem, extra_mask = rest
        check_atomic(op, target.dtype, sem)
        return update(op, target, index, tuple(values), extra_mask)

    op.set_eager_rule(rule)


for _op in ATOMIC_OPS:
    _register(_op)
