"""SearchSpace: a ConfigSpec as a grid of points, which is what the searches move on.

Every fragment is flattened into dimensions, each with a finite ordered list of values; a point is a tuple with
one index per dimension.  Here live the translation Config <-> point, random points, neighbours, and the feature
vector that surrogate models learn from.  What is measured, and in which order, is the business of the searches.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from random import Random
from typing import Any

import torch

from .. import exc
from ..config import Config
from ..config_spec import ConfigSpec
from ..fragments import BooleanFragment
from ..fragments import EnumFragment
from ..fragments import Fragment
from ..fragments import IntegerFragment
from ..fragments import ListOf
from ..fragments import OneOrPerItem
from ..fragments import PermutationFragment
from ..fragments import PowerOfTwoFragment

Point = tuple[int, ...]
"""One index per dimension of a SearchSpace."""


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One axis of the search space.

    Attributes:
        name: for messages and for Optuna's parameters, for example `block_sizes[0]`.
        values: the values, in order where there is one.
        ordered: whether near indices mean near values (else every value is a neighbour of every other).
    """

    name: str
    values: Sequence[Any]
    ordered: bool

    def index(self, value: Any) -> int:
        """Where a value is; of an ordered number that is not among the values, where the nearest one is."""
        try:
            return list(self.values).index(value)
        except ValueError:
            if len(self.values) == 1:  # a Config may say more here than searches try
                return 0
            if not (self.ordered and _is_number(value)):
                raise exc.InvalidConfig(reason=f"{self.name}={value!r} is not in the search space") from None
        return min(
            range(len(self.values)), key=lambda i: math.inf if self.values[i] is None else abs(self.values[i] - value)
        )

    def neighbors(self, index: int) -> list[int]:
        """The indices one step away."""
        if self.ordered:
            return [i for i in (index - 1, index + 1) if 0 <= i < len(self.values)]
        return [i for i in range(len(self.values)) if i != index]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _enum(name: str, fragment: EnumFragment) -> Dimension:
    choices = fragment.choices
    if all(_is_number(c) or c is None for c in choices) and any(_is_number(c) for c in choices):
        # None means "no limit" wherever the field uses it (reduction_loops, maxnreg): above every number.
        return Dimension(name, sorted(choices, key=lambda c: math.inf if c is None else c), True)
    return Dimension(name, choices, False)


def _permutations(name: str, fragment: PermutationFragment) -> Dimension:
    if fragment.length > 6:
        raise exc.AutotuneError(
            kernel=name,
            reason=f"{name} permutes {fragment.length} loops, which is {fragment.cardinality()} orders",
            fix=f"fix the order during the search: autotune_config_overrides={{{name.split('[')[0]!r}: ...}}.",
        )
    return Dimension(name, [list(p) for p in itertools.permutations(range(fragment.length))], False)


# Scalar fragment -> the dimension it becomes.  A new fragment is a new row.
_DIMENSION: dict[type[Fragment], Callable[[str, Any], Dimension]] = {
    IntegerFragment: lambda name, f: Dimension(name, range(f.low, f.high + 1), True),
    PowerOfTwoFragment: lambda name, f: Dimension(name, f.values(), True),
    BooleanFragment: lambda name, f: Dimension(name, (False, True), False),
    EnumFragment: _enum,
    PermutationFragment: _permutations,
}


def _flatten(name: str, fragment: Fragment) -> list[Dimension]:
    if isinstance(fragment, ListOf):
        parts = [_flatten(f"{name}[{i}]", item) for i, item in enumerate(fragment.items)]
        return [dimension for part in parts for dimension in part]
    if isinstance(fragment, OneOrPerItem):
        return _flatten(name, ListOf(fragment.item, fragment.length))
    for cls in type(fragment).__mro__:
        if cls in _DIMENSION:
            return [_DIMENSION[cls](name, fragment)]
    raise exc.AutotuneError(
        kernel=name,
        reason=f"{name} is a {type(fragment).__name__}, which the search does not know",
        fix=f"derive it from one of {', '.join(c.__name__ for c in _DIMENSION)} (or ListOf).",
    )


def _leaves(fragment: Fragment, value: Any) -> list[Any]:
    """The scalar values of one key, in the order of `_flatten`."""
    if isinstance(fragment, OneOrPerItem):
        items = value if isinstance(value, list) else [value] * fragment.length
        fragment = ListOf(fragment.item, fragment.length)
        value = items
    if isinstance(fragment, ListOf):
        return [leaf for item, v in zip(fragment.items, value) for leaf in _leaves(item, v)]
    return [value]


def _build(fragment: Fragment, leaves: Iterator[Any]) -> Any:
    """The value of one key from its scalar values: the inverse of `_leaves`."""
    if isinstance(fragment, ListOf):
        return [_build(item, leaves) for item in fragment.items]
    if isinstance(fragment, OneOrPerItem):
        items = [next(leaves) for _ in range(fragment.length)]
        # Spelled the short way where it says the same, so that a Config has one spelling.
        return items[0] if items and all(i == items[0] for i in items) else (items or fragment.default())
    return next(leaves)


#: Config -> the Config to try in its place, or None (or False) to try none; True: the same Config.
ConfigFilter = Callable[[Config], "Config | bool | None"]


def filtered(spec: ConfigSpec, config_filter: ConfigFilter | None, config: Config) -> Config | None:
    """A Config with every key, as the filter makes it; None if that excludes it.

    Raises:
        exc.InvalidConfig: what the filter makes of it does not fit the kernel.
    """
    chosen = True if config_filter is None else config_filter(config)
    if isinstance(chosen, Config):
        return spec.normalize(chosen)
    return config if chosen else None


class SearchSpace:
    """The points a search may visit.

    Args:
        spec: the kernel's space of schedules.
        overrides: keys with the value they keep during the search.
        config_filter: see `ConfigFilter`.

    Raises:
        exc.InvalidConfig: an override does not fit the kernel.
    """

    def __init__(
        self,
        spec: ConfigSpec,
        overrides: Mapping[str, Any] | None = None,
        config_filter: ConfigFilter | None = None,
    ) -> None:
        self.spec = spec
        self._filter = config_filter
        fixed = spec.normalize({**dict(spec.default_config()), **(overrides or {})})
        self._overrides = {key: fixed.get(key) for key in overrides or {} if key in spec.fields}
        self._free = {key: f for key, f in spec.fields.items() if key not in self._overrides}
        self.dimensions: list[Dimension] = [d for key, f in self._free.items() for d in _flatten(key, f)]
        self._codes = [
            torch.tensor([_code(d, i) for i in range(len(d.values))], dtype=torch.float64) for d in self.dimensions
        ]
        self._logs = self._log_tables()
        self._movable = [i for i, d in enumerate(self.dimensions) if len(d.values) > 1]
        # Searches look at the neighbours of the same few points again and again.
        self._configs: dict[Point, Config | None] = {}
        self._given: set[Config] = set()

    # -- Config <-> point ---------------------------------------------------------------------------

    def point(self, config: Config) -> Point:
        """The point of a Config (its overridden keys are ignored); the nearest one to a Config that is allowed but
        not searched, such as a tile larger than the loop.
        """
        full = self.spec.normalize(config)
        leaves = [leaf for key, f in self._free.items() for leaf in _leaves(f, full.get(key, f.default()))]
        return tuple(d.index(leaf) for d, leaf in zip(self.dimensions, leaves))

    def config(self, point: Sequence[int]) -> Config | None:
        """The Config of a point, or None if constraints or the filter exclude it, or if it is hopeless
        (`ConfigSpec.unpromising`).
        """
        key = tuple(point)
        if key not in self._configs:
            if len(self._configs) > 20_000:
                self._configs.clear()
            made = self._make_config(key)
            self._configs[key] = made if made is None or made in self._given or self.spec.is_promising(made) else None
        return self._configs[key]

    def _make_config(self, point: Point) -> Config | None:
        try:
            return filtered(self.spec, self._filter, self.spec.normalize(self.values(point)))
        except exc.InvalidConfig:
            return None

    def values(self, point: Sequence[int]) -> dict[str, Any]:
        """What a point says for each key, whether or not that is an allowed Config."""
        leaves = (d.values[i] for d, i in zip(self.dimensions, point))
        return {key: _build(f, leaves) for key, f in self._free.items()} | self._overrides

    def canonical(self, config: Config) -> Config | None:
        """The Config with overrides applied and every key spelled out, or None if it is excluded.

        What is asked for by name counts as promising from here on: the default, and Configs that a user gives.
        """
        try:
            point = self.point(config)
        except exc.InvalidConfig:
            return None
        made = self._make_config(point)
        if made is not None:
            self._given.add(made)
            self._configs[point] = made
        return made

    def complete(self, config: Config) -> Config | None:
        """The Config with overrides applied and every key, whether or not it is one the search could propose; None if
        it is excluded."""
        try:
            return filtered(self.spec, self._filter, self.spec.normalize({**dict(config), **self._overrides}))
        except exc.InvalidConfig:
            return None

    def default(self) -> Config | None:
        """The kernel's default Config under the overrides; None if the filter excludes it."""
        return self.canonical(self.spec.default_config())

    def starts(self) -> list[Config]:
        """The Configs that the kernel's spec suggests to begin with, as far as overrides and filter allow."""
        found = (self.complete(Config(**start)) for start in self.spec.starts)
        return [c for c in found if c is not None]

    def cardinality(self) -> int:
        """How many points there are, constraints not counted."""
        return math.prod(len(d.values) for d in self.dimensions)

    def all(self) -> Iterator[Config]:
        """Every allowed Config."""
        for point in itertools.product(*(range(len(d.values)) for d in self.dimensions)):
            config = self.config(point)
            if config is not None:
                yield config

    # -- moves --------------------------------------------------------------------------------------

    def random_point(self, rng: Random) -> Point:
        """A uniformly random point (maybe excluded by constraints)."""
        return tuple(rng.randrange(len(d.values)) for d in self.dimensions)

    def random(self, rng: Random, attempts: int = 200) -> Config | None:
        """A random allowed Config, or None if none was found in `attempts` draws."""
        for _ in range(attempts):
            config = self.config(self.random_point(rng))
            if config is not None:
                return config
        return None

    def neighbor_points(self, point: Point) -> list[Point]:
        """Every point that differs in one dimension by one step."""
        return [
            (*point[:axis], index, *point[axis + 1 :])
            for axis, dimension in enumerate(self.dimensions)
            for index in dimension.neighbors(point[axis])
        ]

    def neighbors(self, config: Config) -> list[Config]:
        """Every allowed Config one step away from `config`."""
        found = (self.config(p) for p in self.neighbor_points(self.point(config)))
        return [c for c in found if c is not None]

    def mutate(self, point: Point, rng: Random, steps: int) -> Point:
        """`steps` random moves: mostly to a neighbour, now and then to anywhere on the axis."""
        moved = list(point)
        for _ in range(steps if self._movable else 0):
            axis = rng.choice(self._movable)
            near = self.dimensions[axis].neighbors(moved[axis])
            moved[axis] = rng.choice(near) if rng.random() < 0.8 else rng.randrange(len(self.dimensions[axis].values))
        return tuple(moved)

    @staticmethod
    def crossover(a: Point, b: Point, rng: Random) -> Point:
        """Each index from one parent or the other."""
        return tuple(x if rng.random() < 0.5 else y for x, y in zip(a, b))

    # -- features -----------------------------------------------------------------------------------

    def encode(self, config: Config) -> list[float]:
        """`features` of a Config."""
        row: list[float] = self.features([self.point(config)])[0].tolist()
        return row

    def features(self, points: Sequence[Point]) -> torch.Tensor:
        """A feature vector for each point, about in [0, 1], for surrogate models: [points, features].

        Ordered dimensions give their relative index (so powers of two are logarithmic), unordered ones are
        one-hot, permutations give each loop's place.  Then come quantities that schedules are known to depend
        on and that no single dimension shows: the tile's size, the tile's size per warp, and the tile's size
        times the pipeline depth (shared memory), all as log2 / 16.
        """
        index = _indices(points)
        codes = [codes[column] for codes, column in zip(self._codes, index.T)]
        return torch.cat([*codes, self._quantities(index) / 16], 1)

    def levels(self, points: Sequence[Point]) -> torch.Tensor:
        """The points with the same quantities of `features` behind them, as integers."""
        index = _indices(points)
        return torch.cat([index, self._quantities(index).round().to(torch.int64)], 1)

    def level_lengths(self) -> list[float]:
        """For each column of `levels`, the distance over which times are alike: half an ordered axis; `inf` without an
        order.
        """
        lengths = [max((len(d.values) - 1) / 2, 1.5) if d.ordered else math.inf for d in self.dimensions]
        return [*lengths, *(4.0 for _ in self._logs)]

    def _log_tables(self) -> list[list[tuple[int, torch.Tensor]]]:
        """What each quantity adds up: axes, with log2 of their values (negative: divided by)."""

        def table(axis: int, sign: float = 1.0) -> tuple[int, torch.Tensor]:
            values = self.dimensions[axis].values
            return axis, torch.tensor([sign * math.log2(max(v, 1)) for v in values], dtype=torch.float64)

        tile = [table(i) for i, d in enumerate(self.dimensions) if d.name.startswith("block_sizes[")]
        if not tile:
            return []
        axes = {d.name: i for i, d in enumerate(self.dimensions)}
        others = [[table(axes[n], sign)] for n, sign in (("num_warps", -1.0), ("num_stages", 1.0)) if n in axes]
        return [tile, *([*tile, *other] for other in others)]

    def _quantities(self, index: torch.Tensor) -> torch.Tensor:
        """log2 of the tile's size, of its size per warp, and of its size times the pipeline depth: [points, 3]."""
        found = [torch.stack([table[index[:, axis]] for axis, table in parts]).sum(0) for parts in self._logs]
        return torch.stack(found, 1) if found else torch.empty(len(index), 0, dtype=torch.float64)


def _indices(points: Sequence[Point]) -> torch.Tensor:
    return torch.tensor(points, dtype=torch.int64).reshape(len(points), -1)


def _code(dimension: Dimension, index: int) -> list[float]:
    """The features of one value."""
    count = len(dimension.values)
    if dimension.ordered:
        return [index / max(count - 1, 1)]
    if isinstance(dimension.values[0], list):
        order = dimension.values[index]
        return [place / max(len(order) - 1, 1) for place in order]
    return [float(index)] if count == 2 else [float(index == i) for i in range(count)]
