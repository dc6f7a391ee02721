"""Executors: take Configs, give back Trials.

`ProcessExecutor` compiles in a pool of worker processes while others measure, and survives whatever a candidate
does.  `InProcessExecutor` does everything here and now: for cost models, and for kernels that cannot travel to another
process.  Which Configs, and when to stop, is the tuner's business.
"""

from __future__ import annotations

import abc
import dataclasses
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from .. import exc
from ..backends.base import Recipe
from ..config import Config
from .accuracy import Tolerance
from .accuracy import run_for_result
from .measure import Effort
from .measure import Timing
from .measure import device_of
from .process import WorkerProcess
from .trial import Status
from .trial import Trial
from .worker import Baseline
from .worker import Done
from .worker import Job
from .worker import Measure
from .worker import Precompile
from .worker import Running
from .worker import Session
from .worker import Setup

RETRIES = 2
"""How often a candidate is tried again whose worker somebody else killed (the system's out-of-memory killer, say)."""

CANCEL_SECONDS = 1.5
"""How long `cancel` waits for a candidate that is being measured."""


class _Usual:
    """Shortens a timeout to what is far beyond the usual.

    A candidate that compiles for a minute where others take a second is no winner, and holds up those after it.

    Args:
        most: the timeout of the settings, seconds.
        least: never shorter than this.
        times: the limit is so many times the median.
    """

    AFTER = 8

    def __init__(self, most: float, least: float, times: float) -> None:
        self.most, self.least, self.times = most, least, times
        self._seconds: deque[float] = deque(maxlen=64)

    def add(self, seconds: float) -> None:
        """One that worked took so long."""
        self._seconds.append(seconds)

    @property
    def limit(self) -> float:
        """Seconds that the next one may take."""
        if len(self._seconds) < self.AFTER:
            return self.most
        return min(self.most, max(self.least, self.times * statistics.median(self._seconds)))


class Executor(abc.ABC):
    """Base of the executors.

    Attributes:
        capacity: how many candidates in flight keep it busy.
        effort: how long each candidate is measured; the tuner adjusts `give_up_ms`.
    """

    capacity: int = 1
    effort: Effort = Effort()

    @abc.abstractmethod
    def set_baseline(self, recipe: Recipe | None, function: Callable[..., Any] | None) -> None:
        """Compute the result that candidates are compared with: of a recipe or of a function.

        Raises:
            exc.AutotuneError: it does not run.
        """

    @abc.abstractmethod
    def submit(self, config: Config, recipe: Recipe) -> None:
        """Start on a candidate."""

    @abc.abstractmethod
    def poll(self, seconds: float) -> list[Trial]:
        """Outcomes since the last call; waits up to `seconds` for one."""

    @abc.abstractmethod
    def remeasure(self, recipe: Recipe, effort: Effort) -> Timing | None:
        """Measure once more, with nothing else going on; None if it failed now."""

    @abc.abstractmethod
    def cancel(self) -> None:
        """Forget all candidates in flight."""

    @abc.abstractmethod
    def close(self) -> None:
        """Free everything."""


def _trial(config: Config, done: Done, worker: str, compile_s: float) -> Trial:
    timing = done.timing
    if done.status is not Status.OK or timing is None:
        return Trial(config, done.status, message=done.message, compile_s=compile_s, worker=worker)
    return Trial(config, Status.OK, timing.median, timing.spread, compile_s=compile_s, worker=worker)


_EXPECTED = "expected.pt"


class InProcessExecutor(Executor):
    """Everything in this process: no timeouts, and no protection from a candidate that crashes.

    Args:
        args: arguments of the kernel.
        tolerance: of the accuracy check.
        timer: `autotune_benchmark_fn`.
    """

    def __init__(
        self, args: Sequence[Any], tolerance: Tolerance = Tolerance(), timer: Callable[..., float] | None = None
    ) -> None:
        self._session = Session(tuple(args), tolerance, timer)
        self._folder = tempfile.TemporaryDirectory(prefix="helion-tune-")
        self._expected: str | None = None
        self._queue: deque[tuple[Config, Recipe]] = deque()

    def set_baseline(self, recipe: Recipe | None, function: Callable[..., Any] | None) -> None:
        file = str(Path(self._folder.name) / _EXPECTED)
        if function is not None:
            torch.save(run_for_result(function, self._session.args), file)
        elif recipe is not None:
            done = self._session.run(Baseline(recipe, file))
            if done.status is not Status.OK:
                raise _baseline_failed(done.status, done.message)
        self._expected = file

    def submit(self, config: Config, recipe: Recipe) -> None:
        self._queue.append((config, recipe))

    def poll(self, seconds: float) -> list[Trial]:
        if not self._queue:
            return []
        config, recipe = self._queue.popleft()
        done = self._session.run(Measure(recipe, self.effort, self._expected))
        return [_trial(config, done, "in process", done.compile_s)]

    def remeasure(self, recipe: Recipe, effort: Effort) -> Timing | None:
        return self._session.run(Measure(recipe, effort, self._expected)).timing

    def cancel(self) -> None:
        self._queue.clear()

    def close(self) -> None:
        self._folder.cleanup()


def _baseline_failed(status: Status, message: str) -> exc.AutotuneError:
    return exc.AutotuneError(
        f"the default config, which candidates are compared with, does not run: {status.value}: {message}",
        fix="give autotune_baseline_fn (a function with the expected result), or set autotune_accuracy_check=False.",
    )


@dataclasses.dataclass
class _Candidate:
    config: Config
    recipe: Recipe
    compile_s: float = 0.0
    ran_from: float = 0.0
    retries: int = 0


class ProcessExecutor(Executor):
    """Compiles in worker processes, measures in one expendable process per device, both at the same time.

    Args:
        args: arguments of the kernel; they are copied to the workers through a file.
        devices: where to measure, for example `["cuda:0", "cuda:1"]`; None: where the arguments are.
        tolerance: of the accuracy check.
        timer: `autotune_benchmark_fn`; must be importable.
        compile_jobs: compile workers; 0 compiles in the measuring process.
        compile_timeout: seconds.
        run_timeout: seconds for check and measurement of one candidate.

    Raises:
        exc.AutotuneError: the arguments cannot be saved to a file.
    """

    def __init__(
        self,
        args: Sequence[Any],
        *,
        devices: Sequence[str] | None = None,
        tolerance: Tolerance = Tolerance(),
        timer: Callable[..., float] | None = None,
        compile_jobs: int = 1,
        compile_timeout: float = 60.0,
        run_timeout: float = 30.0,
    ) -> None:
        self._args = tuple(args)
        self._folder = tempfile.TemporaryDirectory(prefix="helion-tune-")
        self._compile_timeout = _Usual(compile_timeout, least=10.0, times=8.0)
        self._run_timeout = _Usual(run_timeout, least=5.0, times=20.0)
        args_file = str(Path(self._folder.name) / "args.pt")
        try:
            torch.save(self._args, args_file)
        except Exception as error:  # pickle raises many kinds; each means the same here
            self._folder.cleanup()
            raise exc.AutotuneError(
                f"the arguments cannot be sent to a worker process: {type(error).__name__}: {error}",
                fix="tune with isolate=False (a crashing candidate then ends this process).",
            ) from error
        self._setup = Setup(args_file, None, tolerance, timer)
        # Compiling for a GPU takes the arguments' types and shapes; a copy of their data in every compile worker could
        # fill the device.
        without_data = device_of(self._args).type == "cuda"
        self._compile_setup = dataclasses.replace(self._setup, device="meta") if without_data else self._setup
        self._devices: list[str | None] = list(devices) if devices else [None]
        self._expected: str | None = None
        self._to_compile: deque[_Candidate] = deque()
        self._to_measure: deque[_Candidate] = deque()
        self._working: dict[WorkerProcess, _Candidate] = {}
        self._compile_jobs = compile_jobs
        self._compilers: list[WorkerProcess] = []
        self._measurers: list[WorkerProcess | None] = [None] * len(self._devices)
        self._spares: dict[str | None, WorkerProcess] = {}
        self._outbox: list[Trial] = []
        self.capacity = 2 * len(self._devices) + compile_jobs

    # -- jobs ---------------------------------------------------------------------------------------

    def set_baseline(self, recipe: Recipe | None, function: Callable[..., Any] | None) -> None:
        # All workers start now: importing PyTorch takes each of them seconds, and the baseline as long.
        self._start_compilers(self._compile_jobs)
        for slot in range(len(self._devices)):
            self._measurer(slot)
        file = str(Path(self._folder.name) / _EXPECTED)
        if function is not None:
            torch.save(run_for_result(function, self._args), file)
        elif recipe is not None:
            done = self._run_alone(Baseline(recipe, file))
            if done.status is not Status.OK:
                raise _baseline_failed(done.status, done.message)
        self._expected = file

    def submit(self, config: Config, recipe: Recipe) -> None:
        candidate = _Candidate(config, recipe)
        (self._to_compile if self._compile_jobs else self._to_measure).append(candidate)
        self._dispatch()

    def poll(self, seconds: float) -> list[Trial]:
        end = time.monotonic() + seconds
        while True:
            self._dispatch()
            if self._outbox:
                finished, self._outbox = self._outbox, []
                return finished
            left = end - time.monotonic()
            if left <= 0 or not (self._to_compile or self._to_measure or self._working):
                return []
            self._wait(left)

    def remeasure(self, recipe: Recipe, effort: Effort) -> Timing | None:
        return self._run_alone(Measure(recipe, effort, self._expected)).timing

    def cancel(self) -> None:
        self._to_compile.clear()
        self._to_measure.clear()
        for worker in [w for w in self._working if w in self._compilers]:
            worker.kill("cancelled")
            self._bury(worker)
        # A measuring process is soon done, and a new one would have to import, load and check everything again.
        end = time.monotonic() + CANCEL_SECONDS
        while self._working and time.monotonic() < end:
            self._wait(end - time.monotonic())
            self._to_measure.clear()  # one that somebody killed meanwhile is not tried again
        for worker in list(self._working):
            worker.kill("cancelled")
            self._bury(worker)
        self._outbox.clear()

    def close(self) -> None:
        for worker in self._workers():
            worker.close()
        self._folder.cleanup()

    def processes(self) -> list[tuple[str, int]]:
        """(name, process id) of the live workers."""
        return [(worker.name, worker.pid) for worker in self._workers()]

    # -- workers ------------------------------------------------------------------------------------

    def _workers(self) -> list[WorkerProcess]:
        return [*self._compilers, *(w for w in self._measurers if w is not None), *self._spares.values()]

    def _start_measurer(self, device: str | None) -> WorkerProcess:
        return WorkerProcess(dataclasses.replace(self._setup, device=device), device or "measure")

    def _start_compilers(self, count: int) -> None:
        while len(self._compilers) < count:
            self._compilers.append(WorkerProcess(self._compile_setup, f"compile {len(self._compilers)}", threads=1))

    def _measurer(self, slot: int) -> WorkerProcess:
        worker = self._measurers[slot]
        if worker is None:
            device = self._devices[slot]
            worker = self._spares.pop(device, None) or self._start_measurer(device)
            self._measurers[slot] = worker
        return worker

    def _dispatch(self) -> None:
        if not (self._to_compile or self._to_measure or self._working):
            return
        self._start_compilers(min(self._compile_jobs, len(self._to_compile) + self._compiling()))
        for worker in list(self._compilers):
            if self._to_compile and worker.ready and worker not in self._working:
                self._give(worker, self._to_compile, Precompile, self._compile_timeout.limit)
        for slot in range(len(self._devices)):
            worker = self._measurer(slot)  # started before there is something to measure: starting takes seconds
            if self._to_measure and worker.ready and worker not in self._working:
                self._give(worker, self._to_measure, self._measure_job, self._compile_timeout.most)

    def _compiling(self) -> int:
        return sum(worker in self._working for worker in self._compilers)

    def _measure_job(self, recipe: Recipe) -> Job:
        return Measure(recipe, self.effort, self._expected)

    def _give(
        self, worker: WorkerProcess, queue: deque[_Candidate], job: Callable[[Recipe], Job], seconds: float
    ) -> None:
        candidate = queue.popleft()
        if worker.submit(job(candidate.recipe), seconds):
            self._working[worker] = candidate
        else:
            queue.appendleft(candidate)
            self._bury(worker)

    def _bury(self, worker: WorkerProcess) -> None:
        """Take a dead worker out; a measuring one is replaced, with a spare kept ready from the first death on."""
        self._working.pop(worker, None)
        if worker in self._compilers:
            self._compilers.remove(worker)
        if worker in self._measurers:
            slot = self._measurers.index(worker)
            self._measurers[slot] = None
            device = self._devices[slot]
            self._measurer(slot)
            self._spares.setdefault(device, self._start_measurer(device))
        for device, spare in list(self._spares.items()):
            if spare is worker:
                del self._spares[device]
        worker.close()

    # -- events -------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        """Handle what happens in the next `seconds`, returning at the first event."""
        workers = {w.connection: w for w in self._workers() if not w.ready or w in self._working}
        deadline = min((w.deadline for w in workers.values()), default=float("inf"))
        timeout = max(0.0, min(seconds, deadline - time.monotonic()))
        for connection in wait(list(workers), timeout):
            worker = workers[connection]  # type: ignore[index]
            self._handle(worker, worker.receive())
        for worker in workers.values():
            if worker.overdue and not worker.connection.closed:
                self._handle_overdue(worker)

    def _handle(self, worker: WorkerProcess, message: object) -> None:
        candidate = self._working.get(worker)
        if message is None:
            self._handle_death(worker, candidate)
        elif isinstance(message, Running):
            worker.deadline = time.monotonic() + self._run_timeout.limit
            worker.limit = self._run_timeout.limit
            if candidate is not None:
                candidate.compile_s = max(candidate.compile_s, message.compile_s)
                candidate.ran_from = time.monotonic()
        elif isinstance(message, Done) and candidate is not None:
            del self._working[worker]
            candidate.compile_s = max(candidate.compile_s, message.compile_s)
            if message.status is Status.OK:
                if worker in self._compilers:
                    self._compile_timeout.add(message.compile_s)
                else:
                    self._run_timeout.add(time.monotonic() - candidate.ran_from)
            if worker in self._compilers and (message.status is Status.OK or self._compile_setup.device == "meta"):
                # Without data host code may fail that works with it: the measuring process has the last word.
                self._to_measure.append(candidate)
            else:
                self._outbox.append(_trial(candidate.config, message, worker.name, candidate.compile_s))
            if message.poisoned:
                self._bury(worker)

    def _handle_overdue(self, worker: WorkerProcess) -> None:
        candidate = self._working.get(worker)
        if not worker.ready or candidate is None:
            worker.kill("start")
            self._handle_death(worker, candidate)
            return
        done = self._timeout(worker)
        self._outbox.append(_trial(candidate.config, done, worker.name, candidate.compile_s))
        worker.kill(done.message)
        self._bury(worker)

    def _timeout(self, worker: WorkerProcess) -> Done:
        if worker.started_running:
            return Done(
                Status.RUN_TIMEOUT,
                (
                    f"ran longer than {worker.limit:.3g} s "
                    f"({self._why(worker, self._run_timeout, 'autotune_benchmark_timeout')})"
                ),
            )
        return Done(
            Status.COMPILE_TIMEOUT,
            (
                f"compiled longer than {worker.limit:.3g} s "
                f"({self._why(worker, self._compile_timeout, 'autotune_compile_timeout')})"
            ),
        )

    @staticmethod
    def _why(worker: WorkerProcess, timeout: _Usual, setting: str) -> str:
        return setting if worker.limit >= timeout.most else f"{timeout.times:g} times what others took"

    def _handle_death(self, worker: WorkerProcess, candidate: _Candidate | None) -> None:
        message, from_outside = worker.cause_of_death()
        if not worker.ready and not from_outside:
            self._bury_quietly(worker)
            raise exc.AutotuneError(
                f"a worker process ({worker.name}) could not start: {message}",
                fix="check that the device has room for a second copy of the arguments, or tune with isolate=False.",
            )
        compiling = worker in self._compilers
        self._bury(worker)
        if candidate is None:
            return
        if from_outside and candidate.retries < RETRIES:
            candidate.retries += 1
            (self._to_compile if compiling else self._to_measure).appendleft(candidate)
            return
        hint = " (again and again: out of host memory?)" if from_outside else ""
        done = Done(Status.CRASH, f"{'compiler' if compiling else 'candidate'} {message}{hint}")
        self._outbox.append(_trial(candidate.config, done, worker.name, candidate.compile_s))

    def _bury_quietly(self, worker: WorkerProcess) -> None:
        """Like `_bury`, but starts nothing in its place: it would fail the same way."""
        if worker in self._measurers:
            self._measurers[self._measurers.index(worker)] = None
        if worker in self._compilers:
            self._compilers.remove(worker)
        self._spares = {d: w for d, w in self._spares.items() if w is not worker}
        self._working.pop(worker, None)
        worker.close()

    def _run_alone(self, job: Job) -> Done:
        """Run one job on the first device, with nothing else in flight, and wait for it."""
        for _ in range(1 + RETRIES):
            worker = self._measurer(0)
            while not worker.ready:
                self._wait(1.0)
                worker = self._measurer(0)
            if not worker.submit(job, self._compile_timeout.most):
                self._bury(worker)
                continue
            while True:
                if worker.connection.poll(max(0.0, min(1.0, worker.deadline - time.monotonic()))):
                    message = worker.receive()
                    if isinstance(message, Running):
                        worker.limit = self._run_timeout.most
                        worker.deadline = time.monotonic() + worker.limit
                    elif isinstance(message, Done):
                        if message.poisoned:
                            self._bury(worker)
                        return message
                    elif message is None:
                        text, from_outside = worker.cause_of_death()
                        self._bury(worker)
                        if from_outside:
                            break
                        return Done(Status.CRASH, text)
                elif worker.overdue:
                    done = self._timeout(worker)
                    worker.kill(done.message)
                    self._bury(worker)
                    return done
        return Done(Status.CRASH, "the measuring process was killed again and again")


def default_compile_jobs(device: torch.device) -> int:
    """Compile workers when the setting leaves it open.

    On a GPU one per core, but no more than 16: each holds a CUDA context of a few hundred MB.  On the CPU one: more
    would compete with what is being measured.
    """
    if device.type == "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, 16))
