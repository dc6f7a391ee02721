"""Whether two views of one memory have an element in common, as far as sizes and strides say."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import sympy
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


def spans_meet(
    a: torch.Tensor,
    b: torch.Tensor,
    part: Mapping[int, range] | None = None,
    other_part: Mapping[int, range] | None = None,
) -> bool:
    """Whether two views of one storage may have an element in common, or parts of them: of `a` the indices `part` along
    each dimension that it has, of `b` those of `other_part`."""
    boxes = [_box(a, part or {}), _box(b, other_part or {})]
    if all(isinstance(n, int) for sizes, strides, offset, _ in boxes for n in (*sizes, *strides, offset)):
        (sizes, strides, offset, width), (others, other_strides, other_offset, other_width) = boxes
        return elements_meet(
            (sizes, [stride * width for stride in strides], width),
            (others, [stride * other_width for stride in other_strides], other_width),
            int(other_offset) * other_width - int(offset) * width,
        )
    return not (_side_by_side(a, b) or _side_by_side(b, a))


def _box(tensor: torch.Tensor, part: Mapping[int, range]) -> tuple[list[Any], list[Any], Any, int]:
    """Sizes, strides, offset and width of an element, of a part of a tensor."""
    sizes, strides, offset = list(tensor.shape), list(tensor.stride()), tensor.storage_offset()
    for dim, places in part.items():
        size, stride = sizes[dim], strides[dim]
        if isinstance(size, int) and isinstance(stride, int) and places.start >= 0:
            sizes[dim] = len(range(places.start, min(places.stop, size), places.step))  # nobody touches what is outside
            strides[dim], offset = stride * places.step, offset + stride * places.start
    return sizes, strides, offset, tensor.element_size()


def _side_by_side(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether one of two parts of a tensor whose sizes are symbols begins along one dimension where the other one has
    ended: `x[:, :n]` and `x[:, n:]`, `x[:n, m:]` and `x[n:, :m]`; by the traced call's numbers, that the tensor does
    not overlap itself."""
    strides = list(map(expr_of, first.stride()))
    if first.dtype is not second.dtype or strides != list(map(expr_of, second.stride())):
        return False
    distance = expr_of(second.storage_offset()) - expr_of(first.storage_offset())
    steps = [_hint(step) for step in first.stride()]
    for shifts in _shifts(distance, strides):
        if any((shift - expr_of(n)).expand().is_nonnegative for shift, n in zip(shifts, first.shape)):
            places = [
                (_value(b, first, second), _hint(n), _hint(m)) for b, n, m in zip(shifts, first.shape, second.shape)
            ]
            return not _folds([(step, max(n, b + m) - min(b, 0)) for step, (b, n, m) in zip(steps, places)])
    return False


def _value(number: sympy.Expr, *tensors: torch.Tensor) -> int:
    """What a number made of the tensors' sizes is in the traced call."""
    parts = (n for t in tensors for n in (*t.shape, *t.stride(), t.storage_offset()) if not isinstance(n, int))
    first = next(parts, None)
    return int(number if first is None else number.subs(first.node.shape_env.backed_var_to_val))


def _shifts(distance: sympy.Expr, strides: Sequence[sympy.Expr]) -> Iterator[list[sympy.Expr]]:
    """How many steps along each dimension may make up a distance."""
    found, left = [sympy.S.Zero] * len(strides), distance.expand()
    for dim, stride in enumerate(strides):
        if not stride.is_number:
            mark = sympy.Dummy()
            found[dim] = left.subs(stride, mark).expand().coeff(mark, 1)
            left = (left - found[dim] * stride).expand()
    for dim, stride in enumerate(strides):
        if stride.is_number and stride != 0 and (left / stride).is_integer:
            found[dim], left = left / stride, sympy.S.Zero
    if left == 0:
        yield found
    for dim, stride in enumerate(strides):
        steps = (distance / stride).expand() if stride != 0 else distance
        if steps.is_integer:
            yield [steps if i == dim else sympy.S.Zero for i in range(len(strides))]
