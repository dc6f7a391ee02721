"""Files that helion keeps on disk: where they are, how they are written, and whose are believed.

One rule for every cache. Nothing that is executed is read back: generated Python runs from the text that this process
made, and its file is for people. A binary, which nothing here can judge, counts only if this user or root wrote it and
nobody else can change it. Data (tuned Configs) is believed as far as its schema goes, so colleagues may share it; a
directory that others can write to gets one warning. Every file is opened without following a link, must be a plain
file, and is read through the descriptor that was checked. What helion makes is private, unless it stands in a directory
that somebody opened to others on purpose.

Not here: what the files mean (`code_cache`, `autotuner.cache`, `backends.cute.cache`). Files that ship beside a
kernel's source are as trustworthy as that source and are read like it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import stat
import tempfile
from pathlib import Path

__all__ = ["Untrusted", "cache_dir", "make_directories", "own_directory", "read_file", "replace_file"]

log = logging.getLogger("helion.runtime")

MOST_BYTES = 1 << 28
"""Larger files are no cache files: reading one would only fill the memory."""

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_warned: set[Path] = set()


class Untrusted(OSError):
    """A cache file that somebody else can have put there."""


def cache_dir() -> Path:
    """``$HELION_CACHE_DIR``, else ``$XDG_CACHE_HOME/helion``, else ``~/.cache/helion``; read on every call."""
    chosen = os.environ.get("HELION_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "helion"
    try:
        return Path.home() / ".cache" / "helion"
    except RuntimeError:  # a user id without an entry in the user database and no $HOME: containers have those
        return Path(tempfile.gettempdir()) / f"helion-{os.getuid()}"


def _problem(status: os.stat_result) -> str | None:
    """Why somebody else than this user and root can have made or changed a file, or None if nobody can."""
    if not hasattr(os, "geteuid"):
        return None  # a system without owners and modes
    if status.st_uid not in (os.geteuid(), 0):
        return f"it belongs to user {status.st_uid}"
    if status.st_mode & _OTHERS_WRITE:
        return f"others can write to it (mode {stat.S_IMODE(status.st_mode):o})"
    return None


def _check_directory(directory: Path) -> None:
    """One warning about a directory in which others can put files."""
    if directory in _warned:
        return
    try:
        problem = _problem(directory.stat())
    except OSError:
        return
    if problem is not None:
        _warned.add(directory)
        log.warning(
            "other users can put files into the cache directory %s: %s; binaries that this user did not write are "
            "not used from there; `chmod go-w` it, or set HELION_CACHE_DIR to a directory of your own",
            directory,
            problem,
        )


def read_file(path: Path, *, binary: bool = False) -> bytes:
    """The bytes of a cache file.

    Args:
        path: the file; a link in its place is an error, links on the way to it are not.
        binary: the bytes will be executed: only a file counts that nobody but this user and root can have written.

    Raises:
        FileNotFoundError: there is none.
        Untrusted: `binary`, and somebody else can have written it.
        OSError: it is no plain file, too large, or cannot be read.
    """
    # Not blocking: opening a pipe that somebody put there would wait for a writer for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is not a plain file")
        if status.st_size > MOST_BYTES:
            raise OSError(f"{path} has {status.st_size} bytes")
        _check_directory(path.parent)
        problem = _problem(status) if binary else None
        if problem is not None:
            raise Untrusted(f"{path} is not used: {problem}")
        return file.read()


def make_directories(directory: Path, root: Path) -> None:
    """Make a directory of the cache `root`: private, but inside a root that is there as open as that is to readers."""
    missing = []
    for place in (directory, *directory.parents):
        if place.is_dir():
            break
        missing.append(place)
    for place in reversed(missing):
        inside = place != root and root in place.parents
        mode = 0o700 | (place.parent.stat().st_mode & 0o755 if inside else 0)
        try:
            place.mkdir(mode=mode)
        except FileExistsError:
            if not place.is_dir():
                raise


def own_directory(name: str) -> Path | None:
    """A directory in the cache for files that are executed and that others than helion write: made if need be.

    Args:
        name: of the directory.

    Returns:
        None where somebody else could put files there, or it cannot be made.
    """
    root = cache_dir()
    directory = root / name
    try:
        make_directories(root, root)
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        status = directory.lstat()
        closed = stat.S_ISDIR(status.st_mode) and not stat.S_IMODE(status.st_mode) & 0o077
        return directory if closed and _problem(status) is None and _problem(root.stat()) is None else None
    except OSError:
        return None


def replace_file(path: Path, data: str | bytes, *, root: Path | None = None) -> None:
    """Put `data` at `path` so that no other process ever sees a part of it; the directory is made if need be.

    Args:
        path: where.
        data: what.
        root: the cache directory that the file belongs to; None for a file of the user's own, which gets the usual
            permissions.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    if root is None:
        path.parent.mkdir(parents=True, exist_ok=True)
    else:
        make_directories(path.parent, root)
    raw = data.encode() if isinstance(data, str) else data
    # A temporary file in the same directory: rename is atomic only within one file system. Not one of `tempfile`, whose
    # files nobody else may read: caches are shared, and files of configs are shipped.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    mode = 0o666 if root is None else 0o644
    try:
        # With O_EXCL a link that somebody put there is an error, and not a way to some other file.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
