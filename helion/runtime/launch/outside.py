"""What a kernel function reads from outside itself: globals of its module, what it closes over, attributes of those.

Numbers, strings and the like are constants of a specialization and count in its key, and so does which function is
called. A tensor is an argument that the call fills in itself. All are read at each call, so that a call never sees a
value of before.

Found in the bytecode of the function and of the Python functions it calls, which are inlined. Not found is what code
reaches in other ways: `getattr`, items with computed keys, `globals()`.

Not here: how the values get into the key (``specialization.py``) and to C (``compiled_dispatch.py``).
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import dis
import enum
import functools
import inspect
import re
import sys
import types
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from ..stable_key import Identity

__all__ = [
    "MISSING", "Place", "are_same", "constants_of_call", "frozen", "holds_tensors", "is_foreign", "is_table",
    "places_of", "restored",
]  # fmt: skip

#: What is read where there is nothing: a name that was deleted, a variable that is not assigned yet.
MISSING = object()

#: Packages whose functions are not inlined, and whose names are no state of a program.
_FOREIGN = frozenset({"torch", "helion", "triton", "numpy", "cutlass"}) | sys.stdlib_module_names

_CONSTANTS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, enum.Enum)
_FUNCTIONS = (types.FunctionType, types.MethodType)
#: Instructions that put a name's value on the stack, and what kind of name. From Python 3.13 on one may have two names,
#: the second of which is on top.
_READS = {
    "LOAD_GLOBAL": "global",
    "LOAD_NAME": "global",
    "LOAD_DEREF": "free",
    "LOAD_CLASSDEREF": "free",
    "LOAD_FROM_DICT_OR_DEREF": "free",
    "LOAD_FAST": "self",
    "LOAD_FAST_BORROW": "self",
    "LOAD_FAST_CHECK": "self",
    "LOAD_FAST_LOAD_FAST": "self",
    "LOAD_FAST_BORROW_LOAD_FAST_BORROW": "self",
    "STORE_FAST_LOAD_FAST": "self",
}
#: Instructions that put a constant there; LOAD_SMALL_INT is Python 3.14's.
_CONSTANTS_LOADED = frozenset({"LOAD_CONST", "LOAD_SMALL_INT", "LOAD_CONST_IMMORTAL"})
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_NOTHING = frozenset({"CACHE", "EXTENDED_ARG", "PUSH_NULL"})


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
        return _of_function(self.read()) if self.called else frozen(self.read(), extract)

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
        elif getattr(self.holder, "func", None) is _step:
            owner, is_attribute, step = self.holder.args
            if is_attribute:
                setattr(owner.read(), step, value)
            else:
                owner.read()[step] = value

    def is_same(self, other: Place) -> bool:
        if self.called is not other.called:
            return False
        if not isinstance(self.holder, (dict, types.CellType)):
            return self.name == other.name  # a function made for it
        return self.holder is other.holder and self.key == other.key


def are_same(places: Sequence[Place], others: Sequence[Place]) -> bool:
    return len(places) == len(others) and all(map(Place.is_same, places, others))


def places_of(fn: types.FunctionType) -> tuple[list[Place], list[Place]]:
    """The places that a function reads, its helpers' included: of tensors, and of values that are constants.

    A list or dict that holds a tensor is one of the first kind, and a function that is called of the second.
    """
    return _by_kind(_read_by(fn, {id(fn)}))


def constants_of_call(value: Any) -> list[Place]:
    """The places of constants that calling a method, or an object of a class with `__call__`, reads: those of its own
    attributes among them."""
    is_method = isinstance(value, types.MethodType)
    fn = value.__func__ if is_method else inspect.getattr_static(type(value), "__call__", None)
    if not isinstance(fn, types.FunctionType) or is_foreign(fn.__module__):
        return []
    holder = value.__self__ if is_method else value
    _, constants = _by_kind(_read_by(fn, {id(fn)}, Place(lambda: holder, "", "self")))
    return constants


def _by_kind(places: Iterator[Place]) -> tuple[list[Place], list[Place]]:
    tensors: list[Place] = []
    constants: list[Place] = []
    for place in places:
        value = place.read()
        if place.called:
            kind = constants
        elif _is_constant(value):
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
    if isinstance(value, _CONSTANTS):
        return (type(value), value)
    return extract(value)


# -- reading bytecode -------------------------------------------------------------------------------------------------

#: What is read of a value: an attribute by name (True), or an item.
_Step = tuple[bool, Any]
#: A name, what is read of it, and whether it is a global, a free variable or the parameter "self".
_Read = tuple[str, tuple[_Step, ...], str]


def _read_by(fn: types.FunctionType, seen: set[int], owner: Place | None = None) -> Iterator[Place]:
    """The places that a function reads; `owner`: where its first argument is found, if it is a method."""
    cells = dict(zip(fn.__code__.co_freevars, fn.__closure__ or ()))
    if not cells and owner is None and not any(_counts(fn.__globals__[name]) for name in _names_in(fn)):
        return  # as most kernels: reading the bytecode would be half of a first call from a bundle
    own = fn.__code__.co_varnames[0] if owner is not None and fn.__code__.co_argcount else ""
    for name, steps, kind in _reads_in(fn.__code__, frozenset(cells), own):
        if kind == "self":
            assert owner is not None
            if steps:
                yield from _followed(owner, steps, seen)
            continue
        place = Place(fn.__globals__, name, name) if kind == "global" else Place(cells[name], "", name)
        yield from _followed(place, steps, seen)


def _names_in(fn: types.FunctionType) -> set[str]:
    """The globals that there are among the names in a function's code, attributes' names included."""
    names, codes = set(), [fn.__code__]
    for code in codes:
        names |= fn.__globals__.keys() & code.co_names
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return names


def _counts(value: Any) -> bool:
    """Whether a global may be, hold or lead to what a program sets: not a library's module or function."""
    if isinstance(value, types.ModuleType):
        return not is_foreign(value.__name__)
    return not (isinstance(value, types.FunctionType) and is_foreign(value.__module__))


@functools.lru_cache(4096)
def _reads_in(code: types.CodeType, free: frozenset[str], own: str) -> tuple[_Read, ...]:
    """What a code object reads from outside, and of the parameter `own`."""
    found: dict[_Read, None] = {}
    instructions = [i for i in dis.get_instructions(code) if i.opname not in _NOTHING]
    for i, instruction in enumerate(instructions):
        name, kind = instruction.argval, _READS.get(instruction.opname)
        if isinstance(name, tuple):
            name = name[-1]
        if kind == "free" and name == own:
            kind = "self"  # which an inner function closes over
        if kind is None or (kind == "free" and name not in free) or (kind == "self" and name != own):
            continue
        found[name, _steps(instructions[i + 1 :]), kind] = None
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = frozenset(constant.co_freevars)
            found.update(dict.fromkeys(_reads_in(constant, free & inner, own if own in inner else "")))
    return tuple(found)


def _steps(instructions: Sequence[dis.Instruction]) -> tuple[_Step, ...]:
    """The attributes and constant items that are read of the value on the stack."""
    steps: list[_Step] = []
    i = 0
    while i < len(instructions):
        instruction = instructions[i]
        if instruction.opname in _ATTRIBUTES:
            steps.append((True, str(instruction.argval)))
            i += 1
        elif instruction.opname in _CONSTANTS_LOADED and i + 1 < len(instructions) and _takes_item(instructions[i + 1]):
            if not isinstance(instruction.argval, (int, str)):
                break
            steps.append((False, instruction.argval))
            i += 2
        else:
            break
    return tuple(steps)


def _takes_item(instruction: dis.Instruction) -> bool:
    return instruction.opname == "BINARY_SUBSCR" or (
        instruction.opname == "BINARY_OP" and instruction.argrepr == "[]"  # from Python 3.14 on
    )


def _followed(place: Place, steps: tuple[_Step, ...], seen: set[int]) -> Iterator[Place]:
    """The place of a value, or those of what is read of it, or those that a function reads."""
    value = place.read()
    if value is MISSING or isinstance(value, torch.Tensor) or _is_constant(value) or holds_tensors(value):
        # Of a dict of numbers only the item that is read: a step counter beside it would be a compile for each step.
        if isinstance(value, (dict, list)) and steps and not steps[0][0]:
            yield from _followed(_inner(place, *steps[0]), steps[1:], seen)
        else:
            yield place
        return
    called = _function_of(value)
    if (called is not None and not is_foreign(called.__module__)) or _is_choice(place, value):
        yield _called(place, value)
    if called is not None and id(called) not in seen and not is_foreign(called.__module__):
        seen.add(id(called))
        of_method = isinstance(value, types.MethodType)
        owner = Place(functools.partial(_owner, place), "", place.name) if of_method else None
        yield from _read_by(called, seen, owner if of_method or isinstance(value, _FUNCTIONS) else place)
    if not steps or isinstance(value, _FUNCTIONS):
        if isinstance(value, list):
            yield place
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


def _inner(place: Place, is_attribute: bool, step: Any) -> Place:
    name = f"{place.name}.{step}" if is_attribute else f"{place.name}[{step!r}]"
    return Place(functools.partial(_step, place, is_attribute, step), "", name)


def _function_of(value: Any) -> types.FunctionType | None:
    """The Python function that runs when a value is called."""
    if isinstance(value, types.MethodType):
        value = value.__func__
    elif not isinstance(value, (types.FunctionType, type)):
        # A kernel that is called; an object of a class with `__call__`.
        value = getattr(value, "fn", None) or inspect.getattr_static(type(value), "__call__", None)
    return value if isinstance(value, types.FunctionType) else None


def _is_choice(place: Place, value: Any) -> bool:
    """Whether it is a library's function by another name, `activation = torch.relu`, as what a program chooses has."""
    name = getattr(value, "__name__", None)
    is_function = isinstance(value, (types.FunctionType, types.BuiltinFunctionType)) and is_foreign(value.__module__)
    return is_function and isinstance(name, str) and name != re.split(r"\W+", place.name.rstrip("]'\""))[-1]


def _called(place: Place, value: Any) -> Place:
    """The place of the function that runs when what is there is called."""
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType)):
        return dataclasses.replace(place, called=True)
    return Place(functools.partial(_function_at, place), "", place.name, called=True)


def _function_at(place: Place) -> Any:
    return _function_of(place.read())


def _of_function(value: Any) -> Any:
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
        frozen(value, Identity) if _is_constant(value) and not isinstance(value, (list, dict, set)) else Identity(value)
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


def _step(place: Place, is_attribute: bool, step: Any) -> Any:
    try:
        return getattr(place.read(), step) if is_attribute else place.read()[step]
    except (AttributeError, LookupError, TypeError):
        return MISSING  # the code may ask whether it is there


def is_foreign(module: str | None) -> bool:
    """Whether a module is of a package whose functions are known by name, and not of the program."""
    return module is None or (module.partition(".")[0] in _FOREIGN and module != "__main__")


def _is_array(value: Any) -> bool:
    """Whether it is an array or a number of NumPy's that is small enough to be compared at each call."""
    of_numpy = type(value).__module__ == "numpy" and hasattr(value, "tobytes") and not isinstance(value, float)
    return of_numpy and not value.dtype.hasobject and value.size <= 4096


def _has_no_order(value: Any) -> bool:
    """Whether it is or holds a dict, a set or an array, which compiled calls do not compare."""
    if isinstance(value, (tuple, list)):
        return any(map(_has_no_order, value))
    return isinstance(value, (dict, set, frozenset)) or _is_array(value)


def _comparable(place: Place) -> Any:
    return _ordered(place.read())


def _length(place: Place) -> int:
    return len(place.read())


def _uncompared(place: Place) -> Place:
    """Where the value itself is, of a place that gives what it is compared by."""
    found: Place = place.holder.args[0] if getattr(place.holder, "func", None) in (_comparable, _length) else place
    return found


def _ordered(value: Any) -> Any:
    """A constant with dicts, sets and arrays as tuples of constants."""
    if isinstance(value, (set, frozenset)):
        return (type(value).__name__, *sorted(map(_ordered, value), key=lambda item: (type(item).__name__, repr(item))))
    if _is_array(value):
        return (type(value).__name__, str(value.dtype), value.shape, value.tobytes())
    if isinstance(value, (tuple, list)):
        return (type(value).__name__, *map(_ordered, value))
    if isinstance(value, dict):
        return (type(value).__name__, *[(_ordered(key), _ordered(item)) for key, item in value.items()])
    return value


def is_table(value: Any) -> bool:
    """Whether it is a container of constants, so that every call compares it."""
    return isinstance(value, (tuple, list, dict, set, frozenset)) and _is_constant(value)


def _is_constant(value: Any) -> bool:
    if _is_array(value):
        return True
    if isinstance(value, (tuple, list, set, frozenset)):
        return all(map(_is_constant, value))
    if isinstance(value, dict):
        return all(map(_is_constant, value)) and all(map(_is_constant, value.values()))
    return isinstance(value, _CONSTANTS)


def holds_tensors(value: Any) -> bool:
    """Whether it is a tensor, or a container of tensors and constants."""
    if isinstance(value, torch.Tensor):
        return True
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return any(map(holds_tensors, items)) and all(_is_constant(item) or holds_tensors(item) for item in items)
