"""The worker process: builds, checks and times candidates, one job at a time, and is expendable.

Started by `process.py`, with a socket to the parent.  A candidate may corrupt memory, hang or exhaust the device; then
the parent kills this process and starts another.  It is forked from a process that has done nothing but imports, or a
fresh interpreter, and neither a fork of the program nor a multiprocessing child: CUDA does not survive a fork, and
multiprocessing would import the user's main script again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import os
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import IO
from typing import Any
from typing import cast

import torch

from .. import exc
from ..backends.base import Recipe
from .absent import AbsentGpu
from .accuracy import Outcome
from .accuracy import Tolerance
from .accuracy import clone_args
from .accuracy import mismatch
from .accuracy import outcome_of
from .accuracy import run_for_result
from .measure import Effort
from .measure import Timing
from .measure import device_of
from .measure import time_call
from .travel import CannotTravel
from .travel import save
from .travel import unpack
from .trial import Status

PLACE_BYTES = 22 << 20
"""By how much one place is away from the next: more than PyTorch keeps together in one allocation."""

MARK = "HELION_AUTOTUNE_WORKER"
"""Environment variable that is set in workers: a kernel called in one must not start tuning in turn."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """First message: what all jobs share.

    Attributes:
        args_fd: an inherited file with the arguments, written by `travel.save`.  It has no name: whatever becomes of
            the processes, the system removes it.
        expected_fd: an inherited file for the baseline's result.
        device: where to put them, for example `cuda:1`; `meta` keeps shapes and types only (enough to compile); None
            leaves them where they were.
        tolerance: of the accuracy check.
        timer: `autotune_benchmark_fn`, packed: called with a callable, returns milliseconds; None: the built-in one.
        absent: with the device `meta`: the GPU that is compiled for.  The worker does not use it: sixteen contexts take
            seconds to create, one after the other, and memory.
    """

    args_fd: int
    expected_fd: int
    device: str | None = None
    tolerance: Tolerance = dataclasses.field(default_factory=Tolerance)
    timer: bytes | None = None
    absent: AbsentGpu | None = None


@dataclasses.dataclass(frozen=True)
class Precompile:
    """Compile, run nothing."""

    recipe: Recipe


@dataclasses.dataclass(frozen=True)
class Baseline:
    """Run once and write the result to the file of expected results."""

    recipe: Recipe


@dataclasses.dataclass(frozen=True)
class Measure:
    """Build, compare with the expected result (if `check`), and time."""

    recipe: Recipe
    effort: Effort
    check: bool = False


Job = Precompile | Baseline | Measure


@dataclasses.dataclass(frozen=True)
class Running:
    """Message to the parent: compiled, the candidate runs from now on."""

    compile_s: float


@dataclasses.dataclass(frozen=True)
class Ready:
    """Message to the parent: jobs can come.

    Attributes:
        began: when this process began to be a worker, by the system's monotonic clock.
        load_s: seconds until the arguments were where they belong, a context on the device included.
    """

    began: float
    load_s: float


@dataclasses.dataclass(frozen=True)
class Unusable:
    """Message to the parent instead of `Ready`: this process cannot work.

    Attributes:
        message: why.
        foreign: what the parent sent cannot be rebuilt here (else there is no room for it).
    """

    message: str
    foreign: bool


@dataclasses.dataclass(frozen=True)
class Done:
    """Message to the parent: the outcome of a job.

    Attributes:
        status: how it ended.
        message: the error.
        timing: samples of a `Measure`.
        compile_s: seconds spent compiling.
        spent: phase (`phases.PHASES`) -> seconds.
        poisoned: the process is no longer usable (an error that sticks to the CUDA context).
        foreign: the candidate cannot be rebuilt in this process, so that no other will be either.
    """

    status: Status
    message: str = ""
    timing: Timing | None = None
    compile_s: float = 0.0
    spent: dict[str, float] = dataclasses.field(default_factory=dict)
    poisoned: bool = False
    foreign: bool = False


def reopened(descriptor: int, mode: str = "rb") -> IO[bytes]:
    """An inherited file without a name, opened anew: with a position of its own, as others read it at the same time."""
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    return cast(IO[bytes], open(f"{folder}/{descriptor}", mode))


HOPELESS = 4
"""A candidate whose first call takes so many times the limit of what is interesting is not called again."""


class WrongAnswer(Exception):
    """The accuracy check failed."""


# What the message of an error says about its kind, where its type does not.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cudaerrormemoryallocation")


def classify(error: BaseException, running: bool) -> Status:
    """The status of a trial that ended with this exception.

    Args:
        error: what was raised.
        running: whether compilation was over.
    """
    if isinstance(error, WrongAnswer):
        return Status.WRONG_ANSWER
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return Status.OUT_OF_MEMORY
    if any(text in str(error).lower() for text in _OUT_OF_MEMORY):
        return Status.OUT_OF_MEMORY
    return Status.RUN_ERROR if running else Status.COMPILE_ERROR


def describe(error: BaseException) -> str:
    """The type, the first lines of the message, and where in the code it was raised."""
    text = error.message if isinstance(error, exc.Base) else str(error)
    lines = [line for line in text.strip().splitlines() if line.strip()][:6]
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' | '.join(lines)[:600]}{where}"


class Session:
    """What a worker keeps between jobs: arguments, expected results, built candidates.

    Also used without a process, by the in-process executor.
    """

    KEPT = 64

    def __init__(
        self,
        args: tuple[Any, ...],
        tolerance: Tolerance,
        timer: Callable[[Callable[[], Any]], float] | None,
        expected_fd: int,
    ) -> None:
        self.args = args
        self._expected_fd = expected_fd
        self.device = device_of(args)
        self.tolerance = tolerance
        self.timer = timer
        self._built: OrderedDict[Recipe, Callable[..., Any]] = OrderedDict()
        self._checked: set[Recipe] = set()
        self._expected: Outcome | None = None
        self._place = 0
        self._spacer: torch.Tensor | None = None

    @classmethod
    def from_setup(cls, setup: Setup) -> Session:
        """Load the arguments."""
        if setup.absent is not None:
            setup.absent.pretend()
        with reopened(setup.args_fd) as file:
            args = torch.load(file, map_location=setup.device, weights_only=False)
        timer = None if setup.timer is None else unpack(setup.timer, "autotune_benchmark_fn")
        session = cls(args, setup.tolerance, timer, setup.expected_fd)
        if session.device.type == "cuda":
            torch.cuda.set_device(session.device)  # Triton launches on the current device
        return session

    def run(self, job: Job, on_running: Callable[[float], None] = lambda seconds: None) -> Done:
        """Do one job.  Every exception of the candidate becomes a status.

        Args:
            job: what to do.
            on_running: called with the seconds of compilation when the candidate is about to run.
        """
        started = time.perf_counter()
        compile_s, running = 0.0, False
        self._spent: dict[str, float] = {}
        try:
            fn = self._build(job.recipe)
            compile_s, running = time.perf_counter() - started, True
            if isinstance(job, Precompile):
                return Done(Status.OK, compile_s=compile_s)
            self._spent["building"] = compile_s
            on_running(compile_s)
            if isinstance(job, Baseline):
                with self._timed("baseline"):
                    self.expect(run_for_result(fn, self.args))
                return Done(Status.OK, compile_s=compile_s, spent=self._spent)
            return Done(Status.OK, timing=self._measure(fn, job), compile_s=compile_s, spent=self._spent)
        except Exception as error:  # whatever a candidate raises is data here
            return Done(
                classify(error, running),
                describe(error),
                compile_s=compile_s,
                spent=self._spent,
                poisoned=self._is_poisoned(),
                foreign=isinstance(error, CannotTravel),
            )

    def expect(self, outcome: Outcome) -> None:
        """Keep the result that candidates are compared with where all workers find it."""
        with reopened(self._expected_fd, "r+b") as file:
            file.truncate()
            save(outcome, file)

    def _build(self, recipe: Recipe) -> Callable[..., Any]:
        fn = self._built.get(recipe)
        if fn is None:
            fn = recipe.build(self.args)
            recipe.precompile(fn, self.args)
            self._built[recipe] = fn
            while len(self._built) > self.KEPT:
                self._checked.discard(self._built.popitem(last=False)[0])
        self._built.move_to_end(recipe)
        return fn

    def _measure(self, fn: Callable[..., Any], job: Measure) -> Timing:
        # Copies: a kernel that writes into its arguments would change them more with every call measured.
        with self._timed("checking"):
            self._move_to(job.effort.place)
            own = clone_args(self.args)
            if job.recipe not in self._checked:
                if job.check:
                    actual = outcome_of(fn(*own), own, self.args)
                    difference = mismatch(self._load_expected(), actual, self.args, self.tolerance)
                    if difference is not None:
                        raise WrongAnswer(difference)
                self._checked.add(job.recipe)
        with self._timed("measuring"):
            return self._time(fn, own, job)

    def _move_to(self, place: int) -> None:
        """Let copies of the arguments, and results, have other addresses than before: what is a few percent faster
        where they happen to lie may be slower in the next process."""
        if place != self._place and self.device.type == "cuda":
            self._spacer = None
            torch.cuda.empty_cache()
            with contextlib.suppress(torch.OutOfMemoryError):
                self._spacer = torch.empty(place * PLACE_BYTES, dtype=torch.uint8, device=self.device)
        self._place = place

    @contextlib.contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._spent[phase] = time.perf_counter() - began

    def _time(self, fn: Callable[..., Any], own: tuple[Any, ...], job: Measure) -> Timing:
        started = time.perf_counter()
        fn(*own)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        once_ms = (time.perf_counter() - started) * 1e3
        if once_ms > HOPELESS * job.effort.give_up_ms and once_ms > 10.0:
            return Timing((once_ms,))
        if self.timer is not None:
            return Timing((float(self.timer(lambda: fn(*own))),))
        return time_call(lambda: fn(*own), self.device, job.effort)

    def _load_expected(self) -> Outcome:
        if self._expected is None:
            on_gpu = self.device if self.device.type == "cuda" else None
            with reopened(self._expected_fd) as file:
                self._expected = torch.load(file, map_location=on_gpu, weights_only=False)
        return self._expected

    def _is_poisoned(self) -> bool:
        """After an illegal access every further CUDA call fails: find out now, not on the next candidate."""
        if self.device.type != "cuda":
            return False
        try:
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()
        except RuntimeError:
            return True
        return False


def serve(connection: Connection, files: Sequence[int]) -> None:
    """Answer jobs until the parent closes the connection.

    Args:
        connection: to the parent.
        files: what the files of the Setup are called here.
    """
    began = time.monotonic()
    try:
        connection.recv().apply()  # Surroundings
        setup = connection.recv()
    except EOFError:
        return
    os.environ[MARK] = "1"
    try:
        session = Session.from_setup(dataclasses.replace(setup, args_fd=files[0], expected_fd=files[1]))
    except Exception as error:  # rebuilding the user's objects runs the user's code
        no_room = classify(error, running=False) is Status.OUT_OF_MEMORY
        connection.send(Unusable(describe(error), foreign=not no_room))
        return
    connection.send(Ready(began, time.monotonic() - began))
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        done = session.run(job, on_running=lambda seconds: connection.send(Running(seconds)))
        connection.send(done)
        if done.poisoned:
            return


def main(connection: int, files: Sequence[int]) -> None:
    """Be a worker, with the parent at the other end of a socket."""
    faulthandler.enable()  # a crash leaves the Python stack on stderr, which the parent keeps
    serve(Connection(connection), files)
