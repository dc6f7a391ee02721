"""Which source a bundled kernel was made of: a hash of a function and of all that it refers to.

A bundle is not asked for a kernel whose source, helpers, captured values, settings or given Configs are others than
when it was made. What other packages define (torch, helion itself, the standard library) counts by name.
"""

from __future__ import annotations

import enum
import hashlib
import inspect
import sys
import textwrap
import types
from typing import Any

import torch

from ..config import Config

__all__ = ["CODE_SETTINGS", "fingerprint", "python"]

#: The settings that change what a call computes, or what is compiled for it.
CODE_SETTINGS = (
    "backend", "index_dtype", "dot_precision", "fast_math", "static_shapes", "persistent_reserved_sms",
    "allow_warp_specialize", "debug_dtype_asserts",
)  # fmt: skip

_FOREIGN = frozenset({"torch", "helion", "triton", "cutlass", *sys.stdlib_module_names})


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
    """
    walk = _Walk(text)
    settings = [(name, str(getattr(kernel.settings, name))) for name in CODE_SETTINGS]
    found = (walk.function(kernel.fn), settings, [_config(config) for config in kernel.configs])
    return hashlib.sha256(repr(found).encode()).hexdigest()


def _config(config: Config) -> list[tuple[str, str]]:
    return sorted((str(key), repr(value)) for key, value in config.items())


class _Walk:
    def __init__(self, text: bool) -> None:
        self.text = text
        self.seen: set[int] = set()

    def function(self, fn: types.FunctionType) -> Any:
        if id(fn) in self.seen:
            return ("again", fn.__qualname__)
        self.seen.add(id(fn))
        body = textwrap.dedent(inspect.getsource(fn)) if self.text else _code(fn.__code__)
        names = _names(fn.__code__)
        cells = zip(fn.__code__.co_freevars, fn.__closure__ or ())
        captured = [(name, self.value(_content(cell), names)) for name, cell in cells]
        outside = [(name, self.value(fn.__globals__[name], names)) for name in sorted(names) if name in fn.__globals__]
        defaults = [self.value(value, names) for value in fn.__defaults__ or ()]
        annotations = [(name, str(value)) for name, value in sorted(fn.__annotations__.items())]
        return ("function", fn.__qualname__, body, captured, outside, defaults, annotations)

    def value(self, value: Any, names: set[str]) -> Any:
        """What a name stands for, where `names` are those that the code reads."""
        inner = getattr(value, "fn", value)  # a helper may be a kernel, or a @triton.jit function
        if isinstance(inner, types.FunctionType) and not _is_foreign(inner.__module__):
            return self.function(inner)
        if type(value) in (tuple, list):
            return (type(value).__name__, [self.value(item, names) for item in value])
        if type(value) is dict:
            return ("dict", [(repr(key), self.value(item, names)) for key, item in value.items()])
        if isinstance(value, torch.Tensor):
            return ("tensor", str(value.dtype), tuple(value.shape), _bytes(value))
        if isinstance(value, enum.Enum):
            return ("enum", type(value).__qualname__, value.name)
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes, torch.dtype, torch.device)):
            return (type(value).__name__, repr(value))
        return self.object(value, names)

    def object(self, value: Any, names: set[str]) -> Any:
        """A module, a class or an instance: its name, and what the code may read of it if it is the user's."""
        named = value if isinstance(value, (type, types.ModuleType)) else type(value)
        name = getattr(named, "__qualname__", named.__name__)
        where = value.__name__ if isinstance(value, types.ModuleType) else named.__module__
        if _is_foreign(where) or id(value) in self.seen:
            return ("object", where, name)
        self.seen.add(id(value))
        read = [(key, getattr(value, key)) for key in sorted(names) if hasattr(value, key)]
        return ("object", where, name, [(key, self.value(item, names)) for key, item in read])


def _bytes(tensor: torch.Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(bytes(flat.tolist())).hexdigest()


def _is_foreign(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _FOREIGN


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _names(code: types.CodeType) -> set[str]:
    """The globals and attributes that code reads, nested functions included."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*[_names(constant) for constant in inner])


def _code(code: types.CodeType) -> Any:
    """What code does, not where it stands."""
    constants = [_constant(constant) for constant in code.co_consts]
    return (code.co_code.hex(), code.co_names, code.co_varnames, code.co_freevars, constants)


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return _code(value)
    if isinstance(value, frozenset):  # whose order is another in each process
        return ("frozenset", sorted(map(repr, value)))
    return (type(value).__name__, repr(value))
