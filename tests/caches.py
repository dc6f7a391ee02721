"""Compiled kernels that tests keep from run to run, and how much of them.

Both compilers' binaries are addressed by the text and the options they were made of and by the compiler's version, so
an old one is never wrong, only unused.  They are kept in ``build/``; HELION_TEST_TRITON_CACHE puts Triton's elsewhere,
where several checkouts share them, say.  At the end of a run those that were not used for longest are removed until the
rest is within `LIMIT`.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

_BUILD = Path(__file__).resolve().parents[1] / "build"

#: Bytes that each cache may hold; the whole suite fills about half of it.
LIMIT = 2 << 30

#: Seconds for which an entry is kept whatever its size: another run may be reading it.
IN_USE = 3600.0


def triton_cache() -> Path:
    """Triton's cache: one folder for each kernel."""
    return Path(os.environ.get("HELION_TEST_TRITON_CACHE") or _BUILD / "triton_cache")


def cute_cache() -> Path:
    """The CuTe backend's cache, as HELION_CACHE_DIR would name it."""
    return _BUILD / "cute_cache"


def prune(cache: Path, limit: int = LIMIT) -> None:
    """Remove the entries of a cache that were not used for longest, until `limit` bytes are left.

    Args:
        cache: folder of folders; need not exist.
        limit: bytes.
    """
    entries = []
    for entry in cache.iterdir() if cache.is_dir() else ():
        try:
            files = [path.stat() for path in entry.rglob("*") if path.is_file()]
            used = max((max(stat.st_atime, stat.st_mtime) for stat in files), default=entry.stat().st_mtime)
        except FileNotFoundError:  # another process prunes the cache too
            continue
        entries.append((used, sum(stat.st_size for stat in files), entry))
    held = sum(size for _, size, _ in entries)
    for used, size, entry in sorted(entries):
        if held <= limit or used > time.time() - IN_USE:
            break
        shutil.rmtree(entry, ignore_errors=True)
        held -= size
