"""Specialization keys for caches that outlive the process.

A key in memory may hold objects (dtypes, code objects, functions, devices) whose hash differs from run to run.
`stable_key` turns it, element by element, into a ``StableKey`` of plain data with a hash that is the same in every
process. Equal keys give equal stable keys, and different ones different ones, but for what has no meaning beyond a
process: a device counts by its type, not its index, and an object known by identity counts by its name.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import types
from collections.abc import Callable
from typing import Any

import torch

from .._locks import cached_property

__all__ = ["Identity", "StableKey", "stable_key"]


class Identity:
    """A key element that compares by which object it holds, whatever the object's own ``==`` does, and holds it."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


@dataclasses.dataclass(frozen=True)
class StableKey:
    """A specialization key as plain data.

    Attributes:
        fields: nested tuples of strings, ints, bools and None; what the key in memory holds, encoded.
    """

    fields: tuple[Any, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over ``fields``, in hex: the same in every process and on every machine."""
        return hashlib.sha256(json.dumps(self.fields, separators=(",", ":")).encode()).hexdigest()

    def __hash__(self) -> int:
        return int(self.digest[:15], 16)

    def to_json(self) -> Any:
        """``fields`` for a cache file."""
        return self.fields

    @classmethod
    def from_json(cls, data: Any) -> StableKey:
        """What ``to_json`` gave, read back."""
        return cls(_tuples(data))


def _tuples(data: Any) -> Any:
    return tuple(_tuples(item) for item in data) if isinstance(data, (list, tuple)) else data


def stable_key(key: Any) -> StableKey:
    """The stable form of a key from ``Specializer.key`` or ``full_key``."""
    encoded = _encode(key)
    return StableKey(encoded if isinstance(encoded, tuple) else (encoded,))


def _type_name(value: type) -> tuple[str, str]:
    return ("type", f"{value.__module__}.{value.__qualname__}")


def _encode_code(code: types.CodeType) -> Any:
    # What the function does, not where it stands: a moved line or file is still the same function.
    return ("code", code.co_code.hex(), code.co_names, code.co_varnames, code.co_freevars, _encode(code.co_consts))


def _encode_identity(value: Identity) -> Any:
    held = value.value
    name = getattr(held, "__qualname__", None) or getattr(held, "__name__", None) or type(held).__qualname__
    return ("object", getattr(held, "__module__", None) or type(held).__module__, str(name))


_ENCODERS: dict[type, Callable[[Any], Any]] = {
    int: lambda v: v,
    bool: lambda v: v,
    str: lambda v: v,
    type(None): lambda v: None,
    # JSON has no complex, and turns NaN into something that is not JSON.
    float: lambda v: ("float", repr(v)),
    complex: lambda v: ("complex", repr(v)),
    bytes: lambda v: ("bytes", v.hex()),
    type(...): lambda v: ("...",),
    torch.dtype: lambda v: ("dtype", str(v)),
    torch.device: lambda v: ("device", v.type),
    torch.layout: lambda v: ("layout", str(v)),
    torch.memory_format: lambda v: ("memory_format", str(v)),
    types.CodeType: _encode_code,
    Identity: _encode_identity,
    frozenset: lambda v: ("frozenset", *sorted(map(repr, map(_encode, v)))),
}


def _encode(value: Any) -> Any:
    encoder = _ENCODERS.get(type(value))
    if encoder is not None:
        return encoder(value)
    if isinstance(value, tuple):  # torch.Size too
        return tuple([_encode(item) for item in value])
    if isinstance(value, type):
        return _type_name(value)
    if isinstance(value, enum.Enum):
        return (*_type_name(type(value)), value.name)
    # What a user's `key=` function may return: any hashable.
    return (*_type_name(type(value)), repr(value))
