"""ProcessExecutor: compiles in a pool of worker processes while others measure, and survives whatever a candidate does.

One worker is `process.py` from here, and `worker.py` from inside.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence
from multiprocessing.connection import wait
from typing import IO
from typing import Any

import torch

from .. import exc
from ..backends.base import Recipe
from ..config import Config
from .absent import AbsentGpu
from .accuracy import Tolerance
from .executor import Executor
from .executor import baseline_failed
from .executor import count_spent
from .executor import given_baseline
from .executor import nameless_file
from .executor import trial_of
from .measure import Effort
from .measure import Timing
from .measure import device_of
from .process import WorkerProcess
from .travel import CannotTravel
from .travel import pack
from .travel import save
from .trial import Status
from .trial import Trial
from .worker import Baseline
from .worker import Done
from .worker import Job
from .worker import Measure
from .worker import Precompile
from .worker import Running
from .worker import Setup
from .worker import Unusable

RETRIES = 2
"""How often a candidate is tried again whose worker somebody else killed (the system's out-of-memory killer, say)."""

STOPPED_SECONDS = 2.0
"""A wait that takes so much longer than it should means that the whole program was stopped."""

AHEAD = 2
"""How many candidates a measuring worker is given beyond the one that it is at."""

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


def _unusable(name: str, message: Unusable) -> exc.AutotuneError:
    if message.foreign:
        return CannotTravel(f"a worker process ({name}) cannot use what it was sent: {message.message}")
    return exc.AutotuneError(
        f"a worker process ({name}) has no room for a copy of the arguments: {message.message}",
        fix="free memory on the device (candidates run on copies), or tune with isolate=False.",
    )


@dataclasses.dataclass
class _Candidate:
    config: Config
    recipe: Recipe
    compile_s: float = 0.0
    given: float = 0.0
    ran_from: float = 0.0
    retries: int = 0
    is_baseline: bool = False


class ProcessExecutor(Executor):
    """Compiles in worker processes, measures in one expendable process per device, both at the same time.

    Args:
        args: arguments of the kernel; they are copied to the workers through a file.
        devices: where to measure, for example `["cuda:0", "cuda:1"]`; None: where the arguments are.
        tolerance: of the accuracy check.
        timer: `autotune_benchmark_fn`.
        compile_jobs: compile workers; 0 compiles in the measuring process.
        compile_timeout: seconds.
        run_timeout: seconds for check and measurement of one candidate.

    Raises:
        CannotTravel: the arguments or the timer cannot be sent to another process.
        exc.AutotuneError: there is no room for a copy of the arguments in the temporary directory.
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
        super().__init__()
        self._args = tuple(args)
        self._owner = os.getpid()
        self._args_file, self._expected_file = nameless_file(), nameless_file()
        self._compile_timeout = _Usual(compile_timeout, least=10.0, times=8.0)
        self._run_timeout = _Usual(run_timeout, least=5.0, times=20.0)
        try:
            packed = None if timer is None else pack(timer, "autotune_benchmark_fn")
            self._save(self._args, self._args_file)
        except exc.BaseError:
            self._close_files()
            raise
        self._setup = Setup(self._args_file.fileno(), self._expected_file.fileno(), None, tolerance, packed)
        # Compiling for a GPU takes the arguments' types and shapes; a copy of their data in every compile worker could
        # fill the device.
        self._compile_setup = self._setup
        device = device_of(self._args)
        if device.type == "cuda":
            absent = AbsentGpu.like(torch.cuda.current_device() if device.index is None else device.index)
            self._compile_setup = dataclasses.replace(self._setup, device="meta", absent=absent)
        self._devices: list[str | None] = list(devices) if devices else [None]
        self._check = False
        self._baseline: _Candidate | None = None
        """What candidates are compared with, until its result is there: none is measured before."""
        self._to_compile: deque[_Candidate] = deque()
        self._to_measure: deque[_Candidate] = deque()
        self._working: dict[WorkerProcess, _Candidate] = {}
        self._next: dict[WorkerProcess, deque[_Candidate]] = {}
        """What a measuring worker has been given beyond what it is at: it does not wait for this process, which may
        be busy with proposals."""
        self._compile_jobs = compile_jobs
        self._compilers: list[WorkerProcess] = []
        self._measurers: list[WorkerProcess | None] = [None] * len(self._devices)
        self._spares: dict[str | None, WorkerProcess] = {}
        self._outbox: list[Trial] = []
        self.capacity = (2 + AHEAD if compile_jobs > 1 else 2) * len(self._devices) + compile_jobs

    # -- jobs ---------------------------------------------------------------------------------------

    def set_baseline(self, recipe: Recipe | None, function: Callable[..., Any] | None) -> None:
        self._start_compilers(self._compile_jobs)
        for slot in range(len(self._devices)):
            self._measurer(slot)
        if function is not None:
            with self.phases.timed("baseline"):
                self._save(given_baseline(function, self._args), self._expected_file)
        elif recipe is not None:
            # Candidates are compiled meanwhile.
            self._baseline = _Candidate(Config(), recipe, is_baseline=True)
            (self._to_compile if self._compile_jobs else self._to_measure).appendleft(self._baseline)
            self._dispatch()
        self._check = True

    def submit(self, config: Config, recipe: Recipe) -> None:
        candidate = _Candidate(config, recipe)
        compiled = self._baseline is not None and self._baseline.recipe == recipe
        (self._to_compile if self._compile_jobs and not compiled else self._to_measure).append(candidate)
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
        if self._baseline is not None:  # nothing was measured here: what is compared comes from a shared study
            self._baseline_done(self._run_alone(Baseline(self._baseline.recipe)))
        return self._run_alone(Measure(recipe, effort, self._check)).timing

    def _baseline_done(self, done: Done) -> None:
        if done.status is not Status.OK:
            raise baseline_failed(done.status, done.message)
        self._baseline = None

    def cancel(self) -> list[Trial]:
        if os.getpid() != self._owner:
            return []  # a fork of this process, on its way out: the workers are its parent's
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
        self._to_measure.clear()
        finished, self._outbox = self._outbox, []
        return finished

    def close(self) -> None:
        if os.getpid() == self._owner:
            for worker in self._workers():
                worker.kill("closed")
            for worker in self._workers():
                worker.close()
        self._close_files()

    def _close_files(self) -> None:
        for file in (self._args_file, self._expected_file):
            with contextlib.suppress(OSError):  # a full disk: closing writes what is left of what could not be written
                file.close()

    @staticmethod
    def _save(value: Any, file: IO[bytes]) -> None:
        try:
            save(value, file)
        except OSError as error:
            raise exc.AutotuneError(
                f"a copy of the arguments cannot be written to {tempfile.gettempdir()}: {error}",
                fix="set TMPDIR to a directory with room for it, or tune with isolate=False.",
            ) from error

    def processes(self) -> list[tuple[str, int]]:
        """(name, process id) of the live workers."""
        return [(worker.name, pid) for worker in self._workers() if (pid := worker.pid) is not None]

    # -- workers ------------------------------------------------------------------------------------

    def _workers(self) -> list[WorkerProcess]:
        return [*self._compilers, *(w for w in self._measurers if w is not None), *self._spares.values()]

    def _start_measurer(self, device: str | None) -> WorkerProcess:
        setup = dataclasses.replace(self._setup, device=device)
        return WorkerProcess(setup, device or "measure", times=self.phases)

    def _start_compilers(self, count: int) -> None:
        while len(self._compilers) < count:
            name = f"compile {len(self._compilers)}"
            self._compilers.append(WorkerProcess(self._compile_setup, name, threads=1, times=self.phases))

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
                self._give(worker, self._to_compile)
        for ahead in range(1 + AHEAD):
            for slot in range(len(self._devices)):
                worker = self._measurer(slot)  # started before there is something to measure: starting takes seconds
                given = (worker in self._working) + len(self._next.get(worker, ()))
                if self._to_measure and worker.ready and given <= ahead:
                    if self._baseline is None or self._to_measure[0].is_baseline:
                        self._give(worker, self._to_measure)

    def _compiling(self) -> int:
        return sum(worker in self._working for worker in self._compilers)

    def _job(self, candidate: _Candidate, compile: bool) -> Job:
        if compile:
            return Precompile(candidate.recipe)
        if candidate.is_baseline:
            return Baseline(candidate.recipe)
        return Measure(candidate.recipe, self.effort, self._check)

    def _give(self, worker: WorkerProcess, queue: deque[_Candidate]) -> None:
        candidate = queue.popleft()
        if not worker.submit(self._job(candidate, queue is self._to_compile)):
            queue.appendleft(candidate)
            self._bury(worker)
        elif worker in self._working:
            self._next.setdefault(worker, deque()).append(candidate)
        else:
            self._begin(worker, candidate)

    def _begin(self, worker: WorkerProcess, candidate: _Candidate) -> None:
        """From now on the worker is at this one, which it has been given."""
        candidate.given = time.monotonic()
        self._working[worker] = candidate
        if worker in self._compilers:
            worker.begin(self._compile_timeout.limit)
        else:
            self.phases.add("nothing to do", candidate.given - worker.idle_since)
            worker.begin(self._compile_timeout.most)

    def _bury(self, worker: WorkerProcess) -> None:
        """Take a dead worker out; a measuring one is replaced, with a spare kept ready from the first death on."""
        self._working.pop(worker, None)
        self._to_measure.extendleft(reversed(self._next.pop(worker, ())))
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
        for connection in self._readable(list(workers), timeout):
            worker = workers[connection]
            self._handle(worker, worker.receive())
        for worker in workers.values():
            if worker.overdue and not worker.connection.closed:
                self._handle_overdue(worker)

    def _readable(self, connections: list[Any], timeout: float) -> list[Any]:
        """The connections that have something to say within `timeout` seconds."""
        began = time.monotonic()
        found = wait(connections, timeout)
        # This process was stopped, or the machine was asleep: time in which the workers could not answer either.
        pause = time.monotonic() - began - timeout
        if pause > STOPPED_SECONDS:
            for worker in self._workers():
                worker.deadline += pause
        return found

    def _handle(self, worker: WorkerProcess, message: object) -> None:
        candidate = self._working.get(worker)
        if message is None:
            self._handle_death(worker, candidate)
        elif isinstance(message, Unusable):
            self._bury_quietly(worker)
            raise _unusable(worker.name, message)
        elif isinstance(message, Running):
            worker.deadline = time.monotonic() + self._run_timeout.limit
            worker.limit = self._run_timeout.limit
            if candidate is not None:
                candidate.compile_s = max(candidate.compile_s, message.compile_s)
                candidate.ran_from = time.monotonic()
        elif isinstance(message, Done) and message.foreign:
            raise CannotTravel(message.message)
        elif isinstance(message, Done) and candidate is not None:
            del self._working[worker]
            candidate.compile_s = max(candidate.compile_s, message.compile_s)
            if worker in self._compilers:
                self._handle_compiled(candidate, message, worker)
            else:
                self._handle_measured(candidate, message, worker)
            if message.poisoned:
                self._bury(worker)

    def _handle_compiled(self, candidate: _Candidate, done: Done, worker: WorkerProcess) -> None:
        self.phases.add("compiling ahead", done.compile_s)
        if done.status is Status.OK:
            self._compile_timeout.add(done.compile_s)
        if done.status is not Status.OK and self._compile_setup.device != "meta":
            self._finish(candidate, done, worker)
        elif candidate.is_baseline:
            self._to_measure.appendleft(candidate)
        else:
            # Without data host code may fail that works with it: the measuring process has the last word.
            self._to_measure.append(candidate)

    def _handle_measured(self, candidate: _Candidate, done: Done, worker: WorkerProcess) -> None:
        now = time.monotonic()
        worker.idle_since = now
        if done.status is Status.OK:
            self._run_timeout.add(now - candidate.ran_from)
        count_spent(done, self.phases)
        self.phases.add("way and wait", now - candidate.given - sum(done.spent.values()))
        self._finish(candidate, done, worker)
        if self._next.get(worker) and not done.poisoned:
            self._begin(worker, self._next[worker].popleft())

    def _finish(self, candidate: _Candidate, done: Done, worker: WorkerProcess) -> None:
        """Nothing more is done with this candidate."""
        if candidate.is_baseline:
            self._baseline_done(done)
        else:
            self._outbox.append(trial_of(candidate.config, done, worker.name, candidate.compile_s))

    def _handle_overdue(self, worker: WorkerProcess) -> None:
        candidate = self._working.get(worker)
        if not worker.ready or candidate is None:
            worker.kill("start")
            self._handle_death(worker, candidate)
            return
        done = self._timeout(worker)
        worker.kill(done.message)
        self._bury(worker)
        self._finish(candidate, done, worker)

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
                fix="see its last words above; isolate=False tunes without worker processes.",
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
        self._finish(candidate, done, worker)

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
            if not worker.submit(job):
                self._bury(worker)
                continue
            worker.begin(self._compile_timeout.most)
            while True:
                if self._readable([worker.connection], max(0.0, min(1.0, worker.deadline - time.monotonic()))):
                    message = worker.receive()
                    if isinstance(message, Running):
                        worker.limit = self._run_timeout.most
                        worker.deadline = time.monotonic() + worker.limit
                    elif isinstance(message, Done):
                        if message.foreign:
                            raise CannotTravel(message.message)
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
