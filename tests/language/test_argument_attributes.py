"""Attributes of arguments count at each call: of objects that are called, classes, modules, functions, enum members."""

from __future__ import annotations

import dataclasses
import enum
import types
from collections.abc import Callable
from typing import Any
from typing import ClassVar

import pytest
import torch

import helion
import helion.language as hl
from helion import exc

X = torch.linspace(-2, 3, 24)


class Gain:
    unit = 1.0

    def __init__(self) -> None:
        self.gain = 2.0
        self.inner = types.SimpleNamespace(bias=0.5)

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        return value * self.gain


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = 2.0

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return value * self.gain + (1 if self.training else 0)


class Mode(enum.Enum):
    DICT = {0: 2.0, 1: 3.0}  # noqa: RUF012
    NUMBER = 5.0


@dataclasses.dataclass
class Options:
    gain: float = 2.0
    limit: ClassVar[float] = 4.0

    def apply(self, value: torch.Tensor) -> torch.Tensor:
        return self.clamped(value) * self.gain

    def clamped(self, value: torch.Tensor) -> torch.Tensor:
        return value + self.limit


def with_attribute(value: torch.Tensor) -> torch.Tensor:
    return value * with_attribute.gain  # type: ignore[attr-defined]


def of_options(options: Options, value: torch.Tensor) -> torch.Tensor:
    return options.apply(value)


def called(value: torch.Tensor, f: Any) -> torch.Tensor:
    return f(value)


def class_read(value: torch.Tensor, f: Any) -> torch.Tensor:
    return value * f.unit


def inner_read(value: torch.Tensor, f: Any) -> torch.Tensor:
    return value * f.inner.bias


def gain_read(value: torch.Tensor, f: Any) -> torch.Tensor:
    return value * f.gain


def helper_read(value: torch.Tensor, f: Any) -> torch.Tensor:
    return with_attribute(value) + value


def value_read(value: torch.Tensor, f: Any) -> torch.Tensor:
    return value * f.value[0] + len(f.value)


def member_read(value: torch.Tensor, f: Any) -> torch.Tensor:
    return value * Mode.DICT.value[0] + Mode.NUMBER.value


def start_read(value: torch.Tensor, f: Any) -> torch.Tensor:
    return value + f.start


def through_function(value: torch.Tensor, f: Any) -> torch.Tensor:
    return f[0](f[1], value)


def over_tiles(body: Callable[..., torch.Tensor]) -> helion.Kernel:
    @helion.kernel(config=helion.Config(block_sizes=[8]))
    def kernel(x: torch.Tensor, f: Any) -> torch.Tensor:
        out = torch.zeros_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = body(x[tile], f)
        return out

    return kernel


def changes(patch: pytest.MonkeyPatch) -> list[tuple[Callable[..., Any], Any, Callable[[], Any]]]:
    """What is read of which argument, and what then changes in place."""
    gain, block, leaky, options = Gain(), Block(), torch.nn.LeakyReLU(0.5), Options()
    patch.setattr(with_attribute, "gain", 2.0, raising=False)
    return [
        (called, gain, lambda: setattr(gain, "gain", 3.0)),
        (gain_read, gain, lambda: setattr(gain, "gain", 4.0)),
        (class_read, gain, lambda: patch.setattr(Gain, "unit", 6.0)),
        (class_read, Gain, lambda: patch.setattr(Gain, "unit", 7.0)),
        (inner_read, gain, lambda: setattr(gain.inner, "bias", 3.0)),
        (called, leaky, lambda: setattr(leaky, "negative_slope", 0.25)),
        (called, block, lambda: setattr(block, "gain", 3.0)),
        (called, block, block.eval),
        (called, block, lambda: setattr(block, "forward", lambda value: value - 9)),
        (called, with_attribute, lambda: patch.setattr(with_attribute, "gain", 3.0)),
        (gain_read, with_attribute, lambda: patch.setattr(with_attribute, "gain", 4.0)),
        (helper_read, None, lambda: patch.setattr(with_attribute, "gain", 5.0)),
        (value_read, Mode.DICT, lambda: patch.setitem(Mode.DICT.value, 0, 7.0)),
        (member_read, None, lambda: patch.setitem(Mode.DICT.value, 0, 8.0)),
        (member_read, None, lambda: patch.setattr(Mode.NUMBER, "_value_", 9.0)),
        (through_function, (of_options, options), lambda: patch.setattr(Options, "limit", 5.0)),
        (through_function, (of_options, options), lambda: patch.setattr(Options, "clamped", lambda self, value: value)),
        (start_read, slice(1, 2), lambda: None),
    ]


def test_what_changes_in_place_is_read_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    for i, (body, argument, change) in enumerate(changes(monkeypatch)):
        kernel = over_tiles(body)
        for _ in range(2):
            assert torch.equal(kernel(X, argument), body(X, argument)), i
        before = body(X, argument)
        change()
        argument = slice(2, 2) if isinstance(argument, slice) else argument
        assert not torch.equal(body(X, argument), before), i
        for _ in range(2):
            assert torch.equal(kernel(X, argument), body(X, argument)), (i, body.__name__)


def test_an_attribute_in_front_of_its_class_is_refused() -> None:
    class Derived(Options):
        unit = 1.0

    options = Derived()
    kernel = over_tiles(class_read)
    assert torch.equal(kernel(X, options), X)
    options.unit = 2.0
    with pytest.raises(exc.InvalidAPIUsage, match="make it a field"):
        kernel(X, options)
