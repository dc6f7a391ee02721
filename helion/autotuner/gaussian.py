"""A Gaussian process over points of a search space, in which every tunable has a share of its own.

The covariance of two points is a product over the tunables,

    k(x, y) = s^2 * prod_d (1 - a_d * (1 - c_d(x_d, y_d))),     0 < a_d < 1,

where c_d is 1 for equal values and falls with the distance of ordered ones (Matern, nu = 3/2).  Multiplied out, it is a
sum over all sets of tunables: constant, main effects, pairs, ... (the ANOVA decomposition; Durrande et al., "ANOVA
kernels and RKHS of zero mean functions for model-based sensitivity analysis", 2013).  The times of a kernel are like
that: on a log scale most tunables add a few percent whatever the others are, and few interact strongly.  A few dozen
    trials then tell the main effects of all
tunables at once, which no kernel that goes by distance alone does.  The shares a_d are fitted by marginal likelihood.

Written with torch, which is there anyway; the problems are small (a few hundred trials).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from collections.abc import Sequence

import torch

FIT_STEPS = 20
"""Steps of the optimization of the hyperparameters."""
REFIT = 1.2
"""They are fitted again when there are so many times the trials: that costs more than everything else here."""
_LEVELS = 64
_DTYPE = torch.float64


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch with one thread: the other cores compile candidates, and threads that wait for each other there take ten
    times as long.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class LevelProcess:
    """Regression on integer levels.

    Args:
        lengths: for each column the distance over which it stays correlated; `inf` for a column without an order.
        noise: of an observation, a guess of the variance.
    """

    def __init__(self, lengths: Sequence[float], noise: float = 1e-3) -> None:
        distance = torch.arange(_LEVELS, dtype=_DTYPE)
        rows = []
        for length in lengths:
            r = distance * (math.sqrt(3) / length)
            rows.append((distance == 0).to(_DTYPE) if math.isinf(length) else (1 + r) * torch.exp(-r))
        # Column -> how much two levels differ, by their distance: 1 - c_d.
        self._apart = 1 - torch.stack(rows)
        self._columns = torch.arange(len(rows))
        # Logarithms of s^2 and the noise, then the logits of the shares; with what is expected of them.
        self._expected = torch.tensor([0.0, math.log(noise), *(-2.0 for _ in rows)], dtype=_DTYPE)
        self._width = torch.tensor([2.0, 1.5, *(3.0 for _ in rows)], dtype=_DTYPE)
        self._theta = self._expected.clone()
        self._fitted = 0

    @property
    def shares(self) -> list[float]:
        """a_d of each column: how much depends on it."""
        return torch.sigmoid(self._theta[2:]).tolist()

    def _differences(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """[rows of a, rows of b, columns]."""
        distance = (a[:, None, :] - b[None, :, :]).abs().clamp_(max=_LEVELS - 1)
        return self._apart[self._columns, distance]

    @staticmethod
    def _covariance(theta: torch.Tensor, differences: torch.Tensor) -> torch.Tensor:
        return torch.exp(theta[0] + torch.log1p(-torch.sigmoid(theta[2:]) * differences).sum(-1))

    def _noisy(self, theta: torch.Tensor, differences: torch.Tensor) -> torch.Tensor:
        return self._covariance(theta, differences) + (torch.exp(theta[1]) + 1e-5) * torch.eye(
            len(differences), dtype=_DTYPE
        )

    def fit(self, levels: Sequence[Sequence[int]], values: Sequence[float]) -> None:
        """Learn.

        Args:
            levels: one row for each observation.
            values: what was observed.
        """
        self._levels = torch.tensor(levels)
        y = torch.tensor(values, dtype=_DTYPE)
        self._mean = float(y.mean())
        y = y - self._mean
        differences = self._differences(self._levels, self._levels)
        if len(y) >= REFIT * self._fitted:
            self._fit_hyperparameters(differences, y)
            self._fitted = len(y)
        self._root = torch.linalg.cholesky(self._noisy(self._theta, differences))
        self._weights = torch.cholesky_solve(y[:, None], self._root)[:, 0]

    def _fit_hyperparameters(self, differences: torch.Tensor, y: torch.Tensor) -> None:
        """The most probable ones (Rasmussen and Williams, "Gaussian Processes for Machine Learning", equation 5.8)."""
        theta = self._theta.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([theta], max_iter=FIT_STEPS, line_search_fn="strong_wolfe", tolerance_change=1e-4)

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            root = torch.linalg.cholesky(self._noisy(theta, differences))
            weights = torch.cholesky_solve(y[:, None], root)[:, 0]
            fit = 0.5 * y @ weights + root.diagonal().log().sum()
            value: torch.Tensor = fit + 0.5 * (((theta - self._expected) / self._width) ** 2).sum()
            value.backward()
            return value

        with torch.enable_grad():
            try:
                optimizer.step(loss)
            except RuntimeError as error:
                if "linalg" not in str(error):
                    raise
                return  # a step went where the matrix is singular: keep what there was
        if bool(torch.isfinite(theta).all()):
            self._theta = theta.detach()

    def predict(self, levels: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of the underlying value at each row."""
        covariance = self._covariance(self._theta, self._differences(torch.tensor(levels), self._levels))
        solved = torch.linalg.solve_triangular(self._root, covariance.T, upper=False)
        variance = torch.exp(self._theta[0]) - (solved * solved).sum(0)
        return covariance @ self._weights + self._mean, variance.clamp(min=1e-12).sqrt()
