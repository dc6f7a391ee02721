"""The generated host function as an object: cloned for each BoundKernel, with a launcher as its keyword default.

Two BoundKernels whose generated source is the same share the module it was imported from, so nothing may be changed on
that module's own function.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

__all__ = ["clone_host_function", "set_launcher"]


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
