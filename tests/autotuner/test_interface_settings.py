"""What users see of a search: fragments, the spec of a kernel, settings and variables."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import helion
import helion.autotuner as at
import helion.language as hl
from helion import exc
from helion.autotuner import api
from helion.autotuner import session
from helion.autotuner.bound import BoundTarget
from helion.config import Config
from helion.fragments import OneOrPerItem
from helion.fragments import PermutationFragment

from . import gpu_kernels
from . import kernels
from .kernels import FAST
from .kernels import X
from .kernels import blocked

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_variables")]


# -- fragments and the spec ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fragment", "value", "radius", "around"),
    [
        (at.IntegerFragment(1, 8), 4, 1, [3, 5]),
        (at.IntegerFragment(1, 8), 2, 3, [1, 3, 4, 5]),
        (at.PowerOfTwoFragment(1, 64), 16, 1, [8, 32]),
        (at.PowerOfTwoFragment(1, 64), 2, 2, [1, 4, 8]),
        (at.BooleanFragment(), True, 1, [False]),
        (at.EnumFragment(["a", "b", "c"]), "b", 1, ["a", "c"]),
        (PermutationFragment(2), [0, 1], 1, [[1, 0]]),
        (at.ListOf(at.PowerOfTwoFragment(1, 4), 2), [1, 2], 1, [[2, 2], [1, 1], [1, 4]]),
        (OneOrPerItem(at.BooleanFragment(), 2), True, 1, [[False, True], [True, False]]),
    ],
)
def test_neighbours_of_a_value(fragment: Any, value: Any, radius: int, around: list[Any]) -> None:
    assert fragment.pattern_neighbors(value, radius) == around
    if radius == 1:
        assert fragment.pattern_neighbors(value) == around
    assert all(fragment.validate(v) == v for v in around)


def test_fragments_show_their_bounds() -> None:
    fragment = at.PowerOfTwoFragment(2, 64, 8)
    assert (fragment.low, fragment.high, fragment.default()) == (2, 64, 8)
    assert at.EnumFragment([1.5, 2.5]).choices == (1.5, 2.5)
    several = at.ListOf(at.IntegerFragment(0, 3), 4)
    assert several.length == len(several) == 4 and several.inner == at.IntegerFragment(0, 3)


@pytest.mark.softgpu(capability=90, software_only=True)
def test_a_spec_shows_what_there_is_to_schedule(softgpu: object) -> None:
    from examples.matmul import matmul

    a, b = torch.empty(300, 512, dtype=torch.bfloat16), torch.empty(512, 256, dtype=torch.bfloat16)
    spec = matmul.bind((a, b)).config_spec
    assert [item.size_hint for item in spec.block_sizes] == [300, 256, 512]
    assert all(item.min_size == 16 and item.max_size >= item.size_hint for item in spec.block_sizes)
    assert len(spec.range_num_stages) == 2 and spec.range_num_stages.valid_block_ids() == [0, 2]
    assert len(spec.reduction_loops) == 0 and spec.reduction_loops.valid_block_ids() == []
    assert spec.indexing.length == 3 and "pointer" in spec.indexing.inner.choices
    assert spec.load_eviction_policies.length == 2 and spec.load_eviction_policies.inner.choices == (
        "",
        "first",
        "last",
    )
    assert "flat" in spec.allowed_pid_types and len(spec.flatten_loops) == 1
    assert spec.user_defined_tunables == {}
    assert spec.unsupported_config_keys(Config(num_warps=4, reduction_loops=[None], nonsense=1)) == [
        "reduction_loops",
        "nonsense",
    ]


@pytest.mark.softgpu(capability=90, software_only=True)
def test_reduced_dimensions_have_ids(softgpu: object) -> None:
    spec = gpu_kernels.row_sum.bind((torch.empty(64, 100),)).config_spec
    assert len(spec.reduction_loops) == 1 and spec.reduction_loops.valid_block_ids() == [1]


def test_a_flat_config_is_chosen_value_by_value() -> None:
    spec = BoundTarget(gpu_kernels.double.bind((torch.ones(64),))).config_spec
    assert spec.flat_config(lambda fragment: fragment.default()) == spec.neutral_config()
    seen: list[Any] = []
    config = spec.flat_config(
        lambda fragment: (seen.append(fragment), fragment.default())[1], advanced_controls_files=["", "fast.acf"]
    )
    assert config["advanced_controls_file"] == "" and seen[-1].choices == ("", "fast.acf")
    assert not any(isinstance(fragment, at.ListOf) for fragment in seen)


# -- settings and variables --------------------------------------------------------------------------------------


def test_a_filter_may_put_another_config_in_its_place() -> None:
    def at_least_64(config: Config) -> Config | None:
        if config["block_sizes"][0] < 4:
            return None
        return Config(block_sizes=[max(config["block_sizes"][0], 64)])

    target = blocked(autotune_config_filter=at_least_64)
    result = at.RandomSearch(target, (X,), count=8, **FAST).run()
    assert {t.config["block_sizes"][0] for t in result.trials} == {64, 128, 256, 512, 1024}
    given = [Config(block_sizes=[b]) for b in (1, 2, 8, 128)]
    result = at.FiniteSearch(target, (X,), given, **FAST).run()
    assert [t.config["block_sizes"][0] for t in result.trials] == [64, 128]


def test_best_of_several_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    target = blocked(autotune_best_of_k=2, autotune_random_seed=5)
    seeds: list[int] = []
    real = session._run

    def recorded(target: Any, args: Any, settings: Any, *rest: Any, **named: Any) -> Any:
        seeds.append(settings.autotune_random_seed)
        return real(target, args, settings, *rest, **named)

    monkeypatch.setattr(session, "_run", recorded)
    result = at.RandomSearch(target, (X,), count=4, **FAST).run()
    assert seeds[:2] == [5, 6] and len(result.trials) in (8, 10)
    assert result.ended == "best of 2 searches"
    with pytest.raises(ValueError, match=r"autotune_best_of_k.*at least 1"):
        blocked(autotune_best_of_k=0)


def test_tuning_can_be_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELION_DISALLOW_AUTOTUNING", "1")
    with pytest.raises(exc.AutotuningDisallowedInEnvironment, match="HELION_DISALLOW_AUTOTUNING"):
        api.config_for(blocked(autotune_effort="quick"), (X,))
    assert api.config_for(blocked(autotune_effort="none"), (X,)) is None
    assert api.config_for(blocked(autotune_effort="quick"), (X,), [Config(block_sizes=[4])]) is not None
    monkeypatch.setenv("HELION_DISALLOW_AUTOTUNING", "0")
    assert api.autotune(blocked(), (X,), evaluations=2, **FAST) is not None
    monkeypatch.setenv("HELION_DISALLOW_AUTOTUNING", "1")
    assert api.config_for(blocked(autotune_effort="quick"), (X,)) is not None  # the cache has it


def test_a_cache_miss_can_be_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELION_ASSERT_CACHE_HIT", "1")
    with pytest.raises(exc.CacheAssertionError, match="blocked_sum"):
        api.config_for(blocked(autotune_effort="quick"), (X,))
    tuned = api.autotune(blocked(), (X,), evaluations=2, **FAST)
    assert api.config_for(blocked(autotune_effort="quick"), (X,)) == tuned


def test_candidates_are_measured_here_where_the_setting_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    target = blocked(autotune_benchmark_subprocess=False)
    result = at.RandomSearch(target, (X,), count=2, progress_bar=False).run()
    assert {t.worker for t in result.trials} == {"in process"}


@pytest.mark.parametrize(
    ("value", "level"),
    [(0, 0), (20, 20), ("warning", 30), ("INFO", 20), ("10", 10), (logging.ERROR, 40), ("debug", 10)],
)
def test_levels_are_those_of_logging(value: Any, level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert helion.Settings(autotune_log_level=value).autotune_log_level == level
    monkeypatch.setenv("HELION_AUTOTUNE_LOG_LEVEL", str(value))
    assert helion.Settings().autotune_log_level == level


def test_at_level_0_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    at.RandomSearch(blocked(), (X,), count=2, log_level=0, isolate=False).run()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("value", "mode"),
    [
        (None, None),
        ("", None),
        (0, None),
        (False, None),
        ("0", None),
        ("fork", "fork"),
        ("spawn", "spawn"),
        (True, "fork"),
    ],
)
def test_ways_to_ask_for_compilation_ahead(value: Any, mode: str | None) -> None:
    assert helion.Settings(autotune_precompile=value).autotune_precompile == mode


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("autotune_log_level", "loud"),
        ("autotune_log_level", -1),
        ("autotune_precompile", "thread"),
        ("autotune_best_of_k", "none"),
        ("autotuner_fn", 3),
        ("autotune_config_filter", "x"),
        ("autotune_config_overrides", "[1]"),
        ("autotune_config_overrides", "no/such/file.json"),
        ("autotune_initial_population_strategy", "from_nowhere"),
        ("autotune_search_acf", 7),
        ("autotune_best_available_max_configs", 0),
        ("autotune_budget_seconds", -1),
        ("autotune_budget_seconds", "nan"),
        ("autotune_compile_timeout", 0),
        ("autotune_benchmark_timeout", float("nan")),
        ("autotune_precompile_jobs", -2),
        ("autotune_max_generations", -1),
        ("autotune_baseline_rtol", -1e-3),
    ],
)
def test_bad_values_are_value_errors_that_name_the_setting(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name) as caught:
        helion.Settings(**{name: value})
    assert isinstance(caught.value, exc.BaseError)


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from helion.settings import TABLE

    variables = [row.env for row in TABLE if row.env is not None]
    for name in variables:
        monkeypatch.delenv(name, raising=False)
    default = helion.Settings()
    for name in variables:
        monkeypatch.setenv(name, "")
    assert dict(helion.Settings().items()) == dict(default.items())


def test_overrides_come_as_json_or_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELION_AUTOTUNE_CONFIG_OVERRIDES", '{"num_warps": 2}')
    assert helion.Settings().autotune_config_overrides == {"num_warps": 2}
    (tmp_path / "o.json").write_text('{"num_stages": 3}')
    monkeypatch.setenv("HELION_AUTOTUNE_CONFIG_OVERRIDES", str(tmp_path / "o.json"))
    assert helion.Settings().autotune_config_overrides == {"num_stages": 3}


def test_files_of_controls_are_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELION_AUTOTUNE_SEARCH_ACF", "a.acf, b.acf")
    assert helion.Settings().autotune_search_acf == ["a.acf", "b.acf"]
    own = helion.Settings(autotune_search_acf=[])
    own.autotune_search_acf.append("mine")
    assert helion.Settings(autotune_search_acf=[]).autotune_search_acf == []


@pytest.mark.softgpu(capability=90, software_only=True)
def test_files_of_controls_are_searched_where_a_kernel_takes_them(softgpu: object) -> None:
    spec = gpu_kernels.row_sum.bind((torch.empty(64, 100),)).config_spec
    searched = session.with_controls(spec, ["a.acf", ""])
    space = at.SearchSpace(searched)
    default = space.default()
    assert default is not None and default["advanced_controls_file"] == ""
    other = next(c for c in space.neighbors(default) if c["advanced_controls_file"] == "a.acf")
    assert spec.normalize(other)["advanced_controls_file"] == "a.acf"  # the kernel takes what was found
    assert session.with_controls(spec, []) is spec
    assert session.with_controls(kernels.BlockedSum.spec, ["a.acf"]) is kernels.BlockedSum.spec


def test_the_ratio_of_suspicious_times() -> None:
    assert helion.Settings().get_suspicious_rebenchmark_ratio() == 0.9
    assert helion.Settings(autotune_benchmark_subprocess=False).get_suspicious_rebenchmark_ratio() is None
    assert helion.Settings(autotune_suspicious_rebenchmark_ratio=0.5).get_suspicious_rebenchmark_ratio() == 0.5


def test_a_log_without_an_ending_is_a_table_and_a_text(tmp_path: Path) -> None:
    target = blocked(autotune_log=str(tmp_path / "logs" / "run"), autotune_log_details=True)
    result = at.RandomSearch(target, (X,), count=3, **FAST).run()
    assert len((tmp_path / "logs" / "run.csv").read_text().splitlines()) == 4
    text = (tmp_path / "logs" / "run.log").read_text()
    assert "tuning blocked_sum with RandomSearch" in text and "ended: budget of 3 evaluations" in text
    (line,) = (tmp_path / "logs" / "run.meta.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["configs"] == [dict(t.config) for t in result.trials]
    assert "class BlockedSum" in record["kernel_source"] and record["run_id"] in text
    at.FiniteSearch(target, (X,), [Config(block_sizes=[1])], **FAST).run()
    assert len((tmp_path / "logs" / "run.meta.jsonl").read_text().splitlines()) == 1


def test_tunables_of_the_user_may_be_one_of_a_few_numbers() -> None:
    def scaled(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        times = hl.register_tunable("times", at.EnumFragment([3, 1, 7]))
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * times
        return out

    x = torch.ones(64)
    for config, factor in ((Config(times=7), 7.0), (Config(times=1), 1.0), (Config(num_warps=4), 3.0)):
        kernel = helion.kernel(scaled, config=config)
        torch.testing.assert_close(kernel(x), x * factor)
    assert kernel.bind((x,)).config_spec.user_defined_tunables == {"times": at.EnumFragment([3, 1, 7])}
    with pytest.raises(exc.InvalidConfig, match="times=2"):
        helion.kernel(scaled, config=Config(times=2))(x)


def test_the_filter_is_asked_where_nothing_is_measured() -> None:
    def first_of(allowed: Any) -> Any:
        kernel = helion.kernel(
            gpu_kernels.double.fn,
            configs=[Config(block_sizes=[b]) for b in (8, 16, 32)],
            autotune_config_filter=allowed,
        )
        x = torch.randn(64)
        assert torch.equal(kernel(x), x * 2)
        config = kernel.bind((x,)).config
        assert config is not None
        return config["block_sizes"][0]

    assert first_of(None) == 8
    assert first_of(lambda c: c["block_sizes"][0] > 8) == 16
    assert first_of(lambda c: Config(block_sizes=[64]) if c["block_sizes"][0] == 32 else None) == 64
    with pytest.raises(exc.NoConfigFound, match="allows none of its 3 configs"):
        first_of(lambda c: None)


def test_a_baseline_that_raises_is_an_error_of_the_tuning() -> None:
    def broken(*args: Any) -> Any:
        raise ValueError("boom")

    kernel = helion.kernel(
        gpu_kernels.double.fn,
        configs=[Config(block_sizes=[b]) for b in (8, 16)],
        autotune_baseline_fn=broken,
        autotune_effort="quick",
        autotune_log_level=0,
    )
    with pytest.raises(exc.AutotuneError, match=r"autotune_baseline_fn.*broken.*boom"):
        kernel(torch.randn(64))
