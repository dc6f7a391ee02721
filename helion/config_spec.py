"""ConfigSpec: the space of schedules of one BoundKernel, and the fragments it is made of.

A fragment is one tunable: its default, the values it allows, and the neighbours of one (what our own searches move on
is `autotuner.space`). Validation, defaults and search all read one table, `ConfigSpec.fields`.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from . import exc
from .config import Config
from .config_advice import advice
from .config_keys import EVICTION_POLICIES as EVICTION_POLICIES
from .config_keys import INDEXING_TYPES as INDEXING_TYPES
from .config_keys import KEYS
from .config_keys import PID_TYPES as PID_TYPES
from .config_keys import TABLE
from .config_keys import closest
from .config_keys import plural_items


class Fragment(abc.ABC):
    """One tunable of a kernel."""

    @abc.abstractmethod
    def default(self) -> Any:
        """The value that always works."""

    @abc.abstractmethod
    def validate(self, value: Any) -> Any:
        """The value in canonical form; raises ValueError saying what is allowed."""

    @abc.abstractmethod
    def pattern_neighbors(self, value: Any, radius: int = 1) -> list[Any]:
        """The allowed values at most `radius` steps away from `value`, without it, in ascending order; of values
        without an order, all others.
        """

    @abc.abstractmethod
    def cardinality(self) -> int:
        """How many values are allowed."""


@dataclasses.dataclass(frozen=True)
class IntegerFragment(Fragment):
    """An integer in [low, high].

    Args:
        low: smallest value.
        high: largest value.
        default_value: the default; `low` if left out.
        accepted: the largest value of a given Config; searches stay below `high`.
    """

    low: int
    high: int
    default_value: int | None = None
    accepted: int = 0

    def default(self) -> int:
        return self.low if self.default_value is None else self.default_value

    def validate(self, value: Any) -> int:
        high = max(self.high, self.accepted)
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= high:
            raise ValueError(f"expected an int from {self.low} to {high}")
        return value

    def pattern_neighbors(self, value: int, radius: int = 1) -> list[int]:
        near = range(max(value - radius, self.low), min(value + radius, self.high) + 1)
        return [v for v in near if v != value]

    def cardinality(self) -> int:
        return self.high - self.low + 1


@dataclasses.dataclass(frozen=True)
class PowerOfTwoFragment(Fragment):
    """A power of two in [low, high]; `low` and `high` are powers of two.

    A given Config may go up to `accepted`; searches stay below `high`.
    """

    low: int
    high: int
    default_value: int | None = None
    accepted: int = 0

    def __post_init__(self) -> None:
        for bound in (self.low, self.high):
            if bound < 1 or bound & (bound - 1):
                raise ValueError(f"{bound} is not a power of two")

    def default(self) -> int:
        return self.low if self.default_value is None else self.default_value

    def validate(self, value: Any) -> int:
        high = max(self.high, self.accepted)
        ok = isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= high
        if not ok or value & (value - 1):
            raise ValueError(f"expected a power of two from {self.low} to {high}")
        return int(value)

    def values(self) -> list[int]:
        return [1 << e for e in range(self.low.bit_length() - 1, self.high.bit_length())]

    def pattern_neighbors(self, value: int, radius: int = 1) -> list[int]:
        exponent = value.bit_length() - 1
        return [v for v in self.values() if v != value and abs(v.bit_length() - 1 - exponent) <= radius]

    def cardinality(self) -> int:
        return len(self.values())


@dataclasses.dataclass(frozen=True)
class BlockSizeFragment(PowerOfTwoFragment):
    """The size of a tile: searched up to `high`, where it covers the whole loop, and accepted up to `accepted`.

    One Config serves many shapes, so a tile larger than the loop is no error: the rest of it is masked.

    Args:
        floor: the smallest size that is one; where a Config says less, it is this (`hl.register_block_size`). Searches
            stay above `low`, from where on products are done by tensor cores.
        ceiling: the largest; where a Config says more, it is this. A registered maximum is often the size of an
            argument, and a Config for large ones was refused for small ones.
    """

    floor: int = 1
    ceiling: int = 1 << 30
    extent: int | None = None

    @property
    def min_size(self) -> int:
        """The smallest value that a search tries."""
        return self.low

    @property
    def max_size(self) -> int:
        """The largest value that a search tries."""
        return self.high

    @property
    def size_hint(self) -> int:
        """The loop's extent where it is known, else the largest size."""
        return self.high if self.extent is None else self.extent

    def validate(self, value: Any) -> int:
        size = PowerOfTwoFragment(1, max(self.high, self.accepted)).validate(value)
        return max(min(size, self.ceiling), self.floor)


@dataclasses.dataclass(frozen=True)
class EnumFragment(Fragment):
    """One of a few choices; the first is the default.

    Args:
        choices: what searches choose from.
        accept: makes of a given value one to go by, perhaps another choice, perhaps none of them; None where only the
            choices will do.
    """

    choices: tuple[Any, ...]
    accept: Callable[[Any], Any] | None = dataclasses.field(compare=False)

    def __init__(self, choices: Sequence[Any], accept: Callable[[Any], Any] | None = None) -> None:
        object.__setattr__(self, "choices", tuple(choices))
        object.__setattr__(self, "accept", accept)

    def default(self) -> Any:
        return self.choices[0]

    def validate(self, value: Any) -> Any:
        if self.accept is not None:
            return self.accept(value)
        if not any(type(value) is type(choice) and value == choice for choice in self.choices):
            raise ValueError(f"expected one of {', '.join(map(repr, self.choices))}")
        return value

    def pattern_neighbors(self, value: Any, radius: int = 1) -> list[Any]:
        return [choice for choice in self.choices if choice != value]

    def cardinality(self) -> int:
        return len(self.choices)


@dataclasses.dataclass(frozen=True)
class BooleanFragment(Fragment):
    """True or False."""

    default_value: bool = False

    def default(self) -> bool:
        return self.default_value

    def validate(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("expected True or False")
        return value

    def pattern_neighbors(self, value: bool, radius: int = 1) -> list[bool]:
        return [not value]

    def cardinality(self) -> int:
        return 2


@dataclasses.dataclass(frozen=True)
class PermutationFragment(Fragment):
    """An order of `length` loops; the default is the order in the source."""

    length: int

    def default(self) -> list[int]:
        return list(range(self.length))

    def validate(self, value: Any) -> list[int]:
        wanted = list(range(self.length))
        # Not `sorted(value)`: what cannot be ordered would raise TypeError.
        if not isinstance(value, (list, tuple)) or len(value) != self.length or any(i not in value for i in wanted):
            raise ValueError(f"expected a permutation of {wanted}")
        return [int(i) for i in value]

    def pattern_neighbors(self, value: list[int], radius: int = 1) -> list[list[int]]:
        return [list(order) for order in itertools.permutations(range(self.length)) if list(order) != value]

    def cardinality(self) -> int:
        return math.factorial(self.length)


@dataclasses.dataclass(frozen=True)
class ListOf(Fragment):
    """A list with one fragment per item.

    Args:
        items: the fragments, in order; or one fragment with `length` copies of it.
        labels: what each item belongs to (for messages), for example the names of the loops.
        blocks: for each item the number of the block (of `block_sizes`, of a reduced dimension) that it schedules.
    """

    items: tuple[Fragment, ...]
    labels: tuple[str, ...] = ()
    blocks: tuple[int, ...] = ()

    def __init__(
        self,
        items: Fragment | Sequence[Fragment],
        length: int | None = None,
        labels: Sequence[str] = (),
        blocks: Sequence[int] = (),
    ) -> None:
        fragments = (items,) * (1 if length is None else length) if isinstance(items, Fragment) else tuple(items)
        object.__setattr__(self, "items", fragments)
        object.__setattr__(self, "labels", tuple(labels))
        object.__setattr__(self, "blocks", tuple(blocks))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Fragment:
        return self.items[index]

    def __iter__(self) -> Iterator[Fragment]:
        return iter(self.items)

    @property
    def length(self) -> int:
        """How many items there are."""
        return len(self.items)

    @property
    def inner(self) -> Fragment:
        """The fragment of an item, where all have the same one."""
        return self.items[0] if self.items else EnumFragment(())

    def valid_block_ids(self) -> list[int]:
        """The blocks that the items schedule."""
        return list(self.blocks)

    def default(self) -> list[Any]:
        return [item.default() for item in self.items]

    def validate(self, value: Any) -> list[Any]:
        whose = f" ({', '.join(self.labels)})" if self.labels else ""
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"expected a list of {len(self.items)}{whose}")
        if len(value) != len(self.items):
            repeats = any(label.endswith(" again") for label in self.labels)
            shared = (
                "; a loop in an unrolled one counts each time: they share a size with `block = "
                "hl.register_block_size(n)` before the loops and `hl.tile(n, block_size=block)`"
            )
            raise ValueError(f"expected {len(self.items)} item(s){whose}, got {len(value)}{shared if repeats else ''}")
        result = []
        for i, (item, v) in enumerate(zip(self.items, value)):
            try:
                result.append(item.validate(v))
            except ValueError as error:
                label = f" ({self.labels[i]})" if self.labels else ""
                raise ValueError(f"item {i}{label}: {error}") from None
        return result

    def pattern_neighbors(self, value: list[Any], radius: int = 1) -> list[list[Any]]:
        return [
            [*value[:i], other, *value[i + 1 :]]
            for i, item in enumerate(self.items)
            for other in item.pattern_neighbors(value[i], radius)
        ]

    def cardinality(self) -> int:
        return math.prod(item.cardinality() for item in self.items)


@dataclasses.dataclass(frozen=True)
class OneOrPerItem(Fragment):
    """One value for all of `length` items, or a list with a value each (`indexing`)."""

    item: Fragment
    length: int

    @property
    def inner(self) -> Fragment:
        """The fragment of an item."""
        return self.item

    def default(self) -> Any:
        return self.item.default()

    def pattern_neighbors(self, value: Any, radius: int = 1) -> list[Any]:
        items = value if isinstance(value, list) else [value] * self.length
        return ListOf(self.item, self.length).pattern_neighbors(items, radius)

    def validate(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return ListOf(self.item, self.length).validate(value)
        return self.item.validate(value)

    def cardinality(self) -> int:
        return self.item.cardinality() ** max(self.length, 1)


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

    @functools.cached_property
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
