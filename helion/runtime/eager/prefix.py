"""Runs a kernel function up to its first device loop: what its conditions are in a call.

The host function runs the same statements again, so this must change nothing that anyone can see: it stops at the first
operation that writes memory of the caller's, or draws random numbers.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ... import _compat_torch
from ... import exc
from ...language.op import LoopRanges
from ...language.op import handler
from ...language.tile import Tile
from .ref_mode import RefHandler
from .torch_mode import DeviceTorchMode


class _Reached(BaseException):
    """The first device loop, or what may not be done twice; not for the user's own `except`."""


class _PrefixHandler(RefHandler):
    """Host code's side of the language; device loops end it."""

    def tile(self, ranges: LoopRanges) -> Iterable[Any]:
        raise _Reached

    def grid(self, ranges: LoopRanges) -> Iterable[Any]:
        raise _Reached

    def jagged_tile(self, lengths: torch.Tensor, block_size: Any) -> Iterable[Tile]:
        raise _Reached


class _NothingTwice(TorchDispatchMode):
    """Stops before an operation that would matter if it was done twice.

    Attributes:
        stopped: what it was stopped before, in words; "" if nothing was met.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stopped = ""
        # Of new tensors alone: a weak reference keeps another storage from getting the same address.
        self._own: set[StorageWeakRef] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func.name()).removeprefix("aten::")
        if torch.Tag.nondeterministic_seeded in func.tags:
            self._stop(f"drawing random numbers ({name})")
        given = {id(leaf): leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        if func._schema.is_mutable:
            for argument, value in zip(func._schema.arguments, args, strict=False):
                self._check(argument, value, name)
            for argument in func._schema.arguments:
                self._check(argument, kwargs.get(argument.name), name)
        result = func(*args, **kwargs)
        taken = {StorageWeakRef(tensor.untyped_storage()) for tensor in given.values() if _has_storage(tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and _has_storage(leaf):
                reference = StorageWeakRef(leaf.untyped_storage())
                if reference not in taken:
                    self._own.add(reference)
        return result

    def _check(self, argument: Any, value: Any, name: str) -> None:
        if argument.alias_info is None or not argument.alias_info.is_write:
            return
        for leaf in tree_leaves(value):
            if isinstance(leaf, torch.Tensor) and _has_storage(leaf):
                if StorageWeakRef(leaf.untyped_storage()) not in self._own:
                    self._stop(f"writing to a tensor of the caller's ({name})")

    def _stop(self, reason: str) -> None:
        self.stopped = reason
        raise _Reached


def _has_storage(tensor: torch.Tensor) -> bool:
    return tensor.layout is torch.strided


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Without what watches the caller's operations, which are done again.  Grad mode stays, as host code may decide on
    it."""
    with _compat_torch.without_dispatch_modes():
        yield


def can_run(args: Sequence[Any]) -> bool:
    """Whether the arguments have values: fake tensors have none."""
    return not any(isinstance(leaf, FakeTensor) for leaf in tree_leaves(list(args)))


def run_prefix(fn: types.FunctionType, args: Sequence[Any], device: torch.device) -> str:
    """Run a function up to its first device loop.

    Args:
        fn: the function.
        args: its arguments, as in a call; further ones are left out.
        device: where the kernel's tensors are.

    Returns:
        Why it was stopped earlier; "" if it was not.

    Raises:
        exc.HostTensorRead: another kernel that it calls has written to an argument.
    """
    mode = _NothingTwice()
    given = args[: fn.__code__.co_argcount]
    ref = _PrefixHandler(device, None)
    versions = _versions(given)
    try:
        with _alone(), handler(ref), DeviceTorchMode(ref), mode:
            fn(*given)
    except _Reached:
        pass
    if _versions(given) != versions:
        raise exc.HostTensorRead(
            "host code decides on a tensor's value, and calls a kernel that writes to an argument before: it has just "
            "done so, and would again",
            fix="call that kernel before this one, outside of the kernel function.",
        )
    return mode.stopped


def _versions(args: Sequence[Any]) -> list[int]:
    tensors = [leaf for leaf in tree_leaves(list(args)) if isinstance(leaf, torch.Tensor)]
    return [tensor._version for tensor in tensors if not tensor.is_inference()]
