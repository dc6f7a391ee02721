"""The tests of ``test_launch_guards.py`` notice a missing guard: each runs again without the guard that it names, and
must fail.
"""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from helion.runtime import code_cache
from helion.runtime.launch import launcher as launcher_module
from helion.runtime.launch import source as launch_source

from . import test_launch_guards
from .hand_written import HandWrittenHost
from .hand_written import pair

pytestmark = pytest.mark.usefixtures("way_to_launch")


def _without(monkeypatch, name):
    """Take the guard ``name`` out of the launch path."""
    m = launch_source
    if name in {guard.name for guard in m.GUARDS}:
        monkeypatch.setattr(m, "GUARDS", tuple(guard for guard in m.GUARDS if guard.name != name))
    elif name in ("type", "device_tag"):
        kinds = {
            key: dataclasses.replace(kind, guards=tuple(guard for guard in kind.guards if guard.name != name))
            for key, kind in m.KINDS.items()
        }
        monkeypatch.setattr(m, "KINDS", kinds)
    elif name == "int_bucket":
        monkeypatch.setattr(m, "KINDS", {k: dataclasses.replace(kind, variant="") for k, kind in m.KINDS.items()})
    else:
        original = m.launch_source
        before, after = {
            "alignment": (" & 15", " & 0"),
            "stream": ("stream = provider.current_stream(DEVICE)", "stream = SITE.__dict__.setdefault('s', 0)"),
            "hooks": ("enter = exit = metadata = None", "enter = exit = metadata = None; ENTER_ = EXIT_ = None; "),
        }[name]

        def mutated(*args):
            source = original(*args)
            assert before in source
            source = source.replace(before, after)
            if name == "hooks":
                source = source.replace("enter, exit = runtime", "_ = runtime").replace(
                    "if has_hooks(enter)", "if False and has_hooks(enter)"
                )
            return source

        monkeypatch.setattr(launcher_module, "launch_source", mutated)


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
def test_guard_tests_fail_without_their_guard(gpu, monkeypatch, guard, test, arguments):
    with monkeypatch.context() as patch:
        _without(patch, guard)
        code_cache.clear_modules()
        if "monkeypatch" in inspect.signature(test).parameters:
            arguments = {**arguments, "monkeypatch": patch}
        with pytest.raises((AssertionError, RuntimeError, TypeError, pytest.fail.Exception)):
            test(gpu, **arguments)


def test_every_guard_of_the_tables_has_a_mutation():
    tested = {param.values[0] for param in _marked()}
    by_construction = {
        "kernel",
        "options",
        "count",
    }  # which site a call belongs to: test_sites_of_one_launcher_are_told_apart
    named = {guard.name for guard in launch_source.GUARDS}
    named |= {guard.name for kind in launch_source.KINDS.values() for guard in kind.guards}
    assert named - by_construction <= tested


@pytest.mark.parametrize("guard", ["kernel", "options", "count"])
def test_sites_of_one_launcher_are_told_apart(gpu, monkeypatch, guard):
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
                # What `one`'s host function would call: the function generated for the most recent site.
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
