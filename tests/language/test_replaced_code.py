"""A kernel function that gets other code or other defaults, as programs that reload modules assign them: each call is
of its code at the time."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch

import helion
import helion.language as hl

pytestmark = pytest.mark.slow

CONFIG = helion.Config(block_sizes=[16])
X = torch.arange(32.0)
OFFSET = 10.0


def times(x: torch.Tensor, factor: float = 2.0) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] * factor
    return out


def plus(x: torch.Tensor, factor: float = 2.0) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] + factor + OFFSET
    return out


def with_more(x: torch.Tensor, y: torch.Tensor, factor: float = 2.0) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = (x[tile] - y[tile]) * factor
    return out


def copy_of(fn: Callable[..., Any]) -> types.FunctionType:
    assert isinstance(fn, types.FunctionType)
    made = types.FunctionType(fn.__code__, globals(), fn.__name__, fn.__defaults__)
    made.__annotations__ = fn.__annotations__
    return made


def check(calls: int, **options: Any) -> helion.Kernel:
    fn = copy_of(times)
    kernel = helion.kernel(fn, config=CONFIG, **options)

    def agree(expected: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        for _ in range(calls):
            torch.testing.assert_close(kernel(*args, **kwargs), expected)

    agree(X * 2, X)
    agree(X * 3, X, 3.0)
    fn.__defaults__ = (5.0,)
    agree(X * 5, X)
    agree(X * 3, X, 3.0)
    agree(X * 3, X, factor=3.0)
    fn.__code__ = plus.__code__
    agree(X + 3 + OFFSET, X, 3.0)
    agree(X + 5 + OFFSET, X)
    fn.__code__, fn.__defaults__ = with_more.__code__, (4.0,)
    agree((X - 1) * 4, X, torch.ones_like(X))
    agree((X - 1) * 2, X, factor=2.0, y=torch.ones_like(X))
    with pytest.raises(TypeError):
        kernel(X)
    fn.__code__, fn.__defaults__ = times.__code__, None
    agree(X * 3, X, 3.0)
    with pytest.raises(TypeError):
        kernel(X)
    torch.testing.assert_close(kernel.bind((X, 7.0))(X, 7.0), X * 7)
    return kernel


@pytest.mark.parametrize(
    "options",
    [{}, {"static_shapes": False}, {"static_shapes": "auto"}, {"ref_mode": helion.RefMode.EAGER}],
    ids=str,
)
def test_each_call_is_of_the_code_at_the_time(options: dict[str, Any]) -> None:
    check(2, **options)


@pytest.mark.compiles
@pytest.mark.softgpu(capability=90, software_only=True)
def test_a_plan_is_for_the_code_that_it_was_recorded_with(softgpu: Any) -> None:
    kernel = check(4)
    assert not [reason for reason in kernel.stats.snapshot().reasons if reason.startswith("no plan")]


def test_what_was_bound_before_stays_what_it_was() -> None:
    fn = copy_of(times)
    kernel = helion.kernel(fn, config=CONFIG)
    bound = kernel.bind((X, 3.0))
    configured = bound.compile_config(CONFIG)
    torch.testing.assert_close(bound(X, 3.0), X * 3)
    fn.__code__ = plus.__code__
    torch.testing.assert_close(kernel(X, 3.0), X + 3 + OFFSET)
    torch.testing.assert_close(bound(X, 3.0), X * 3)
    torch.testing.assert_close(configured(X, 3.0), X * 3)
    assert kernel.bind((X, 3.0)) is not bound


def test_equal_code_and_defaults_that_cannot_be_compared() -> None:
    """A module that is reloaded unchanged has equal code, which is another object; == of tensors is no answer."""

    def scaled(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * factor[0]
        return out

    scaled.__defaults__ = (torch.full([2], 2.0),)
    kernel = helion.kernel(scaled, config=CONFIG)
    assert torch.equal(kernel(X), X * 2)
    scaled.__code__ = scaled.__code__.replace(co_name="scaled")
    scaled.__defaults__ = (torch.full([2], 3.0),)
    for _ in range(4):
        assert torch.equal(kernel(X), X * 3)


def test_the_function_itself_cannot_be_replaced() -> None:
    kernel = helion.kernel(times, config=CONFIG)
    with pytest.raises(helion.exc.InvalidAPIUsage, match="make another kernel"):
        kernel.fn = plus
    assert kernel.fn is times
    torch.testing.assert_close(kernel(X), X * 2)


def test_graphs_are_of_the_code_and_the_defaults_at_the_time() -> None:
    def by(x: torch.Tensor, factors: list[float] = [2.0]) -> torch.Tensor:  # noqa: B006
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * factors[0]
        return out

    fn = copy_of(times)
    kernel, other = helion.kernel(fn, config=CONFIG), helion.kernel(by, config=CONFIG)
    graph = torch.compile(lambda x: kernel(x) - other(x), fullgraph=True, backend="eager")
    torch.testing.assert_close(graph(X), X * 2 - X * 2)
    fn.__defaults__ = (5.0,)
    torch.testing.assert_close(graph(X), X * 5 - X * 2)
    fn.__code__ = plus.__code__
    torch.testing.assert_close(graph(X), X + 5 + OFFSET - X * 2)
    assert by.__defaults__ is not None
    by.__defaults__[0][0] = 3.0
    torch.testing.assert_close(graph(X), X + 5 + OFFSET - X * 3)
