"""Tuned Configs of like kernels: what to begin with where this kernel has none of its own.

"Like" is, in this order: the same source for other shapes, dtypes or devices; the same name; anything else that was
tuned and fits.  Only the local cache is looked at.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import exc
from ..config import Config
from ..runtime.cache_files import cache_dir
from ..runtime.cache_files import read_file
from . import schema
from .cache_key import CacheKey
from .target import TuningTarget


def best_available(target: TuningTarget, args: Sequence[Any], most: int, scan: int) -> list[Config]:
    """Configs of the local cache that fit a kernel, those of the likest kernels first.

    Args:
        target: the kernel.
        args: arguments of the call.
        most: most Configs.
        scan: most cache files to look at, the newest ones.

    Returns:
        Configs with every key, each once.
    """
    key = target.cache_key(args)
    found: list[tuple[int, int, Config]] = []
    for number, path in enumerate(_newest(cache_dir() / "autotune", scan)):
        try:
            record = schema.record(
                schema.parse(read_file(path)), {"config": schema.config, "key": schema.mapping_of(lambda value: value)}
            )
            config = target.config_spec.normalize(record["config"])
        except (OSError, ValueError, exc.InvalidConfig):
            continue
        found.append((_unlike(record["key"], key), number, config))
    ordered = dict.fromkeys(config for _, _, config in sorted(found, key=lambda item: item[:2]))
    return list(ordered)[:most]


def _newest(directory: Path, count: int) -> list[Path]:
    def age(path: Path) -> float:
        try:
            return path.stat().st_mtime
        except OSError:
            return 0.0

    return heapq.nlargest(count, directory.glob("*.json"), key=age)


def _unlike(fields: dict[str, Any], key: CacheKey) -> int:
    """How unlike a cached kernel is: 0 for the same source and device."""
    source = fields.get("source") == key.source
    device = fields.get("device") == key.device
    name = fields.get("kernel_name") == key.kernel_name
    return 4 * (not source) + 2 * (not name) + (not device)
