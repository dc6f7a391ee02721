"""Compiled kernels on disk: a directory a kernel, named by a fingerprint of all that its binary depends on.

The fingerprint covers the printed source (which holds every size, stride and constant), the architecture, the toolkit's
version and this file's format. An entry is written elsewhere and renamed, so that another process sees all of it or
none. A damaged entry is a miss, and so is one that another user can have written (`runtime.cache_files`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from pathlib import Path
from types import ModuleType

from ...runtime.cache_files import Untrusted
from ...runtime.cache_files import read_file
from ...runtime.cache_files import replace_file
from ...runtime.code_cache import execute_source
from ...runtime.code_cache import keep_source
from . import _compat

__all__ = ["Entry", "fingerprint"]

log = logging.getLogger("helion.runtime")

_FORMAT = 2
_said: set[str] = set()


def _say_once(key: str, text: str) -> None:
    if key not in _said:
        _said.add(key)
        log.warning("%s", text)


def fingerprint(source: str, arch: str) -> str:
    """Hash of what the binary of ``source`` depends on. Without the toolkit, of the version that is pinned."""
    toolkit = _compat.version() or _compat.PINNED_VERSION
    text = "\0".join((str(_FORMAT), toolkit, arch, source))
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclasses.dataclass(frozen=True)
class Entry:
    """The place of one kernel: ``kernel.py``, and once it is compiled ``kernel.cubin``, ``kernel.ptx``,
    ``kernel.json``.

    Attributes:
        path: the kernel's own directory.
        root: the cache's.
    """

    path: Path
    root: Path

    @staticmethod
    def of(source: str, arch: str, directory: Path) -> Entry:
        digest = fingerprint(source, arch)
        return Entry(directory / "cute" / digest[:2] / digest, directory)

    @property
    def source_path(self) -> Path:
        return self.path / "kernel.py"

    def load(self) -> _compat.Assembly | None:
        """The compiled kernel, or None if there is none here (or what is here is damaged)."""
        try:
            facts = json.loads(read_file(self.path / "kernel.json", binary=True))
            cubin = read_file(self.path / "kernel.cubin", binary=True)
            ptx = read_file(self.path / "kernel.ptx", binary=True).decode()
        except Untrusted as error:
            _say_once(str(self.root), f"{error}; the kernel is compiled again")
            return None
        except (OSError, ValueError, RecursionError):
            return None
        # The fingerprint too: an entry that was moved to another's place is whole, and another kernel.
        expected = {"fingerprint": self.path.name, "cubin_sha256": _sha256(cubin), "ptx_sha256": _sha256(ptx.encode())}
        if not isinstance(facts, dict) or not isinstance(facts.get("symbol"), str):
            return None
        if any(facts.get(name) != value for name, value in expected.items()):
            return None
        return _compat.Assembly(facts["symbol"], ptx, cubin)

    def store(self, assembly: _compat.Assembly) -> None:
        """Keep a compiled kernel. Last one wins; all are alike. Where that is impossible, a warning says so."""
        facts = {
            "symbol": assembly.symbol,
            "fingerprint": self.path.name,
            "cubin_sha256": _sha256(assembly.cubin),
            "ptx_sha256": _sha256(assembly.ptx.encode()),
            "toolkit": _compat.version(),
        }
        try:
            replace_file(self.path / "kernel.cubin", assembly.cubin, root=self.root)
            replace_file(self.path / "kernel.ptx", assembly.ptx, root=self.root)
            # Last, as its presence is what says that the others are whole.
            replace_file(self.path / "kernel.json", json.dumps(facts, indent=1), root=self.root)
        except OSError as error:
            _say_once(
                f"write {self.root}",
                f"compiled kernels are not kept: {error}; set HELION_CACHE_DIR to a writable directory",
            )

    def import_source(self, source: str) -> ModuleType:
        """The printed module, run, and written here for people; the toolkit reads its functions' source through
        `inspect`.
        """
        _compat.require(f"the disk cache has no kernel {self.path}")
        keep_source(self.source_path, source, self.root)
        return execute_source(source, self.source_path, f"helion_cute_{self.path.name}")
