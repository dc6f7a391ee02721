"""Parts of host tensors at places that host code reads from tensors: `cache[:, :p]`, `table[p]`, `x.narrow(0, p, 4)`.

The host function takes them as the user wrote it, at each call; what a trace has for one is a view with the base's
memory and strides, whose sizes and place are numbers that follow from what is read.

Not here: numbers that are read (`host_reads`), and indices in device code (`language.memory`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..ir.symbols import expr_of
from ..ir.symbols import symbols_of
from .host_reads import HostReads

#: Functions of torch that take a part of a tensor or write one, with the names of their parameters.
_PARTS: dict[Any, tuple[str, ...]] = {
    torch.Tensor.__getitem__: ("input", "at"),
    torch.Tensor.__setitem__: ("input", "at", "value"),
    torch.Tensor.narrow: ("input", "dim", "start", "length"),
    torch.narrow: ("input", "dim", "start", "length"),
    torch.Tensor.select: ("input", "dim", "index"),
    torch.select: ("input", "dim", "index"),
}


def _length(size: int, start: int, stop: int, step: int) -> int:
    return len(range(*slice(start, stop, step).indices(size)))


def _length_up_to(size: int, stop: int, step: int) -> int:
    return len(range(*slice(None, stop, step).indices(size)))


def _length_from(size: int, start: int, step: int) -> int:
    return len(range(*slice(start, None, step).indices(size)))


def _begin(size: int, start: int) -> int:
    return slice(start, None).indices(size)[0]


def _place(size: int, index: int) -> int:
    return index % max(size, 1)


class ReadPlaces:
    """Takes parts of host tensors.

    Args:
        env: of the trace.
    """

    def __init__(self, env: HostReads) -> None:
        self._env = env

    def _part(self, tensor: torch.Tensor, index: Any) -> torch.Tensor | None:
        """`tensor[index]`; None unless a slice's bound or an index is a number that is read from a tensor, beside
        numbers, slices, None and `...` only."""
        items = list(index) if isinstance(index, tuple) else [index]
        known = all(item is None or item is ... or isinstance(item, (int, torch.SymInt, slice)) for item in items)
        if not known or any(type(item) is bool for item in items) or not any(map(self._is_read, items)):
            return None
        rest = [slice(None) if self._is_read(item) else item for item in items]
        view = tensor[tuple(rest)]
        dims = self._dims(rest, view.dim())
        return self._placed(view, [(dims[i], item) for i, item in enumerate(items) if self._is_read(item)])

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a function of torch gives that takes or writes such a part; None for every other call.

        Where a part does not fit, the host function's own call raises.
        """
        names = _PARTS.get(func)
        if names is None:
            return None
        given = dict(zip(names, args), **kwargs)
        x, where = given.get("input"), given.get("dim")
        if set(given) != set(names) or not isinstance(x, torch.Tensor):
            return None
        if "value" in given:
            # What is written changes no shape, and whether it fits is for the call to say.
            unknown = isinstance(given["value"], torch.Tensor) and any(map(self._is_read, given["value"].shape))
            return () if unknown or self._part(x, given["at"]) is not None else None
        if "at" in given:
            return self._part(x, given["at"])
        assert isinstance(where, int)
        start = given["start"] if "start" in given else given["index"]
        if not self._is_read(start) or not -x.dim() <= where < x.dim():
            return None
        dim = where % x.dim()
        if "length" not in given:
            return self._placed(x, [(dim, start)])
        return self._placed(x, [(dim, slice(start, start + given["length"]))], {dim: given["length"]})

    def _is_read(self, item: Any) -> bool:
        if isinstance(item, slice):
            return any(map(self._is_read, (item.start, item.stop)))
        return isinstance(item, torch.SymInt) and self._env.is_read(symbols_of(item))

    @staticmethod
    def _dims(items: list[Any], count: int) -> list[int]:
        """The dimension of the view that each item of its index gives, or the next one of an item that gives none."""
        found, dim = [], 0
        for position, item in enumerate(items):
            found.append(dim)
            if item is ...:
                dim = count - sum(later is None or isinstance(later, slice) for later in items[position + 1 :])
            elif item is None or isinstance(item, slice):
                dim += 1
        return found

    def _placed(
        self, view: torch.Tensor, items: list[tuple[int, Any]], lengths: dict[int, Any] | None = None
    ) -> torch.Tensor:
        """A part of a view along each of some dimensions."""
        sizes: list[Any] = list(view.shape)
        strides: list[Any] = list(view.stride())
        offset: Any = view.storage_offset()
        for dim, item in items:
            size = sizes[dim]
            if not isinstance(item, slice):
                offset = offset + self._number(_place, (size, item)) * strides[dim]
                continue
            step = 1 if item.step is None else item.step
            if item.start is not None:
                offset = offset + self._number(_begin, (size, item.start)) * strides[dim]
            sizes[dim] = self._length(size, item.start, item.stop, step)
            strides[dim] = strides[dim] * step
        for dim, length in (lengths or {}).items():
            sizes[dim] = length
        kept = [dim for dim in range(view.dim()) if not any(dim == d and not isinstance(i, slice) for d, i in items)]
        return self._env.in_memory_of(view, [sizes[d] for d in kept], [strides[d] for d in kept], offset)

    def _length(self, size: Any, start: Any, stop: Any, step: Any) -> Any:
        if start is None:
            return self._number(_length_up_to, (size, stop, step))
        if stop is None:
            return self._number(_length_from, (size, start, step))
        return self._number(_length, (size, start, stop, step))

    def _number(self, fn: Callable[..., int], args: tuple[Any, ...]) -> Any:
        return self._env.number_of_call(fn, tuple(map(expr_of, args)))
