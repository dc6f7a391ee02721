"""What is not decided by arguments: random numbers, the time, the state of the process; what a tensor of a call has
that its specialization does not know, as its place in memory.

A number that host code gets from one is read at each call, as those that it reads from tensors are: a trace that took
it for a constant would give every call the number of the first.

Not here: names of the module that change (``runtime/launch/outside.py``).
"""

from __future__ import annotations

import builtins
import sys
import types
from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["BY_METHODS", "OF_TENSORS", "asks_for_class", "varies"]

_MODULES = frozenset(
    {"random", "time", "os", "posix", "secrets", "uuid", "datetime", "threading", "_thread", "multiprocessing"}
)
#: What their functions call is of no interest.
_LIBRARIES = frozenset({"torch", "helion", "triton", "numpy", "cutlass"}) | (sys.stdlib_module_names - {"__main__"})
#: Functions of torch.
_STATES = frozenset(
    {
        "is_grad_enabled", "is_inference_mode_enabled", "is_autocast_enabled", "get_num_threads", "initial_seed",
        "are_deterministic_algorithms_enabled",
    }
)  # fmt: skip

#: Attributes of a tensor that may differ between two calls of one specialization, and what methods of it give, with the
#: type of the number; None where it is none.
OF_TENSORS: dict[str, type | None] = {
    **dict.fromkeys(("requires_grad", "is_leaf", "retains_grad"), bool),
    "_version": int,
    **dict.fromkeys(("grad", "grad_fn", "_base", "__class__"), None),
}
BY_METHODS: dict[str, type | None] = {
    **dict.fromkeys(("is_inference", "is_pinned", "is_shared"), bool),
    **dict.fromkeys(("data_ptr", "storage_offset"), int),
    **dict.fromkeys(("storage", "untyped_storage", "_typed_storage"), None),
}


def asks_for_class(fn: Any, args: Sequence[Any]) -> type | None:
    """bool if a call asks whether a tensor is of a class derived from PyTorch's, object if it asks for its class: a
    specialization serves them all.  Else None."""
    if (fn is not isinstance and fn is not type) or not args or not isinstance(args[0], torch.Tensor):
        return None
    if fn is type:
        return object
    classes = args[1] if isinstance(args[1], tuple) else (args[1],)
    derived = any(isinstance(c, type) and issubclass(c, torch.Tensor) and c is not torch.Tensor for c in classes)
    return bool if derived and torch.Tensor not in classes else None


def varies(fn: Any, args: Sequence[Any] = ()) -> bool:
    """Whether calling it again with the same arguments may give something else, as far as that is known.

    Args:
        fn: a function, or anything else that is called; one of the program's own by what it names.
        args: what it is called with.
    """
    if fn is builtins.next:
        return bool(args) and not isinstance(args[0], types.GeneratorType)
    return _varies(fn, set())


def _varies(fn: Any, seen: set[int]) -> bool:
    owner = getattr(fn, "__self__", None)
    module = getattr(fn, "__module__", None) or ""
    if isinstance(owner, types.ModuleType):
        module = owner.__name__
    elif owner is not None and not isinstance(owner, type):
        module = type(owner).__module__
    package = module.partition(".")[0]
    if package in _MODULES or module.startswith("numpy.random") or fn is builtins.input:
        return True
    if package == "torch" and getattr(fn, "__name__", "") in _STATES:
        return True
    if not isinstance(fn, types.FunctionType) or package in _LIBRARIES or id(fn) in seen:
        return False
    seen.add(id(fn))
    return any(_varies(called, seen) for called in _named_in(fn))


def _named_in(fn: types.FunctionType) -> list[Any]:
    """What a function's code may call by the names in it: globals, and attributes of the modules among them."""
    found: list[Any] = []
    codes = [fn.__code__]
    for code in codes:
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
        values = [fn.__globals__.get(name) for name in code.co_names]
        for value in values:
            if isinstance(value, types.ModuleType):
                found += [vars(value).get(name) for name in code.co_names]
            elif hasattr(value, "__next__") and "next" in code.co_names:
                found.append(builtins.input)  # the next of an iterator that stays: it varies, too
        found += values
    return [value for value in found if callable(value)]
