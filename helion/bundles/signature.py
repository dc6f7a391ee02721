"""Which calls a plan is for, as plain data: the same in every process, unlike the signature that `helion._C` reads.

An argument becomes a nested tuple: a tensor its dtype, sizes, strides and whether its address is a multiple of 16; an
int what Triton tells apart (1, multiples of 16, 32 bits) or its value, where that counts; tuples and lists what they
hold. `describe` keeps values instead, and `example` makes arguments of a description again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import Parameter

from ..runtime import device

__all__ = ["Unsupported", "describe", "example", "leaves", "signature", "tensors"]

_DEEPEST = 8


class Unsupported(Exception):
    """An argument that no plan takes; the message says which."""


def _tensor(value: torch.Tensor) -> tuple[Any, ...]:
    if type(value) not in (torch.Tensor, Parameter) or value.layout is not torch.strided:
        raise Unsupported(f"a {type(value).__name__} that is no plain tensor")
    if value.is_neg() or value.is_conj():
        raise Unsupported("a tensor that is lazily negated or conjugated")
    misaligned = value.data_ptr() % 16 != 0
    return ("tensor", str(value.dtype)[6:], tuple(value.shape), value.stride(), misaligned)


def _number(value: int | float, by_value: bool) -> tuple[Any, ...]:
    if type(value) is float:
        return ("float", value.hex()) if by_value else ("float",)
    if not -(2**63) <= value < 2**63:
        raise Unsupported("an int of more than 64 bits")
    if by_value:
        return ("int", "=", value)
    return ("int", value == 1, value % 16 == 0, -(2**31) <= value < 2**31)


def _element(value: Any, by_value: bool, depth: int) -> tuple[Any, ...]:
    if isinstance(value, torch.Tensor):
        return _tensor(value)
    kind = type(value)
    if kind is bool:
        return ("bool", value)
    if kind in (int, float):
        return _number(value, by_value)
    if value is None:
        return ("none",)
    if kind is str:
        return ("str", value)
    if kind is torch.dtype:
        return ("dtype", str(value)[6:])
    if kind in (tuple, list) and depth < _DEEPEST:
        return (kind.__name__, *[_element(item, by_value, depth + 1) for item in value])
    raise Unsupported(f"an argument of type {kind.__name__}")


def signature(args: Sequence[Any], by_value: Sequence[bool]) -> tuple[Any, ...]:
    """What a bundle looks a call up by.

    Args:
        args: by position, defaults filled in.
        by_value: per parameter, whether the value of a number counts.

    Raises:
        Unsupported: no plan takes such a call.
    """
    return tuple([_element(value, counts, 0) for value, counts in zip(args, by_value)])


def user_key(specializer: Any, args: Sequence[Any]) -> tuple[Any, ...] | None:
    """The result of the kernel's `key=` function as plain data; None for a kernel without one.

    Raises:
        Unsupported: it is an object that means nothing in another process.
    """
    if specializer.key_fn is None:
        return None
    return _element(specializer.key_fn(*args), True, 0)


def leaves(found: Sequence[Any]) -> list[tuple[Any, ...]]:
    """The elements of a signature that a plan counts as leaves, in its order."""
    parts: list[tuple[Any, ...]] = []
    for element in found:
        parts += leaves(element[1:]) if element[0] in ("tuple", "list") else [element]
    return parts


def tensors(args: Any) -> list[torch.Tensor]:
    """The tensors among arguments, those in tuples and lists included."""
    if isinstance(args, torch.Tensor):
        return [args]
    return [part for item in args for part in tensors(item)] if type(args) in (tuple, list) else []


# -- descriptions that examples can be made of -----------------------------------------------------------------------


def describe(args: Sequence[Any]) -> list[Any]:
    """Arguments as JSON, so that `example` can make others like them.

    Raises:
        Unsupported: one of them is of a kind that a bundle does not take.
    """
    return [_description(value) for value in args]


def _description(value: Any) -> Any:
    if type(value) in (int, float):
        _number(value, True)
        return ["float", value.hex()] if type(value) is float else ["int", value]
    if type(value) in (tuple, list):
        return [type(value).__name__, *[_description(item) for item in value]]
    return list(_element(value, True, 0))


def example(described: Sequence[Any]) -> tuple[Any, ...]:
    """Arguments like those that were described, tensors full of zeros, where kernels can be compiled for."""
    return tuple([_example(item) for item in described])


def _example(item: Any) -> Any:
    kind, *rest = item
    if kind == "tensor":
        name, sizes, strides, misaligned = rest
        dtype = getattr(torch, name)
        needed = 0 if math.prod(sizes) == 0 else 1 + sum((n - 1) * step for n, step in zip(sizes, strides))
        storage = torch.zeros(needed + 1, dtype=dtype, device=_where())
        return torch.as_strided(storage, sizes, strides, int(misaligned))
    if kind == "tuple":
        return tuple([_example(part) for part in rest])
    if kind == "list":
        return [_example(part) for part in rest]
    if kind == "dtype":
        return getattr(torch, rest[0])
    if kind == "float":
        return float.fromhex(rest[0])
    return rest[0] if rest else None


def _where() -> torch.device:
    return device.torch_device() if device.is_available() else torch.device("cpu")
