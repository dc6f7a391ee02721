"""What is not decided by arguments: random numbers, the time, the state of the process; what a tensor of a call has
that its specialization does not know, as its place in memory.

A number that host code gets from one is read at each call, as those that it reads from tensors are: a trace that took
it for a constant would give every call the number of the first.

Not here: names of the module that change (``runtime/launch/outside.py``).
"""

from __future__ import annotations

import builtins
import contextlib
import dis
import functools
import inspect
import random
import sys
import types
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["BY_METHODS", "OF_TENSORS", "asks_for_class", "asks_for_types", "draws", "undrawn", "varies"]

_MODULES = frozenset(
    {
        "_contextvars",
        "random",
        "time",
        "os",
        "posix",
        "secrets",
        "uuid",
        "datetime",
        "threading",
        "_thread",
        "multiprocessing",
    }
)
_OTHERS = frozenset({"torch", "helion", "triton", "numpy", "cutlass"})
#: What their functions call is of no interest.
_LIBRARIES = _OTHERS | (sys.stdlib_module_names - {"__main__"})
#: Functions of torch.
_STATES = frozenset(
    {
        "is_grad_enabled", "is_inference_mode_enabled", "is_autocast_enabled", "get_num_threads", "initial_seed",
        "are_deterministic_algorithms_enabled",
    }
)  # fmt: skip

#: By which a function asks of what type a number is.
_TYPES = frozenset({"isinstance", "type", "hasattr", "__class__"})

#: Of generators of random numbers: what takes none.
_SEEDS = frozenset({"seed", "getstate", "setstate", "get_state", "set_state"})

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


def asks_for_types(fn: Any) -> bool:
    """Whether a function of the program, or one that it calls, asks of what type something is."""
    if not isinstance(fn, (types.FunctionType, types.MethodType)):
        return False
    codes = [called.__code__ for called in _called_by(fn) if _is_of_program(called)]
    for code in codes:
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return any(not _TYPES.isdisjoint(code.co_names) or _has_class_pattern(code) for code in codes)


def _has_class_pattern(code: types.CodeType) -> bool:
    return any(instruction.opname == "MATCH_CLASS" for instruction in dis.get_instructions(code))


def varies(fn: Any) -> bool:
    """Whether calling it again with the same arguments may give something else, as far as that is known.

    Args:
        fn: a function, or anything else that is called; one of the program's own by what it names.
    """
    return any(map(_varies, _called_by(fn)))


def draws(fn: Any) -> bool:
    """Whether it takes random numbers from a generator that gives others in the next call."""
    return any(_generator_of(called) is not None and called.__name__ not in _SEEDS for called in _called_by(fn))


@contextlib.contextmanager
def undrawn(fn: Any) -> Iterator[None]:
    """Gives back what a function draws of random numbers meanwhile: a trace must not take those of calls."""
    drawn = {id(generator): generator for generator in map(_generator_of, _called_by(fn))}
    kept = [(generator, _state_of(generator)) for generator in drawn.values() if generator is not None]
    try:
        yield
    finally:
        for generator, state in kept:
            if isinstance(generator, random.Random):
                generator.setstate(state)
            elif hasattr(generator, "set_state"):
                generator.set_state(state)
            else:
                generator.bit_generator.state = state


def _generator_of(fn: Any) -> Any:
    """The generator of random numbers that a function is a method of; of what module `random` and NumPy's give as
    functions that of the process. Else None."""
    owner = getattr(fn, "__self__", None)
    return owner if _is_generator(owner) and not isinstance(owner, random.SystemRandom) else None


def _is_generator(value: Any) -> bool:
    if isinstance(value, random.Random):
        return True
    of_numpy = type(value).__module__.startswith("numpy.random")
    return of_numpy and any(hasattr(value, name) for name in ("set_state", "bit_generator"))


def _state_of(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        return generator.getstate()
    return generator.get_state() if hasattr(generator, "get_state") else generator.bit_generator.state


def _called_by(fn: Any) -> list[Any]:
    """A function, and what it calls by the names in it, as far as that is the program's."""
    found, seen = [fn], set[types.CodeType]()
    for called in found:
        if isinstance(called, functools.partial):
            found.append(called.func)
        elif not isinstance(called, (type, types.FunctionType, types.MethodType)):
            found += [method for method in [_attribute(called, "__call__")] if isinstance(method, types.MethodType)]
        if _is_of_program(called) and called.__code__ not in seen:
            seen.add(called.__code__)
            found += _named_in(called)
    return found


def _is_of_program(fn: Any) -> bool:
    package = (getattr(fn, "__module__", None) or "").partition(".")[0]
    return isinstance(fn, (types.FunctionType, types.MethodType)) and package not in _LIBRARIES


def _varies(fn: Any) -> bool:
    owner = getattr(fn, "__self__", None)
    module = getattr(fn, "__module__", None) or ""
    if isinstance(owner, types.ModuleType):
        module = owner.__name__
    elif owner is not None and not isinstance(owner, type):
        module = type(owner).__module__
    package = module.partition(".")[0]
    if package in _MODULES or module.startswith("numpy.random") or fn is builtins.input:
        return True
    return package == "torch" and getattr(fn, "__name__", "") in _STATES


def _named_in(fn: types.FunctionType | types.MethodType) -> list[Any]:
    """What a function's code may call by the names in it: globals, what it closes over, attributes of those and of the
    object that it is a method of, and what draws from generators of random numbers among them."""
    function = fn if isinstance(fn, types.FunctionType) else fn.__func__
    closed = [cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType()]
    codes = [function.__code__]
    for code in codes:
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    names = {name for code in codes for name in code.co_names}
    found = [*[function.__globals__.get(name) for name in names], *closed, getattr(fn, "__self__", None)]
    seen = set(map(id, found))
    for value in found:
        if isinstance(value, types.ModuleType) or type(value).__module__.partition(".")[0] not in _OTHERS:
            held = {id(part): part for part in (_attribute(value, name) for name in names)}
            found += [part for key, part in held.items() if key not in seen]
            seen |= held.keys()
    found += [value.random for value in found if _is_generator(value)]
    return [value for value in found if callable(value)]


def _attribute(value: Any, name: str) -> Any:
    """What an object holds by a name, without running code of the program's."""
    held = inspect.getattr_static(value, name, None)
    is_method = isinstance(held, types.FunctionType) and not isinstance(value, (type, types.ModuleType))
    return types.MethodType(held, value) if is_method and name not in getattr(value, "__dict__", {}) else held
