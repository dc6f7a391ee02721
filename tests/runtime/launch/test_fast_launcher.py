"""FastLauncher: from the first call, which goes through Triton, to launches without it; failures; calls from many
threads.

What is checked at every launch is in ``test_launch_guards.py``.
"""

from __future__ import annotations

import logging
import threading

import pytest
import torch
import triton

from helion import exc
from helion.runtime import default_launcher
from helion.runtime import no_compile
from helion.runtime.launch import launcher as launcher_module

from .hand_written import HandWrittenHost
from .hand_written import misaligned
from .hand_written import pair

pytestmark = [pytest.mark.usefixtures("way_to_launch"), pytest.mark.compiles]


# -- launches
# -----------------------------------------------------------------------------------------------------------


def test_first_call_goes_to_triton_and_the_next_do_not(gpu, monkeypatch):
    add = HandWrittenHost()
    x, y = pair()
    first = add(x, y)
    monkeypatch.setattr(type(add.kernel), "run", None)
    second = add(x, y)
    assert add.layers() == {"default_launcher": 1, "fast_launcher": 1}
    one, two = gpu.launches
    assert (one.function, one.grid, one.num_warps, one.stream) == (two.function, two.grid, two.num_warps, two.stream)
    assert one.pointers == (x.data_ptr(), y.data_ptr(), first.data_ptr())
    assert two.pointers == (x.data_ptr(), y.data_ptr(), second.data_ptr())


def test_launcher_returns_the_compiled_kernel_as_triton_does(gpu):
    add = HandWrittenHost()
    x, y = pair()
    out = torch.empty_like(x)
    first = add.launcher(add.kernel, (8,), x, y, out, num_warps=4, num_stages=1)
    assert add.launcher(add.kernel, (8,), x, y, out, num_warps=4, num_stages=1) is first


def test_grids_of_every_rank(gpu):
    add = HandWrittenHost()
    x, y = pair()
    out = torch.empty_like(x)
    for grid in [(8,), (8, 1), (4, 2, 1), (2, 3, 5)] * 2:
        add.launcher(add.kernel, grid, x, y, out, num_warps=4, num_stages=1)
        assert gpu.launches[-1].grid == (*grid, 1, 1)[:3]
    assert add.layers()["fast_launcher"] == 5  # (4, 2, 1) and (2, 3, 5) are one launch function


def test_parameters_and_tensors_share_a_launch_function(gpu):
    add = HandWrittenHost()
    x, y = pair()
    weight = torch.nn.Parameter(y, requires_grad=False)
    for _ in range(2):
        add(x, y)
        add(x, weight)
    assert add.layers() == {"default_launcher": 1, "fast_launcher": 3}


def test_scalars_are_passed_by_value(gpu):
    add = HandWrittenHost(scalar=True)
    x, y = pair()
    for n in (3, 5, 7):
        add(x, y, n)
    assert [launch.scalars for launch in gpu.launches] == [(3,), (5,), (7,)]
    assert add.layers() == {"default_launcher": 1, "fast_launcher": 2}


def test_traceback_shows_the_generated_function(gpu):
    import traceback

    add = HandWrittenHost()
    x, y = pair()
    add(x, y)
    gpu.fail_next("unspecified launch failure")
    with pytest.raises(RuntimeError) as caught:
        add(x, y)
    assert "(grid[0], 1, 1, stream, function" in "".join(traceback.format_exception(caught.value))


# -- whose launcher it is
# -----------------------------------------------------------------------------------------------


def test_explicit_launcher_wins(gpu):
    add = HandWrittenHost()
    x, y = pair()
    add(x, y)
    add(x, y)
    seen = []

    def trial(kernel, grid, *args, num_warps, num_stages):
        seen.append((kernel, grid, len(args), num_warps, num_stages))

    add.host(x, y, _launcher=trial)
    assert seen == [(add.kernel, (8,), 3, 4, 1)] and len(gpu.launches) == 2


def test_bound_kernels_that_share_a_module_keep_their_own_launchers(gpu):
    one, two = HandWrittenHost(), HandWrittenHost()
    assert one.module is two.module
    x, y = pair()
    one(x, y)
    one(x, y)
    assert one.module.add.__kwdefaults__["_launcher"] is default_launcher
    assert two.layers() == {}
    two(x, y)
    assert one.layers() == {"default_launcher": 1, "fast_launcher": 1} and two.layers() == {"default_launcher": 1}


# -- failures
# -----------------------------------------------------------------------------------------------------------


def test_failed_priming_leaves_the_launch_to_triton_and_says_so_once(gpu, monkeypatch, caplog):
    def broken(compiled):
        raise AttributeError("no attribute of that name")

    monkeypatch.setattr(launcher_module._compat_triton, "launch_handles", broken)
    add = HandWrittenHost()
    x, y = pair()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            add(x, y)
    assert len(gpu.launches) == 3
    assert add.layers() == {"default_launcher": 3}
    assert [r.message for r in caplog.records] == [
        "add: launches like this one go through Triton's own path: priming failed: AttributeError: no attribute of that"
        " name"
    ]


def test_priming_is_tried_again_and_other_specializations_keep_their_path(gpu, monkeypatch):
    add = HandWrittenHost()
    x, y = pair()
    m = misaligned()
    add(x, y)
    with monkeypatch.context() as patch:
        patch.setattr(launcher_module._compat_triton, "launch_handles", lambda compiled: 1 / 0)
        for _ in range(5):
            add(x, y, out=m)
            add(x, y)
    assert add.layers() == {"default_launcher": 6, "fast_launcher": 5}
    for _ in range(8):
        add(x, y, out=m)
    assert add.layers()["default_launcher"] <= 6 + 4 and add.layers()["fast_launcher"] >= 5 + 4


def test_failed_compile_raises_tritons_error_every_time_and_is_logged_once(gpu, caplog):
    add = HandWrittenHost(extra=" + undefined_name")
    x, y = pair()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with pytest.raises(triton.compiler.errors.CompilationError):
                add(x, y)
    assert len([r for r in caplog.records if "Triton failed" in r.message]) == 1


def test_an_argument_that_triton_refuses_costs_no_other_call_its_path(gpu):
    add = HandWrittenHost()
    x, y = pair()
    for _ in range(3):
        with pytest.raises((TypeError, ValueError, KeyError)):
            add(x.to(torch.complex64), y, out=y)
    for _ in range(3):
        add(x, y)
    assert add.layers() == {"default_launcher": 4, "fast_launcher": 2}


def test_skip_fast_launcher_variable(gpu, monkeypatch):
    monkeypatch.setenv("HELION_SKIP_FAST_LAUNCHER", "1")
    add = HandWrittenHost()
    x, y = pair()
    add(x, y)
    add(x, y)
    assert add.layers() == {"default_launcher": 2}
    assert add.reasons() == {"HELION_SKIP_FAST_LAUNCHER is set": 2}


@pytest.mark.parametrize("primed", [False, True])
def test_driver_error_names_the_kernel_and_the_next_call_works(gpu, primed):
    add = HandWrittenHost()
    x, y = pair()
    if primed:
        add(x, y)
    gpu.fail_next("out of memory")
    with pytest.raises(RuntimeError, match=r"Triton Error \[CUDA\]: out of memory \(launching kernel _add_kernel\)"):
        add(x, y)
    add(x, y)
    add(x, y)
    assert add.launcher.given_up is None
    assert add.layers()["fast_launcher"] >= 1


# -- threads
# ------------------------------------------------------------------------------------------------------------


def test_eight_threads_prime_and_call_at_once(gpu):
    add = HandWrittenHost()
    x, y = pair()
    m = misaligned()
    errors = []

    def work(i):
        try:
            for n in range(200):
                add(x, y, out=m if (n + i) % 2 else y)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(gpu.launches) == 1600 == sum(add.layers().values())
    by_pointer = {}
    for launch in gpu.launches:
        by_pointer.setdefault(launch.pointers[2], set()).add(launch.function)
    assert by_pointer[m.data_ptr()].isdisjoint(by_pointer[y.data_ptr()])


# -- no_compile
# ---------------------------------------------------------------------------------------------------------


def test_no_compile_raises_for_a_new_variant_and_not_for_a_known_one(gpu):
    add = HandWrittenHost()
    x, y = pair()
    add(x, y)
    with no_compile():
        add(x, y)
        with pytest.raises(exc.CompilationForbidden, match=r"'add'.*compile _add_kernel.*not 16-byte aligned"):
            add(x, y, out=misaligned())
    add(x, y, out=misaligned())
    assert add.launcher.given_up is None


def test_no_compile_lets_through_what_triton_has_in_memory(gpu, monkeypatch):
    monkeypatch.setenv("HELION_SKIP_FAST_LAUNCHER", "1")
    add = HandWrittenHost()
    x, y = pair()
    add(x, y)
    with no_compile():
        add(x, y)
        with pytest.raises(exc.CompilationForbidden):
            add(x, y, out=misaligned())
