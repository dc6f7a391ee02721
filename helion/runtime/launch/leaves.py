"""The arguments of a call that is recorded: which lists are among them, and which tensors occur twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["containers_in", "lists_in", "with_originals", "without_duplicates"]


def containers_in(value: Any) -> Iterator[Any]:
    """The tuples, lists and dicts in a value, itself and nested ones included."""
    if isinstance(value, (tuple, list, dict)):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from containers_in(item)


def lists_in(value: Any) -> list[list[Any]]:
    """The lists in an argument, nested ones included."""
    if type(value) not in (tuple, list):
        return []
    found = [value] if type(value) is list else []
    for item in value:
        found += lists_in(item)
    return found


def without_duplicates(args: tuple[Any, ...]) -> tuple[tuple[Any, ...], dict[int, torch.Tensor]] | None:
    """``args`` with every second occurrence of a tensor replaced by an alias of its own, and id(alias) -> original.

    The recorder tells tensors apart by identity; without this, a plan recorded for ``f(x, x)`` would give ``x`` for
    both arguments of ``f(x, y)``. An alias has a version counter of its own, so that it shows which of the two is
    written. None if a tensor occurs twice inside of tuples or lists, which host code gets as they are.
    """
    seen: set[int] = set()

    def new(value: Any) -> bool:
        if isinstance(value, torch.Tensor):
            known = id(value) in seen
            seen.add(id(value))
            return not known
        return all(new(item) for item in value) if type(value) in (tuple, list) else True

    if not all(new(arg) for arg in args if not isinstance(arg, torch.Tensor)):
        return None
    distinct, originals = list(args), {}
    for i, arg in enumerate(args):
        if isinstance(arg, torch.Tensor) and not new(arg):
            distinct[i] = arg.data
            originals[id(distinct[i])] = arg
    return tuple(distinct), originals


def with_originals(value: Any, originals: dict[int, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return originals.get(id(value), value)
    if type(value) in (tuple, list) and originals:
        return type(value)(with_originals(item, originals) for item in value)
    return value
