"""Checks of data that comes from elsewhere: cache files, shared studies, measurements, logs.

A check takes what JSON gave and returns it in the form the program uses, or raises ValueError. Whoever reads a file
turns that into "there is nothing here", with a line in the log: a damaged file never ends a program.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from ..config import Config

Check = Callable[[Any], Any]

DEPTH = 4
"""Lists in a Config are nested no deeper than this."""

_INTEGERS = 1 << 63


def parse(data: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, or nested too deeply or with numbers too long to be read.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def record(value: Any, fields: Mapping[str, Check], optional: Mapping[str, Check] = {}) -> dict[str, Any]:
    """An object with these fields, each checked; other fields are left out.

    Args:
        value: what JSON gave.
        fields: the fields that must be there.
        optional: fields that may be there.
    """
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {type(value).__name__}")
    found = {}
    for name, check in {**fields, **optional}.items():
        if name in value:
            try:
                found[name] = check(value[name])
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        elif name in fields:
            raise ValueError(f"{name} is missing")
    return found


def text(value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise ValueError(f"expected a string, got {type(value).__name__}")
    return value


def number(value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"expected a number, got {type(value).__name__}")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise ValueError("expected a finite number")
    return found


def milliseconds(value: Any) -> float:
    """A time."""
    found = number(value)
    if found < 0:
        raise ValueError("expected a time, which is not below 0")
    return found


def optional(check: Check) -> Check:
    """None, or what another check takes."""
    return lambda value: None if value is None else check(value)


def list_of(check: Check) -> Check:
    """A list whose items a check takes."""

    def checked(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError(f"expected a list, got {type(value).__name__}")
        return [check(item) for item in value]

    return checked


def mapping_of(check: Check) -> Check:
    """An object whose values a check takes."""

    def checked(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError(f"expected an object, got {type(value).__name__}")
        return {key: check(item) for key, item in value.items()}

    return checked


def _item(value: Any, depth: int = DEPTH) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        if abs(value) >= _INTEGERS:
            raise ValueError("an integer is out of range")
        return value
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list) and depth > 0:
        return [_item(item, depth - 1) for item in value]
    raise ValueError(f"a Config holds no {type(value).__name__}" if depth else "nested too deeply")


def config(value: Any) -> Config:
    """A Config; whether it fits a kernel is the ConfigSpec's business."""
    items = mapping_of(_item)(value)
    if not all(key.isidentifier() and key != "self" for key in items):
        raise ValueError("a key of the Config is no name")
    return Config.from_dict(items)
