"""The text of the launch function that ``FastLauncher`` generates, made from the table of guards.

The function has the call signature of ``default_launcher``: it checks the guards, finds the variant, and calls Triton;
where a guard turns the call away it returns what ``slow`` does, and ``new_variant`` for a binary it does not have. How
it treats an argument follows from the argument's type: ``KINDS``.

Not here: what the names in its namespace are, and what happens on the slow path (``launcher.py``); the guards
themselves (``guards.py``). Words as in docs/design.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import torch
from torch.nn import Parameter

from ... import _compat_triton
from .guards import GUARDS

__all__ = ["KINDS", "Kind", "compile_launch", "launch_source", "variant_of"]


class Kind(NamedTuple):
    """How arguments of one type are told from others and passed. ``{a}`` stands for the argument, ``{p}`` for its
    address.

    Attributes:
        mismatch: true for what is not of this type: keeps subclasses, FakeTensors and changed scalar types out.
        value: what is passed to Triton's C function.
        guards: names of the guards that concern such arguments.
    """

    mismatch: str
    value: str = "{a}"
    guards: tuple[str, ...] = ("type",)


_TENSOR = Kind(
    "type({a}) is not Tensor and type({a}) is not Parameter", "{p}", ("type", "device_tag", "memory", "alignment")
)

KINDS: dict[type, Kind] = {
    torch.Tensor: _TENSOR,
    Parameter: _TENSOR,
    int: Kind("type({a}) is not int", guards=("type", "int_bucket")),
    float: Kind("type({a}) is not float"),
    bool: Kind("type({a}) is not bool"),
    type(None): Kind("{a} is not None"),
}

#: The guards that are asked together at the head of the function, and those that are for each argument.
_HEAD = ("kernel", "options", "count", "knobs", "pre_run_hooks", "globals", "device")
_EACH = ("type", "device_tag")


def _text(name: str, **parts: str) -> str:
    """How the guard stands in the function."""
    (guard,) = [guard for guard in GUARDS if guard.name == name]
    return guard.python.format(**parts) if parts else guard.python


def _together(kinds: list[type], guard: str, argument: str) -> list[str]:
    """``argument`` (``a{i}`` or ``p{i}``) for each argument that ``guard`` concerns."""
    return [argument.format(i=i) for i, kind in enumerate(kinds) if guard in KINDS[kind].guards]


def variant_of(args: tuple[Any, ...]) -> Any:
    """The variant of a call, computed as the generated function does."""
    kinds = [type(arg) for arg in args]
    names = {f"a{i}": arg for i, arg in enumerate(args)}
    names |= {f"p{i}": arg.data_ptr() for i, arg in enumerate(args) if isinstance(arg, torch.Tensor)}
    scope: dict[str, Any] = {}
    exec("\n".join(_variant_lines(kinds)), names, scope)
    return scope["variant"]


def _variant_lines(kinds: list[type]) -> list[str]:
    """Statements that set ``variant`` from ``a<i>`` and ``p<i>``.

    Usually every pointer is aligned, so one OR over all of them is asked first; only if it fails are they told apart.
    An int with one bit per misaligned pointer; a tuple of that and the buckets if there are ints.
    """
    pointers = _together(kinds, "alignment", "p{i}")
    buckets = [_text("int_bucket", a=a) for a in _together(kinds, "int_bucket", "a{i}")]
    lines = ["variant = 0"]
    if pointers:
        bits = " | ".join(f"({1 << n} if {_text('alignment', p=p)} else 0)" for n, p in enumerate(pointers))
        lines = [f"variant = {_text('alignment', p=' | '.join(pointers))}", "if variant:", f"    variant = {bits}"]
    if buckets:
        lines.append(f"variant = (variant, {', '.join(buckets)})")
    return lines


def _turned_away(conditions: list[str]) -> list[str]:
    """Statements that leave for the slow path if one of the conditions holds."""
    return [
        "    if (",
        *[f"        {'or ' if n else ''}{condition}" for n, condition in enumerate(conditions)],
        "    ):",
        "        return slow(FUNCTION, Call(triton_kernel, grid, args, num_warps, num_stages, options))",
    ]


def launch_source(kinds: list[type], rank: int, has_options: bool, direct: bool) -> str:
    """Text of a launch function.

    Args:
        kinds: the types of the arguments.
        rank: length of the grid.
        has_options: whether the launch has options beside ``num_warps`` and ``num_stages``.
        direct: whether Triton's C function can be called as it is, with ``LAUNCH`` (see ``_compat_triton``).
    """
    count = len(kinds)
    head = [_text(name) for name in _HEAD]
    if not has_options:
        head = [condition.replace("options != OPTIONS", "options") for condition in head]
    lines = [
        "def launch(triton_kernel, grid, *args, num_warps, num_stages, **options):",
        "    provider = device.provider",
        "    device_tag = provider.device_tag",
        *_turned_away(head),
    ]
    if count:
        lines.append(f"    {', '.join(f'a{i}' for i in range(count))}{',' if count == 1 else ''} = args")
        lines += _turned_away(
            [
                _text(name, a=f"a{i}", tag=f"TAG{i}", mismatch=KINDS[kind].mismatch.format(a=f"a{i}"))
                for i, kind in enumerate(kinds)
                for name in _EACH
                if name in KINDS[kind].guards
            ]
        )
    lines += [f"    p{i} = a{i}.data_ptr()" for i, kind in enumerate(kinds) if KINDS[kind].value == "{p}"]
    if memory := [
        _text("memory", p=f"p{i}", a=f"a{i}") for i, kind in enumerate(kinds) if "memory" in KINDS[kind].guards
    ]:
        # One question for all of them first, as hardly any pointer is null.
        pointers = " and ".join(_together(kinds, "memory", "p{i}"))
        lines += _turned_away([f"not ({pointers}) and ({' or '.join(memory)})"])
    lines += [f"    {line}" for line in _variant_lines(kinds)]
    hooked = [f"{hook}.calls" if _default_chains() else f"has_hooks({hook})" for hook in ("ENTER", "EXIT")]
    lines += [
        "    entry = variants.get(variant)",
        "    if entry is None:",
        "        call = Call(triton_kernel, grid, args, num_warps, num_stages, options)",
        "        return new_variant(FUNCTION, variant, call)",
        f"    compiled, function, packed{', annotations, signature' if direct else ''} = entry",
        f"    stream = {_text('stream')}",
        "    enter = exit = metadata = None",
        f"    if {_text('hooks', hooked=' or '.join(hooked))}:",
        "        enter, exit = runtime.launch_enter_hook, runtime.launch_exit_hook",
        "        if has_hooks(enter) or has_hooks(exit):",
        "            metadata = compiled.launch_metadata(grid, stream, *args, *CONSTANTS)",
        "    hit()",
        "    try:",
        f"        {_triton_call(kinds, rank, direct)}",
        "    except RuntimeError as error:",
        "        if is_driver_error(error):",
        "            raise driver_error(KERNEL, error) from error",
        "        raise",
        "    return compiled",
    ]
    return "\n".join(lines) + "\n"


def _triton_call(kinds: list[type], rank: int, direct: bool) -> str:
    dims = ", ".join(f"grid[{i}]" if i < rank else "1" for i in range(3))
    values = "".join(f"{KINDS[kind].value.format(a=f'a{i}', p=f'p{i}')}, " for i, kind in enumerate(kinds))
    if direct:
        return (
            f"LAUNCH({dims}, stream, function, COOPERATIVE, PDL, packed, metadata, enter, exit, None, None,"
            f" annotations, signature, ({values}))"
        )
    return f"compiled.run({dims}, stream, function, packed, metadata, enter, exit, {values}*CONSTANTS)"


def _default_chains() -> bool:
    """Whether both launch hooks are Triton's chains, whose ``calls`` can be read without a question."""
    runtime = _compat_triton.knobs.runtime
    return all(
        isinstance(getattr(h, "calls", None), list) for h in (runtime.launch_enter_hook, runtime.launch_exit_hook)
    )


class _Source:
    """Shows a generated function's text in tracebacks: a module loader as ``linecache`` wants one."""

    def __init__(self, text: str) -> None:
        self.text = text

    def get_source(self, name: str) -> str:
        return self.text


def compile_launch(source: str, name: str, namespace: dict[str, Any]) -> Callable[..., Any]:
    namespace["__name__"] = name
    namespace["__loader__"] = _Source(source)
    exec(compile(source, name, "exec"), namespace)
    launch: Callable[..., Any] = namespace["launch"]
    return launch
