"""Choosing the winner among the fastest Configs, given that every time is noisy.

The fastest of many noisy measurements is mostly the luckiest one.  So the leaders are measured again, one after the
other in rounds (a slow drift of the clock rate then hits all of them alike), the clearly slower ones are dropped
after every round, and among those that cannot be told apart the one nearest to the default wins.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from collections.abc import Sequence

from ..config import Config
from .space import SearchSpace
from .trial import Trial

LEADERS = 8
"""Configs measured again."""
ROUNDS = 7
"""Times each leader is measured again at most."""
DEFAULT_MARGIN = 0.03
"""The default wins unless another is faster by more: the same kernel differs by as much, and more, from process to
process (where its tensors are in memory: one that won by 2.1% was 4.5% slower in the next), and nothing that wins shall
be slower than the default there."""
ENOUGH_ROUNDS = 3
"""Rounds after which the scatter of the ratios is known."""
MARGIN = 0.10
"""Leaders are within this ratio of the best, at least; more with noisier times."""


def leaders(trials: Sequence[Trial], limit: int = LEADERS) -> list[Trial]:
    """The successful trials that may truly be the fastest, best first."""
    ok = sorted((t for t in trials if t.ok), key=lambda t: t.time_ms)
    if not ok:
        return []
    margin = max(MARGIN, 3 * ok[0].spread)
    return [t for t in ok[:limit] if t.time_ms <= ok[0].time_ms * (1 + margin)]


def _standard_error(log_ratios: Sequence[float]) -> float:
    """Of the mean, from the median absolute deviation: one interrupted round must not widen it."""
    middle = statistics.median(log_ratios)
    mad = statistics.median(abs(r - middle) for r in log_ratios)
    return 1.4826 * mad / math.sqrt(len(log_ratios))


def clearly_slower(mine: Sequence[float], best: Sequence[float]) -> bool:
    """Whether paired times are slower than the best's by more than two standard errors of the log ratio."""
    ratios = [math.log(a / b) for a, b in zip(mine, best)]
    # One or two rounds, where there was no time for more, say nothing of how much they scatter.
    least = 0.002 if len(ratios) >= ENOUGH_ROUNDS else 0.01
    return statistics.median(ratios) > 2 * max(_standard_error(ratios), least)


def choose(
    candidates: Sequence[Trial],
    measure: Callable[[Config], float | None],
    space: SearchSpace,
    rounds: int = ROUNDS,
    has_time: Callable[[], bool] = lambda: True,
) -> tuple[Config, float, dict[Config, list[float]]]:
    """Measure the leaders in interleaved rounds and pick the winner.

    Args:
        candidates: leaders, at least one.
        measure: Config -> milliseconds now, or None if it failed now (it is then out).
        space: for the distance to the default.
        rounds: how often each is measured.
        has_time: whether there is time for a round after the first.

    Returns:
        The winner, its median time in milliseconds, and every time measured.  If all fail now, the best by its
        first measurement.
    """
    times: dict[Config, list[float]] = {t.config: [] for t in candidates}
    alive = list(times)
    for done in range(1, rounds + 1):
        if (len(alive) < 2 and times[alive[0]]) or (done > 1 and not has_time()):
            break
        # Turn the order around every other round: whoever comes first always meets the same neighbour else.
        for config in list(alive if done % 2 else reversed(alive)):
            ms = measure(config)
            if ms is None:
                alive.remove(config)
            else:
                times[config].append(ms)
        if not alive:
            first = candidates[0]
            return first.config, first.time_ms, times
        if done >= ENOUGH_ROUNDS:
            best = min(alive, key=lambda c: statistics.median(times[c]))
            alive = [c for c in alive if c == best or not clearly_slower(times[c], times[best])]
    best = min(alive, key=lambda c: statistics.median(times[c]))
    default = space.default()
    known = times.get(default, []) if default is not None else []
    if default is not None and known:
        if statistics.median(known) <= (1 + DEFAULT_MARGIN) * statistics.median(times[best]):
            return default, statistics.median(known), times
    ties = [c for c in alive if c == best or not clearly_slower(times[c], times[best])]
    winner = min(ties, key=lambda c: (_distance(space, c), statistics.median(times[c])))
    return winner, statistics.median(times[winner]), times


def _distance(space: SearchSpace, config: Config) -> int:
    """In how many tunables a Config differs from the default."""
    default = space.spec.default_config()
    a, b = space.point(space.spec.normalize(config)), space.point(default)
    return sum(x != y for x, y in zip(a, b))
