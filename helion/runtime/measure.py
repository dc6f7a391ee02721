"""Where compile time goes: ``HELION_MEASURE_COMPILE_TIME=1`` prints a table when the process ends.

Code that may be on a hot path asks ``enabled`` first, so that without the variable it pays one attribute read::

    if measure.enabled:
        with measure.measure("Kernel.bind"):
            return bind(args)
    return bind(args)
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import sys
import threading
import time
from collections.abc import Iterator

from .._environment import is_set
from .._locks import new_lock

__all__ = ["Total", "enabled", "measure", "report", "reset", "results"]


@dataclasses.dataclass
class Total:
    """What one name adds up to.

    Attributes:
        count: how often it was entered, from all threads.
        seconds: wall time inside, nested names included; recursion counts once.
        self_seconds: the same without nested names.
    """

    count: int = 0
    seconds: float = 0.0
    self_seconds: float = 0.0


#: Whether measuring is on; read from HELION_MEASURE_COMPILE_TIME when helion is imported.
enabled: bool = is_set("HELION_MEASURE_COMPILE_TIME")

_lock = new_lock()
_totals: dict[str, Total] = {}


class _Stack(threading.local):
    def __init__(self) -> None:
        #: per open name: [name, seconds spent in nested names]
        self.open: list[tuple[str, list[float]]] = []


_stack = _Stack()


@contextlib.contextmanager
def measure(name: str) -> Iterator[None]:
    """Add the time of the block to ``name``, and count it. Does nothing unless ``enabled``."""
    if not enabled:
        yield
        return
    nested = [0.0]
    recursive = any(opened == name for opened, _ in _stack.open)
    _stack.open.append((name, nested))
    start = time.perf_counter()
    try:
        yield
    finally:
        elapsed = time.perf_counter() - start
        _stack.open.pop()
        if _stack.open:
            _stack.open[-1][1][0] += elapsed
        with _lock:
            total = _totals.setdefault(name, Total())
            total.count += 1
            total.seconds += 0.0 if recursive else elapsed
            total.self_seconds += elapsed - nested[0]


def results() -> dict[str, Total]:
    """Name -> total so far."""
    with _lock:
        return {name: dataclasses.replace(total) for name, total in _totals.items()}


def reset() -> None:
    """Forget all totals."""
    with _lock:
        _totals.clear()


def report() -> str:
    """The totals as a table, longest own time first; ``""`` if nothing was measured."""
    totals = results()
    if not totals:
        return ""
    width = max(len(name) for name in totals)
    lines = [f"{'helion compile time':{width}}  {'calls':>9}  {'total s':>9}  {'own s':>9}"]
    for name, total in sorted(totals.items(), key=lambda item: -item[1].self_seconds):
        lines.append(f"{name:{width}}  {total.count:9d}  {total.seconds:9.3f}  {total.self_seconds:9.3f}")
    return "\n".join(lines)


def _print_report() -> None:
    text = report() if enabled else ""
    if text:
        print(text, file=sys.stderr)


atexit.register(_print_report)
