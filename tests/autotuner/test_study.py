"""SharedStudy: several processes in one search, and kills at any point."""

from __future__ import annotations

import datetime
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from typing import ClassVar

import pytest
import torch

from helion import exc
from helion.autotuner import study as study_module
from helion.autotuner.executor import InProcessExecutor
from helion.autotuner.measure import Effort
from helion.autotuner.measure import Timing
from helion.autotuner.space import SearchSpace
from helion.autotuner.strategy import FiniteStrategy
from helion.autotuner.study import SharedStudy
from helion.autotuner.trial import Status
from helion.autotuner.trial import Trial
from helion.autotuner.tuner import Tuner
from helion.autotuner.tuner import TuningResult
from helion.config import Config
from tests.waiting import wait_until

from .kernels import misbehaving_target

ROOT = Path(__file__).resolve().parents[2]
A, B, C = (Config(num_warps=w, block_sizes=[w]) for w in (1, 2, 4))


@pytest.fixture(params=["journal", pytest.param("sqlite", marks=pytest.mark.slow)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "tune.journal") if request.param == "journal" else f"sqlite:///{tmp_path}/tune.db"


def other_process(study: SharedStudy, host: str = "elsewhere", pid: int = 1) -> SharedStudy:
    study.owner = f"{host}:{pid}"
    return study


def test_outcomes_reach_the_others_and_later_runs_once(where: str) -> None:
    one, two = SharedStudy(where, "k"), other_process(SharedStudy(where, "k"))
    good, bad = Trial(A, Status.OK, 1.25, 0.01, worker="cuda:0"), Trial(B, Status.CRASH, message="SIGSEGV")
    for trial in (good, bad):
        assert one.claim(trial.config)
        one.report(trial)
    assert two.updates() == [good, bad]
    assert two.updates() == [] and one.updates() == []
    assert SharedStudy(where, "k").updates() == [good, bad]
    assert SharedStudy(where, "another kernel").updates() == []


def test_what_one_measures_the_other_does_not(where: str) -> None:
    one, two = SharedStudy(where, "k"), other_process(SharedStudy(where, "k"))
    assert one.claim(A)
    assert two.claimed() == {A}
    assert not two.claim(A) and two.claim(B)
    assert one.claimed() == {B}
    one.report(Trial(A, Status.OK, 1.0))
    assert two.claimed() == set()
    assert not two.claim(A)  # done since it looked
    assert two.updates() == [Trial(A, Status.OK, 1.0)]


def test_a_claim_that_is_given_up_is_free(where: str) -> None:
    one, two = SharedStudy(where, "k"), other_process(SharedStudy(where, "k"))
    assert one.claim(A)
    one.give_up()
    assert two.claimed() == set() and two.claim(A)


@pytest.mark.spawns
def test_the_claims_of_a_dead_process_are_free(where: str) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    one, two = SharedStudy(where, "k"), SharedStudy(where, "k")
    other_process(one, one.host, dead.pid)
    assert one.claim(A) and one.claim(B)
    assert two.claim(A)  # noticed while claiming
    assert two.claimed() == set()  # or while looking


def test_old_claims_of_another_host_are_free_and_those_from_the_future_are_not(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = other_process(SharedStudy(where, "k")), SharedStudy(where, "k", lease_seconds=900)
    assert one.claim(A)

    class Clock(datetime.datetime):
        shift = datetime.timedelta()

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return datetime.datetime.now(tz) + cls.shift

    fake = type("fake", (), {"datetime": Clock})
    monkeypatch.setattr(study_module, "datetime", fake)
    Clock.shift = datetime.timedelta(hours=-5)
    assert two.claimed() == {A}
    Clock.shift = datetime.timedelta(hours=5)
    assert two.claimed() == set()


def test_an_outcome_whose_claim_was_taken_for_dead_still_counts(where: str) -> None:
    one, two = other_process(SharedStudy(where, "k")), SharedStudy(where, "k", lease_seconds=-1)
    assert one.claim(A)
    assert two.claimed() == set()  # released
    one.report(Trial(A, Status.OK, 1.0))
    assert [t.config for t in two.updates()] == [A]


def test_the_first_winner_is_everybodys(where: str) -> None:
    one, two = SharedStudy(where, "k"), SharedStudy(where, "k")
    assert one.agree(A, 1.0, lambda config: config) == (A, 1.0)
    assert two.agree(B, 0.9, lambda config: config) == (A, 1.0)


def test_a_winner_that_does_not_fit_the_kernel_is_replaced(where: str) -> None:
    one, two = SharedStudy(where, "k"), SharedStudy(where, "k")
    one.agree(A, 1.0, lambda config: config)
    assert two.agree(B, 0.9, lambda config: None) == (B, 0.9)


@pytest.mark.parametrize(
    "lie",
    [
        {},
        {"config": []},
        {"config": {"num_warps": 4}, "status": "perfect"},
        {"config": {"num_warps": 4}, "status": "ok", "time_ms": "fast"},
        {"config": {"num_warps": 4}, "status": "ok", "time_ms": -1.0},
        {"config": {"num_warps": 4}, "status": "ok", "time_ms": None},
        {"config": {"self": 4}, "status": "ok", "time_ms": 1.0},
        {"config": {"num_warps": 10**400}, "status": "ok", "time_ms": 1.0},
        [1, 2],
    ],
    ids=str,
)
def test_records_that_are_no_trials_count_as_absent(where: str, lie: object, caplog: pytest.LogCaptureFixture) -> None:
    one, two = SharedStudy(where, "k"), other_process(SharedStudy(where, "k"))
    for _ in range(2):
        one._study.ask().set_user_attr("trial", lie)
    one._study.set_user_attr("winner", lie)
    one.report(Trial(A, Status.OK, 1.0))
    assert two.updates() == [Trial(A, Status.OK, 1.0)]
    assert two.agree(B, 2.0, lambda config: config) == (B, 2.0)
    assert caplog.text.count("damaged records") == 1


def test_claims_that_are_no_configs_are_released(where: str) -> None:
    one, two = SharedStudy(where, "k"), other_process(SharedStudy(where, "k"))
    for text in ("{", "[" * 100_000, "7"):
        record = one._study.ask()
        record.set_user_attr("config", text)
        record.set_user_attr("owner", f"{one.host}:{os.getpid()}")
    one._mine.clear()
    assert two.claimed() == set() and two.claimed() == set()


def test_without_optuna_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(exc.AutotuneError, match=r"helion\[tune\]"):
        SharedStudy(str(tmp_path / "x"), "k")


def start(where: str, log: Path, evaluations: int, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.autotuner.study_run", where, str(log), str(evaluations), *more]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    return out.strip()


def measured(log: Path) -> list[tuple[str, str]]:
    """(mode, salt) of every measurement, in order."""
    return [tuple(line.split()[1:]) for line in log.read_text().splitlines()]  # type: ignore[misc]


@pytest.mark.spawns
def test_two_processes_share_the_work_and_agree(tmp_path: Path) -> None:
    where, log = str(tmp_path / "tune.journal"), tmp_path / "log"
    running = [start(where, log, 100, "-1", "2") for _ in range(2)]
    answers = {finish(p).rsplit(" ", 1)[0] for p in running}
    tried = measured(log)
    assert len(answers) == 1 and answers.pop().startswith("good")
    assert len(tried) == len(set(tried)) == 28  # 4 modes x 7 salts, each once
    assert len({line.split()[0] for line in log.read_text().splitlines()}) == 2


@pytest.mark.parametrize("point", [3.0, 8.5])
@pytest.mark.compiles
def test_a_search_killed_at_any_point_goes_on_and_loses_nothing(tmp_path: Path, point: float) -> None:
    where, log = str(tmp_path / "tune.journal"), tmp_path / "log"
    process = start(where, log, 100, str(point))
    wait_until(log.with_suffix(".waits").exists)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(measured(log)) == math.ceil(point)
    out = finish(start(where, log, 100))
    tried = measured(log)
    assert set(tried) == {(m, str(1 << s)) for m in ("good", "slow", "raise", "wrong") for s in range(7)}
    # At most the one that was being measured at the kill is measured again.
    assert len(tried) - len(set(tried)) <= 1
    assert out.startswith("good") and out.endswith(" 28")


@pytest.mark.parametrize("where", ["nosuchdatabase://host/x", "/proc/no/such/folder/tune.journal"])
def test_a_storage_that_cannot_be_opened_is_an_error_with_advice(where: str) -> None:
    with pytest.raises(exc.AutotuneError, match="autotune_storage cannot be opened") as caught:
        SharedStudy(where, "k")
    assert "without autotune_storage" in str(caught.value)


class _Table(InProcessExecutor):
    """Milliseconds by salt; what is not there fails."""

    times: ClassVar = {1: 2.0, 2: 1.0}

    def poll(self, seconds: float) -> list[Trial]:
        config, _ = self._queue.popleft()
        return [Trial(config, Status.OK, self.times[config["salt"]], 0.01)]

    def remeasure(self, recipe: Any, effort: Effort) -> Timing | None:
        ms = self.times.get(recipe.config["salt"])
        return None if ms is None else Timing((ms,))


def tuned(study: SharedStudy, *allowed: int) -> TuningResult:
    target = misbehaving_target(autotune_config_overrides={"mode": "good"})
    space = SearchSpace(target.config_spec, {"mode": "good"}, lambda config: config["salt"] in allowed)
    search = FiniteStrategy(space, [Config(mode="good", salt=salt) for salt in _Table.times])
    return Tuner(target, search, _Table((torch.ones(8),)), study=study).run()


def test_what_a_study_says_wins_only_where_it_works_here(tmp_path: Path) -> None:
    where, allowed = str(tmp_path / "tune.journal"), (1, 2, 4, 8)
    for salt in (4, 64):  # the first does not work here, the second is none of this search's
        liar = other_process(SharedStudy(where, "k"))
        liar.report(Trial(Config(mode="good", salt=salt), Status.OK, 1e-9))
    liar.agree(Config(mode="good", salt=8), 1e-9, lambda config: config)
    result = tuned(SharedStudy(where, "k"), *allowed)
    assert (result.config["salt"], result.time_ms) == (2, 1.0)
    assert SharedStudy(where, "k").agree(A, 9.0, lambda config: config)[0]["salt"] == 2


@pytest.mark.parametrize("question", ["updates", "claim", "report", "agree"])
def test_a_storage_that_does_not_answer_is_given_up(
    question: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study, never = SharedStudy(str(tmp_path / "tune.journal"), "k"), threading.Event()
    monkeypatch.setattr(study_module, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(SharedStudy, question, lambda *args: never.wait())
    try:
        assert tuned(study, 1, 2).config["salt"] == 2
    finally:
        never.set()
    assert "has not answered" in caplog.text
