"""Locks that a forked child finds open.

A fork copies locks as they are, without the threads that hold them: a child of a process in which another thread was
compiling would wait for that thread for ever. What the locks guard is in order at every moment; they only keep work
from being done twice. So a child starts with all of them open.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

__all__ = ["new_lock", "new_rlock"]

_all: weakref.WeakSet[Any] = weakref.WeakSet()


def new_lock() -> threading.Lock:
    """A `threading.Lock`."""
    lock = threading.Lock()
    _all.add(lock)
    return lock


def new_rlock() -> threading.RLock:
    """A `threading.RLock`."""
    lock = threading.RLock()
    _all.add(lock)
    return lock


def _open_in_child() -> None:
    for lock in list(_all):
        lock._at_fork_reinit()  # as the standard library does with its own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_in_child)
