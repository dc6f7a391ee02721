"""Functions that device code calls: defined in the kernel, with defaults, and objects that are called."""

from __future__ import annotations

import functools

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere


def everywhere(kernel, args, expected):
    run_everywhere(kernel, args, expected, capabilities=[90])


def with_inner_functions(x: torch.Tensor) -> torch.Tensor:
    factor = 4.0

    def scaled(value, *, by=factor):
        """A docstring, several statements, a default, a keyword, and a name of the surroundings that is assigned
        later.
        """
        doubled = torch.where(value > 0, value * 2, value * 3)
        for _ in hl.grid(2):
            doubled = doubled + doubled
        if doubled.dim() == 2:
            return doubled
        return doubled * by - one

    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        one = 1.0
        shifted = lambda value, by=2.5, *more, **named: value + by + sum(more) + named.get("last", 0)  # noqa: E731
        out[tile] = shifted(scaled(x[tile])) + shifted(scaled(x[tile], by=1.0), 1.0, 2, 3, last=0.5)
    return out


def test_functions_defined_in_the_kernel(seed):
    def expected(x):
        wide = torch.where(x > 0, x * 2, x * 3) * 4
        return (wide * 4 - 1 + 2.5) + (wide - 1 + 6.5)

    everywhere(with_inner_functions, (torch.randn(20),), expected)


def argmax_with_inner_function(x: torch.Tensor) -> torch.Tensor:
    def larger(value_a, index_a, value_b, index_b):
        take = (value_b > value_a) | ((value_b == value_a) & (index_b < index_a))
        value = torch.where(take, value_b, value_a)
        return value, torch.where(take, index_b, index_a)

    out = torch.empty([x.size(0)], dtype=torch.int32, device=x.device)
    for tile in hl.tile(x.size(0)):
        index = hl.arange(16)[None, :].expand_as(x[tile, :])
        _, out[tile] = hl.reduce(larger, (x[tile, :], index), 1, other=(float("-inf"), 0))
    return out


def test_a_combine_function_defined_in_the_kernel(seed):
    everywhere(argmax_with_inner_function, (torch.randn(9, 16),), lambda x: x.argmax(1).int())


class Scale:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, value):
        return value * self.factor

    def shift(self, value):
        if self.factor > 1:
            return value + self.factor
        return value


def called_objects(x: torch.Tensor, scale, add) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = add(scale(x[tile]), scale.shift(x[tile]))
    return out


def test_objects_that_are_called(seed):
    args = torch.randn(20), Scale(3.0), functools.partial(torch.add, alpha=2)
    everywhere(called_objects, args, lambda x, scale, add: x * 3 + 2 * (x + 3))


def either(value, sign, shift: bool):
    if sign > 0:
        return value * 2, sign
    moved = value + 1
    if sign < -1:
        moved = moved * 5
        if shift:
            return moved, sign
    return moved, sign * 2


def with_returns_in_branches(x: torch.Tensor, signs: torch.Tensor, shift: bool) -> torch.Tensor:
    def or_else(value, sign):
        if sign == 0:
            return -value
        return value

    out = torch.empty_like(x)
    for i in hl.grid(x.size(0)):
        value, sign = either(x[i, :], signs[i], shift)
        out[i, :] = or_else(value + sign, signs[i])
    return out


def test_functions_return_in_branches_that_the_device_decides(seed):
    def expected(x: torch.Tensor, signs: torch.Tensor, shift: bool) -> torch.Tensor:
        factor = torch.where(signs < -1, 5.0, 1.0)[:, None]
        other = (x + 1) * factor + (signs * torch.where((signs < -1) & shift, 1, 2))[:, None]
        out = torch.where(signs[:, None] > 0, x * 2 + signs[:, None], other)
        return torch.where(signs[:, None] == 0, -out, out)

    for shift in (True, False):
        everywhere(with_returns_in_branches, (torch.randn(5, 8), torch.tensor([1, 0, -2, -1, 3]), shift), expected)


def in_a_loop(x: torch.Tensor) -> torch.Tensor:
    def first_above(i, limit):
        for j in hl.grid(x.size(1)):
            if x[i, j] > limit:
                return j
        return -1

    out = torch.empty([x.size(0)], dtype=torch.int64, device=x.device)
    for i in hl.grid(x.size(0)):
        out[i] = first_above(i, 0.5)
    return out


def as_advised(x: torch.Tensor) -> torch.Tensor:
    def first_above(i, limit):
        found = -1
        for j in hl.grid(x.size(1)):
            if x[i, j] > limit:
                found = j
                break
        return found

    out = torch.empty([x.size(0)], dtype=torch.int64, device=x.device)
    for i in hl.grid(x.size(0)):
        out[i] = first_above(i, 0.5)
    return out


def test_a_return_in_a_loop_is_refused_and_the_advice_works(seed):
    x = torch.randn(7, 4)
    with pytest.raises(exc.StatementNotSupported, match=r"(?s)a loop, under a condition of the device.*`break`"):
        helion.kernel(in_a_loop)(x)
    found = [next((j for j, value in enumerate(row) if value > 0.5), -1) for row in x.tolist()]
    everywhere(as_advised, (x,), lambda _: torch.tensor(found))
