"""How many sizes of one dimension a kernel was compiled for: at the eighth there is a warning, and under
``static_shapes="auto"`` the dimension is dynamic from then on.

A dynamic dimension of 2 or more is a symbol in the kernel, and so are the strides that such a one may decide: the
larger ones. All other numbers stay constants, also a dimension that is 0 or 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import torch

from ... import exc
from ...language.containers import walk_values

__all__ = ["MOST_SIZES", "SizeCounter", "Varying", "varying"]

#: Sizes of one dimension after which there is a warning.
MOST_SIZES = 8


class Varying(NamedTuple):
    """The numbers of one tensor that are symbols: its dimensions by their sizes, and by their strides."""

    sizes: frozenset[int]
    strides: frozenset[int]


def varying(tensor: torch.Tensor, dimensions: frozenset[int], fixed: frozenset[int] = frozenset()) -> Varying:
    """Which numbers of a tensor are symbols.

    Args:
        tensor: with plain ints for sizes.
        dimensions: that are dynamic.
        fixed: of these, that were marked as static.
    """
    sizes = frozenset(d for d in dimensions - fixed if d < tensor.dim() and tensor.shape[d] > 1)
    steps = tensor.stride()
    strides = frozenset(j for j, step in enumerate(steps) if step > 1 and any(steps[d] < step for d in sizes))
    return Varying(sizes, strides)


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
            for path, part in walk_values(value, name):
                for dimension, size in enumerate(part.shape if isinstance(part, torch.Tensor) else ()):
                    self._add(kernel, path, dimension, int(size), ignored)

    def reached(self, args: Sequence[Any]) -> dict[int, frozenset[int]]:
        """Count a call that is about to be compiled; position of an argument -> dimensions that have their eighth size
        with it. Tensors within tuples, lists and dicts are not looked at."""
        found: dict[int, frozenset[int]] = {}
        for position, (name, value) in enumerate(zip(self._names, args)):
            if type(value) not in (torch.Tensor, torch.nn.Parameter):
                continue  # sizes of others may be symbols
            for dimension, size in enumerate(value.shape):
                sizes = self._seen.setdefault((name, dimension), set())
                if sizes is None:
                    continue
                sizes.add(int(size))
                if len(sizes) >= MOST_SIZES:
                    self._seen[name, dimension] = None
                    found[position] = found.get(position, frozenset()) | {dimension}
        return found

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
