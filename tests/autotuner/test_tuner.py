"""The tuner's loop: budgets, studies, leaders that are measured again, and how a search ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from helion import exc
from helion.autotuner import api
from helion.autotuner import winner
from helion.autotuner.executor import InProcessExecutor
from helion.autotuner.space import SearchSpace
from helion.autotuner.strategy import FiniteStrategy
from helion.autotuner.strategy import RandomStrategy
from helion.autotuner.trial import Status
from helion.autotuner.trial import Trial
from helion.autotuner.tuner import Budget
from helion.autotuner.tuner import Tuner
from helion.config import Config
from tests.waiting import wait_until

from . import kernels
from .kernels import FunctionTarget
from .kernels import X
from .kernels import blocked
from .kernels import misbehaving_target
from .kernels import quick

ROOT = Path(__file__).resolve().parents[2]


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
    target = misbehaving_target()
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


def test_nothing_wins_that_was_not_compared_with_the_default() -> None:
    """Two are compiled at the same time, and the time is over when the other one has its outcome."""
    clock = Clock()

    class SecondFirst(FakeExecutor):
        def poll(self, seconds: float) -> list[Trial]:
            self._queue.reverse()
            return super().poll(seconds)

    second_first = SecondFirst({1: 1.0, 2: 3.0}, clock)
    second_first.capacity = 2
    result = salts(second_first, [1, 2], budget=Budget(seconds=1.0), clock=clock).run()
    assert [t.config["salt"] for t in result.trials] == [2]
    assert (result.config["salt"], result.time_ms, result.default_ms) == (1, 1.0, 1.0)


def test_the_final_comparison_is_part_of_the_budget() -> None:
    clock = Clock()

    class Slow(FakeExecutor):
        def remeasure(self, recipe: Any, effort: Any) -> Any:
            clock.now += 1
            return super().remeasure(recipe, effort)

    executor = Slow({1: 1.0, 2: 1.01, 4: 1.02}, clock)
    salts(executor, [1, 2, 4], budget=Budget(seconds=8.0), clock=clock).run()
    assert sorted(executor.again) == [1, 1, 2, 2, 4, 4]  # the second round began in time
    assert clock.now - 100.0 <= 9.0


def test_compiling_is_part_of_the_budget() -> None:
    clock = Clock()

    class SlowToCompile(FakeExecutor):
        def submit(self, config: Config, recipe: Any) -> None:
            clock.now += 5
            super().submit(config, recipe)

    executor = SlowToCompile(dict.fromkeys((1, 2, 4, 8), 1.0), clock)
    salts(executor, [1, 2, 4, 8], budget=Budget(seconds=12.0), clock=clock).run()
    assert executor.measured == [1, 2]


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


def test_each_round_of_the_final_comparison_is_at_another_place_in_memory() -> None:
    class Noting(FakeExecutor):
        def remeasure(self, recipe: Any, effort: Any) -> Any:
            places.append(effort.place)
            return super().remeasure(recipe, effort)

    places: list[int] = []
    salts(Noting({1: 1.0, 2: 1.001}), [1, 2]).run()
    assert places[:6] == [1, 1, 2, 2, 3, 3]


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
    hangs = tmp_path / "hangs"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HELION_AUTOTUNE_BENCHMARK_TIMEOUT": "600",
        "TEST_HANG_MARKER": str(hangs),
    }
    process = subprocess.Popen(
        [sys.executable, str(script), str(log)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: log.exists() and hangs.exists())
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.strip() == "kept good"
    assert "ended: interrupted" in err
    with pytest.raises(ProcessLookupError):
        wait_until(lambda: os.killpg(process.pid, 0))


def test_tuning_from_a_thread_works() -> None:
    found: list[Config] = []
    thread = threading.Thread(target=lambda: found.append(quick(blocked())))
    thread.start()
    thread.join()
    assert found


@pytest.mark.slow
def test_searches_in_several_threads_at_once_work() -> None:
    """Two of one key, of which the second waits and finds what the first one kept, and one of another kernel."""
    targets = [blocked(), blocked(), misbehaving_target(autotune_config_overrides={"mode": "good"})]
    found: list[Config | BaseException | None] = [None] * len(targets)

    def tune(place: int) -> None:
        try:
            found[place] = quick(targets[place], force=False)
        except BaseException as error:
            found[place] = error

    threads = [threading.Thread(target=tune, args=(place,)) for place in range(len(targets))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(each, Config) for each in found), found
    assert found[0] == found[1]


def test_random_search_is_reproducible_through_the_setting() -> None:
    def tried(seed: int) -> list[Config]:
        result = api.run_search(
            misbehaving_target(autotune_random_seed=seed, autotune_config_overrides={"mode": "good"}),
            (X,),
            effort="quick",
            isolate=False,
            progress_bar=False,
            search=RandomStrategy,
        )
        return [t.config for t in result.trials]

    assert tried(1) == tried(1) != tried(2)


@pytest.mark.parametrize(("gain", "default_wins"), [(1.01, True), (1.05, False)])
def test_the_default_wins_unless_another_is_clearly_faster(gain: float, default_wins: bool) -> None:
    space = SearchSpace(kernels.BlockedSum.spec)
    default = space.default()
    other = space.config((0,))
    assert default is not None and other is not None and other != default
    trials = [Trial(other, Status.OK, 1.0), Trial(default, Status.OK, gain)]
    config, _, _ = winner.choose(trials, lambda c: 1.0 if c == other else gain, space)
    assert (config == default) == default_wins
