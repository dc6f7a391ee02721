"""What the autotuner knows of a kernel: "compile this Config, run these arguments", and how to do so elsewhere.

`TuningTarget` is the protocol; a BoundKernel is one through `bound.py`, and tests and benchmarks write their own.
A `Recipe` is a Config of a target in a form that travels to a worker process.  Nothing here runs anything.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from typing import Protocol
from typing import runtime_checkable

from .. import exc
from ..backends.base import Recipe
from ..config import Config
from ..config_spec import ConfigSpec
from ..settings import Settings
from .cache_key import CacheKey


@runtime_checkable
class TuningTarget(Protocol):
    """One kernel specialized for one kind of arguments."""

    @property
    def kernel_name(self) -> str:
        """For messages, logs and file names."""

    @property
    def config_spec(self) -> ConfigSpec:
        """The schedules."""

    @property
    def settings(self) -> Settings:
        """The kernel's settings; the autotuner reads `autotune_*`."""

    @property
    def subject(self) -> Any:
        """What an `autotuner_fn` is given as the kernel: a BoundKernel, or the target itself."""

    def recipe(self, config: Config) -> Recipe:
        """The candidate for a Config.  Raises what code generation raises."""

    def cache_key(self, args: Sequence[Any]) -> CacheKey:
        """What the tuned Config depends on."""

    def isolation_problem(self) -> str | None:
        """Why recipes cannot be built in another process, or None if they can."""


def import_file(file: str) -> ModuleType:
    """Import a source file under a name of its own, once per process.

    A file that is already imported under its own name is not imported again, so a kernel keeps its identity.
    `if __name__ == "__main__":` does not run.

    Raises:
        exc.AutotuneError: there is no such file, or it is no Python file.
    """
    path = str(Path(file).resolve())
    if not Path(path).is_file():
        raise exc.AutotuneError(
            f"there is no file {file}", fix="give the path of the .py file that defines the kernel."
        )
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == path and module.__name__ != "__main__":
            return module
    name = f"_helion_tune_{Path(path).stem}_{hashlib.sha256(path.encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise exc.AutotuneError(f"{file} is not a Python file", fix="give the path of a .py file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # Imports beside the file work as they do when it is run as a script.
    folder = os.path.dirname(path)
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def resolve(file: str, qualname: str) -> Any:
    """The object called `qualname` in a source file.

    Raises:
        exc.AutotuneError: there is none.
    """
    found: Any = import_file(file)
    for part in qualname.split("."):
        if not hasattr(found, part):
            raise exc.AutotuneError(
                f"{file} has no {qualname!r}", fix="name a kernel defined at the top level of the file."
            )
        found = getattr(found, part)
    return found
