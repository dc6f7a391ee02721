"""Functions that a kernel calls may be replaced between two calls, and objects that it is given may change: each call
runs those of its time, whatever path it takes."""

from __future__ import annotations

import enum
import functools
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


def double(value: torch.Tensor, factor: float = 2.0) -> torch.Tensor:
    return value * factor


def triple(value: torch.Tensor, factor: float = 3.0) -> torch.Tensor:
    return value * factor


def closing_over(factor: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda value: value * factor


def through_a_helper(value: torch.Tensor) -> torch.Tensor:
    return HELPER(value)


def half(x: torch.Tensor) -> int:
    return x.size(0) // 2


def whole(x: torch.Tensor) -> int:
    return x.size(0)


class Scale:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        return value * self.factor

    def apply(self, value: torch.Tensor) -> torch.Tensor:
        return value * self.factor


class ScaleWithin(Scale):
    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        def scaled(part: torch.Tensor) -> torch.Tensor:
            return part * self.factor

        return scaled(value)


def twice(value: torch.Tensor, function: Any) -> torch.Tensor:
    return function(function(value))


class Functions:
    act = staticmethod(double)


#: What the kernels below call. Tests replace it with `monkeypatch`.
HELPER: Callable[[torch.Tensor], torch.Tensor] = double
CLOSURE = closing_over(2.0)
TORCHS: Callable[[torch.Tensor], torch.Tensor] = torch.relu
SIZE = half
TABLE: dict[str, Any] = {"act": double}
MODULE = types.ModuleType("a_module_of_the_user")
MODULE.act = double  # type: ignore[attr-defined]


def calls_all(x: torch.Tensor) -> torch.Tensor:
    n = SIZE(x)
    out = torch.zeros_like(x)
    for tile in hl.tile(n):
        value = CLOSURE(through_a_helper(x[tile] - 7))
        value = TABLE["act"](Functions.act(value)) + MODULE.act(x[tile])  # type: ignore[attr-defined]
        out[tile] = TORCHS(value)
    return out


def expected(x: torch.Tensor) -> torch.Tensor:
    n = SIZE(x)
    value = TABLE["act"](Functions.act(CLOSURE(HELPER(x[:n] - 7)))) + MODULE.act(x[:n])  # type: ignore[attr-defined]
    return torch.cat([TORCHS(value), torch.zeros_like(x[n:])])


def changes(patch: pytest.MonkeyPatch) -> list[Callable[[], Any]]:
    """Each gives the kernel another function to call."""
    here = globals()
    return [
        lambda: patch.setitem(here, "HELPER", triple),
        lambda: patch.setitem(here, "HELPER", closing_over(4.0)),
        lambda: patch.setitem(here, "HELPER", closing_over(5.0)),
        lambda: patch.setitem(here, "HELPER", Scale(6.0)),
        lambda: patch.setitem(here, "HELPER", functools.partial(twice, function=triple)),
        lambda: patch.setitem(here, "HELPER", functools.partial(twice, function=functools.partial(torch.mul, other=5))),
        lambda: patch.setitem(here, "HELPER", functools.partial(twice, function=functools.partial(torch.mul, other=6))),
        lambda: patch.setitem(here, "HELPER", functools.partial(torch.sub, other=6)),
        lambda: patch.setitem(here, "HELPER", double),
        lambda: patch.setattr(double, "__defaults__", (1.5,)),
        lambda: patch.setattr(double, "__code__", (lambda value, factor: value + factor).__code__),
        lambda: patch.setitem(here, "CLOSURE", closing_over(-1.0)),
        lambda: patch.setitem(here, "TORCHS", torch.abs),
        lambda: patch.setitem(here, "SIZE", whole),
        lambda: patch.setitem(TABLE, "act", triple),
        lambda: patch.setattr(Functions, "act", staticmethod(triple)),
        lambda: patch.setattr(MODULE, "act", triple),
    ]


def check(patch: pytest.MonkeyPatch, calls: int, **options: Any) -> helion.Kernel:
    kernel = helion.kernel(calls_all, config=CONFIG, **options)
    for change in [lambda: None, *changes(patch)]:
        change()
        for _ in range(calls):
            torch.testing.assert_close(kernel(X), expected(X))
    return kernel


@pytest.fixture
def patch() -> Any:
    with pytest.MonkeyPatch.context() as found:
        yield found


@pytest.mark.parametrize("options", [{}, {"static_shapes": False}, {"ref_mode": helion.RefMode.EAGER}], ids=str)
def test_each_call_calls_the_functions_of_its_time(patch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    check(patch, 2, **options)


@pytest.mark.compiles
@pytest.mark.softgpu(capability=90, software_only=True)
def test_a_plan_is_for_the_functions_that_it_was_recorded_with(softgpu: Any, patch: pytest.MonkeyPatch) -> None:
    kernel = check(patch, 4)
    assert not [reason for reason in kernel.stats.snapshot().reasons if reason.startswith("no plan")]


def test_a_function_that_is_defined_again_is_the_same(patch: pytest.MonkeyPatch) -> None:
    kernel = helion.kernel(calls_all, config=CONFIG)
    kernel(X)
    patch.setitem(globals(), "HELPER", types.FunctionType(double.__code__, globals(), "double", (2.0,)))
    torch.testing.assert_close(kernel(X), expected(X))
    assert len(kernel._bound) == 1


def of_argument(x: torch.Tensor, function: Any) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = function(x[tile])
    return out


def item(value: torch.Tensor, factors: Any) -> torch.Tensor:
    return value * factors[0]


def with_default(factors: Any) -> Any:
    def function(value: torch.Tensor, given: Any = factors) -> torch.Tensor:
        return value * given[0]

    return function


def _changed(given: Any, factor: float) -> Any:
    given.factor = factor
    return given


OBJECT = Scale(2.0)
WITHIN = ScaleWithin(2.0)
#: For a factor, an argument that multiplies by it.
ARGUMENTS: dict[str, Callable[[float], Any]] = {
    "an object that changes": lambda factor: _changed(OBJECT, factor),
    "an object that changes, read by a function within": lambda factor: _changed(WITHIN, factor),
    "a method of an object that changes": lambda factor: _changed(OBJECT, factor).apply,
    "a tuple in a partial": lambda factor: functools.partial(item, factors=(factor,)),
    "a dict in a partial": lambda factor: functools.partial(item, factors={0: factor}),
    "a tuple as default": lambda factor: with_default((factor,)),
    "a list that it closes over": lambda factor: (lambda factors: lambda value: value * factors[0])([factor]),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_numbers_that_a_function_argument_holds_count(name: str) -> None:
    kernel = helion.kernel(of_argument, config=CONFIG)
    for factor in (2.0, 3.0, 2.0):
        torch.testing.assert_close(kernel(X, ARGUMENTS[name](factor)), X * factor)
    assert len(kernel._bound) == 2


class Kind(enum.Enum):
    PLAIN = 1.0
    SCALED = 2.0

    def factor(self) -> float:
        return self.value


def of_members(x: torch.Tensor, kind: Kind = Kind.PLAIN) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] * (kind.factor() + Kind.SCALED.factor())
    return out


@pytest.mark.parametrize("ref_mode", [helion.RefMode.OFF, helion.RefMode.EAGER])
def test_a_method_of_enum_members_that_is_replaced(monkeypatch: pytest.MonkeyPatch, ref_mode: helion.RefMode) -> None:
    kernel = helion.kernel(of_members, config=CONFIG, ref_mode=ref_mode)
    for factor in (lambda kind: kind.value, lambda kind: 10 * kind.value):
        monkeypatch.setattr(Kind, "factor", factor)
        for _ in range(3):
            torch.testing.assert_close(kernel(X, Kind.SCALED), X * 2 * factor(Kind.SCALED))
            torch.testing.assert_close(kernel(X), X * (factor(Kind.PLAIN) + factor(Kind.SCALED)))


def thirds(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty(x.shape, dtype=torch.float64, device=x.device)
    for tile in hl.tile(x.size(0)):
        out[tile] = (x[tile] / 3 + torch.full([1], 0.1) * torch.ones([1])).to(torch.float64)
    return out


def check_default_dtype() -> None:
    kernel, x = helion.kernel(thirds, config=CONFIG), torch.arange(32)
    try:
        for dtype in (torch.float32, torch.float64, torch.float32, torch.bfloat16):
            torch.set_default_dtype(dtype)
            for _ in range(3):
                torch.testing.assert_close(kernel(x), (x / 3 + torch.full([1], 0.1)).double())
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_integers_become_follows_the_default_dtype() -> None:
    check_default_dtype()


@pytest.mark.compiles
@pytest.mark.softgpu(capability=90, software_only=True)
def test_what_integers_become_on_a_gpu_follows_the_default_dtype(softgpu: Any) -> None:
    check_default_dtype()
