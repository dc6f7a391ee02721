"""Arguments of a call that overlap in memory.

Generated code takes the arguments of a kernel to be apart, which most are.  Where that matters, since the kernel stores
to one and touches another (`ir.effects.assumed_apart`), every call is asked whether they are, and how those that
overlap lie to each other is part of its specialization key: such calls get code of their own, with the barriers that it
takes, or an error.  ``csrc/signature.cpp`` asks the same for the calls that run in C.

Not here: what the compiler makes of it (``frontend/environment.py`` lays the arguments out as they lie).
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from ...numbers import elements_meet

__all__ = ["Overlap", "apart_text", "overlapping_tensors", "overlaps"]

#: Position of an argument and number of the tensor in it, twice; bytes from the first tensor's first element to the
#: second one's, None for one and the same.
Overlap = tuple[int, int, int, int, "int | None"]


def overlaps(args: Sequence[Any], pairs: Collection[tuple[int, int]]) -> tuple[Overlap, ...]:
    """The tensors that share memory.

    Args:
        args: all arguments by position.
        pairs: positions of the arguments that are to be compared; twice the same one for the tensors in it.
    """
    found: list[Overlap] = []
    tensors = {i: list(_tensors_in(args[i])) for pair in pairs for i in pair}
    for i, j in sorted(pairs):
        for m, a in enumerate(tensors[i]):
            for n, b in enumerate(tensors[j]):
                if i == j and n <= m:
                    continue
                apart, distance = _distance(a, b)
                if not apart:
                    found.append((i, m, j, n, distance))
    return tuple(found)


def apart_text(args: Sequence[Any], names: Mapping[int, str], pairs: Collection[tuple[int, int]]) -> str | None:
    """Whether tensors of the same shapes and strides as these are apart, as an expression.

    Args:
        args: all arguments by position.
        names: what the expression calls the arguments that are tensors.
        pairs: positions of the arguments that are to be compared.

    Returns:
        True of tensors between whose first and last elements no other one lies, and so true of these; None where two
        numbers for each pair do not tell.
    """
    conditions: list[str] = []
    for i, j in sorted(pairs):
        if i == j and i in names:
            continue  # a tensor by itself
        if not {i, j} <= names.keys():
            return None
        space, begin, end = _place(args[i])
        other_space, other_begin, other_end = _place(args[j])
        if space or other_space or not (begin >= other_end or other_begin >= end):
            return None
        if begin < end and other_begin < other_end:
            distance = f"{names[i]}.data_ptr() - {names[j]}.data_ptr()"
            conditions.append(f"not {begin - end} < {distance} < {other_end - other_begin}")
    return " and ".join(conditions) or "True"


def overlapping_tensors(
    args: Sequence[Any], pairs: Collection[tuple[int, int]]
) -> list[list[tuple[torch.Tensor, int]]]:
    """The same in groups, each tensor with its address: one overlaps another one of its group, and none of others."""
    groups: list[list[torch.Tensor]] = []
    for i, m, j, n, _ in overlaps(args, pairs):
        a, b = list(_tensors_in(args[i]))[m], list(_tensors_in(args[j]))[n]
        touched = [any(one is a or one is b for one in group) for group in groups]
        together = [a, b, *[one for group, is_touched in zip(groups, touched) if is_touched for one in group]]
        groups = [group for group, is_touched in zip(groups, touched) if not is_touched] + [together]
    return [[(tensor, _place(tensor)[1]) for tensor in group] for group in groups]


def _tensors_in(value: Any, inside: tuple[Any, ...] = ()) -> Iterator[torch.Tensor]:
    """The tensors in an argument, those that a function captures included."""
    if isinstance(value, torch.Tensor):
        yield value
        return
    if isinstance(value, (tuple, list)):
        parts = list(value)
    elif isinstance(value, dict):
        parts = list(value.values())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [getattr(value, field.name) for field in dataclasses.fields(value)]
    elif isinstance(value, types.FunctionType):
        parts = [cell.cell_contents for cell in value.__closure__ or () if _is_set(cell)]
    else:
        return
    if not any(value is other for other in inside):
        for part in parts:
            yield from _tensors_in(part, (*inside, value))


def _is_set(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _distance(a: torch.Tensor, b: torch.Tensor) -> tuple[bool, int | None]:
    """Whether two tensors are apart; if not, the bytes from one to the other, None if they are the same."""
    space, begin, end = _place(a)
    other_space, other_begin, other_end = _place(b)
    if space != other_space or begin >= other_end or other_begin >= end:
        return True, None
    distance = other_begin - begin
    if distance == 0 and a.dtype is b.dtype and a.shape == b.shape and a.stride() == b.stride():
        return False, None
    return not _meet(_box(a), _box(b), distance), distance


_meet = functools.lru_cache(maxsize=1024)(elements_meet)


def _box(tensor: torch.Tensor) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    size = tensor.element_size()
    return tuple(map(_hint, tensor.shape)), tuple([_hint(stride) * size for stride in tensor.stride()]), size


def _place(tensor: torch.Tensor) -> tuple[int, int, int]:
    """Which memory a tensor is in, and the bytes between its first and last element there."""
    size = tensor.element_size()
    elements = 1
    for extent, stride in zip(tensor.shape, tensor.stride()):
        extent, stride = _hint(extent), _hint(stride)
        if extent == 0:
            return 0, 0, 0
        elements += (extent - 1) * stride
    if isinstance(tensor, FakeTensor) or tensor.is_meta:
        begin, space = _hint(tensor.storage_offset()) * size, tensor.untyped_storage()._cdata
    else:
        begin, space = tensor.data_ptr(), 0
    return space, begin, begin + elements * size


def _hint(value: Any) -> int:
    """An int; of a symbolic one, while PyTorch traces, the number that it was traced with."""
    return int(value) if isinstance(value, int) else int(value.node.hint)
