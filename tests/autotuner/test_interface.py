"""The public interface: searches and caches by name, `autotuner_fn`, fragments, what a ConfigSpec shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import helion
import helion.autotuner as at
from helion import exc
from helion.autotuner import api
from helion.autotuner.base_search import BaseSearch
from helion.autotuner.local_cache import get_helion_cache_dir
from helion.config import Config
from helion.config_spec import ConfigSpec

from . import gpu_kernels
from . import kernels
from .kernels import FAST
from .kernels import FunctionTarget
from .kernels import X
from .kernels import blocked

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_variables")]


# -- searches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(at.search_algorithms) - {"FiniteSearch"}))
@pytest.mark.slow
def test_every_search_takes_a_kernel_and_its_arguments(name: str) -> None:
    search = at.search_algorithms[name](blocked(), (X,), evaluations=14, **FAST)
    assert search.autotune()["block_sizes"][0] >= 16
    assert search.args == (X,) and search.config_spec is kernels.BlockedSum.spec


def test_a_bound_kernel_is_such_a_kernel_and_keeps_its_arguments_strides() -> None:
    x = torch.randn(32, 64).t()
    seen: list[tuple[int, ...]] = []

    def timer(call: Callable[[], Any]) -> float:
        call()
        return 1.0

    bound = gpu_kernels.row_sum.bind((x,))
    search = at.RandomSearch(bound, (x,), count=3, benchmark_fn=timer, **FAST)
    result = search.run()
    assert len(result.trials) == 3 and all(t.ok for t in result.trials), result.trials
    from helion.autotuner.accuracy import clone_args

    seen.append(clone_args((x,))[0].stride())
    assert seen == [(1, 64)]


def test_a_finite_search_measures_its_list_and_nothing_else() -> None:
    configs = [Config(block_sizes=[1]), Config(block_sizes=[512])]
    search = at.FiniteSearch(blocked(), (X,), configs, **FAST)
    result = search.run()
    assert [t.config for t in result.trials] == configs and result.config == configs[1]
    with pytest.raises(exc.NotEnoughConfigs):
        at.FiniteSearch(blocked(), (X,), [], **FAST).autotune()


@pytest.mark.parametrize(
    ("make", "attributes"),
    [
        (
            lambda k: at.PatternSearch(k, (X,), 4, 2, 3, 0.01, "from_random", 5, 1),
            {
                "initial_population": 4,
                "copies": 2,
                "max_generations": 3,
                "min_improvement_delta": 0.01,
                "initial_population_strategy": "from_random",
                "num_neighbors_cap": 5,
                "finishing_rounds": 1,
            },
        ),
        (
            lambda k: at.LFBOPatternSearch(
                k,
                (X,),
                initial_population=5,
                num_neighbors=7,
                frac_selected=0.5,
                radius=2,
                quantile=0.3,
                patience=2,
                similarity_penalty=0.5,
            ),
            {"num_neighbors": 7, "frac_selected": 0.5, "radius": 2, "patience": 2, "similarity_penalty": 0.5},
        ),
        (
            lambda k: at.DifferentialEvolutionSearch(k, (X,), 6, 4, 0.9, True, min_improvement_delta=0.1, patience=3),
            {"population_size": 6, "max_generations": 4, "crossover_rate": 0.9, "immediate_update": True},
        ),
        (lambda k: at.RandomSearch(k, (X,), 7), {"count": 7}),
    ],
)
def test_arguments_are_attributes_and_reach_the_strategy(
    make: Callable[[Any], at.ModelSearch], attributes: dict[str, Any]
) -> None:
    search = make(blocked())
    assert {name: getattr(search, name) for name in attributes} == attributes
    strategy = search.make_strategy(at.SearchSpace(kernels.BlockedSum.spec), seed=3)
    for name, argument in search.parameters.items():
        value = getattr(search, name, None)
        if value is not None:
            own = {"stall": "stall", "min_gain": "min_gain"}.get(argument, argument)
            assert getattr(strategy, own) == value, name


def test_arguments_beat_settings() -> None:
    target = blocked(autotune_max_generations=50)
    search = at.PatternSearch(target, (X,), initial_population=2, max_generations=1, num_neighbors_cap=1, **FAST)
    strategy = search.make_strategy(at.SearchSpace(kernels.BlockedSum.spec))
    assert strategy.generations_limit == 1  # type: ignore[attr-defined]
    # The default, two random ones, a neighbour and the jumps from there.
    assert len(search.run().trials) <= 8


def test_the_winner_of_a_list_is_the_config_that_was_given() -> None:
    given = [{"block_size": 32}, {"block_sizes": 64}]
    best = at.FiniteSearch(blocked(), (X,), [Config(**items) for items in given], **FAST).autotune()
    assert dict(best) in given


def test_a_search_that_is_made_searches_whatever_the_effort_of_calls_is() -> None:
    assert len(at.RandomSearch(blocked(autotune_effort="none"), (X,), count=2, budget_seconds=60).run().trials) == 2


def test_a_count_is_how_many_are_measured() -> None:
    assert len(at.RandomSearch(blocked(), (X,), count=4, **FAST).run().trials) == 4


def test_the_variable_caps_the_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELION_CAP_AUTOTUNE_NUM_NEIGHBORS", "2")
    search = at.PatternSearch(blocked(), (X,))
    assert search.num_neighbors_cap == search.make_strategy(at.SearchSpace(kernels.BlockedSum.spec)).neighbors_cap == 2
    assert at.PatternSearch(blocked(), (X,), num_neighbors_cap=3).num_neighbors_cap == 3


def test_finishing_rounds_try_the_defaults_of_the_best() -> None:
    spec = ConfigSpec("k", {"a": at.PowerOfTwoFragment(1, 8), "b": at.PowerOfTwoFragment(1, 8)})
    search = at.PatternSearch(FunctionTarget("blocked_sum", spec), (X,), max_generations=0, finishing_rounds=1)
    strategy = search.make_strategy(at.SearchSpace(spec))
    from helion.autotuner.trial import Status
    from helion.autotuner.trial import Trial

    strategy.ask(1)
    strategy.tell(Trial(spec.default_config(), Status.OK, 2.0))
    strategy.tell(Trial(Config(a=4, b=8), Status.OK, 1.0))
    assert strategy.ask(9) == [Config(a=1, b=8), Config(a=4, b=1)]


def test_bad_seed_configs_are_left_out_with_a_line(caplog: pytest.LogCaptureFixture) -> None:
    target = blocked(autotune_seed_configs=[Config(block_sizes=[3]), Config(block_sizes=[64])])
    result = at.RandomSearch(target, (X,), count=2, **FAST).run()
    assert [t.config["block_sizes"] for t in result.trials] == [[16], [64]]
    assert caplog.text.count("seed config is left out") == 1


def test_the_same_seed_tries_the_same_candidates() -> None:
    def tried(seed: int) -> list[Config]:
        search = at.RandomSearch(blocked(autotune_random_seed=seed), (X,), count=6, **FAST)
        return [t.config for t in search.run().trials]

    assert tried(1) == tried(1) != tried(3)


def test_an_unknown_argument_of_a_search_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="autotune_budget_seconds"):
        at.RandomSearch(blocked(), (X,), budget_second=3)


# -- a search of one's own, and caches ------------------------------------------------------------------


class Mine(BaseSearch):
    calls = 0

    def autotune(self, *, skip_cache: bool = False) -> Config:
        type(self).calls += 1
        return Config(block_sizes=[64])


class MyCache(at.LocalAutotuneCache):
    gets = 0

    def get(self, key: Any, args: Sequence[Any] = ()) -> Any:
        type(self).gets += 1
        return super().get(key, args)


def test_a_cache_of_a_search_is_an_autotuner_fn() -> None:
    Mine.calls = MyCache.gets = 0
    make = MyCache[Mine]
    made = make(blocked(), (X,))
    assert isinstance(made.autotuner, Mine) and made.autotuner.args == (X,)
    assert [made.autotune(), make(blocked(), (X,)).autotune()] == [Config(block_sizes=[64])] * 2
    assert Mine.calls == 1 and MyCache.gets >= 2
    assert made.autotune(skip_cache=True) == Config(block_sizes=[64]) and Mine.calls == 2


def test_the_setting_autotuner_fn_is_used_for_every_search() -> None:
    given: list[Any] = []

    def autotuner_fn(kernel: Any, args: Any, **kwargs: Any) -> Mine:
        given.append((type(kernel).__name__, args, kwargs))
        return Mine(kernel, args)

    kernel = helion.kernel(gpu_kernels.double.fn, autotune_effort="quick", autotuner_fn=autotuner_fn)
    x = torch.ones(512)
    torch.testing.assert_close(kernel(x), x * 2)
    assert kernel.bind((x,))._config["block_sizes"] == [64]
    kernel.autotune((x,), population=3)
    assert [(name, kwargs) for name, _, kwargs in given] == [("BoundKernel", {}), ("BoundKernel", {"population": 3})]
    assert all(args[0] is x for _, args, _ in given)


def test_the_default_autotuner_is_the_variables_class_behind_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    made = helion.Settings().autotuner_fn(blocked(), (X,))
    assert isinstance(made.autotuner, at.ModelSearch) and isinstance(made, at.LocalAutotuneCache)
    monkeypatch.setenv("HELION_AUTOTUNER", "DifferentialEvolutionSearch")
    strict = blocked(autotune_cache="StrictLocalAutotuneCache")
    made = helion.Settings().autotuner_fn(strict, (X,), population_size=5)
    assert made.autotuner.population_size == 5 and isinstance(made, at.StrictLocalAutotuneCache)
    monkeypatch.setenv("HELION_AUTOTUNER", "SimulatedAnnealing")
    with pytest.raises(ValueError, match="HELION_AUTOTUNER='SimulatedAnnealing'"):
        helion.Settings().autotuner_fn(blocked(), (X,))
    with pytest.raises(ValueError, match="HELION_AUTOTUNER"):
        api.autotune(blocked(), (X,), **FAST)


def test_the_variables_class_searches_with_the_callers_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELION_AUTOTUNER", "RandomSearch")
    counted: list[int] = []
    real = api.run_search
    monkeypatch.setattr(
        "helion.autotuner.searches.run_search", lambda *a, **k: (counted.append(k["evaluations"]), real(*a, **k))[1]
    )
    api.autotune(blocked(), (X,), count=3, **FAST)
    assert counted == [3]


def test_names_and_classes() -> None:
    assert set(at.cache_classes) == set(api.CACHES)
    assert {"PatternSearch", "LFBOTreeSearch", "DESurrogateHybrid", "FiniteSearch"} <= set(at.search_algorithms)
    assert at.search_algorithms["PatternSearch"] is at.PatternSearch and issubclass(at.PatternSearch, BaseSearch)
    assert get_helion_cache_dir() == at.local_cache.get_helion_cache_dir()


def test_a_search_that_says_nothing_says_so() -> None:
    with pytest.raises(NotImplementedError, match="override autotune"):
        BaseSearch(blocked(), (X,)).autotune()


# -- tuned configs of like kernels ------------------------------------------------------------------------


def _keep(target: FunctionTarget, rows: int, block: int) -> None:
    from helion.autotuner.cache import Entry

    cache = at.LocalAutotuneCache()
    cache.put(target.cache_key((torch.ones(rows, 8),)), Entry(Config(block_sizes=[block]), 1.0))


def test_from_cache_measures_tuned_configs_of_like_kernels_and_given_ones() -> None:
    target = blocked()
    _keep(target, 256, 128)
    _keep(FunctionTarget("misbehaving", kernels.Misbehaving.spec), 256, 512)
    with pytest.raises(exc.NotEnoughConfigs):
        helion.from_cache(max_configs=1)(target, (X,))
    made = helion.from_cache(max_configs=1, configs=[Config(block_sizes=[1]), Config(block_sizes=[3])])(target, (X,))
    assert made.configs == [Config(block_sizes=[128]), Config(block_sizes=[1])]
    made = helion.from_cache(configs=[Config(block_sizes=[1])])(target, (X,), **FAST)
    assert made.configs == [Config(block_sizes=[b]) for b in (128, 512, 1)]
    assert made.autotune()["block_sizes"][0] > 1


@pytest.mark.slow
def test_a_search_may_begin_with_tuned_configs_of_like_kernels() -> None:
    target = blocked(autotune_initial_population_strategy="from_best_available")
    _keep(target, 256, 256)
    assert [t.config["block_sizes"] for t in at.RandomSearch(target, (X,), count=2, **FAST).run().trials] == [
        [16],
        [256],
    ]
    search = at.PatternSearch(blocked(), (X,), initial_population_strategy="from_best_available", **FAST)
    assert search.run().trials[1].config["block_sizes"] == [256]


def test_damaged_and_unfit_files_are_passed_over(own_cache: Path) -> None:
    target = blocked()
    _keep(target, 256, 256)
    (own_cache / "autotune" / "zero.json").write_text("[" * 10_000)
    (own_cache / "autotune" / "one.json").write_text(json.dumps({"config": {"block_sizes": [3]}, "key": {}}))
    from helion.autotuner.best_available import best_available

    assert best_available(target, (X,), 5, 500) == [Config(block_sizes=[256])]
    assert best_available(target, (X,), 5, 0) == []


# -- functions that are no kernels -------------------------------------------------------------------------


def _chunks(config: Config) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: torch.cat([part * 2 for part in x.split(config["chunk"])])


CHUNK = {"chunk": at.PowerOfTwoFragment(1, 256)}
HERE = {"isolate": False, "autotune_progress_bar": False, "autotune_effort": "quick"}


def test_anything_with_tunables_is_tuned() -> None:
    config = at.autotune(CHUNK, _chunks, (torch.ones(4096),), max_generations=3, **HERE)
    assert list(config) == ["chunk"] and config["chunk"] >= 64
    assert at.external.autotune is at.autotune


@pytest.mark.spawns
def test_functions_travel_to_the_workers_too() -> None:
    seen = at.autotune(
        CHUNK, _chunks, (torch.ones(512),), algorithm="RandomSearch", count=2, autotune_progress_bar=False
    )
    assert "chunk" in seen


def test_what_differs_from_the_baseline_does_not_win() -> None:
    def compile_fn(config: Config) -> Callable[[torch.Tensor], torch.Tensor]:
        return _chunks(config) if config["chunk"] < 64 else lambda x: x

    config = at.autotune(CHUNK, compile_fn, (torch.ones(1024),), baseline_fn=lambda x: x * 2, **HERE)
    assert config["chunk"] < 64


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"algorithm": "Nothing"}, "Nothing"), ({"populations": 3}, "populations"), ({"autotune_efort": 1}, "efort")],
)
def test_unknown_arguments_are_a_value_error(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        at.autotune(CHUNK, _chunks, (torch.ones(8),), **arguments)
