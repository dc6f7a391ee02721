"""Functions passed as arguments, with tensors of their own for those that they close over."""

from __future__ import annotations

import types
from typing import Any

import torch

from .._compat_tracing import unset_fake_temporarily


def with_own_captures(function: types.FunctionType, inside: tuple[Any, ...] = ()) -> types.FunctionType:
    """A function argument with other objects for the tensors that it closes over, functions in its closure included.

    A tensor that is captured and also an argument, or captured by two functions, need not be the same one in the next
    call of the same specialization; so it may not be taken for the same here. ``inside``: the functions whose captures
    are being copied.
    """
    cells: list[types.CellType] = []
    for cell in function.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:  # not assigned yet
            cells.append(cell)
            continue
        own = _own_tensors(content, (*inside, function))
        cells.append(cell if own is content else types.CellType(own))
    if all(new is old for new, old in zip(cells, function.__closure__ or ())):
        return function
    closure = tuple(cells)
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, closure
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _own_tensors(value: Any, inside: tuple[Any, ...]) -> Any:
    """``value`` with another object for each tensor in it; the same if there is none."""
    if isinstance(value, torch.Tensor):
        with unset_fake_temporarily():
            return value.data
    if isinstance(value, types.FunctionType):
        # A function that captures itself, or one of those that capture it, keeps that.
        return value if any(value is other for other in inside) else with_own_captures(value, inside)
    if isinstance(value, dict):
        values = {name: _own_tensors(item, inside) for name, item in value.items()}
        return value if all(values[name] is item for name, item in value.items()) else values
    if isinstance(value, (tuple, list)):
        items = [_own_tensors(item, inside) for item in value]
        if all(new is old for new, old in zip(items, value)):
            return value
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value
