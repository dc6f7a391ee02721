"""AOTAutotuneCache: Configs that ship in a file beside a kernel, chosen for each call by its shapes.

The file `<name>.helion.json` beside `<name>.py` holds, for each kernel and device model, a few Configs and a decision
tree over shape features.  It is written by `python -m helion.autotuner` (`build.py`); here it is read, which
imports no search and no library.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import os
import re
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...config import Config
from .. import schema
from ..cache import Entry
from ..cache import LocalAutotuneCache
from ..cache_key import CacheKey
from .decision_tree import Node
from .decision_tree import check_tree
from .decision_tree import choose
from .options import Batched

log = logging.getLogger("helion.autotuner")

FORMAT = 1


def shipped_file(source_file: str | os.PathLike[str]) -> Path:
    """Where the Configs of the kernels in a source file are."""
    return Path(source_file).with_suffix(".helion.json")


def features_of(args: Sequence[Any], batched: Batched = None) -> dict[str, float]:
    """Numbers about a call that a decision may depend on.

    Args:
        args: arguments of the call, by position.
        batched: dimensions left out, so that the Config (and with it the order of additions) never depends on them.

    Returns:
        `arg0.size1`, `arg0.itemsize`, `arg0.contiguous` for tensors, `arg1` for numbers.  `arg0.numel` only where no
        dimension is left out.
    """
    found: dict[str, float] = {}
    for i, arg in enumerate(args):
        if isinstance(arg, torch.Tensor):
            marks = batched[i] if batched is not None and i < len(batched) else None
            skipped = {marks} if isinstance(marks, int) else set(marks or ())
            skipped = {d % max(arg.dim(), 1) for d in skipped}
            for d, size in enumerate(arg.shape):
                if d not in skipped:
                    found[f"arg{i}.size{d}"] = float(size)
            if not skipped:
                found[f"arg{i}.numel"] = float(arg.numel())
            found[f"arg{i}.itemsize"] = float(arg.element_size())
            found[f"arg{i}.contiguous"] = float(arg.stride(-1) == 1) if arg.dim() else 1.0
        elif isinstance(arg, (bool, int, float)):
            found[f"arg{i}"] = float(arg)
    return found


@dataclasses.dataclass(frozen=True)
class Table:
    """The shipped Configs of one kernel on one device model.

    Attributes:
        configs: what may be chosen.
        tree: chooses an index of `configs`.
        source_hash: of the kernel's source when it was tuned.
        batched: as it was when the tree was learned.
    """

    configs: tuple[Config, ...]
    tree: Node
    source_hash: str
    batched: Batched = None

    def choose(self, args: Sequence[Any]) -> Config | None:
        """The Config for a call; None if its arguments have other features than those tuned for."""
        try:
            return self.configs[choose(self.tree, features_of(args, self.batched))]
        except (KeyError, IndexError):
            return None

    def to_record(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "source_hash": self.source_hash,
            "batched": self.batched,
            "configs": [dict(c) for c in self.configs],
            "tree": self.tree,
        }

    @classmethod
    def from_record(cls, record: Any) -> Table:
        """The Table that `to_record` described.

        Raises:
            ValueError: the record describes none.
        """
        found = schema.record(record, _TABLE, {"batched": batch_dimensions})
        check_tree(found["tree"], len(found["configs"]))
        return cls(tuple(found["configs"]), found["tree"], found["source_hash"], found.get("batched"))


def _any(value: Any) -> Any:
    return value


def _dimensions(value: Any) -> Any:
    items = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(item) is int for item in items):
        raise ValueError("expected a dimension, several, or null")
    return value


batch_dimensions = schema.optional(schema.list_of(_dimensions))
"""Checks what a file says of `batched`."""

_TABLE: dict[str, schema.Check] = {
    "configs": schema.list_of(schema.config),
    "source_hash": schema.text,
    "tree": _any,
}


def source_hash(source: str) -> str:
    """16 hexadecimal digits of a kernel's source."""
    return hashlib.sha256(source.encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=64)
def _read(path: Path, stamp: tuple[int, int]) -> dict[str, dict[str, Table]]:
    """Kernel -> device -> table.  `stamp` makes a changed file another entry of the cache."""
    by_device = schema.mapping_of(_any)
    try:
        found = schema.record(
            schema.parse(path.read_bytes()), {"format": _any, "kernels": schema.mapping_of(by_device)}
        )
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']!r} is not {FORMAT}")
    except (OSError, ValueError) as error:
        log.warning("ignoring the shipped configs in %s: %s", path, error)
        return {}
    tables: dict[str, dict[str, Table]] = {}
    for kernel, devices in found["kernels"].items():
        for device, record in devices.items():
            try:
                tables.setdefault(kernel, {})[device] = Table.from_record(record)
            except ValueError as error:
                log.warning("ignoring the shipped configs of %s on %s in %s: %s", kernel, device, path, error)
    return tables


def read_tables(path: Path) -> dict[str, dict[str, Table]]:
    """Kernel -> device -> Table of a file; empty if there is none or it is damaged (with a warning)."""
    try:
        status = path.stat()
    except OSError:
        return {}
    return _read(path, (status.st_mtime_ns, status.st_size))


def _architecture(device: str) -> str | None:
    found = re.search(r"\bsm_\d+", device)
    return found.group() if found else None


def table_for(tables: Mapping[str, Table], device: str) -> Table | None:
    """The table of this device model, else of another model of the same architecture, else None."""
    if device in tables:
        return tables[device]
    architecture = _architecture(device)
    near = [name for name in sorted(tables) if architecture is not None and _architecture(name) == architecture]
    return tables[near[0]] if near else None


_warned_sources: set[str] = set()


class AOTAutotuneCache(LocalAutotuneCache):
    """Configs shipped beside the kernel; for shapes or devices they do not cover, the local cache."""

    def get(self, key: CacheKey, args: Sequence[Any] = ()) -> Entry | None:
        if key.source_file:
            path = shipped_file(key.source_file)
            table = table_for(read_tables(path).get(key.kernel_name, {}), key.device)
            config = None if table is None else table.choose(args)
            if table is not None and config is not None:
                if table.source_hash != source_hash(key.source) and key.kernel_name not in _warned_sources:
                    _warned_sources.add(key.kernel_name)
                    log.warning(
                        "the configs of %s in %s were tuned for another version of its source", key.kernel_name, path
                    )
                return Entry(config, note=f"shipped in {path.name}")
        return super().get(key, args)
