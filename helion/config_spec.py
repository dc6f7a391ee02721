"""ConfigSpec: the space of schedules of one BoundKernel.

Validation, defaults and search all read one table, `ConfigSpec.fields`: a fragment for each key.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from . import exc
from ._locks import cached_property
from .config import Config
from .config_advice import advice
from .config_keys import INDEXING_TYPES
from .config_keys import KEYS
from .config_keys import TABLE
from .config_keys import closest
from .config_keys import plural_items
from .fragments import BlockSizeFragment as BlockSizeFragment
from .fragments import BooleanFragment as BooleanFragment
from .fragments import EnumFragment as EnumFragment
from .fragments import Fragment as Fragment
from .fragments import IntegerFragment as IntegerFragment
from .fragments import ListOf as ListOf
from .fragments import OneOrPerItem as OneOrPerItem
from .fragments import PermutationFragment as PermutationFragment
from .fragments import PowerOfTwoFragment as PowerOfTwoFragment


def _fitted(fragment: Fragment, key: str, value: Any, given: Any, spread: bool = False) -> Any:
    """A key's value for the places that this kernel has.

    Args:
        fragment: the kernel's.
        key: the key.
        value: in its plain form.
        given: as the Config has it.
        spread: one item is for all places.

    Raises:
        ValueError: there are too many items, or too few that have no default of their own.
    """
    if isinstance(fragment, OneOrPerItem) and isinstance(value, list):
        items = ListOf(fragment.item, fragment.length)
    elif isinstance(fragment, ListOf) and key in TABLE:
        items = fragment
    else:  # one value, whatever form other kernels have for it
        return fragment.validate(value if key in TABLE and TABLE[key].form == "one" else given)
    places = len(items.items)
    if spread and len(value) == 1:
        value = value * places
    if TABLE[key].flexible:
        value = value[:places]
    if key != "block_sizes":  # what is left out has its default; a tile's size must be meant for it
        value = [*value, *(item.default() for item in items.items[len(value) :])]
    return items.validate(value)


@dataclasses.dataclass
class ConfigSpec:
    """The space of schedules of one BoundKernel.

    Attributes:
        fields: key -> fragment, for every key this kernel takes.
        accepted: key -> fragment, for keys that a Config may say and searches leave alone. A Config that does not has
            none of them.
        constraints: functions that get a normalized Config as a dict and return why it does not fit, or None.
        unpromising: functions of the same form that say why a search should leave a Config out, although it is allowed:
            it would compile for minutes, or fail for want of registers or shared memory.
        find_starts: gives `starts`.
        compute: makes the Config of a kernel that was given none; None where that is the neutral one.
        beside: what keys that a Config leaves out are beside those that it has, where that is not their default.
        kernel_name: for messages.
        location: the kernel's `def`, for messages.
        ignored_warnings: as the setting `ignore_warnings`.
    """

    kernel_name: str = "kernel"
    fields: dict[str, Fragment] = dataclasses.field(default_factory=dict)
    constraints: list[Callable[[dict[str, Any]], str | None]] = dataclasses.field(default_factory=list)
    unpromising: list[Callable[[dict[str, Any]], str | None]] = dataclasses.field(default_factory=list)
    find_starts: Callable[[], list[dict[str, Any]]] = list
    compute: Callable[[], Config] | None = None
    beside: Callable[[dict[str, Any]], dict[str, Any]] = lambda given: {}
    location: exc.SourceLocation | None = None
    accepted: dict[str, Fragment] = dataclasses.field(default_factory=dict)
    ignored_warnings: tuple[type[exc.BaseWarning], ...] = ()
    _default: Config | None = None
    _warned: set[str] = dataclasses.field(default_factory=set, repr=False)

    @cached_property
    def starts(self) -> list[dict[str, Any]]:
        """What a search tries right after the default Config, best first: any subset of the keys."""
        return self.find_starts()

    def neutral_config(self) -> Config:
        """The Config every key of which is what a given Config that leaves it out means."""
        return Config(**{key: fragment.default() for key, fragment in self.fields.items()})

    def _list(self, key: str) -> ListOf:
        found = self.fields.get(key)
        return found if isinstance(found, ListOf) else ListOf([])

    @property
    def block_sizes(self) -> ListOf:
        """The tunable block sizes; each has `min_size`, `max_size` and `size_hint`."""
        return self._list("block_sizes")

    @property
    def reduction_loops(self) -> ListOf:
        """The dimensions that can be reduced in a loop; `valid_block_ids()` says which."""
        return self._list("reduction_loops")

    @property
    def flatten_loops(self) -> ListOf:
        """The loops over several dimensions."""
        return self._list("flatten_loops")

    @property
    def range_num_stages(self) -> ListOf:
        """The inner loops."""
        return self._list("range_num_stages")

    @property
    def load_eviction_policies(self) -> ListOf:
        """The loads; `inner.choices` are the policies."""
        return self._list("load_eviction_policies")

    @property
    def indexing(self) -> OneOrPerItem:
        """The accesses to memory; `inner.choices` are the ways."""
        found = self.fields.get("indexing")
        return found if isinstance(found, OneOrPerItem) else OneOrPerItem(EnumFragment(INDEXING_TYPES), 0)

    @property
    def user_defined_tunables(self) -> dict[str, Fragment]:
        """What `hl.register_tunable` registered."""
        return {key: fragment for key, fragment in self.fields.items() if key not in KEYS}

    @property
    def allowed_pid_types(self) -> tuple[str, ...]:
        """The `pid_type`s that the kernel can have."""
        found = self.fields.get("pid_type")
        return found.choices if isinstance(found, EnumFragment) else ("flat",)

    def unsupported_config_keys(self, config: Mapping[str, Any]) -> list[str]:
        """The keys of a Config for which this kernel has nothing to schedule, or that nobody knows."""
        return [key for key in config if key not in self.fields]

    def flat_config(
        self, fn: Callable[[Fragment], Any], *, advanced_controls_files: Sequence[str] | None = None
    ) -> Config:
        """A Config whose every single value a function chooses.

        Args:
            fn: fragment of one value -> the value.
            advanced_controls_files: choices of the key `advanced_controls_file`, which is left out without them.

        Raises:
            exc.InvalidConfig: the values do not go together.
        """
        values: dict[str, Any] = {}
        for key, fragment in self.fields.items():
            if isinstance(fragment, OneOrPerItem):
                items = [fn(fragment.item) for _ in range(fragment.length)]
                alike = all(item == items[0] for item in items)  # then one value: a Config has one spelling
                values[key] = (items[0] if items else fragment.default()) if alike else items
            else:
                values[key] = [fn(item) for item in fragment] if isinstance(fragment, ListOf) else fn(fragment)
        full = self.normalize(Config(**values))
        if not advanced_controls_files:
            return full
        return Config(**{**dict(full), "advanced_controls_file": fn(EnumFragment(advanced_controls_files))})

    def default_config(self) -> Config:
        """The Config of a kernel that was given none: computed by the backend, or else the neutral one."""
        if self._default is None:
            self._default = self.compute() if self.compute is not None else self.neutral_config()
        return self._default

    def normalize(self, config: Config | dict[str, Any]) -> Config:
        """Check a Config and fill in the keys it leaves out.

        Args:
            config: any subset of the keys, in any of their forms (`config_keys`). Keys that this kernel has nothing to
                schedule with are checked and ignored.

        Returns:
            A Config with every key of `fields`, each item in its plain form; the one that was given stays as it is.

        Raises:
            exc.InvalidConfig: an unknown key, a value outside its range, a key in two spellings, or keys that do
                not go together; names the key, the value and what is allowed.
        """
        values: dict[str, Any] = {}
        for key, (spelled, value) in self._by_key(dict(config)).items():
            if value is None and key in TABLE:
                continue
            fragment = self.fields.get(key, self.accepted.get(key))
            try:
                plain = TABLE[key].parse(value) if key in TABLE else value
                if fragment is not None:
                    values[key] = _fitted(fragment, key, plain, value, spread=spelled == "reduction_loop")
                elif key not in TABLE:
                    self._unknown(spelled, value)
            except ValueError as error:
                raise exc.InvalidConfig(
                    reason=f"{spelled}={value!r} does not fit kernel {self.kernel_name!r}: {error}",
                    fix=advice(fragment, key, spelled, value),
                    location=self.location,
                ) from None
        beside = self.beside(values)
        full = {key: values.get(key, beside.get(key, fragment.default())) for key, fragment in self.fields.items()}
        for key, fragment in self.accepted.items():
            if key in values and values[key] != fragment.default():
                full[key] = values[key]
        for constraint in self.constraints:
            reason = constraint(full)
            if reason is not None:
                raise exc.InvalidConfig(
                    reason=f"kernel {self.kernel_name!r}: {reason}",
                    fix="change one of these values; every key left out has a default that works.",
                    location=self.location,
                )
        return Config(**full)

    def _by_key(self, config: dict[str, Any]) -> dict[str, tuple[str, Any]]:
        """Key -> its spelling in a Config, and the value."""
        found: dict[str, tuple[str, Any]] = {}
        for spelled, key, value in plural_items(config):
            if spelled in self.fields and spelled not in TABLE:
                key = spelled  # a tunable of the kernel that is called like the singular of a key
            if key in found:
                raise exc.InvalidConfig(
                    reason=f"both {found[key][0]!r} and {spelled!r} were given, which say the same",
                    fix="give one of them.",
                    location=self.location,
                )
            found[key] = spelled, value
        return found

    def _unknown(self, key: str, value: Any) -> None:
        """A key that is no key and no tunable of this kernel: a slip of the pen is ignored with a warning."""
        meant = closest(key, tuple(self.fields))
        if meant is None:
            raise exc.InvalidConfig(
                reason=f"kernel {self.kernel_name!r} does not take key {key!r} (given {value!r})",
                fix=f"this kernel takes: {', '.join([*self.fields, *self.accepted])}.",
                location=self.location,
            )
        if key not in self._warned:
            self._warned.add(key)
            misspelt = exc.MisspelledConfigKey(kernel=self.kernel_name, key=key, meant=meant)
            exc.warn(misspelt, self.ignored_warnings, stacklevel=3)

    def is_valid(self, config: Config | dict[str, Any]) -> bool:
        """Whether `normalize` accepts the Config."""
        try:
            self.normalize(config)
        except exc.InvalidConfig:
            return False
        return True

    def may_choose(self, values: dict[str, Any]) -> bool:
        """Whether a Config that was computed may be chosen, or tried first.

        Args:
            values: of every key, each one that the kernel can have, in its plain form.
        """
        return all(check(values) is None for check in (*self.constraints, *self.unpromising))

    def is_promising(self, config: Config) -> bool:
        """Whether a search should consider a (normalized) Config."""
        full = dict(config)
        return all(check(full) is None for check in self.unpromising)

    def cardinality(self) -> int:
        """How many Configs the fragments span (constraints not counted)."""
        return math.prod(fragment.cardinality() for fragment in self.fields.values())
