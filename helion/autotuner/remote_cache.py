"""RemoteAutotuneCache: tuned Configs shared by many hosts, through a store with two functions.

A store is anything with `get(name) -> bytes | None` and `put(name, data)`: a bucket, Redis, a database.  `HTTPStore`
is one over plain HTTP.  The store is asked only where the local cache has nothing, and an unreachable store costs
a warning, not the program.
"""

from __future__ import annotations

import importlib
import logging
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any
from typing import Protocol

from .. import exc
from .cache import Entry
from .cache import LocalAutotuneCache
from .cache_key import CacheKey

log = logging.getLogger("helion.autotuner")

STORE_VARIABLE = "HELION_REMOTE_CACHE"


class Store(Protocol):
    """Bytes by name.  Either method may raise any Exception when the store cannot be reached."""

    def get(self, name: str) -> bytes | None:
        """What was put under a name, or None."""

    def put(self, name: str, data: bytes) -> None:
        """Keep bytes under a name (letters, digits, `_`, `.`)."""


class HTTPStore:
    """A store over HTTP: GET and PUT of `<url>/<name>`.

    Args:
        url: base address, http or https.
        timeout: seconds per request.
        headers: sent with every request, for example authorization.
    """

    def __init__(self, url: str, timeout: float = 5.0, headers: dict[str, str] | None = None) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise exc.InvalidAPIUsage(f"{url!r} is not an http(s) address", fix="give a URL such as https://host/path.")
        self._url = url.rstrip("/")
        self._timeout = timeout
        self._headers = headers or {}

    def get(self, name: str) -> bytes | None:
        request = urllib.request.Request(f"{self._url}/{name}", headers=self._headers)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                data: bytes = response.read()
                return data
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def put(self, name: str, data: bytes) -> None:
        request = urllib.request.Request(f"{self._url}/{name}", data=data, method="PUT", headers=self._headers)
        with urllib.request.urlopen(request, timeout=self._timeout):
            pass


def store_from_environment() -> Store:
    """The store that HELION_REMOTE_CACHE names: an http(s) address, or `module:attribute` of a Store.

    Raises:
        exc.InvalidAPIUsage: the variable is not set or names nothing.
    """
    value = os.environ.get(STORE_VARIABLE, "")
    if value.startswith(("http://", "https://")):
        return HTTPStore(value)
    module, _, attribute = value.partition(":")
    try:
        found: Store = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise exc.InvalidAPIUsage(
            f"{STORE_VARIABLE}={value!r} names no store: {error}",
            fix="set it to an http(s) address or to module:attribute of an object with get(name) and put(name, data).",
        ) from None
    return found


class RemoteAutotuneCache(LocalAutotuneCache):
    """The local cache, and behind it a store that hosts share.

    Args:
        store: default: what HELION_REMOTE_CACHE names.
        directory: of the local cache.
    """

    def __init__(self, store: Store | None = None, directory: str | os.PathLike[str] | None = None) -> None:
        super().__init__(directory)
        self._store = store if store is not None else store_from_environment()

    def get(self, key: CacheKey, args: Sequence[Any] = ()) -> Entry | None:
        found = super().get(key, args)
        if found is not None or key.unstable_part() is not None:
            return found
        try:
            data = self._store.get(self.path(key).name)
            found = None if data is None else Entry.from_json(data, self._own(key))
        except Exception as error:  # a store may raise anything, and none of it is the caller's concern
            log.warning("the remote tuning cache cannot be read: %s: %s", type(error).__name__, error)
            return None
        if found is not None:
            super().put(key, found)
        return found

    def put(self, key: CacheKey, entry: Entry) -> None:
        super().put(key, entry)
        if key.unstable_part() is not None:
            return
        try:
            self._store.put(self.path(key).name, entry.to_json(self._own(key)).encode())
        except Exception as error:  # as in `get`
            log.warning("the remote tuning cache cannot be written: %s: %s", type(error).__name__, error)
