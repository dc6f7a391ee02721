"""Kernels in forked processes, in many processes at once, and without room on the disk."""

from __future__ import annotations

import functools
import importlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from triton.runtime.jit import KernelParam

import helion
from helion import _compat_torch
from helion._locks import cached_property
from helion._locks import new_lock
from helion._locks import new_rlock
from helion.runtime.launch.errors import message

ROOT = Path(__file__).parent.parent.parent


def run(tmp_path: Path, function: str, device: str) -> None:
    caches = {"HELION_CACHE_DIR": str(tmp_path / "helion"), "HELION_IGNORE_WARNINGS": "ManySizes"}
    if function.endswith("on_one_cold_cache"):
        caches["TRITON_CACHE_DIR"] = str(tmp_path / "triton")
    done = subprocess.run(
        [sys.executable, "-m", "tests.runtime.process_script", function, device],
        cwd=ROOT,
        env={**os.environ, **caches},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.spawns
@pytest.mark.compiles
@pytest.mark.parametrize("device", ["cpu", "softgpu"])
@pytest.mark.parametrize(
    "function",
    [
        "fork_in_every_state",
        "spawn_in_every_state",
        "fork_while_another_thread_compiles",
        "on_one_cold_cache",
        pytest.param("many_on_one_cold_cache", marks=pytest.mark.sweep),
    ],
)
def test_child_processes_work(tmp_path: Path, function: str, device: str) -> None:
    run(tmp_path, function, device)


@pytest.mark.spawns
@pytest.mark.compiles
def test_threads_that_launch_first_import_triton_in_turn(tmp_path: Path) -> None:
    run(tmp_path, "first_launch_imports_in_turn", "softgpu")


@pytest.mark.spawns
def test_calls_work_without_room_on_the_disk(tmp_path: Path) -> None:
    run(tmp_path, "no_room_on_the_disk", "cpu")


@pytest.mark.spawns
def test_a_forked_child_finds_locks_open() -> None:
    lock, rlock = new_lock(), new_rlock()
    with lock, rlock:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if lock.acquire(timeout=60) and rlock.acquire(timeout=60) else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert lock.locked()


@pytest.mark.spawns
def test_a_child_that_is_forked_during_another_threads_import_can_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "helion.imported_slowly"
    monkeypatch.setattr(helion, "__path__", [*helion.__path__, str(tmp_path)])
    source = "import threading\nbegun = threading.current_thread()\nbegun.event.set()\nbegun.more.wait(1)\nDONE = 1\n"
    (tmp_path / "imported_slowly.py").write_text(source)
    thread = threading.Thread(target=importlib.import_module, args=(name,))
    thread.event, thread.more = threading.Event(), threading.Event()  # type: ignore[attr-defined]
    thread.start()
    thread.event.wait(60)  # type: ignore[attr-defined]
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        os._exit(0 if importlib.import_module(name).DONE else 1)
    thread.join()
    sys.modules.pop(name)
    del helion.imported_slowly  # type: ignore[attr-defined]
    assert os.waitpid(pid, 0)[1] == 0


class Slow:
    """Whose property is being computed, by another thread, while the process forks."""

    def __init__(self) -> None:
        self.begun, self.forked = threading.Event(), threading.Event()

    @cached_property
    def value(self) -> list[int]:
        self.begun.set()
        self.forked.wait(60)
        return [1]


@pytest.mark.spawns
def test_a_forked_child_computes_what_another_thread_was_computing() -> None:
    slow, ready = Slow(), Slow()
    ready.forked.set()
    found: list[list[int]] = []
    threads = [threading.Thread(target=lambda: found.append(slow.value)) for _ in range(2)]
    for thread in threads:
        thread.start()
    slow.begun.wait(60)
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # instead of waiting for ever
        os._exit(0 if ready.value == [1] else 1)
    slow.forked.set()
    assert os.waitpid(pid, 0)[1] == 0
    for thread in threads:
        thread.join()
    assert found[0] is found[1] is slow.value, "threads that come at the same time have one value"


@pytest.mark.skipif(not hasattr(functools.cached_property(len), "lock"), reason="no lock from 3.12 on")
def test_what_triton_computes_for_a_parameter_is_open_to_a_child() -> None:
    lock = vars(KernelParam)["annotation"].lock
    with lock:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if lock.acquire(timeout=60) else 1)
        assert os.waitpid(pid, 0)[1] == 0


def test_cuda_in_a_forked_process_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    error = "Triton Error [CUDA]: initialization error"
    assert message(error, "k") == f"{error} (launching kernel k)"
    monkeypatch.setattr(_compat_torch, "cuda_in_bad_fork", lambda: True)
    assert "start method 'spawn'" in message(error, "k")
