"""Proof of zero compilation at run time: ``no_compile()``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from .. import exc
from .._locks import new_lock

__all__ = ["check", "no_compile"]

_lock = new_lock()
#: How many `no_compile()` blocks are open, in the whole process. Only slow paths read it.
_depth = 0


@contextlib.contextmanager
def no_compile() -> Iterator[None]:
    """Context manager in which whatever would compile or autotune a kernel raises instead.

    It holds for every thread of the process, as serving engines run models on threads of their own. Blocks nest.

    Raises:
        exc.CompilationForbidden: from the call that would have compiled; names the kernel, what it would have had to do
            and the key of its arguments.

    Example::

        model(example)  # warm up: every shape that will come
        with helion.runtime.no_compile():
            serve(model)
    """
    global _depth
    with _lock:
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1


def active() -> bool:
    """Whether a ``no_compile()`` block is open."""
    return _depth > 0


def check(kernel: str, action: str, key: object) -> None:
    """Called right before compiling or tuning.

    Args:
        kernel: name of the kernel.
        action: what is about to happen, as a verb phrase: ``"compile a specialization"``.
        key: the arguments' key.

    Raises:
        exc.CompilationForbidden: a ``no_compile()`` block is open.
    """
    if _depth:
        raise exc.CompilationForbidden(kernel=kernel, action=action, key=key)
