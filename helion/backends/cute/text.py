"""Small helpers for printing Python source."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["block", "call"]

_WIDTH = 118


def block(lines: Iterable[str], indent: int) -> str:
    """``lines`` as whole lines indented by ``indent`` spaces; nothing for none."""
    return "".join(f"{' ' * indent}{line}\n" for line in lines)


def call(head: str, arguments: Iterable[str], tail: str, indent: int) -> str:
    """``head(arguments)tail`` on one line if it fits there, else on three, else with one argument a line.

    The first line carries no indentation of its own: it stands where the caller puts it, at column ``indent``.
    """
    items = list(arguments)
    flat = ", ".join(items)
    if indent + len(head) + len(flat) + len(tail) + 2 <= _WIDTH:
        return f"{head}({flat}){tail}"
    inner, outer = " " * (indent + 4), " " * indent
    if indent + 4 + len(flat) <= _WIDTH:
        return f"{head}(\n{inner}{flat}\n{outer}){tail}"
    body = "".join(f"{inner}{item},\n" for item in items)
    return f"{head}(\n{body}{outer}){tail}"
