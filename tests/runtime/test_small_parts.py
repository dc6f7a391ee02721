"""Compile-time report, no_compile, broadcast skip, output and scratch memory, host function clones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading

import pytest
import torch
import triton

from helion import exc
from helion.runtime import allocation
from helion.runtime import broadcast_tensors
from helion.runtime import compile_guard
from helion.runtime import default_launcher
from helion.runtime import empty_like
from helion.runtime import measure
from helion.runtime import no_compile
from helion.runtime import set_triton_allocator
from helion.runtime.host_function import clone_host_function
from helion.runtime.host_function import set_launcher

# -- measure
# ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def measuring(monkeypatch):
    """Moves the clock that measures."""
    monkeypatch.setattr(measure, "enabled", True)
    clock = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
    measure.reset()

    def pass_time(seconds):
        clock[0] += seconds

    yield pass_time
    measure.reset()


def test_nested_time_is_in_the_total_and_not_in_the_own_time(measuring):
    with measure.measure("outer"):
        measuring(1.0)
        with measure.measure("inner"):
            measuring(2.0)
        measuring(4.0)
    found = measure.results()
    assert (found["outer"].seconds, found["outer"].self_seconds) == (7.0, 5.0)
    assert (found["inner"].seconds, found["inner"].self_seconds) == (2.0, 2.0)


def test_recursion_counts_time_once(measuring):
    with measure.measure("bind"), measure.measure("bind"):
        measuring(2.0)
    found = measure.results()["bind"]
    assert found.count == 2 and found.seconds == 2.0


def test_time_of_a_block_that_raises_is_counted(measuring):
    with pytest.raises(KeyError), measure.measure("bind"):
        raise KeyError
    assert measure.results()["bind"].count == 1


def test_threads_count_together(measuring):
    def work():
        for _ in range(100):
            with measure.measure("bind"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert measure.results()["bind"].count == 400


@pytest.mark.spawns
def test_report_is_printed_when_the_process_ends():
    program = "from helion.runtime import measure\nwith measure.measure('Kernel.bind'): pass\n"
    for value, expected in (("1", True), ("0", False)):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "HELION_MEASURE_COMPILE_TIME": value},
            capture_output=True,
            text=True,
            check=True,
        )
        assert bool(re.search(r"Kernel\.bind +1 +0\.0", done.stderr)) is expected


# -- no_compile
# ---------------------------------------------------------------------------------------------------------


def test_no_compile_nests_and_names_everything():
    compile_guard.check("k", "autotune", (1, 2))
    with no_compile():
        with no_compile():
            pass
        with pytest.raises(exc.CompilationForbidden, match=r"'k' would have to autotune .*\(1, 2\)"):
            compile_guard.check("k", "autotune", (1, 2))
    compile_guard.check("k", "autotune", (1, 2))


def test_no_compile_holds_for_other_threads_and_ends_with_an_error():
    seen = []
    with pytest.raises(KeyError), no_compile():
        thread = threading.Thread(target=lambda: seen.append(compile_guard.active()))
        thread.start()
        thread.join()
        raise KeyError
    assert seen == [True] and not compile_guard.active()


# -- broadcast
# ----------------------------------------------------------------------------------------------------------


def test_equal_shapes_are_passed_through():
    x, y = torch.empty(3, 4), torch.empty(3, 4)
    a, b = broadcast_tensors(x, y)
    assert a is x and b is y
    assert broadcast_tensors() == ()


def test_other_shapes_are_broadcast_as_in_torch():
    x, y = torch.randn(3, 1), torch.randn(4)
    for ours, theirs in zip(broadcast_tensors(x, y), torch.broadcast_tensors(x, y)):
        assert torch.equal(ours, theirs) and ours.stride() == theirs.stride()
    with pytest.raises(RuntimeError):
        broadcast_tensors(torch.empty(3), torch.empty(4))


# -- memory
# -------------------------------------------------------------------------------------------------------------


def test_empty_like_takes_the_options_of_torch():
    x = torch.empty(3, 4).t()
    out = empty_like(x, dtype=torch.float16)
    assert out.dtype is torch.float16 and out.shape == x.shape and out.stride() == x.stride()


def test_scratch_allocator_leaves_a_users_own_alone():
    null = triton.runtime._allocation._NULL_ALLOCATOR
    mine = lambda size, alignment, stream: None  # noqa: E731
    triton.set_allocator(mine)
    try:
        set_triton_allocator()
        assert triton.runtime._allocation._allocator.get() is mine
        triton.set_allocator(null)
        set_triton_allocator()
        assert triton.runtime._allocation._allocator.get() is allocation._allocate_scratch
    finally:
        triton.set_allocator(null)


# -- host functions
# -----------------------------------------------------------------------------------------------------


def test_clone_has_its_own_launcher_and_the_same_code():
    def host(x, y=2, *, _launcher=default_launcher):
        """Doc."""
        return _launcher(x, y)

    clone = clone_host_function(host)
    set_launcher(clone, lambda x, y: ("mine", x, y))
    assert clone(1) == ("mine", 1, 2)
    assert host.__kwdefaults__["_launcher"] is default_launcher
    assert clone.__code__ is host.__code__ and clone.__doc__ == "Doc." and clone.__qualname__ == host.__qualname__
