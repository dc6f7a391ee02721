"""Fragments: what a `ConfigSpec` is made of.

A fragment is one tunable: its default, the values it allows, and the neighbours of one (what our own searches move on
is `autotuner.space`).
"""

from __future__ import annotations

import abc
import dataclasses
import itertools
import math
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any


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
        between = "; " if any(", " in label for label in self.labels) else ", "
        whose = f" ({between.join(self.labels)})" if self.labels else ""
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
