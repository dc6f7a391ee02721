"""Executors: what candidates do to a worker, and what the autotuner makes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from helion import exc
from helion.autotuner import process_executor as executor_module
from helion.autotuner.executor import Executor
from helion.autotuner.executor import InProcessExecutor
from helion.autotuner.measure import Effort
from helion.autotuner.process_executor import ProcessExecutor
from helion.autotuner.travel import CannotTravel
from helion.autotuner.trial import Status
from helion.autotuner.trial import Trial
from helion.config import Config
from tests.waiting import wait_until

from . import kernels
from .kernels import SourceRecipe

FILE = kernels.__file__
pytestmark = pytest.mark.xdist_group("executor")  # one set of worker processes for all
_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
QUICK = Effort(total_ms=2.0, least=3)


def recipe(mode: str, salt: int = 1) -> SourceRecipe:
    return SourceRecipe(FILE, "misbehaving", Config(mode=mode, salt=salt))


def run_all(executor: Executor, recipes: list[SourceRecipe], seconds: float = 300.0) -> dict[str, Trial]:
    """Mode -> trial."""
    for r in recipes:
        executor.submit(r.config, r)
    trials: dict[str, Trial] = {}
    end = time.monotonic() + seconds
    while len(trials) < len(recipes):
        assert time.monotonic() < end, (
            f"no outcome for {[r.config['mode'] for r in recipes if r.config['mode'] not in trials]}"
        )
        for trial in executor.poll(1.0):
            trials[trial.config["mode"]] = trial
    return trials


@pytest.fixture(scope="module")
def executor() -> Iterator[ProcessExecutor]:
    # Time enough for a slow machine: only a candidate that is to run out of it gets little.
    made = ProcessExecutor((torch.arange(8.0),), compile_jobs=1, compile_timeout=120.0, run_timeout=120.0)
    made.effort = QUICK
    made.set_baseline(recipe("good"), None)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("mode", "status", "says"),
    [
        ("good", Status.OK, ""),
        ("crash", Status.CRASH, "SIGSEGV"),
        ("hang", Status.RUN_TIMEOUT, "1 s"),
        ("out_of_memory", Status.OUT_OF_MEMORY, "memory"),
        ("raise", Status.RUN_ERROR, "misaligned address"),
        ("wrong", Status.WRONG_ANSWER, "elements differ"),
        ("compile_hang", Status.COMPILE_TIMEOUT, "1 s"),
        ("compile_raise", Status.COMPILE_ERROR, "shared memory"),
        ("compile_crash", Status.CRASH, "compiler killed by SIGABRT"),
    ],
)
@pytest.mark.spawns
def test_an_outcome_is_named_and_the_next_candidate_still_runs(
    executor: ProcessExecutor, mode: str, status: Status, says: str
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        for limit, hangs in (("_run_timeout", "hang"), ("_compile_timeout", "compile_hang")):
            if mode == hangs:
                patched.setattr(executor, limit, executor_module._Usual(1.0, least=1.0, times=20.0))
        trial = run_all(executor, [recipe(mode)])[mode]
    assert trial.status is status, trial.message
    assert says in trial.message
    after = run_all(executor, [recipe("good", salt=2)])["good"]
    assert after.ok, after.message


@pytest.mark.spawns
def test_time_in_which_the_program_was_stopped_is_not_the_candidates(
    executor: ProcessExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, wait, stops = time.monotonic, executor_module.wait, [0.0]

    def stopped_once(connections: list[Any], timeout: float) -> list[Any]:
        if not stops[0] and executor._working:
            stops[0] = 1e4
            return []
        return wait(connections, timeout)

    monkeypatch.setattr(time, "monotonic", lambda: clock() + stops[0])
    monkeypatch.setattr(executor_module, "wait", stopped_once)
    trial = run_all(executor, [recipe("good", salt=16)], seconds=1e5)["good"]
    assert stops[0] and trial.ok, trial.message


@pytest.mark.spawns
def test_failures_among_good_candidates_cost_only_themselves(executor: ProcessExecutor) -> None:
    modes = ["good", "crash", "wrong", "slow", "raise"]
    trials = run_all(executor, [recipe(m, salt=4) for m in modes])
    assert {m for m in modes if trials[m].ok} == {"good", "slow"}
    assert trials["slow"].time_ms >= 20.0  # how much less the other takes, a busy machine decides


@pytest.mark.spawns
def test_a_worker_killed_from_outside_is_replaced_and_the_candidate_tried_again(
    executor: ProcessExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    monkeypatch.setenv("TEST_KILL_MARKER", str(marker))
    for _, pid in executor.processes():  # restarted below, with the variable set
        os.kill(pid, signal.SIGKILL)
    trial = run_all(executor, [recipe("killed")])["killed"]
    assert marker.exists()
    assert trial.ok, trial.message


@pytest.mark.spawns
def test_all_workers_killed_while_idle_do_not_lose_a_candidate(executor: ProcessExecutor) -> None:
    for _, pid in executor.processes():
        os.kill(pid, signal.SIGKILL)
    assert run_all(executor, [recipe("good", salt=8)])["good"].ok


@pytest.mark.spawns
def test_remeasuring_gives_new_samples(executor: ProcessExecutor) -> None:
    timing = executor.remeasure(recipe("good"), QUICK)
    assert timing is not None and len(timing.samples) >= 3
    assert executor.remeasure(recipe("crash"), QUICK) is None
    assert executor.remeasure(recipe("good"), QUICK) is not None


@pytest.mark.compiles
def test_cancel_ends_a_running_candidate_at_once(executor: ProcessExecutor) -> None:
    executor.submit(recipe("hang").config, recipe("hang"))
    wait_until(lambda: executor.poll(0.1) or any(worker.started_running for worker in executor._working))
    executor.cancel()
    assert run_all(executor, [recipe("good", salt=16)])["good"].ok
    assert executor.poll(0) == []


@pytest.mark.spawns
def test_close_leaves_no_process_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(os.listdir(tempfile.gettempdir()))
    made = ProcessExecutor((torch.ones(2),), compile_jobs=1)
    made.submit(recipe("slow").config, recipe("slow"))
    made.poll(0.2)
    pids = [pid for _, pid in made.processes()]
    made.close()
    assert pids and set(os.listdir(tempfile.gettempdir())) <= before
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.spawns
def test_arguments_that_cannot_be_pickled_are_told_apart_from_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotTravel, match="generator"):
        ProcessExecutor((torch.ones(2), (i for i in range(3))))
    code = """
import resource, signal, torch
from helion import exc
from helion.autotuner.process_executor import ProcessExecutor
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit, elements in [(1 << 16, 1 << 20), (1 << 12, 1 << 12)]:  # the second leaves a part for when the file is closed
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, 1 << 16))
    try:
        ProcessExecutor((torch.ones(elements),))
    except exc.AutotuneError as error:
        print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_ENVIRONMENT)
    assert done.stdout.count("AutotuneError") == done.stdout.count("TMPDIR") == 2, done.stderr


@pytest.mark.spawns
def test_two_devices_share_the_candidates() -> None:
    made = ProcessExecutor((torch.arange(8.0),), devices=["cpu", "cpu"], compile_jobs=0)
    try:
        made.effort = QUICK
        for salt in (1, 2, 4, 8):
            made.submit(recipe("slow", salt).config, recipe("slow", salt))
        done: list[Trial] = []
        while len(done) < 4:
            done += made.poll(5.0)
        assert all(t.ok for t in done)
        assert len([n for n, _ in made.processes()]) == 2
    finally:
        made.close()


def test_in_process_checks_and_measures() -> None:
    made = InProcessExecutor((torch.arange(8.0),))
    made.effort = QUICK
    made.set_baseline(None, lambda x: x * 2)
    trials = run_all(made, [recipe(m) for m in ("good", "wrong", "raise", "compile_raise", "out_of_memory")])
    assert {m: t.status for m, t in trials.items()} == {
        "good": Status.OK,
        "wrong": Status.WRONG_ANSWER,
        "raise": Status.RUN_ERROR,
        "compile_raise": Status.COMPILE_ERROR,
        "out_of_memory": Status.OUT_OF_MEMORY,
    }
    made.close()


def test_a_baseline_that_fails_is_an_error_with_advice() -> None:
    made = InProcessExecutor((torch.arange(8.0),))
    with pytest.raises(exc.AutotuneError, match="autotune_baseline_fn"):
        made.set_baseline(recipe("raise"), None)
    made.close()


def test_in_place_kernels_are_checked_by_what_they_write_and_leave_the_arguments_alone() -> None:
    x = torch.zeros(4)
    made = InProcessExecutor((x,))
    made.effort = QUICK
    right, wrong = (SourceRecipe(FILE, "in_place", Config(amount=a)) for a in (1, 2))
    made.set_baseline(right, None)
    made.submit(right.config, right)
    made.submit(wrong.config, wrong)
    first, second = made.poll(1), made.poll(1)
    assert first[0].ok and second[0].status is Status.WRONG_ANSWER
    assert x.eq(0).all()
    made.close()


@pytest.mark.spawns
def test_candidates_are_compiled_while_others_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "events"
    monkeypatch.setenv("TEST_EVENTS", str(log))
    made = ProcessExecutor((torch.ones(2),), compile_jobs=1)
    try:
        made.effort = QUICK
        for salt in (1, 2, 4, 8):
            made.submit(Config(salt=salt), SourceRecipe(FILE, "slow_to_compile", Config(salt=salt)))
        done: list[Trial] = []
        while len(done) < 4:
            done += made.poll(5.0)
        assert all(t.ok for t in done), done
    finally:
        made.close()
    events = [line.split() for line in log.read_text().splitlines()]
    spans = [(what, int(salt), int(pid), float(start), float(end)) for what, salt, pid, start, end in events]
    run = next(s for s in spans if s[:2] == ("run", 1))
    compiled = next(s for s in spans if s[:2] == ("compile", 2))
    assert run[2] != compiled[2] and compiled[3] < run[4] < compiled[4]


def test_timeouts_shrink_to_what_is_far_beyond_the_usual_and_never_grow() -> None:
    usual = executor_module._Usual(most=60.0, least=10.0, times=8.0)
    for _ in range(7):
        usual.add(0.5)
    assert usual.limit == 60.0
    usual.add(0.5)
    assert usual.limit == 10.0
    for _ in range(64):
        usual.add(3.0)
    assert usual.limit == 24.0
    for _ in range(64):
        usual.add(30.0)
    assert usual.limit == 60.0
