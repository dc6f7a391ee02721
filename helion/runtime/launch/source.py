"""The launch function that ``FastLauncher`` generates for a site, and the tables of guards it is made from.

Vocabulary as in ``launcher.py``. ``GUARDS`` holds for every launch, ``KINDS`` for each argument by its type; adding a
guard is adding a row. The function has the call signature of ``default_launcher``: it checks the guards, finds the
variant, and calls Triton; where a guard turns the call away it returns what ``slow`` does, and ``new_variant`` for a
binary it does not have.

Not here: what the names in its namespace are, and what happens on the slow path (``launcher.py``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import Parameter

from ... import _compat_triton

__all__ = ["GUARDS", "KINDS", "Guard", "Kind", "compile_launch", "launch_source", "variant_of"]


@dataclasses.dataclass(frozen=True)
class Guard:
    """A condition that sends a call to the slow path.

    Attributes:
        name: for tests and messages.
        condition: expression over the launch function's parameters and the names that ``FastLauncher`` gives it.
    """

    name: str
    condition: str


#: Checked on every launch, in this order. Names in capitals are constants of the site.
GUARDS: tuple[Guard, ...] = (
    # A host function may launch several kernels through one launcher.
    Guard("kernel", "triton_kernel is not KERNEL"),
    Guard("options", "num_warps != NUM_WARPS or num_stages != NUM_STAGES or options != OPTIONS"),
    Guard("count", "len(args) != COUNT or len(grid) != RANK"),
    # Some knobs change the binary: another value is another site. A stages hook decides anew on every call, so it is
    # Triton's. Assigned knobs sit in the instance's dict; comparing that is cheaper than reading three of them.
    Guard("knobs", "(RUNTIME_KNOBS != RUNTIME_THEN or COMPILE_KNOBS != COMPILE_THEN) and knobs_changed(KNOBS)"),
    # `JITFunction.run` calls these with the arguments as it got them.
    Guard("pre_run_hooks", "KERNEL.pre_run_hooks"),
    # Triton compiles values of globals in and raises when one has changed since.
    Guard("globals", "USED_GLOBALS and globals_changed(USED_GLOBALS)"),
    # A CUfunction belongs to one context; launching it while another device is current is an error at best.
    Guard("device", "provider.current_device() != DEVICE"),
)


@dataclasses.dataclass(frozen=True)
class Kind:
    """How arguments of one type are guarded, told apart and passed. ``{a}`` stands for the argument.

    Attributes:
        guards: as in ``GUARDS``; ``type`` keeps subclasses, FakeTensors and changed scalar types out.
        variant: expression for what Triton specializes on by value; "" for nothing.
        value: what is passed to the C launcher.
    """

    name: str
    guards: tuple[Guard, ...]
    variant: str
    value: str


#: Triton's buckets of an int: exactly 1 is a constant, multiples of 16 are known to be, and the width follows the
#: value.
_INT_VARIANT = (
    "(1 if {a} == 1 else 2 if not {a} & 15 else 0)"
    " + (0 if -0x80000000 <= {a} <= 0x7FFFFFFF else 4 if -0x8000000000000000 <= {a} <= 0x7FFFFFFFFFFFFFFF else 8)"
)

_TENSOR = Kind(
    "tensor",
    (
        Guard("type", "type({a}) is not Tensor and type({a}) is not Parameter"),
        # A pointer into another device's memory would be passed without a question.
        Guard("device_tag", "device_tag({a}) != {tag}"),
    ),
    "",
    "{p}",
)

KINDS: dict[type, Kind] = {
    torch.Tensor: _TENSOR,
    Parameter: _TENSOR,
    int: Kind("int", (Guard("type", "type({a}) is not int"),), _INT_VARIANT, "{a}"),
    float: Kind("float", (Guard("type", "type({a}) is not float"),), "", "{a}"),
    bool: Kind("bool", (Guard("type", "type({a}) is not bool"),), "", "{a}"),
    type(None): Kind("none", (Guard("type", "{a} is not None"),), "", "{a}"),
}


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
    pointers = [i for i, kind in enumerate(kinds) if KINDS[kind].value == "{p}"]
    buckets = [KINDS[kind].variant.format(a=f"a{i}") for i, kind in enumerate(kinds) if KINDS[kind].variant]
    lines = []
    if pointers:
        lines.append(f"variant = ({' | '.join(f'p{i}' for i in pointers)}) & 15")
        lines.append("if variant:")
        bits = " | ".join(f"({1 << n} if p{i} & 15 else 0)" for n, i in enumerate(pointers))
        lines.append(f"    variant = {bits}")
    else:
        lines.append("variant = 0")
    if buckets:
        lines.append(f"variant = (variant, {', '.join(buckets)})")
    return lines


def _condition(guard: Guard, **names: str) -> str:
    return guard.condition.format(**names) if names else guard.condition


def launch_source(kinds: list[type], rank: int, has_options: bool, direct: bool) -> str:
    """Text of a site's launch function."""
    leave = "return slow(SITE, triton_kernel, grid, args, num_warps, num_stages, options)"
    count = len(kinds)
    lines = [
        "def launch(triton_kernel, grid, *args, num_warps, num_stages, **options):",
        "    provider = device.provider",
        "    device_tag = provider.device_tag",
        "    if (",
    ]
    conditions = [_condition(guard) for guard in GUARDS]
    if not has_options:
        conditions = [c.replace("options != OPTIONS", "options") for c in conditions]
    lines += [f"        {'or ' if n else ''}{condition}" for n, condition in enumerate(conditions)]
    lines += ["    ):", f"        {leave}"]
    if count:
        lines.append(f"    {', '.join(f'a{i}' for i in range(count))}{',' if count == 1 else ''} = args")
        lines.append("    if (")
        conditions = [
            _condition(guard, a=f"a{i}", tag=f"TAG{i}") for i, kind in enumerate(kinds) for guard in KINDS[kind].guards
        ]
        lines += [f"        {'or ' if n else ''}{condition}" for n, condition in enumerate(conditions or ["False"])]
        lines += ["    ):", f"        {leave}"]
    lines += [f"    p{i} = a{i}.data_ptr()" for i, kind in enumerate(kinds) if KINDS[kind].value == "{p}"]
    lines += [f"    {line}" for line in _variant_lines(kinds)]
    lines += [
        "    entry = variants.get(variant)",
        "    if entry is None:",
        "        return new_variant(SITE, variant, triton_kernel, grid, args, num_warps, num_stages, options)",
        f"    compiled, function, packed{', annotations, signature' if direct else ''} = entry",
        # Asked on every launch: it changes under torch.cuda.stream() and during graph capture.
        "    stream = provider.current_stream(DEVICE)",
        # Read on every launch too: a profiler may attach at any time. Metadata is built only for somebody.
        "    enter = exit = metadata = None",
        "    if (",
        "        runtime.launch_enter_hook is not ENTER",
        "        or runtime.launch_exit_hook is not EXIT",
        f"        or {'ENTER.calls' if _default_chains() else 'has_hooks(ENTER)'}",
        f"        or {'EXIT.calls' if _default_chains() else 'has_hooks(EXIT)'}",
        "    ):",
        "        enter, exit = runtime.launch_enter_hook, runtime.launch_exit_hook",
        "        if has_hooks(enter) or has_hooks(exit):",
        "            metadata = compiled.launch_metadata(grid, stream, *args, *CONSTANTS)",
    ]
    dims = [f"grid[{i}]" if i < rank else "1" for i in range(3)]
    values = [KINDS[kind].value.format(a=f"a{i}", p=f"p{i}") for i, kind in enumerate(kinds)]
    if direct:
        arguments = f"({', '.join(values)}{',' if count == 1 else ''})"
        call = (
            f"LAUNCH({', '.join(dims)}, stream, function, COOPERATIVE, PDL, packed, metadata, enter, exit, None, None,"
            f" annotations, signature, {arguments})"
        )
    else:
        call = (
            f"compiled.run({', '.join(dims)}, stream, function, packed, metadata, enter, exit,"
            f" {''.join(f'{value}, ' for value in values)}*CONSTANTS)"
        )
    lines += [
        "    hit()",
        "    try:",
        f"        {call}",
        "    except RuntimeError as error:",
        "        if is_driver_error(error):",
        "            raise driver_error(KERNEL, error) from error",
        "        raise",
        "    return compiled",
    ]
    return "\n".join(lines) + "\n"


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
