"""Threads that call while others reset, replace, evict and clear: every call runs one plan or the other in full."""

from __future__ import annotations

import random
import threading
import time

import pytest
import torch

from helion.runtime import output_pool

pytestmark = pytest.mark.softgpu(capability=90, software_only=True)

# The least that must have happened, and how long that may take: under the sanitizers, on one busy core, a call may
# take longer than a fixed time between two resets, and then no plan would ever live to be run.
HITS = 100
RESETS = 10
SECONDS_AT_MOST = 900.0


def run_threads(workers, enough):
    """Run all workers until `enough()`, or the time is up; the first exception is raised here."""
    stop = time.monotonic() + SECONDS_AT_MOST
    errors: list[BaseException] = []

    def loop(worker):
        try:
            while time.monotonic() < stop and not errors and not enough():
                worker()
        except BaseException as error:  # raised again below, in the main thread
            errors.append(error)

    threads = [threading.Thread(target=loop, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("pool", [False, True], ids=["fresh", "pool"])
def test_calls_while_others_reset_and_clear(make, seed, pool):
    output_pool.configure(pool)
    try:
        kernel = make(max_entries=3)
        sizes = [128, 256, 384, 512]
        held: list[torch.Tensor] = []
        hits_at_reset: list[int] = []

        def caller(n):
            rng = random.Random(seed + n)

            def call():
                x, y = torch.randn(rng.choice(sizes)), None
                y = torch.randn(x.shape)
                out = kernel(x, y)
                assert torch.equal(out, x + y)
                if rng.random() < 0.1:
                    held.append(out)
                    del held[:-20]

            return call

        def reset():
            time.sleep(0.01)
            hits = kernel.plan_hits
            if not hits_at_reset or hits > hits_at_reset[-1]:
                kernel._invalidate()
                hits_at_reset.append(hits)

        def clear():
            time.sleep(0.007)
            output_pool.clear()

        def enough():
            return kernel.plan_hits >= HITS and len(hits_at_reset) >= RESETS

        run_threads([*(caller(n) for n in range(6)), reset, clear], enough)
        assert enough(), (kernel.plan_hits, len(hits_at_reset))
    finally:
        output_pool.configure(False)
