"""Variables that device loops change, in ref mode: what a compiled loop carries from one iteration to the next.

Numbers are tensors:

    side = 0
    for j in hl.grid(n):
        acc = torch.where(side == 0, acc + 1, acc * 2)
        side = 1 - side

Compiled, `side` is an int64 tensor in the loop and after it.  To Python it is an int, which torch.where does not take,
which grows past 64 bits, and as a float has 64 bits where the kernel's has 32.  So a loop that begins puts tensors into
the variables of the user's frame that it carries: those assigned in its body that are there before, and needed later.

A jagged loop changes lanes inside of their rows alone: the others have what they had before the iteration.
"""

from __future__ import annotations

import ctypes
import types
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ... import _compat_torch
from .axes import mark

#: The variables that a loop carries: of a function's code, the line that its head is on, and "for" or "while".
CarriedBy = Callable[[types.CodeType, int, str], frozenset[str]]


def nothing(code: types.CodeType, line: int, loop: str) -> frozenset[str]:
    """No variables: what is known of a function without its source."""
    return frozenset()


def dtype_of(number: Any) -> torch.dtype:
    """The dtype of a tensor that a number of Python's becomes."""
    if isinstance(number, bool):
        return torch.bool
    return torch.int64 if isinstance(number, int) else torch.get_default_dtype()


class CarriedVariables:
    """The variables of one loop, while it runs.

    Args:
        frame: of the user's function, which is at the head of the loop; None outside of device code.
        loop: "for" or "while".
        device: of the kernel.
        carried_by: which variables a loop carries.
    """

    def __init__(self, frame: types.FrameType | None, loop: str, device: torch.device, carried_by: CarriedBy) -> None:
        self._frame = frame
        self._device = device
        self._names = frozenset() if frame is None else carried_by(frame.f_code, frame.f_lineno, loop)
        self._dtypes: dict[str, list[Any]] = {}
        self._before: dict[str, Any] = {}

    def begin(self) -> None:
        """An iteration begins, or the loop is over: numbers that the variables hold become tensors."""
        if self._frame is None or not self._names:
            return
        known = self._frame.f_locals
        # Not `&` with known.keys(): what Python 3.13 has for f_locals gives a list of them.
        found = {name: self._lifted(name, known[name]) for name in self._names.intersection(known)}
        self._write(known, {name: new[0] for name, new in found.items() if new is not None})
        self._before = {name: known[name] for name in self._names.intersection(known)}

    def end(self, keep: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        """An iteration is over.

        Args:
            keep: makes of a new value and the one before what is carried on.
        """
        if self._frame is None or not self._before:
            return
        known, changed = self._frame.f_locals, {}
        for name, before in self._before.items():
            new, spec = pytree.tree_flatten(known.get(name))
            old, before_spec = pytree.tree_flatten(before)
            if spec == before_spec:
                kept = [
                    keep(n, o) if isinstance(n, torch.Tensor) and isinstance(o, torch.Tensor) else n
                    for n, o in zip(new, old, strict=True)
                ]
                if any(k is not n for k, n in zip(kept, new)):
                    changed[name] = pytree.tree_unflatten(kept, spec)
        self._write(known, changed)

    def _write(self, known: dict[str, Any], changed: dict[str, Any]) -> None:
        if changed:
            known.update(changed)
            # From Python 3.13 on the update has done it, and this does nothing.
            ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(self._frame), ctypes.c_int(0))

    def _lifted(self, name: str, value: Any) -> tuple[Any] | None:
        """What a variable holds with tensors for numbers; None where it holds none."""
        leaves, spec = pytree.tree_flatten(value)
        if not any(isinstance(leaf, (int, float)) for leaf in leaves):
            return None
        numbers = all(isinstance(leaf, (int, float, torch.Tensor)) for leaf in leaves)
        if not numbers:
            return None  # a loop cannot carry it
        before = self._dtypes.setdefault(name, [_dtype(leaf) for leaf in leaves])
        before = before if len(before) == len(leaves) else [_dtype(leaf) for leaf in leaves]
        with _compat_torch.without_torch_functions():
            new = [
                leaf if isinstance(leaf, torch.Tensor) else mark(_tensor(leaf, dtype, self._device), ())
                for leaf, dtype in zip(leaves, before, strict=True)
            ]
        return (pytree.tree_unflatten(new, spec),)


def _dtype(leaf: Any) -> torch.dtype:
    return leaf.dtype if isinstance(leaf, torch.Tensor) else dtype_of(leaf)


def _tensor(number: Any, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    plain = number if isinstance(number, (bool, float)) else int(number)
    return torch.tensor(plain, dtype=dtype, device=device)
