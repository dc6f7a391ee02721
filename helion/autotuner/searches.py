"""Searches by their public names: a kernel, its arguments and the search's own parameters, then `autotune()`.

Each is a strategy (`strategy.py` and its siblings, which propose Configs and know nothing of kernels) put to work on a
kernel.  A parameter that is given beats the setting about the same; what is left out is the strategy's own default or
the setting.  `CacheClass[SearchClass]` puts a cache in front.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import ClassVar

from .. import exc
from ..config import Config
from ..settings import Settings
from .api import CACHES
from .api import OPTIONS
from .api import Found
from .api import cache_named
from .api import cached
from .api import run_search
from .api import with_options
from .base_search import BaseSearch
from .base_search import target_of
from .best_available import best_available
from .cache import AutotuneCache
from .named import load_named
from .session import DEFAULT_SEARCH
from .session import SEARCHES
from .strategy import Strategy
from .target import TuningTarget
from .tuner import TuningResult

VARIABLE = "HELION_AUTOTUNER"


class StrategySearch(BaseSearch):
    """A search by one of helion's strategies.

    Args:
        kernel, args: as for BaseSearch.
        **options: settings of this search (`autotune_*`, with or without that prefix), and `evaluations`, `configs` and
            `isolate`.

    Raises:
        exc.InvalidAPIUsage: an unknown option.
    """

    strategy: ClassVar[str]
    """Its row in `api.SEARCHES`."""

    parameters: ClassVar[dict[str, str]] = {}
    """Attribute of the search -> argument of the strategy."""

    budget: ClassVar[dict[str, str]] = {"max_generations": "max_generations"}
    """Attribute of the search -> option of `run_search`."""

    def __init__(self, kernel: Any, args: Sequence[Any], **options: Any) -> None:
        super().__init__(kernel, args)
        names = ("configs", "evaluations", "isolate")
        own: dict[str, Any] = {name: options.pop(name) for name in names if name in options}
        options = {name.removeprefix("autotune_"): value for name, value in options.items()}
        if self.settings.autotune_effort == "none":  # of calls; who makes a search wants one
            options.setdefault("effort", "quick")
        self.settings = with_options(self.settings, options)
        self._options: dict[str, Any] = {**own, **options}

    def make_strategy(self, *args: Any, **kwargs: Any) -> Strategy:
        """The strategy with this search's parameters."""
        given = {argument: getattr(self, name) for name, argument in self.parameters.items()}
        given = {argument: value for argument, value in given.items() if value is not None}
        made: Strategy = load_named(SEARCHES, self.strategy, "search")(*args, **{**given, **kwargs})
        return made

    def run(self) -> TuningResult:
        """Search; the whole outcome.

        Raises:
            exc.NoConfigFound: every Config failed.
        """
        budget = {option: getattr(self, name, None) for name, option in self.budget.items()}
        given = {option: value for option, value in budget.items() if value is not None}
        options: dict[str, Any] = {"search": self.make_strategy, **self._options, **given}
        return run_search(self.target, self.args, **options)

    def autotune(self, *, skip_cache: bool = False) -> Config:
        return self.run().config


class ModelSearch(StrategySearch):
    """Bayesian optimization with a Gaussian process: the default."""

    strategy = "ModelSearch"


class FiniteSearch(StrategySearch):
    """Measures the Configs of a list.

    Args:
        kernel, args: as for BaseSearch.
        configs: the list.
    """

    strategy = "FiniteSearch"

    def __init__(self, kernel: Any, args: Sequence[Any], configs: Sequence[Config] | None = None, **options: Any):
        super().__init__(kernel, args, **options)
        self.configs = list(configs if configs is not None else self._kernel_configs())

    def _kernel_configs(self) -> Sequence[Config]:
        configs: Sequence[Config] = getattr(getattr(self.kernel, "kernel", None), "configs", ())
        return configs

    def run(self) -> TuningResult:
        if not self.configs:
            raise exc.NotEnoughConfigs(kernel=self.target.kernel_name, count=0)
        result = run_search(self.target, self.args, **{**self._options, "configs": self.configs})
        spec = self.config_spec
        given = (c for c in self.configs if spec.is_valid(c) and spec.normalize(c) == result.config)
        return dataclasses.replace(result, config=next(given, result.config))  # as it was written


class RandomSearch(StrategySearch):
    """Uniformly random Configs.

    Args:
        kernel, args: as for BaseSearch.
        count: how many.
    """

    strategy = "RandomSearch"
    budget: ClassVar[dict[str, str]] = {"count": "evaluations"}

    def __init__(self, kernel: Any, args: Sequence[Any], count: int | None = None, **options: Any) -> None:
        super().__init__(kernel, args, **options)
        self.count = count


class PatternSearch(StrategySearch):
    """Hooke-Jeeves pattern search: from the best of a few random Configs downhill over neighbours.

    Args:
        kernel, args: as for BaseSearch.
        initial_population: random Configs to begin with.
        copies: of how many of the best of them the walks begin.
        max_generations: rounds of walking.
        min_improvement_delta: a step must be faster by this ratio.
        initial_population_strategy: `from_random`, or `from_best_available`: with tuned Configs of like kernels too.
        num_neighbors_cap: most neighbours of one Config that are measured; -1 all of them.
        finishing_rounds: at the end, so often, every key of the best is tried with its default value.
    """

    strategy = "PatternSearch"
    parameters: ClassVar[dict[str, str]] = {
        "initial_population": "starts",
        "copies": "walks",
        "max_generations": "generations_limit",
        "min_improvement_delta": "min_gain",
        "num_neighbors_cap": "neighbors_cap",
        "finishing_rounds": "finishing",
    }
    budget: ClassVar[dict[str, str]] = {"initial_population_strategy": "initial_population_strategy"}

    def __init__(
        self,
        kernel: Any,
        args: Sequence[Any],
        initial_population: int | None = None,
        copies: int | None = None,
        max_generations: int | None = None,
        min_improvement_delta: float | None = None,
        initial_population_strategy: str | None = None,
        num_neighbors_cap: int = -1,
        finishing_rounds: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(kernel, args, **options)
        self.initial_population = initial_population
        self.copies = copies
        self.max_generations = max_generations
        self.min_improvement_delta = min_improvement_delta
        self.initial_population_strategy = initial_population_strategy
        cap = os.environ.get("HELION_CAP_AUTOTUNE_NUM_NEIGHBORS")
        self.num_neighbors_cap = int(cap) if cap and num_neighbors_cap < 0 else num_neighbors_cap
        self.finishing_rounds = finishing_rounds


class LFBOPatternSearch(PatternSearch):
    """Pattern search that measures only the moves that a classifier likes.

    Args:
        kernel, args and what PatternSearch takes: as there.
        num_neighbors: moves that the classifier is shown for each base.
        frac_selected: the share of them that is measured.
        radius: most steps of such a move.
        quantile: the share of the trials that counts as fast.
        patience: walks without a gain before the search begins anew with random Configs.
        similarity_penalty: how much less a move counts that is near one already chosen, from 0 to 1.
    """

    strategy = "LFBOPatternSearch"
    parameters: ClassVar[dict[str, str]] = {
        **PatternSearch.parameters,
        "num_neighbors": "neighbors",
        "frac_selected": "share",
        "radius": "radius",
        "quantile": "quantile",
        "patience": "patience",
        "similarity_penalty": "penalty",
    }

    def __init__(
        self,
        kernel: Any,
        args: Sequence[Any],
        *positional: Any,
        num_neighbors: int | None = None,
        frac_selected: float | None = None,
        radius: int | None = None,
        quantile: float | None = None,
        patience: int | None = None,
        similarity_penalty: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(kernel, args, *positional, **options)
        self.num_neighbors = num_neighbors
        self.frac_selected = frac_selected
        self.radius = radius
        self.quantile = quantile
        self.patience = patience
        self.similarity_penalty = similarity_penalty


class LFBOTreeSearch(LFBOPatternSearch):
    """Like LFBOPatternSearch, with moves of several steps alone: for spaces with too many neighbours to list."""

    strategy = "LFBOTreeSearch"


class DifferentialEvolutionSearch(StrategySearch):
    """Differential evolution.

    Args:
        kernel, args: as for BaseSearch.
        population_size: members.
        max_generations: generations.
        crossover_rate: probability that an axis is taken from the mutant.
        immediate_update: a child takes its parent's place before the next one is made, not after the generation.
        min_improvement_delta: a generation counts as a gain if its best is faster by this ratio.
        patience: generations without a gain before the search ends.
    """

    strategy = "DifferentialEvolutionSearch"
    parameters: ClassVar[dict[str, str]] = {
        "population_size": "population",
        "crossover_rate": "crossover",
        "immediate_update": "immediate",
        "min_improvement_delta": "min_gain",
        "patience": "stall",
    }

    def __init__(
        self,
        kernel: Any,
        args: Sequence[Any],
        population_size: int | None = None,
        max_generations: int | None = None,
        crossover_rate: float | None = None,
        immediate_update: bool | None = None,
        min_improvement_delta: float | None = None,
        patience: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(kernel, args, **options)
        self.population_size = population_size
        self.max_generations = max_generations
        self.crossover_rate = crossover_rate
        self.immediate_update = immediate_update
        self.min_improvement_delta = min_improvement_delta
        self.patience = patience


class DESurrogateHybrid(DifferentialEvolutionSearch):
    """Differential evolution whose children are chosen, of several, by what a surrogate expects of them."""

    strategy = "DESurrogateHybrid"


search_algorithms: dict[str, type[StrategySearch]] = {
    cls.__name__: cls
    for cls in (
        ModelSearch,
        LFBOPatternSearch,
        LFBOTreeSearch,
        PatternSearch,
        DifferentialEvolutionSearch,
        DESurrogateHybrid,
        RandomSearch,
        FiniteSearch,
    )
}
"""The searches by name."""

cache_classes: dict[str, type[AutotuneCache]] = {name: load_named(CACHES, name, "autotune cache") for name in CACHES}
"""The caches by name."""


def behind(cache: AutotuneCache, *, skip_cache: bool) -> Config:
    """The Config that a cache has, else what its `autotuner` finds, which is then kept."""
    search = cache.autotuner
    if search is None:
        raise exc.InvalidAPIUsage(
            f"{type(cache).__name__} has no search to tune with",
            fix="make it so: `CacheClass[SearchClass](kernel, args)`.",
        )

    def look() -> Found:
        if not isinstance(search, StrategySearch):
            return Found(search.autotune(skip_cache=skip_cache), note=f"found by {type(search).__name__}")
        return Found.of(search.run())

    return cached(search.target, search.args, cache, skip_cache, look)


def with_cache(cache: Callable[[], AutotuneCache], search: Callable[..., BaseSearch]) -> Callable[..., AutotuneCache]:
    """An `autotuner_fn`: a search behind a cache."""

    def autotuner_fn(kernel: Any, args: Sequence[Any], **kwargs: Any) -> AutotuneCache:
        return _before(cache(), search(kernel, args, **kwargs))

    return autotuner_fn


def _before(cache: AutotuneCache, search: BaseSearch) -> AutotuneCache:
    """A cache with a search behind it; the cache itself may be one that others use too."""
    made = copy.copy(cache)
    made.autotuner = search
    return made


def among(max_configs: int | None, configs: Sequence[Config]) -> Callable[..., FiniteSearch]:
    """An `autotuner_fn` over tuned Configs of like kernels and given ones; see `helion.from_cache`."""

    def autotuner_fn(kernel: Any, args: Sequence[Any], **kwargs: Any) -> FiniteSearch:
        target = target_of(kernel, args)
        settings = target.settings
        most = settings.autotune_best_available_max_configs if max_configs is None else max_configs
        tuned = best_available(target, args, most, settings.autotune_best_available_max_cache_scan)
        fitting = [target.config_spec.normalize(c) for c in configs if target.config_spec.is_valid(c)]
        found = list(dict.fromkeys([*tuned, *fitting]))
        if len(found) < 2:
            raise exc.NotEnoughConfigs(kernel=target.kernel_name, count=len(found))
        return FiniteSearch(kernel, args, found, **kwargs)

    return autotuner_fn


def search_named_by_environment() -> type[StrategySearch] | None:
    """The class that HELION_AUTOTUNER names; None if it is not set.

    Raises:
        exc.InvalidAPIUsage: a ValueError too: there is no such search.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    if name not in search_algorithms:
        raise exc.InvalidAPIUsage(
            f"{VARIABLE}={name!r}: there is no such search", fix=f"valid are {', '.join(search_algorithms)}."
        )
    return search_algorithms[name]


def search_with(
    target: TuningTarget, args: Sequence[Any], settings: Settings, options: Mapping[str, Any]
) -> TuningResult:
    """Search with what a caller gave: options of `run_search`, and parameters of the search's class.

    Args:
        target: the kernel.
        args: arguments of the call.
        settings: the kernel's with the caller's.
        options: what the caller gave.
    """
    cls = None
    if settings.autotune_search is None and "configs" not in options:
        cls = search_named_by_environment()
    if cls is None and any(f"autotune_{name}" not in OPTIONS for name in options):
        cls = search_algorithms.get(settings.autotune_search or DEFAULT_SEARCH)
    if cls is None:
        return run_search(target, args, **options)
    return cls(target.subject, args, **options).run()


def default_autotuner_fn(bound_kernel: Any, args: Sequence[Any], **kwargs: Any) -> AutotuneCache:
    """The default of the setting `autotuner_fn`: the search that HELION_AUTOTUNER names (unset: helion's own default)
    behind the cache that `autotune_cache` names.

    Args:
        bound_kernel: of `kernel.bind(args)`.
        args: arguments of the call.
        **kwargs: parameters of the search.
    """
    search = search_named_by_environment() or search_algorithms[DEFAULT_SEARCH]
    made = search(bound_kernel, args, **kwargs)
    return _before(cache_named(made.settings.autotune_cache), made)
