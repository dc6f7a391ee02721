"""Executors: take Configs, give back Trials.  Here: the interface, and `InProcessExecutor`.

That does everything here and now: for cost models, and for kernels that cannot travel to another process.  The one
with worker processes is in `process_executor.py`.  Which Configs, and when to stop, is the tuner's business.
"""

from __future__ import annotations

import abc
import tempfile
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence
from typing import IO
from typing import Any

from .. import exc
from ..backends.base import Recipe
from ..config import Config
from .accuracy import Tolerance
from .accuracy import run_for_result
from .measure import Effort
from .measure import Timing
from .phases import Phases
from .trial import Status
from .trial import Trial
from .worker import Baseline
from .worker import Done
from .worker import Job
from .worker import Measure
from .worker import Session


class Executor(abc.ABC):
    """Base of the executors.

    Attributes:
        capacity: how many candidates in flight keep it busy.
        effort: how long each candidate is measured; the tuner adjusts it to the best.
        phases: is told where the time goes.
    """

    capacity: int = 1
    effort: Effort = Effort()
    phases: Phases

    def __init__(self) -> None:
        self.phases = Phases()

    @abc.abstractmethod
    def set_baseline(self, recipe: Recipe | None, function: Callable[..., Any] | None) -> None:
        """Compute the result that candidates are compared with: of a recipe or of a function.

        Raises:
            exc.AutotuneError: it does not run; this may come from `poll`.
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
    def cancel(self) -> list[Trial]:
        """Forget all candidates in flight.

        Returns:
            Outcomes since the last `poll`, of candidates that were finished all the same.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Free everything."""


def trial_of(config: Config, done: Done, worker: str, compile_s: float) -> Trial:
    timing = done.timing
    if done.status is not Status.OK or timing is None:
        return Trial(config, done.status, message=done.message, compile_s=compile_s, worker=worker)
    return Trial(config, Status.OK, timing.median, timing.spread, compile_s=compile_s, worker=worker)


def nameless_file() -> IO[bytes]:
    """A temporary file without a name: the system removes it with the last process that has it open."""
    return tempfile.TemporaryFile(prefix="helion-tune-")


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
        super().__init__()
        self._expected_file = nameless_file()
        self._session = Session(tuple(args), tolerance, timer, self._expected_file.fileno())
        self._check = False
        self._queue: deque[tuple[Config, Recipe]] = deque()

    def set_baseline(self, recipe: Recipe | None, function: Callable[..., Any] | None) -> None:
        if function is not None:
            self._session.expect(given_baseline(function, self._session.args))
        elif recipe is not None:
            done = self._run(Baseline(recipe))
            if done.status is not Status.OK:
                raise baseline_failed(done.status, done.message)
        self._check = True

    def _run(self, job: Job) -> Done:
        done = self._session.run(job)
        count_spent(done, self.phases)
        return done

    def submit(self, config: Config, recipe: Recipe) -> None:
        self._queue.append((config, recipe))

    def poll(self, seconds: float) -> list[Trial]:
        if not self._queue:
            return []
        config, recipe = self._queue.popleft()
        done = self._run(Measure(recipe, self.effort, self._check))
        return [trial_of(config, done, "in process", done.compile_s)]

    def remeasure(self, recipe: Recipe, effort: Effort) -> Timing | None:
        return self._session.run(Measure(recipe, effort, self._check)).timing

    def cancel(self) -> list[Trial]:
        self._queue.clear()
        return []

    def close(self) -> None:
        self._expected_file.close()


def count_spent(done: Done, phases: Phases) -> None:
    for phase, seconds in done.spent.items():
        phases.add(phase, seconds)


def given_baseline(function: Callable[..., Any], args: Sequence[Any]) -> Any:
    """What `autotune_baseline_fn` gives, in this process.

    Raises:
        exc.AutotuneError: it raises something.
    """
    try:
        return run_for_result(function, args)
    except Exception as error:
        name = getattr(function, "__name__", repr(function))
        raise exc.AutotuneError(
            f"autotune_baseline_fn, what candidates are compared with, {name}(), raises: {error}",
            fix="let it take the kernel's arguments and return what the kernel does, or leave it out.",
        ) from error


def baseline_failed(status: Status, message: str) -> exc.AutotuneError:
    return exc.AutotuneError(
        f"the default config, which candidates are compared with, does not run: {status.value}: {message}",
        fix="give autotune_baseline_fn (a function with the expected result), or set autotune_accuracy_check=False.",
    )
