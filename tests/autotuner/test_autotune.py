"""autotune and config_for: the whole way, in process and in worker processes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from helion import _compat_torch
from helion import exc
from helion.autotuner import api
from helion.autotuner import searches
from helion.autotuner.cache_key import CacheKey
from helion.autotuner.cache_key import device_name
from helion.config import Config
from helion.runtime.compile_guard import no_compile

from . import kernels
from .kernels import FunctionTarget
from .kernels import X
from .kernels import blocked
from .kernels import misbehaving_target
from .kernels import quick

ROOT = Path(__file__).resolve().parents[2]


# -- finding -----------------------------------------------------------------------------------------


@pytest.mark.spawns
def test_large_blocks_win_in_worker_processes() -> None:
    config = quick(blocked(), isolate=True)
    assert config["block_sizes"][0] >= 128


def test_the_default_search_finds_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    config = quick(blocked(), search=None, progress_bar=True)
    assert config["block_sizes"][0] >= 128
    text = capsys.readouterr().err
    assert "@helion.kernel(config=helion.Config(block_sizes=[" in text
    assert "the speed of the default config" in text


def test_wrong_slow_and_failing_configs_do_not_win() -> None:
    configs = [Config(mode=m) for m in ("slow", "wrong", "raise", "good", "compile_raise", "out_of_memory")]
    assert quick(misbehaving_target(), configs=configs)["mode"] == "good"


def test_without_the_accuracy_check_wrong_answers_may_win() -> None:
    configs = [Config(mode=m) for m in ("slow", "wrong")]
    assert quick(misbehaving_target(autotune_accuracy_check=False), configs=configs)["mode"] == "wrong"


def test_the_baseline_may_be_a_function() -> None:
    target = misbehaving_target(autotune_baseline_fn=lambda x: x * 2.1)
    assert quick(target, configs=[Config(mode=m) for m in ("good", "wrong")])["mode"] == "wrong"


def test_tolerances_come_from_the_settings() -> None:
    target = misbehaving_target(autotune_baseline_rtol=0.2)
    assert quick(target, configs=[Config(mode=m) for m in ("slow", "wrong")])["mode"] == "wrong"


def test_ones_own_benchmark_function_decides() -> None:
    times = iter([3.0, 1.0, 2.0])
    target = misbehaving_target(autotune_benchmark_fn=lambda call: (call(), next(times, 1.0))[1])
    result = api.run_search(
        target, (X,), effort="quick", isolate=False, progress_bar=False, configs=[Config(salt=s) for s in (2, 4, 8)]
    )
    assert [t.time_ms for t in result.trials] == [3.0, 1.0, 2.0]
    assert result.config["salt"] == 4


def test_overrides_filter_and_seed_configs_are_honoured() -> None:
    seen: list[Config] = []
    target = misbehaving_target(
        autotune_config_overrides={"mode": "good"},
        autotune_config_filter=lambda c: c["salt"] > 4,
        autotune_seed_configs=[Config(salt=16)],
    )
    result = api.run_search(target, (X,), effort="quick", isolate=False, progress_bar=False, search="RandomSearch")
    seen = [t.config for t in result.trials]
    assert seen[0]["salt"] == 16
    assert {c["mode"] for c in seen} == {"good"} and {c["salt"] for c in seen} == {8, 16, 32, 64}


def test_unknown_search_names_list_the_known_ones() -> None:
    with pytest.raises(exc.InvalidAPIUsage, match="ModelSearch"):
        quick(blocked(), search="SimulatedAnnealing")


def test_the_default_search_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert quick(blocked(), search=None)["block_sizes"][0] >= 128


# -- failing ------------------------------------------------------------------------------------------


def test_when_everything_fails_the_commonest_reason_is_named() -> None:
    target = misbehaving_target(autotune_accuracy_check=False)
    configs = [Config(mode="compile_raise", salt=s) for s in (1, 2, 4)] + [Config(mode="raise")]
    with pytest.raises(exc.NoConfigFound) as caught:
        quick(target, configs=configs)
    text = str(caught.value)
    assert "all 4 configs failed (3 compile error, 1 run error)" in text
    assert "shared memory" in text
    assert "@helion.kernel(config=helion.Config(mode='compile_raise', salt=1))" in text


def test_a_failed_search_keeps_nothing_in_the_cache() -> None:
    target = misbehaving_target(autotune_accuracy_check=False)
    with pytest.raises(exc.NoConfigFound):
        quick(target, configs=[Config(mode="raise")])
    assert api.lookup(target, (X,)) is None


class BrokenCodegen(FunctionTarget):
    def recipe(self, config: Config) -> Any:
        if config["block_sizes"] != [16]:
            raise KeyError("emitter")
        return super().recipe(config)


def test_a_bug_in_code_generation_is_raised_unless_errors_are_ignored() -> None:
    with pytest.raises(exc.InternalError, match="KeyError"):
        quick(BrokenCodegen("blocked_sum", kernels.BlockedSum.spec))
    kept = quick(BrokenCodegen("blocked_sum", kernels.BlockedSum.spec, autotune_ignore_errors=True))
    assert kept["block_sizes"] == [16]


@pytest.mark.spawns
def test_arguments_that_do_not_travel_are_measured_here_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    def generator() -> Any:
        yield 1

    arguments = (torch.ones(512, 8), generator())
    found = api.autotune(
        FunctionTarget("doubled_first", kernels.DoubledFirst.spec),
        arguments,
        effort="quick",
        progress_bar=False,
        evaluations=2,
    )
    assert found["salt"] >= 1
    assert "in this process, without protection" in caplog.text and "generator" in caplog.text


# -- first calls --------------------------------------------------------------------------------------


@pytest.mark.spawns
def test_on_cpu_tensors_a_first_call_uses_the_default_unless_an_effort_is_asked_for() -> None:
    assert api.config_for(blocked(), (X,)) is None
    tuned = api.config_for(
        blocked(autotune_effort="quick", autotune_progress_bar=False, autotune_search="RandomSearch"), (X,)
    )
    assert tuned["block_sizes"][0] >= 128


def test_effort_none_searches_nothing_even_when_called() -> None:
    assert api.config_for(blocked(autotune_effort="none"), (X,)) is None
    assert quick(blocked(), effort="none") == kernels.BlockedSum.spec.default_config()


def test_an_unknown_option_lists_the_known_ones() -> None:
    with pytest.raises(exc.InvalidAPIUsage, match="autotune_budget_seconds"):
        quick(blocked(), budget_second=3)


@pytest.mark.spawns
def test_a_given_config_is_used_and_several_are_measured() -> None:
    target = blocked(autotune_effort="quick", autotune_progress_bar=False)
    assert api.config_for(target, (X,), [Config(block_sizes=[2])])["block_sizes"] == [2]
    several = [Config(block_sizes=[1]), Config(block_sizes=[512])]
    assert api.config_for(target, (X,), several)["block_sizes"] == [512]


def test_a_tuned_config_is_found_again_without_searching(monkeypatch: pytest.MonkeyPatch) -> None:
    target = blocked(autotune_effort="quick")
    tuned = quick(target)
    monkeypatch.setattr(searches, "run_search", lambda *a, **k: pytest.fail("searched again"))
    assert api.config_for(target, (X,)) == tuned
    assert quick(target, force=False) == tuned


def test_skip_cache_searches_again_and_still_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    target = blocked(autotune_effort="quick")
    quick(target)
    monkeypatch.setenv("HELION_SKIP_CACHE", "1")
    assert api.lookup(target, (X,)) is None
    calls: list[int] = []
    real = searches.run_search
    monkeypatch.setattr(searches, "run_search", lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    quick(target, force=False)
    assert calls
    monkeypatch.delenv("HELION_SKIP_CACHE")
    assert api.lookup(target, (X,)) is not None


def test_a_cached_config_that_no_longer_fits_is_ignored(own_cache: Path) -> None:
    target = blocked(autotune_effort="quick")
    quick(target)
    (file,) = (own_cache / "autotune").glob("*.json")
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "config": {"block_sizes": [3]}}))
    assert api.lookup(target, (X,)) is None


def test_force_autotune_measures_even_a_given_config(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(api, "autotune", lambda *a, **k: (calls.append(k), Config(block_sizes=[4]))[1])
    assert api.config_for(blocked(force_autotune=True), (X,), [Config(block_sizes=[2])])["block_sizes"] == [4]
    assert calls[0]["force"] is True


_HIT = """
import sys, torch
from helion.autotuner import api
from tests.autotuner import kernels
from tests.autotuner.kernels import FunctionTarget
target = FunctionTarget("blocked_sum", kernels.BlockedSum.spec, autotune_effort="quick")
assert api.config_for(target, (torch.ones(512, 8),))["block_sizes"][0] >= 128
heavy = ["sklearn", "scipy", "optuna", "matplotlib", "rich"]
heavy += ["helion.autotuner.strategy", "helion.autotuner.tuner", "helion.autotuner.executor"]
print([m for m in heavy if m in sys.modules])
"""


@pytest.mark.spawns
def test_a_cache_hit_imports_no_search() -> None:
    quick(blocked())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    other = subprocess.run([sys.executable, "-c", _HIT], capture_output=True, text=True, env=environment)
    assert other.returncode == 0, other.stderr
    assert other.stdout.strip() == "[]"


# -- where tuning is refused ---------------------------------------------------------------------------


@pytest.mark.spawns
def test_refused_in_a_data_loader_worker() -> None:
    class Tuning(torch.utils.data.Dataset[str]):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> str:
            try:
                quick(blocked())
            except exc.AutotuningDisallowedInEnvironment as error:
                return str(error)
            return "tuned"

    loader = torch.utils.data.DataLoader(Tuning(), num_workers=1, multiprocessing_context="fork")
    assert "data-loader worker" in next(iter(loader))[0]


class _SaysCuda(torch.Tensor):
    """A tensor that says that it is on a GPU, where there is none."""

    @staticmethod
    def __new__(cls, size: int) -> torch.Tensor:
        return torch.Tensor._make_wrapper_subclass(cls, (size,), device="cuda:0")  # type: ignore[attr-defined]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} was called on a tensor without data")


class _KnowsItsDevice(FunctionTarget):
    """Like a kernel, its key has the name of its device."""

    def cache_key(self, args: Any) -> CacheKey:
        return dataclasses.replace(super().cache_key(args), device=device_name(args[0].device))


class _TuningOnCuda(torch.utils.data.Dataset[tuple[str, ...]]):
    def __init__(self, x: torch.Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return 1

    def _outcome(self, call: Any) -> str:
        try:
            call()
        except exc.AutotuningDisallowedInEnvironment as error:
            return str(error)
        return "not refused"

    def __getitem__(self, index: int) -> tuple[str, ...]:
        target = _KnowsItsDevice("blocked_sum", kernels.BlockedSum.spec)
        return (
            self._outcome(lambda: api.autotune(target, (self.x,), effort="quick")),
            self._outcome(lambda: api.config_for(target, (self.x,))),
            self._outcome(lambda: api.config_for(blocked(autotune_effort="quick"), (X,))),
        )


@pytest.mark.gpu
@pytest.mark.spawns
def test_refused_on_cuda_tensors_in_a_forked_data_loader_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        x = torch.ones(8, device="cuda")
    else:
        # What torch's function answers in builds with CUDA once CUDA was used: no here, yes in a fork.
        here = os.getpid()
        monkeypatch.setattr(_compat_torch, "cuda_in_bad_fork", lambda: os.getpid() != here)
        x = _SaysCuda(8)
    loader = torch.utils.data.DataLoader(_TuningOnCuda(x), num_workers=1, multiprocessing_context="fork")
    asked, first_call, on_cpu = (texts[0] for texts in next(iter(loader)))
    assert "forked" in asked and "multiprocessing_context='spawn'" in asked
    assert first_call == asked
    assert "data-loader worker" in on_cpu and "forked" not in on_cpu


def test_refused_during_graph_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(exc.AutotuningDisallowedInEnvironment, match="graph is being captured"):
        quick(blocked())


def test_refused_in_a_tuning_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELION_AUTOTUNE_WORKER", "1")
    with pytest.raises(exc.AutotuningDisallowedInEnvironment, match="__main__"):
        quick(blocked())


def test_refused_for_arguments_without_data() -> None:
    with pytest.raises(exc.AutotuningDisallowedInEnvironment, match="no data"):
        api.autotune(blocked(), (torch.ones(4, device="meta"),), effort="quick")


def test_refused_inside_no_compile_but_a_cached_config_is_used() -> None:
    target = blocked(autotune_effort="quick")
    with no_compile(), pytest.raises(exc.CompilationForbidden):
        quick(target)
    tuned = quick(target)
    with no_compile():
        assert api.config_for(target, (X,)) == tuned
