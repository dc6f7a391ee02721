"""Timing one callable: CUDA events on a GPU, wall time on CPU tensors.  Runs inside the measuring process."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import torch

from .accuracy import tensors_in


@dataclasses.dataclass(frozen=True)
class Timing:
    """Samples of the time of one call.

    Attributes:
        samples: milliseconds, in the order they were taken.
    """

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Milliseconds."""
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """Half the interquartile range relative to the median."""
        if len(self.samples) < 4:
            return (max(self.samples) - min(self.samples)) / 2 / max(self.median, 1e-9)
        low, _, high = statistics.quantiles(self.samples, n=4)
        return (high - low) / 2 / max(self.median, 1e-9)


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long to measure one candidate.

    Attributes:
        total_ms: time to spend on samples.
        least: fewest samples.
        most: most samples.
        give_up_ms: a candidate that is slower than this in its first few calls gets no more: it will not win.
        doubt_ms: one that is slower than this after a quarter of its samples gets no more.
        place: where in memory its arguments lie: a process that is given another number moves them.
    """

    total_ms: float = 60.0
    least: int = 5
    most: int = 400
    give_up_ms: float = float("inf")
    doubt_ms: float = float("inf")
    place: int = 0

    def against(self, best_ms: float) -> Effort:
        """This effort for candidates that are to be faster than `best_ms`."""
        return dataclasses.replace(self, give_up_ms=1.5 * best_ms, doubt_ms=1.1 * best_ms)

    def count(self, one_ms: float) -> int:
        """Samples to take of a call that takes about `one_ms`."""
        if one_ms > self.give_up_ms:
            return self.least
        return int(min(max(self.total_ms / max(one_ms, 1e-6), self.least), self.most))


def device_of(args: Sequence[Any]) -> torch.device:
    """The device of the first tensor that is not on the CPU, else the CPU."""
    for _, tensor in tensors_in(args):
        if tensor.device.type != "cpu":
            return tensor.device
    return torch.device("cpu")


def time_call(fn: Callable[[], Any], device: torch.device, effort: Effort) -> Timing:
    """Time a callable that has run once already (so that it is compiled).

    Args:
        fn: what to time.
        device: where it runs.
        effort: how many samples.
    """
    if device.type == "cuda":
        return _time_cuda(fn, device, effort)
    return _time_wall(fn, effort)


def _time_wall(fn: Callable[[], Any], effort: Effort) -> Timing:
    clock = time.perf_counter_ns  # monotonic: a clock that is set back cannot make a candidate look fast
    start = clock()
    fn()
    one_ms = (clock() - start) / 1e6
    # Calls too short for one reading of the clock are timed several at a time.
    inner = max(1, min(1000, int(0.02 / max(one_ms, 1e-5))))
    samples = []
    for _ in range(effort.count(one_ms * inner)):
        start = clock()
        for _ in range(inner):
            fn()
        samples.append((clock() - start) / 1e6 / inner)
    return Timing(tuple(samples))


def _time_cuda(fn: Callable[[], Any], device: torch.device, effort: Effort) -> Timing:
    with torch.cuda.device(device):
        # A call inside a program finds its inputs in memory, not left in the cache by the call before.  The
        # buffer is cleared before every sample; that also keeps the GPU busy while the host queues the call.
        cache_bytes = max(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0), 32 << 20)
        scratch = torch.empty(2 * cache_bytes // 4, dtype=torch.int32, device=device)

        def sample(count: int) -> list[float]:
            events = [
                (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(count)
            ]
            for begin, end in events:
                scratch.zero_()
                begin.record()
                fn()
                end.record()
            torch.cuda.synchronize(device)
            return [begin.elapsed_time(end) for begin, end in events]

        first = sample(3)
        one_ms = statistics.median(first)
        if one_ms > effort.give_up_ms:
            return Timing(tuple(first))
        count = effort.count(one_ms)
        samples = sample(max(effort.least, count // 4))
        if len(samples) < count and statistics.median(samples) <= effort.doubt_ms:
            samples += sample(count - len(samples))
        return Timing(tuple(samples))
