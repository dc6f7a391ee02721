"""One Config for several calls of a kernel: `Kernel.autotune_multi`.

Each call is searched for by itself; then the winners and the default Configs are measured on all of them, and the one
that is best over all is used by each.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from .. import exc
from ..config import Config
from .api import OPTIONS
from .api import cache_named
from .api import check_possible
from .api import run_search
from .api import with_options
from .bound import BoundTarget
from .cache import Entry
from .cache import fits
from .cache import skip_cache
from .cache_key import CacheKey
from .measure import Effort
from .measure import device_of
from .measure import time_call

#: How one number is made of the times of all calls.
AGGREGATIONS: dict[str, Callable[[Sequence[float]], float]] = {"geomean": statistics.geometric_mean, "max": max}
#: What times are divided by.
RELATIVE_TO = (None, "default", "baseline")


@dataclasses.dataclass(frozen=True)
class Goal:
    """What `autotune_multi` looks for.

    Attributes:
        aggregation: a key of `AGGREGATIONS`.
        relative_to: one of `RELATIVE_TO`.
        cache_tag: keeps what was found apart from what other tags have found.
    """

    aggregation: str = "geomean"
    relative_to: str | None = None
    cache_tag: str | None = None

    def check(self, kernel: Any, arg_sets: Sequence[Sequence[Any]], options: Mapping[str, Any]) -> None:
        """Refuse what cannot be meant, before anything is bound.

        Raises:
            exc.InvalidAPIUsage: says what is allowed.
        """
        what = f"{kernel.name}.autotune_multi"
        if (
            not isinstance(arg_sets, Sequence)
            or not arg_sets
            or not all(isinstance(a, (tuple, list)) for a in arg_sets)
        ):
            raise exc.InvalidAPIUsage(
                f"{what} needs the arguments of at least one call", fix="pass a list of tuples: [(x, y), (x2, y2)]."
            )
        for name, value, allowed in (
            ("aggregation", self.aggregation, tuple(AGGREGATIONS)),
            ("relative_to", self.relative_to, RELATIVE_TO),
        ):
            if value not in allowed:
                raise exc.InvalidAPIUsage(
                    f"{what}: {name}={value!r}", fix=f"use one of {', '.join(map(repr, allowed))}."
                )
        if self.cache_tag is not None and not isinstance(self.cache_tag, str):
            raise exc.InvalidAPIUsage(f"{what}: cache_tag={self.cache_tag!r}", fix="pass a string.")
        unknown = [name for name in options if f"autotune_{name}" not in OPTIONS]
        if unknown:
            raise exc.InvalidAPIUsage(
                f"{what}: unknown option {unknown[0]!r}", fix="options are settings without their `autotune_`."
            )
        settings = with_options(kernel.settings, {n: v for n, v in options.items() if n not in _OWN})
        if self.relative_to == "baseline" and settings.autotune_baseline_fn is None:
            raise exc.InvalidAPIUsage(
                f"{what}: relative_to='baseline' without a baseline", fix="set autotune_baseline_fn to a function."
            )


#: Options that are no settings.
_OWN = frozenset({"configs", "evaluations", "isolate"})


def autotune_multi(
    kernel: Any, arg_sets: Sequence[Sequence[Any]], options: Mapping[str, Any], *, force: bool, **goal_fields: Any
) -> Config:
    """See `Kernel.autotune_multi`."""
    goal = Goal(**goal_fields)
    goal.check(kernel, arg_sets, options)
    calls = [kernel.normalize_args(*args) for args in arg_sets]
    targets = [BoundTarget(kernel.variant(args)) for args in calls]
    settings = with_options(kernel.settings, {n: v for n, v in options.items() if n not in _OWN})
    store = cache_named(settings.autotune_cache)
    key = _key(targets, calls, goal)
    config = None
    if not force and not skip_cache() and (entry := store.get(key, calls[0])) is not None:
        config = fits(entry, targets[0].config_spec)
    if config is None:
        for target, args in zip(targets, calls):
            check_possible(target, args)
        config, score = _search(targets, calls, goal, options)
        store.put(key, Entry(config, None, f"{goal.aggregation} of {len(calls)} calls: {score:.4g}"))
    for args in calls:
        kernel.variant(args).set_config(config)
    return config


def _key(targets: Sequence[BoundTarget], calls: Sequence[Sequence[Any]], goal: Goal) -> CacheKey:
    keys = [target.cache_key(args) for target, args in zip(targets, calls)]
    parts = ("multi", *dataclasses.astuple(goal), *(key.specialization for key in keys))
    return dataclasses.replace(keys[0], specialization=parts)


def _search(
    targets: Sequence[BoundTarget], calls: Sequence[Sequence[Any]], goal: Goal, options: Mapping[str, Any]
) -> tuple[Config, float]:
    """The best of the winners of each call, and what it has achieved."""
    found = [run_search(target, args, **options).config for target, args in zip(targets, calls)]
    defaults = [target.config_spec.default_config() for target in targets]
    spec = targets[0].config_spec
    candidates = [c for c in dict.fromkeys([*found, *defaults]) if all(t.config_spec.is_valid(c) for t in targets)]
    again = {name: value for name, value in options.items() if name not in ("configs", "evaluations")}
    times: list[dict[Config, float]] = []
    for target, args, default in zip(targets, calls, defaults):
        normal = target.config_spec.normalize
        measured = run_search(target, args, configs=[*candidates, default], **{**again, "best_of_k": 1})
        known = {trial.config: trial.time_ms for trial in measured.trials}
        unit = _unit(target, args, goal, known.get(normal(default), math.nan), options)
        times.append({c: known.get(normal(c), math.inf) / unit for c in candidates})
    aggregate = AGGREGATIONS[goal.aggregation]
    scores = {
        c: aggregate([row[c] for row in times])
        for c in candidates
        if all(map(math.isfinite, (row[c] for row in times)))
    }
    if not scores:
        raise exc.NoConfigFound(kernel=targets[0].kernel_name, reason="no config works for all arguments")
    best = min(scores, key=scores.__getitem__)
    return spec.normalize(best), scores[best]


def _unit(target: BoundTarget, args: Sequence[Any], goal: Goal, default: float, options: Mapping[str, Any]) -> float:
    """What the times of a call are divided by, in milliseconds."""
    if goal.relative_to is None:
        return 1.0
    if goal.relative_to == "default":
        if not math.isfinite(default):
            why = "was not measured within autotune_budget_seconds" if math.isnan(default) else "failed"
            raise exc.NoConfigFound(kernel=target.kernel_name, reason=f"the default config {why}")
        return default
    settings = with_options(target.settings, {n: v for n, v in options.items() if n not in _OWN})
    baseline = settings.autotune_baseline_fn
    assert baseline is not None
    baseline(*args)
    return time_call(lambda: baseline(*args), device_of(args), Effort()).median
