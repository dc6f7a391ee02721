"""DifferentialEvolutionSearch: a population that steps along differences of its members.

Storn and Price, "Differential Evolution" (J. Global Optimization, 1997), variant current-to-best/1/bin, on the
grid of the search space: indices are moved as real numbers and rounded; axes without an order take the value of
one parent or another instead, since a difference of categories means nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Iterable
from typing import Any

from ..config import Config
from .gaussian import one_thread
from .space import Point
from .space import SearchSpace
from .strategy import GenerationalStrategy
from .strategy import log_time
from .surrogate import Surrogate
from .surrogate import expected_improvement
from .trial import Trial


class DifferentialEvolutionStrategy(GenerationalStrategy):
    """Differential evolution.

    Args:
        space: where to search.
        seed: of all random decisions.
        first: Configs to try first; they join the population.
        population: members; each generation measures about as many candidates.
        crossover: probability that an axis is taken from the mutant.
        stall: generations without a gain before the search ends.
        immediate: a child that is faster takes its parent's place before the next child is made.
        min_gain: a generation gains if its best child is faster than the best member by this ratio; None: if any child
            is faster than its parent.
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
        immediate: bool = False,
        min_gain: float | None = None,
    ) -> None:
        self.population = population
        self.crossover = crossover
        self.stall = stall
        self.immediate = immediate
        self.min_gain = min_gain
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
            best = members[0].time_ms
            slots = range(len(members))
            steps = [[slot] for slot in slots] if self.immediate else [list(slots)]
            made = improved = False
            for step in steps:
                children = [(slot, child) for slot in step if (child := self._child(members[slot], members))]
                if not children:
                    continue
                made = True
                trials = yield list(dict.fromkeys(child for _, child in children))
                outcome = {trial.config: trial for trial in trials}
                for slot, child in children:
                    if outcome[child].time_ms < members[slot].time_ms:
                        members[slot] = outcome[child]
                        improved = True
            if not made:
                return
            members.sort(key=lambda t: t.time_ms)
            if self.min_gain is not None:
                improved = members[0].time_ms < best * (1 - self.min_gain)
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


class SurrogateEvolutionStrategy(DifferentialEvolutionStrategy):
    """Differential evolution that makes several children for each member and measures the one of which a surrogate
    expects most.

    Args:
        space, seed, first: as for DifferentialEvolutionStrategy.
        brood: children made for each one measured.
        **options: as for DifferentialEvolutionStrategy.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        first: Iterable[Config] = (),
        brood: int = 6,
        **options: Any,
    ) -> None:
        self.brood = brood
        self.surrogate = Surrogate(space)
        self._fitted_to = 0
        super().__init__(space, seed=seed, first=first, **options)

    def _child(self, member: Trial, members: list[Trial]) -> Config | None:
        found = [super(SurrogateEvolutionStrategy, self)._child(member, members) for _ in range(self.brood)]
        children = list(dict.fromkeys(child for child in found if child is not None))
        if len(children) < 2 or self.best is None or len(self.ranked()) < 2:
            return children[0] if children else None
        with one_thread():
            if self._fitted_to != len(self.history):  # once for a generation
                trials = list(self.history.values())
                self.surrogate.fit([self.space.point(t.config) for t in trials], trials)
                self._fitted_to = len(self.history)
            mean, std, works = self.surrogate.predict([self.space.point(c) for c in children])
        score = expected_improvement(mean, std, log_time(self.best)) * works
        return children[int(score.argmax())]
