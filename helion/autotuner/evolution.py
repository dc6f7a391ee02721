"""DifferentialEvolutionSearch: a population that steps along differences of its members.

Storn and Price, "Differential Evolution" (J. Global Optimization, 1997), variant current-to-best/1/bin, on the
grid of the search space: indices are moved as real numbers and rounded; axes without an order take the value of
one parent or another instead, since a difference of categories means nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Iterable

from ..config import Config
from .search import GenerationalSearch
from .space import Point
from .space import SearchSpace
from .trial import Trial


class DifferentialEvolutionSearch(GenerationalSearch):
    """Differential evolution.

    Args:
        space: where to search.
        seed: of all random decisions.
        first: Configs to try first; they join the population.
        population: members; each generation measures about as many candidates.
        crossover: probability that an axis is taken from the mutant.
        stall: generations without any improvement of a member before the search ends.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        first: Iterable[Config] = (),
        population: int = 24,
        crossover: float = 0.7,
        stall: int = 10,
    ) -> None:
        self.population = population
        self.crossover = crossover
        self.stall = stall
        super().__init__(space, seed=seed, first=first)

    def generations(self) -> Generator[list[Config], list[Trial], None]:
        # Failed Configs make poor parents: the population is the best of twice as many random ones.
        yield self._new_random(2 * self.population)
        members = self.ranked()[: self.population]
        stalled = 0
        while stalled < self.stall:
            if len(members) < 4:
                fresh = self._new_random(self.population)
                if not fresh:
                    return
                yield fresh
                members = self.ranked()[: self.population]
                stalled += 1
                continue
            children: list[tuple[int, Config]] = []
            for slot, member in enumerate(members):
                child = self._child(member, members)
                if child is not None:
                    children.append((slot, child))
            if not children:
                return
            trials = yield [config for _, config in children]
            improved = False
            for (slot, _), trial in zip(children, trials):
                if trial.time_ms < members[slot].time_ms:
                    members[slot] = trial
                    improved = True
            members.sort(key=lambda t: t.time_ms)
            stalled = 0 if improved else stalled + 1

    def _child(self, member: Trial, members: list[Trial]) -> Config | None:
        for _ in range(20):
            config = self.space.config(self._mutant(member, members))
            if config is not None and self._is_new(config):
                return config
        return None

    def _mutant(self, member: Trial, members: list[Trial]) -> Point:
        rng, space = self.rng, self.space
        x = space.point(member.config)
        elite = space.point(members[rng.randrange(max(len(members) // 5, 1))].config)
        a, b = (space.point(t.config) for t in rng.sample(members, 2))
        weight = rng.uniform(0.4, 1.0)
        kept = rng.randrange(len(x)) if x else 0
        moved: list[int] = []
        for axis, dimension in enumerate(space.dimensions):
            if axis != kept and rng.random() > self.crossover:
                moved.append(x[axis])
            elif dimension.ordered:
                step = weight * (elite[axis] - x[axis]) + weight * (a[axis] - b[axis])
                # Rounding to the nearest index would freeze axes on which the population is close together.
                index = int(x[axis] + step + rng.random())
                moved.append(min(max(index, 0), len(dimension.values) - 1))
            else:
                donors = (x[axis], elite[axis], a[axis], b[axis], rng.randrange(len(dimension.values)))
                moved.append(rng.choice(donors))
        return tuple(moved)
