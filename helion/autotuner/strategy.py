"""Strategy: who decides which Config is tried next.  Here: the interface, RandomStrategy and FiniteStrategy.

A strategy is asked for candidates and told their outcomes; it compiles and runs nothing, so every one works the
same on a GPU, on a CPU and on a cost model.  It resumes by being told old outcomes before it is asked.  A strategy that
is put to work on a kernel is a search (`searches.py`).
"""

from __future__ import annotations

import abc
import math
import random
from collections.abc import Generator
from collections.abc import Iterable
from collections.abc import Sequence

from ..config import Config
from .space import SearchSpace
from .trial import Trial


class Strategy(abc.ABC):
    """Base of all strategies.

    Args:
        space: where to search.
        seed: of every random decision; the same seed and the same outcomes give the same candidates.
        first: Configs to try first, after the default one and before those that the kernel's spec suggests.
    """

    def __init__(self, space: SearchSpace, *, seed: int = 0, first: Iterable[Config] = ()) -> None:
        self.space = space
        self.rng = random.Random(seed)
        self.history: dict[Config, Trial] = {}
        self.pending: set[Config] = set()
        self.finished = False
        self.best: Trial | None = None
        self.rounds = 0
        candidates = [space.default(), *(space.canonical(c) for c in (*first, *space.starts()))]
        self._first = [c for c in dict.fromkeys(candidates) if c is not None]
        self.first: tuple[Config, ...] = tuple(self._first)
        """What is tried first, the default before all."""

    @property
    def name(self) -> str:
        """For displays and messages: that of the search that goes by this strategy."""
        return type(self).__name__.replace("Strategy", "Search")

    def ask(self, limit: int) -> list[Config]:
        """Up to `limit` new Configs to try.

        Returns:
            Configs that are neither known nor pending.  An empty list means: wait for outcomes, or (if
            `finished`) the search has nothing more to try.
        """
        found: list[Config] = []
        while self._first and len(found) < limit:
            config = self._first.pop(0)
            if self._is_new(config):
                self.pending.add(config)
                found.append(config)
        if len(found) < limit and not self.finished:
            for config in self.propose(limit - len(found)):
                self.pending.add(config)
                found.append(config)
        return found

    def tell(self, trial: Trial) -> None:
        """Take in an outcome; also of a Config that was not asked for (an earlier run, another host)."""
        self.pending.discard(trial.config)
        self.history[trial.config] = trial
        if trial.ok and (self.best is None or trial.time_ms < self.best.time_ms):
            self.best = trial
        self.observe(trial)

    def requeue(self, config: Config) -> None:
        """A pending Config will have no outcome after all: propose it again."""
        self.pending.discard(config)
        self._first.insert(0, config)

    @abc.abstractmethod
    def propose(self, limit: int) -> list[Config]:
        """Up to `limit` different Configs for which `_is_new`; may set `finished`."""

    def observe(self, trial: Trial) -> None:  # noqa: B027 - most searches need not know
        """Called with every outcome."""

    def ranked(self) -> list[Trial]:
        """The successful trials, fastest first."""
        return sorted((t for t in self.history.values() if t.ok), key=lambda t: t.time_ms)

    def _is_new(self, config: Config) -> bool:
        return config not in self.history and config not in self.pending

    def _new_random(self, count: int, attempts: int = 50) -> list[Config]:
        """Up to `count` random Configs that are new; fewer only if there are no more."""
        found: dict[Config, None] = {}
        for _ in range(count * attempts):
            if len(found) >= count:
                break
            config = self.space.random(self.rng)
            if config is None:
                break
            if self._is_new(config):
                found[config] = None
        if len(found) < count and self.space.cardinality() <= SMALL_SPACE:
            # Drawing at random finds the last few of a small space too seldom.
            left = [c for c in self.space.all() if self._is_new(c) and c not in found]
            self.rng.shuffle(left)
            found.update(dict.fromkeys(left[: count - len(found)]))
        return list(found)


SMALL_SPACE = 20_000
"""Points of a space that is enumerated when random draws find nothing new."""


class RandomStrategy(Strategy):
    """Uniformly random Configs: the yardstick for the other searches."""

    def propose(self, limit: int) -> list[Config]:
        found = self._new_random(limit)
        self.finished = not found
        return found


class FiniteStrategy(Strategy):
    """Every Config of a list, in order (`@helion.kernel(configs=[...])`).

    Args:
        space: for checking; overrides and filter apply.
        configs: what to try.  The kernel's default Config is tried only if it is in the list.

    Raises:
        exc.InvalidConfig: a Config does not fit the kernel.
    """

    def __init__(self, space: SearchSpace, configs: Sequence[Config], *, seed: int = 0) -> None:
        super().__init__(space, seed=seed)
        self._first = []
        for config in configs:
            space.spec.normalize(config)
        complete = (space.complete(c) for c in configs)
        self._left = [c for c in dict.fromkeys(complete) if c is not None]
        self.first = tuple(self._left)

    def propose(self, limit: int) -> list[Config]:
        found: list[Config] = []
        while self._left and len(found) < limit:
            config = self._left.pop(0)
            if self._is_new(config):
                found.append(config)
        self.finished = not self._left
        return found


class GenerationalStrategy(Strategy):
    """A search written as a generator of whole generations.

    `generations` yields a list of Configs and is sent their Trials, in the same order, once all are known.
    """

    def __init__(self, space: SearchSpace, *, seed: int = 0, first: Iterable[Config] = ()) -> None:
        super().__init__(space, seed=seed, first=first)
        self._generator = self.generations()
        self._generation: list[Config] | None = None
        self._queue: list[Config] = []

    @abc.abstractmethod
    def generations(self) -> Generator[list[Config], list[Trial], None]:
        """The algorithm."""

    def propose(self, limit: int) -> list[Config]:
        while True:
            while self._queue and not self._is_new(self._queue[0]):
                self._queue.pop(0)
            if self._queue:
                break
            if self._generation is not None and any(c not in self.history for c in self._generation):
                return []
            if self.pending and self._generation is None:
                return []  # the Configs tried first are part of the first generation's knowledge
            if not self._advance():
                return []
        found: list[Config] = []
        while self._queue and len(found) < limit:
            config = self._queue.pop(0)
            if self._is_new(config) and config not in found:
                found.append(config)
        return found

    def _advance(self) -> bool:
        try:
            if self._generation is None:
                self._generation = next(self._generator)
            else:
                self._generation = self._generator.send([self.history[c] for c in self._generation])
        except StopIteration:
            self.finished = True
            return False
        self.rounds += 1
        self._queue = list(dict.fromkeys(self._generation))
        return True


def log_time(trial: Trial) -> float:
    """The natural logarithm of a trial's time: what surrogates and comparisons of ratios work on."""
    return math.log(max(trial.time_ms, 1e-9))
