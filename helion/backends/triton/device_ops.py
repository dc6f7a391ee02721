"""Triton text of the language ops that make and multiply tiles.

Memory ops are in `memory`, ops that need more than a line in `language_ops`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.fx

from ... import exc
from ... import language as hl
from ...ir.device_ir import AxisKind
from ...numbers import next_power_of_2
from ..expressions import literal
from .dtypes import smallest_k
from .dtypes import triton_dtype
from .emitter import KernelEmitter
from .emitter import Rules


def _tile_index(k: KernelEmitter, node: torch.fx.Node) -> None:
    axis = node.args[0].axis  # type: ignore[union-attr]
    name = k.index(axis)
    k.texts[node] = f"tl.full([1], 0, tl.int32) + {name}" if axis.kind is AxisKind.GRID else name


def _full(k: KernelEmitter, node: torch.fx.Node) -> None:
    shape, value, dtype, _ = node.args
    if isinstance(value, torch.fx.Node):
        text = f"{k.text(value)}.to({triton_dtype(dtype)})"  # type: ignore[arg-type]
        k.assign(node, f"tl.broadcast_to({text}, {k.shape(shape)})" if shape else text)  # type: ignore[arg-type]
        return
    if isinstance(value, (int, float)):
        if not dtype.is_floating_point:  # type: ignore[union-attr]
            value = bool(value) if dtype is torch.bool else int(value)
        text = literal(value)
    else:
        text = k.number(value)
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
    fused = isinstance(acc, torch.fx.Node) and acc.meta["val"].dtype is summed and acc.meta["val"].shape == result.shape
    if _extent(k, a_value.shape[-1]) < smallest_k(a_value.dtype):
        fused = False
        text = _short_product(k, left, right, a_value, summed)
    else:
        options = [f"out_dtype={triton_dtype(summed)}"]
        if a_value.dtype is torch.float32:
            options.append(f"input_precision={k.settings.dot_precision!r}")
        operands = [(left, a_value), (right, b_value), *([(k.text(acc), result)] if fused else [])]
        # Triton multiplies batches on slower units than matrices, so a batch of one is written as a matrix: the
        # reshapes are free.
        one_matrix = result.dim() > 2 and all(_extent(k, size) == 1 for size in result.shape[:-2])
        if one_matrix:
            operands = [(f"tl.reshape({text}, {k.shape(value.shape[-2:])})", value) for text, value in operands]
        text = f"tl.dot({', '.join([text for text, _ in operands] + options)})"
        if one_matrix:
            # A running sum stays where it is under a reshape. In other pipelined loops Triton's layout pass fails on a
            # reshape of a product, and indexing does.
            running = fused and acc.op == "placeholder"  # type: ignore[union-attr]
            text = (
                f"tl.reshape({text}, {k.shape(result.shape)})"
                if running
                else f"{text}[{'None, ' * (result.dim() - 2)}:, :]"
            )
    if isinstance(acc, torch.fx.Node) and not fused:
        text = (
            f"{text} + {k.text(acc)}"
            if acc.meta["val"].dtype is summed
            else f"{text} + {k.text(acc)}.to({triton_dtype(summed)})"
        )
    if result.dtype is not summed:
        text = f"({text}).to({triton_dtype(result.dtype)})"
    k.assign(node, text)


def _extent(k: KernelEmitter, size: Any) -> int:
    """A dimension's extent as a number."""
    if k.ir.env.block_of(size) is not None:
        return int(k.schedule.size(size))
    resolved = k.schedule.size(size)
    return k.padded(resolved) if isinstance(resolved, int) else next_power_of_2(size.node.hint)


def _short_product(k: KernelEmitter, left: str, right: str, a: torch.Tensor, summed: torch.dtype) -> str:
    """A product over fewer elements than tl.dot takes: multiplied and added up."""
    batch = ", ".join([":"] * (a.dim() - 2))
    comma = ", " if batch else ""
    wide = triton_dtype(summed)
    if _extent(k, a.shape[-1]) == 1:  # an outer product
        return f"{left}.to({wide}) * {right}.to({wide})"
    return (
        f"tl.sum({left}.to({wide})[{batch}{comma}:, :, None] * "
        f"{right}.to({wide})[{batch}{comma}None, :, :], {a.dim() - 1})"
    )


def _device_print(k: KernelEmitter, node: torch.fx.Node) -> None:
    prefix, values = node.args[0], node.args[1] if len(node.args) > 1 else ()
    operands = values if isinstance(values, (list, tuple)) else [values]
    k.statement(node, f"tl.device_print({', '.join([repr(prefix), *(k.text(v) for v in operands)])})")


def _join(k: KernelEmitter, node: torch.fx.Node) -> None:
    k.assign(node, f"tl.join({k.text(node.args[0])}, {k.text(node.args[1])})")


def _split(k: KernelEmitter, node: torch.fx.Node) -> None:
    names = [k.names.unique(name) for name in ("even", "odd")]
    k.statement(node, f"{', '.join(names)} = tl.split({k.text(node.args[0])})")
    k.results[node] = names


RULES: Rules = {
    hl.tile_index: _tile_index,
    hl.full: _full,
    hl.iota: _iota,
    hl.dot: _dot,
    hl.join: _join,
    hl.split: _split,
    hl.device_print: _device_print,
}
