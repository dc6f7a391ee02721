"""What a kernel calls through containers, objects and classes may be replaced between two calls, as functions may
(test_called_functions.py): each call runs what is there then, whatever path it takes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import pytest
import torch
from torch import nn

import helion
import helion.language as hl

pytestmark = pytest.mark.slow

CONFIG = helion.Config(block_sizes=[16])
X = torch.arange(1.0, 33.0)


def double(value: torch.Tensor) -> torch.Tensor:
    return value * 2


def triple(value: torch.Tensor) -> torch.Tensor:
    return value * 3


def scaled(value: torch.Tensor, *, factor: float = 2.0) -> torch.Tensor:
    return value * factor * GAIN


class Slope(nn.Module):
    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return value * self.slope


#: What the kernels below call, and number them by. Tests replace it with `monkeypatch`.
FUNCTIONS: list[Any] = [double, double]
TABLE: dict[str, Any] = {"act": double, "other": (0.5, [triple])}
GAIN = 1.0
WHICH = 0
PARTIAL = functools.partial(scaled, factor=2.0)
MODULE: nn.Module = nn.ReLU()


def calls_all(x: torch.Tensor, name: hl.constexpr) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        value = x[tile]
        for function in FUNCTIONS:
            value = function(value)
        value = TABLE[name](value) + TABLE.get("other")[1][WHICH](value)  # type: ignore[index]
        out[tile] = MODULE(PARTIAL(value) + scaled(value) - 100.0)
    return out


def expected(x: torch.Tensor, name: str) -> torch.Tensor:
    for function in FUNCTIONS:
        x = function(x)
    x = TABLE[name](x) + TABLE["other"][1][WHICH](x)
    return MODULE(PARTIAL(x) + scaled(x) - 100.0)  # type: ignore[no-any-return]


def changes(patch: pytest.MonkeyPatch) -> list[Callable[[], Any]]:
    """Each gives the kernel something else to call."""
    here, module = globals(), nn.LeakyReLU(0.5)
    return [
        lambda: FUNCTIONS.__setitem__(0, triple),
        lambda: patch.setitem(here, "FUNCTIONS", [triple]),
        lambda: patch.setitem(here, "FUNCTIONS", (triple, double, double)),
        lambda: patch.setitem(TABLE, "act", triple),
        lambda: patch.setitem(TABLE, "other", (0.5, [double])),
        lambda: patch.setitem(here, "GAIN", 2.0),
        lambda: patch.setitem(here, "PARTIAL", functools.partial(scaled, factor=5.0)),
        lambda: patch.setitem(scaled.__kwdefaults__, "factor", 7.0),
        lambda: patch.setitem(here, "MODULE", module),
        lambda: patch.setattr(module, "negative_slope", 0.25),
        lambda: patch.setitem(here, "MODULE", slope),
        lambda: patch.setattr(slope, "slope", 3.0),
    ]


slope = Slope(2.0)


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as found:
        yield found
    FUNCTIONS[0] = double


def check(patch: pytest.MonkeyPatch, calls: int, **options: Any) -> helion.Kernel:
    kernel = helion.kernel(calls_all, config=CONFIG, **options)
    for change in [lambda: None, *changes(patch)]:
        change()
        for _ in range(calls):
            torch.testing.assert_close(kernel(X, "act"), expected(X, "act"))
    return kernel


@pytest.mark.parametrize("options", [{}, {"static_shapes": False}], ids=str)
def test_each_call_calls_what_is_there_then(patch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    check(patch, 2, **options)


@pytest.mark.compiles
@pytest.mark.softgpu(capability=90, software_only=True)
def test_a_plan_is_for_what_was_there(softgpu: Any, patch: pytest.MonkeyPatch) -> None:
    kernel = check(patch, 4)
    assert not [reason for reason in kernel.stats.snapshot().reasons if reason.startswith("no plan")]


def test_a_place_may_hold_something_else_altogether(patch: pytest.MonkeyPatch) -> None:
    kernel = helion.kernel(calls_all, config=CONFIG)
    kernel(X, "act")
    patch.setitem(globals(), "FUNCTIONS", 3)
    with pytest.raises(helion.exc.BaseError):
        kernel(X, "act")
    patch.undo()
    torch.testing.assert_close(kernel(X, "act"), expected(X, "act"))


@dataclasses.dataclass
class Record:
    factor: float
    shift = 1.0

    def scale(self, value: torch.Tensor) -> torch.Tensor:
        return self.shifted(value) * self.factor

    def shifted(self, value: torch.Tensor) -> torch.Tensor:
        return value + self.shift * GAIN


class Pair(NamedTuple):
    factor: float
    other: int

    def scale(self, value: torch.Tensor) -> torch.Tensor:
        return value * self.factor + self.shift  # type: ignore[attr-defined, no-any-return]


Pair.shift = 1.0  # type: ignore[attr-defined]


class Scale:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        return value * self.factor

    scale = __call__


def of_argument(x: torch.Tensor, argument: Any) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = argument.scale(x[tile])
    return out


def calls_argument(x: torch.Tensor, argument: Any) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = argument(x[tile])
    return out


def plus(self: Any, value: torch.Tensor) -> torch.Tensor:
    return value + self.factor  # type: ignore[no-any-return]


#: Argument, and what changes about its class: names and values.
CLASSES: dict[str, tuple[Any, list[tuple[str, Any]]]] = {
    "dataclass": (Record(2.0), [("shift", 3.0), ("shifted", lambda self, value: value - 1), ("scale", plus)]),
    "named tuple": (Pair(2.0, 1), [("shift", 3.0), ("scale", plus)]),
}


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("static", [True, False])
def test_methods_of_an_arguments_class_count(patch: pytest.MonkeyPatch, name: str, static: bool) -> None:
    kernel = helion.kernel(of_argument, config=CONFIG, static_shapes=static)
    argument, replaced = CLASSES[name]
    torch.testing.assert_close(kernel(X, argument), argument.scale(X))
    torch.testing.assert_close(kernel(X, argument), argument.scale(X))
    assert len(kernel._bound) == 1
    for attribute, value in replaced:
        patch.setattr(type(argument), attribute, value)
        for _ in range(2):
            torch.testing.assert_close(kernel(X, argument), argument.scale(X))
    patch.setitem(globals(), "GAIN", 2.0)
    torch.testing.assert_close(kernel(X, argument), argument.scale(X))


def test_fields_of_an_argument_stay_numbers_of_the_call() -> None:
    kernel = helion.kernel(of_argument, config=CONFIG)
    for factor in (2.0, 3.0, 4.0):
        torch.testing.assert_close(kernel(X, Record(factor)), Record(factor).scale(X))
    assert len(kernel._bound) == 1


def test_an_object_whose_class_calls_otherwise(patch: pytest.MonkeyPatch) -> None:
    kernel, argument = helion.kernel(calls_argument, config=CONFIG), Scale(3.0)
    torch.testing.assert_close(kernel(X, argument), argument(X))
    patch.setattr(Scale, "__call__", plus)  # which reads the same
    torch.testing.assert_close(kernel(X, argument), argument(X))
