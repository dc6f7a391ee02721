"""helion: "PyTorch with tiles", a language for GPU kernels embedded in Python.

See README.md for a first kernel, docs/language.md for the language.
"""

from __future__ import annotations

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
