"""Which layer ran the calls of each kernel, and why not a faster one: ``launch_stats()``.

Layers, from the fastest: ``LAYERS`` below. Each kernel has one ``KernelStats``; launchers and the dispatcher count into
it. Counting must cost next to nothing and lose nothing between threads, so a counter is one call of a C function.

Not here: how long compiling took (``measure.py``).
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

from .._locks import new_lock
from . import events

__all__ = ["LAYERS", "Counter", "KernelLaunchStats", "KernelStats", "launch_stats", "reset_launch_stats"]

#: Every layer that can run a call, fastest first.
LAYERS: dict[str, str] = {
    "plan": "the whole call in C (helion._C.LaunchPlan)",
    "c_launcher": "host function in Python, launch in C (helion._C.CompiledLauncher)",
    "fast_launcher": "host function and guards in Python, Triton's C launch function",
    "native_launcher": "host function and launch in Python, through the driver (kernels that are not Triton's)",
    "default_launcher": "host function in Python, Triton's kernel[grid](...)",
    "tile_executor": "device IR run tile by tile with PyTorch's own ops (CPU tensors)",
    "cpu_backend": "host function of another backend for CPU tensors",
    "host_only": "host function that launches nothing: it returns before device loops, or none stores anything",
    "ref_mode": "the user's own function on eager tiles (HELION_INTERPRET=1)",
    "traced": "recorded by torch.compile, export or a fake tensor mode; nothing ran",
}


class Counter:
    """Counts calls of ``hit`` exactly, from any number of threads.

    ``hit`` is ``next`` of an ``itertools.count``: one C call under the GIL, where ``self.n += 1`` would lose counts.
    """

    __slots__ = ("_count", "hit")

    def __init__(self) -> None:
        self._count = itertools.count()
        self.hit: Callable[[], int] = self._count.__next__

    @property
    def value(self) -> int:
        # repr is the one way to read it without advancing it that all supported Pythons have: "count(5)".
        return int(repr(self._count)[len("count(") : -1])


class KernelLaunchStats(NamedTuple):
    """One kernel's row of ``launch_stats()``."""

    #: layer -> launches it ran; only layers that ran any. A host function with two launches counts two.
    layers: dict[str, int]
    #: why launches were not run by a faster layer -> how often.
    reasons: dict[str, int]

    @property
    def launches(self) -> int:
        """All launches."""
        return sum(self.layers.values())


class KernelStats:
    """The counters of one kernel.

    Args:
        name: the kernel function's module and qualified name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._layers = {layer: Counter() for layer in LAYERS}
        self._reasons: dict[str, Counter] = {}
        self._sources: dict[str, dict[int, Callable[[], int]]] = {layer: {} for layer in LAYERS}
        self._retired: dict[str, list[int]] = {layer: [] for layer in LAYERS}
        with _lock:
            alike = _all.setdefault(name, weakref.WeakValueDictionary())
            # Those of before keep theirs when others end, so the least free one may be anywhere up to their count.
            number = len(alike) + 1
            while number in alike:
                number -= 1
            alike[number] = self
        #: Its name in ``launch_stats()``.
        self.label = name if number == 1 else f"{name}#{number}"
        self._order = next(_numbers)

    def counter(self, layer: str) -> Counter:
        """The counter of ``layer``; it outlives launchers, so replacing one keeps its count."""
        return self._layers[layer]

    def add_source(self, layer: str, read: Callable[[], int]) -> int:
        """Add what ``read()`` returns to ``layer``: for layers that count by themselves, in C.

        Returns:
            A number for ``retire``, once what counted goes away.
        """
        token = next(_numbers)
        self._sources[layer][token] = read
        return token

    def retire(self, layer: str, token: int, count: int) -> None:
        """Ask a source no more, and keep its last count."""
        # No lock: this runs in finalizers, that is anywhere, also where this thread holds one. Each step is atomic, so
        # that no count is lost.
        self._sources[layer].pop(token, None)
        counts = self._retired[layer]
        counts.append(count)
        while len(counts) > 8:
            counts.append(counts.pop() + counts.pop())

    def _from_sources(self, layer: str) -> int:
        return sum(self._retired[layer]) + sum([read() for read in list(self._sources[layer].values())])

    def note(self, reason: str) -> None:
        """Count one launch that a faster layer could not run, for ``reason``."""
        counter = self._reasons.get(reason)
        if counter is None:
            counter = self._reasons.setdefault(reason, Counter())
            if not reason.startswith("first call"):
                events.emit("fallback", self.name, reason=reason)
        counter.hit()

    def snapshot(self) -> KernelLaunchStats:
        """The counts now."""
        counts = {layer: counter.value + self._from_sources(layer) for layer, counter in self._layers.items()}
        return KernelLaunchStats(
            {layer: count for layer, count in counts.items() if count},
            {reason: counter.value for reason, counter in list(self._reasons.items())},
        )


_lock = new_lock()
_numbers = itertools.count()
#: Name -> number among those of the name -> the kernels that exist.
_all: dict[str, weakref.WeakValueDictionary[int, KernelStats]] = {}
#: What `reset_launch_stats` subtracts: counters themselves are never set back, launchers hold on to them.
_baseline: weakref.WeakKeyDictionary[KernelStats, KernelLaunchStats] = weakref.WeakKeyDictionary()


def _kernels() -> list[KernelStats]:
    with _lock:
        found = [stats for alike in list(_all.values()) for stats in list(alike.values())]
    return sorted(found, key=lambda stats: stats._order)


def _difference(now: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in now.items() if count != before.get(name, 0)}


def launch_stats() -> dict[str, KernelLaunchStats]:
    """Per kernel: how many launches each layer ran, and why a faster one did not.

    Returns:
        Kernel name -> ``KernelLaunchStats(layers, reasons)``, in order of definition, for kernels that still exist: the
        counts of one that was collected are gone. Of several kernels with one name, others than the first have ``#2``,
        ``#3``, ... after it, for as long as they exist.

    A kernel that runs as fast as it can shows one layer and no reasons but those of its first calls::

        >>> helion.runtime.launch_stats()  # doctest: +SKIP
        {'mymodel.add': KernelLaunchStats(layers={'default_launcher': 1, 'fast_launcher': 9999}, reasons={'first call':
        1})}
    """
    found: dict[str, KernelLaunchStats] = {}
    for stats in _kernels():
        now, before = stats.snapshot(), _baseline.get(stats, KernelLaunchStats({}, {}))
        found[stats.label] = KernelLaunchStats(
            _difference(now.layers, before.layers), _difference(now.reasons, before.reasons)
        )
    return found


def reset_launch_stats() -> None:
    """Start ``launch_stats()`` at zero."""
    for stats in _kernels():
        _baseline[stats] = stats.snapshot()


def counted(run: Callable[..., Any], counter: Counter) -> Callable[..., Any]:
    """``run``, counted: for layers where that costs nothing beside the run itself."""
    hit = counter.hit

    @functools.wraps(run)
    def count(*args: Any, **keywords: Any) -> Any:
        hit()
        return run(*args, **keywords)

    return count
