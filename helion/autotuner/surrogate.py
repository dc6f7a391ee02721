"""Surrogate: guesses from measured trials how fast a Config is, and whether it works at all.

Times are learned by the Gaussian process of `gaussian.py`.  Whether a Config works is learned by scikit-learn's
extremely randomized trees where it is installed (failures have sharp edges, which trees are made for), else by a second
process of the same kind.  Why not a library's process: none has this covariance, and it makes the search twice as good
as scikit-learn's with one length scale for each feature did (docs/autotuning.md has the comparison).  Nothing but this
and `lfbo.py` imports scikit-learn, and that late.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import threading
from collections.abc import Sequence
from typing import Any

import torch

from .. import exc
from .gaussian import LevelProcess
from .space import Point
from .space import SearchSpace
from .strategy import log_time
from .trial import Trial

CEILING = 3.0
"""Times above so many times the best count as this: what tells 3% from 5% near the best matters more."""


def available() -> bool:
    """Whether scikit-learn can be imported."""
    try:
        importlib.import_module("sklearn")
    except ImportError:
        return False
    return True


def load_ahead() -> None:
    """Import what `Surrogate.fit` imports, in a thread: it takes a second or two, in which workers start."""
    threading.Thread(target=_load, name="helion-import-sklearn", daemon=True).start()


def _load() -> None:
    with contextlib.suppress(Exception):  # whoever needs it gets the error
        importlib.import_module("sklearn.ensemble")


def require(search: str) -> None:
    """Raise a clear error if scikit-learn is missing.

    Raises:
        exc.AutotuneError: with the command that installs it.
    """
    if not available():
        raise exc.AutotuneError(
            f"{search} needs scikit-learn, which is not installed",
            fix="`pip install helion[tune]`, or choose autotune_search='ModelSearch' (no dependencies).",
        )


class Surrogate:
    """Predicts log time with its uncertainty, and the probability that a Config works.

    Args:
        space: the points.
        seed: of the trees.
    """

    def __init__(self, space: SearchSpace, seed: int = 0) -> None:
        self.space = space
        self.seed = seed
        lengths = space.level_lengths()
        self._time = LevelProcess(lengths)
        self._works = LevelProcess(lengths, noise=0.03)
        self._trees: Any = None
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
        levels = [self.space.levels(p) for p in points]
        times = [log_time(t) for t in trials if t.ok]
        ceiling = min(times) + math.log(CEILING)
        self._time.fit([x for x, t in zip(levels, trials) if t.ok], [min(t, ceiling) for t in times])
        self.fitted = True
        self._fails = len(times) < len(trials)
        if not self._fails:
            return
        if available():
            from sklearn.ensemble import ExtraTreesClassifier  # optional, and slow to load

            self._trees = ExtraTreesClassifier(n_estimators=40, random_state=self.seed, n_jobs=1)
            self._trees.fit([self.space.encode_point(p) for p in points], [t.ok for t in trials])
        else:
            self._works.fit(levels, [float(t.ok) for t in trials])

    def predict(self, points: Sequence[Point]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Guess.

        Returns:
            Mean of the log time, its standard deviation, probability of success; one number for each point.
        """
        levels = [self.space.levels(p) for p in points]
        mean, std = self._time.predict(levels)
        if not self._fails:
            works = torch.ones(len(points), dtype=mean.dtype)
        elif self._trees is not None:
            works = torch.from_numpy(self._trees.predict_proba([self.space.encode_point(p) for p in points])[:, 1])
        else:
            works = self._works.predict(levels)[0].clamp(0.01, 1.0)
        return mean, std, works


def expected_improvement(mean: torch.Tensor, std: torch.Tensor, best: float) -> torch.Tensor:
    """Expected improvement on `best`, for minimization (Jones, Schonlau, Welch, J. Global Optimization, 1998)."""
    z = (best - mean) / std
    return (best - mean) * torch.special.ndtr(z) + std * torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
