"""helion's kernels when the software GPU comes and goes: what they bound on the CPU stays there, and they do not.

A specialization is bound to where its first call ran. A kernel that was called before `softgpu.install` would stay on
the CPU, silently, and a test of device code would test none; one that was first called on the software GPU would go on
running there after `softgpu.uninstall`.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

from helion.kernel import Kernel

_kernels: weakref.WeakSet[Kernel] = weakref.WeakSet()
#: Of each kernel, what it has bound where the process is not now: on the CPU, or on the software GPU.
_elsewhere: weakref.WeakKeyDictionary[Kernel, dict[Any, Any]] = weakref.WeakKeyDictionary()
_watching = False
_on_gpu = False


def _watch() -> None:
    """Know all kernels from now on: those that exist already, and each new one."""
    global _watching
    if _watching:
        return
    _watching = True
    # type() and not isinstance(), which would ask every proxy object in the process what it stands for.
    _kernels.update(thing for thing in gc.get_objects() if issubclass(type(thing), Kernel))
    original = Kernel.__init__

    def init(self: Kernel, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        _kernels.add(self)

    Kernel.__init__ = init  # type: ignore[method-assign]


def move(to_gpu: bool) -> None:
    """Every kernel goes on with what it has bound on the software GPU, or on the CPU; else its next call binds anew."""
    global _on_gpu
    _watch()
    if to_gpu == _on_gpu:
        return
    _on_gpu = to_gpu
    for kernel in list(_kernels):
        here, there = kernel._bound, _elsewhere.pop(kernel, {})
        if not here and not there:
            continue
        with kernel._lock:
            kernel._bound = there
        kernel._invalidate()
        if here:
            _elsewhere[kernel] = here
