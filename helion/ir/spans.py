"""Where in its storage a host tensor lies, as far as sizes and strides say."""

from __future__ import annotations

from typing import Any

import torch


def _hint(value: Any) -> int:
    return int(value) if isinstance(value, int) else int(value.node.hint)


def overlaps_itself(tensor: torch.Tensor) -> bool:
    """Whether two indices may name one element, as in an expanded tensor; by the traced call's numbers where sizes are
    symbols."""
    reach = 0
    dims = [(_hint(stride), _hint(size)) for stride, size in zip(tensor.stride(), tensor.shape)]
    for stride, size in sorted(dim for dim in dims if dim[1] > 1):
        if stride <= reach:
            return True
        reach += stride * (size - 1)
    return False


def spans_meet(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two views of one storage may have an element in common: not if one ends before the other begins."""
    first, second = _span(a), _span(b)
    return first is None or second is None or (first.start < second.stop and second.start < first.stop)


def _span(tensor: torch.Tensor) -> range | None:
    """The bytes between the first and the last element; None where a number is a symbol."""
    numbers = [*tensor.shape, *tensor.stride(), tensor.storage_offset()]
    if not all(isinstance(n, int) for n in numbers):
        return None
    begin = int(tensor.storage_offset()) * tensor.element_size()
    if not tensor.numel():
        return range(begin, begin)
    elements = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    return range(begin, begin + elements * tensor.element_size())
