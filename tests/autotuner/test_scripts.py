"""Tuning from ordinary scripts: without a main guard, with the script's own functions, killed, forked, many at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
#: Time enough for a slow machine, on which others are busy.
_LIMITS = {"HELION_AUTOTUNE_COMPILE_TIMEOUT": "600", "HELION_AUTOTUNE_BENCHMARK_TIMEOUT": "600"}
_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), **_LIMITS}
pytestmark = pytest.mark.spawns

_KERNEL = """
import os, sys, torch, helion, helion.language as hl

FACTOR = 3


def helper(v):
    return v * FACTOR


@helion.kernel(autotune_effort="quick", autotune_max_generations=1, autotune_search="RandomSearch",
               autotune_budget_seconds=900)
def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = helper(x[tile]) + y[tile]
    return out


@helion.kernel
def apply(x: torch.Tensor, f) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = f(x[tile])
    return out


x, y = torch.randn(256), torch.randn(256)
FEW = dict(effort="quick", evaluations=3, budget_seconds=900, search="RandomSearch", progress_bar=False)
"""


def _run(script: Path, tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**_ENVIRONMENT, "HELION_CACHE_DIR": str(tmp_path / "cache"), **variables}
    return subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, env=environment, timeout=900
    )


def _script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "train.py"
    path.write_text(_KERNEL + text)
    return path


def test_a_script_without_a_main_guard_tunes_and_runs_once(tmp_path: Path) -> None:
    marks = tmp_path / "runs"
    script = _script(
        tmp_path,
        f"open({str(marks)!r}, 'a').write('run ')\n"
        "few = [helion.Config(block_sizes=[size]) for size in (32, 64, 128)]\n"
        "add = helion.kernel(add.fn, configs=few, autotune_effort='quick', autotune_budget_seconds=900)\n"
        "torch.testing.assert_close(add(x, y), x * 3 + y)\n"
        "print('done', add.bind((x, y))._config)\n",
    )
    done = _run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "done helion.Config(" in done.stdout and "helion: tuned add" in done.stderr
    assert "without protection" not in done.stderr
    assert marks.read_text() == "run "


def test_what_a_script_defines_travels_to_the_workers(tmp_path: Path) -> None:
    script = _script(
        tmp_path,
        """
import time

SCALE = torch.full((256,), 2.0)

def bench(call):
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3

from helion.autotuner import api
from helion.autotuner.bound import BoundTarget

def workers(kernel, args, **options):
    result = api.run_search(BoundTarget(kernel.bind(args)), args, **FEW, **options)
    assert all(t.ok for t in result.trials), result.trials
    return sorted({t.worker for t in result.trials})

print(workers(add, (x, y), benchmark_fn=bench))
print(workers(add, (x, y), benchmark_fn=lambda call: (call(), 1.0)[1]))
print(workers(apply, (x, lambda v: v + 1)))
print(workers(apply, (x, helper)))
""",
    )
    done = _run(script, tmp_path)
    assert done.stdout == "['measure']\n" * 4, done.stderr
    assert "without protection" not in done.stderr


def test_a_benchmark_function_that_cannot_travel_is_named(tmp_path: Path) -> None:
    script = _script(
        tmp_path,
        """
steps = (i for i in range(1000))
def bench(call):
    call()
    return 1.0 + next(steps)
print(add.autotune((x, y), benchmark_fn=bench, **FEW))
""",
    )
    done = _run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "in this process" in done.stderr and "autotune_benchmark_fn" in done.stderr


def test_a_module_that_tunes_while_it_is_imported_is_not_imported_again(tmp_path: Path) -> None:
    (tmp_path / "kernels_of_mine.py").write_text(_KERNEL + "print(add.autotune((x, y), **FEW) is not None)\n")
    script = tmp_path / "train.py"
    script.write_text("import kernels_of_mine\n")
    done = _run(script, tmp_path)
    assert done.stdout == "True\n", done.stderr
    assert "without protection" not in done.stderr


def test_a_child_that_multiprocessing_spawned_tunes(tmp_path: Path) -> None:
    script = _script(
        tmp_path,
        """
def tune(queue):
    queue.put(dict(add.autotune((x, y), **FEW)))

if __name__ == "__main__":
    import multiprocessing
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=tune, args=(queue,))
    child.start()
    print(bool(queue.get(timeout=600)))
    child.join()
""",
    )
    done = _run(script, tmp_path)
    assert done.stdout == "True\n", done.stderr
    assert "without protection" not in done.stderr


def test_a_child_that_is_forked_while_tuning_takes_nothing_with_it(tmp_path: Path) -> None:
    """A fork of a process in the middle of a search exits through Python's own shutdown, and may tune itself."""
    script = _script(
        tmp_path,
        """
children = []
torch.set_num_threads(1)  # OpenMP does not survive a fork
def bench_here(call):
    if len(children) < 2:
        pid = os.fork()
        if pid == 0:
            if children:
                children.append(0)  # it forks no more
                other = add.autotune((x[:64], y[:64]), isolate=False, **FEW)
            sys.exit(0)
        children.append(pid)
        assert os.waitpid(pid, 0)[1] == 0
    call()
    return 1.0

class Forking:
    def started(self, tuner): pass
    def trial(self, trial, tuner): bench_here(lambda: None)
    def choosing(self, candidates, tuner): pass
    def finished(self, result): pass
    def close(self): pass

from helion.autotuner import progress
progress.progress_for = lambda *a: Forking()
print(add.autotune((x, y), **FEW) is not None, len(children))
""",
    )
    done = _run(script, tmp_path)
    assert done.stdout.endswith("True 2\n"), done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("count", [5, pytest.param(20, marks=pytest.mark.sweep)])
def test_cold_processes_on_one_cache_agree(count: int, tmp_path: Path) -> None:
    script = _script(
        tmp_path,
        "torch.set_num_threads(1)\n"
        "found = add.autotune((x, y), force=False, isolate=False, **{**FEW, 'evaluations': 12})\n"
        "torch.testing.assert_close(add(x, y), x * 3 + y)\n"
        "print(found.to_json().replace('\\n', ''))\n",
    )
    environment = {
        **_ENVIRONMENT,
        "HELION_CACHE_DIR": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    running = [
        subprocess.Popen([sys.executable, str(script)], env=environment, stdout=-1, stderr=-1, text=True)
        for _ in range(count)
    ]
    outputs = [process.communicate(timeout=900) for process in running]
    assert all(process.returncode == 0 for process in running), outputs
    assert len({out for out, _ in outputs}) == 1
    assert sum("helion: tuned add" in err for _, err in outputs) == 1
    left = [
        p.name for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.suffix not in (".py", ".json", ".lock")
    ]
    assert left == []


_HANGING = """
import sys, torch
from helion.autotuner import api
from tests.autotuner import kernels
from tests.autotuner.kernels import FunctionTarget
from helion.config import Config
target = FunctionTarget("misbehaving", kernels.Misbehaving.spec)
configs = [Config(mode="good")] + [Config(mode="hang", salt=s) for s in (1, 2, 4, 8)]
config = api.autotune(target, (torch.ones(8),), effort="quick", configs=configs, log=sys.argv[1])
print("kept", config["mode"])
"""


def _start_hanging(tmp_path: Path) -> subprocess.Popen[str]:
    """A process that tunes candidates that hang; it has measured the first one, and the next hangs."""
    script = tmp_path / "tune.py"
    # Under nohup, and in the background of a shell, as the tests may run, a process ignores one and the other.
    signals = "signal.signal(signal.SIGHUP, signal.SIG_DFL)\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    script.write_text(f"import signal\n{signals}{_HANGING}")
    (tmp_path / "tmp").mkdir(exist_ok=True)
    log, hangs = tmp_path / "log.json", tmp_path / "hangs"
    process = subprocess.Popen(
        [sys.executable, str(script), str(log)],
        env={
            **_ENVIRONMENT,
            "HELION_CACHE_DIR": str(tmp_path / "cache"),
            "HELION_AUTOTUNE_BENCHMARK_TIMEOUT": "600",
            "TEST_HANG_MARKER": str(hangs),
            "TMPDIR": str(tmp_path / "tmp"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: log.exists() and hangs.exists())
    return process


def _group(process: subprocess.Popen[str]) -> list[int]:
    """The processes of its session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == process.pid and fields[0] != "Z":
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_workers_and_files_end_with_a_killed_parent(tmp_path: Path, how: signal.Signals) -> None:
    process = _start_hanging(tmp_path)
    assert len(_group(process)) >= 2
    os.kill(process.pid, how)  # the parent alone: nobody tells the workers
    process.communicate(timeout=300)
    wait_until(lambda: not _group(process))
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_worker_whose_parent_died_while_it_started_ends(tmp_path: Path) -> None:
    from helion.autotuner import process as module

    start = module._START.replace("from helion.autotuner.worker import main", "print('went on'); main = print")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    this = subprocess.run([sys.executable, "-c", start, str(os.getpid()), "0"], capture_output=True, env=environment)
    assert b"went on" in this.stdout
    other = subprocess.run([sys.executable, "-c", start, "1", "0"], capture_output=True, env=environment)
    assert other.returncode == 1 and other.stdout == b""


_INTERRUPTED = """
import os, signal, sys, threading, time, torch
from helion.autotuner import api, fork_server
from tests.autotuner import kernels
from tests.autotuner.kernels import FunctionTarget
from helion.config import Config

target, x = FunctionTarget("misbehaving", kernels.Misbehaving.spec), torch.ones(8)
good, hangs = [Config(mode="good", salt=s) for s in (1, 2)], Config(mode="hang")
count = []
signal.signal(signal.SIGALRM, lambda *_: count.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
assert api.autotune(target, (x,), effort="quick", configs=good)["mode"] == "good"
signal.setitimer(signal.ITIMER_REAL, 0)
assert len(count) > 1


def too_long(*_):
    raise TimeoutError("of the program's own")


def send_once_it_hangs():
    while not os.path.exists(os.environ["TEST_HANG_MARKER"]):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGALRM)


signal.signal(signal.SIGALRM, too_long)
threading.Thread(target=send_once_it_hangs, daemon=True).start()
try:
    api.autotune(target, (x,), effort="quick", configs=[*good, hangs], force=True)
except TimeoutError as error:
    print(error)
server = fork_server.shared()
children = set(open(f"/proc/self/task/{os.getpid()}/children").read().split()) - {str(server.pid)}
workers = open(f"/proc/{server.pid}/task/{server.pid}/children").read().split()
print(sorted(children), workers, os.listdir(os.environ["TMPDIR"]))
print(api.autotune(target, (x,), effort="quick", configs=good, force=True)["mode"])
"""


def test_signals_of_the_programs_own_while_tuning(tmp_path: Path) -> None:
    """A handler runs and tuning goes on; one that raises ends the search, with its workers and files."""
    script = tmp_path / "tune.py"
    script.write_text(_INTERRUPTED)
    (tmp_path / "tmp").mkdir()
    variables = {"TEST_HANG_MARKER": str(tmp_path / "hangs"), "TMPDIR": str(tmp_path / "tmp")}
    done = _run(script, tmp_path, **variables)
    assert done.stdout == "of the program's own\n[] [] []\ngood\n", done.stdout + done.stderr


def test_no_file_of_a_search_has_a_name(tmp_path: Path) -> None:
    process = _start_hanging(tmp_path)
    # While a candidate hangs, whatever else was written for a moment (by a compiler, say) is gone.
    wait_until(lambda: not list((tmp_path / "tmp").iterdir()))
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=300)
