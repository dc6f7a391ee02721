"""How many sizes of one dimension a kernel was compiled for, under static shapes: at the eighth there is a warning."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import torch

from ... import exc

__all__ = ["MOST_SIZES", "SizeCounter"]

#: Sizes of one dimension after which there is a warning.
MOST_SIZES = 8


def _tensors(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, (tuple, list)):
        for i, item in enumerate(value):
            yield from _tensors(item, f"{name}[{i}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _tensors(item, f"{name}[{key!r}]")


class SizeCounter:
    """Counts the sizes of each dimension of each tensor argument of one kernel, and warns once for each dimension.

    Args:
        names: of the kernel's parameters.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        #: (argument, dimension) -> sizes so far; None once there was a warning.
        self._seen: dict[tuple[str, int], set[int] | None] = {}

    def add(self, kernel: str, args: Sequence[Any], ignored: Sequence[type[exc.BaseWarning]]) -> None:
        """Count a specialization that was compiled for these arguments.

        Args:
            kernel: its name, for the warning.
            args: by position.
            ignored: warnings that nobody wants to see.
        """
        for name, value in zip(self._names, args):
            for path, tensor in _tensors(value, name):
                for dimension, size in enumerate(tensor.shape):
                    self._add(kernel, path, dimension, int(size), ignored)

    def _add(
        self, kernel: str, argument: str, dimension: int, size: int, ignored: Sequence[type[exc.BaseWarning]]
    ) -> None:
        sizes = self._seen.setdefault((argument, dimension), set())
        if sizes is None:
            return
        sizes.add(size)
        if len(sizes) < MOST_SIZES:
            return
        self._seen[argument, dimension] = None
        shown = ", ".join(map(str, sorted(sizes)))
        warning = exc.ManySizes(kernel=kernel, count=len(sizes), dimension=dimension, argument=argument, sizes=shown)
        exc.warn(warning, ignored)
