"""What ``Kernel``, ``Configured`` and ``BoundKernel`` derive from: types of ``helion._C`` where it is used.

Chosen here for all of them, when the package is imported: modules that are imported with the first call would else
choose by what ``_extension.C`` is then, and a kernel in C could get a specialization in Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import _extension

__all__ = ["Dispatcher", "Forwarder"]

if TYPE_CHECKING or _extension.C is None:
    from .dispatch import PythonDispatcher as Dispatcher

    Forwarder = object
else:
    from .compiled_dispatch import CompiledDispatcher as Dispatcher

    Forwarder = _extension.C.Forwarder
