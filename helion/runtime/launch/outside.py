"""What a kernel function reads from outside itself: globals of its module, what it closes over, attributes of those.

Numbers, strings and the like are constants of a specialization and count in its key, and so does which function is
called. A tensor is an argument that the call fills in itself. All are read at each call, so that a call never sees a
value of before.

Found in the bytecode of the function and of the Python functions it calls, which are inlined. Not found is what code
reaches in other ways: `getattr`, `globals()`.

Not here: what a code object reads (``bytecode.py``);
how the values get into the key (``specialization.py``) and to C (``compiled_dispatch.py``).
"""

from __future__ import annotations

import array
import collections
import contextlib
import copy
import ctypes
import dataclasses
import enum
import functools
import inspect
import io
import re
import sys
import types
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from ... import exc
from ..stable_key import Identity
from .bytecode import Step
from .bytecode import names_in
from .bytecode import reads_in

__all__ = [
    "MISSING", "Place", "are_same", "constants_read", "frozen", "holds_tensors", "in_class", "is_constant",
    "is_foreign", "is_table", "of_function", "places_of", "read_part", "restored",
]  # fmt: skip

#: What is read where there is nothing: a name that was deleted, a variable that is not assigned yet.
MISSING = object()

#: Packages whose functions are not inlined, and whose names are no state of a program.
_FOREIGN = frozenset({"torch", "helion", "triton", "numpy", "cutlass"}) | sys.stdlib_module_names

_CONSTANTS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, enum.Enum)
_FUNCTIONS = (types.FunctionType, types.MethodType)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a value from outside is found.

    Attributes:
        holder: a dict, a cell, or a function without parameters that gives the value.
        key: the item of a dict; else "".
        name: what the kernel function calls it.
        called: whether it is a function that is inlined: it counts by its code and all that goes with that.
    """

    holder: Any
    key: str
    name: str
    called: bool = False

    def element(self, extract: Callable[[Any], Any]) -> Any:
        """What the value contributes to a key; see `frozen`."""
        return of_function(self.read()) if self.called else frozen(self.read(), extract)

    def read(self) -> Any:
        """The value now, or ``MISSING``."""
        try:
            if type(self.holder) is dict:
                return self.holder.get(self.key, MISSING)
            return self.holder.cell_contents if isinstance(self.holder, types.CellType) else self.holder()
        except (AttributeError, LookupError, TypeError, ValueError):
            return MISSING

    def write(self, value: Any) -> None:
        """Put a value there."""
        if type(self.holder) is dict:
            self.holder[self.key] = value
        elif isinstance(self.holder, types.CellType):
            self.holder.cell_contents = value
        elif getattr(self.holder, "func", None) is read_part:
            owner, is_attribute, step = self.holder.args
            if is_attribute:
                setattr(owner.read(), step, value)
            else:
                owner.read()[step] = value

    def is_same(self, other: Place) -> bool:
        if self.called is not other.called:
            return False
        if not isinstance(self.holder, (dict, types.CellType)):
            # A function made for it: the same name may have held something that is read in another way.
            made = getattr(self.holder, "func", None) is getattr(other.holder, "func", None)
            return made and type(self.holder) is type(other.holder) and self.name == other.name
        return self.holder is other.holder and self.key == other.key


def are_same(places: Sequence[Place], others: Sequence[Place]) -> bool:
    return len(places) == len(others) and all(map(Place.is_same, places, others))


def places_of(fn: types.FunctionType) -> tuple[list[Place], list[Place]]:
    """The places that a function reads, its helpers' included: of tensors, and of values that are constants.

    A list or dict that holds a tensor is one of the first kind, and a function that is called of the second.
    """
    return _by_kind(_read_by(fn, {id(fn)}))


def constants_read(place: Place) -> list[Place]:
    """The places of constants that calling what is at a place reads, itself and its own attributes among them."""
    return _by_kind(_followed(place, (), set()))[1]


def in_class(cls: type, name: str) -> Any:
    """What a program's class, or one that it derives from, holds by a name: of a property or the like its function."""
    for base in cls.__mro__:
        if name in vars(base):
            value = vars(base)[name]
            value = getattr(value, "__func__", None) or getattr(value, "fget", None) or getattr(value, "func", value)
            return MISSING if is_foreign(base.__module__) else value
    return MISSING


def _by_kind(places: Iterator[Place]) -> tuple[list[Place], list[Place]]:
    tensors: list[Place] = []
    constants: list[Place] = []
    for place in places:
        value = place.read()
        if _is_used_up(value):
            raise _used_up(place)
        if place.called:
            kind = constants
        elif is_constant(value):
            kind = constants
            if _has_no_order(value):
                place = Place(functools.partial(_comparable, place), "", place.name)
        elif holds_tensors(value):
            kind = tensors
        elif isinstance(value, list):  # of objects, of which code may ask how many there are (a dict may be a cache)
            kind, place = constants, Place(functools.partial(_length, place), "", place.name)
        else:
            continue
        if not any(place.is_same(other) for other in kind):
            kind.append(place)
    return tensors, constants


@contextlib.contextmanager
def restored(places: Sequence[Place]) -> Iterator[list[str]]:
    """Takes out again what a trace left behind in the places: a cache that host code fills would serve it to calls.

    Yields:
        A list that has the names of those places afterwards.
    """
    before = [(place, place.read()) for place in map(_uncompared, places)]
    contents = [copy.copy(value) if isinstance(value, (list, dict)) else value for _, value in before]
    left: list[str] = []
    try:
        yield left
    finally:
        for (place, value), content in zip(before, contents):
            if not _is_of_a_trace(place.read()):
                continue
            left.append(place.name)
            if isinstance(value, list):
                value[:] = content
            elif isinstance(value, dict):
                value.clear()
                value.update(content)
            if place.read() is not value:
                place.write(value)


def _is_of_a_trace(value: Any) -> bool:
    if isinstance(value, (list, tuple, dict)):
        return any(map(_is_of_a_trace, value.values() if isinstance(value, dict) else value))
    return isinstance(value, (FakeTensor, torch.SymInt, torch.SymFloat, torch.SymBool))


def frozen(value: Any, extract: Callable[[Any], Any]) -> Any:
    """A hashable that tells a constant from all others; of what is none, what `extract` gives."""
    if value is MISSING:
        return ("missing",)
    if isinstance(value, (tuple, list)):
        return (type(value), *[frozen(item, extract) for item in value])
    if isinstance(value, dict):
        return (type(value), *[(frozen(k, extract), frozen(item, extract)) for k, item in value.items()])
    if _has_no_order(value):
        return frozen(_ordered(value), extract)
    if isinstance(value, (float, complex)):
        return (type(value), repr(value))  # 0.0 and -0.0 differ, a NaN equals itself
    if isinstance(value, enum.Enum):
        return of_member(value, extract)
    if isinstance(value, _CONSTANTS):
        return (type(value), value)
    return extract(value)


def of_member(value: enum.Enum, extract: Callable[[Any], Any]) -> Any:
    """As `frozen`: which member, and what a program may change of it: a list that is its value, what is set on it."""
    own = [(name, frozen(item, extract)) for name, item in vars(value).items() if name not in _OF_ENUM]
    return (type(value), value, *own)


_OF_ENUM = frozenset({"_name_", "__objclass__", "_sort_order_"})


# -- where it is found ------------------------------------------------------------------------------------------------


def _read_by(fn: types.FunctionType, seen: set[int], owner: Place | None = None) -> Iterator[Place]:
    """The places that a function reads; `owner`: where its first argument is found, if it is a method."""
    cells = dict(zip(fn.__code__.co_freevars, fn.__closure__ or ()))
    if not cells and owner is None:
        named = fn.__globals__.keys() & names_in(fn.__code__)
        if not any(_counts(name, fn.__globals__[name]) for name in named):
            return  # as most kernels: reading the bytecode would be half of a first call from a bundle
    own = fn.__code__.co_varnames[0] if owner is not None and fn.__code__.co_argcount else ""
    for name, steps, kind in reads_in(fn.__code__, frozenset(cells), own):
        if kind == "self":
            assert owner is not None
            if steps:
                yield from _followed(owner, steps, seen)
            continue
        place = Place(fn.__globals__, name, name) if kind == "global" else Place(cells[name], "", name)
        yield from _followed(place, steps, seen)


def _counts(name: str, value: Any) -> bool:
    """Whether a global may be, hold or lead to what a program sets: not a library's module, or function by its name."""
    if isinstance(value, types.ModuleType):
        return not is_foreign(value.__name__)
    return not (isinstance(value, types.FunctionType) and is_foreign(value.__module__) and value.__name__ == name)


def _followed(place: Place, steps: tuple[Step, ...], seen: set[int]) -> Iterator[Place]:
    """The place of a value, or those of what is read of it, or those that a function reads."""
    value = place.read()
    if _is_used_up(value):
        yield place
        return
    if value is MISSING or isinstance(value, torch.Tensor) or is_constant(value) or holds_tensors(value):
        # Of a dict of numbers only the item that is read: a step counter beside it would be a compile for each step.
        if isinstance(value, (dict, list, *_SEQUENCES, *_MAPPINGS)) and steps and not steps[0][0]:
            yield from _followed(_inner(place, *steps[0]), steps[1:], seen)
        else:
            yield place
            if isinstance(value, enum.Enum) and steps and in_class(type(value), str(steps[0][1])) is not MISSING:
                yield from _followed(_inner(place, *steps[0]), steps[1:], seen)  # a method or property of the program's
        return
    if isinstance(value, (list, tuple, dict)) and (not steps or _is_builtin_method(value, steps[0])):
        yield from _contents(place, value, seen)
        return
    if isinstance(value, functools.partial):
        yield from _followed(_inner(place, True, "func"), (), seen)
    if _is_opaque(value):
        yield dataclasses.replace(place, called=True)
        if isinstance(value, torch.nn.Module):
            yield Place(functools.partial(_constants_of, place), "", place.name)
    called = _function_of(value)
    if (called is not None and not is_foreign(called.__module__)) or _is_choice(place, value):
        yield _called(place, value)
    if called is not None and id(called) not in seen and not is_foreign(called.__module__):
        seen.add(id(called))
        of_method = isinstance(value, types.MethodType)
        owner = Place(functools.partial(_owner, place), "", place.name) if of_method else None
        yield from _read_by(called, seen, owner if of_method or isinstance(value, _FUNCTIONS) else place)
    if not steps or (isinstance(value, _FUNCTIONS) and steps[0][1] not in value.__dict__):
        if not isinstance(value, (*_FUNCTIONS, types.BuiltinFunctionType, types.ModuleType)):
            yield from _as_a_whole(place, value)
        return
    if isinstance(value, types.ModuleType):
        if is_foreign(value.__name__) or not steps[0][0]:
            return
        inner = Place(vars(value), str(steps[0][1]), f"{place.name}.{steps[0][1]}")
    elif is_foreign(type(value).__module__) and not isinstance(value, (type, dict, list, tuple)):
        # A library's object is not looked into, but for what is set on it: `module.training`.
        if not steps[0][0] or steps[0][1] not in getattr(value, "__dict__", {}):
            return
        inner = _inner(place, *steps[0])
    else:
        inner = _inner(place, *steps[0])
    yield from _followed(inner, steps[1:], seen)


def _as_a_whole(place: Place, value: Any) -> Iterator[Place]:
    """The place of an object that code asks for its type, or hands to functions that read it."""
    if isinstance(value, type):
        if not is_foreign(value.__module__):
            yield dataclasses.replace(place, called=True)
    elif not (callable(value) and is_foreign(type(value).__module__)):
        yield Place(functools.partial(_state, place), "", place.name)


def _state(place: Place) -> Any:
    """The type of an object, and the constants that are set on it."""
    value = place.read()
    if value is MISSING:
        return MISSING
    of_library = is_foreign(type(value).__module__)
    return (type(value).__qualname__, id(type(value)), *(() if of_library else _constants_of(place)))


def _contents(place: Place, value: Any, seen: set[int]) -> Iterator[Place]:
    """The places of the functions in a container that is read as a whole, or by computed keys, and of its keys."""
    if not _holds_functions(value):  # a dict may be a cache
        yield place if isinstance(value, list) else Place(functools.partial(_state, place), "", place.name)
        return
    yield Place(functools.partial(_keys, place), "", place.name)
    for key in tuple(value) if isinstance(value, dict) else range(len(value)):
        inner = _inner(place, False, key)
        if not holds_tensors(inner.read()):
            yield from _followed(inner, (), seen)


def _holds_functions(value: Any) -> bool:
    if isinstance(value, (list, tuple, dict)):
        return any(map(_holds_functions, value.values() if isinstance(value, dict) else value))
    return isinstance(value, types.BuiltinFunctionType) or _function_of(value) is not None


def _is_builtin_method(container: Any, step: Step) -> bool:
    """Whether what is read of a list, tuple or dict is a method of every one, such as `items`."""
    return step[0] and any(hasattr(kind, step[1]) for kind in (list, tuple, dict) if isinstance(container, kind))


def _keys(place: Place) -> Any:
    """How a container is laid out."""
    value = place.read()
    return tuple(value) if isinstance(value, dict) else _length(place)


def _inner(place: Place, is_attribute: bool, step: Any) -> Place:
    name = f"{place.name}.{step}" if is_attribute else f"{place.name}[{step!r}]"
    return Place(functools.partial(read_part, place, is_attribute, step), "", name)


def _function_of(value: Any) -> types.FunctionType | None:
    """The Python function that runs when a value is called."""
    if isinstance(value, types.MethodType):
        value = value.__func__
    elif not isinstance(value, (types.FunctionType, type)):
        # A kernel that is called; an object of a class with `__call__`.
        name = "forward" if isinstance(value, torch.nn.Module) else "__call__"
        own = vars(value).get(name) if name == "forward" else getattr(value, "fn", None)
        value = inspect.getattr_static(type(value), name, None) if own is None else own
    return value if isinstance(value, types.FunctionType) else None


def _is_choice(place: Place, value: Any) -> bool:
    """Whether it is a library's function by another name, `activation = torch.relu`, as what a program chooses has."""
    name = getattr(value, "__name__", None)
    is_function = isinstance(value, (types.FunctionType, types.BuiltinFunctionType)) and is_foreign(value.__module__)
    return is_function and isinstance(name, str) and name != re.split(r"\W+", place.name.rstrip("]'\""))[-1]


def _is_opaque(value: Any) -> bool:
    """Whether it is an object that is called, such as `nn.ReLU()`, whose function is none of the program's."""
    if not callable(value) or isinstance(value, (type, types.BuiltinFunctionType, *_FUNCTIONS)):
        return False
    called = _function_of(value)
    return called is None or is_foreign(called.__module__)


def _constants_of(place: Place) -> Any:
    """The constants among the attributes of a module of PyTorch's: `negative_slope`."""
    own = getattr(place.read(), "__dict__", {})
    return tuple([(name, own[name]) for name in sorted(own) if name[0] != "_" and is_constant(own[name])])


def _called(place: Place, value: Any) -> Place:
    """The place of the function that runs when what is there is called."""
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType)):
        return dataclasses.replace(place, called=True)
    return Place(functools.partial(_function_at, place), "", place.name, called=True)


def _function_at(place: Place) -> Any:
    return _function_of(place.read())


def of_function(value: Any) -> Any:
    """A hashable that tells a function that is called from all that may do something else.

    One that closes over nothing counts by its code, so that running the same definition again changes nothing.
    """
    if not isinstance(value, types.FunctionType):
        return Identity(value)
    defaults = tuple([_of_default(item) for item in value.__defaults__ or ()])
    keywords = tuple([(name, _of_default(item)) for name, item in (value.__kwdefaults__ or {}).items()])
    closed = Identity(value) if value.__closure__ else Identity(value.__globals__)
    return (types.FunctionType, closed, _Code(value.__code__), defaults, keywords)


def _of_default(value: Any) -> Any:
    # A list that the function fills is no constant.
    return (
        frozen(value, Identity) if is_constant(value) and not isinstance(value, (list, dict, set)) else Identity(value)
    )


class _Code:
    """A code object in a key, which caches on disk know by its name: they compare sources by other means."""

    def __init__(self, code: types.CodeType) -> None:
        self.code = code

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Code) and self.code == other.code

    def __hash__(self) -> int:
        return hash(self.code)

    def __repr__(self) -> str:
        return self.code.co_name


def _owner(place: Place) -> Any:
    return place.read().__self__


def read_part(place: Place, is_attribute: bool, step: Any) -> Any:
    """The attribute or item of what is at a place, or ``MISSING``."""
    try:
        return getattr(place.read(), step) if is_attribute else place.read()[step]
    except (AttributeError, LookupError, TypeError):
        return MISSING  # the code may ask whether it is there


def _is_used_up(value: Any) -> bool:
    """Whether what reads it finds less in it the next time: an iterator, a queue, a file that is read."""
    if isinstance(value, io.IOBase):
        return not value.closed and value.readable() and not value.writable()
    if isinstance(value, functools.partial):
        return any(map(_is_used_up, (value.func, *value.args, *value.keywords.values())))
    if isinstance(value, (types.BuiltinMethodType, types.MethodWrapperType)):
        return _is_used_up(value.__self__)
    return hasattr(type(value), "__next__") or type(value).__module__ in ("queue", "_queue", "multiprocessing.queues")


def _used_up(place: Place) -> exc.HostSideEffect:
    """The error for it: a trace would take something out, and calls get what the trace has got."""
    return exc.HostSideEffect(
        f"host code takes from {place.name!r} ({type(place.read()).__name__}), which is outside the kernel function: "
        "what is taken once is gone, and a trace takes too",
        fix="take out of it where the kernel is called, and pass that as an argument: `kernel(x, next(iterator))`.",
    )


def is_foreign(module: str | None) -> bool:
    """Whether a module is of a package whose functions are known by name, and not of the program."""
    return module is None or (module.partition(".")[0] in _FOREIGN and module != "__main__")


def _is_array(value: Any) -> bool:
    """Whether it is an array or a number of NumPy's that is small enough to be compared at each call."""
    of_numpy = type(value).__module__ == "numpy" and hasattr(value, "tobytes") and not isinstance(value, float)
    return of_numpy and not value.dtype.hasobject and value.size <= 4096


#: Arrays of numbers, sequences and mappings of the standard library that code may change.
_ARRAYS = (array.array, bytearray, memoryview, ctypes._SimpleCData, ctypes.Array, ctypes.Structure)
_SEQUENCES = (collections.deque, collections.UserList)
_MAPPINGS = (collections.ChainMap, collections.UserDict, types.MappingProxyType)


def _has_no_order(value: Any) -> bool:
    """Whether it is or holds a dict, a set or an array, which compiled calls do not compare."""
    if isinstance(value, (tuple, list)):
        return any(map(_has_no_order, value))
    return isinstance(value, (dict, set, frozenset, *_ARRAYS, *_SEQUENCES, *_MAPPINGS)) or _is_array(value)


def _comparable(place: Place) -> Any:
    return _ordered(place.read())


def _length(place: Place) -> Any:
    value = place.read()
    return len(value) if isinstance(value, (list, tuple)) else MISSING


def _uncompared(place: Place) -> Place:
    """Where the value itself is, of a place that gives what it is compared by."""
    holder = place.holder
    found: Place = holder.args[0] if getattr(holder, "func", None) in (_comparable, _length, _keys) else place
    return found


def _ordered(value: Any) -> Any:
    """A constant with dicts, sets and arrays as tuples of constants."""
    if isinstance(value, (set, frozenset)):
        return (type(value).__name__, *sorted(map(_ordered, value), key=lambda item: (type(item).__name__, repr(item))))
    if _is_array(value):
        return (type(value).__name__, str(value.dtype), value.shape, value.tobytes())
    if isinstance(value, _ARRAYS):
        return (type(value).__name__, memoryview(value).format, memoryview(value).shape, memoryview(value).tobytes())
    if isinstance(value, (tuple, list, *_SEQUENCES)):
        return (type(value).__name__, *map(_ordered, value))
    if isinstance(value, (dict, *_MAPPINGS)):
        return (type(value).__name__, *[(_ordered(key), _ordered(item)) for key, item in value.items()])
    return value


def is_table(value: Any) -> bool:
    """Whether it is a container of constants, so that every call compares it."""
    return isinstance(value, (tuple, list, dict, set, frozenset)) and is_constant(value)


def is_constant(value: Any) -> bool:
    if _is_array(value):
        return True
    if isinstance(value, _ARRAYS):
        return memoryview(value).nbytes <= 32768
    if isinstance(value, (tuple, list, set, frozenset, *_SEQUENCES)):
        return all(map(is_constant, value))
    if isinstance(value, (dict, *_MAPPINGS)):
        return all(map(is_constant, value)) and all(map(is_constant, value.values()))
    return isinstance(value, _CONSTANTS)


def holds_tensors(value: Any) -> bool:
    """Whether it is a tensor, or a container of tensors and constants."""
    if isinstance(value, torch.Tensor):
        return True
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return any(map(holds_tensors, items)) and all(is_constant(item) or holds_tensors(item) for item in items)
