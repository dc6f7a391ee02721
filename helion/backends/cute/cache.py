"""Compiled kernels on disk: a directory a kernel, named by a fingerprint of all that its binary depends on.

The fingerprint covers the printed source (which holds every size, stride and constant), the architecture, the toolkit's
version and this file's format. An entry is written elsewhere and renamed, so that another process sees all of it or
none. A damaged entry is a miss.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import tempfile
from pathlib import Path
from types import ModuleType

from ... import exc
from . import _compat

__all__ = ["Entry", "fingerprint"]

_FORMAT = 1


def fingerprint(source: str, arch: str) -> str:
    """Hash of what the binary of ``source`` depends on. Without the toolkit, of the version that is pinned."""
    toolkit = _compat.version() or _compat.PINNED_VERSION
    text = "\0".join((str(_FORMAT), toolkit, arch, source))
    return hashlib.sha256(text.encode()).hexdigest()[:40]


@dataclasses.dataclass(frozen=True)
class Entry:
    """The place of one kernel: ``kernel.py``, and once it is compiled ``kernel.cubin``, ``kernel.ptx``,
    ``kernel.json``.
    """

    path: Path

    @staticmethod
    def of(source: str, arch: str, directory: Path) -> Entry:
        digest = fingerprint(source, arch)
        return Entry(directory / "cute" / digest[:2] / digest)

    @property
    def source_path(self) -> Path:
        return self.path / "kernel.py"

    def load(self) -> _compat.Assembly | None:
        """The compiled kernel, or None if there is none here (or what is here is damaged)."""
        try:
            facts = json.loads((self.path / "kernel.json").read_text())
            cubin = (self.path / "kernel.cubin").read_bytes()
            ptx = (self.path / "kernel.ptx").read_text()
            if hashlib.sha256(cubin).hexdigest() != facts["cubin_sha256"]:
                return None
            return _compat.Assembly(str(facts["symbol"]), ptx, cubin)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def store(self, assembly: _compat.Assembly) -> None:
        """Keep a compiled kernel. Last one wins; all are alike."""
        self.path.mkdir(parents=True, exist_ok=True)
        facts = {
            "symbol": assembly.symbol,
            "cubin_sha256": hashlib.sha256(assembly.cubin).hexdigest(),
            "toolkit": _compat.version(),
        }
        _write(self.path / "kernel.cubin", assembly.cubin)
        _write(self.path / "kernel.ptx", assembly.ptx.encode())
        # Last, as its presence is what says that the others are whole.
        _write(self.path / "kernel.json", json.dumps(facts, indent=1).encode())

    def import_source(self, source: str) -> ModuleType:
        """Write the printed module here and import it: the toolkit reads its functions' source from the file."""
        _compat.require(f"the disk cache has no kernel {self.path}")
        self.path.mkdir(parents=True, exist_ok=True)
        _write(self.source_path, source.encode())
        name = f"helion_cute_{self.path.name}"
        found = importlib.util.spec_from_file_location(name, self.source_path)
        if found is None or found.loader is None:
            raise exc.InternalError(reason=f"cannot import {self.source_path}")
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        return module


def _write(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` so that no reader sees a part of it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
