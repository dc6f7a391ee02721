"""A specialization outlives its first call, and must not hold the tensors of it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

import helion
import helion.language as hl

CONFIG = helion.Config(block_sizes=[64])


def kernel_of_tensors(**settings: Any) -> Any:
    @helion.kernel(config=CONFIG, **settings)
    def total(x, y):
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = x[t] + y[t]
        return out

    return total


def kernel_of_a_list(**settings: Any) -> Any:
    @helion.kernel(config=CONFIG, **settings)
    def total(tensors):
        out = torch.empty_like(tensors[0])
        for t in hl.tile(out.size(0)):
            out[t] = tensors[0][t] + tensors[1][t]
        return out

    return total


def kernel_of_a_function(**settings: Any) -> Any:
    @helion.kernel(config=CONFIG, **settings)
    def total(x, add):
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = add(x[t], t)
        return out

    return total


def closing_over(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, Callable[..., Any]]:
    def inner(t):
        return y[t]

    def add(value, t):
        return value + inner(t)

    return x, add


def apart() -> tuple[torch.Tensor, ...]:
    return torch.randn(100), torch.randn(100)


def overlapping() -> tuple[torch.Tensor, ...]:
    memory = torch.randn(150)
    return memory[:100], memory[50:]


def check_let_go(
    make: Callable[..., Any], make_args: Callable[[], tuple[torch.Tensor, ...]], static: bool, calls: int
) -> None:
    kernel = make(static_shapes=static)
    tensors = make_args()
    forms = {
        kernel_of_tensors: tensors,
        kernel_of_a_list: (list(tensors),),
        kernel_of_a_function: closing_over(*tensors),
    }
    args: Any = forms.pop(make)
    forms.clear()
    bound = kernel.bind(args)
    for _ in range(calls):
        kernel(*args)
    alive = [weakref.ref(tensor) for tensor in tensors]
    storages = [weakref.ref(tensor.untyped_storage()) for tensor in tensors]
    del tensors, args
    gc.collect()
    assert [ref() for ref in alive] == [None] * 2
    if calls or make is not kernel_of_a_function:  # an alias of what a function captured stays until the first call
        assert [ref() for ref in storages] == [None] * 2
    assert bound is not None


after_calls = pytest.mark.parametrize("calls", [0, 1, 3], ids=["bound", "called", "steady"])


@after_calls
@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
@pytest.mark.parametrize("make_args", [apart, overlapping])
@pytest.mark.parametrize("make", [kernel_of_tensors, kernel_of_a_list, kernel_of_a_function])
def test_the_tile_executor_lets_go_of_tensors(make: Any, make_args: Any, static: bool, calls: int) -> None:
    check_let_go(make, make_args, static, calls)


@after_calls
@pytest.mark.parametrize(
    ("make", "make_args", "static"),  # each with each of another: half of what there is, as each takes seconds
    [
        (kernel_of_tensors, apart, True),
        (kernel_of_tensors, overlapping, False),
        (kernel_of_a_list, apart, False),
        (kernel_of_a_list, overlapping, True),
        (kernel_of_a_function, apart, True),
        (kernel_of_a_function, overlapping, False),
    ],
)
@pytest.mark.compiles
@pytest.mark.softgpu(capability=90, software_only=True)
@pytest.mark.usefixtures("softgpu")
def test_compiled_kernels_let_go_of_tensors(make: Any, make_args: Any, static: bool, calls: int) -> None:
    check_let_go(make, make_args, static, calls)
