"""Views and reshapes in Triton, whose tensors have power-of-two extents.

Where the dimensions that change have such sizes, or only the outermost of them is padded, the padded tensors have their
elements in the same order and `tl.reshape` does it.  Elsewhere padding stands between the elements, and they are picked
with `tl.gather`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.fx

from ... import exc
from ..expressions import literal
from .dtypes import triton_dtype
from .emitter import KernelEmitter
from .emitter import Rules

_aten = torch.ops.aten


def emit_unsqueeze(k: KernelEmitter, node: torch.fx.Node) -> None:
    """aten.unsqueeze."""
    value, text = node.meta["val"], k.text(node.args[0])
    if value.dim() > 1:
        at = node.args[1] % value.dim()  # type: ignore[operator]
        k.assign(node, f"{text}[{', '.join('None' if i == at else ':' for i in range(value.dim()))}]")
    elif value.dtype is torch.bool:
        k.assign(node, f"tl.expand_dims({text}, 0)")
    else:
        k.assign(node, f"tl.full([1], 0, {triton_dtype(value.dtype)}) + {text}")


def emit_permute(k: KernelEmitter, node: torch.fx.Node) -> None:
    """aten.permute."""
    text, rank = k.text(node.args[0]), node.meta["val"].dim()
    order = [d % rank for d in node.args[1]]  # type: ignore[union-attr]
    k.assign(node, f"tl.trans({text})" if order == [1, 0] else f"tl.permute({text}, {order})")


def emit_expand(k: KernelEmitter, node: torch.fx.Node) -> None:
    """aten.expand."""
    value, text = node.meta["val"], k.text(node.args[0])
    rank = node.args[0].meta["val"].dim()  # type: ignore[union-attr]
    missing = value.dim() - rank
    if missing and rank:
        text = f"{text}[{', '.join(['None'] * missing + [':'] * rank)}]"
    k.assign(node, f"tl.broadcast_to({text}, {k.shape(value.shape)})")


def emit_reshape(k: KernelEmitter, node: torch.fx.Node) -> None:
    """aten.view and aten.squeeze.

    Raises:
        exc.BackendUnsupported: a tile's dimension is among those that change and one of them is padded.
    """
    source: torch.fx.Node = node.args[0]  # type: ignore[assignment]
    before, value, text = source.meta["val"], node.meta["val"], k.text(source)
    if value.dim() == 0:
        # Every dimension has one element: a sum over it is the element.
        for _ in range(before.dim()):
            text = f"tl.sum({text}, 0)"
        k.assign(node, f"{text}.to({triton_dtype(value.dtype)})" if value.dtype is not torch.bool else f"{text} != 0")
    elif before.dim() == 0:
        k.assign(node, f"tl.broadcast_to({text}, {k.shape(value.shape)})")
    elif _only_ones_change(before.shape, value.shape) or not _has_padding(k, (*before.shape, *value.shape)):
        k.assign(node, f"tl.reshape({text}, {k.shape(value.shape)})")
    else:
        _emit_padded(k, node, _without_ones(before.shape), _without_ones(value.shape), text)


def _only_ones_change(before: Sequence[Any], after: Sequence[Any]) -> bool:
    return list(map(str, _without_ones(before))) == list(map(str, _without_ones(after)))


def _without_ones(shape: Sequence[Any]) -> list[Any]:
    return [size for size in shape if not (isinstance(size, int) and size == 1)]


def _has_padding(k: KernelEmitter, sizes: Sequence[Any]) -> bool:
    resolved = [k.schedule.size(size) for size in sizes]
    return not all(isinstance(size, int) and k.padded(size) == size for size in resolved)


def _emit_padded(k: KernelEmitter, node: torch.fx.Node, before: list[Any], after: list[Any], text: str) -> None:
    """Reshape the dimensions between those at both ends that stay as they are."""
    head = _common(before, after)
    tail = _common(before[head:][::-1], after[head:][::-1])
    shape = k.shape(node.meta["val"].shape)
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    if not all(isinstance(size, int) for size in (*old, *new)):
        if not _has_padding(k, (*old, *new)):
            k.assign(node, f"tl.reshape({text}, {shape})")
            return
        _refuse(k, before, after)
    old_extents, new_extents = ([k.padded(size) for size in sizes] for sizes in (old, new))
    if _same_order(old, old_extents, new, new_extents):
        k.assign(node, f"tl.reshape({text}, {shape})")
        return
    outer, inner = ([k.extent(size) for size in sizes] for sizes in (before[:head], before[len(before) - tail :]))
    rank = head + 1 + tail
    is_bool = node.meta["val"].dtype is torch.bool
    if is_bool:
        text = f"{text}.to(tl.int8)"
    count, wanted = math.prod(old_extents), math.prod(new_extents)
    text = f"tl.reshape({text}, [{', '.join([*outer, str(count), *inner])}])"
    if wanted > count:  # Triton 3.7 does not compile `tl.gather` with more places than elements
        wide = ", ".join([*outer, str(wanted // count), str(count), *inner])
        text = (
            f"tl.reshape(tl.broadcast_to(tl.expand_dims({text}, {head}), [{wide}]), "
            f"[{', '.join([*outer, str(wanted), *inner])}])"
        )
    name = f"{'x'.join(map(str, old))}_as_{'x'.join(map(str, new))}"
    lanes = k.whole_range(wanted)
    flat = _weighted(lanes, new_extents, _strides(new))
    flat_name = k.kernel_scope.define(f"element_{name}", flat)
    places = k.kernel_scope.define(f"place_{name}", _weighted(flat_name, old, _strides(old_extents), _strides(old)))
    where = f"tl.broadcast_to({k.along(places, head, rank)}, [{', '.join([*outer, str(wanted), *inner])}])"
    text = f"tl.gather({text}, {where}, {head})"
    fill = next(iter(node.meta.get("padding") or [None]))
    if isinstance(fill, (bool, int, float)):  # what the padding of a value whose padding is known has to hold
        inside = " & ".join(
            f"({lanes} // {stride} % {extent} < {size})"
            for size, extent, stride in zip(new, new_extents, _strides(new_extents))
            if size != extent
        )
        text = (
            f"tl.where({k.along(f'({inside})', head, rank)}, {text}, "
            f"{literal(fill) if not isinstance(fill, bool) else int(fill)})"
        )
    text = f"tl.reshape({text}, {shape})"
    k.assign(node, f"{text} != 0" if is_bool else text)


def _common(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many leading sizes are the same."""
    return sum(1 for _ in itertools.takewhile(lambda pair: str(pair[0]) == str(pair[1]), zip(a, b)))


def _strides(sizes: Sequence[int]) -> list[int]:
    """Strides of a contiguous tensor."""
    return [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]


def _weighted(lanes: str, sizes: Sequence[int], weights: Sequence[int], strides: Sequence[int] | None = None) -> str:
    """The coordinates that `lanes` have in a tensor of `sizes`, as one number: their sum with weights."""
    terms = []
    for size, weight, stride in zip(sizes, weights, strides or _strides(sizes)):
        if size > 1:
            coordinate = f"{lanes} % {size}" if stride == 1 else f"{lanes} // {stride} % {size}"
            terms.append(coordinate if weight == 1 else f"{coordinate} * {weight}")
    return " + ".join(terms) or f"{lanes} * 0"


def _same_order(old: list[int], old_extents: list[int], new: list[int], new_extents: list[int]) -> bool:
    """Whether every element has the same place in both padded tensors."""
    if math.prod(old_extents) != math.prod(new_extents):
        return False

    def places(sizes: list[int], extents: list[int]) -> list[int]:
        strides = _strides(extents)
        return [sum(map(lambda i, stride: i * stride, at, strides)) for at in itertools.product(*map(range, sizes))]

    return places(old, old_extents) == places(new, new_extents)


def _refuse(k: KernelEmitter, before: Sequence[Any], after: Sequence[Any]) -> None:
    size = next(size for size in (*before, *after) if _has_padding(k, [size]))
    shapes = [f"[{', '.join(map(str, shape))}]" for shape in (before, after)]
    reason = f"a reshape from {shapes[0]} to {shapes[1]} involves a tile's dimension and one of {size}"
    raise exc.BackendUnsupported(
        backend="triton",
        reason=f"{k.ir.device.readable(reason)}, which is padded to a power of two",
        fix="reshape only dimensions of power-of-two size together with a tile's, or use several loops.",
    )


RULES: Rules = {
    _aten.unsqueeze.default: emit_unsqueeze,
    _aten.permute.default: emit_permute,
    _aten.expand.default: emit_expand,
    _aten.view.default: emit_reshape,
    _aten.squeeze.dims: emit_reshape,
}
