"""Entry points: `autotune` searches, `config_for` decides what a first call does.

`config_for` is on the path of every first call, so this file imports what reads caches; `session.py`, which measures,
is imported when something is to be measured.
"""

from __future__ import annotations

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
from .guard import check_environment
from .measure import device_of
from .named import load_named

if TYPE_CHECKING:
    from .cache_key import CacheKey
    from .target import TuningTarget
    from .tuner import TuningResult

# Name -> where it is.  `autotune_cache` names a row, or `module:Class` of one's own.
CACHES: dict[str, str] = {
    "LocalAutotuneCache": "helion.autotuner.cache:LocalAutotuneCache",
    "StrictLocalAutotuneCache": "helion.autotuner.cache:StrictLocalAutotuneCache",
    "AOTAutotuneCache": "helion.autotuner.aot:AOTAutotuneCache",
    "RemoteAutotuneCache": "helion.autotuner.remote_cache:RemoteAutotuneCache",
}
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
    return session.run(target, args, settings, _effort_of_search(settings, args), configs, evaluations, isolate)
