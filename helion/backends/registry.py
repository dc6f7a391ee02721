"""Which backends there are: name -> class, its module imported when it is first asked for.

A new backend is one row of `settings.BACKENDS`, or one call of `register` from a package of its own.
"""

from __future__ import annotations

import importlib

from .. import exc
from ..ir.device_ir import KernelIR
from ..settings import BACKENDS
from ..settings import Settings
from ..target import CPU
from ..target import Target
from .base import Backend
from .host_only import HostOnlyBackend

__all__ = ["backend_class", "make", "register", "runner", "unregister"]

_TILES = "tiles"


def register(name: str, where: str) -> None:
    """Make a backend known: `helion.kernel(backend=name)` and HELION_BACKEND take the name from now on.

    Args:
        name: what users write, lower case.
        where: "package.module:Class", a subclass of `Backend`. Imported when a kernel first uses it.

    Raises:
        exc.InvalidAPIUsage: the name is taken, or `where` is not of that form.

    Example:
        >>> register("mine", "my_package.backend:MyBackend")
        >>> unregister("mine")
    """
    module, _, cls = where.partition(":")
    if not module or not cls:
        raise exc.InvalidAPIUsage(f"{where!r} names no class", fix="write it as 'package.module:Class'.")
    if name != name.lower() or not name.isidentifier():
        raise exc.InvalidAPIUsage(f"{name!r} is no name for a backend", fix="use a lower-case identifier.")
    if BACKENDS.get(name, where) != where:
        raise exc.InvalidAPIUsage(f"there is a backend {name!r} already: {BACKENDS[name]}", fix="use another name.")
    BACKENDS[name] = where


def unregister(name: str) -> None:
    """Forget a backend that `register` added; kernels that use it already keep it."""
    del BACKENDS[name]


def backend_class(name: str) -> type[Backend]:
    """The class of a registered backend.

    Raises:
        exc.InvalidAPIUsage: it is not registered, or its module has no such subclass of `Backend`.
    """
    if name not in BACKENDS:
        raise exc.InvalidAPIUsage(f"there is no backend {name!r}", fix=f"backends are: {', '.join(BACKENDS)}.")
    module, _, attribute = BACKENDS[name].partition(":")
    found = getattr(importlib.import_module(module), attribute, None)
    if not (isinstance(found, type) and issubclass(found, Backend)):
        raise exc.InvalidAPIUsage(
            f"{BACKENDS[name]} is not a backend", fix="name a subclass of helion.backends.base.Backend."
        )
    return found


def make(name: str, ir: KernelIR, settings: Settings, target: Target) -> Backend:
    """The backend called `name`, for one specialization; `HostOnlyBackend` for one without a device loop.

    Raises:
        exc.BackendUnsupported: it cannot map this kernel, or has no code for the target.
    """
    backend = backend_class(name) if ir.device.roots else HostOnlyBackend
    return backend(ir, settings, target)


def runner(backend: Backend) -> Backend:
    """The backend whose host functions calls run: `backend` itself where the tensors are on a device of its vendors,
    the tile executor for those in host memory.

    Raises:
        exc.BackendUnsupported: the tensors are on a device that it has no code for.
    """
    vendor = backend.target.vendor
    if vendor in backend.vendors:
        return backend
    if backend.target == CPU:
        return make(_TILES, backend.ir, backend.settings, CPU)
    raise exc.BackendUnsupported(
        backend=backend.name,
        reason=f"the tensors are on {backend.target}, and it runs on {', '.join(sorted(backend.vendors))} only",
        fix='use backend="triton", or tensors on the CPU.',
    )
