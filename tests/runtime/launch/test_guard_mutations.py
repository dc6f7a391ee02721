"""The tests of ``test_launch_guards.py`` notice a missing guard: each runs again without the guard that it names, and
must fail.
"""

from __future__ import annotations

import inspect

import pytest

from helion.runtime import code_cache
from helion.runtime.launch import guards
from helion.runtime.launch import source

from . import test_launch_guards
from .hand_written import HandWrittenHost
from .hand_written import pair

pytestmark = pytest.mark.usefixtures("way_to_launch")


def _without(monkeypatch, name):
    """Take the guard ``name`` out of the launch functions that are generated from here on."""
    (guard,) = [guard for guard in guards.GUARDS if guard.name == name]
    assert guard.python and guard.python != guard.out
    rows = tuple(guard._replace(python=guard.out) if guard.name == name else guard for guard in guards.GUARDS)
    monkeypatch.setattr(source, "GUARDS", rows)


def _marked():
    for name, function in sorted(vars(test_launch_guards).items()):
        for mark in getattr(function, "pytestmark", []):
            if mark.name == "mutation":
                cases = [
                    dict(zip(p.args[0] if isinstance(p.args[0], tuple) else [p.args[0]], p.args[1][0]))
                    for p in function.pytestmark
                    if p.name == "parametrize"
                ]
                yield pytest.param(mark.args[0], function, cases[0] if cases else {}, id=f"{mark.args[0]}-{name}")


@pytest.mark.parametrize(("guard", "test", "arguments"), list(_marked()))
@pytest.mark.compiles
def test_guard_tests_fail_without_their_guard(gpu, monkeypatch, guard, test, arguments):
    with monkeypatch.context() as patch:
        _without(patch, guard)
        code_cache.clear_modules()
        if "monkeypatch" in inspect.signature(test).parameters:
            arguments = {**arguments, "monkeypatch": patch}
        with pytest.raises((AssertionError, RuntimeError, TypeError, pytest.fail.Exception)):
            test(gpu, **arguments)


#: Which launch function a call belongs to: test_launch_functions_of_one_launcher_are_told_apart.
BY_CONSTRUCTION = ["kernel", "options", "count"]


def test_every_guard_of_the_launch_function_has_a_test_that_is_run_without_it():
    tested = {param.values[0] for param in _marked()}
    assert {guard.name for guard in guards.GUARDS if guard.python} == tested | set(BY_CONSTRUCTION)


@pytest.mark.parametrize("guard", BY_CONSTRUCTION)
@pytest.mark.compiles
def test_launch_functions_of_one_launcher_are_told_apart(gpu, monkeypatch, guard):
    def run():
        gpu.launches.clear()
        code_cache.clear_modules()
        one, two = HandWrittenHost(), HandWrittenHost(extra=" + 1")
        x, y = pair()
        for _ in range(2):
            for kernel, grid, options in [
                (one.kernel, (8,), {"num_warps": 4}),
                (one.kernel, (8, 2), {"num_warps": 4}),
                (one.kernel, (8, 2), {"num_warps": 8}),
                (one.kernel, (8, 2), {"num_warps": 8, "launch_pdl": True}),
                (two.kernel, (8, 2), {"num_warps": 8, "launch_pdl": True}),
            ]:
                # What `one`'s host function would call: the function generated for the most recent call.
                launch = one.host.__kwdefaults__["_launcher"]
                launch(kernel, grid, x, y, y, num_stages=1, **options)
        first, second = gpu.launches[:5], gpu.launches[5:]
        assert first == second
        assert len({launch.function for launch in first}) == 4
        assert [launch.grid for launch in first] == [(8, 1, 1), (8, 2, 1), (8, 2, 1), (8, 2, 1), (8, 2, 1)]
        assert one.layers()["fast_launcher"] == 5

    run()
    with monkeypatch.context() as patch:
        _without(patch, guard)
        with pytest.raises((AssertionError, RuntimeError, ValueError)):
            run()
