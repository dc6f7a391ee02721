"""Config: one schedule of a kernel, a mapping that prints, saves and loads.

A Config is what its user wrote: no form of a value is replaced by another. What the keys mean is in docs/configs.md,
which forms their values have in `config_keys`; what one kernel makes of them, in `config_spec.ConfigSpec`.
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
from .config_keys import SINGULARS
from .config_keys import TABLE
from .config_keys import plural_items

if TYPE_CHECKING:
    from .config_spec import ConfigSpec


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

    Hashable, and equal to any Config with the same items.  Keys are given as keywords; docs/configs.md says what they
    mean.  A list may be given as one value, a tuple or nested lists, and by the singular of its name if it has one
    item: `block_size=64` is `block_sizes=[64]`.  Any other keyword is a tunable of the kernel's own
    (`hl.register_tunable`).  Keys left out take the kernel's default.

    Attributes:
        config: the items, as a dict. It is the Config's own: changing it changes the Config.

    As attributes, lists are plain lists in whatever form they were given, the singular of a list's name is its item if
    it has one (else None), and known keys that are not given have a neutral value: 4 warps, 1 stage, `[]`, ...

    >>> c = Config(block_sizes=[64, 64], num_warps=8)
    >>> c["num_warps"], c.num_stages, Config.from_json(c.to_json()) == c
    (8, 1, True)
    """

    __slots__ = ("_items",)

    def __init__(
        self,
        /,
        *,
        block_sizes: Any = None,
        loop_orders: Any = None,
        l2_groupings: Any = None,
        flatten_loops: Any = None,
        reduction_loops: Any = None,
        range_unroll_factors: Any = None,
        range_num_stages: Any = None,
        range_multi_buffers: Any = None,
        range_flattens: Any = None,
        range_warp_specializes: Any = None,
        static_ranges: Any = None,
        num_warps: int | None = None,
        num_stages: int | None = None,
        maxnreg: int | None = None,
        indexing: Any = None,
        load_eviction_policies: Any = None,
        epilogue_subtile: int | bool | None = None,
        pid_type: str | None = None,
        num_sm_multiplier: int | None = None,
        load_cache_modifiers: Any = None,
        store_cache_modifiers: Any = None,
        advanced_controls_file: str | None = None,
        tcgen05_ab_stages: int | None = None,
        tcgen05_acc_stages: int | None = None,
        tcgen05_c_stages: int | None = None,
        tcgen05_cluster_m: int | None = None,
        tcgen05_cluster_n: int | None = None,
        tcgen05_l2_swizzle_size: int | None = None,
        num_threads: Any = None,
        atomic_indexing: Any = None,
        xcd_remap: Any = None,
        cute_vector_widths: Any = None,
        waves_per_eu: int | None = None,
        matrix_instr_nonkdim: int | None = None,
        num_ctas: int | None = None,
        occupancy: int | None = None,
        pallas_load_buffer_count: Any = None,
        **others: Any,
    ) -> None:
        given = locals()
        self._items: dict[str, Any] = {key: _plain(given[key]) for key in TABLE if given[key] is not None}
        singular = [key for key in others if key in SINGULARS]
        self._items.update((key, _plain(others[key])) for key in singular if others[key] is not None)
        self._items.update((key, _plain(value)) for key, value in others.items() if key not in SINGULARS)

    @property
    def config(self) -> dict[str, Any]:
        """The items; changing the dict changes the Config."""
        return self._items

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in TABLE:
            found = [value for _, key, value in plural_items(self._items) if key == name]
            return TABLE[name].spread(found[0]) if found else _plain(TABLE[name].neutral)
        if name in self._items:
            return self._items[name]
        if name in SINGULARS:
            items = getattr(self, SINGULARS[name])
            return items[0] if len(items) == 1 else None
        raise AttributeError(f"this config has no key {name!r}; it has {', '.join(self._items)}")

    def __hash__(self) -> int:
        # Not remembered: `config` gives the items away.
        return hash(_frozen(self._items))

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
        """The items as a JSON object."""
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
        """Write `to_json()` to a file, replacing it in one step; folders are made as needed."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
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
        return Config(
            **{given: value for given, key, value in plural_items(self._items) if full.get(key) != default.get(key)}
        )
