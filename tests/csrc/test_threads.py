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


def test_threads_that_come_and_go(make, seed):
    # What a thread had for itself goes with it, or with the kernel, whichever is first; the counts stay.
    kernels = [make() for _ in range(3)]
    x = torch.randn(256)
    for kernel in kernels:
        kernel.warm(x, x)
    calls = 0
    for _ in range(20):

        def work():
            for kernel in kernels:
                for _ in range(5):
                    assert torch.equal(kernel(x, x), x + x)

        threads = [threading.Thread(target=work) for _ in range(4)]
        before = [kernel.plan_hits for kernel in kernels]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        calls += 20
        assert [kernel.plan_hits for kernel in kernels] == [hits + 20 for hits in before]
        kernels[-1] = make()
        kernels[-1].warm(x, x)
    assert kernels[0].plan_launches >= calls


def test_a_replaced_function_is_seen_by_every_thread(make):
    # Each thread is told by the next call what another one has changed.
    kernel = make()
    x = torch.randn(256)
    kernel.warm(x, x)
    begin, go = threading.Barrier(5), threading.Barrier(5)
    served: list[int] = []

    def work():
        kernel(x, x)
        begin.wait()
        go.wait()
        kernel(x, x)
        served.append(kernel.plan_hits)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    begin.wait()
    kernel.dispatch_enabled = False
    hits = kernel.plan_hits
    go.wait()
    for thread in threads:
        thread.join()
    assert served == [hits] * 4
