"""Entry points: `autotune` searches, `config_for` decides what a first call does.

`config_for` is on the path of every first call, so this file imports what reads caches; `session.py`, which measures,
is imported when something is to be measured.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from .. import _compat_torch
from .. import exc
from .._environment import is_set
from ..config import Config
from ..runtime import compile_guard
from ..settings import DEFAULT_AUTOTUNER
from ..settings import TABLE
from ..settings import Settings
from . import fork_server
from .cache import AutotuneCache
from .cache import Entry
from .cache import LocalAutotuneCache
from .cache import fits
from .cache import skip_cache
from .guard import DISALLOW_VARIABLE
from .guard import check_environment
from .measure import device_of
from .named import load_named
from .space import filtered
from .worker import MARK

if TYPE_CHECKING:
    from .cache_key import CacheKey
    from .target import TuningTarget
    from .tuner import TuningResult

# Name -> where it is.  `autotune_cache` names a row, or `module:Class` of one's own.
CACHES: dict[str, str] = {
    "LocalAutotuneCache": "helion.autotuner.cache:LocalAutotuneCache",
    "StrictLocalAutotuneCache": "helion.autotuner.cache:StrictLocalAutotuneCache",
    "AOTAutotuneCache": "helion.autotuner.aot.cache:AOTAutotuneCache",
    "RemoteAutotuneCache": "helion.autotuner.remote_cache:RemoteAutotuneCache",
}
# What `run_search` takes: its own parameters, and the settings.
OPTIONS = {row.name for row in TABLE} | {"autotune_configs", "autotune_evaluations", "autotune_isolate"}

_caches: dict[str, AutotuneCache] = {}


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
        _caches[name] = load_named(CACHES, str(name), "autotune cache")()
    return _caches[name]


def _key(target: TuningTarget, args: Sequence[Any]) -> CacheKey:
    """What the tuned Config depends on.

    Raises:
        exc.AutotuningDisallowedInEnvironment: the device cannot be asked what it is.
    """
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
    return _effort_of_call(target.settings, args)


def _effort_of_call(settings: Settings, args: Sequence[Any]) -> str:
    return settings.autotune_effort or ("full" if device_of(args).type == "cuda" else "none")


#: What `choose` says of a Config that it searched for, that came from the kernel, or from nobody.
TUNED_NOW = "tuned at this first call"
GIVEN = "the kernel's own config="
FIRST_GIVEN = "the first of configs= that autotune_config_filter allows, as nothing is tuned"
COMPUTED = "computed: none was given, and nothing is tuned (autotune_effort is none)"
#: What it begins with for one that a cache of an earlier tuning has.
FROM_CACHE = "an earlier tuning"


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
    return choose(target, args, configs)[0]


def choose(target: TuningTarget, args: Sequence[Any], configs: Sequence[Config] = ()) -> tuple[Config | None, str]:
    """`config_for`, with where the Config comes from, in words."""
    settings = target.settings
    if len(configs) == 1 and not settings.force_autotune:
        return target.config_spec.normalize(configs[0]), GIVEN
    effort = effort_for(target, args)
    if effort == "none" and not settings.force_autotune:
        if configs:
            return _first_allowed(target, configs), FIRST_GIVEN
        if settings.autotune_cache == "AOTAutotuneCache":
            # Configs that ship with a kernel are part of it: choosing among them is no tuning.
            shipped = lookup(target, args)
            if shipped is not None:
                return shipped, "the file of Configs that ships with the kernel"
        return None, COMPUTED
    if not settings.force_autotune:
        found = lookup(target, args)
        if found is not None and (not configs or found in [target.config_spec.normalize(c) for c in configs]):
            return found, f"{FROM_CACHE}, from the cache ({settings.autotune_cache})"
    tuned = autotune(target, args, force=settings.force_autotune, configs=configs if len(configs) > 1 else None)
    return tuned, TUNED_NOW


def _first_allowed(target: TuningTarget, configs: Sequence[Config]) -> Config:
    """The first of several Configs, where no search asks the filter.

    Raises:
        exc.NoConfigFound: the filter allows none.
    """
    for config in configs:
        allowed = filtered(
            target.config_spec, target.settings.autotune_config_filter, target.config_spec.normalize(config)
        )
        if allowed is not None:
            return allowed
    raise exc.NoConfigFound(
        kernel=target.kernel_name,
        reason=f"autotune_config_filter allows none of its {len(configs)} configs",
        fix="let it return the Config to use, or True, for one of them.",
    )


def depends_on(target: TuningTarget, args: Sequence[Any], source: str) -> str | None:
    """What another process must find as it is here to choose the same Config for a first call.

    Args:
        target: the kernel.
        args: of a call.
        source: what `choose` said.

    Returns:
        "" if that is nothing but the kernel and its settings, else the path of the tuner's file; None if it is neither.
    """
    if source in (GIVEN, FIRST_GIVEN, COMPUTED):
        return ""
    store = cache_named(target.settings.autotune_cache)
    if (source == TUNED_NOW or source.startswith(FROM_CACHE)) and type(store) is LocalAutotuneCache:
        return str(store.path(_key(target, args)))
    return None


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
            `search="PatternSearch"`, `devices=["cuda:0", "cuda:1"]`, `storage="tune.journal"`, ...; and
            parameters of the search's class (`searches.py`).

    Returns:
        The winner, with every key.

    Raises:
        exc.NoConfigFound: every Config failed.
        exc.AutotuningDisallowedInEnvironment: tuning cannot happen here.
        exc.AutotuneError: workers or the baseline do not run.
        exc.InvalidAPIUsage: an unknown option.
    """
    known = {name: value for name, value in options.items() if f"autotune_{name}" in OPTIONS}
    settings = with_options(target.settings, known)
    if _effort_of_search(settings, args) == "none":
        return target.config_spec.default_config()
    own = {"configs": configs, "evaluations": evaluations, "isolate": None if isolate else False}
    given = {**{name: value for name, value in own.items() if value is not None}, **options}
    if settings.autotuner_fn is not DEFAULT_AUTOTUNER:
        check_possible(target, args)
        found = settings.autotuner_fn(target.subject, args, **given).autotune(skip_cache=force)
        return target.config_spec.normalize(found)

    store = cache_named(settings.autotune_cache)
    return cached(target, args, store, force, lambda: _search(target, args, settings, given))


def announce(settings: Settings, options: Mapping[str, Any]) -> None:
    """A search with these settings and options is certain to come: begin with what takes long and needs neither the
    kernel nor its arguments, beside whatever else is done until then."""
    in_workers = options.get("isolate") is not False and settings.autotune_benchmark_subprocess
    effort = options.get("effort", settings.autotune_effort)
    allowed = MARK not in os.environ and not is_set(DISALLOW_VARIABLE)
    if in_workers and effort != "none" and settings.autotuner_fn is DEFAULT_AUTOTUNER and allowed:
        fork_server.shared()


def announce_first_call(kernel: str, settings: Settings, configs: Sequence[Config], args: Sequence[Any]) -> None:
    """`announce`, where a kernel that has not been traced yet is going to be searched for as far as can be known."""
    if settings.force_autotune:
        announce(settings, {})
    elif len(configs) != 1 and _effort_of_call(settings, args) != "none":
        store = cache_named(settings.autotune_cache)
        if isinstance(store, LocalAutotuneCache) and (skip_cache() or not store.knows(kernel)):
            announce(settings, {})


def _search(target: TuningTarget, args: Sequence[Any], settings: Settings, options: Mapping[str, Any]) -> Found:
    from .searches import search_with  # searches, workers and displays: only where something is measured

    return Found.of(search_with(target, args, settings, options))


@dataclasses.dataclass(frozen=True)
class Found:
    """What a search found, for the cache.

    Attributes:
        config: the winner.
        time_ms: its time; None if it is unknown.
        note: how it was found, for people.
        keep: whether it is an answer; what was not measured is none.
    """

    config: Config
    time_ms: float | None = None
    note: str = ""
    keep: bool = True

    @classmethod
    def of(cls, result: TuningResult) -> Found:
        """What to keep of a tuning run."""
        note = f"{len(result.trials)} configs in {result.seconds:.0f} s; ended: {result.ended}"
        return cls(result.config, result.time_ms, note, keep=result.time_ms is not None)


def check_possible(target: TuningTarget, args: Sequence[Any]) -> None:
    """Refuse to tune where it cannot work, or must not.

    Raises:
        exc.AutotuningDisallowedInEnvironment: with the reason.
        exc.CompilationForbidden: inside `no_compile()`.
    """
    check_environment(target.kernel_name, args)
    compile_guard.check(target.kernel_name, "autotune", _key(target, args).specialization)


def cached(
    target: TuningTarget, args: Sequence[Any], store: AutotuneCache, force: bool, search: Callable[[], Found]
) -> Config:
    """The Config that a cache has, else what a search finds, which is then kept there.

    Args:
        target: the kernel.
        args: arguments of the call.
        store: the cache.
        force: search even if the cache has one.
        search: finds one.

    Raises:
        exc.CacheAssertionError: HELION_ASSERT_CACHE_HIT is set, and the cache has none.
        exc.AutotuningDisallowedInEnvironment: a search is needed and cannot happen here.
    """
    key = _key(target, args)
    if not force:
        known = lookup(target, args, store)
        if known is not None:
            return known
        if is_set("HELION_ASSERT_CACHE_HIT"):
            raise exc.CacheAssertionError(kernel=target.kernel_name)
    check_possible(target, args)
    with store.tuning(key):
        if not force:
            known = lookup(target, args, store)  # another process may have tuned it while this one waited
            if known is not None:
                return known
        found = search()
        if found.keep:
            store.put(key, Entry(found.config, found.time_ms, found.note))
    return target.config_spec.normalize(found.config)


def with_options(settings: Settings, options: Mapping[str, Any]) -> Settings:
    """A copy of settings with some `autotune_*` ones replaced, named without the prefix.

    Raises:
        exc.InvalidAPIUsage: there is no such setting, or it does not take the value.
    """
    changes = {f"autotune_{name}": value for name, value in options.items()}
    return Settings(**{**dict(settings.items()), **changes}) if changes else settings


def _effort_of_search(settings: Settings, args: Sequence[Any]) -> str:
    """The effort of a search that was asked for: unless set, full on a GPU and quick on CPU tensors."""
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
    from . import session  # searches, workers and displays: only where something is measured

    settings = with_options(target.settings, options)
    if settings.autotune_best_of_k > 1 and configs is None:
        return _best_of(settings.autotune_best_of_k, target, args, evaluations, isolate, options)
    effort = _effort_of_search(settings, args)
    isolate = isolate and settings.autotune_benchmark_subprocess
    return session.run(target, args, settings, effort, configs, evaluations, isolate)


def _best_of(
    count: int,
    target: TuningTarget,
    args: Sequence[Any],
    evaluations: int | None,
    isolate: bool,
    options: Mapping[str, Any],
) -> TuningResult:
    """Several searches with seeds of their own, and then their winners against each other."""
    single = {**options, "best_of_k": 1}
    seed = with_options(target.settings, options).autotune_random_seed
    results = [
        run_search(target, args, evaluations=evaluations, isolate=isolate, **{**single, "random_seed": seed + i})
        for i in range(count)
    ]
    winners = list(dict.fromkeys(result.config for result in results if result.time_ms is not None))
    if len(winners) < 2:
        best = next((result for result in results if result.time_ms is not None), results[0])
        final = dataclasses.replace(best, trials=(), seconds=0.0)
    else:
        final = run_search(target, args, configs=winners, isolate=isolate, **single)
    return dataclasses.replace(
        final,
        trials=(*(t for result in results for t in result.trials), *final.trials),
        seconds=final.seconds + sum(result.seconds for result in results),
        ended=f"best of {count} searches",
    )
