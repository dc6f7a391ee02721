"""What a person sees while a kernel is tuned, and the summary at the end.

`rich` draws a live line if it is installed and stderr is a terminal; else a plain line is printed now and then.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from typing import Any
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn
from rich.progress import Progress
from rich.progress import SpinnerColumn
from rich.progress import TextColumn

from ..config import Config
from ..config_spec import ConfigSpec
from .trial import Trial
from .tuner import Tuner
from .tuner import TuningResult

PLAIN_EVERY_SECONDS = 10.0


def format_ms(ms: float | None) -> str:
    """A time with three digits and a unit that suits it: `0.0123 ms` is `12.3 us`."""
    if ms is None or not math.isfinite(ms):
        return "-"
    for unit, factor in (("s", 1e-3), ("ms", 1.0), ("us", 1e3)):
        if ms * factor >= 1 or unit == "us":
            return f"{ms * factor:.3g} {unit}"
    raise AssertionError("unreachable")


def format_seconds(seconds: float) -> str:
    """`75` is `1:15`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def decorator_line(config: Config, spec: ConfigSpec) -> str:
    """The line to paste over the kernel function; keys with their default value are left out."""
    return f"@helion.kernel(config={config.minimize(spec)!r})"


def status_line(tuner: Tuner) -> str:
    """Best so far, rate, failures and time left in one line."""
    count, elapsed = len(tuner.trials), tuner.elapsed()
    failed = sum(not t.ok for t in tuner.trials)
    budget = tuner.budget
    total = f"/{budget.evaluations}" if budget.evaluations is not None else ""
    parts = [f"{count}{total} configs", f"best {format_ms(tuner.best.time_ms if tuner.best else None)}"]
    if elapsed > 0 and count:
        parts.append(f"{count / elapsed * 60:.0f}/min")
    parts.append(f"{failed} failed")
    left = time_left(tuner)
    if left is not None:
        parts.append(f"at most {format_seconds(left)} left")
    return ", ".join(parts)


def time_left(tuner: Tuner) -> float | None:
    """An upper bound of the seconds the search may still take, from budgets and the rate so far."""
    budget, count, elapsed = tuner.budget, len(tuner.trials), tuner.elapsed()
    bounds = []
    if budget.seconds is not None:
        bounds.append(budget.seconds - elapsed)
    if budget.evaluations is not None and count:
        bounds.append((budget.evaluations - count) * elapsed / count)
    return max(min(bounds), 0.0) if bounds else None


def summary(result: TuningResult, spec: ConfigSpec) -> str:
    """The text printed at the end."""
    if result.time_ms is None:
        return f"helion: {result.kernel_name} is not tuned: nothing was measured; ended: {result.ended}"
    lines = [f"helion: tuned {result.kernel_name}: {format_ms(result.time_ms)}"]
    if result.default_ms is not None and result.time_ms > 0:
        lines[0] += (
            f", {result.default_ms / result.time_ms:.2f}x the speed of the default config "
            f"({format_ms(result.default_ms)})"
        )
    failures = ", ".join(f"{count} {status.value}" for status, count in result.failures().most_common())
    lines.append(
        f"  {len(result.trials)} configs in {format_seconds(result.seconds)}, {failures or 'none'} "
        f"failed; ended: {result.ended}"
    )
    lines.append("  To use it without tuning:")
    lines.append(f"    {decorator_line(result.config, spec)}")
    return "\n".join(lines)


class PlainProgress:
    """A line now and then: for logs and terminals without rich."""

    def __init__(self, spec: ConfigSpec, stream: TextIO | None = None, summary_only: bool = False) -> None:
        self._spec = spec
        self._stream = stream
        self._summary_only = summary_only
        self._last = time.monotonic()

    def _print(self, text: str) -> None:
        print(text, file=self._stream or sys.stderr, flush=True)

    def started(self, tuner: Tuner) -> None:
        if not self._summary_only:
            self._print(f"helion: tuning {tuner.target.kernel_name} with {tuner.search.name}")

    def trial(self, trial: Trial, tuner: Tuner) -> None:
        if not self._summary_only and time.monotonic() - self._last >= PLAIN_EVERY_SECONDS:
            self._last = time.monotonic()
            self._print(f"helion: {tuner.target.kernel_name}: {status_line(tuner)}")

    def choosing(self, candidates: Sequence[Trial], tuner: Tuner) -> None:
        if not self._summary_only:
            self._print(f"helion: {tuner.target.kernel_name}: measuring the best {len(candidates)} again")

    def finished(self, result: TuningResult) -> None:
        self._print(summary(result, self._spec))


class RichProgress:
    """A live bar with rich."""

    def __init__(self, spec: ConfigSpec, stream: TextIO | None = None) -> None:
        self._spec = spec
        self._console = Console(file=stream or sys.stderr)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[status]}"),
            console=self._console,
            transient=True,
        )
        self._task: Any = None

    def started(self, tuner: Tuner) -> None:
        self._task = self._progress.add_task(
            f"tuning {tuner.target.kernel_name}", total=tuner.budget.evaluations, status="starting workers"
        )
        self._progress.start()

    def trial(self, trial: Trial, tuner: Tuner) -> None:
        self._progress.update(self._task, completed=len(tuner.trials), status=status_line(tuner))

    def choosing(self, candidates: Sequence[Trial], tuner: Tuner) -> None:
        self._progress.update(self._task, status=f"measuring the best {len(candidates)} again")

    def finished(self, result: TuningResult) -> None:
        self._progress.stop()
        self._console.print(summary(result, self._spec), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Give the terminal back, also when tuning failed."""
        self._progress.stop()


def progress_for(spec: ConfigSpec, bar: bool) -> PlainProgress | RichProgress:
    """The display that fits the terminal.

    Args:
        spec: of the kernel, for the decorator line.
        bar: `autotune_progress_bar`; without it only the summary is shown.
    """
    if not bar:
        return PlainProgress(spec, summary_only=True)
    if sys.stderr.isatty():
        try:
            return RichProgress(spec)
        except ImportError:
            pass  # rich is a convenience
    return PlainProgress(spec)
