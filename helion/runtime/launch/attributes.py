"""What arguments hold, beside their parts, under names that a kernel's code reads: methods, constants of classes, what
a program has set on an object.

A class, an object that is called, a module of PyTorch's or a method is read as it is while a call is traced, so what it
holds is compiled in and counts in the key.

Not here: what the kernel function reads from outside itself (``outside.py``), and the parts of arguments
(``specialization.py``).
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
from collections.abc import Hashable
from collections.abc import Iterator
from typing import Any

import torch

from ... import exc
from ..stable_key import Identity
from .bytecode import names_in
from .outside import MISSING
from .outside import Place
from .outside import constants_read
from .outside import frozen
from .outside import in_class
from .outside import is_constant
from .outside import of_function
from .outside import places_of

__all__ = ["Attributes", "constants_of_call"]


def constants_of_call(value: Any) -> list[Place]:
    """The places of constants that calling a method, a module, or an object of a class with `__call__` reads."""
    return constants_read(Place(lambda: value, "", getattr(value, "__name__", type(value).__name__)))


class Attributes:
    """The attributes of the arguments of one kernel that count.

    Names are those that the kernel function, its helpers and functions among the arguments read.
    """

    def __init__(self) -> None:
        self._fn: types.FunctionType | None = None
        self._names: frozenset[str] | None = None
        self._noted: dict[int, types.CodeType] = {}
        self._of_classes: dict[type, tuple[Place, ...]] = {}

    def look(self, fn: types.FunctionType) -> None:
        """Read this kernel function from now on, and all classes anew."""
        self._fn, self._names, self._of_classes = fn, None, {}

    def note(self, fn: types.FunctionType) -> None:
        """A function among the arguments, or that one calls: its code reads arguments too."""
        if id(fn.__code__) not in self._noted:
            self._noted[id(fn.__code__)] = fn.__code__  # held, so that no other gets the id
            self._names, self._of_classes = None, {}

    @property
    def names(self) -> frozenset[str]:
        """The names that code reads."""
        if self._names is None:
            codes = list(self._noted.values())
            if self._fn is not None:
                _, constants = places_of(self._fn)
                helpers = [place.read() for place in constants if place.called]
                codes += [fn.__code__ for fn in (self._fn, *helpers) if isinstance(fn, types.FunctionType)]
            self._names = frozenset().union(*map(names_in, codes))
        return self._names

    def of_class(self, cls: type) -> tuple[Place, ...]:
        """The places of what a class holds, and of what its methods read from outside.

        Fields are none of it: they are arguments.
        """
        found = self._of_classes.get(cls)
        if found is None:
            found = self._of_classes[cls] = tuple(self._in(cls))
        return found

    def _in(self, cls: type) -> Iterator[Place]:
        names, done = sorted(self.names), {*field_names(cls)}
        while names:
            name = names.pop()
            value = MISSING if name in done else in_class(cls, name)
            done.add(name)
            if isinstance(value, types.FunctionType):
                yield Place(functools.partial(in_class, cls, name), "", f"{cls.__name__}.{name}", called=True)
                names += sorted(names_in(value.__code__) - done)
                yield from constants_read(Place(functools.partial(in_class, cls, name), "", name))
            elif is_constant(value):
                yield Place(functools.partial(in_class, cls, name), "", f"{cls.__name__}.{name}")

    def refuse_hidden(self, value: Any, kernel: str) -> None:
        """A trace has the parts of an object, and its class: what is set on it in front of the class is neither.

        Raises:
            exc.InvalidAPIUsage: code reads such a name.
        """
        own = getattr(value, "__dict__", None)
        if not own:
            return
        cls = type(value)
        read = self.names.union(place.name.rpartition(".")[2] for place in self.of_class(cls))
        for name in sorted(read & own.keys() - set(field_names(cls))):
            is_cache = isinstance(inspect.getattr_static(cls, name, None), functools.cached_property)
            if in_class(cls, name) is not MISSING and not is_cache:
                raise exc.InvalidAPIUsage(
                    f"kernel {kernel!r} reads {name!r} of a {cls.__name__}, which is set on the object and on its "
                    "class, and is no field of it",
                    fix=f"make it a field: `{name}: float = ...` in the class.",
                )

    def of_object(self, value: Any, inside: tuple[Any, ...] = ()) -> list[Hashable]:
        """What is set on an object that is traced as it is."""
        own = {**getattr(value, "__dict__", {})}
        if isinstance(value, torch.nn.Module):
            own.update(own.get("_modules", {}))
        if not own or any(value is other for other in inside):
            return []

        def element(item: Any) -> Hashable:
            if isinstance(item, types.FunctionType):
                return of_function(item)
            return (Identity(item), *self.of_object(item, (*inside, value)))

        return [(name, frozen(own[name], element)) for name in sorted(self.names & own.keys())]


def field_names(cls: type) -> list[str]:
    """The names of the fields of a dataclass or NamedTuple."""
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls)]  # without class variables
    return list(getattr(cls, "_fields", ()))
