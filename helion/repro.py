"""`HELION_PRINT_REPRO=1`: a script that rebuilds one specialization of a kernel and runs it.

The script holds the kernel function, the helpers and constants it uses, arguments of the same shapes, strides and
dtypes (random data), and the Config.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import math
import sys
import types
from collections.abc import Sequence
from typing import Any

import torch

from ._annotations import signature_of
from ._parsing import parse
from ._parsing import parse_definition
from ._parsing import unindented
from .config import Config
from .frontend.source import function_globals
from .frontend.source import read_names
from .frontend.source import source_of
from .settings import Settings


@dataclasses.dataclass(frozen=True)
class _Described:
    """What a function captured, as the text that makes it, and what that names."""

    text: str
    needed: list[Any]


def describe_argument(value: Any) -> str:
    """Source text that makes an argument like `value`: tensors of the same layout with random data."""
    if isinstance(value, _Described):
        return value.text
    if isinstance(value, torch.Tensor):
        return _describe_tensor(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return f"{type(value).__name__}({', '.join(map(describe_argument, value))})"
    if isinstance(value, tuple):
        return f"({', '.join(map(describe_argument, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, list):
        return f"[{', '.join(map(describe_argument, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {describe_argument(v)}" for k, v in value.items()) + "}"
    if isinstance(value, types.FunctionType):
        return value.__name__ if value.__name__ != "<lambda>" else _closed_lambda(value)
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, torch.device):
        return f"torch.device({str(value)!r})"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ", ".join(
            f"{f.name}={describe_argument(getattr(value, f.name))}" for f in dataclasses.fields(value) if f.init
        )
        return f"{type(value).__name__}({fields})"
    return repr(value)


def needed_by(value: Any) -> list[Any]:
    """The functions and classes that `describe_argument(value)` names."""
    if isinstance(value, _Described):
        return value.needed
    if isinstance(value, (tuple, list)):
        inner = [found for v in value for found in needed_by(v)]
        return [type(value), *inner] if hasattr(value, "_fields") else inner
    if isinstance(value, dict):
        return [found for v in value.values() for found in needed_by(v)]
    if isinstance(value, types.FunctionType):
        return [_without_captures(value, {})]
    if isinstance(value, enum.Enum):
        return [type(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [type(value), *(found for f in dataclasses.fields(value) for found in needed_by(getattr(value, f.name)))]
    return []


def _without_captures(fn: types.FunctionType, copies: dict[int, types.FunctionType]) -> types.FunctionType:
    """A function with the same source that holds nothing of what it closes over but texts: a specialization keeps it,
    and would keep a model's weights alive with the function of its first call.
    """
    if id(fn) in copies or not fn.__closure__:
        return copies.get(id(fn), fn)
    cells = tuple(types.CellType() for _ in fn.__closure__)
    copy = copies[id(fn)] = types.FunctionType(fn.__code__, fn.__globals__, fn.__name__, None, cells)
    copy.__module__, copy.__qualname__ = fn.__module__, fn.__qualname__
    for cell, own in zip(fn.__closure__, cells):
        try:
            value = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        if isinstance(value, types.FunctionType):
            value = _without_captures(value, copies)
        elif not isinstance(value, (types.ModuleType, type)):
            value = _Described(describe_argument(value), needed_by(value))
        own.cell_contents = value
    return copy


def _closed_lambda(fn: types.FunctionType) -> str:
    """A lambda with what it closes over."""
    cells = {name: cell.cell_contents for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or ())}
    if not cells:
        return f"({_lambda_text(fn)})"
    return f"(lambda {', '.join(cells)}: {_lambda_text(fn)})({', '.join(map(describe_argument, cells.values()))})"


def _lambda_text(fn: types.FunctionType) -> str:
    """The source of a lambda: the one on its line that compiles to the same code."""
    try:
        lines, _ = inspect.getsourcelines(fn)
        tree = parse_definition("".join(lines))
    except (OSError, TypeError, SyntaxError):
        return repr(fn)
    wanted = fn.__code__
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda):
            compiled = compile(ast.Expression(node), "<lambda>", "eval").co_consts[0]
            if (compiled.co_varnames, compiled.co_consts) == (wanted.co_varnames, wanted.co_consts) and (
                {*compiled.co_names, *compiled.co_freevars} == {*wanted.co_names, *wanted.co_freevars}
            ):
                return ast.unparse(node)
    return repr(fn)


def _describe_tensor(value: torch.Tensor) -> str:
    shape, stride = tuple(value.shape), tuple(value.stride())
    if any(isinstance(number, torch.SymInt) for number in (*shape, *stride)):
        # A fake tensor, as PyTorch's tracers have: of a size like it, since some are not known at all.
        shape = tuple(_likely(size) for size in shape)
        stride = tuple(math.prod(shape[dim + 1 :]) for dim in range(len(shape)))
    needed = 1 + sum((size - 1) * step for size, step in zip(shape, stride)) if math.prod(shape) else 0
    offset = value.storage_offset()
    where = f"dtype={value.dtype}, device={str(value.device)!r}"
    if value.dtype.is_floating_point:
        flat = f"torch.randn({needed + offset}, device={str(value.device)!r}).to({value.dtype})"
    elif value.dtype is torch.bool:
        flat = f"torch.randint(0, 2, ({needed + offset},), {where})"
    else:
        flat = f"torch.zeros({needed + offset}, {where})"
    return f"torch.as_strided({flat}, {shape}, {stride}, {offset})"


def _likely(size: int | torch.SymInt) -> int:
    if isinstance(size, torch.SymInt):
        return size.node.hint if size.node.has_hint() else 8
    return size


def repro_script(
    fn: types.FunctionType, arguments: dict[str, str], config: Config, settings: Settings, needed: Sequence[Any] = ()
) -> str:
    """The script.

    Args:
        fn: the kernel function.
        arguments: parameter name -> text that makes the argument (`describe_argument`).
        needed: functions and classes those texts name (`needed_by`).
        config: the Config in use.
        settings: the kernel's settings.
    """
    imports: dict[str, None] = {"import torch": None, "import helion": None, "import helion.language as hl": None}
    definitions, seen = _defined(needed, imports)
    _collect(fn, imports, definitions, seen)
    own = _function_text(fn)
    # What it reads from outside itself is among the definitions.
    parameters = signature_of(fn).parameters
    given = [f"{name}={text}" for name, text in arguments.items() if name in parameters]
    kept = settings.non_default()
    keywords = "".join(
        f", {k}={v!r}" for k, v in kept.items() if isinstance(v, (bool, int, float, str)) and not k.startswith("print_")
    )
    lines = [
        "# Rebuilds one specialization of a helion kernel and runs it.",
        "from __future__ import annotations",
        "",
        *imports,
        "",
        "",
        *(text + "\n" for text in definitions.values()),
        f"@helion.kernel(config={config!r}{keywords})",
        own,
        "",
        "torch.manual_seed(0)",
        f"result = {fn.__name__}({', '.join(given)})",
        "print(result)",
    ]
    return "\n".join(lines)


def _defined(needed: Sequence[Any], imports: dict[str, None]) -> tuple[dict[str, str], set[str]]:
    """Name -> text of functions and classes, and the names that were met."""
    definitions: dict[str, str] = {}
    seen: set[str] = set()
    for value in needed:
        _define(value.__name__, value, imports, definitions, seen)
    return definitions, seen


def caller_script(source: str, function: str, arguments: dict[str, str], needed: Sequence[Any] = ()) -> str:
    """Generated source as a script that calls its host function.

    Args:
        source: the module's text.
        function: the host function's name.
        arguments: parameter name -> text that makes the argument (`describe_argument`).
        needed: functions and classes those texts name (`needed_by`).
    """
    imports: dict[str, None] = {"import torch": None}
    definitions, _ = _defined(needed, imports)
    given = ", ".join(f"{name}={text}" for name, text in arguments.items())
    lines = [
        source.rstrip(),
        "",
        "",
        'if __name__ == "__main__":',
        *(f"    {line}" for line in imports),
        *(f"    {line}" if line else "" for text in definitions.values() for line in text.splitlines()),
        "    torch.manual_seed(0)",
        f"    print({function}({given}))",
        "",
    ]
    return "\n".join(lines)


def _function_text(fn: types.FunctionType) -> str:
    """The function's source without decorators."""
    source = source_of(fn)
    lines = source.text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.lstrip().startswith(("def ", "async def ")))
    return "\n".join(lines[start:])


def _collect(fn: types.FunctionType, imports: dict[str, None], definitions: dict[str, str], seen: set[str]) -> None:
    """Imports and definitions that the function's names need, helpers first."""
    if fn.__name__ == "<lambda>":
        names = set(fn.__code__.co_names)  # what it closes over is part of its text
    else:
        names = read_names(source_of(fn).node)
    outside = function_globals(fn)
    for name in sorted(names - set(fn.__code__.co_varnames)):
        if name in outside:
            _define(name, outside[name], imports, definitions, seen)


def _define(name: str, value: Any, imports: dict[str, None], definitions: dict[str, str], seen: set[str]) -> None:
    """What makes `name` mean `value` in the script."""
    if name in seen:
        return
    seen.add(name)
    module = getattr(value, "__module__", None) or ""
    if isinstance(value, types.ModuleType):
        imports[f"import {name}" if value.__name__ == name else f"import {value.__name__} as {name}"] = None
    elif isinstance(value, (types.FunctionType, type)) and _is_installed(module):
        imports[f"from {module} import {value.__name__} as {name}"] = None
    elif isinstance(value, types.FunctionType):
        _collect(value, imports, definitions, seen)
        if value.__name__ != "<lambda>":
            definitions[name] = _function_text(value) + "\n"
    elif isinstance(value, type):
        text = unindented(inspect.getsource(value))
        outside = vars(sys.modules[module])
        read = {n.id for n in ast.walk(parse(text)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        for inner in sorted(read):
            if inner in outside:
                _define(inner, outside[inner], imports, definitions, seen)
        definitions[name] = text
    elif isinstance(value, (_Described, torch.Tensor, torch.dtype, bool, int, float, str, tuple, enum.Enum)):
        for needed in needed_by(value):
            _define(needed.__name__, needed, imports, definitions, seen)
        definitions[name] = f"{name} = {describe_argument(value)}"


def _is_installed(module: str) -> bool:
    """Whether another machine can import a module: the standard library's, torch's and helion's own."""
    return module.split(".")[0] in {"torch", "helion", "triton", *sys.stdlib_module_names}
