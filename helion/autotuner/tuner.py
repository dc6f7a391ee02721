"""Tuner: the loop between a search and an executor, with budgets, and the choice of the winner.

Nothing here knows how candidates are proposed, compiled or shown.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import math
import statistics
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Protocol
from typing import TypeVar

from .. import exc
from ..backends.base import Recipe
from ..config import Config
from .executor import Executor
from .measure import Effort
from .phases import Phases
from .strategy import Strategy
from .study import SharedStudy
from .study import answer
from .target import TuningTarget
from .trial import Status
from .trial import Trial
from .winner import choose
from .winner import leaders

log = logging.getLogger("helion.autotuner")

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Budget:
    """When a search ends at the latest.

    Attributes:
        evaluations: Configs measured.
        seconds: for everything; the last `FINAL_SHARE` of them for the choice of the winner, of which one round is made
            in any case.
        rounds: generations of searches that have them.
        patience: end when the last so many Configs made the best less than 1% faster.
    """

    evaluations: int | None = None
    seconds: float | None = None
    rounds: int | None = None
    patience: int | None = None


# autotune_effort -> budget.
EFFORTS: dict[str, Budget] = {
    "quick": Budget(evaluations=80, seconds=180.0, patience=48),
    "full": Budget(evaluations=400, seconds=1800.0, patience=160),
}

FINAL_SHARE = 0.15
"""Part of a budget of seconds in which the leaders are measured again."""
ASKED_AT_ONCE = 4
"""A search is asked for so many Configs at once, where most workers are busy meanwhile: it fits a model every time."""
FAR_SLOWER = 10.0
"""A default so many times slower than the best is not measured again."""


class Observer(Protocol):
    """Told what happens: progress display, log."""

    def started(self, tuner: Tuner) -> None:
        """Before the first trial."""

    def trial(self, trial: Trial, tuner: Tuner) -> None:
        """After every trial."""

    def choosing(self, candidates: Sequence[Trial], tuner: Tuner) -> None:
        """Before the leaders are measured again."""

    def finished(self, result: TuningResult) -> None:
        """At the end, also after Ctrl-C."""


@dataclasses.dataclass(frozen=True)
class TuningResult:
    """What a tuning run found.

    Attributes:
        kernel_name: which kernel.
        config: the winner.
        time_ms: its median time in the final comparison, milliseconds; None if the time was over before anything was
            measured.
        default_ms: the default Config's time, from the same comparison if it took part; None if it was not measured.
        trials: every trial, in order.
        seconds: how long it took.
        ended: why it ended, for example `budget of 80 evaluations`.
        phases: where the time went.
    """

    kernel_name: str
    config: Config
    time_ms: float | None
    default_ms: float | None
    trials: tuple[Trial, ...]
    seconds: float
    ended: str
    phases: Phases = dataclasses.field(default_factory=Phases, compare=False, repr=False)

    def failures(self) -> collections.Counter[Status]:
        """Status -> how many trials ended with it."""
        return collections.Counter(t.status for t in self.trials if not t.ok)


class Tuner:
    """One tuning run.

    Args:
        target: the kernel.
        search: proposes Configs.
        executor: measures them; closed by the caller.
        budget: when to stop.
        observers: told about every step.
        study: shares candidates and outcomes with other processes, and brings back those of an interrupted run.
        ignore_errors: count an unexpected error of the code generator as a failed Config instead of raising it.
        clock: seconds, monotonic.
        started: when the budget began, by that clock; default now.
    """

    def __init__(
        self,
        target: TuningTarget,
        search: Strategy,
        executor: Executor,
        budget: Budget = Budget(),
        observers: Iterable[Observer] = (),
        ignore_errors: bool = False,
        study: SharedStudy | None = None,
        clock: Callable[[], float] = time.monotonic,
        started: float | None = None,
    ) -> None:
        self.target = target
        self.search = search
        self.executor = executor
        self.phases = executor.phases
        self._batch = max(1, min(ASKED_AT_ONCE, executor.capacity // ASKED_AT_ONCE))
        self.budget = budget
        self.observers = list(observers)
        self.ignore_errors = ignore_errors
        self.study = study
        self.clock = clock
        self.trials: list[Trial] = []
        self.best: Trial | None = None
        self.ended = ""
        self._started = clock() if started is None else started
        self._last_gain = 0
        self._gain_from = math.inf
        self._recipes: dict[Config, Recipe] = {}
        self._by_recipe: dict[Recipe, Trial] = {}
        self._twins: dict[Recipe, list[Config]] = {}
        self._elsewhere: set[Config] = set()
        self._worked: set[Config] = set()
        """Configs that ran in this search, with right results: no other one wins, whatever a shared study says."""

    def elapsed(self) -> float:
        """Seconds since the budget began."""
        return self.clock() - self._started

    def run(self) -> TuningResult:
        """Search, then choose.  Ctrl-C ends the search and keeps the best so far.

        Raises:
            exc.NoConfigFound: nothing worked.
            KeyboardInterrupt: interrupted before anything worked, or a second time.
        """
        for observer in self.observers:
            observer.started(self)
        interrupted = False
        try:
            self._loop()
        except KeyboardInterrupt:
            if self.best is None:
                raise
            interrupted = True
            self.ended = "interrupted"
        except exc.AutotuneError as error:
            if self.best is None:
                raise
            self.ended = f"stopped by an error: {error.message}"
        finally:
            for trial in self.executor.cancel():
                self._take_in(trial)
            self._shared(SharedStudy.give_up, None)
        if self.best is not None:
            config, time_ms, default_ms = self._choose_winner(quickly=interrupted)
            config, time_ms = self._agreed(config, time_ms, quickly=interrupted)
        else:
            config, time_ms, default_ms = self._unmeasured(), None, None
        result = TuningResult(
            self.target.kernel_name,
            config,
            time_ms,
            default_ms,
            tuple(self.trials),
            self.elapsed(),
            self.ended,
            self.phases,
        )
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s: where %.1f s went\n%s", result.kernel_name, result.seconds, self.phases.table())
        for observer in self.observers:
            observer.finished(result)
        return result

    # -- the loop -----------------------------------------------------------------------------------

    def _loop(self) -> None:
        in_flight: set[Config] = set()
        while True:
            self._listen(in_flight)
            if self._is_over():
                return
            free = room = self.executor.capacity - len(in_flight)
            if self.budget.evaluations is not None:
                room = min(room, self.budget.evaluations - len(self.trials) - len(in_flight))
            asked: list[Config] = []
            if room > 0 and (free >= self._batch or not in_flight):
                with self.phases.timed("proposing"):
                    asked = self.search.ask(room)
            for config in asked:
                if self._submit(config):
                    in_flight.add(config)
            if not in_flight:
                if self._elsewhere:
                    # What is left is being measured by others.
                    time.sleep(0.5)
                    continue
                if not asked or self.search.finished:
                    self.ended = "search finished"
                    return
                continue
            for trial in self.executor.poll(0.5):
                in_flight.difference_update(self._take_in(trial))

    def _take_in(self, trial: Trial) -> list[Config]:
        """Record an outcome of the executor's; for these Configs, whose code is the same."""
        configs = [trial.config, *self._twins.pop(self._recipes[trial.config], [])]
        if trial.ok:
            self._worked.update(configs)
        for config in configs:
            same = dataclasses.replace(trial, config=config)
            self._share(same)
            self._record(same)
        return configs

    def _listen(self, in_flight: set[Config]) -> None:
        """Take in what other participants of the study did since last time."""
        if self.study is None:
            return
        none: list[Trial] = []
        for trial in self._shared(SharedStudy.updates, none):
            config = self._fitting(trial.config)
            if config is not None and config not in self.search.history and config not in in_flight:
                self._record(dataclasses.replace(trial, config=config))
        nobody: set[Config] = set()
        now = self._shared(SharedStudy.claimed, nobody)
        for config in self._elsewhere - now - in_flight:
            if config not in self.search.history:
                self.search.requeue(config)  # given up by whoever claimed it
        self._elsewhere = {c for c in now if c not in self.search.history} - in_flight
        self.search.pending |= self._elsewhere

    def _fitting(self, config: Config) -> Config | None:
        """A Config that somebody else wrote, in full; None if it fits neither the kernel nor this search's filter."""
        try:
            full = self.target.config_spec.normalize(config)
        except exc.BaseError:
            return None
        return full if self.search.space.complete(full) == full else None

    def _share(self, trial: Trial) -> None:
        self._shared(lambda study: study.report(trial), None)

    def _shared(self, use: Callable[[SharedStudy], T], otherwise: T) -> T:
        """Use the study; where its storage fails (full, gone, damaged, silent), go on without the others."""
        study = self.study
        if study is None:
            return otherwise
        try:
            return answer(lambda: use(study))
        except Exception as error:  # a storage raises its own kinds, and none of them is about this search
            log.warning("the shared study failed, tuning goes on alone: %s: %s", type(error).__name__, error)
            self.study = None
            for config in self._elsewhere:
                self.search.requeue(config)
            self._elsewhere = set()
            return otherwise

    def _submit(self, config: Config) -> bool:
        """Generate the candidate and hand it to the executor; False if its outcome is already known."""
        try:
            with self.phases.timed("generating"):
                recipe = self.target.recipe(config)
        except exc.InternalError:
            if not self.ignore_errors:
                raise
            self._record(Trial(config, Status.COMPILE_ERROR, message="internal error in the code generator"))
            return False
        except exc.BaseError as error:
            self._record(Trial(config, Status.COMPILE_ERROR, message=f"{type(error).__name__}: {error.message}"))
            return False
        except Exception as error:
            # A bug in the code generator.  Skipping it silently would hide it from everybody.
            if not self.ignore_errors:
                raise exc.InternalError(
                    reason=f"generating code for {config} raised {type(error).__name__}: {error}"
                ) from error
            self._record(Trial(config, Status.COMPILE_ERROR, message=f"{type(error).__name__}: {error}"))
            return False
        if not self._shared(lambda study: study.claim(config), True):
            self._elsewhere.add(config)
            return False
        self._recipes[config] = recipe
        known = self._by_recipe.get(recipe)
        if known is not None:
            twin = dataclasses.replace(known, config=config)
            if known.config in self._worked:
                self._worked.add(config)
            self._share(twin)
            self._record(twin)
            return False
        if recipe in self._twins:
            self._twins[recipe].append(config)
            return True
        self._twins[recipe] = []
        self.executor.submit(config, recipe)
        return True

    def _record(self, trial: Trial) -> None:
        self.trials.append(trial)
        if trial.ok:
            self.phases.reach("first time")
        recipe = self._recipes.get(trial.config)
        if recipe is not None:
            self._by_recipe[recipe] = trial
        if trial.ok and (self.best is None or trial.time_ms < self.best.time_ms):
            self.best = trial
            self.executor.effort = self.executor.effort.against(trial.time_ms)
            if trial.time_ms < 0.99 * self._gain_from:
                self._gain_from = trial.time_ms
                self._last_gain = len(self.trials)
        self.search.tell(trial)
        for observer in self.observers:
            observer.trial(trial, self)

    def _is_over(self) -> bool:
        budget, count = self.budget, len(self.trials)
        rules = (
            (
                budget.evaluations is not None and count >= budget.evaluations,
                f"budget of {budget.evaluations} evaluations",
            ),
            (not self._has_time(1 - FINAL_SHARE if self.best else 1.0), f"budget of {budget.seconds} seconds"),
            (
                budget.rounds is not None and self.search.rounds > budget.rounds,
                f"budget of {budget.rounds} generations",
            ),
            (
                budget.patience is not None and self.best is not None and count - self._last_gain >= budget.patience,
                f"less than 1% gained by the last {budget.patience} evaluations",
            ),
        )
        for applies, reason in rules:
            if applies:
                self.ended = reason
                return True
        return False

    def _has_time(self, share: float = 1.0) -> bool:
        """Whether this share of the seconds is not over."""
        return self.budget.seconds is None or self.elapsed() < share * self.budget.seconds

    # -- the end ------------------------------------------------------------------------------------

    def _distinct(self) -> list[Trial]:
        """The trials, one for each generated code: the first that led to it."""
        found: dict[Recipe | Config, Trial] = {}
        for trial in self.trials:
            found.setdefault(self._recipes.get(trial.config, trial.config), trial)
        return list(found.values())

    def _proven(self, trials: list[Trial], quickly: bool) -> list[Trial]:
        """Trials of which those that may win have run in this search.

        A shared study has times of other processes, and whatever else was written there: what would win by them is
        measured here, and is out where it does not work.
        """
        known = list(trials)
        while unproven := [t for t in leaders(known) if t.config not in self._worked]:
            if quickly or not self._has_time():
                return [t for t in known if t.config in self._worked] or known
            for trial in unproven:
                known.remove(trial)
                time_ms = self._remeasure(trial.config)
                if time_ms is not None:
                    known.append(dataclasses.replace(trial, time_ms=time_ms))
        return known

    def _remeasure(self, config: Config, place: int = 0) -> float | None:
        """Milliseconds that a Config takes now; None if it fails."""
        recipe = self._recipes.get(config)
        if recipe is None:  # of another process, or from an earlier run
            recipe = self._recipes[config] = self.target.recipe(config)
        timing = self.executor.remeasure(recipe, Effort(total_ms=self.executor.effort.total_ms, place=place))
        if timing is None:
            return None
        self._worked.add(config)
        return timing.median

    def _agreed(self, config: Config, time_ms: float, quickly: bool) -> tuple[Config, float]:
        """The winner of all participants of the study; this one's, if theirs does not work here."""
        mine = (config, time_ms)
        theirs = self._shared(lambda study: study.agree(*mine, self._fitting), mine)
        if theirs[0] == config or theirs[0] in self._worked:
            return theirs
        if quickly:
            return mine
        if self._remeasure(theirs[0]) is not None:
            return theirs
        self._shared(lambda study: study.agree(*mine, lambda _: None), mine)  # theirs is replaced
        return mine

    def _choose_winner(self, quickly: bool) -> tuple[Config, float, float | None]:
        """The winner, its time, and the default's."""
        distinct = self._proven(self._distinct(), quickly)
        best = min((t for t in distinct if t.ok), key=lambda t: t.time_ms, default=None)
        if best is None:
            raise self._nothing_found()
        candidates = leaders(distinct)
        start = self.search.space.default()
        default = next((t for t in self.trials if t.ok and t.config == start), None)
        default_ms = None if default is None else default.time_ms
        # Measured again with the others: between the beginning and the end the whole machine may have become slower.
        if default in distinct and default not in candidates and default.time_ms <= FAR_SLOWER * best.time_ms:
            candidates.append(default)
        if start is not None and start in self.search.first and start not in self.search.history:
            # The time was over before the default's turn came: nothing wins that was not compared with it.
            candidates.append(dataclasses.replace(best, config=start))
        if quickly or len(candidates) < 2:
            return best.config, best.time_ms, default_ms
        for observer in self.observers:
            observer.choosing(candidates, self)
        rounds: collections.Counter[Config] = collections.Counter()

        def measure(config: Config) -> float | None:
            rounds[config] += 1
            return self._remeasure(config, rounds[config])

        try:
            with self.phases.timed("final comparison"):
                config, time_ms, times = choose(candidates, measure, self.search.space, has_time=self._has_time)
        except KeyboardInterrupt:
            self.ended = "interrupted"
            return best.config, best.time_ms, default_ms
        if start is not None and times.get(start):
            default_ms = statistics.median(times[start])
        return config, time_ms, default_ms

    def _unmeasured(self) -> Config:
        """The Config to use where the time was over before the first one was measured: that one, the default.

        Raises:
            exc.NoConfigFound: it was not the time: that one failed, or none is allowed.
        """
        first = self.search.first[0] if self.search.first else None
        if first is None or first in self.search.history:
            raise self._nothing_found()
        log.warning(
            "kernel %r: the search was over before anything was measured (%s); %s is used, untuned: raise the budget",
            self.target.kernel_name,
            self.ended,
            first,
        )
        return first

    def _nothing_found(self) -> exc.NoConfigFound:
        if not self.trials:
            return exc.NoConfigFound(
                kernel=self.target.kernel_name,
                reason=f"nothing was measured ({self.ended})",
                fix="raise the budget, or loosen autotune_config_filter and autotune_config_overrides.",
            )
        reasons = collections.Counter((t.status, t.message) for t in self.trials)
        kinds = collections.Counter(t.status for t in self.trials)
        (status, message), count = reasons.most_common(1)[0]
        if count == 1:  # messages differ in details: the commonest kind says more
            status = kinds.most_common(1)[0][0]
            message = next(t.message for t in self.trials if t.status is status)
        example = next(t for t in self.trials if t.status is status and t.message == message)
        tally = ", ".join(f"{n} {kind.value}" for kind, n in kinds.most_common())
        return exc.NoConfigFound(
            kernel=self.target.kernel_name,
            reason=f"all {len(self.trials)} configs failed ({tally}); most often: {status.value}: {message}",
            fix=f"run one by itself to see the whole error: @helion.kernel(config={example.config!r}).",
        )
