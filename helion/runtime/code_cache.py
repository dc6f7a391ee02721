"""Generated source as modules: one text is one file and, within a process, one module object.

The file lets people, debuggers and profilers read what runs; what runs is the text itself. (Once the text was compared
with the file and the file imported, so that a damaged or planted `__pycache__` entry beside it ran instead.) Triton
reads a kernel's source through `linecache`, which is given the text too, so a file that is changed later changes
nothing, and a directory that cannot be written costs no more than the files. Compiled binaries are not here: Triton
keeps those itself.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import itertools
import linecache
import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from .._locks import new_lock
from .cache_files import cache_dir
from .cache_files import read_file
from .cache_files import replace_file

__all__ = ["clear_modules", "execute_source", "keep_source", "load_module", "path_for"]

log = logging.getLogger("helion.runtime")

_lock = new_lock()
_modules: dict[Path, ModuleType] = {}
_warned: set[Path] = set()


def _new_lock() -> None:
    # A process forked while another thread held the lock would wait for that thread, which it does not have.
    global _lock
    _lock = new_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


#: The global by which a module's namespace keeps the module.
_ITSELF = "_generated_module"
_numbers = itertools.count()


def _digest(source: str) -> str:
    return hashlib.sha256(source.encode("utf-8")).hexdigest()


def _identifier(name_hint: str) -> str:
    return re.sub(r"\W+", "_", name_hint)[:64] or "kernel"


def path_for(source: str, name_hint: str = "kernel") -> Path:
    """The file that holds ``source``, whether or not it has been written yet.

    Args:
        source: Python text.
        name_hint: a word for people who look into the directory, e.g. the kernel function's name.
    """
    digest = _digest(source)
    # Two levels, as one flat directory grows to tens of thousands of files on a tuning machine.
    return cache_dir() / "code" / digest[:2] / f"{_identifier(name_hint)}_{digest[:40]}.py"


def keep_source(path: Path, source: str, root: Path) -> None:
    """Write ``source`` to ``path`` unless it is there; where that is impossible, one warning for ``root``."""
    wanted = source.encode("utf-8")
    try:
        if read_file(path) == wanted:
            return
    except OSError:
        pass  # not there, or not a file one can read: write it
    try:
        replace_file(path, wanted, root=root)
    except OSError as error:
        if root not in _warned:
            _warned.add(root)
            log.warning(
                "generated code runs without a file to look at: %s; set HELION_CACHE_DIR to a writable directory", error
            )


def load_module(source: str, name_hint: str = "kernel", globals: Mapping[str, Any] | None = None) -> ModuleType:
    """Run ``source`` as a module, and keep it in the cache for people to read.

    Args:
        source: Python text of the whole module.
        name_hint: becomes part of the file's and the module's name.
        globals: names to put into the module before it runs (objects that the source refers to and cannot import).
            With ``globals`` every call makes a new module, as two of them may differ in nothing but these objects;
            without, one text is imported once a process and every later call returns that module.

    Returns:
        The module. It is in ``sys.modules`` only when it is shared, that is without ``globals``; `make_importable` puts
        others there.

    Raises:
        Exception: whatever running the module raises; nothing is remembered in that case.
    """
    path = path_for(source, name_hint)
    if globals is not None:
        keep_source(path, source, cache_dir())
        return execute_source(source, path, f"_helion_generated.{path.stem}_{next(_numbers)}", globals)
    module = _modules.get(path)
    if module is None:
        # One lock for all: imports of generated modules are short, and two threads that run the same text would define
        # two JITFunctions where later code expects one.
        with _lock:
            module = _modules.get(path)
            if module is None:
                keep_source(path, source, cache_dir())
                module = execute_source(source, path)
                _modules[path] = module
                sys.modules[module.__name__] = module
    return module


def execute_source(
    source: str, path: Path, name: str | None = None, globals: Mapping[str, Any] | None = None
) -> ModuleType:
    """Run ``source`` as a module whose file is ``path``, without reading that file.

    Args:
        source: Python text.
        path: where tracebacks and ``inspect`` say that it is.
        name: of the module.
        globals: names that it finds defined.
    """
    file = str(path)
    name = name or f"_helion_generated.{path.stem}"
    code = compile(source, file, "exec", dont_inherit=True)
    # Without a modification time `linecache.checkcache` leaves an entry alone.
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    module = ModuleType(name)
    module.__file__ = file
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, origin=file)
    module.__dict__.update(globals or {})
    module.__dict__[_ITSELF] = module
    exec(code, module.__dict__)
    return module


def make_importable(namespace: Mapping[str, Any]) -> None:
    """Put a module that was made here into ``sys.modules``, for those who find modules by their names (Dynamo).

    Args:
        namespace: its ``__dict__``, which a function of it has as ``__globals__``.
    """
    module = namespace.get(_ITSELF)
    if module is not None:
        sys.modules[module.__name__] = module


def clear_modules() -> None:
    """Forget the imported modules of this process; the files stay. Kernels that hold a module keep it."""
    with _lock:
        for module in _modules.values():
            sys.modules.pop(module.__name__, None)
        _modules.clear()
