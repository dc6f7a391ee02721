"""Surrogate: guesses from measured trials how fast a Config is, and whether it works at all.

Both are learned by the Gaussian process of `gaussian.py`.  Why not a library's: none has this covariance, and it makes
the search twice as good as scikit-learn's with one length scale for each feature did (docs/autotuning.md has the
comparison).  Extremely randomized trees guess failures no better, and take ten times as long, the import apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from .gaussian import LevelProcess
from .space import Point
from .space import SearchSpace
from .strategy import log_time
from .trial import Trial

CEILING = 3.0
"""Times above so many times the best count as this: what tells 3% from 5% near the best matters more."""


class Surrogate:
    """Predicts log time with its uncertainty, and the probability that a Config works.

    Args:
        space: the points.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        lengths = space.level_lengths()
        self._time = LevelProcess(lengths)
        self._works = LevelProcess(lengths, noise=0.03)
        self._fails = False
        self.fitted = False

    def shares(self) -> list[float]:
        """For each dimension of the space, how much the time depends on it, from 0 to 1."""
        return self._time.shares[: len(self.space.dimensions)]

    def fit(self, points: Sequence[Point], trials: Sequence[Trial]) -> None:
        """Learn from trials.

        Args:
            points: of the trials' Configs.
            trials: at least two of them successful.
        """
        levels = self.space.levels(points)
        times = [log_time(t) for t in trials if t.ok]
        ceiling = min(times) + math.log(CEILING)
        self._time.fit(levels[torch.tensor([t.ok for t in trials])], [min(t, ceiling) for t in times])
        self._fails = len(times) < len(trials)
        if self._fails:
            self._works.fit(levels, [float(t.ok) for t in trials])
        self.fitted = True

    def predict(self, points: Sequence[Point]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Guess.

        Returns:
            Mean of the log time, its standard deviation, probability of success; one number for each point.
        """
        levels = self.space.levels(points)
        mean, std = self._time.predict(levels)
        works = self._works.predict(levels)[0].clamp(0.01, 1.0) if self._fails else torch.ones_like(mean)
        return mean, std, works


def expected_improvement(mean: torch.Tensor, std: torch.Tensor, best: float) -> torch.Tensor:
    """Expected improvement on `best`, for minimization (Jones, Schonlau, Welch, J. Global Optimization, 1998)."""
    z = (best - mean) / std
    return (best - mean) * torch.special.ndtr(z) + std * torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
