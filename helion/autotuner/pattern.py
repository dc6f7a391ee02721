"""PatternSearch: walk downhill over neighbours, from the best of a few random starts.

The method of Hooke and Jeeves ("Direct search solution of numerical and statistical problems", JACM 1961) on a
grid: explore every axis around a base point, then jump on in the direction that helped (the pattern move).
"""

from __future__ import annotations

import math
from collections.abc import Generator
from collections.abc import Iterable

from ..config import Config
from .space import Point
from .space import SearchSpace
from .strategy import GenerationalStrategy
from .trial import Trial


def _clamped(space: SearchSpace, point: list[int]) -> Point:
    return tuple(min(max(i, 0), len(d.values) - 1) for i, d in zip(point, space.dimensions))


class PatternStrategy(GenerationalStrategy):
    """Hooke-Jeeves pattern search with restarts.

    Args:
        space: where to search.
        seed: of the random starts.
        first: Configs to try first.
        starts: random Configs measured before the first walk; walks begin at the best of them in turn.
        min_gain: a move must be faster by this ratio, so that noise does not keep a walk going.
        walks: how many of the best random Configs walks begin at, before there are new ones; default an eighth of them.
        generations_limit: rounds of walking before the search ends; None: no limit of its own.
        neighbors_cap: most neighbours measured around one base point; -1: all of them.
        finishing: rounds at the end in which every tunable of the best is tried with its default value.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        first: Iterable[Config] = (),
        starts: int = 24,
        min_gain: float = 0.005,
        walks: int | None = None,
        generations_limit: int | None = None,
        neighbors_cap: int = -1,
        finishing: int = 0,
    ) -> None:
        self.starts = starts
        self.min_gain = min_gain
        self.walks = max(starts // 8, 1) if walks is None else walks
        self.generations_limit = generations_limit
        self.neighbors_cap = neighbors_cap
        self.finishing = finishing
        self._walked_rounds = 0
        self._walked: set[Config] = set()
        super().__init__(space, seed=seed, first=first)

    def generations(self) -> Generator[list[Config], list[Trial], None]:
        while not self._limit_reached():
            fresh = self._new_random(self.starts)
            yield fresh
            walked = False
            for trial in self.ranked()[: self.walks]:
                if trial.config not in self._walked:
                    walked = True
                    yield from self._walk(trial)
            if not fresh and not walked:
                break
        for _ in range(self.finishing):
            yield self._nearer_to_default()

    def _limit_reached(self) -> bool:
        return self.generations_limit is not None and self._walked_rounds >= self.generations_limit

    def _nearer_to_default(self) -> list[Config]:
        """The best Config with one tunable after the other at its default: a winner without needless values."""
        if self.best is None:
            return []
        point = self.space.point(self.best.config)
        default = self.space.point(self.space.spec.default_config())
        moved = ((*point[:i], default[i], *point[i + 1 :]) for i in range(len(point)) if point[i] != default[i])
        return [c for c in (self.space.config(p) for p in moved) if c is not None]

    def _walk(self, base: Trial) -> Generator[list[Config], list[Trial], None]:
        """Downhill from `base` until no neighbour is faster."""
        space = self.space
        while base.config not in self._walked and not self._limit_reached():
            self._walked.add(base.config)
            self._walked_rounds += 1
            around = yield self.choose(self._capped(space.neighbors(base.config)), base)
            gains = {t.config: t for t in around if t.time_ms < base.time_ms * (1 - self.min_gain)}
            if not gains:
                return
            best = min(gains.values(), key=lambda t: t.time_ms)
            jumps = self._pattern_moves(base, list(gains.values()))
            if jumps:
                best = min([best, *(yield jumps)], key=lambda t: t.time_ms)
            base = best

    def _capped(self, candidates: list[Config]) -> list[Config]:
        if 0 <= self.neighbors_cap < len(candidates):
            return self.rng.sample(candidates, self.neighbors_cap)
        return candidates

    def choose(self, candidates: list[Config], base: Trial) -> list[Config]:
        """Which neighbours of `base` to measure: all of them."""
        return candidates

    def _pattern_moves(self, base: Trial, gains: list[Trial]) -> list[Config]:
        """The steps that helped taken together, and twice as far."""
        space = self.space
        origin = space.point(base.config)
        best_step: dict[int, tuple[float, int]] = {}
        for trial in gains:
            for axis, (old, new) in enumerate(zip(origin, space.point(trial.config))):
                if old != new:
                    best_step[axis] = min(best_step.get(axis, (math.inf, 0)), (trial.time_ms, new - old))
        order = sorted(best_step, key=lambda axis: best_step[axis][0])
        moves = []
        for axes in {tuple(order[:2]), tuple(order[:4]), tuple(order)}:
            for scale in (1, 2):
                moved = list(origin)
                for axis in axes:
                    # Twice as far has no meaning on an axis without an order.
                    moved[axis] += best_step[axis][1] * (scale if space.dimensions[axis].ordered else 1)
                moves.append(_clamped(space, moved))
        configs = (space.config(p) for p in dict.fromkeys(sorted(moves)))
        return [c for c in configs if c is not None and c != base.config]
