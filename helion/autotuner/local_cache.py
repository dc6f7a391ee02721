"""The local cache by the name that programs import it by; it is in `cache.py`."""

from __future__ import annotations

from pathlib import Path

from ..runtime.cache_files import cache_dir
from .cache import LocalAutotuneCache
from .cache import StrictLocalAutotuneCache

__all__ = ["LocalAutotuneCache", "StrictLocalAutotuneCache", "get_helion_cache_dir"]


def get_helion_cache_dir() -> Path:
    """Where generated source and tuned Configs are kept (HELION_CACHE_DIR)."""
    return cache_dir()
