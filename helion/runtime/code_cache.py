"""Where generated source lives: a content-addressed directory of Python modules.

Generated code is written to a real file before it is imported, so that Triton can read a kernel's source and
tracebacks, debuggers and profilers show it. A file's name is the hash of its text: the same text is the same file and,
within a process, the same module object; a file is never changed once it is there. Compiled binaries are not here:
Triton keeps those itself.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import re
import secrets
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["cache_dir", "clear_modules", "load_module", "path_for", "replace_file"]

log = logging.getLogger("helion.runtime")

_lock = threading.Lock()
_modules: dict[Path, ModuleType] = {}
# Cache directory that cannot be written -> one that is removed when this process ends.
_temporary: dict[Path, tempfile.TemporaryDirectory[str]] = {}


def cache_dir() -> Path:
    """``$HELION_CACHE_DIR``, else ``$XDG_CACHE_HOME/helion``, else ``~/.cache/helion``; read on every call."""
    chosen = os.environ.get("HELION_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "helion"


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


def replace_file(path: Path, text: str) -> None:
    """Put ``text`` at ``path`` so that no other process ever sees a part of it; the directory is made if need be.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A temporary file in the same directory: rename is atomic only within one file system. Not one of `tempfile`, whose
    # files nobody else may read: caches are shared, and files of configs are shipped.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _written(path: Path, source: str) -> Path:
    """Where ``source`` is, written if it was not: ``path``, or a directory of this process if that cannot be
    written.
    """
    try:
        if path.read_text(encoding="utf-8") == source:
            return path
    except (OSError, UnicodeDecodeError):
        pass  # not there, or damaged by something else: write it
    try:
        replace_file(path, source)
        return path
    except OSError as error:
        instead = _temporary.get(path.parents[2])
        if instead is None:
            instead = _temporary[path.parents[2]] = tempfile.TemporaryDirectory(prefix="helion-")
            log.warning(
                "generated code goes to %s while this process runs: %s; set HELION_CACHE_DIR to a writable directory",
                instead.name,
                error,
            )
        other = Path(instead.name) / path.name
        replace_file(other, source)
        return other


def load_module(source: str, name_hint: str = "kernel", globals: Mapping[str, Any] | None = None) -> ModuleType:
    """Write ``source`` to the cache if it is not there, and import it.

    Args:
        source: Python text of the whole module.
        name_hint: becomes part of the file's and the module's name.
        globals: names to put into the module before it runs (objects that the source refers to and cannot import).
            With ``globals`` every call makes a new module, as two of them may differ in nothing but these objects;
            without, one text is imported once a process and every later call returns that module.

    Returns:
        The module. It is in ``sys.modules`` only when it is shared, that is without ``globals``.

    Raises:
        OSError: neither the cache directory nor a temporary one can be written.
        Exception: whatever running the module raises; nothing is remembered in that case.
    """
    path = path_for(source, name_hint)
    if globals is not None:
        return _execute(_written(path, source), globals)
    module = _modules.get(path)
    if module is None:
        # One lock for all: imports of generated modules are short, and two threads that run the same text would define
        # two JITFunctions where later code expects one.
        with _lock:
            module = _modules.get(path)
            if module is None:
                module = _execute(_written(path, source), {})
                _modules[path] = module
                sys.modules[module.__name__] = module
    return module


def _execute(path: Path, globals: Mapping[str, Any]) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_helion_generated.{path.stem}", path)
    assert spec is not None and spec.loader is not None  # holds for every path that ends in .py
    module = importlib.util.module_from_spec(spec)
    module.__dict__.update(globals)
    spec.loader.exec_module(module)
    return module


def clear_modules() -> None:
    """Forget the imported modules of this process; the files stay. Kernels that hold a module keep it."""
    with _lock:
        for module in _modules.values():
            sys.modules.pop(module.__name__, None)
        _modules.clear()
