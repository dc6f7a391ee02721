"""What happens beside the steady call, for whoever watches a service: compiles, tunings, misses, fallbacks.

An event goes to three places: the logger ``helion.events`` (INFO), the hooks that ``add_event_hook`` added, and the
counters that ``prometheus.py`` prints. A steady call has no event: it pays nothing for them.

Not here: counts of launches by layer (``stats.py``).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

from .._locks import new_lock

__all__ = ["KINDS", "Event", "add_event_hook", "emit", "events_of", "timed", "totals"]

log = logging.getLogger("helion.events")

#: Every kind of event, with what it says.
KINDS: dict[str, str] = {
    "trace": "a kernel function was traced for a new specialization",
    "generate": "the source of a Config was printed",
    "compile": "a binary was compiled, or taken from the compiler's cache, and launched for the first time",
    "tune": "a search for a Config ended",
    "plan": "a call was recorded as a plan",
    "plan_load": "a plan came from the cache on disk, and nothing was traced",
    "fallback": "a call stays with its host function, or a launch with a slower launcher",
    "bundle_load": "a bundle was opened, or a binary of one loaded",
    "bundle_miss": "a call of a kernel is in no loaded bundle",
}

#: Most events kept of one kernel, for ``helion.explain``; the oldest go first.
_KEPT = 64


class Event(NamedTuple):
    """One event, in the shape of an OpenTelemetry span.

    Attributes:
        name: one of `KINDS`.
        start_time_ns: when it began, in nanoseconds since 1970.
        end_time_ns: when it ended; the same as the start for what has no duration.
        attributes: "kernel", and what else there is to say: "reason", "config", "bundle", ...
    """

    name: str
    start_time_ns: int
    end_time_ns: int
    attributes: dict[str, str]

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.end_time_ns - self.start_time_ns) / 1e9


_lock = new_lock()
_hooks: tuple[Callable[[Event], object], ...] = ()
_kept: dict[str, list[Event]] = {}
#: (kind, kernel) -> [count, seconds].
_totals: dict[tuple[str, str], list[float]] = {}


def add_event_hook(hook: Callable[[Event], object]) -> Callable[[], None]:
    """Call ``hook(event)`` for every event from now on, in the thread where it happened.

    Args:
        hook: what it raises is logged, and does not reach the call of the kernel.

    Returns:
        A function that takes the hook away again.

    Example, with OpenTelemetry::

        def to_otel(event):
            name, attributes = f"helion.{event.name}", event.attributes
            tracer.start_span(name, start_time=event.start_time_ns, attributes=attributes).end(event.end_time_ns)


        helion.runtime.add_event_hook(to_otel)
    """
    global _hooks
    with _lock:
        _hooks = (*_hooks, hook)

    def remove() -> None:
        global _hooks
        with _lock:
            _hooks = tuple([h for h in _hooks if h is not hook])

    return remove


def emit(name: str, kernel: str, started_ns: int | None = None, **attributes: Any) -> None:
    """Tell of an event that ends now.

    Args:
        name: one of `KINDS`.
        kernel: as in ``launch_stats()``: the kernel function's module and qualified name.
        started_ns: ``time.time_ns()`` when it began; None for what has no duration.
        **attributes: what else there is to say.
    """
    end = time.time_ns()
    # The clock may have been set back meanwhile.
    start = end if started_ns is None else min(started_ns, end)
    event = Event(name, start, end, {"kernel": kernel, **{key: str(value) for key, value in attributes.items()}})
    with _lock:
        total = _totals.setdefault((name, kernel), [0, 0.0])
        total[0] += 1
        total[1] += event.seconds
        kept = _kept.setdefault(kernel, [])
        kept.append(event)
        del kept[:-_KEPT]
    if log.isEnabledFor(logging.INFO):
        details = "".join(f", {key} {value}" for key, value in event.attributes.items() if key != "kernel")
        log.info("%s: %s in %.1f ms%s", kernel, name, event.seconds * 1e3, details)
    for hook in _hooks:
        try:
            hook(event)
        except Exception:
            log.exception("a hook for events failed")


@contextlib.contextmanager
def timed(name: str, kernel: str, **attributes: Any) -> Iterator[None]:
    """Emit an event that lasts as long as the block, if the block does not raise."""
    started = time.time_ns()
    yield
    emit(name, kernel, started, **attributes)


def events_of(kernel: str) -> list[Event]:
    """The last events of a kernel, oldest first.

    Args:
        kernel: as in ``launch_stats()``.
    """
    with _lock:
        return list(_kept.get(kernel, ()))


def totals() -> dict[tuple[str, str], tuple[int, float]]:
    """(kind, kernel) -> how many events there were, and how many seconds they took in all."""
    with _lock:
        return {key: (int(count), seconds) for key, (count, seconds) in sorted(_totals.items())}
