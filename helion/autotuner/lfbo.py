"""LFBOPatternSearch: pattern search that asks a classifier which neighbours are worth measuring.

Likelihood-free Bayesian optimization (Song et al., "A General Recipe for Likelihood-free Bayesian Optimization",
ICML 2022): a classifier told "faster than the threshold", with weights by how much faster, orders candidates
like expected improvement does, needs no model of the noise, and takes failed Configs as ordinary negatives.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Generator
from collections.abc import Iterable
from typing import Any

import numpy as np

from .. import exc
from ..config import Config
from .pattern import PatternStrategy
from .space import SearchSpace
from .strategy import log_time
from .trial import Trial


def _require(search: str) -> None:
    """Raise a clear error if scikit-learn is missing.

    Raises:
        exc.AutotuneError: with the command that installs it.
    """
    try:
        importlib.import_module("sklearn")
    except ImportError as error:
        raise exc.AutotuneError(
            f"{search} needs scikit-learn, which is not installed",
            fix="`pip install helion[tune]`, or choose autotune_search='ModelSearch' (no dependencies).",
        ) from error


class LFBOPatternStrategy(PatternStrategy):
    """Pattern search with a classifier as a filter.

    Args:
        space: where to search.
        seed: of all random decisions.
        first: Configs to try first.
        generation: Configs measured around one base point.
        quantile: the share of the trials that count as fast.
        neighbors: moves that the classifier is shown; default: every neighbour, and four times as many farther moves.
        share: the share of what it is shown that is measured, in place of `generation`.
        radius: most steps of a farther move.
        patience: walks without a gain before random Configs come again; default: all of `walks`.
        penalty: how much less a move counts that is near one already chosen, from 0 to 1.
        **options: as for PatternStrategy.

    Raises:
        exc.AutotuneError: scikit-learn is not installed.
    """

    steps_only = False
    """Whether the neighbours themselves are left out."""

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        first: Iterable[Config] = (),
        generation: int = 10,
        quantile: float = 0.2,
        neighbors: int | None = None,
        share: float | None = None,
        radius: int = 3,
        patience: int | None = None,
        penalty: float = 0.0,
        **options: Any,
    ) -> None:
        _require(self.name)
        self.generation = generation
        self.quantile = quantile
        self.neighbors = neighbors
        self.share = share
        self.radius = radius
        self.patience = patience
        self.penalty = penalty
        self._seed = seed
        self._without_gain = 0
        super().__init__(space, seed=seed, first=first, **options)

    def _walk(self, base: Trial) -> Generator[list[Config], list[Trial], None]:
        if self.patience is not None and self._without_gain >= self.patience:
            return
        before = self.best
        yield from super()._walk(base)
        self._without_gain = 0 if self.best is not before else self._without_gain + 1

    def _new_random(self, count: int, attempts: int = 50) -> list[Config]:
        self._without_gain = 0  # new starting points, new patience
        return super()._new_random(count, attempts)

    def choose(self, candidates: list[Config], base: Trial) -> list[Config]:
        """The most promising of the neighbours and of moves of several steps."""
        origin = self.space.point(base.config)
        near = [] if self.steps_only else candidates
        farther = (
            self.space.config(self.space.mutate(origin, self.rng, self.rng.randint(2, max(self.radius, 2))))
            for _ in range(4 * len(candidates) if self.neighbors is None else self.neighbors)
        )
        pool = [c for c in dict.fromkeys([*near, *farther]) if c is not None and self._is_new(c)]
        if self.neighbors is not None:
            pool = self.rng.sample(pool, min(self.neighbors, len(pool)))
        count = self.generation if self.share is None else max(1, math.ceil(self.share * len(pool)))
        return pool if len(pool) <= count else self._best_apart(pool, self._scores(pool), count)

    def _best_apart(self, pool: list[Config], scores: list[float], count: int) -> list[Config]:
        """The best of a pool, each chosen one making those near it less attractive."""
        places = [self.space.encode(c) for c in pool]
        left = dict(enumerate(scores))
        chosen: list[int] = []
        while left and len(chosen) < count:
            pick = max(left, key=lambda i: left[i])
            chosen.append(pick)
            del left[pick]
            for i in left if self.penalty else ():
                distance = sum(abs(a - b) for a, b in zip(places[i], places[pick]))
                left[i] *= 1 - self.penalty * math.exp(-distance / 0.5)
        return [pool[i] for i in chosen]

    def _scores(self, pool: list[Config]) -> list[float]:
        from sklearn.ensemble import ExtraTreesClassifier  # optional, and slow to load

        trials = list(self.history.values())
        fast = [log_time(t) for t in self.ranked()]
        threshold = fast[max(math.ceil(self.quantile * len(fast)) - 1, 0)] if fast else math.inf
        # The paper's reduction: every trial is a negative with weight 1, and every trial below the threshold is
        # besides a positive with weight (threshold - value), scaled to a mean of 1.
        x = [self.space.encode(t.config) for t in trials]
        positive = [i for i, t in enumerate(trials) if t.ok and log_time(t) < threshold]
        gains = np.asarray([threshold - log_time(trials[i]) for i in positive])
        if not len(gains) or gains.sum() <= 0:
            return [self.rng.random() for _ in pool]
        labels = [0] * len(x) + [1] * len(positive)
        weights = np.concatenate([np.ones(len(x)), gains / gains.mean()])
        model = ExtraTreesClassifier(n_estimators=100, min_samples_leaf=2, random_state=self._seed, n_jobs=1)
        model.fit(np.asarray(x + [x[i] for i in positive]), labels, sample_weight=weights)
        chance = model.predict_proba(np.asarray([self.space.encode(c) for c in pool]))[:, 1]
        return [float(c) for c in chance]


class LFBOTreeStrategy(LFBOPatternStrategy):
    """The same with moves of several steps alone: where a point has too many neighbours to list."""

    steps_only = True
