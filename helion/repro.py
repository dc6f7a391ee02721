"""`HELION_PRINT_REPRO=1`: a script that rebuilds one specialization of a kernel and runs it.

The script holds the kernel function, the helpers and constants it uses, arguments of the same shapes, strides and
dtypes (random data), and the Config.
"""

from __future__ import annotations

import inspect
import textwrap
import types
from typing import Any

import torch

from .config import Config
from .frontend.interpreter import function_globals
from .frontend.source import read_names
from .frontend.source import source_of
from .settings import Settings


def describe_argument(value: Any) -> str:
    """Source text that makes an argument like `value`: tensors of the same layout with random data."""
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
    if isinstance(value, types.FunctionType) and value.__name__ != "<lambda>":
        return value.__name__
    return repr(value)


def _describe_tensor(value: torch.Tensor) -> str:
    shape, stride = tuple(value.shape), tuple(value.stride())
    needed = 1 + sum((size - 1) * step for size, step in zip(shape, stride)) if value.numel() else 0
    offset = value.storage_offset()
    where = f"dtype={value.dtype}, device={str(value.device)!r}"
    if value.dtype.is_floating_point:
        flat = f"torch.randn({needed + offset}, device={str(value.device)!r}).to({value.dtype})"
    elif value.dtype is torch.bool:
        flat = f"torch.randint(0, 2, ({needed + offset},), {where})"
    else:
        flat = f"torch.zeros({needed + offset}, {where})"
    return f"torch.as_strided({flat}, {shape}, {stride}, {offset})"


def repro_script(
    fn: types.FunctionType, arguments: dict[str, str], config: Config, settings: Settings
) -> str:
    """The script.

    Args:
        fn: the kernel function.
        arguments: parameter name -> text that makes the argument (`describe_argument`).
        config: the Config in use.
        settings: the kernel's settings.
    """
    imports: dict[str, None] = {"import torch": None, "import helion": None, "import helion.language as hl": None}
    definitions: dict[str, str] = {}
    _collect(fn, imports, definitions, set())
    own = _function_text(fn)
    kept = settings.non_default()
    keywords = "".join(f", {k}={v!r}" for k, v in kept.items() if isinstance(v, (bool, int, float, str)) and not k.startswith("print_"))
    lines = [
        "# Rebuilds one specialization of a helion kernel and runs it.",
        *imports,
        "",
        "",
        *(text + "\n" for text in definitions.values()),
        f"@helion.kernel(config={config!r}{keywords})",
        own,
        "",
        "torch.manual_seed(0)",
        f"result = {fn.__name__}({', '.join(f'{name}={text}' for name, text in arguments.items())})",
        "print(result)",
    ]
    return "\n".join(lines)


def _function_text(fn: types.FunctionType) -> str:
    """The function's source without decorators."""
    source = source_of(fn)
    lines = source.text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.lstrip().startswith(("def ", "async def ")))
    return textwrap.dedent("\n".join(lines[start:]))


def _collect(fn: types.FunctionType, imports: dict[str, None], definitions: dict[str, str], seen: set[str]) -> None:
    """Imports and definitions that the function's names need, helpers first."""
    outside = function_globals(fn)
    for name in sorted(read_names(source_of(fn).node)):
        if name in seen or name not in outside:
            continue
        seen.add(name)
        value = outside[name]
        if isinstance(value, types.ModuleType):
            plain = value.__name__ == name
            imports[f"import {name}" if plain else f"import {value.__name__} as {name}"] = None
        elif isinstance(value, types.FunctionType) and (value.__module__ or "").split(".")[0] in ("torch", "helion", "math"):
            imports[f"from {value.__module__} import {value.__name__} as {name}"] = None
        elif isinstance(value, types.FunctionType) and value.__name__ != "<lambda>":
            _collect(value, imports, definitions, seen)
            definitions[name] = _function_text(value) + "\n"
        elif isinstance(value, torch.dtype) or isinstance(value, (bool, int, float, str, tuple)):
            definitions[name] = f"{name} = {value!r}"
        elif inspect.isclass(value):
            imports[f"from {value.__module__} import {value.__name__} as {name}"] = None
