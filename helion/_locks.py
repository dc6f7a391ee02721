"""Locks that a forked child finds open, and properties that need none.

A fork copies locks as they are, without the threads that hold them: a child of a process in which another thread was
compiling would wait for that thread for ever. What the locks guard is in order at every moment; they only keep work
from being done twice. So a child starts with all of them open.

Of a module that another thread imports only a part is there, and Python's own lock of it stays closed in the child: a
fork waits for the import's end.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any
from typing import Generic
from typing import TypeVar

__all__ = ["cached_property", "new_lock", "new_rlock", "open_in_children"]

T = TypeVar("T")

_all: weakref.WeakSet[Any] = weakref.WeakSet()


class cached_property(Generic[T]):
    """`functools.cached_property` without a lock, which that of Python 3.11 and before takes for all objects at once.

    Threads that come at the same time each call the function; what the first of them made is everybody's value.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        value: T = instance.__dict__.setdefault(self.name, self.function(instance))
        return value


def new_lock() -> threading.Lock:
    """A `threading.Lock`."""
    lock = threading.Lock()
    open_in_children(lock)
    return lock


def new_rlock() -> threading.RLock:
    """A `threading.RLock`."""
    lock = threading.RLock()
    open_in_children(lock)
    return lock


def open_in_children(lock: Any) -> None:
    """A `threading.Lock` or `threading.RLock` that somebody else has made."""
    _all.add(lock)


def _open_in_child() -> None:
    for lock in list(_all):
        lock._at_fork_reinit()  # as the standard library does with its own


#: Packages that are imported in parts, when something first needs them; of other modules an import may be the program.
_IMPORTED_LATE = (
    frozenset({"helion", "torch", "triton", "sympy", "mpmath", "numpy", "cutlass"}) | sys.stdlib_module_names
)
#: Module name -> weak reference to the lock of an import that is under way.
_import_locks: dict[str, Any] = getattr(importlib._bootstrap, "_module_locks", {})
_LONGEST_IMPORT = 30.0


def _finish_imports() -> None:
    """Wait until no other thread is importing what a child may need."""
    end = time.monotonic() + _LONGEST_IMPORT
    while _others_import() and time.monotonic() < end:
        time.sleep(0.001)


def _others_import() -> bool:
    me = threading.get_ident()
    for name, reference in list(_import_locks.items()):
        if name.partition(".")[0] in _IMPORTED_LATE and getattr(reference(), "owner", None) not in (None, me):
            return True
    return False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_finish_imports, after_in_child=_open_in_child)
