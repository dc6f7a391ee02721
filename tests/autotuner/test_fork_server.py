"""The fork server: one process per program that imports, ends with it, and has workers as good as new."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from helion.autotuner import fork_server
from helion.autotuner.process_executor import ProcessExecutor
from tests.waiting import wait_until

from .test_executor import QUICK
from .test_executor import recipe
from .test_executor import run_all

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.spawns, pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux")]

_SCRIPT = """
import os, sys, torch
from helion.autotuner import api, fork_server
from helion.config import Config
from tests.autotuner import kernels
from tests.autotuner.kernels import FunctionTarget
target, x = FunctionTarget("misbehaving", kernels.Misbehaving.spec), torch.ones(8)

def search(salt=1):
    configs = [Config(mode="good", salt=salt), Config(mode="slow", salt=salt)]
    result = api.run_search(target, (x,), configs=configs, effort="quick", log_level=0, budget_seconds=900)
    assert [t.ok for t in result.trials] == [True, True], result.trials
"""


def run(
    tmp_path: Path, code: str, customize: str = "", environment: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    """A program that searches, with a `sitecustomize` of its own."""
    (tmp_path / "sitecustomize.py").write_text(customize)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = {**environment, "PYTHONPATH": path, "HELION_CACHE_DIR": str(tmp_path / "cache")}
    return subprocess.run(
        [sys.executable, "-c", _SCRIPT + code], capture_output=True, text=True, env=environment, timeout=900
    )


@pytest.fixture
def executor() -> Iterator[ProcessExecutor]:
    made = ProcessExecutor((torch.arange(8.0),), compile_jobs=1, compile_timeout=120.0, run_timeout=120.0)
    made.effort = QUICK
    made.set_baseline(recipe("good"), None)
    yield made
    made.close()


def parent_of(pid: int) -> int:
    """Of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def server() -> fork_server.ForkServer:
    """This program's."""
    found = fork_server.shared()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def ten_searches(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    """Of a program that made ten: the processes that imported, and its and its server's, with how many servers it
    started and what was wrong with them."""
    folder = tmp_path_factory.mktemp("ten_searches")
    imports = folder / "imports"
    slow = f"import os, time\ntime.sleep(0.3)\nopen({str(imports)!r}, 'a').write(f'{{os.getpid()}}\\n')\n"
    code = "for salt in range(10): search(2 ** (salt % 7))\nprint(os.getpid(), fork_server.shared().pid)\n"
    code += "print(fork_server._servers.started, fork_server._servers.problem)\n"
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = run(folder, code, slow, environment)
    assert done.returncode == 0, done.stderr
    return imports.read_text().split(), done.stdout.splitlines()


@pytest.mark.xdist_group("ten_searches")  # one program for both
def test_a_server_has_one_thread_though_numpy_starts_one_for_each_core(ten_searches: Any) -> None:
    assert ten_searches[1][1] == "1 None"


@pytest.mark.xdist_group("ten_searches")
def test_ten_searches_import_once(ten_searches: Any) -> None:
    # The program itself, and its server: no worker.
    assert ten_searches[0] == ten_searches[1][0].split()


def test_workers_are_children_of_the_server(executor: ProcessExecutor) -> None:
    pids = [pid for _, pid in executor.processes()]
    assert pids and {parent_of(pid) for pid in pids} == {server().pid}


def test_a_candidate_whose_worker_died_with_the_server_is_measured_all_the_same(executor: ProcessExecutor) -> None:
    paused = recipe("pause", 8)
    executor.submit(paused.config, paused)
    wait_until(lambda: any(worker.started_running for worker in executor._working) or executor.poll(0.05))
    os.kill(server().pid, signal.SIGKILL)
    trials = []
    wait_until(lambda: trials.extend(executor.poll(0.2)) or trials)
    assert [(t.config, t.ok) for t in trials] == [(paused.config, True)], trials


def test_a_worker_has_the_programs_environment_of_now(
    executor: ProcessExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all(executor, [recipe("good", 2)])  # the server runs
    monkeypatch.setenv("TEST_OF_NOW", "yes")
    monkeypatch.delenv("HELION_CACHE_DIR")
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.chdir(tmp_path)
    (worker,) = (w for w in executor._workers() if w.name == "measure")
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "reports.py").write_text(
        "import dataclasses, os, sys\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Reports:\n"
        "    def build(self, args):\n"
        "        return lambda x: open('found', 'w').write(os.environ['TEST_OF_NOW']\n"
        "            + str('HELION_CACHE_DIR' in os.environ)) and x * 2\n"
        "    def precompile(self, fn, args): pass\n"
    )
    from reports import Reports  # type: ignore[import-not-found]  # late: the test writes it

    assert executor.remeasure(Reports(), QUICK) is not None
    assert (tmp_path / "found").read_text() == "yesFalse"


def test_what_is_read_when_a_library_starts_takes_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    first = server()
    monkeypatch.setenv("TEST_ANYTHING", "1")
    monkeypatch.setenv("KMP_INIT_AT_FORK", "FALSE")  # as scikit-learn does when a search imports it
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/tmp")  # as torch.compile does
    assert server() is first
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    second = server()
    assert second is not first and second.alive and not first.alive


def test_a_server_outlives_the_thread_that_started_it() -> None:
    fork_server._servers.close()
    found: list[fork_server.ForkServer] = []
    thread = threading.Thread(target=lambda: found.append(server()))
    thread.start()
    thread.join()
    assert server() is found[0]
    made = ProcessExecutor((torch.arange(8.0),), compile_jobs=0)
    try:
        assert run_all(made, [recipe("good")])["good"].ok and found[0].alive
    finally:
        made.close()


def test_an_idle_server_ends_and_the_next_search_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    fork_server._servers.close()
    start = fork_server._START.replace(
        "main(int", "import helion.autotuner.fork_main as m; m.UNUSED_SECONDS = 0.2; main(int"
    )
    monkeypatch.setattr(fork_server, "_START", start)
    idle = server()
    wait_until(lambda: not idle.alive)
    monkeypatch.undo()
    assert server() is not idle and fork_server._servers.problem is None


def test_a_fork_of_the_program_has_a_server_of_its_own(tmp_path: Path) -> None:
    code = """
torch.set_num_threads(1)
search()
mine = fork_server.shared()
pid = os.fork()
if pid == 0:
    search()
    assert fork_server.shared().pid != mine.pid
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
search()
print(fork_server.shared() is mine)
"""
    done = run(tmp_path, code)
    assert done.stdout == "True\n", done.stderr


def test_where_an_import_starts_a_thread_workers_are_new_interpreters(tmp_path: Path) -> None:
    thread = "import threading, time\nthreading.Thread(target=time.sleep, args=(3600,), daemon=True).start()\n"
    code = "search()\nprint(fork_server.shared(), fork_server._servers.problem)\n"
    # Each of them imports for itself: one that compiles will do.
    done = run(tmp_path, code, thread, {**os.environ, "HELION_AUTOTUNE_PRECOMPILE_JOBS": "1"})
    assert done.stdout.startswith("None") and "2 threads are running" in done.stdout, done.stdout + done.stderr


def test_servers_that_are_killed_again_and_again_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_server, "_servers", fork_server._Servers())
    for _ in range(fork_server.MOST_DEATHS):
        os.kill(server().pid, signal.SIGKILL)
        wait_until(lambda: not fork_server._servers.servers[-1].alive)
    assert fork_server.shared() is None
    made = ProcessExecutor((torch.arange(8.0),), compile_jobs=0)
    try:
        assert run_all(made, [recipe("good")])["good"].ok
        assert {parent_of(pid) for _, pid in made.processes()} == {os.getpid()}
    finally:
        made.close()


def test_a_killed_program_takes_its_server_along_though_a_fork_of_it_lives(tmp_path: Path) -> None:
    code = """
import time
search()
child = os.fork()
if child == 0:
    time.sleep(3600)
print(fork_server.shared().pid, child, flush=True)
time.sleep(3600)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HELION_CACHE_DIR": str(tmp_path / "cache")}
    program = subprocess.Popen([sys.executable, "-c", _SCRIPT + code], stdout=-1, text=True, env=environment)
    assert program.stdout is not None
    of_server, child = map(int, program.stdout.readline().split())
    try:
        program.kill()
        program.wait()
        wait_until(lambda: not Path(f"/proc/{of_server}").exists())
        assert Path(f"/proc/{child}").exists()
    finally:
        os.kill(child, signal.SIGKILL)
        program.stdout.close()


def test_a_server_keeps_bytecode_where_pytorchs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "pycache_prefix", None)
    given = {"PYTHONDONTWRITEBYTECODE": "1"}
    monkeypatch.setattr(torch.__spec__, "cached", __file__)
    assert "PYTHONPYCACHEPREFIX" not in fork_server._environment(given)
    monkeypatch.setattr(torch.__spec__, "cached", str(tmp_path / "missing"))
    found = fork_server._environment(given)
    directory = tmp_path / "cache" / "bytecode"
    assert found["PYTHONPYCACHEPREFIX"] == str(directory) and "PYTHONDONTWRITEBYTECODE" not in found
    assert directory.stat().st_mode & 0o777 == 0o700
    directory.chmod(0o770)  # others can put modules there
    assert fork_server._environment(given).keys() == fork_server._ONE_THREAD.keys() | {*given, "PYTHONPATH"}
