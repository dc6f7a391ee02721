"""autotune and config_for: the whole way, in process and in worker processes."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
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
from helion.autotuner.executor import InProcessExecutor
from helion.autotuner.space import SearchSpace
from helion.autotuner.strategy import FiniteStrategy
from helion.autotuner.strategy import RandomStrategy
from helion.autotuner.trial import Status
from helion.autotuner.trial import Trial
from helion.autotuner.tuner import Budget
from helion.autotuner.tuner import Tuner
from helion.config import Config
from helion.runtime.compile_guard import no_compile

from . import kernels
from .kernels import FunctionTarget

X = torch.ones(512, 8)
ROOT = Path(__file__).resolve().parents[2]


def blocked(**settings: Any) -> FunctionTarget:
    return FunctionTarget("blocked_sum", kernels.BlockedSum.spec, **settings)


def misbehaving(**settings: Any) -> FunctionTarget:
    return FunctionTarget("misbehaving", kernels.Misbehaving.spec, **settings)


def quick(target: FunctionTarget, **options: Any) -> Config:
    return api.autotune(
        target,
        (X,),
        **{"effort": "quick", "isolate": False, "progress_bar": False, "search": "RandomSearch", **options},
    )


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
    assert quick(misbehaving(), configs=configs)["mode"] == "good"


def test_without_the_accuracy_check_wrong_answers_may_win() -> None:
    configs = [Config(mode=m) for m in ("slow", "wrong")]
    assert quick(misbehaving(autotune_accuracy_check=False), configs=configs)["mode"] == "wrong"


def test_the_baseline_may_be_a_function() -> None:
    target = misbehaving(autotune_baseline_fn=lambda x: x * 2.1)
    assert quick(target, configs=[Config(mode=m) for m in ("good", "wrong")])["mode"] == "wrong"


def test_tolerances_come_from_the_settings() -> None:
    target = misbehaving(autotune_baseline_rtol=0.2)
    assert quick(target, configs=[Config(mode=m) for m in ("slow", "wrong")])["mode"] == "wrong"


def test_ones_own_benchmark_function_decides() -> None:
    times = iter([3.0, 1.0, 2.0])
    target = misbehaving(autotune_benchmark_fn=lambda call: (call(), next(times, 1.0))[1])
    result = api.run_search(
        target, (X,), effort="quick", isolate=False, progress_bar=False, configs=[Config(salt=s) for s in (2, 4, 8)]
    )
    assert [t.time_ms for t in result.trials] == [3.0, 1.0, 2.0]
    assert result.config["salt"] == 4


def test_overrides_filter_and_seed_configs_are_honoured() -> None:
    seen: list[Config] = []
    target = misbehaving(
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
    from helion.autotuner import surrogate

    monkeypatch.setattr(surrogate, "available", lambda: False)
    assert quick(blocked(), search=None)["block_sizes"][0] >= 128


# -- failing ------------------------------------------------------------------------------------------


def test_when_everything_fails_the_commonest_reason_is_named() -> None:
    target = misbehaving(autotune_accuracy_check=False)
    configs = [Config(mode="compile_raise", salt=s) for s in (1, 2, 4)] + [Config(mode="raise")]
    with pytest.raises(exc.NoConfigFound) as caught:
        quick(target, configs=configs)
    text = str(caught.value)
    assert "all 4 configs failed (3 compile error, 1 run error)" in text
    assert "shared memory" in text
    assert "@helion.kernel(config=helion.Config(mode='compile_raise', salt=1))" in text


def test_a_failed_search_keeps_nothing_in_the_cache() -> None:
    target = misbehaving(autotune_accuracy_check=False)
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


# -- the tuner's loop ------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeExecutor(InProcessExecutor):
    """Times by a table; every trial takes a second of the fake clock."""

    def __init__(self, times: dict[int, float], clock: Clock | None = None) -> None:
        super().__init__((X,))
        self.times = times
        self.clock = clock
        self.again: list[int] = []
        self.measured: list[int] = []

    def poll(self, seconds: float) -> list[Trial]:
        config, _ = self._queue.popleft()
        if self.clock is not None:
            self.clock.now += 1
        self.measured.append(config["salt"])
        ms = self.times.get(config["salt"])
        return [Trial(config, Status.CRASH) if ms is None else Trial(config, Status.OK, ms, 0.01)]

    def remeasure(self, recipe: Any, effort: Any) -> Any:
        from helion.autotuner.measure import Timing

        self.again.append(recipe.config["salt"])
        return Timing((self.times[recipe.config["salt"]],))


def salts(executor: FakeExecutor, values: list[int], **options: Any) -> Tuner:
    target = misbehaving()
    search = FiniteStrategy(SearchSpace(target.config_spec), [Config(salt=s) for s in values])
    return Tuner(target, search, executor, **options)


def test_budget_of_evaluations() -> None:
    executor = FakeExecutor(dict.fromkeys((1, 2, 4, 8), 1.0))
    result = salts(executor, [1, 2, 4, 8], budget=Budget(evaluations=3)).run()
    assert executor.measured == [1, 2, 4] and result.ended == "budget of 3 evaluations"


def test_budget_of_seconds() -> None:
    clock = Clock()
    executor = FakeExecutor(dict.fromkeys((1, 2, 4, 8), 1.0), clock)
    result = salts(executor, [1, 2, 4, 8], budget=Budget(seconds=2.0), clock=clock).run()
    assert executor.measured == [1, 2] and "2.0 seconds" in result.ended


def test_a_search_without_time_uses_the_default_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    target = blocked(autotune_budget_seconds=0.0)
    result = api.run_search(target, (X,), effort="quick", isolate=False, progress_bar=False)
    assert result.config == kernels.BlockedSum.spec.default_config()
    assert result.time_ms is None and result.trials == ()
    assert "before anything was measured" in caplog.text and "raise the budget" in caplog.text


def test_what_was_not_measured_is_not_kept() -> None:
    assert quick(blocked(autotune_budget_seconds=0.0)) == kernels.BlockedSum.spec.default_config()
    assert api.lookup(blocked(), (X,)) is None
    assert quick(blocked(), force=False)["block_sizes"][0] >= 128


def test_without_time_the_first_of_the_given_configs_is_used() -> None:
    executor = FakeExecutor(dict.fromkeys((8, 4), 1.0))
    assert salts(executor, [8, 4], budget=Budget(seconds=0.0)).run().config["salt"] == 8


def test_time_that_ends_before_the_default_has_an_outcome_is_no_failure_of_it() -> None:
    clock = Clock()

    class SecondFirst(FakeExecutor):
        def poll(self, seconds: float) -> list[Trial]:
            self._queue.reverse()
            return super().poll(seconds)

    second_first = SecondFirst({1: 1.0}, clock)
    second_first.capacity = 2
    result = salts(second_first, [1, 2], budget=Budget(seconds=1.0), clock=clock).run()
    assert [t.config["salt"] for t in result.trials] == [2] and not result.trials[0].ok
    assert result.config["salt"] == 1


def test_a_default_that_fails_is_a_failure_however_short_the_time() -> None:
    clock = Clock()
    with pytest.raises(exc.NoConfigFound, match="all 1 configs failed"):
        salts(FakeExecutor({}, clock), [1, 2], budget=Budget(seconds=1.0), clock=clock).run()


class LyingStudy:
    """A shared study whose storage answers with errors, or with nonsense."""

    def __init__(self, trials: list[Trial], fails: bool) -> None:
        self.trials, self.fails = trials, fails

    def updates(self) -> list[Trial]:
        found, self.trials = self.trials, []
        return found

    def claimed(self) -> set[Config]:
        return set()

    def claim(self, config: Config) -> bool:
        if self.fails:
            raise OSError(28, "No space left on device")
        return True

    def report(self, trial: Trial) -> None:
        pass

    def give_up(self) -> None:
        pass

    def agree(self, config: Config, time_ms: float, fits: Any) -> tuple[Config, float]:
        return config, time_ms


def test_trials_of_others_that_do_not_fit_the_kernel_are_left_out() -> None:
    odd = [Config(salt=3), Config(salt="x"), Config(other=1), Config(mode="none")]
    study = LyingStudy([Trial(c, Status.OK, 1e-6) for c in odd], fails=False)
    result = salts(FakeExecutor({1: 1.0, 2: 2.0}), [1, 2], study=study).run()
    assert result.config["salt"] == 1 and len(result.trials) == 2


def test_a_lie_about_a_fast_config_is_found_out_by_measuring_it_again() -> None:
    lie = Trial(kernels.Misbehaving.spec.normalize(Config(salt=8)), Status.OK, 0.9)
    result = salts(FakeExecutor({1: 1.0, 2: 2.0, 8: 50.0}), [1, 2], study=LyingStudy([lie], fails=False)).run()
    assert result.config["salt"] == 1


def test_where_the_shared_storage_fails_tuning_goes_on_alone(caplog: pytest.LogCaptureFixture) -> None:
    result = salts(FakeExecutor({1: 1.0, 2: 0.5}), [1, 2], study=LyingStudy([], fails=True)).run()
    assert result.config["salt"] == 2 and caplog.text.count("goes on alone") == 1


def test_patience_ends_a_search_that_gains_nothing() -> None:
    times = {1: 5.0, 2: 4.0, 4: 3.99, 8: 3.98, 16: 3.97, 32: 1.0}
    result = salts(FakeExecutor(times), list(times), budget=Budget(patience=3)).run()
    assert len(result.trials) == 5 and "last 3 evaluations" in result.ended


def test_leaders_are_measured_again_in_turn() -> None:
    executor = FakeExecutor({1: 1.0, 2: 1.01, 4: 5.0})
    salts(executor, [1, 2, 4]).run()
    assert set(executor.again) == {1, 2}
    assert executor.again[:4] == [1, 2, 2, 1]


def test_a_lucky_first_measurement_does_not_win() -> None:
    class Lucky(FakeExecutor):
        def remeasure(self, recipe: Any, effort: Any) -> Any:
            self.times = {1: 2.0, 2: 1.05}  # the truth
            return super().remeasure(recipe, effort)

    result = salts(Lucky({1: 1.0, 2: 1.06}), [1, 2]).run()
    assert result.config["salt"] == 2 and result.time_ms == 1.05


def test_the_default_takes_part_in_the_final_comparison() -> None:
    class SlowerMachine(FakeExecutor):
        def remeasure(self, recipe: Any, effort: Any) -> Any:
            self.times = {1: 8.0, 2: 4.0, 4: 20.0}  # everything takes four times as long as before
            return super().remeasure(recipe, effort)

    result = salts(SlowerMachine({1: 2.0, 2: 1.0, 4: 5.0}), [1, 2, 4]).run()
    assert result.config["salt"] == 2
    assert (result.time_ms, result.default_ms) == (4.0, 8.0)


def test_the_default_wins_where_nothing_is_faster_after_all() -> None:
    class Lucky(FakeExecutor):
        def remeasure(self, recipe: Any, effort: Any) -> Any:
            self.times = {1: 2.0, 2: 2.0}
            return super().remeasure(recipe, effort)

    result = salts(Lucky({1: 2.0, 2: 1.0}), [1, 2]).run()
    assert result.config["salt"] == 1


def test_a_default_that_is_far_slower_is_not_measured_again() -> None:
    executor = FakeExecutor({1: 20.0, 2: 1.0, 4: 1.01})
    result = salts(executor, [1, 2, 4]).run()
    assert set(executor.again) == {2, 4} and result.default_ms == 20.0


def test_ctrl_c_keeps_the_best_so_far() -> None:
    class Interrupted(FakeExecutor):
        def poll(self, seconds: float) -> list[Trial]:
            if len(self.measured) == 2:
                raise KeyboardInterrupt
            return super().poll(seconds)

    result = salts(Interrupted({1: 2.0, 2: 1.0, 4: 0.5}), [1, 2, 4]).run()
    assert result.config["salt"] == 2 and result.ended == "interrupted"


def test_ctrl_c_before_anything_worked_is_an_interrupt() -> None:
    class Interrupted(FakeExecutor):
        def poll(self, seconds: float) -> list[Trial]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        salts(Interrupted({}), [1, 2]).run()


def test_configs_that_generate_the_same_code_are_measured_once() -> None:
    class Same(FunctionTarget):
        def recipe(self, config: Config) -> Any:
            return super().recipe(Config(mode="good", salt=max(config["salt"], 8)))

    target = Same("misbehaving", kernels.Misbehaving.spec)
    executor = FakeExecutor({1: 1.0, 8: 1.0, 16: 1.05})
    executor.capacity = 3
    search = FiniteStrategy(SearchSpace(target.config_spec), [Config(salt=s) for s in (1, 2, 4, 8, 16)])
    result = Tuner(target, search, executor).run()
    assert executor.measured == [1, 16]
    assert [t.time_ms for t in result.trials] == [1.0, 1.0, 1.0, 1.0, 1.05]
    assert set(executor.again) == {8, 16} and executor.again.count(8) == executor.again.count(16)


@pytest.mark.spawns
def test_sigint_in_the_terminal_keeps_the_best_and_ends_the_workers(tmp_path: Path) -> None:
    script = tmp_path / "tune.py"
    script.write_text(
        "import signal, sys, torch\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job of a shell inherits "ignore"
        "from helion.autotuner import api\n"
        "from tests.autotuner import kernels\n"
        "from tests.autotuner.kernels import FunctionTarget\n"
        "from helion.config import Config\n"
        "target = FunctionTarget('misbehaving', kernels.Misbehaving.spec)\n"
        "configs = [Config(mode='good')] + [Config(mode='hang', salt=s) for s in (1, 2, 4, 8)]\n"
        "if __name__ == '__main__':\n"
        "    config = api.autotune(target, (torch.ones(8),), effort='quick', configs=configs, log=sys.argv[1])\n"
        "    print('kept', config['mode'])\n"
    )
    log = tmp_path / "log.json"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HELION_AUTOTUNE_BENCHMARK_TIMEOUT": "600"}
    process = subprocess.Popen(
        [sys.executable, str(script), str(log)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 120
    while not log.exists() and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.strip() == "kept good"
    assert "ended: interrupted" in err
    end = time.monotonic() + 30
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(process.pid, 0)
            time.sleep(0.1)


def test_tuning_from_a_thread_works() -> None:
    found: list[Config] = []
    thread = threading.Thread(target=lambda: found.append(quick(blocked())))
    thread.start()
    thread.join()
    assert found


def test_random_search_is_reproducible_through_the_setting() -> None:
    def tried(seed: int) -> list[Config]:
        result = api.run_search(
            misbehaving(autotune_random_seed=seed, autotune_config_overrides={"mode": "good"}),
            (X,),
            effort="quick",
            isolate=False,
            progress_bar=False,
            search=RandomStrategy,
        )
        return [t.config for t in result.trials]

    assert tried(1) == tried(1) != tried(2)
