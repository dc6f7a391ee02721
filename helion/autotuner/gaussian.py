"""A Gaussian process over points of a search space, in which every tunable has a share of its own.

The covariance of two points is a product over the tunables,

    k(x, y) = s^2 * prod_d (1 - a_d * (1 - c_d(x_d, y_d))),     0 < a_d < 1,

where c_d is 1 for equal values and falls with the distance of ordered ones (Matern, nu = 3/2).  Multiplied out, it is a
sum over all sets of tunables: constant, main effects, pairs, ... (the ANOVA decomposition; Durrande et al., "ANOVA
kernels and RKHS of zero mean functions for model-based sensitivity analysis", 2013).  The times of a kernel are like
that: on a log scale most tunables add a few percent whatever the others are, and few interact strongly.  A few dozen
trials then tell the main effects of all tunables at once, which no kernel that goes by distance alone does.  The shares
a_d are fitted by marginal likelihood.

Written with torch, which is there anyway; the problems are small (a few hundred trials), and a search has a tenth of
its time for them: logarithms are taken of a table of levels and not of every pair of points, and gradients by hand.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from collections.abc import Sequence

import torch

from .._locks import new_lock

FIT_STEPS = 20
"""Steps of the optimization of the hyperparameters."""
REFIT = 1.2
"""They are fitted again when there are so many times the trials: that costs more than everything else here."""
_LEVELS = 64
_JITTER = 1e-5
"""Variance that is always added: the covariance of points that are alike has no root in floating point."""
_DTYPE = torch.float64


_thinking = new_lock()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch with one thread: the other cores compile candidates, and threads that wait for each other there take ten
    times as long.

    The number belongs to the process: of searches in several threads one thinks at a time, or the last to end would
    leave the program with the one thread that it found.
    """
    with _thinking:
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
        # Logarithms of s^2 and the noise, then the logits of the shares; with what is expected of them.
        self._expected = torch.tensor([0.0, math.log(noise), *(-2.0 for _ in rows)], dtype=_DTYPE)
        self._width = torch.tensor([2.0, 1.5, *(3.0 for _ in rows)], dtype=_DTYPE)
        self._theta = self._expected.clone()
        self._fitted = 0

    @property
    def shares(self) -> list[float]:
        """a_d of each column: how much depends on it."""
        return torch.sigmoid(self._theta[2:]).tolist()

    def _logs(self, theta: torch.Tensor) -> torch.Tensor:
        """The logarithm of each column's factor, by the distance of two levels: [columns, distances]."""
        return torch.log1p(-torch.sigmoid(theta[2:])[:, None] * self._apart)

    def fit(self, levels: Sequence[Sequence[int]] | torch.Tensor, values: Sequence[float]) -> None:
        """Learn.

        Args:
            levels: one row for each observation.
            values: what was observed.
        """
        self._levels = torch.as_tensor(levels)
        y = torch.tensor(values, dtype=_DTYPE)
        self._mean = float(y.mean())
        y = y - self._mean
        if len(y) >= REFIT * self._fitted:
            self._theta = _Likelihood(self, y).most_probable()
            self._fitted = len(y)
        covariance = self._covariance(self._levels)
        covariance.diagonal().add_(float(torch.exp(self._theta[1])) + _JITTER)
        self._root = torch.linalg.cholesky(covariance)
        self._weights = torch.cholesky_solve(y[:, None], self._root)[:, 0]

    def _covariance(self, levels: torch.Tensor) -> torch.Tensor:
        """Of points with the observed ones: [points, observations]."""
        both = torch.cat([levels, self._levels])
        low, high = both.amin(0), both.amax(0)
        counts = high - low + 1
        first = counts.cumsum(0) - counts
        # Every level of every column that there is, against the observed levels of that column; a point's covariances
        # are then the sum of one row for each column.
        column = torch.repeat_interleave(torch.arange(len(counts)), counts)
        level = torch.arange(len(column)) - first[column] + low[column]
        distance = (level[:, None] - self._levels.T[column]).abs_().clamp_(max=_LEVELS - 1)
        table = self._logs(self._theta)[column[:, None], distance]
        return torch.nn.functional.embedding_bag(levels - low + first, table, mode="sum").add_(self._theta[0]).exp_()

    def predict(self, levels: Sequence[Sequence[int]] | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of the underlying value at each row."""
        covariance = self._covariance(torch.as_tensor(levels))
        solved = torch.linalg.solve_triangular(self._root, covariance.T, upper=False)
        variance = torch.exp(self._theta[0]) - (solved * solved).sum(0)
        return covariance @ self._weights + self._mean, variance.clamp(min=1e-12).sqrt()


class _Likelihood:
    """How probable hyperparameters are (Rasmussen and Williams, "Gaussian Processes for Machine Learning", equations
    5.8 and 5.9).

    Args:
        process: what they are of.
        y: observations at its levels, less their mean.
    """

    def __init__(self, process: LevelProcess, y: torch.Tensor) -> None:
        self.process, self.y = process, y
        levels = process._levels
        self.rows, self.columns = torch.tril_indices(len(y), len(y), -1)
        distance = (levels[self.rows] - levels[self.columns]).abs_().clamp_(max=_LEVELS - 1)
        # Pair and column -> place in a table of columns and distances.
        self.places = distance + torch.arange(levels.shape[1]) * _LEVELS

    def most_probable(self) -> torch.Tensor:
        """The hyperparameters; those that the process has where none better are found."""
        theta = self.process._theta.clone()
        optimizer = torch.optim.LBFGS([theta], max_iter=FIT_STEPS, line_search_fn="strong_wolfe", tolerance_change=1e-4)

        def loss() -> torch.Tensor:
            value, theta.grad = self.value_and_gradient(theta)
            return value

        try:
            optimizer.step(loss)
        except RuntimeError as error:
            if "linalg" not in str(error):
                raise
            return self.process._theta  # a step went where the matrix is singular
        return theta if bool(torch.isfinite(theta).all()) else self.process._theta

    def value_and_gradient(self, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The negative logarithm of the probability, and what it changes by with each hyperparameter."""
        process, y = self.process, self.y
        scale, noise = torch.exp(theta[0]), torch.exp(theta[1])
        logs = process._logs(theta)
        pairs = scale * torch.exp(logs.view(-1)[self.places].sum(1))
        matrix = torch.diag((scale + noise + _JITTER).expand(len(y)))
        matrix[self.rows, self.columns] = pairs
        root = torch.linalg.cholesky(matrix)  # reads the lower triangle
        inverse = torch.cholesky_inverse(root)
        weights = inverse @ y
        expected = (theta - process._expected) / process._width
        value = 0.5 * y @ weights + root.diagonal().log().sum() + 0.5 * (expected * expected).sum()

        by_entry = 0.5 * (inverse - weights[:, None] * weights)
        by_pair = 2 * by_entry[self.rows, self.columns] * pairs
        diagonal = by_entry.diagonal().sum()
        by_place = torch.bincount(
            self.places.view(-1), by_pair[:, None].expand(self.places.shape).reshape(-1), minlength=logs.numel()
        ).view(logs.shape)
        # Of log(1 - a * apart) by the logit of a: -a * (1 - a) * apart / (1 - a * apart).
        share = torch.sigmoid(theta[2:])
        slope = -(share * (1 - share))[:, None] * process._apart * torch.exp(-logs)
        by_share = (by_place * slope).sum(1)
        gradient = torch.cat([(diagonal * scale + by_pair.sum())[None], (diagonal * noise)[None], by_share])
        return value, gradient + expected / process._width
