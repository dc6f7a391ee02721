"""One search from settings to outcome: which search, budget, workers and displays, and that all are closed at its end.

Not here: caches, and whether to search at all (`api.py`, which imports this file late).
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from .. import exc
from ..config import Config
from ..config_spec import ConfigSpec
from ..fragments import EnumFragment
from ..settings import Settings
from . import fork_server
from .accuracy import Tolerance
from .best_available import best_available
from .executor import Executor
from .executor import InProcessExecutor
from .log_file import TrialLog
from .measure import Effort
from .measure import device_of
from .named import load_named
from .phases import Phases
from .process_executor import ProcessExecutor
from .process_executor import default_compile_jobs
from .progress import progress_for
from .space import SearchSpace
from .strategy import FiniteStrategy
from .strategy import Strategy
from .study import SharedStudy
from .target import TuningTarget
from .travel import CannotTravel
from .tuner import EFFORTS
from .tuner import Budget
from .tuner import Observer
from .tuner import Tuner
from .tuner import TuningResult

log = logging.getLogger("helion.autotuner")

# Name -> where it is.  `autotune_search` names a row, or `module:Class` of one's own.
SEARCHES: dict[str, str] = {
    "ModelSearch": "helion.autotuner.model:ModelStrategy",
    "LFBOPatternSearch": "helion.autotuner.lfbo:LFBOPatternStrategy",
    "LFBOTreeSearch": "helion.autotuner.lfbo:LFBOTreeStrategy",
    "PatternSearch": "helion.autotuner.pattern:PatternStrategy",
    "DifferentialEvolutionSearch": "helion.autotuner.evolution:DifferentialEvolutionStrategy",
    "DESurrogateHybrid": "helion.autotuner.evolution:SurrogateEvolutionStrategy",
    "RandomSearch": "helion.autotuner.strategy:RandomStrategy",
    "FiniteSearch": "helion.autotuner.strategy:FiniteStrategy",
}
DEFAULT_SEARCH = "ModelSearch"

SHARE_OF_ONE = 0.003
"""Part of a budget of seconds in which one candidate is timed, where that is less than usual."""
LEAST_MS = 20.0
"""A candidate is timed for so long however small the budget."""

_said: set[str] = set()


def _say_once(key: str, text: str) -> None:
    if key not in _said:
        _said.add(key)
        log.warning("%s", text)


def run(
    target: TuningTarget,
    args: Sequence[Any],
    settings: Settings,
    effort: str,
    configs: Sequence[Config] | None,
    evaluations: int | None,
    isolate: bool,
) -> TuningResult:
    """Search with these settings, in worker processes where that can be; see `api.run_search`."""
    problem = target.isolation_problem() if isolate else None
    if isolate and problem is None:
        try:
            return _run(target, args, settings, effort, configs, evaluations, isolate=True)
        except CannotTravel as error:  # before anything was measured
            problem = error.message
    if problem is not None:
        _say_once(
            f"isolation/{target.kernel_name}",
            (
                f"kernel {target.kernel_name!r} is tuned in this process, without protection from candidates that "
                f"crash or hang: {problem}"
            ),
        )
    return _run(target, args, settings, effort, configs, evaluations, isolate=False)


def _run(
    target: TuningTarget,
    args: Sequence[Any],
    settings: Settings,
    effort: str,
    configs: Sequence[Config] | None,
    evaluations: int | None,
    isolate: bool,
) -> TuningResult:
    if isolate:
        fork_server.shared()  # imports from now on
    started, phases = time.monotonic(), Phases()
    spec = with_controls(target.config_spec, settings.autotune_search_acf)
    space = SearchSpace(spec, settings.autotune_config_overrides, settings.autotune_config_filter)
    study = None
    if settings.autotune_storage is not None:
        study = SharedStudy(settings.autotune_storage, target.cache_key(args).digest()[:32])
    searcher = _make_search(target, args, settings, space, configs)
    budget = _budget(settings, effort, evaluations, None if configs is None else len(configs))
    with phases.timed("saving arguments"):
        executor = _make_executor(settings, args, isolate, budget.evaluations)
    executor.phases = phases
    if budget.seconds is not None:
        most = executor.effort.total_ms
        executor.effort = Effort(total_ms=min(most, max(LEAST_MS, SHARE_OF_ONE * budget.seconds * 1e3)))
    observers: list[Observer] = []
    try:
        if settings.autotune_accuracy_check:
            default = space.spec.default_config()
            baseline = None if settings.autotune_baseline_fn is not None else target.recipe(default)
            executor.set_baseline(baseline, settings.autotune_baseline_fn)
        if 0 < settings.autotune_log_level <= logging.INFO:
            observers.append(progress_for(target.config_spec, settings.autotune_progress_bar))
        if settings.autotune_log is not None:
            details = settings.autotune_log_details and configs is None
            source = target.cache_key(args).source if details else ""
            observers.append(TrialLog(settings.autotune_log, details, source))
        ignore = settings.autotune_ignore_errors
        return Tuner(target, searcher, executor, budget, observers, ignore, study, started=started).run()
    finally:
        for observer in observers:
            if hasattr(observer, "close"):
                observer.close()
        executor.close()


def with_controls(spec: ConfigSpec, files: Sequence[str]) -> ConfigSpec:
    """A kernel's space of schedules with files of ptxas controls as one more tunable, where the kernel takes them."""
    key = "advanced_controls_file"
    if not files or key not in spec.accepted:
        return spec
    accepted = {name: fragment for name, fragment in spec.accepted.items() if name != key}
    choices = EnumFragment(list(dict.fromkeys(["", *files])))
    return dataclasses.replace(spec, fields={**spec.fields, key: choices}, accepted=accepted, _default=None)


def _budget(settings: Settings, effort: str, evaluations: int | None, finite: int | None) -> Budget:
    if effort not in EFFORTS:
        raise exc.InvalidAPIUsage(
            f"a search was asked for, and autotune_effort={effort!r} searches nothing",
            fix=f"ask for effort {' or '.join(map(repr, EFFORTS))}, or unset HELION_AUTOTUNE_EFFORT.",
        )
    budget = EFFORTS[effort]
    if finite is not None:
        budget = dataclasses.replace(budget, evaluations=finite, patience=None)
    changes: dict[str, Any] = {
        "seconds": settings.autotune_budget_seconds,
        "rounds": settings.autotune_max_generations,
        "evaluations": evaluations,
    }
    return dataclasses.replace(budget, **{k: v for k, v in changes.items() if v is not None})


def _make_search(
    target: TuningTarget, args: Sequence[Any], settings: Settings, space: SearchSpace, configs: Sequence[Config] | None
) -> Strategy:
    seed = settings.autotune_random_seed
    if configs is not None:
        return FiniteStrategy(space, configs, seed=seed)
    search = settings.autotune_search
    if search is None:
        search = DEFAULT_SEARCH
    cls: Callable[..., Strategy] = search if callable(search) else load_named(SEARCHES, str(search), "search")
    first = []
    for given in settings.autotune_seed_configs or ():
        config = given if isinstance(given, Config) else Config.from_dict(given)
        try:
            space.spec.normalize(config)
            first.append(config)
        except exc.InvalidConfig as error:
            log.warning("a seed config is left out: %s", error.message)
    if settings.autotune_initial_population_strategy == "from_best_available":
        most, scan = settings.autotune_best_available_max_configs, settings.autotune_best_available_max_cache_scan
        first += best_available(target, args, most, scan)
    return cls(space, seed=seed, first=first)


def _make_executor(settings: Settings, args: Sequence[Any], isolate: bool, candidates: int | None) -> Executor:
    tolerance = Tolerance(settings.autotune_baseline_atol, settings.autotune_baseline_rtol)
    timer = settings.autotune_benchmark_fn
    if not isolate:
        return InProcessExecutor(args, tolerance, timer)
    devices = None if settings.autotune_devices is None else list(_names(settings.autotune_devices))
    jobs = settings.autotune_precompile_jobs
    if jobs is None:
        jobs = default_compile_jobs(device_of(args))
        if candidates is not None:
            jobs = min(jobs, max(candidates, 1))
    return ProcessExecutor(
        args,
        devices=devices,
        tolerance=tolerance,
        timer=timer,
        compile_jobs=jobs if settings.autotune_precompile else 0,
        compile_timeout=settings.autotune_compile_timeout,
        run_timeout=settings.autotune_benchmark_timeout,
    )


def _names(value: Any) -> Iterator[str]:
    for part in value.split(",") if isinstance(value, str) else value:
        yield str(part).strip()
