"""ModelSearch: the default search.  A surrogate model proposes the Configs expected to improve most on the best.

Bayesian optimization on a grid: fit the surrogate to all trials, score a pool of candidates by expected improvement
times the probability of working, and measure the top few.  Three quarters of the proposals come from around the
leaders; the others from farther away, along the tunables that matter most, since the small effects that are known by
then carry over to another block size. Candidates whose outcome is pending count as if they came out as predicted, so
several workers do not try the same idea.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import torch

from ..config import Config
from .gaussian import one_thread
from .space import Point
from .space import SearchSpace
from .strategy import Strategy
from .strategy import log_time
from .surrogate import Surrogate
from .surrogate import expected_improvement
from .trial import Status
from .trial import Trial


class ModelStrategy(Strategy):
    """Model-guided search.

    Args:
        space: where to search.
        seed: of all random decisions.
        first: Configs to try first.
        initial: Configs tried before the model takes over, without a model: half near the default, half random.
        pool: candidates scored per proposal.
        batch: most Configs proposed from one fit of the model.
        leaders: how many of the best Configs candidates are derived from.
        far: the share of proposals from farther away.
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
        far: float = 0.25,
    ) -> None:
        super().__init__(space, seed=seed, first=first)
        self.initial = initial
        self.pool = pool
        self.batch = batch
        self.leaders = leaders
        self.far = far
        self.surrogate = Surrogate(space)
        self._points: dict[Config, Point] = {}
        self._told: list[tuple[Point, Trial]] = []

    def propose(self, limit: int) -> list[Config]:
        known = len(self.history) + len(self.pending)
        good = sum(t.ok for t in self.history.values())
        if known < self.initial:
            return self._warm_up(min(limit, self.initial - known))
        if good < max(4, self.initial // 4):
            # Nearly everything fails, or nothing is known yet: more of the default's surroundings.
            return self._warm_up(limit) if len(self.pending) < self.initial else []
        with one_thread():
            found = self._propose_by_model(min(limit, self.batch))
        if not found:
            found = self._new_random(limit)
            self.finished = not found
        return found

    def observe(self, trial: Trial) -> None:
        self._told.append((self._point(trial.config), trial))

    def _point(self, config: Config) -> Point:
        if config not in self._points:
            self._points[config] = self.space.point(config)
        return self._points[config]

    # -- before the model ---------------------------------------------------------------------------

    def _warm_up(self, count: int) -> list[Config]:
        """Configs a few steps from the default, and random ones: first the former, which a short search gains most
        from; beyond `initial`, in turn."""
        default = self.space.default()
        known = len(self.history) + len(self.pending)
        found: dict[Config, None] = {}
        for _ in range(count * 50):
            if len(found) >= count:
                break
            config: Config | None
            place = known + len(found)
            near = place < self.initial // 2 if place < self.initial else bool(place % 2)
            if near and default is not None:
                config = self.space.config(self.space.mutate(self._point(default), self.rng, self.rng.randint(2, 6)))
            else:
                config = self.space.random(self.rng)
            if config is not None and self._is_new(config):
                found[config] = None
        return list(found)

    # -- with the model -----------------------------------------------------------------------------

    def _propose_by_model(self, count: int) -> list[Config]:
        points = [point for point, _ in self._told]
        trials = [trial for _, trial in self._told]
        waiting = {self._point(c): c for c in self.pending}
        if waiting and self.surrogate.fitted:
            # "Kriging believer" (Ginsbourger et al. 2010): take the model's word for what is being measured.
            mean, _, _ = self.surrogate.predict(list(waiting))
            points += waiting
            trials += [Trial(c, Status.OK, math.exp(m)) for c, m in zip(waiting.values(), mean.tolist())]
        self.surrogate.fit(points, trials)
        known = {*points, *waiting}
        leaders = [point for point, _ in sorted(self._told, key=lambda told: told[1].time_ms)[: self.leaders]]
        far = sum(self.rng.random() < self.far for _ in range(count))
        found = self._best_of([p for p in self._near(leaders) if p not in known], count - far)
        others = self._best_of([p for p in self._far(leaders[:3]) if p not in known], count - len(found))
        return found + [c for c in others if c not in found]

    def _best_of(self, points: list[Point], count: int) -> list[Config]:
        """The candidates with the greatest expected improvement times probability of working, without near copies of
        one
        another: those would tell little new."""
        if not points or count <= 0:
            return []
        mean, std, works = self.surrogate.predict(points)
        assert self.best is not None
        score = expected_improvement(mean, std, log_time(self.best)) * works
        places = self.space.features(points)
        found: list[Config] = []
        while len(found) < count:
            pick = int(score.argmax())
            if score[pick] < 0:
                break
            # Only now is a Config made and checked: that costs more than scoring a point.
            config = self.space.config(points[pick])
            if config is not None and self._is_new(config) and config not in found:
                found.append(config)
                distance = (places - places[pick]).abs().sum(1)
                score = torch.where(score < 0, score, score * (1 - torch.exp(-distance / 0.5)))
            score[pick] = -1.0
        return found

    def _near(self, leaders: list[Point]) -> Iterable[Point]:
        """Neighbours of the best, and mutations and crossovers of the leaders.

        Deliberately local: over the whole space the model is least sure of itself, so expected improvement would go
        for far corners, most of which are slow or do not compile.
        """
        points: dict[Point, None] = {}
        for leader in leaders[:3]:
            points.update(dict.fromkeys(self.space.neighbor_points(leader)))
        for _ in range(self.pool):
            # Leaders are taken by rank: the first many times as often as the last.
            parent = leaders[min(int(self.rng.expovariate(3 / len(leaders))), len(leaders) - 1)]
            if self.rng.random() < 0.4:
                parent = self.space.crossover(parent, self.rng.choice(leaders), self.rng)
            steps = 1
            while steps < 8 and self.rng.random() < 0.65:
                steps += 1
            points[self.space.mutate(parent, self.rng, steps)] = None
        return points

    def _far(self, leaders: list[Point]) -> Iterable[Point]:
        """The best with a few tunables anywhere: those on which the time depends most are changed most often."""
        dimensions = self.space.dimensions
        weights = [(share + 0.01) * (len(d.values) > 1) for share, d in zip(self.surrogate.shares(), dimensions)]
        upto = list(itertools.accumulate(weights))
        points: dict[Point, None] = {}
        for _ in range(self.pool if any(weights) else 0):
            point = list(self.rng.choice(leaders))
            for axis in self.rng.choices(range(len(point)), cum_weights=upto, k=self.rng.randint(2, 5)):
                point[axis] = self.rng.randrange(len(dimensions[axis].values))
            points[tuple(point)] = None
        return points
