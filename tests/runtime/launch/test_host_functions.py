"""Host functions as users write them become plans, and do as plans what they do in Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import helion
from helion import _extension
from helion.runtime import launch_stats

from .host_functions import FUNCTIONS

pytestmark = [
    pytest.mark.softgpu(capability=90, software_only=True),
    pytest.mark.usefixtures("softgpu"),
    pytest.mark.compiles,
    pytest.mark.skipif(_extension.C is None, reason="needs helion._C"),
]

#: Those that stay with the host function, and why.
NO_PLAN: dict[str, str] = {}


def reasons(kernel: Any) -> list[str]:
    return [reason for reason in kernel.stats.snapshot().reasons if reason.startswith("no plan")]


def tensors(value: Any) -> Iterator[torch.Tensor]:
    for item in value if isinstance(value, (tuple, list)) else [value]:
        if isinstance(item, torch.Tensor):
            yield item


@pytest.mark.parametrize("name", FUNCTIONS)
def test_host_function_is_a_plan(name: str) -> None:
    kernel = helion.kernel(config=helion.Config(block_sizes=[128]))(FUNCTIONS[name])
    generator = torch.Generator().manual_seed(7)
    for _ in range(5):
        x, y = (torch.randn(256, generator=generator) for _ in range(2))
        mine = [x.clone(), y.clone()]
        want, got = kernel._call_python(*mine), kernel(x, y)
        assert type(got) is type(want)
        for one, other in zip(tensors(got), tensors(want), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
            assert (one.stride(), one._version, one.requires_grad) == (other.stride(), other._version, False)
        torch.testing.assert_close(x, mine[0], rtol=0, atol=0)
    if name in NO_PLAN:
        assert any(NO_PLAN[name] in reason for reason in reasons(kernel)), reasons(kernel)
    else:
        assert kernel.plan_hits == 3, reasons(kernel)


def test_at_least_95_of_100_are_plans() -> None:
    assert len(FUNCTIONS) >= 60 and len(NO_PLAN) <= 0.05 * len(FUNCTIONS)


def test_reason_of_one_that_is_none_is_in_launch_stats() -> None:
    @helion.kernel(config=helion.Config(block_sizes=[128]))
    def noisy(x, y):
        print("adding")
        out = torch.empty_like(x)
        for t in helion.language.tile(x.size(0)):
            out[t] = x[t] + y[t]
        return out

    x = torch.randn(256)
    for _ in range(3):
        noisy(x, x)
    name = next(n for n in launch_stats() if n.endswith("noisy"))
    assert "no plan: host code calls print()" in launch_stats()[name].reasons


def test_operations_of_a_plan_follow_autocast() -> None:
    from .host_functions import arithmetic_before

    kernel = helion.kernel(config=helion.Config(block_sizes=[128]))(arithmetic_before)
    x, y = torch.randn(256), torch.randn(256)
    for _ in range(4):
        want = kernel(x, y)
    hits = kernel.plan_hits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(kernel(x, y), want)
    assert kernel.plan_hits == hits > 0


def test_call_of_a_bound_kernel_takes_the_plan_of_its_kernel() -> None:
    from .host_functions import empty_like

    kernel = helion.kernel(config=helion.Config(block_sizes=[128]))(empty_like)
    x, y = torch.randn(256), torch.randn(256)
    bound = kernel.bind((x, y))
    for _ in range(5):
        assert torch.equal(bound(x, y), x + y)
        assert torch.equal(kernel.bind((x, y))(x, y), x + y)
    assert kernel.plan_hits == 8
    bound.set_config(helion.Config(block_sizes=[64]))
    assert torch.equal(bound(x, y), x + y) and kernel.bind((x, y)) is bound
    kernel.reset()
    hits = kernel.plan_hits
    assert torch.equal(bound(x, y), x + y)
    assert kernel.plan_hits == hits and kernel.bind((x, y)) is not bound
