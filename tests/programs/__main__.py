"""Draws programs, runs them in every mode, and writes what fails, made small, to disk.

python -m tests.programs --seconds 600 --seed 1
python -m tests.programs --seed 7 --seconds 360 --modes ref,tiles,"tiles config" --jobs 30 --failures found
"""

from __future__ import annotations

import argparse
import concurrent.futures
import re
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from .coverage import Coverage
from .printing import script
from .program import Program
from .run import MODES
from .run import Outcome
from .shrink import shrink
from .worker import Result
from .worker import Task
from .worker import Worker

#: Statuses of outcomes, as they are counted in the end.
_ORDER = ("ok", "refused", "invalid", "wrong", "error", "crash", "timeout")
FAILURES = Path(__file__).parent.parent.parent / "build" / "programs"


def signature(outcome: Outcome) -> str:
    """What two failures of one fault have in common: numbers and names left out."""
    detail = re.sub(r"\d+(\.\d+)?(e[-+]?\d+)?", "#", outcome.detail)
    if outcome.status == "wrong":
        detail = ""
    mode = "softgpu" if outcome.mode.isdigit() else outcome.mode
    return f"{mode} {outcome.status} {detail[:80]}".strip()


class Run:
    """One run of the generator.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.modes = tuple(options.modes.split(","))
        self.coverage = Coverage()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.refusals: Counter[str] = Counter()
        self.found: dict[str, Path] = {}
        self._lock = threading.Lock()
        self._next = 0
        self._began = time.monotonic()
        self._until = self._began + options.seconds

    def _seed(self) -> str | None:
        with self._lock:
            if self._next >= self.options.count or time.monotonic() > self._until:
                return None
            self._next += 1
            return f"{self.options.seed}:{self.options.first + self._next - 1}"

    def stop(self, *_: object) -> None:
        """Let the time be over now."""
        self._until = time.monotonic()

    def _end(self) -> float:
        """When programs are given up."""
        return self._until + self.options.grace

    def work(self) -> None:
        """One thread: programs until the time is over."""
        worker = Worker(self.options.timeout)
        said = time.monotonic()
        try:
            while (seed := self._seed()) is not None:
                if time.monotonic() > said + 60:
                    said = time.monotonic()
                    print(f"{self.coverage.programs} programs, {len(self.found)} failures; {self.counts()}", flush=True)
                result = worker.run(Task(seed, self.modes), self._end)
                failed = self._count(result)
                for outcome in failed:
                    self._keep(worker, result, outcome)
        finally:
            worker.close()

    def _count(self, result: Result) -> list[Outcome]:
        """Add a result to the counts; the failures that are new."""
        with self._lock:
            if result.features is not None:
                self.coverage.add(result.features)
            new = []
            for outcome in result.outcomes:
                self.outcomes[outcome.mode, outcome.status] += 1
                if outcome.status in ("refused", "invalid"):
                    self.refusals[signature(outcome)] += 1
                if outcome.failed:
                    name = signature(outcome)
                    wrongs = sum(n.startswith(name) for n in self.found)
                    if name not in self.found or (outcome.status == "wrong" and wrongs < self.options.wrong):
                        name = name if name not in self.found else f"{name} {wrongs}"
                        self.found[name] = Path()
                        new.append(outcome)
                        break
            return new

    def _keep(self, worker: Worker, result: Result, outcome: Outcome) -> None:
        """Shrink a failure and write it."""
        print(f"seed {result.task.seed}: {outcome.mode} {outcome.status}: {outcome.detail}", flush=True)
        program = result.program
        if program is None:
            return
        wanted, weight = signature(outcome), program.weight()

        def fails(smaller: Program) -> bool:
            found = worker.run(Task(result.task.seed, (outcome.mode,), smaller), self._end).outcomes
            return any(signature(o) == wanted for o in found)

        seconds = min(self.options.shrink, self._until - time.monotonic())
        if seconds > 0 and fails(program):
            program = shrink(program, fails, seconds)
        folder: Path = self.options.failures
        folder.mkdir(parents=True, exist_ok=True)
        words = re.sub(r"\W+", "_", f"{outcome.mode} {outcome.status} {result.task.seed}")
        path = folder / f"{words}.py"
        title = f"Seed {result.task.seed}, mode {outcome.mode}: {outcome.status}.\n\n{outcome.detail[:110]}\n"
        path.write_text(script(program, title))
        print(f"  written: {path} ({program.weight()} from {weight})", flush=True)

    def counts(self) -> str:
        """Programs by mode and what came of them: `ref 40 right, 1 refused; ...`."""
        words = {"ok": "right"}
        found: dict[str, list[str]] = {}
        for (mode, status), n in sorted(self.outcomes.items(), key=lambda item: (item[0][0], _ORDER.index(item[0][1]))):
            found.setdefault(mode, []).append(f"{n} {words.get(status, status)}")
        return "; ".join(f"{mode} {', '.join(counted)}" for mode, counted in found.items())

    def report(self) -> str:
        """What happened, in text."""
        lines = [self.coverage.report(), *(f"  {n} x {text}" for text, n in self.refusals.most_common(60))]
        lines += [f"FAILED {name}" for name in self.found]
        seconds = time.monotonic() - self._began
        rate = self.coverage.programs / seconds * 60
        lines.append(
            f"seed {self.options.seed}, {self.coverage.programs} programs in {seconds:.0f} s, {rate:.0f} a minute with "
            f"{self.options.jobs} jobs, {len(self.found)} failures"
        )
        return "\n".join([*lines, *(f"  {counted}" for counted in self.counts().split("; ") if counted)])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.programs", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--count", type=int, default=10**9, help="most programs")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--first", type=int, default=0, help="number of the first program")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=180, help="seconds of one mode of one program")
    parser.add_argument("--grace", type=float, default=60, help="seconds for what runs when the time is over")
    parser.add_argument("--shrink", type=float, default=120, help="seconds to make one failure smaller")
    parser.add_argument(
        "--failures", type=Path, default=FAILURES, help="the folder that they are written to, as scripts"
    )
    parser.add_argument("--wrong", type=int, default=6, help="wrong results of one mode to keep")
    options = parser.parse_args()
    run = Run(options)
    signal.signal(signal.SIGTERM, run.stop)  # the counts are told in any case
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for future in [pool.submit(run.work) for _ in range(options.jobs)]:
            future.result()
    print(run.report())
    return 1 if run.found else 0


if __name__ == "__main__":
    sys.exit(main())
