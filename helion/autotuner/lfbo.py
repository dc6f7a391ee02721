"""LFBOPatternSearch: pattern search that asks a classifier which neighbours are worth measuring.

Likelihood-free Bayesian optimization (Song et al., "A General Recipe for Likelihood-free Bayesian Optimization",
ICML 2022): a classifier told "faster than the threshold", with weights by how much faster, orders candidates
like expected improvement does, needs no model of the noise, and takes failed Configs as ordinary negatives.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ..config import Config
from .pattern import PatternSearch
from .search import log_time
from .space import SearchSpace
from .surrogate import require
from .trial import Trial


class LFBOPatternSearch(PatternSearch):
    """Pattern search with a classifier as a filter.

    Args:
        space: where to search.
        seed: of all random decisions.
        first: Configs to try first.
        starts: random Configs measured before the first walk.
        min_gain: a move must be faster by this ratio.
        generation: Configs measured around one base point.
        quantile: the share of the trials that count as fast.

    Raises:
        exc.AutotuneError: scikit-learn is not installed.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        first: Iterable[Config] = (),
        starts: int = 24,
        min_gain: float = 0.005,
        generation: int = 10,
        quantile: float = 0.2,
    ) -> None:
        require(type(self).__name__)
        self.generation = generation
        self.quantile = quantile
        self._seed = seed
        super().__init__(space, seed=seed, first=first, starts=starts, min_gain=min_gain)

    def choose(self, candidates: list[Config], base: Trial) -> list[Config]:
        """The most promising of the neighbours and of as many two- and three-step moves."""
        origin = self.space.point(base.config)
        farther = (
            self.space.config(self.space.mutate(origin, self.rng, self.rng.randint(2, 3)))
            for _ in range(4 * len(candidates))
        )
        pool = [c for c in dict.fromkeys([*candidates, *farther]) if c is not None and self._is_new(c)]
        if len(pool) <= self.generation:
            return pool
        scores = self._scores(pool)
        order = sorted(range(len(pool)), key=lambda i: -scores[i])
        return [pool[i] for i in order[: self.generation]]

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
