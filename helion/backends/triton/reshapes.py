"""Views and reshapes in Triton, whose tensors have power-of-two extents.

Where the dimensions that change have such sizes, or only the outermost of them is padded, the padded tensors have their
elements in the same order and `tl.reshape` does it.  Elsewhere padding stands between the elements, and they are picked
with `tl.gather`.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
import torch.fx

from ... import exc
from ...ir.nodes import number
from ...ir.nodes import numbers
from ...ir.nodes import operand
from ...ir.nodes import tensor_of
from ..text import Text
from ..text import as_text
from ..text import call
from ..text import listed
from ..text import total
from .axes import along
from .axes import spread
from .dtypes import triton_dtype
from .emitter import KernelEmitter
from .emitter import Rules

_aten = torch.ops.aten


def emit_unsqueeze(k: KernelEmitter, node: torch.fx.Node) -> None:
    """aten.unsqueeze."""
    value, text = tensor_of(node), k.text(operand(node))
    if value.dim() > 1:
        at = number(node, 1) % value.dim()
        k.assign(node, text.at(", ".join("None" if i == at else ":" for i in range(value.dim()))))
    else:
        k.assign(node, call("tl.broadcast_to", text, "[1]"))  # also of a number


def emit_permute(k: KernelEmitter, node: torch.fx.Node) -> None:
    """aten.permute."""
    text, rank = k.text(operand(node)), tensor_of(node).dim()
    order = [d % rank for d in numbers(node, 1)]
    if order == list(range(rank)):
        k.assign(node, text)  # Triton permutes no scalar
    else:
        k.assign(node, call("tl.trans", text) if order == [1, 0] else call("tl.permute", text, order))


def emit_expand(k: KernelEmitter, node: torch.fx.Node) -> None:
    """aten.expand."""
    source, shape = operand(node), tensor_of(node).shape
    text, rank = k.text(source), tensor_of(source).dim()
    if rank:
        text = spread(text, len(shape) - rank, rank, len(shape))
    k.assign(node, call("tl.broadcast_to", text, k.shape(shape)))


def emit_reshape(k: KernelEmitter, node: torch.fx.Node) -> None:
    """aten.view and aten.squeeze.

    Raises:
        exc.BackendUnsupported: a tile's dimension is among those that change and one of them is padded.
    """
    source = operand(node)
    before, value, text = tensor_of(source), tensor_of(node), k.text(source)
    if value.dim() == 0:
        # Every dimension has one element: a sum over it is the element.
        for _ in range(before.dim()):
            text = call("tl.sum", text, 0)
        k.assign(node, text.to(triton_dtype(value.dtype)) if value.dtype is not torch.bool else text.differs(0))
    elif before.dim() == 0:
        k.assign(node, call("tl.broadcast_to", text, k.shape(value.shape)))
    elif _only_ones_change(before.shape, value.shape) or not _has_padding(k, (*before.shape, *value.shape)):
        k.assign(node, _reshaped(k, text, before.shape, value.shape))
    else:
        _emit_padded(k, node, _without_ones(before.shape), _without_ones(value.shape), text)


def _reshaped(k: KernelEmitter, text: Text, before: Sequence[Any], after: Sequence[Any]) -> Text:
    """`tl.reshape`, so that the result can be reduced."""
    text = call("tl.reshape", text, k.shape(after))
    mixes = _mixes(list(map(k.extents.known, before)), list(map(k.extents.known, after)))
    return k.helper("hlt_reducible", text) if mixes else text


def _mixes(old: list[int], new: list[int]) -> bool:
    """Whether a new dimension is of elements of several old ones: beside others, or all in less than a warp's lanes.

    >>> _mixes([4, 16, 8], [2, 32, 8]), _mixes([4, 16, 8], [512]), _mixes([4, 64], [4, 2, 32]), _mixes([4, 2], [8, 1])
    (True, False, False, True)
    """
    bounds = set(itertools.accumulate(reversed(old), operator.mul, initial=1))
    total, low = math.prod(new), 1
    for size in reversed(new):
        if (size != total or total < 32) and any(low < bound < low * size for bound in bounds):
            return True
        low *= size
    return False


def _only_ones_change(before: Sequence[Any], after: Sequence[Any]) -> bool:
    return list(map(str, _without_ones(before))) == list(map(str, _without_ones(after)))


def _without_ones(shape: Sequence[Any]) -> list[Any]:
    return [size for size in shape if not (isinstance(size, int) and size == 1)]


def _has_padding(k: KernelEmitter, sizes: Sequence[Any]) -> bool:
    return not all(map(k.extents.is_whole, sizes))


def _emit_padded(k: KernelEmitter, node: torch.fx.Node, before: list[Any], after: list[Any], text: Text) -> None:
    """Reshape the dimensions between those at both ends that stay as they are."""
    head = _common(before, after)
    tail = _common(before[head:][::-1], after[head:][::-1])
    source, value = tensor_of(operand(node)), tensor_of(node)
    shape = k.shape(value.shape)
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    if not _has_padding(k, (*old, *new)):
        k.assign(node, _reshaped(k, text, source.shape, value.shape))
        return
    old_extents, new_extents = ([k.extents.known(size) for size in sizes] for sizes in (old, new))
    old, new = _of_full_tiles(k, old), _of_full_tiles(k, new)
    if k.extents.part is not None or not 0 < math.prod(old) == math.prod(new):
        _refuse(k, before, after)
    if _same_order(old, old_extents, new, new_extents):
        k.assign(node, _reshaped(k, text, source.shape, value.shape))
        return
    outer, inner = ([k.extents(size) for size in sizes] for sizes in (before[:head], before[len(before) - tail :]))
    rank = head + 1 + tail
    if value.dtype is torch.bool:
        text = text.to("tl.int8")
    count, wanted = math.prod(old_extents), math.prod(new_extents)
    text = call("tl.reshape", text, listed([*outer, count, *inner]))
    if wanted > count:
        text = repeated(text, outer, count, inner, wanted // count)
    name = f"{'x'.join(map(str, old))}_as_{'x'.join(map(str, new))}"
    lanes = k.axes.range_of(wanted)
    flat = k.top.share(f"element_{name}", _weighted(lanes, new_extents, _strides(new)))
    weights = _weighted(flat, old, _strides(old_extents), _strides(old))
    places = along(k.top.share(f"place_{name}", weights), head, rank)
    where = call("tl.broadcast_to", places, listed([*outer, wanted, *inner]))
    text = call("tl.gather", text, where, head)
    fill = k.facts.padding_of(node, 0)
    coordinates = zip(new, new_extents, _strides(new_extents))
    inside = [lanes // stride % extent < size for size, extent, stride in coordinates if size != extent]
    if inside and isinstance(fill, (bool, int, float)):  # what the padding of a value has to hold, where it is known
        inside_all = functools.reduce(Text.__and__, inside)
        fill = int(fill) if isinstance(fill, bool) else fill
        text = call("tl.where", along(inside_all, head, rank), text, as_text(fill))
    text = call("tl.reshape", text, shape)
    k.assign(node, text.differs(0) if value.dtype is torch.bool else text)


def repeated(text: Text, outer: Sequence[object], count: int, inner: Sequence[object], times: int) -> Text:
    """A value of [*outer, count, *inner] repeated along the dimension between: Triton 3.7 fails to compile `tl.gather`
    with more places than elements (an assertion in OptimizeThreadLocality).
    """
    wide = listed([*outer, times, count, *inner])
    text = call("tl.broadcast_to", call("tl.expand_dims", text, len(outer)), wide)
    return call("tl.reshape", text, listed([*outer, count * times, *inner]))


def _of_full_tiles(k: KernelEmitter, sizes: Sequence[Any]) -> list[int]:
    """Sizes as they are where tiles are full: in one that is not, rows past its end move as the others do. 0 stands for
    one that the Config does not decide."""
    resolved = [k.schedule.size(size) for size in sizes]
    return [size if isinstance(size, int) else 0 for size in resolved]


def _common(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many leading sizes are the same."""
    return sum(1 for _ in itertools.takewhile(lambda pair: str(pair[0]) == str(pair[1]), zip(a, b)))


def _strides(sizes: Sequence[int]) -> list[int]:
    """Strides of a contiguous tensor."""
    return [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]


def _weighted(lanes: Text, sizes: Sequence[int], weights: Sequence[int], strides: Sequence[int] | None = None) -> Text:
    """The coordinates that `lanes` have in a tensor of `sizes`, as one number: their sum with weights."""
    terms = []
    for size, weight, stride in zip(sizes, weights, strides or _strides(sizes)):
        if size > 1:
            coordinate = (lanes if stride == 1 else lanes // stride) % size
            terms.append(coordinate if weight == 1 else coordinate * weight)
    return total(terms) if terms else lanes * 0


def _same_order(old: list[int], old_extents: list[int], new: list[int], new_extents: list[int]) -> bool:
    """Whether every element has the same place in both padded tensors."""
    if math.prod(old_extents) != math.prod(new_extents):
        return False

    def places(sizes: list[int], extents: list[int]) -> list[int]:
        strides = _strides(extents)
        return [sum(map(lambda i, stride: i * stride, at, strides)) for at in itertools.product(*map(range, sizes))]

    return places(old, old_extents) == places(new, new_extents)


def _refuse(k: KernelEmitter, before: Sequence[Any], after: Sequence[Any]) -> None:
    """Raise the error for a reshape of sizes that are not known, or of part of a tile."""
    size = next(size for size in (*before, *after) if _has_padding(k, [size]))
    shapes = [f"[{', '.join(map(str, shape))}]" for shape in (before, after)]
    readable = k.ir.device.space.readable
    reason = readable(f"a reshape from {shapes[0]} to {shapes[1]} involves a tile's dimension and one of {size}")
    fix = "reshape only dimensions of power-of-two size together with a tile's, or use several loops."
    if k.extents.part is not None:
        fix = "leave epilogue_subtile out of the Config."
    elif isinstance(size, torch.SymInt) and not isinstance(k.schedule.size(size), int):
        fix = f"make it a constant: call `hl.specialize({readable(str(size))})` before the loops."
    raise exc.BackendUnsupported(backend="triton", reason=f"{reason}, which is padded to a power of two", fix=fix)


RULES: Rules = {
    _aten.unsqueeze.default: emit_unsqueeze,
    _aten.permute.default: emit_permute,
    _aten.expand.default: emit_expand,
    _aten.view.default: emit_reshape,
    _aten.squeeze.dims: emit_reshape,
}
