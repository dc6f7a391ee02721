"""What is in the containers among a call's arguments: tuples, NamedTuples, lists, dicts and dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves


def walk_values(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """A value and every value inside it, each with the expression that reaches it; `path`: that of the value."""
    yield path, value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        for field in value._fields:
            yield from walk_values(getattr(value, field), f"{path}.{field}")
    elif isinstance(value, (tuple, list)):
        for i, v in enumerate(value):
            yield from walk_values(v, f"{path}[{i}]")
    elif isinstance(value, dict):
        for k, v in value.items():
            yield from walk_values(v, f"{path}[{k!r}]")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from walk_values(getattr(value, field.name), f"{path}.{field.name}")


def tensors_in(value: Any) -> list[torch.Tensor]:
    """The tensors in a value, itself included."""
    return [part for _, part in walk_values(value, "") if isinstance(part, torch.Tensor)]


def tensors_of_call(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """The tensors among the arguments of a torch function; PyTorch's own walk took a quarter of ref mode's time."""
    found: list[torch.Tensor] = []
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list, dict)):
            found += [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
    return found
