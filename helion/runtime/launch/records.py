"""NamedTuples and dataclasses that hold what they are called with, and do nothing else: a plan can make them."""

from __future__ import annotations

import dataclasses
import inspect
import types
from typing import Any

__all__ = ["fields_of", "is_record"]


def is_record(cls: object) -> bool:
    """Whether calling it is a function of the arguments alone: no code of the program's own runs."""
    if not isinstance(cls, type) or type(cls) is not type:
        return False
    if cls.__bases__ == (tuple,):
        return hasattr(cls, "_fields") and _is_generated(cls.__new__)
    return (
        dataclasses.is_dataclass(cls)
        and cls.__new__ is object.__new__
        and _is_generated(cls.__init__)
        and not hasattr(cls, "__post_init__")
        and (cls.__setattr__ is object.__setattr__ or _is_generated(cls.__setattr__))
        and cls.__getattribute__ is object.__getattribute__
        and all(map(_is_plain, dataclasses.fields(cls)))
        and not any(_sets(cls, field.name) for field in dataclasses.fields(cls))
    )


def fields_of(value: Any) -> list[Any] | None:
    """What the class of a record is called with to make one like it; None if it is no record, or holds more."""
    cls = type(value)
    if not is_record(cls):
        return None
    if isinstance(value, tuple):
        return list(value)
    names = [field.name for field in dataclasses.fields(cls)]
    if getattr(value, "__dict__", {}).keys() - set(names):
        return None
    return [getattr(value, name) for name in names]


def _is_generated(function: Any) -> bool:
    """Whether a method is the one that `NamedTuple` or `dataclass` made."""
    return isinstance(function, types.FunctionType) and function.__code__.co_filename == "<string>"


def _is_plain(field: dataclasses.Field[Any]) -> bool:
    return field.init and not field.kw_only and field.default_factory in (dataclasses.MISSING, list, dict)


def _sets(cls: type, name: str) -> bool:
    """Whether setting an attribute runs code: a property, another descriptor."""
    found = inspect.getattr_static(cls, name, None)
    return hasattr(type(found), "__set__") and not isinstance(found, types.MemberDescriptorType)
