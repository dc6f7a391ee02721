"""Parsers of settings: each takes a keyword's value or a variable's text, and returns the setting's value.

What a parser does not take is a ValueError that says what is expected.  Not here: parsers of one setting, which know
what it is about (`settings.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path

from ._environment import FALSE
from ._environment import TRUE


def a_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in TRUE | FALSE:
        return value.lower() in TRUE
    raise ValueError("expected a bool (or 1/0, true/false, on/off)")


def bool_or(word: str) -> Callable[[object], object]:
    def parse_bool_or(value: object) -> object:
        if isinstance(value, str) and value.lower() == word:
            return word
        try:
            return a_bool(value)
        except ValueError:
            raise ValueError(f"expected a bool (or 1/0, true/false, on/off), or {word}") from None

    return parse_bool_or


def a_int(value: object) -> int:
    if isinstance(value, bool):
        raise ValueError("expected an int, got a bool")
    if isinstance(value, (int, str)):
        return int(value)
    raise ValueError("expected an int")


def a_float(value: object) -> float:
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return float(value)
    raise ValueError("expected a number")


def a_any(value: object) -> object:
    return value


def optional(parse: Callable[[object], object]) -> Callable[[object], object]:
    def parse_optional(value: object) -> object:
        if value is None or (isinstance(value, str) and value.lower() in ("", "none")):
            return None
        return parse(value)

    return parse_optional


def choice(*choices: str) -> Callable[[object], object]:
    def parse_choice(value: object) -> object:
        if isinstance(value, str) and value.lower() in choices:
            return value.lower()
        raise ValueError(f"expected one of {', '.join(choices)}")

    return parse_choice


def log_level(value: object) -> object:
    """A number as in `logging`: 20 shows progress, 30 warnings alone, 0 nothing at all."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        levels = {"critical": 50, "error": 40, "warning": 30, "warn": 30, "info": 20, "debug": 10, "notset": 0}
        if value.strip().lower() in levels:
            return levels[value.strip().lower()]
        if value.strip().isdigit():
            return int(value)
    raise ValueError("expected a level of logging: 0, 10, 20, 30, 40, 50, or its name")


def precompile(value: object) -> object:
    if value is None or value == "fork" or value == "spawn":
        return value
    if value == 0 or value == 1:
        return "fork" if value else None
    return "fork" if a_bool(value) else None


def at_least(low: float, parse: Callable[[object], float] = a_int) -> Callable[[object], object]:
    def parse_at_least(value: object) -> object:
        found = parse(value)
        if not found >= low:  # nor is nan
            raise ValueError(f"expected at least {low}")
        return found

    return parse_at_least


def a_callable(value: object) -> object:
    if not callable(value):
        raise ValueError("expected a function")
    return value


def strings(value: object) -> object:
    """A list of strings, or one with commas."""
    parts = value.split(",") if isinstance(value, str) else value
    if isinstance(parts, (list, tuple)) and all(isinstance(part, str) for part in parts):
        return [part.strip() for part in parts if part.strip()]
    raise ValueError("expected a list of strings, or one with commas")


def overrides(value: object) -> object:
    """A dict, or text: a JSON object, or the name of a file that holds one."""
    if isinstance(value, str):
        text = value if value.lstrip().startswith("{") else Path(value).expanduser().read_text(encoding="utf-8")
        value = json.loads(text)
    if not isinstance(value, Mapping):
        raise ValueError("expected a dict of Config keys, or a JSON object")
    return dict(value)
