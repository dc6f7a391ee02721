"""How each language op is printed in Triton: a table op name -> emitter.

Memory ops are in `memory`; ATen ops in `ops`.
"""

from __future__ import annotations

import textwrap
from typing import Any
from typing import Callable

import torch
import torch.fx

from ... import exc
from ...ir.device_ir import AxisKind
from ..expressions import literal
from . import language_ops
from .emitter import KernelEmitter
from .memory import emit_atomic
from .memory import emit_load
from .memory import emit_stack_load
from .memory import emit_stack_store
from .memory import emit_store
from .ops import triton_dtype


def _tile_index(k: KernelEmitter, node: torch.fx.Node) -> None:
    axis = node.args[0].axis  # type: ignore[union-attr]
    name = k.index(axis)
    k._text[node] = f"tl.full([1], 0, tl.int32) + {name}" if axis.kind is AxisKind.GRID else name


def _full(k: KernelEmitter, node: torch.fx.Node) -> None:
    shape, value, dtype, _ = node.args
    if isinstance(value, torch.fx.Node):
        text = f"{k.text(value)}.to({triton_dtype(dtype)})"  # type: ignore[arg-type]
        k.assign(node, f"tl.broadcast_to({text}, {k.shape(shape)})" if shape else text)  # type: ignore[arg-type]
        return
    text = literal(value) if isinstance(value, (int, float)) else k.number(value)
    k.assign(node, f"tl.full({k.shape(shape)}, {text}, {triton_dtype(dtype)})")  # type: ignore[arg-type]


def _iota(k: KernelEmitter, node: torch.fx.Node) -> None:
    start, length, step, dtype = node.args
    resolved = k.schedule.size(length)
    if not isinstance(resolved, int):
        raise exc.SizeNotConstant(what="the length of hl.arange", value=length)
    text = f"tl.arange(0, {k.extent(length)})"
    if dtype is not torch.int32:
        text += f".to({triton_dtype(dtype)})"  # type: ignore[arg-type]
    if step != 1:
        text += f" * {step}"
    if not (isinstance(start, int) and start == 0):
        text = f"{k.text(start)} + {text}"
    k.assign(node, text)


def _dot(k: KernelEmitter, node: torch.fx.Node) -> None:
    a, b, acc, _ = node.args
    result = node.meta["val"]
    a_value, b_value = a.meta["val"], b.meta["val"]  # type: ignore[union-attr]
    left = k.masked(a, a_value.dim() - 1, 0)  # type: ignore[arg-type]
    right = k.masked(b, b_value.dim() - 2, 0)  # type: ignore[arg-type]
    integer = not a_value.dtype.is_floating_point
    summed = torch.int32 if integer else torch.float64 if a_value.dtype is torch.float64 else torch.float32
    options = [f"out_dtype={triton_dtype(summed)}"]
    if a_value.dtype is torch.float32:
        options.append(f"input_precision={k.settings.dot_precision!r}")
    fused = isinstance(acc, torch.fx.Node) and acc.meta["val"].dtype is summed and acc.meta["val"].shape == result.shape
    arguments = [left, right, *([k.text(acc)] if fused else []), *options]
    text = f"tl.dot({', '.join(arguments)})"
    if isinstance(acc, torch.fx.Node) and not fused:
        text = f"{text} + {k.text(acc)}" if acc.meta["val"].dtype is summed else f"{text} + {k.text(acc)}.to({triton_dtype(summed)})"
    if result.dtype is not summed:
        text = f"({text}).to({triton_dtype(result.dtype)})"
    k.assign(node, text)


def _device_print(k: KernelEmitter, node: torch.fx.Node) -> None:
    prefix, values = node.args[0], node.args[1] if len(node.args) > 1 else ()
    operands = values if isinstance(values, (list, tuple)) else [values]
    k.statement(node, f"tl.device_print({', '.join([repr(prefix), *(k.text(v) for v in operands)])})")


def _join(k: KernelEmitter, node: torch.fx.Node) -> None:
    k.assign(node, f"tl.join({k.text(node.args[0])}, {k.text(node.args[1])})")


def _split(k: KernelEmitter, node: torch.fx.Node) -> None:
    names = [k.names.unique(name) for name in ("even", "odd")]
    k.statement(node, f"{', '.join(names)} = tl.split({k.text(node.args[0])})")
    k._results[node] = names


def _unused(k: KernelEmitter, node: torch.fx.Node) -> None:
    raise exc.InternalError(reason=f"hl.{node.target.name} reached the backend")  # type: ignore[union-attr]


def _dot_scaled(k: KernelEmitter, node: torch.fx.Node) -> None:
    a, a_scale, fmt_a, b, b_scale, fmt_b, acc, _ = node.args
    result = node.meta["val"]
    arguments = [k.text(a), _optional(k, a_scale), repr(fmt_a), k.text(b), _optional(k, b_scale), repr(fmt_b)]
    fused = isinstance(acc, torch.fx.Node) and acc.meta["val"].dtype is torch.float32
    if fused:
        arguments.append(k.text(acc))
    text = f"tl.dot_scaled({', '.join(arguments)}, out_dtype=tl.float32)"
    if isinstance(acc, torch.fx.Node) and not fused:
        text = f"{text} + {k.text(acc)}.to(tl.float32)"
    if result.dtype is not torch.float32:
        text = f"({text}).to({triton_dtype(result.dtype)})"
    k.assign(node, text)


def _optional(k: KernelEmitter, value: Any) -> str:
    return "None" if value is None else k.text(value)


# -- reductions and scans with a combine function ----------------------------------------------------------------


def _operands(x: Any) -> list[torch.fx.Node]:
    return list(x) if isinstance(x, (list, tuple)) else [x]


def _tuple_text(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"({', '.join(parts)})"


def _assign_all(k: KernelEmitter, node: torch.fx.Node, text: str, count: int, is_tuple: bool) -> None:
    """One result by name, several as a tuple."""
    if not is_tuple:
        k.assign(node, text)
        return
    names = [k.names.unique(f"{node.name}_{i}") for i in range(count)]
    k.statement(node, f"{', '.join(names)}{',' if count == 1 else ''} = {text}")
    k._results[node] = names


def _reduce(k: KernelEmitter, node: torch.fx.Node) -> None:
    combine_id, x, dim, other, keep = node.args
    values = _operands(x)
    at = dim % values[0].meta["val"].dim()  # type: ignore[operator]
    neutral = list(other) if isinstance(other, (list, tuple)) else [other] * len(values)
    parts = [k.masked(value, at, n) for value, n in zip(values, neutral)]
    combine = k.combine_function(combine_id)
    text = f"tl.reduce({_tuple_text(parts)}, {at}, {combine}{', keep_dims=True' if keep else ''})"
    _assign_all(k, node, text, len(values), isinstance(x, (list, tuple)))


def _associative_scan(k: KernelEmitter, node: torch.fx.Node) -> None:
    combine_id, x, dim, reverse = node.args
    values = _operands(x)
    at = dim % values[0].meta["val"].dim()  # type: ignore[operator]
    if reverse and k.dim_mask(values[0], at) is not None:
        raise exc.BackendUnsupported(
            backend="triton",
            reason="hl.associative_scan(reverse=True) along a dimension whose tile may be partial",
            fix="scan a whole dimension of power-of-two size, or flip the data.",
        )
    combine = k.combine_function(combine_id)
    text = f"tl.associative_scan({_tuple_text([k.text(v) for v in values])}, {at}, {combine}{', reverse=True' if reverse else ''})"
    _assign_all(k, node, text, len(values), isinstance(x, (list, tuple)))


def _scan(name: str, neutral: int) -> Callable[[KernelEmitter, torch.fx.Node], None]:
    def emit(k: KernelEmitter, node: torch.fx.Node) -> None:
        x, dim, reverse = node.args
        value, result = x.meta["val"], node.meta["val"]  # type: ignore[union-attr]
        at = dim % value.dim()  # type: ignore[operator]
        # Padding stands at the end, so only a scan from there meets it.
        text = k.masked(x, at, neutral) if reverse else k.text(x)  # type: ignore[arg-type]
        wide = torch.float32 if value.dtype in (torch.float16, torch.bfloat16) else result.dtype
        if value.dtype is torch.bool:
            text = f"{text}.to(tl.int32)"
        if wide is not value.dtype:
            text = f"{text}.to({triton_dtype(wide)})"
        text = f"tl.{name}({text}, {at}{', reverse=True' if reverse else ''})"
        if wide is not result.dtype:
            text = f"{text}.to({triton_dtype(result.dtype)})"
        k.assign(node, text)

    return emit


# -- random numbers --------------------------------------------------------------------------------------------------


def _random(function: str) -> Callable[[KernelEmitter, torch.fx.Node], None]:
    def emit(k: KernelEmitter, node: torch.fx.Node) -> None:
        seed, offset = node.args
        text = f"tl.{function}({k.text(seed)}, {k.text(offset)})"
        if function == "rand4x":
            _assign_all(k, node, text, 4, True)
        else:
            k.assign(node, text)

    return emit


# -- escape hatches --------------------------------------------------------------------------------------------------


def _inline_asm(k: KernelEmitter, node: torch.fx.Node) -> None:
    asm, constraints, args, dtype, is_pure, pack = node.args
    several = isinstance(dtype, (list, tuple))
    dtypes = [triton_dtype(d) for d in (dtype if several else [dtype])]  # type: ignore[union-attr, list-item]
    text = (
        f"tl.inline_asm_elementwise({asm!r}, {constraints!r}, [{', '.join(k.text(a) for a in args)}], "  # type: ignore[union-attr]
        f"dtype={_tuple_text(dtypes) if several and len(dtypes) > 1 else dtypes[0]}, is_pure={is_pure!r}, pack={pack!r})"
    )
    _assign_all(k, node, text, len(dtypes), several and len(dtypes) > 1)
    if several and len(dtypes) == 1:
        k._results[node] = [k._text[node]]


def _output_count(node: torch.fx.Node) -> int | None:
    value = node.meta["val"]
    return None if value is None else len(value) if isinstance(value, (list, tuple)) else 0


def _finish_inline(k: KernelEmitter, node: torch.fx.Node, expression: str) -> None:
    count = _output_count(node)
    if count is None:
        k.statement(node, expression)
    else:
        _assign_all(k, node, expression, count, count > 0)


def _texts(k: KernelEmitter, args: Any) -> Any:
    if isinstance(args, dict):
        return {name: k.text(value) for name, value in args.items()}
    return [k.text(value) for value in args]


def _inline_triton(k: KernelEmitter, node: torch.fx.Node) -> None:
    source, args, _ = node.args
    texts = _texts(k, args)
    filled = source.format(**texts) if isinstance(texts, dict) else source.format(*texts)  # type: ignore[union-attr]
    *statements, last = textwrap.dedent(filled).strip().splitlines()
    for line in statements:
        k.statement(node, line)
    _finish_inline(k, node, last)


def _triton_kernel(k: KernelEmitter, node: torch.fx.Node) -> None:
    fn, args, _ = node.args
    texts = _texts(k, args)
    parts = [f"{n}={t}" for n, t in texts.items()] if isinstance(texts, dict) else texts
    name = k.device_function(fn)
    _finish_inline(k, node, f"{name}({', '.join(parts)})")


def _breakpoint(k: KernelEmitter, node: torch.fx.Node) -> None:
    raise exc.BackendUnsupported(
        backend="triton",
        reason="a compiled kernel cannot stop in a debugger",
        fix="run with HELION_INTERPRET=1, where breakpoint() works.",
    )


OP_EMITTERS: dict[str, Callable[[KernelEmitter, torch.fx.Node], None]] = {
    "load": emit_load,
    "store": emit_store,
    **{f"atomic_{n}": emit_atomic for n in ("add", "and", "or", "xor", "max", "min", "xchg", "cas")},
    "tile_index": _tile_index,
    "full": _full,
    "iota": _iota,
    "dot": _dot,
    "join": _join,
    "split": _split,
    "device_print": _device_print,
    "stack_load": emit_stack_load,
    "stack_store": emit_stack_store,
    "dot_scaled": _dot_scaled,
    "reduce": _reduce,
    "associative_scan": _associative_scan,
    "cumsum": _scan("cumsum", 0),
    "cumprod": _scan("cumprod", 1),
    "philox_rand": _random("rand"),
    "philox_rand4x": _random("rand4x"),
    "philox_bits": _random("randint"),
    "inline_asm_elementwise": _inline_asm,
    "inline_triton": _inline_triton,
    "triton_kernel": _triton_kernel,
    "breakpoint": _breakpoint,
    "philox_rand": language_ops.emit_philox_rand,
    "philox_rand4x": language_ops.emit_philox_rand4x,
    "philox_bits": language_ops.emit_philox_bits,
    "cumsum": language_ops.emit_cumulative,
    "cumprod": language_ops.emit_cumulative,
    "reduce": language_ops.emit_reduce,
    "associative_scan": language_ops.emit_associative_scan,
    "dot_scaled": language_ops.emit_dot_scaled,
    "stack_load": language_ops.emit_stack_load,
    "stack_store": language_ops.emit_stack_store,
    "inline_asm_elementwise": language_ops.emit_inline_asm,
    "inline_triton": language_ops.emit_inline_triton,
    "triton_kernel": language_ops.emit_triton_kernel,
    "breakpoint": language_ops.emit_breakpoint,
    "subscript": _unused,  # the front end makes views of it
}
