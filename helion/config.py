"""Config: one schedule of a kernel, a plain mapping that prints, saves and loads.

What keys a given kernel takes, with which values, is not known here: that is `config_spec.ConfigSpec`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from . import exc

if TYPE_CHECKING:
    from .config_spec import ConfigSpec

# The keys with a meaning of their own.  Any other key of a Config is a user tunable (hl.register_tunable).
KEYS: tuple[str, ...] = (
    "block_sizes",
    "loop_orders",
    "flatten_loops",
    "l2_groupings",
    "reduction_loops",
    "range_unroll_factors",
    "range_warp_specializes",
    "range_num_stages",
    "range_multi_buffers",
    "range_flattens",
    "static_ranges",
    "num_warps",
    "num_stages",
    "indexing",
    "pid_type",
    "num_sm_multiplier",
    "maxnreg",
    "load_eviction_policies",
    "epilogue_subtile",
    "tcgen05_ab_stages",
    "tcgen05_acc_stages",
    "tcgen05_c_stages",
    "tcgen05_cluster_m",
    "tcgen05_cluster_n",
    "tcgen05_l2_swizzle_size",
)


def _frozen(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(v) for v in value)
    if isinstance(value, dict):
        return tuple(sorted((k, _frozen(v)) for k, v in value.items()))
    return value


def _plain(value: object) -> object:
    """Lists all the way down: what JSON gives back."""
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


class Config(Mapping[str, Any]):
    """A schedule: block sizes, loop orders, number of warps, ...

    Immutable, hashable, and equal to any Config with the same items.  Keys are given as keywords (see
    `helion.config.KEYS`; their meaning is in docs/configs.md); unknown keywords are user tunables, read with
    `hl.register_tunable`.  Keys left out take the kernel's default.

    >>> c = Config(block_sizes=[64, 64], num_warps=8)
    >>> c["num_warps"], Config.from_json(c.to_json()) == c
    (8, True)
    """

    __slots__ = ("_hash", "_items")

    def __init__(self, /, **items: Any) -> None:
        self._items: dict[str, Any] = {key: _plain(value) for key, value in items.items() if value is not None}
        self._hash: int | None = None

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._items[name]
        except KeyError:
            raise AttributeError(f"this config has no key {name!r}; it has {', '.join(self._items)}") from None

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(_frozen(self._items))
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self._items == other._items

    def __repr__(self) -> str:
        return f"helion.Config({', '.join(f'{k}={v!r}' for k, v in self._items.items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Config.from_dict, (dict(self._items),))

    @classmethod
    def from_dict(cls, items: Mapping[str, Any]) -> Config:
        """A Config with these items."""
        return cls(**items)

    def to_json(self) -> str:
        """The items as a JSON object, keys in the order they were given."""
        return json.dumps(self._items, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Config:
        """The Config that `to_json` wrote.

        Raises:
            exc.InvalidConfig: the text is not a JSON object.
        """
        try:
            items = json.loads(text)
        except (ValueError, RecursionError) as error:  # the latter: nested deeper than Python's stack
            raise exc.InvalidConfig(reason=f"not JSON: {error}") from None
        if not isinstance(items, dict):
            raise exc.InvalidConfig(reason=f"expected a JSON object, got {type(items).__name__}")
        return cls(**items)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json()` to a file, replacing it in one step."""
        target = Path(path)
        scratch = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        scratch.write_text(self.to_json())
        os.replace(scratch, target)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Config:
        """Read a Config that `save` wrote."""
        return cls.from_json(Path(path).read_text())

    def minimize(self, spec: ConfigSpec) -> Config:
        """Leave out every key that has the kernel's default value anyway.

        Args:
            spec: the kernel's space of schedules, `bound_kernel.config_spec`.
        """
        default = spec.neutral_config()
        full = spec.normalize(self)
        return Config(**{key: value for key, value in self._items.items() if full.get(key) != default.get(key)})
