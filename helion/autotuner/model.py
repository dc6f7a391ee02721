"""ModelSearch: the default search.  A surrogate model proposes the Configs expected to improve most on the best.

Bayesian optimization on a grid: fit the surrogate to all trials, score a pool of candidates (neighbours, mutations and
crossovers of the leaders) by expected improvement times the probability of working, and measure
the top few.  Candidates whose outcome is pending count as if they came out as predicted, so several workers do
not try the same idea.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..config import Config
from .search import Search
from .search import log_time
from .space import Point
from .space import SearchSpace
from .surrogate import Surrogate
from .surrogate import expected_improvement
from .surrogate import require
from .trial import Status
from .trial import Trial


class ModelSearch(Search):
    """Model-guided search.

    Args:
        space: where to search.
        seed: of all random decisions.
        first: Configs to try first.
        initial: Configs tried before the model takes over, without a model: half random, half near the default.
        pool: candidates scored per proposal.
        batch: most Configs proposed from one fit of the model.
        leaders: how many of the best Configs candidates are derived from.
        surrogate: `gp` or `forest`, see `Surrogate`.

    Raises:
        exc.AutotuneError: scikit-learn is not installed.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        first: Iterable[Config] = (),
        initial: int = 16,
        pool: int = 600,
        batch: int = 4,
        leaders: int = 8,
        surrogate: str = "gp",
    ) -> None:
        require(type(self).__name__)
        super().__init__(space, seed=seed, first=first)
        self.initial = initial
        self.pool = pool
        self.batch = batch
        self.leaders = leaders
        self.surrogate = Surrogate(seed, surrogate)
        self._features: dict[Config, list[float]] = {}
        self._points: dict[Config, Point] = {}

    def propose(self, limit: int) -> list[Config]:
        known = len(self.history) + len(self.pending)
        good = sum(t.ok for t in self.history.values())
        if known < self.initial:
            return self._warm_up(min(limit, self.initial - known))
        if good < max(4, self.initial // 4):
            # Nearly everything fails, or nothing is known yet: more of the default's surroundings.
            return self._warm_up(limit) if len(self.pending) < self.initial else []
        found = self._propose_by_model(min(limit, self.batch))
        if not found:
            found = self._new_random(limit)
            self.finished = not found
        return found

    def _point(self, config: Config) -> Point:
        if config not in self._points:
            self._points[config] = self.space.point(config)
        return self._points[config]

    def _encode(self, config: Config) -> list[float]:
        if config not in self._features:
            self._features[config] = self.space.encode_point(self._point(config))
        return self._features[config]

    # -- before the model ---------------------------------------------------------------------------

    def _warm_up(self, count: int) -> list[Config]:
        """Random Configs and Configs a few steps from the default (or from the best), in turn."""
        default = self.space.default()
        found: dict[Config, None] = {}
        for _ in range(count * 50):
            if len(found) >= count:
                break
            config: Config | None
            if (len(found) + len(self.history)) % 2 and default is not None:
                config = self.space.config(self.space.mutate(self._point(default), self.rng, self.rng.randint(2, 6)))
            else:
                config = self.space.random(self.rng)
            if config is not None and self._is_new(config):
                found[config] = None
        return list(found)

    # -- with the model -----------------------------------------------------------------------------

    def _propose_by_model(self, count: int) -> list[Config]:
        trials = list(self.history.values())
        if self.pending and self.surrogate.fitted:
            # "Kriging believer" (Ginsbourger et al. 2010): take the model's word for what is being measured.
            waiting = list(self.pending)
            mean, _, _ = self.surrogate.predict([self._encode(c) for c in waiting])
            trials += [Trial(c, Status.OK, math.exp(m)) for c, m in zip(waiting, mean)]
        self.surrogate.fit([self._encode(t.config) for t in trials], trials)
        return self._best_of(self._candidates(), count)

    def _best_of(self, points: list[Point], count: int) -> list[Config]:
        """The candidates with the greatest expected improvement times probability of working, without near copies of one
        another: those would tell little new."""
        import numpy as np

        if not points:
            return []
        encoded = np.asarray([self.space.encode_point(p) for p in points])
        mean, std, works = self.surrogate.predict(encoded)
        assert self.best is not None
        score = expected_improvement(mean, std, log_time(self.best)) * works
        found: list[Config] = []
        while len(found) < count:
            pick = int(np.argmax(score))
            if score[pick] < 0:
                break
            # Only now is a Config made and checked: that costs more than scoring a point.
            config = self.space.config(points[pick])
            if config is not None and self._is_new(config) and config not in found:
                found.append(config)
                distance = np.abs(encoded - encoded[pick]).sum(1)
                score = np.where(score < 0, score, score * (1 - np.exp(-distance / 0.5)))
            score[pick] = -1.0
        return found

    def _candidates(self) -> list[Point]:
        """Neighbours of the best, and mutations and crossovers of the leaders.

        Deliberately local: over the whole space the model is least sure of itself, so expected improvement would go
        for far corners, most of which are slow or do not compile.
        """
        leaders = [self._point(t.config) for t in self.ranked()[: self.leaders]]
        points: dict[Point, None] = {}
        for leader in leaders[:3]:
            points.update(dict.fromkeys(self.space.neighbor_points(leader)))
        for _ in range(self.pool):
            # Leaders are taken by rank: the first many times as often as the last.
            parent = leaders[min(int(self.rng.expovariate(3 / len(leaders))), len(leaders) - 1)]
            if self.rng.random() < 0.25:
                parent = self.space.crossover(parent, self.rng.choice(leaders), self.rng)
            points[self.space.mutate(parent, self.rng, self.rng.randint(1, 4))] = None
        known = {self._point(c) for c in (*self.history, *self.pending)}
        return [p for p in points if p not in known]
