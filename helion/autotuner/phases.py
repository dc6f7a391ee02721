"""Phases: how often, and for how many seconds in all, a search did each of the things that take its time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

#: What a search spends time on, in the order of the table, and where: phases of "here" and "measuring" are one after
#: the other, those of the compile workers add up over workers that run at once.
PHASES: dict[str, str] = {
    "saving arguments": "here: the copy that workers load",
    "worker start": "from asking for a worker until it runs (with the imports, where it had to wait for them)",
    "arguments, context": "workers: loading the arguments, creating the device's context",
    "proposing": "here: which Configs to try next",
    "generating": "here: source of the candidates",
    "compiling ahead": "compile workers, added up",
    "baseline": "measuring process: the result that others are compared with",
    "building": "measuring process: loading what was compiled, compiling what was not",
    "checking": "measuring process: first call, and the comparison of its results",
    "measuring": "measuring process",
    "way and wait": "measuring process: messages, and this process being busy with something else",
    "nothing to do": "measuring process: nothing was ready to be measured",
    "final comparison": "here: the leaders again, with the default",
}


class Phases:
    """Seconds by phase, of one search."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.count: dict[str, int] = dict.fromkeys(PHASES, 0)
        self.seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self.reached: dict[str, float] = {}
        """Milestone -> seconds since the search began."""

    def add(self, phase: str, seconds: float) -> None:
        """It took so long, once more."""
        self.count[phase] += 1
        self.seconds[phase] += seconds

    @contextlib.contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """What is inside belongs to a phase."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(phase, time.perf_counter() - began)

    def reach(self, milestone: str) -> None:
        """Note when something happened for the first time."""
        self.reached.setdefault(milestone, time.monotonic() - self.began)

    def table(self) -> str:
        """For the log."""
        lines = [f"{'phase':<20}{'times':>6}{'seconds':>9}  where"]
        lines += [
            f"{name:<20}{self.count[name]:>6}{self.seconds[name]:>9.2f}  {where}"
            for name, where in PHASES.items()
            if self.count[name]
        ]
        if self.reached:
            lines.append("reached after: " + ", ".join(f"{name} {s:.2f} s" for name, s in self.reached.items()))
        return "\n".join(lines)
