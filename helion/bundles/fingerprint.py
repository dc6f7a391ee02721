"""Which source a kernel was made of: a hash of a function and of all that it refers to.

No plan is taken from a file for a kernel whose source, helpers, captured values, settings or given Configs are others
than when it was made. What other packages define (torch, helion itself, the standard library) counts by name; of what a
program defines, all that its code can reach is in the hash, and what cannot be read so (`Unreadable`) is no part of a
kernel in a file. (Once what was not understood counted by the name of its type: a set, or a method's code, could change
unseen.)
"""

from __future__ import annotations

import enum
import functools
import hashlib
import inspect
import logging
import sys
import textwrap
import types
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import torch

from .._annotations import annotation_text
from .._annotations import annotations_of
from ..config import Config
from ..frontend.source import text_of
from ..runtime.launch.bytecode import names_in

__all__ = ["CODE_SETTINGS", "Unreadable", "exact_fingerprint", "fingerprint", "python"]

#: The settings that change what a call computes, or what is compiled for it.
CODE_SETTINGS = (
    "backend", "index_dtype", "dot_precision", "fast_math", "static_shapes", "persistent_reserved_sms",
    "allow_warp_specialize", "debug_dtype_asserts",
)  # fmt: skip

_PACKAGES = frozenset({"torch", "helion", "triton", "cutlass"})
_FOREIGN = frozenset({*_PACKAGES, "numpy", *sys.stdlib_module_names})

#: Values that are all in their `repr`.
_PLAIN = (
    bool, int, float, complex, str, bytes, type(None), type(...), range, slice, torch.dtype, torch.device, torch.layout,
    torch.memory_format, torch.finfo, torch.iinfo,
)  # fmt: skip

#: Objects of others' that do not change what is computed, or are what their text says.
_NAMED = (logging.Logger, torch._ops.OpOverload, torch._ops.OpOverloadPacket, torch._ops._OpNamespace)

_MOST_BYTES = 1 << 22


class Unreadable(Exception):
    """The kernel refers to something whose content cannot be compared; the message says to what."""


def python() -> str:
    """The interpreter's version as far as bytecode depends on it."""
    return f"{sys.implementation.name}-{sys.version_info.major}.{sys.version_info.minor}"


def fingerprint(kernel: Any, *, text: bool = False) -> str:
    """A hash of the kernel, hexadecimal.

    Args:
        kernel: a `Kernel`.
        text: of the source's text, which is the same under every Python; else of its bytecode, which takes less time.

    Raises:
        OSError: `text`, and there is no source.
        Unreadable: it refers to what cannot be compared.
    """
    return _hash(kernel, _bodies_by_text if text else _bodies_by_code, CODE_SETTINGS)


def exact_fingerprint(kernel: Any) -> str:
    """A hash of text and bytecode both, and of all settings: what the cache on disk goes by.

    Either can be the same where the other is not: bytecode has no `assert` under -O and no annotation of a local
    variable, and a file can be edited between its import and the first call.

    Raises:
        OSError: there is no source.
        TypeError: likewise.
        Unreadable: it refers to what cannot be compared.
    """
    names = [name for name, _ in kernel.settings.items()]
    return _hash(kernel, lambda fn: (_bodies_by_code(fn), text_of(fn)), names)


def _bodies_by_code(fn: types.FunctionType) -> Any:
    return _code(fn.__code__)


def _bodies_by_text(fn: types.FunctionType) -> Any:
    return textwrap.dedent(inspect.getsource(fn))


def _hash(kernel: Any, body: Callable[[types.FunctionType], Any], names: Sequence[str]) -> str:
    walk = _Walk(body)
    settings = [(name, walk.value(getattr(kernel.settings, name), set())) for name in names]
    key = kernel.specializer.key_fn
    found = (walk.function(kernel.fn), settings, [_config(config) for config in kernel.configs], walk.value(key, set()))
    return hashlib.sha256(repr(found).encode()).hexdigest()


def _config(config: Config) -> list[tuple[str, str]]:
    return sorted((str(key), repr(value)) for key, value in config.items())


class _Walk:
    def __init__(self, body: Callable[[types.FunctionType], Any]) -> None:
        self.body = body
        self.seen: dict[int, Any] = {}  # what was seen, kept so that no other has its id
        self.read: set[tuple[str, str]] = set()  # (module, name)

    def function(self, fn: types.FunctionType) -> Any:
        if id(fn) in self.seen:
            return ("again", fn.__qualname__)
        self.seen[id(fn)] = fn
        names = names_in(fn.__code__)
        cells = zip(fn.__code__.co_freevars, fn.__closure__ or ())
        captured = [(name, self.value(_content(cell), names)) for name, cell in cells]
        outside = [(name, self.value(fn.__globals__[name], names)) for name in sorted(names) if name in fn.__globals__]
        defaults = [self.value(value, names) for value in fn.__defaults__ or ()]
        keywords = [(name, self.value(value, names)) for name, value in sorted((fn.__kwdefaults__ or {}).items())]
        annotations = [(name, annotation_text(value)) for name, value in sorted(annotations_of(fn).items())]
        return ("function", fn.__qualname__, self.body(fn), captured, outside, defaults, keywords, annotations)

    def value(self, value: Any, names: set[str]) -> Any:
        """What a name stands for, where `names` are those that the code reads."""
        inner = getattr(value, "fn", value)  # a helper may be a kernel, or a @triton.jit function
        if isinstance(inner, types.FunctionType):
            return ("foreign", inner.__module__, inner.__qualname__) if _foreign(inner) else self.function(inner)
        if type(value) in _PLAIN:
            return (type(value).__name__, repr(value))
        if isinstance(value, enum.Enum):
            return ("enum", type(value).__qualname__, value.name, repr(value.value))
        if isinstance(value, torch.Tensor):
            return ("tensor", str(value.dtype), tuple(value.shape), str(value.device.type), _bytes(value))
        for kind, read in _READERS:
            if isinstance(value, kind):
                return read(self, value, names)
        return self.object(value, names)

    def items(self, value: Any, names: set[str]) -> Any:
        return (type(value).__qualname__, [self.value(item, names) for item in value])

    def unordered(self, value: Any, names: set[str]) -> Any:
        return (type(value).__qualname__, sorted(repr(self.value(item, names)) for item in value))

    def mapping(self, value: Mapping[Any, Any], names: set[str]) -> Any:
        items = [(self.value(key, names), self.value(item, names)) for key, item in value.items()]
        factory = getattr(value, "default_factory", None)
        return (type(value).__qualname__, items, None if factory is None else self.value(factory, names))

    def method(self, value: types.MethodType, names: set[str]) -> Any:
        return ("method", self.value(value.__func__, names), self.value(value.__self__, names))

    def builtin(self, value: Any, names: set[str]) -> Any:
        owner = value.__self__
        whose = None if owner is None or isinstance(owner, types.ModuleType) else self.value(owner, names)
        return ("builtin", value.__module__, value.__qualname__, whose)

    def partial(self, value: functools.partial[Any], names: set[str]) -> Any:
        return (
            "partial",
            self.value(value.func, names),
            self.items(value.args, names),
            self.mapping(value.keywords, names),
        )

    def module(self, value: types.ModuleType, names: set[str]) -> Any:
        if _foreign_name(value.__name__):
            return ("module", value.__name__)
        # Another function reads other names of a module that was seen.
        new = sorted(key for key in names if hasattr(value, key) and (value.__name__, key) not in self.read)
        self.read.update((value.__name__, key) for key in new)
        read = [(key, getattr(value, key)) for key in new]
        return ("module", value.__name__, [(key, self.value(item, names)) for key, item in read])

    def a_class(self, value: type, names: set[str]) -> Any:
        name = ("class", value.__module__, value.__qualname__)
        if _foreign_name(value.__module__) or id(value) in self.seen:
            return name
        self.seen[id(value)] = value
        bases = [self.value(base, names) for base in value.__bases__]
        inside = [(key, item) for key, item in vars(value).items() if key not in _OF_EVERY_CLASS]
        return (*name, bases, [(key, self.member(item, names)) for key, item in inside])

    def member(self, value: Any, names: set[str]) -> Any:
        if isinstance(value, (staticmethod, classmethod)):
            return (type(value).__name__, self.value(value.__func__, names))
        if isinstance(value, property):
            return ("property", [self.value(part, names) for part in (value.fget, value.fset, value.fdel)])
        if isinstance(value, _DESCRIPTORS):
            return ("descriptor", value.__name__)
        return self.value(value, names)

    def object(self, value: Any, names: set[str]) -> Any:
        """An instance of a class: its class, and all that is in it."""
        kind = type(value)
        name = ("object", kind.__module__, kind.__qualname__)
        if id(value) in self.seen:
            return name
        if isinstance(value, _NAMED):
            return (*name, str(value))
        if kind.__module__.partition(".")[0] == "numpy":
            return (*name, _of_numpy(value))
        whose = kind.__module__.partition(".")[0]
        place = (str(getattr(value, "__module__", None)), str(getattr(value, "__name__", "")))
        if whose in _PACKAGES and value is getattr(sys.modules.get(place[0]), place[1], None):
            return (*name, *place)  # a part of the package, such as an operation
        if _foreign_name(kind.__module__) and whose not in ("helion", "triton") and kind is not types.SimpleNamespace:
            raise Unreadable(f"a {kind.__module__}.{kind.__qualname__}")
        slots = [slot for base in kind.__mro__ for slot in _slots(base) if hasattr(value, slot)]
        if not hasattr(value, "__dict__") and not slots:
            raise Unreadable(f"a {kind.__module__}.{kind.__qualname__}")
        self.seen[id(value)] = value
        held = {**{slot: getattr(value, slot) for slot in slots}, **getattr(value, "__dict__", {})}
        return (*name, self.value(kind, names), [(key, self.value(item, names)) for key, item in held.items()])


#: Kind of a value -> how it is read; the first that fits.
_READERS: tuple[tuple[Any, Callable[[_Walk, Any, set[str]], Any]], ...] = (
    ((tuple, list), _Walk.items),
    ((set, frozenset), _Walk.unordered),
    ((dict, types.MappingProxyType), _Walk.mapping),
    (types.MethodType, _Walk.method),
    (types.BuiltinFunctionType, _Walk.builtin),
    (functools.partial, _Walk.partial),
    (types.ModuleType, _Walk.module),
    (type, _Walk.a_class),
)

_DESCRIPTORS = (types.MemberDescriptorType, types.GetSetDescriptorType, types.WrapperDescriptorType)
_OF_EVERY_CLASS = frozenset({"__module__", "__dict__", "__weakref__", "__doc__", "__qualname__", "__firstlineno__"})


def _slots(base: type) -> tuple[str, ...]:
    found = vars(base).get("__slots__", ())
    return (found,) if isinstance(found, str) else tuple(found)


def _of_numpy(value: Any) -> Any:
    if hasattr(value, "tobytes"):
        if value.nbytes > _MOST_BYTES or value.dtype.hasobject:
            raise Unreadable("a large array of numpy's")
        return (str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest())
    return str(value)  # a ufunc, a dtype


def _bytes(tensor: torch.Tensor) -> str:
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.layout is not torch.strided:
        raise Unreadable(f"a {type(tensor).__name__}")
    if tensor.numel() * tensor.element_size() > _MOST_BYTES:
        raise Unreadable("a large tensor")
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(flat.numpy().tobytes()).hexdigest()


def _foreign(fn: types.FunctionType) -> bool:
    return _foreign_name(fn.__module__)


def _foreign_name(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _FOREIGN


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _code(code: types.CodeType) -> Any:
    """What code does, not where it stands."""
    constants = [_constant(constant) for constant in code.co_consts]
    arguments = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    exceptions = getattr(code, "co_exceptiontable", b"").hex()
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return (code.co_code.hex(), arguments, names, exceptions, constants)


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return _code(value)
    if isinstance(value, frozenset):  # whose order is another in each process
        return ("frozenset", sorted(map(repr, value)))
    return (type(value).__name__, repr(value))
