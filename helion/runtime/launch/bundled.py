"""Where a call asks for a plan that was compiled ahead, before anything is compiled: the seam to `helion.bundles`.

The Python path asks here once for a call that it knows nothing of; a steady call never gets here. What is loaded, and
what a plan is made of, is none of this module's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import Protocol

from .plan_data import PlanData

__all__ = ["Cache", "Source", "add", "ask", "cache", "recorders", "remove", "sources"]


class Source(Protocol):
    """Plans that were made ahead."""

    def serve(self, dispatcher: Any, args: tuple[Any, ...]) -> str | None:
        """Install a plan for calls like this one in ``dispatcher`` (a ``CompiledDispatcher``).

        Returns:
            None if that is done, else why not, in words.
        """

    def missed(self, dispatcher: Any, reason: str) -> None:
        """No source had a plan, and the call is about to be compiled; may raise."""


class Cache(Protocol):
    """Plans that earlier processes recorded."""

    def serve(self, dispatcher: Any, args: tuple[Any, ...]) -> str | None:
        """As that of a `Source`."""

    def keep(self, dispatcher: Any, args: tuple[Any, ...], plan: PlanData) -> None:
        """A call was recorded as this plan."""


#: Asked after all sources, and told of what is recorded.
cache: Cache | None = None
#: Asked in this order. Replaced as a whole when it changes, so that a call sees the old one or the new one.
sources: tuple[Source, ...] = ()
#: Told of every call that the Python path looks up: ``recorder(dispatcher, args)``.
recorders: tuple[Callable[[Any, tuple[Any, ...]], None], ...] = ()


def add(source: Source) -> None:
    """Ask ``source`` from now on, before those that were added earlier."""
    global sources
    sources = (source, *sources)


def remove(source: Source) -> None:
    """Ask it no more; plans that it has installed stay."""
    global sources
    sources = tuple([other for other in sources if other is not source])


def ask(dispatcher: Any, args: tuple[Any, ...]) -> bool:
    """Whether a plan for this call was installed.

    Raises:
        exc.BundleMiss: none was, and a source does not want it compiled.
    """
    asked = sources
    reasons = []
    for source in asked:
        reason = source.serve(dispatcher, args)
        if reason is None:
            return True
        reasons.append(reason)
    for source, reason in zip(asked, reasons):
        source.missed(dispatcher, reason)
    return cache is not None and cache.serve(dispatcher, args) is None
