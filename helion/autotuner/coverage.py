"""Which calls have a measured Config, device by device: what is left to tune.

A call of an ahead-of-time kernel's `collect_fn` is `tuned` on a device if the local cache has its Config, `shipped` if
the file beside the kernel chooses one that was measured on that model, `near` if it chooses one of another model of the
same architecture, and `computed` otherwise: nobody has measured anything, and it runs with the computed default.

Nothing here measures; a device need not be there.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .aot.build import calls_of
from .aot.build import describe
from .aot.build import find_kernel
from .aot.cache import Table
from .aot.cache import read_tables
from .aot.cache import shipped_file
from .aot.cache import table_for
from .bound import BoundTarget
from .cache import LocalAutotuneCache
from .cache_key import CacheKey


class Source(enum.Enum):
    """Where the Config of a call comes from on a device."""

    TUNED = "tuned"
    SHIPPED = "shipped"
    NEAR = "near"
    COMPUTED = "computed"

    @property
    def is_measured(self) -> bool:
        """Whether it was measured on that model of device."""
        return self in (Source.TUNED, Source.SHIPPED)


@dataclasses.dataclass(frozen=True)
class Covered:
    """One call on one device.

    Attributes:
        kernel: name.
        call: its arguments, for people: `float32[16, 512]`.
        device: model.
        source: where its Config comes from.
    """

    kernel: str
    call: str
    device: str
    source: Source


def coverage(names: Iterable[str], devices: Sequence[str] = ()) -> list[Covered]:
    """Every call of every kernel on every device.

    Args:
        names: `file.py:kernel`, ahead-of-time kernels with a `collect_fn`.
        devices: models (as cache files and shipped files name them) besides this one and those that are shipped for.

    Raises:
        exc.InvalidAPIUsage: a name is of no such kernel.
    """
    found: list[Covered] = []
    for name in names:
        kernel, file, aot = find_kernel(name)
        tables = read_tables(shipped_file(Path(file))).get(kernel.name, {})
        for args in calls_of(kernel, aot.collect_fn):
            key = BoundTarget(kernel.bind(args)).cache_key(args)
            found += [
                Covered(kernel.name, describe(args), device, _source(key, args, device, tables))
                for device in dict.fromkeys([key.device, *sorted(tables), *devices])
            ]
    return found


def _source(key: CacheKey, args: Sequence[Any], device: str, tables: dict[str, Table]) -> Source:
    if LocalAutotuneCache().get(dataclasses.replace(key, device=device), args) is not None:
        return Source.TUNED
    table = table_for(tables, device)
    if table is None or table.choose(args) is None:
        return Source.COMPUTED
    return Source.SHIPPED if device in tables else Source.NEAR


def lines_of(found: Sequence[Covered], everything: bool) -> list[str]:
    """The table that the command prints, and a summary.

    Args:
        found: the calls.
        everything: those with a measured Config too.
    """
    shown = [row for row in found if everything or not row.source.is_measured]
    lines = [f"{row.source.value:9} {row.kernel:24} {row.device}: {row.call}" for row in shown]
    measured = sum(row.source.is_measured for row in found)
    return [*lines, f"{measured} of {len(found)} calls have a Config that was measured on their device"]
