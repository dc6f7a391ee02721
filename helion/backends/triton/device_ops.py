"""Triton text of the language ops that make and multiply tiles.

Memory ops are in `memory`, ops that need more than a line in `language_ops`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.fx

from ... import exc
from ... import language as hl
from ...ir.device_ir import AxisKind
from ...ir.device_ir import TracedTile
from ...ir.nodes import Dot
from ...ir.nodes import Full
from ...ir.nodes import Load
from ...ir.nodes import TileIndex
from ...ir.nodes import operand
from ...ir.nodes import tensor_of
from ...settings import DOT_PRECISIONS
from ..text import Text
from ..text import call
from ..text import listed
from .axes import along
from .axes import spread
from .dtypes import FLOATS8
from .dtypes import SMALLEST_SIDE
from .dtypes import cast
from .dtypes import is_negative_zero
from .dtypes import negative_zero
from .dtypes import smallest_k
from .dtypes import triton_dtype
from .emitter import KernelEmitter
from .emitter import Rules


def _tile_index(k: KernelEmitter, node: torch.fx.Node) -> None:
    tile = TileIndex.of(node).tile
    assert isinstance(tile, TracedTile)
    axis, index = tile.axis, k.axes.index(tile.axis)
    k.set_text(node, call("tl.full", "[1]", 0, "tl.int32") + index if axis.kind is AxisKind.GRID else index)


def _full(k: KernelEmitter, node: torch.fx.Node) -> None:
    full = Full.of(node)
    value = full.value
    if isinstance(value, torch.fx.Node):
        text = cast(k.text(value), tensor_of(value).dtype, full.dtype, k.helper)
        k.assign(node, call("tl.broadcast_to", text, k.shape(full.shape)) if full.shape else text)
        return
    if isinstance(value, (int, float)) and not full.dtype.is_floating_point:
        value = bool(value) if full.dtype is torch.bool else int(value)
    made = torch.float32 if full.dtype in FLOATS8 else full.dtype
    if is_negative_zero(value) and made.is_floating_point:
        text = negative_zero(made, k.shape(full.shape))
    else:
        text = call("tl.full", k.shape(full.shape), k.number(value), triton_dtype(made))
    k.assign(node, cast(text, made, full.dtype, k.helper) if made is not full.dtype else text)


def _iota(k: KernelEmitter, node: torch.fx.Node) -> None:
    start, length, step, dtype = node.args
    if not isinstance(k.schedule.size(length), int) and not k.ir.device.space.is_host_value(length):
        raise exc.SizeNotConstant(what="the length of hl.arange", value=length)
    text = call("tl.arange", 0, k.extents(length))
    if dtype is not torch.int32:
        text = text.to(triton_dtype(tensor_of(node).dtype))
    if step != 1:
        text = text * k.text(step)
    k.assign(node, text if isinstance(start, int) and start == 0 else k.text(start) + text)


def _dot(k: KernelEmitter, node: torch.fx.Node) -> None:
    dot = Dot.of(node)
    acc, result = dot.acc, dot.result
    a, b = tensor_of(dot.a), tensor_of(dot.b)
    left, right = k.masked(dot.a, a.dim() - 1, 0), k.masked(dot.b, b.dim() - 2, 0)
    integer = not a.dtype.is_floating_point
    summed = torch.int32 if integer else torch.float64 if a.dtype is torch.float64 else torch.float32
    fused = acc is not None and tensor_of(acc).dtype is summed and tensor_of(acc).shape == result.shape
    fused = fused and not _is_batch_of_columns(k, result)
    fused = fused and all(_side(k, result, dim) == k.extents.known(result.shape[dim]) for dim in (-2, -1))
    if k.extents.known(a.shape[-1]) == 1:  # an outer product
        fused = False
        text = left.to(triton_dtype(summed)) * right.to(triton_dtype(summed))
    else:
        left, right = (
            k.helper("hlt_opaque", text) if _is_laid_out_as_loaded(k, operand, a) else text
            for operand, text in ((dot.a, left), (dot.b, right))
        )
        text = _product(k, [(left, a), (right, b)], acc if fused else None, result, summed)
        if node in k.waited and summed is torch.float32:
            text = k.helper("hlt_apart", text)
    if acc is not None and not fused:
        text = text + (k.text(acc) if tensor_of(acc).dtype is summed else k.text(acc).to(triton_dtype(summed)))
    k.assign(node, text if result.dtype is summed else text.to(triton_dtype(result.dtype)))


def _is_laid_out_as_loaded(k: KernelEmitter, node: torch.fx.Node, a: torch.Tensor) -> bool:
    """Whether Triton would lay an operand out for the width at which it was loaded, and go wrong.

    In float64 it asserts.  Elsewhere each thread gets 32 bits of what was loaded side by side, of joined values half as
    wide: 8 elements from bytes, which are 32 of the four threads of a row.  Where the product has 16, others are taken.

    Args:
        node: the operand.
        a: the product's left operand.
    """
    if Load.match(node) or not a.dtype.is_floating_point:
        return False
    if a.dtype is torch.float64:
        return True
    if a.dtype.itemsize == 1 or k.extents.known(a.shape[-1]) > smallest_k(a.dtype):
        return False
    waiting, seen = [node], {node}
    while waiting:
        source = waiting.pop()
        if Load.match(source):
            if tensor_of(source).dtype.itemsize == 1:
                return True
            continue
        waiting.extend(new := [n for n in source.all_input_nodes if n not in seen])
        seen.update(new)
    return False


def _product(
    k: KernelEmitter,
    operands: list[tuple[Text, torch.Tensor]],
    acc: torch.fx.Node | None,
    result: torch.Tensor,
    summed: torch.dtype,
) -> Text:
    """tl.dot, added to `acc` if there is one."""
    options: dict[str, object] = {"out_dtype": triton_dtype(summed)}
    if operands[0][1].dtype is torch.float32:
        precision = k.settings.dot_precision
        options["input_precision"] = repr(DOT_PRECISIONS.get(precision, precision))
    if acc is not None:
        operands = [*operands, (k.text(acc), result)]
    # Triton multiplies batches on slower units than matrices, so a batch of one is written as a matrix: the reshapes
    # are free.  Of several dimensions of a batch it takes one.
    batch = result.shape[:-2]
    as_matrices = bool(batch) and all(k.extents.known(size) == 1 for size in batch)
    lead = [] if as_matrices or not batch else [math.prod(map(k.extents.known, batch))]
    texts = [
        text
        if len(lead) == len(batch)
        else call("tl.reshape", text, listed([*lead, *map(k.extents, value.shape[-2:])]))
        for text, value in operands
    ]
    at, depth = len(lead), smallest_k(operands[0][1].dtype)
    shapes = [[*lead, *map(k.extents.known, value.shape[-2:])] for _, value in operands[:2]]
    rows, columns = shapes[0][at], shapes[1][at + 1]
    high, wide = _side(k, result, -2), _side(k, result, -1)
    for i, dim, wanted in ((0, at + 1, depth), (1, at, depth), (0, at, high), (1, at + 1, wide)):
        if shapes[i][dim] < wanted:
            texts[i] = _lengthened(texts[i], shapes[i], operands[i][1].dtype, dim, wanted)
            shapes[i][dim] = wanted
    if _is_batch_of_columns(k, result):
        texts[1] = call("tl.broadcast_to", texts[1], listed([*lead, max(shapes[1][at], depth), 2]))
        text = k.helper("hlt_either_column", call("tl.dot", *texts, **options))
    else:
        text = call("tl.dot", *texts, **options)
    text = _shortened(text, [*shapes[0][: at + 1], columns], wide, at + 1)
    text = _shortened(text, [*lead, rows, columns], high, at)
    if len(lead) == len(batch):
        return text
    if lead:
        return call("tl.reshape", text, k.shape(result.shape))
    # A running sum stays where it is under a reshape. In other pipelined loops Triton's layout pass fails on a reshape
    # of a product, and indexing does.
    if acc is not None and acc.op == "placeholder":
        return call("tl.reshape", text, k.shape(result.shape))
    return text.at(f"{'None, ' * len(batch)}:, :")


def _is_batch_of_columns(k: KernelEmitter, result: torch.Tensor) -> bool:
    """Whether a product gives several matrices of one column: Triton 3.6 and 3.7 lose those of a program but the first
    of each warp.  With the column twice they are right.
    """
    several = any(k.extents.known(size) != 1 for size in result.shape[:-2])
    return several and k.extents.known(result.shape[-1]) == 1


def _side(k: KernelEmitter, result: torch.Tensor, dim: int) -> int:
    """How many rows or columns Triton is given of a product, which must be enough for it."""
    size = result.shape[dim]
    extent = k.extents.known(size)
    # A constant size that is not padded where the operand is made (`spec.dot_extents`).
    return max(extent, SMALLEST_SIDE) if isinstance(size, int) and size > 1 else extent


def _shortened(text: Text, extents: list[int], padded: int, dim: int) -> Text:
    """A product of few rows or columns, without what `_lengthened` put between them.

    Args:
        text: the product.
        extents: what it is to have.
        padded: what it has in dimension `dim`.
    """
    if padded == extents[dim]:
        return text
    zeros = padded // extents[dim]
    spread = call("tl.reshape", text, [*extents[: dim + 1], zeros, *extents[dim + 1 :]])
    lanes = _along(zeros, dim + 1, len(extents) + 1)
    return call("tl.sum", call("tl.where", lanes, spread, 0), dim + 1)


def _along(count: int, dim: int, rank: int) -> Text:
    """Whether an element is the first of `count` along a dimension."""
    return along(call("tl.arange", 0, count), dim, rank).equals(0)


def _lengthened(text: Text, extents: list[int], dtype: torch.dtype, dim: int, wanted: int) -> Text:
    """An operand of a product over few elements, with zeros between them so that they are enough for tl.dot.

    A sum of products instead will not do: Triton makes a product of tensor cores of it all the same, in tf32, and over
    2 or 4 elements counts each of them several times.

    Args:
        text: the operand.
        extents, dtype: its own.
        dim: the dimension that has too few.
        wanted: how many it is to have.
    """
    places = [":"] * len(extents)
    after = ", ".join([*places[: dim + 1], "None", *places[dim + 1 :]])
    zeros = wanted // extents[dim]
    lanes = _along(zeros, dim + 1, len(extents) + 1)
    spread = call("tl.where", lanes, text.at(after), call("tl.zeros", [1], triton_dtype(dtype)))
    return call("tl.reshape", spread, [*extents[:dim], wanted, *extents[dim + 1 :]])


def _device_print(k: KernelEmitter, node: torch.fx.Node) -> None:
    prefix, values = node.args[0], node.args[1] if len(node.args) > 1 else ()
    operands: Any = values if isinstance(values, (list, tuple)) else [values]
    bounds = [[v.begin, v.end] if isinstance(v, TracedTile) else [v] for v in operands]
    k.statement(node, call("tl.device_print", repr(prefix), *(k.text(v) for values in bounds for v in values)))


def _join(k: KernelEmitter, node: torch.fx.Node) -> None:
    value = tensor_of(node)
    left, right = map(k.text, node.args)
    if k.extents.known(value.shape[-1]) == 2:
        k.assign(node, call("tl.join", left, right))
        return
    place = _places_of_pair(k, node)
    left, right = (spread(text, 0, value.dim() - 1, value.dim()) for text in (left, right))
    k.assign(node, call("tl.where", place.equals(0), left, call("tl.where", place.equals(1), right, 0)))


def _split(k: KernelEmitter, node: torch.fx.Node) -> None:
    source = operand(node)
    value = tensor_of(source)
    if k.extents.known(value.shape[-1]) == 2:
        k.assign_several(node, call("tl.split", k.text(source)), ["even", "odd"])
        return
    place = _places_of_pair(k, source)
    halves = [
        call("tl.sum", call("tl.where", place.equals(i), k.text(source), 0), value.dim() - 1).to(
            triton_dtype(value.dtype)
        )
        for i in (0, 1)
    ]
    k.assign_several(node, Text(", ".join(map(str, halves))), ["even", "odd"])


def _places_of_pair(k: KernelEmitter, node: torch.fx.Node) -> Text:
    """Places along the last dimension of a value, of two elements, which a product elsewhere has padded."""
    value = tensor_of(node)
    return along(call("tl.arange", 0, k.extents(value.shape[-1])), value.dim() - 1, value.dim())


RULES: Rules = {
    hl.tile_index: _tile_index,
    hl.full: _full,
    hl.iota: _iota,
    hl.dot: _dot,
    hl.join: _join,
    hl.split: _split,
    hl.device_print: _device_print,
    hl.lanes_of: lambda k, node: k.set_text(node, k.text(node.args[0])),  # a tile's lanes are all of its block
}
