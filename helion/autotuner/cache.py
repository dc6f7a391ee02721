"""Caches of tuned Configs that live on this host: the interface, LocalAutotuneCache, StrictLocalAutotuneCache.

One JSON file per key, written whole and renamed into place, so a reader sees an old file or a new one and never
a part.  A file lock makes processes that want the same Config tune it once.  A cache never breaks a program: what
cannot be read, or is not what `schema.py` says, counts as absent; what cannot be written is reported once.  Nothing
here imports a search.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import datetime
import json
import logging
import os
import re
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from filelock import Timeout

from .. import exc
from .._environment import is_set
from ..config import Config
from ..config_spec import ConfigSpec
from ..runtime.cache_files import cache_dir
from ..runtime.cache_files import make_directories
from ..runtime.cache_files import read_file
from ..runtime.cache_files import replace_file
from . import schema
from .cache_key import CacheKey
from .cache_key import toolchain

log = logging.getLogger("helion.autotuner")

FORMAT = 1
"""Version of the file format; files of another version count as absent."""

SKIP_VARIABLE = "HELION_SKIP_CACHE"


def skip_cache() -> bool:
    """Whether HELION_SKIP_CACHE asks to ignore tuned Configs (they are still written)."""
    return is_set(SKIP_VARIABLE)


@dataclasses.dataclass(frozen=True)
class Entry:
    """What a cache knows about one key.

    Attributes:
        config: the tuned Config.
        time_ms: its time when it was tuned; None if unknown.
        note: how it was found, for people.
    """

    config: Config
    time_ms: float | None = None
    note: str = ""

    def to_json(self, key: CacheKey) -> str:
        """The text of a cache file: the Config first, then what a reader may want to know."""
        record = {
            "format": FORMAT,
            "config": dict(self.config),
            "time_ms": self.time_ms,
            "note": self.note,
            "written": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "key": key.fields(),
        }
        return json.dumps(record, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, key: CacheKey) -> Entry | None:
        """The entry in a file's text; None if it is of another format or for another key.

        Raises:
            ValueError: the text is not a cache file.
        """
        found = schema.parse(text)
        if not isinstance(found, dict):
            raise ValueError("not a cache file")
        if found.get("format") != FORMAT or found.get("key") != json.loads(json.dumps(key.fields())):
            return None
        return cls(**schema.record(found, {"config": schema.config}, _OPTIONAL))


_OPTIONAL: dict[str, schema.Check] = {"time_ms": schema.optional(schema.milliseconds), "note": schema.text}


class AutotuneCache(abc.ABC):
    """Where tuned Configs are looked up and kept.  All methods are safe from several processes at once.

    Attributes:
        autotuner: the search behind it, of a cache that `CacheClass[SearchClass](kernel, args)` has made.
    """

    autotuner: Any = None

    def __class_getitem__(cls, search: Any) -> Any:
        """`CacheClass[SearchClass]`: an `autotuner_fn` that looks here and then lets the search find one."""
        from .searches import with_cache  # a cache hit loads no search

        return with_cache(cls, search)

    def autotune(self, *, skip_cache: bool = False) -> Config:
        """The Config that is kept here, else what `autotuner` finds, which is then kept."""
        from .searches import behind  # likewise

        return behind(self, skip_cache=skip_cache)

    @abc.abstractmethod
    def get(self, key: CacheKey, args: Sequence[Any] = ()) -> Entry | None:
        """The entry of a key, or None.

        Args:
            key: what the Config must fit.
            args: the arguments of the call, for caches that choose by their features.
        """

    @abc.abstractmethod
    def put(self, key: CacheKey, entry: Entry) -> None:
        """Keep an entry, replacing an older one.  Failure is a warning, never an error."""

    @contextlib.contextmanager
    def tuning(self, key: CacheKey) -> Iterator[None]:
        """Held while a key is being tuned, so that others who want it wait and then find it."""
        yield


class LocalAutotuneCache(AutotuneCache):
    """Tuned Configs as JSON files in a directory.

    The key holds the versions of torch, Triton and helion as major.minor: a Config survives a patch release.

    Args:
        directory: where; default: `autotune` in helion's cache directory (HELION_CACHE_DIR).
        wait_seconds: how long to wait for another process that is tuning the same key.
    """

    exact_versions = False

    def __init__(self, directory: str | os.PathLike[str] | None = None, wait_seconds: float = 3600.0) -> None:
        self._directory = Path(directory) if directory is not None else None
        self.wait_seconds = wait_seconds
        self._warned = False
        self._damaged: set[Path] = set()

    @property
    def directory(self) -> Path:
        """Where the files are."""
        return self._directory if self._directory is not None else cache_dir() / "autotune"

    @property
    def _root(self) -> Path:
        return self._directory if self._directory is not None else cache_dir()

    def _own(self, key: CacheKey) -> CacheKey:
        return key.with_versions(toolchain(self.exact_versions))

    def path(self, key: CacheKey) -> Path:
        """The file of a key."""
        own = self._own(key)
        return self.directory / f"{self._prefix(own.kernel_name)}_{own.digest()[:32]}.json"

    @staticmethod
    def _prefix(kernel_name: str) -> str:
        return re.sub(r"\W+", "_", kernel_name)[:60]

    def knows(self, kernel_name: str) -> bool:
        """Whether there is a file of a kernel of this name."""
        return next(self.directory.glob(f"{self._prefix(kernel_name)}_*.json"), None) is not None

    def get(self, key: CacheKey, args: Sequence[Any] = ()) -> Entry | None:
        if key.unstable_part() is not None:
            return None
        path = self.path(key)
        try:
            return Entry.from_json(read_file(path), self._own(key))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:  # ValueError: bad JSON, bad UTF-8, not ours
            if path not in self._damaged:
                self._damaged.add(path)
                log.warning("ignoring the unreadable tuning cache file %s: %s", path, error)
            return None

    def put(self, key: CacheKey, entry: Entry) -> None:
        unstable = key.unstable_part()
        if unstable is not None:
            self._warn(
                "the tuned config is not kept: the kernel's key holds an object known only by its "
                f"address ({unstable.strip()})"
            )
            return
        path = self.path(key)
        try:
            replace_file(path, entry.to_json(self._own(key)), root=self._root)
        except OSError as error:
            self._warn(
                f"the tuned config is not kept: cannot write {path}: {error}; set "
                "HELION_CACHE_DIR to a writable directory"
            )

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning("%s", text)

    @contextlib.contextmanager
    def tuning(self, key: CacheKey) -> Iterator[None]:
        lock: FileLock | None = None
        if key.unstable_part() is None:
            path = self.path(key)
            try:
                make_directories(path.parent, self._root)
                # The operating system frees the lock of a process that dies: no stale locks, no clock involved.
                lock = FileLock(path.with_suffix(".lock"), timeout=self.wait_seconds)
                lock.acquire()
            except Timeout:
                log.warning(
                    "another process has been tuning %s for %g s; tuning it here too",
                    key.kernel_name,
                    self.wait_seconds,
                )
                lock = None
            except (OSError, NotImplementedError):
                lock = None  # a read-only directory or a file system without locks: `put` reports what matters
        try:
            yield
        finally:
            if lock is not None:
                lock.release()


class StrictLocalAutotuneCache(LocalAutotuneCache):
    """Like LocalAutotuneCache, but a Config counts only for exactly the same versions of torch, Triton, helion, CUDA
    and Python: for those who re-tune on every upgrade."""

    exact_versions = True


def fits(entry: Entry, spec: ConfigSpec) -> Config | None:
    """The entry's Config in full, or None with a warning if it does not fit the kernel (any more)."""
    try:
        return spec.normalize(entry.config)
    except exc.InvalidConfig as error:
        log.warning("ignoring a cached config: %s", error.message)
        return None
