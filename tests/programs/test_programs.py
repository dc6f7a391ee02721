"""Generated programs: those that failed once, some hundred fresh ones, and the generator itself."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.programs import run
from tests.programs.building import build
from tests.programs.coverage import CONFIG_KEYS
from tests.programs.coverage import Coverage
from tests.programs.coverage import features
from tests.programs.printing import script
from tests.programs.program import Program
from tests.programs.run import GPU_MODES
from tests.programs.shrink import shrink
from tests.programs.statements import Store
from tests.programs.table import Expr
from tests.programs.worker import Result
from tests.programs.worker import Task
from tests.programs.worker import Worker
from tests.programs.worker import depends_on_blocks
from tests.programs.worker import perform

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.py"))
#: The seed of the fresh programs, how many parts of so many programs there are, and how many are in the suite.
SEED, PARTS, PROGRAMS, SAMPLED = "suite", 40, 10, 5


def parts(count: int, sampled: int) -> list[Any]:
    return [pytest.param(i, marks=[pytest.mark.sweep] if i >= sampled else []) for i in range(count)]


@pytest.mark.compiles
@pytest.mark.parametrize("path", CORPUS, ids=[p.stem for p in CORPUS])
def test_a_program_that_failed_once(path: Path) -> None:
    bad = [o for o in run.run_script(path) if o.status != "ok"]
    assert not bad, bad


@pytest.mark.slow
@pytest.mark.parametrize("part", parts(PARTS, SAMPLED))
def test_fresh_programs_without_a_gpu(part: int, tmp_path: Path) -> None:
    for number in range(part * PROGRAMS, (part + 1) * PROGRAMS):
        result = perform(Task(f"{SEED}:{number}", ("ref", "tiles", "tiles config", "calls")), tmp_path)
        assert not any(o.failed or o.status == "invalid" for o in result.outcomes), result.outcomes


@pytest.mark.compiles
@pytest.mark.parametrize("number", parts(120, 18))
def test_fresh_programs_on_the_software_gpu(number: int, tmp_path: Path) -> None:
    result = perform(Task(f"{SEED} gpu:{number}", (GPU_MODES[number % 3],)), tmp_path)
    failed = [o for o in result.outcomes if o.failed or o.status == "invalid"]
    assert failed == [], result.outcomes


def test_a_seed_gives_one_program() -> None:
    for seed in ("a", "b", "c"):
        assert script(build(seed)) == script(build(seed))
    assert script(build("a")) != script(build("b"))


@pytest.mark.slow
def test_every_feature_is_drawn() -> None:
    coverage = Coverage()
    for number in range(600):
        coverage.add(features(build(f"coverage:{number}")))
    assert [m for m in coverage.missing() if m not in CONFIG_KEYS] == []  # those are drawn once a program is bound


def _has(program: Program, op: str) -> bool:
    return any(e.op == op for e in program.expressions())


@pytest.mark.slow
def test_a_failure_shrinks_to_what_causes_it() -> None:
    """`exp` anywhere in a program plays the fault."""
    program = next(p for n in range(200) if _has(p := build(f"minor:{n}"), "exp") and p.weight() > 250)
    small = shrink(program, lambda p: _has(p, "exp"), seconds=60)
    assert _has(small, "exp")
    assert small.weight() < program.weight() / 3
    # An accumulator and its loop only go together, and so do the loops that a store in them needs.
    assert len(list(small.statements())) <= 6, script(small)


def test_a_wrong_kernel_is_seen(tmp_path: Path) -> None:
    """The reference of another program than the one that runs."""
    program = next(p for n in range(9) if not depends_on_blocks(p := build(f"wrong{n}")))
    other = copy.deepcopy(program)
    stores = [s for s in other.statements() if isinstance(s, Store)]
    value = stores[0].args[0]
    assert value.value is not None
    stores[0].args[0] = Expr(
        "where", [Expr("full", [], {"dims": (), "value": 1, "dtype": value.value.dtype, "form": "hl"}), value]
    )
    path = tmp_path / "wrong.py"
    text = script(program)
    path.write_text(text)
    runner = run.Runner(path)
    expected = [e + 1 if e.dtype is not run.torch.bool else ~e for e in runner.expected]
    runner.expected = tuple(expected)
    assert runner.run("ref").status == "wrong"


@pytest.mark.spawns
def test_a_process_that_dies_loses_one_program() -> None:
    worker = Worker(timeout=120)
    task = Task("one", ("ref",))
    try:
        assert [o.status for o in worker.run(task).outcomes] == ["ok"]
        worker.kill()
        assert [o.status for o in worker.run(task).outcomes] == ["crash"]
        assert [o.status for o in worker.run(task).outcomes] == ["ok"]
    finally:
        worker.close()


LOST = run.Outcome("gpu", "error", "AcceleratorError at support.py:195: CUDA error: an illegal instruction")


def test_no_mode_runs_after_the_gpu_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.Runner, "run", lambda self, mode: LOST if mode == "gpu" else run.Outcome(mode, "ok"))
    assert [o.mode for o in run.run_script(CORPUS[0], ("ref", "gpu", "tiles"))] == ["ref", "gpu"]


def test_a_process_that_lost_its_gpu_is_replaced() -> None:
    worker = Worker()
    process = worker._process = mock.Mock()
    task = Task("x", ("gpu",))
    worker._connection = mock.Mock(recv=lambda: ("done", Result(task, None, [LOST])), poll=lambda seconds: True)
    assert worker.run(task).outcomes == [LOST]
    process.kill.assert_called()
    assert worker._process is None
