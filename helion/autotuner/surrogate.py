"""Surrogates: cheap models that guess from measured trials how a Config would do.  scikit-learn's, imported late.

Why scikit-learn: tree ensembles and Gaussian processes in one well-kept BSD library with wheels for every platform we
run on, models that take mixed ordered/categorical features and hundreds of points in milliseconds, and no opinion
about how candidates are proposed (Optuna's samplers draw each candidate from a density, parameter by parameter;
docs/autotuning.md has the comparison).  Nothing else in helion imports it.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Sequence
from typing import Any

from .. import exc
from .search import log_time
from .trial import Trial

FIT_STEPS = 25
"""Steps of the optimization of the Gaussian process's hyperparameters."""


def available() -> bool:
    """Whether scikit-learn can be imported."""
    try:
        importlib.import_module("sklearn")
    except ImportError:
        return False
    return True


def require(search: str) -> None:
    """Raise a clear error if scikit-learn is missing.

    Raises:
        exc.AutotuneError: with the command that installs it.
    """
    if not available():
        raise exc.AutotuneError(
            f"{search} needs scikit-learn, which is not installed",
            fix="`pip install helion[tune]`, or choose autotune_search='PatternSearch' (no dependencies).",
        )


class Surrogate:
    """Predicts log time with its uncertainty, and the probability that a Config works.

    Args:
        seed: of the models' randomness.
        kind: `gp` for a Gaussian process (smooth; best with few trials), `forest` for extremely randomized trees
            (rugged; cheap with many trials).
    """

    def __init__(self, seed: int = 0, kind: str = "gp") -> None:
        self.seed = seed
        self.kind = kind
        self._time: Any = None
        self._works: Any = None
        self._kernel: Any = None
        self._fitted = 0
        self._offset = 0.0

    @property
    def fitted(self) -> bool:
        """Whether `predict` can be called."""
        return self._time is not None

    def fit(self, features: Sequence[Sequence[float]], trials: Sequence[Trial]) -> None:
        """Learn from trials.

        Args:
            features: one vector per trial.
            trials: at least two of them successful.
        """
        import numpy as np
        import sklearn
        from sklearn.ensemble import ExtraTreesClassifier
        from threadpoolctl import threadpool_limits

        x = np.asarray(features, dtype=float)
        ok = np.asarray([t.ok for t in trials])
        y = np.asarray([log_time(t) for t in trials if t.ok])
        self._offset = float(np.median(y))
        # Problems are small, and the other cores are compiling candidates.
        with threadpool_limits(1), sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
            self._fit_time(x[ok], y - self._offset)
        self._works = None
        if 0 < ok.sum() < len(ok):
            self._works = ExtraTreesClassifier(n_estimators=40, min_samples_leaf=1, random_state=self.seed, n_jobs=1)
            self._works.fit(x, ok)

    def _fit_time(self, x: Any, y: Any) -> None:
        import numpy as np

        if self.kind == "forest":
            from sklearn.ensemble import ExtraTreesRegressor

            self._time = ExtraTreesRegressor(n_estimators=100, min_samples_leaf=1, max_features=0.8, random_state=self.seed, n_jobs=1)
            self._time.fit(x, y)
            return
        from scipy.optimize import minimize
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel
        from sklearn.gaussian_process.kernels import Matern
        from sklearn.gaussian_process.kernels import WhiteKernel

        # Slow Configs are 100 times slower than fast ones; what tells 3% from 5% near the best matters more.
        y = np.minimum(y, float(np.min(y)) + math.log(8.0))
        # One length scale per feature, refitted now and then: the fit costs more than everything else here.
        refit = self._kernel is None or len(y) >= 1.3 * self._fitted
        if refit:
            # Two parts: a smooth one that learns which features matter, and a rougher one that takes all alike, so
            # that the many tunables with small effects are not written off by the first.
            smooth = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(np.ones(x.shape[1]), (0.1, 30.0), nu=2.5)
            rough = ConstantKernel(0.01, (1e-4, 1e1)) * Matern(2.0, (0.3, 30.0), nu=1.5)
            start = smooth + rough + WhiteKernel(1e-3, (1e-5, 1e-1))
        else:
            start = self._kernel
        self._mean = float(np.mean(y))

        def optimizer(objective: Any, theta: Any, bounds: Any) -> tuple[Any, float]:
            # The last digits of the hyperparameters are not worth the hundreds of steps they take.
            found = minimize(objective, theta, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": FIT_STEPS})
            return found.x, float(found.fun)

        self._time = GaussianProcessRegressor(start, optimizer=optimizer if refit else None, random_state=self.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a length scale at its bound is an unused feature
            self._time.fit(x, y - self._mean)
        if refit:
            self._kernel, self._fitted = self._time.kernel_, len(y)

    def predict(self, features: Any) -> tuple[Any, Any, Any]:
        """Guess, for vectors like those of `fit` (a sequence or an array of them).

        Returns:
            Three float arrays: mean of the log time, its standard deviation, probability of success.
        """
        import numpy as np
        import sklearn
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1), sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
            return self._predict(np.asarray(features, dtype=float))

    def _predict(self, x: Any) -> tuple[Any, Any, Any]:
        import numpy as np

        if self.kind == "forest":
            each = np.stack([tree.predict(x) for tree in self._time.estimators_])
            mean, std = each.mean(0), each.std(0) + 1e-3
        else:
            mean, std = self._time.predict(x, return_std=True)
            mean = mean + self._mean
        works = np.ones(len(x)) if self._works is None else self._works.predict_proba(x)[:, 1]
        return mean + self._offset, std, works


def expected_improvement(mean: Any, std: Any, best: float) -> Any:
    """Expected improvement on `best`, for minimization (Jones, Schonlau, Welch, J. Global Optimization, 1998)."""
    import numpy as np
    from scipy.special import ndtr

    std = np.maximum(std, 1e-9)
    z = (best - mean) / std
    return (best - mean) * ndtr(z) + std * np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
