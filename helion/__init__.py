"""helion: "PyTorch with tiles", a language for GPU kernels embedded in Python.

See README.md for a first kernel, docs/language.md for the language.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING
from typing import Any

from . import _logging
from . import exc
from . import language
from . import runtime
from ._version import __version__
from .aot import aot_kernel
from .bundles import plan_cache
from .bundles.load import load_bundle
from .config import Config
from .explain import Explanation
from .explain import explain
from .kernel import Kernel
from .kernel import jit
from .kernel import kernel
from .numbers import cdiv
from .numbers import next_power_of_2
from .settings import RefMode
from .settings import Settings

if TYPE_CHECKING:
    from .bound_kernel import BoundKernel
    from .bundles.build import bundle
    from .tuned import from_cache

_logging.configure()
plan_cache.install()


#: Names whose modules load the compiler (sympy, Triton), which a process that only makes kernels need not wait for.
_WITH_COMPILER = {"BoundKernel": ".bound_kernel", "bundle": ".bundles.build", "from_cache": ".tuned"}


def __getattr__(name: str) -> Any:
    if name in ("autotuner", "experimental"):  # loaded when first asked for: kernels with a config never need them
        return importlib.import_module(f".{name}", __name__)
    if name in _WITH_COMPILER:
        return getattr(importlib.import_module(_WITH_COMPILER[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "BoundKernel",
    "Config",
    "Explanation",
    "Kernel",
    "RefMode",
    "Settings",
    "__version__",
    "aot_kernel",
    "bundle",
    "cdiv",
    "exc",
    "explain",
    "from_cache",
    "jit",
    "kernel",
    "language",
    "load_bundle",
    "next_power_of_2",
    "runtime",
]
