"""Entry points: `autotune` searches, `config_for` decides what a first call does.

`config_for` is on the path of every first call, so it imports what reads caches; searches, workers and
displays are imported only when something is to be measured.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from .. import _compat_torch
from .. import exc
from ..config import Config
from ..runtime import compile_guard
from ..settings import Settings
from .cache import AutotuneCache
from .cache import Entry
from .cache import fits
from .cache import skip_cache

if TYPE_CHECKING:
    from .cache_key import CacheKey
    from .executor import Executor
    from .search import Search
    from .space import SearchSpace
    from .target import TuningTarget
    from .tuner import Budget
    from .tuner import TuningResult

log = logging.getLogger("helion.autotuner")

# Name -> where it is.  `autotune_cache` and `autotune_search` name a row, or `module:Class` of one's own.
CACHES: dict[str, str] = {
    "LocalAutotuneCache": "helion.autotuner.cache:LocalAutotuneCache",
    "StrictLocalAutotuneCache": "helion.autotuner.cache:StrictLocalAutotuneCache",
    "AOTAutotuneCache": "helion.autotuner.aot:AOTAutotuneCache",
    "RemoteAutotuneCache": "helion.autotuner.remote_cache:RemoteAutotuneCache",
}
SEARCHES: dict[str, str] = {
    "ModelSearch": "helion.autotuner.model:ModelSearch",
    "LFBOPatternSearch": "helion.autotuner.lfbo:LFBOPatternSearch",
    "PatternSearch": "helion.autotuner.pattern:PatternSearch",
    "DifferentialEvolutionSearch": "helion.autotuner.evolution:DifferentialEvolutionSearch",
    "RandomSearch": "helion.autotuner.search:RandomSearch",
    "FiniteSearch": "helion.autotuner.search:FiniteSearch",
}
DEFAULT_SEARCH = "ModelSearch"

_caches: dict[str, AutotuneCache] = {}
_said: set[str] = set()


def _say_once(key: str, text: str) -> None:
    if key not in _said:
        _said.add(key)
        log.warning("%s", text)


def _load(table: dict[str, str], name: str, what: str) -> Any:
    where = table.get(name, name)
    module, _, attribute = where.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise exc.InvalidAPIUsage(
            f"there is no {what} {name!r}: {error}", fix=f"valid are {', '.join(table)}, or module:Class of your own."
        ) from None


def cache_named(name: Any) -> AutotuneCache:
    """The cache a setting names.

    Args:
        name: a name of `CACHES`, `module:Class`, an AutotuneCache, or a class of one.

    Raises:
        exc.InvalidAPIUsage: there is no such cache.
    """
    if isinstance(name, AutotuneCache):
        return name
    if isinstance(name, type):
        made: AutotuneCache = name()
        return made
    if name not in _caches:
        _caches[name] = _load(CACHES, str(name), "autotune cache")()
    return _caches[name]


def _key(target: TuningTarget, args: Sequence[Any]) -> CacheKey:
    """What the tuned Config depends on.

    Raises:
        exc.AutotuningDisallowedInEnvironment: the device cannot be asked what it is.
    """
    from .measure import device_of

    if _compat_torch.cuda_in_bad_fork() and device_of(args).type == "cuda":
        raise exc.AutotuningDisallowedInEnvironment(
            kernel=target.kernel_name,
            reason="this process was forked from one that uses CUDA, and cannot use it itself; start "
            "it with the 'spawn' method "
            "(DataLoader(multiprocessing_context='spawn'))",
        )
    return target.cache_key(args)


def lookup(target: TuningTarget, args: Sequence[Any], cache: Any = None) -> Config | None:
    """The tuned Config for these arguments, if a cache has one that fits the kernel.

    Args:
        target: the kernel.
        args: arguments.
        cache: as `cache_named` takes it; default: the setting `autotune_cache`.

    Raises:
        exc.AutotuningDisallowedInEnvironment: the device cannot be asked what it is.
    """
    if skip_cache():
        return None
    entry = cache_named(cache or target.settings.autotune_cache).get(_key(target, args), args)
    return None if entry is None else fits(entry, target.config_spec)


def effort_for(target: TuningTarget, args: Sequence[Any]) -> str:
    """`none`, `quick` or `full`: the setting, else full on a GPU and none on CPU tensors."""
    from .measure import device_of

    effort: str | None = target.settings.autotune_effort
    if effort is not None:
        return effort
    return "full" if device_of(args).type == "cuda" else "none"


def config_for(target: TuningTarget, args: Sequence[Any], configs: Sequence[Config] = ()) -> Config | None:
    """The Config a first call of a specialization should use.

    One given Config is used as it is (unless `force_autotune`); several are measured.  Without one, the cache is
    asked, then the kernel is tuned on a GPU, or where an effort is asked for.

    Args:
        target: the kernel.
        args: arguments of the call.
        configs: the kernel's own `config=` or `configs=`.

    Returns:
        A Config with every key; None where nobody asked for more than the default Config.

    Raises:
        exc.NoConfigFound: every Config failed.
        exc.AutotuningDisallowedInEnvironment: tuning is needed and cannot happen here.
        exc.CompilationForbidden: tuning is needed inside `no_compile()`.
    """
    settings = target.settings
    if len(configs) == 1 and not settings.force_autotune:
        return target.config_spec.normalize(configs[0])
    effort = effort_for(target, args)
    if effort == "none" and not settings.force_autotune:
        if configs:
            return target.config_spec.normalize(configs[0])
        if settings.autotune_cache == "AOTAutotuneCache":
            # Configs that ship with a kernel are part of it: choosing among them is no tuning.
            shipped = lookup(target, args)
            if shipped is not None:
                return shipped
        return None
    if not settings.force_autotune:
        found = lookup(target, args)
        if found is not None and (not configs or found in [target.config_spec.normalize(c) for c in configs]):
            return found
    return autotune(target, args, force=settings.force_autotune, configs=configs if len(configs) > 1 else None)


def autotune(
    target: TuningTarget,
    args: Sequence[Any],
    *,
    force: bool = True,
    configs: Sequence[Config] | None = None,
    evaluations: int | None = None,
    isolate: bool = True,
    **options: Any,
) -> Config:
    """Search for the fastest Config, and keep it in the cache.

    Args:
        target: the kernel.
        args: arguments to measure with; they are not changed.
        force: search even if the cache has a Config.
        configs: measure only these.
        evaluations: most Configs to measure; default by effort.
        isolate: run candidates in a process of their own.
        **options: settings for this search, named without their `autotune_`: `effort="quick"`, `budget_seconds=60`,
            `search="PatternSearch"`, `devices=["cuda:0", "cuda:1"]`, `storage="tune.journal"`, ...

    Returns:
        The winner, with every key.

    Raises:
        exc.NoConfigFound: every Config failed.
        exc.AutotuningDisallowedInEnvironment: tuning cannot happen here.
        exc.AutotuneError: workers or the baseline do not run.
        exc.InvalidAPIUsage: an unknown option.
    """
    settings = with_options(target.settings, options)
    if _effort_of_search(settings, args) == "none":
        return target.config_spec.default_config()
    key = _key(target, args)
    store = cache_named(settings.autotune_cache)
    if not force:
        found = lookup(target, args, store)
        if found is not None:
            return found

    from .guard import check_environment

    check_environment(target.kernel_name, args)
    compile_guard.check(target.kernel_name, "autotune", key.specialization)
    with store.tuning(key):
        if not force:
            found = lookup(target, args, store)  # another process may have tuned it while this one waited
            if found is not None:
                return found
        result = run_search(target, args, configs=configs, evaluations=evaluations, isolate=isolate, **options)
        if result.time_ms is not None:  # what was not measured is no answer to keep
            note = f"{len(result.trials)} configs in {result.seconds:.0f} s; ended: {result.ended}"
            store.put(key, Entry(result.config, result.time_ms, note))
    return result.config


def with_options(settings: Settings, options: Mapping[str, Any]) -> Settings:
    """A copy of settings with some `autotune_*` ones replaced, named without the prefix.

    Raises:
        exc.InvalidAPIUsage: there is no such setting, or it does not take the value.
    """
    changes = {f"autotune_{name}": value for name, value in options.items()}
    return Settings(**{**dict(settings.items()), **changes}) if changes else settings


def _effort_of_search(settings: Settings, args: Sequence[Any]) -> str:
    """The effort of a search that was asked for: unless set, full on a GPU and quick on CPU tensors."""
    from .measure import device_of

    return settings.autotune_effort or ("full" if device_of(args).type == "cuda" else "quick")


def run_search(
    target: TuningTarget,
    args: Sequence[Any],
    *,
    configs: Sequence[Config] | None = None,
    evaluations: int | None = None,
    isolate: bool = True,
    **options: Any,
) -> TuningResult:
    """Like `autotune`, without caches and checks: the whole outcome.

    Raises:
        exc.InvalidAPIUsage: besides, where the effort is `none`.
    """
    from .travel import CannotTravel

    settings = with_options(target.settings, options)
    problem = target.isolation_problem() if isolate else None
    if isolate and problem is None:
        try:
            return _run_search(target, args, settings, configs, evaluations, isolate=True)
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
    return _run_search(target, args, settings, configs, evaluations, isolate=False)


def _run_search(
    target: TuningTarget,
    args: Sequence[Any],
    settings: Settings,
    configs: Sequence[Config] | None,
    evaluations: int | None,
    isolate: bool,
) -> TuningResult:
    from .log_file import TrialLog
    from .progress import progress_for
    from .space import SearchSpace
    from .tuner import Observer
    from .tuner import Tuner

    started = time.monotonic()
    space = SearchSpace(target.config_spec, settings.autotune_config_overrides, settings.autotune_config_filter)
    study = None
    if settings.autotune_storage is not None:
        from .study import SharedStudy

        study = SharedStudy(settings.autotune_storage, target.cache_key(args).digest()[:32])
    searcher = _make_search(settings, space, configs)
    budget = _budget(
        settings, _effort_of_search(settings, args), evaluations, None if configs is None else len(configs)
    )
    executor = _make_executor(settings, args, isolate, budget.evaluations)
    observers: list[Observer] = []
    try:
        if settings.autotune_accuracy_check:
            default = space.spec.default_config()
            baseline = None if settings.autotune_baseline_fn is not None else target.recipe(default)
            executor.set_baseline(baseline, settings.autotune_baseline_fn)
        if settings.autotune_log_level in ("debug", "info"):
            observers.append(progress_for(target.config_spec, settings.autotune_progress_bar))
        if settings.autotune_log is not None:
            observers.append(TrialLog(settings.autotune_log))
        ignore = settings.autotune_ignore_errors
        return Tuner(target, searcher, executor, budget, observers, ignore, study, started=started).run()
    finally:
        for observer in observers:
            if hasattr(observer, "close"):
                observer.close()
        executor.close()


def _budget(settings: Settings, effort: str, evaluations: int | None, finite: int | None) -> Budget:
    import dataclasses

    from .tuner import EFFORTS

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


def _make_search(settings: Settings, space: SearchSpace, configs: Sequence[Config] | None) -> Search:
    seed = settings.autotune_random_seed
    if configs is not None:
        from .search import FiniteSearch

        return FiniteSearch(space, configs, seed=seed)
    search = settings.autotune_search
    if search is None:
        search = DEFAULT_SEARCH
    cls: Callable[..., Search] = search if callable(search) else _load(SEARCHES, str(search), "search")
    first = [c if isinstance(c, Config) else Config.from_dict(c) for c in settings.autotune_seed_configs or ()]
    for config in first:
        space.spec.normalize(config)
    return cls(space, seed=seed, first=first)


def _make_executor(settings: Settings, args: Sequence[Any], isolate: bool, candidates: int | None) -> Executor:
    from .accuracy import Tolerance
    from .executor import InProcessExecutor
    from .executor import ProcessExecutor
    from .executor import default_compile_jobs
    from .measure import device_of

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
