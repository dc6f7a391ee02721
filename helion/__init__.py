"""helion: "PyTorch with tiles", a language for GPU kernels embedded in Python.

See README.md for a first kernel, docs/language.md for the language.
"""

from __future__ import annotations

import importlib
from typing import Any

from . import _logging
from . import exc
from . import language
from . import runtime
from ._version import __version__
from .aot import aot_kernel
from .config import Config
from .kernel import BoundKernel
from .kernel import Kernel
from .kernel import jit
from .kernel import kernel
from .numbers import cdiv
from .numbers import next_power_of_2
from .settings import RefMode
from .settings import Settings

_logging.configure()

#: Public names that are planned and not there yet.
_NOT_YET = frozenset({"from_cache", "experimental"})


def __getattr__(name: str) -> Any:
    if name == "autotuner":  # loaded when it is first asked for: kernels with a config never need it
        return importlib.import_module(".autotuner", __name__)
    if name in _NOT_YET:
        raise exc.NotSupportedYet(name=f"helion.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "BoundKernel",
    "Config",
    "Kernel",
    "RefMode",
    "Settings",
    "__version__",
    "aot_kernel",
    "cdiv",
    "exc",
    "jit",
    "kernel",
    "language",
    "next_power_of_2",
    "runtime",
]
