"""Parts of device values in ref mode: whose dimensions they take, and have.

What an index means is in `language.subscripts`; here is what the eager rule, which sees sizes alone, cannot know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ...language.subscripts import elements_of
from ...language.subscripts import is_whole
from ...language.subscripts import of_a_tile


def check_parts(tensor: torch.Tensor, index: Any, axes: Sequence[Any]) -> None:
    """Check that parts are taken of dimensions of constant size only.

    Args:
        tensor, index: the device value and its index.
        axes: for each dimension the loop axis it runs over, or None.

    Raises:
        exc.InvalidAPIUsage: of a tile's too.
    """
    named = [element for element in elements_of(tensor, index) if element is not None]
    for dim, (element, axis) in enumerate(zip(named, axes, strict=True)):
        if axis is not None and not is_whole(element):
            raise of_a_tile(dim)


def axes_of_part(tensor: torch.Tensor, index: Any, axes: Sequence[Any]) -> list[Any] | None:
    """The axes of a device value's part; None where they do not follow: at several index tensors, or one of two
    dimensions."""
    left = iter(axes)
    found: list[Any] = []
    tensors = 0
    for element in elements_of(tensor, index):
        axis = None if element is None else next(left)
        if isinstance(element, torch.Tensor) and element.dim():
            tensors += element.dim()
        elif element is not None and not isinstance(element, slice):
            continue
        found.append(axis)
    return found if not tensors else None
