"""The generated host function as an object: cloned for each BoundKernel, with a launcher as its keyword default.

Two BoundKernels whose generated source is the same share the module it was imported from, so nothing may be changed on
that module's own function.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable
from typing import Any

from .. import _compat_triton_abi

__all__ = ["clone_host_function", "note_written", "set_launcher", "triton_kernels", "written_by"]

_written: weakref.WeakKeyDictionary[types.FunctionType, frozenset[str]] = weakref.WeakKeyDictionary()


def note_written(function: types.FunctionType, texts: frozenset[str]) -> None:
    """Remember which arguments of its launches a host function as it was imported lets them write, as source text."""
    _written[function] = texts


def written_by(function: types.FunctionType) -> frozenset[str] | None:
    """What `note_written` was told; None where nobody said, so that every argument may be written."""
    return _written.get(function)


def clone_host_function(function: types.FunctionType) -> types.FunctionType:
    """A function with the same code and globals and keyword defaults of its own."""
    clone = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    clone.__kwdefaults__ = dict(function.__kwdefaults__ or {})
    clone.__doc__ = function.__doc__
    clone.__module__ = function.__module__
    clone.__qualname__ = function.__qualname__
    clone.__annotations__ = function.__annotations__
    return clone


def set_launcher(function: types.FunctionType, launcher: Callable[..., Any]) -> None:
    """Make ``launcher`` the default of ``function``, which must be a clone. Takes effect for the next call."""
    assert function.__kwdefaults__ is not None
    function.__kwdefaults__["_launcher"] = launcher


def triton_kernels(function: Callable[..., Any]) -> list[Any]:
    """The ``@triton.jit`` functions that a host function launches."""
    if not isinstance(function, types.FunctionType):
        return []
    named = [function.__globals__.get(name) for name in function.__code__.co_names]
    return [value for value in named if _compat_triton_abi.is_jit_function(value)]
