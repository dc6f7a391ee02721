"""Whether two views of one memory have an element in common, as far as sizes and strides say."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence
from typing import Any

import torch

from ..numbers import elements_meet
from .symbols import expr_of


def _hint(value: Any) -> int:
    return int(value) if isinstance(value, int) else int(value.node.hint)


def overlaps_itself(tensor: torch.Tensor) -> bool:
    """Whether two indices may name one element, as in an expanded tensor; by the traced call's numbers where sizes are
    symbols."""
    return _folds([(_hint(stride), _hint(size)) for stride, size in zip(tensor.stride(), tensor.shape)])


def parts_meet(tensor: torch.Tensor, dims: Collection[int]) -> bool:
    """Whether parts of a tensor that have other indices in some of its dimensions, each all of the others, may have an
    element in common, in a tensor that overlaps itself; by the traced call's numbers where sizes are symbols."""
    if not dims or not overlaps_itself(tensor):
        return False
    steps = [(_hint(stride), _hint(size)) for stride, size in zip(tensor.stride(), tensor.shape)]
    reach = sum(stride * (size - 1) for dim, (stride, size) in enumerate(steps) if dim not in dims)
    return _folds([*(step for dim, step in enumerate(steps) if dim in dims), (1, reach + 1)])


def _folds(dims: Sequence[tuple[int, int]]) -> bool:
    """Whether pairs of a stride and a size name one place twice, or may."""
    reach = 0
    for stride, size in sorted(dim for dim in dims if dim[1] > 1):
        if stride <= reach:
            return True
        reach += stride * (size - 1)
    return False


def spans_meet(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two views of one storage may have an element in common."""
    boxes = [(t.shape, t.stride(), t.storage_offset(), t.element_size()) for t in (a, b)]
    if all(isinstance(n, int) for sizes, strides, offset, _ in boxes for n in (*sizes, *strides, offset)):
        (sizes, strides, offset, width), (others, other_strides, other_offset, other_width) = boxes
        return elements_meet(
            (sizes, [stride * width for stride in strides], width),
            (others, [stride * other_width for stride in other_strides], other_width),
            int(other_offset) * other_width - int(offset) * width,
        )
    return not (_side_by_side(a, b) or _side_by_side(b, a))


def _side_by_side(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether one of two parts of a tensor whose sizes are symbols begins along one dimension where the other one has
    ended: `x[:, :n]` and `x[:, n:]`; by the traced call's numbers, that the tensor does not overlap itself."""
    strides = list(map(expr_of, first.stride()))
    if first.dtype is not second.dtype or strides != list(map(expr_of, second.stride())):
        return False
    distance = expr_of(second.storage_offset()) - expr_of(first.storage_offset())
    for dim, stride in enumerate(strides):
        shift = (distance / stride).expand() if stride != 0 else distance
        if not shift.is_integer or not (shift - expr_of(first.shape[dim])).expand().is_nonnegative:
            continue
        steps = [_hint(step) for step in first.stride()]
        extents = [max(_hint(n), _hint(m)) for n, m in zip(first.shape, second.shape)]
        begin = (_hint(second.storage_offset()) - _hint(first.storage_offset())) // max(steps[dim], 1)
        extents[dim] = begin + _hint(second.shape[dim])
        return not _folds(list(zip(steps, extents)))
    return False
