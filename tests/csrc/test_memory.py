"""References and memory stay flat over many calls, on success and on each way to fail."""

from __future__ import annotations

import gc
import resource
import sys

import pytest
import torch

from helion.exc import InvalidAPIUsage
from helion.runtime import output_pool
from helion.runtime.launch import plan_data

from .support import SCALE

pytestmark = pytest.mark.softgpu(capability=90, software_only=True, execute=False)

#: Calls after which even the smallest block of malloc, 32 bytes, kept by each of them is more than `flat` allows.
MANY = 200_000


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def collect():
    # Without a GIL some of what one collection finds is freed by the next.
    for _ in range(3):
        gc.collect()


def flat(call, objects, n):
    """``n`` calls leave the reference counts of ``objects`` and the process's memory as they were."""
    for _ in range(n // 10):
        call()
    collect()
    counts = [sys.getrefcount(o) for o in objects]
    blocks, resident = sys.getallocatedblocks(), resident_bytes()
    for _ in range(n):
        call()
    collect()
    assert [sys.getrefcount(o) for o in objects] == counts
    # Far below one object a call.
    assert sys.getallocatedblocks() - blocks < n // 100 + 200
    assert resident_bytes() - resident < 8 * n + 4_000_000


def test_plan_with_a_new_output(make):
    kernel = make()
    x, y = torch.ones(256), torch.ones(256)
    kernel.warm(x, y)
    hits = kernel.plan_hits
    flat(lambda: kernel(x, y), [x, y, kernel, torch.float32, None], MANY)
    assert kernel.plan_hits == hits + MANY + MANY // 10


def test_plan_with_the_pool(make):
    output_pool.configure(True)
    try:
        kernel = make()
        x, y = torch.ones(256), torch.ones(256)
        kernel.warm(x, y)
        flat(lambda: kernel(x, y), [x, y, kernel], MANY)
    finally:
        output_pool.configure(False)


def test_keywords_in_place_and_returned_input(make):
    kernel = make(SCALE)
    x = torch.ones(256)
    kernel.warm(x, n=0.5)
    number = 0.25
    flat(lambda: kernel(n=number, x=x), [x, number, kernel], MANY)


def test_alternating_plans_and_evictions(make):
    kernel = make(max_entries=2)
    tensors = [torch.ones(128 * n) for n in (1, 2, 3)]

    def call():
        for t in tensors:
            kernel(t, t)

    # Recording fills caches of PyTorch's and Python's first: 485017, 157, 35, 13, 5 blocks in successive 1000 rounds.
    for _ in range(1000):
        call()
    flat(call, [*tensors, kernel], 500)


def test_compiled_launcher(make, C):
    kernel = make()
    x = torch.ones(256)
    launcher = C.CompiledLauncher()
    jit = kernel.module._add_kernel
    assert launcher.prime(jit, (2,), (x, x, x), num_warps=4, num_stages=1)
    flat(lambda: launcher(jit, (2,), x, x, x, num_warps=4, num_stages=1), [x, jit, launcher], MANY)


def test_tensor_key(C):
    from helion.settings import Settings

    settings, x = Settings(), torch.ones(3, 4)
    flat(lambda: C.tensor_key(settings, x), [x, settings, torch.float32], MANY)


def _raising(call, error):
    def run():
        try:
            call()
        except error:
            return
        raise AssertionError("it did not fail")

    return run


def test_arguments_that_do_not_fit(make):
    kernel = make()
    x = torch.ones(256)
    kernel.warm(x, x)
    flat(_raising(lambda: kernel(x, x, x), TypeError), [x, kernel], MANY)
    flat(_raising(lambda: kernel(x, z=x), TypeError), [x, kernel], MANY)


def test_key_function_that_raises(make):
    fail = []

    def key(a, b):
        if fail:
            raise KeyError(1)
        return 1

    kernel = make(key=key)
    x = torch.ones(256)
    kernel.warm(x, x)
    fail.append(1)
    flat(_raising(lambda: kernel(x, x), KeyError), [x, kernel, key], MANY)


def test_driver_error(make):
    from tests import softgpu

    kernel = make()
    x = torch.ones(256)
    kernel.warm(x, x)

    def call():
        softgpu.inject("launch", 1, 1)
        kernel(x, x)

    flat(_raising(call, RuntimeError), [x, kernel], MANY)


@pytest.mark.slow
def test_unprimed_launcher(C):
    launcher = C.CompiledLauncher()
    x = torch.ones(3)
    flat(_raising(lambda: launcher(None, (1,), x), RuntimeError), [x, launcher], MANY)


@pytest.mark.slow
def test_allocation_that_fails(make, C):
    kernel = make()
    x = torch.ones(256)
    generation = kernel.plan_generation
    output = plan_data.Allocation((2**58,), (1,), torch.float32, torch.device("cpu"), False)
    kernel.install_plan((x, x), C.LaunchPlan(2, 0, (output,), (), plan_data.TensorRef(False, 0)), generation)
    # PyTorch's exceptions carry a C++ stack trace, which takes seconds.
    flat(_raising(lambda: kernel(x, x), RuntimeError), [x, kernel], MANY)


def test_number_that_does_not_fit_its_parameter(make):
    kernel = make(SCALE)
    x = torch.ones(256)
    kernel.warm(x, 2.0)
    flat(_raising(lambda: kernel(x, object()), InvalidAPIUsage), [x, kernel], MANY)
