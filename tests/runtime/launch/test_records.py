"""Which classes a plan may call: NamedTuples and dataclasses whose making runs no code of the program's."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any
from typing import NamedTuple

import pytest

from helion.runtime.launch.records import fields_of
from helion.runtime.launch.records import is_record


class Named(NamedTuple):
    a: Any
    b: int = 2

    def total(self) -> Any:
        return self.a + self.b


Old = collections.namedtuple("Old", "a b")


@dataclasses.dataclass
class Plain:
    a: Any
    b: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: Any


@dataclasses.dataclass(slots=True)
class Slots:
    a: Any
    b: int = 2


@dataclasses.dataclass
class Derived(Plain):
    c: int = 3


class OwnNew(tuple):
    _fields = ("a",)

    def __new__(cls, a: Any) -> OwnNew:
        return super().__new__(cls, (a, a))


class OfNamed(Named):
    pass


@dataclasses.dataclass
class PostInit:
    a: Any

    def __post_init__(self) -> None:
        self.a = [self.a]


@dataclasses.dataclass
class OwnInit:
    a: Any

    def __init__(self, a: Any) -> None:
        self.a = [a]


@dataclasses.dataclass
class OwnSet:
    a: Any

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, [value])


@dataclasses.dataclass
class OwnFactory:
    a: Any
    b: int = dataclasses.field(default_factory=iter(range(9)).__next__)


@dataclasses.dataclass
class NotGiven:
    a: Any
    b: int = dataclasses.field(init=False, default=1)


class Doubling:
    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__["seen"] = value

    def __get__(self, instance: Any, owner: Any) -> Any:
        return instance.__dict__["seen"] if instance is not None else 1


@dataclasses.dataclass
class WithDescriptor:
    a: Any = Doubling()


class Meta(type):
    def __call__(cls, *args: Any) -> Any:
        return [super().__call__(*args)]


@dataclasses.dataclass
class OfMeta(metaclass=Meta):
    a: Any


class Bare:
    pass


@pytest.mark.parametrize(
    "value", [Named(1), Old(1, 2), Plain(1), Frozen(1), Slots(1), Derived(1, [2])], ids=lambda v: type(v).__name__
)
def test_a_record_is_made_again_of_its_fields(value: Any) -> None:
    cls = type(value)
    fields = fields_of(value)
    assert is_record(cls) and fields is not None and cls(*fields) == value


@pytest.mark.parametrize(
    "cls",
    [OwnNew, OfNamed, PostInit, OwnInit, OwnSet, OwnFactory, NotGiven, WithDescriptor, OfMeta, Bare, tuple, dict, int],
)
def test_classes_that_run_code_or_hold_more_are_no_records(cls: type) -> None:
    assert not is_record(cls)


def test_an_object_that_holds_more_than_its_fields_is_not_made_again() -> None:
    value = Plain(1)
    assert fields_of(value) == [1, []]
    value.__dict__["more"] = 2
    assert fields_of(value) is None
