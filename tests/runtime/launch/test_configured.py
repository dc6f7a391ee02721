"""What `BoundKernel.compile_config` gives: a function that takes the path of the kernel's own calls."""

from __future__ import annotations

import gc
import pickle
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import _extension
from helion import exc
from helion.runtime.launch import bundled

pytestmark = [
    pytest.mark.softgpu(capability=90, software_only=True),
    pytest.mark.usefixtures("softgpu"),
    pytest.mark.compiles,
]

N = 256


def add(x, y):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out


def scaled(x, n: int):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        if n > 3:
            out[t] = x[t] * 2
        else:
            out[t] = x[t] + n
    return out


@pytest.fixture(params=["extension", "python"])
def configured(request: pytest.FixtureRequest) -> Any:
    """Makes a kernel and its specialization under a Config; calls of the latter take one of the two paths."""

    def make(fn: Any, *args: Any, **settings: Any) -> Any:
        kernel = helion.kernel(fn, config=helion.Config(block_sizes=[128]), **settings)
        run = kernel.bind(args).compile_config(helion.Config(block_sizes=[64]))
        if request.param == "extension":
            if _extension.C is None:
                pytest.skip("needs helion._C")
        elif _extension.C is not None:
            run.dispatch_enabled = False
        return kernel, run

    make.extension = request.param == "extension"
    return make


def test_calls_are_those_of_the_kernel_and_counted_with_them(configured: Any, seed: int) -> None:
    x, y = torch.randn(N), torch.randn(N)
    kernel, run = configured(add, x, y)
    for _ in range(6):
        assert torch.equal(run(x, y), x + y)
        assert torch.equal(run(y=y, x=x), x + y)
    layers = kernel.stats.snapshot().layers
    assert sum(layers.values()) == 12
    if configured.extension:
        assert layers["plan"] == run.plan_hits == 10
    assert kernel.bind((x, y)).compile_config(helion.Config(block_sizes=[64])) is run
    name, total = kernel.stats.label, kernel.stats.snapshot().launches
    del run
    kernel.reset()
    gc.collect()
    assert helion.runtime.launch_stats()[name].launches >= total
    assert kernel.stats.snapshot().launches == total


def test_no_process_is_left_a_plan_of_another_config(configured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []

    class Cache:
        def serve(self, dispatcher: Any, args: Any) -> str:
            return "empty"

        def keep(self, dispatcher: Any, args: Any, plan: Any) -> None:
            kept.append(dispatcher)

    monkeypatch.setattr(bundled, "cache", Cache())
    x, y = torch.randn(N), torch.randn(N)
    kernel, run = configured(add, x, y)
    for _ in range(4):
        run(x, y)
        kernel(x, y)
    assert kept == ([kernel] if _extension.C is not None else [])


def test_arguments_of_another_specialization_are_refused(configured: Any) -> None:
    x, y = torch.randn(N), torch.randn(N)
    kernel, run = configured(add, x, y)
    for _ in range(4):
        run(x, y)
        for other in (torch.randn(2 * N), torch.randn(N).double(), torch.randn(2 * N)[::2]):
            with pytest.raises(exc.InvalidAPIUsage, match="another specialization"):
                run(other, other)
            assert torch.equal(kernel(other, other), 2 * other)


def test_numbers_that_were_decided_on_are_asked_at_every_call(configured: Any) -> None:
    x = torch.randn(N)
    kernel, run = configured(scaled, x, 5)
    for _ in range(4):
        assert torch.equal(run(x, 7), x * 2)
        kernel(x, 2)


def test_arguments_that_overlap_are_another_specialization(configured: Any) -> None:
    def shift(x, y):
        for t in hl.tile(y.size(0)):
            y[t] = x[t] + 1

    base = torch.randn(2 * N)
    _, run = configured(shift, base[:N], base[N:])
    for _ in range(4):
        run(base[:N], base[N:])
        assert torch.equal(base[N:], base[:N] + 1)
        with pytest.raises(exc.InvalidAPIUsage, match="another specialization"):
            run(base[:N], base[4 : N + 4])


def test_what_cannot_be_pickled_says_what_can(configured: Any) -> None:
    x, y = torch.randn(N), torch.randn(N)
    kernel, run = configured(add, x, y)
    with pytest.raises(TypeError, match=r"add under a Config> cannot be pickled: .*compile_config\(config\)"):
        pickle.dumps(run)
    with pytest.raises(TypeError, match=r"'add' cannot be pickled: .*kernel\.bind\(args\)"):
        pickle.dumps(kernel.bind((x, y)))


def test_a_launcher_of_the_callers_wins(configured: Any) -> None:
    x, y = torch.randn(N), torch.randn(N)
    _, run = configured(add, x, y)
    seen = []
    for _ in range(4):
        run(x, y)
        run(x, y, _launcher=lambda kernel, grid, *args, **options: seen.append((grid, len(args))))
    assert seen == [((4,), 3)] * 4
