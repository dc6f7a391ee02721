"""Whose lanes index vectors have while tracing, views of them, and the lanes of slices: what `language.outer_index`
asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import sympy
import torch
import torch.fx

from .. import exc
from ..ir.device_ir import TracedTile
from ..ir.nodes import Full
from ..ir.nodes import Load
from ..ir.pointwise import CONVERT
from ..ir.symbols import OriginKind
from ..ir.symbols import expr_of
from ..ir.symbols import symbols_of
from ..language.alignment import vector_beside_its_tile
from ..language.creation import iota

if TYPE_CHECKING:
    from .tracer import Tracer

_aten = torch.ops.aten


class TracedLanes:
    """Answers by the sizes of vectors, which are those of tiles.

    Args:
        tracer: knows the loops around.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._space = tracer.env.space
        self._around = tracer.axes_around

    def is_single(self, vector: torch.Tensor) -> bool:
        size = vector.shape[0]
        return isinstance(size, int) and size == 1

    def same(self, left: torch.Tensor, right: torch.Tensor) -> bool:
        sizes = left.shape[0], right.shape[0]
        if all(map(self._space.is_host_value, sizes)):
            return True
        named = [self._space.axis_of(size) for size in sizes]
        if None not in named:
            return named[0] is named[1]
        if expr_of(sizes[0]) != expr_of(sizes[1]):
            return False
        symbols = symbols_of(sizes[0])
        if sum(axis.block.symbol in symbols for axis in self._around()) > 1:
            raise exc.InvalidAPIUsage(
                "index vectors of a block size that several tiles share: whose they are is not known",
                fix="add dimensions: `x[rows[:, None], cols[None, :]]` is every row with every column.",
            )
        return True

    def lanes(self, start: Any, stop: Any, step: int, size: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Indices `start`, `start + step`, ... below `stop`, and which of them a dimension of `size` has.

        Raises:
            exc.SizeNotConstant: the bounds are not a compile-time length apart.
        """
        length, clipped, own = self._length(start, stop)
        count = length if step == 1 else (length + (step - 1)) // step
        wide = isinstance(start, torch.Tensor) and start.dtype is torch.int64  # what is outside must not come in again
        index = iota(start, count, step, torch.int64 if wide else self._tracer.index_dtype)
        known = all(type(number) is int for number in (start, stop, size))
        if known and start >= 0 and stop <= size:
            return index, None
        inside = (index >= 0) & (index < size)
        if own is not None:
            inside = inside & (index < start + own)
        return index, inside & (index < stop) if clipped else inside

    def on_host(self, bounds: Sequence[Any]) -> bool:
        env = self._tracer.env
        return all(
            bound is None
            or (
                (isinstance(bound, (int, torch.SymInt)) and env.space.is_host_value(bound))
                and not env.is_read(symbols_of(bound))
            )
            for bound in bounds
        )

    def both(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left & right

    def _length(self, start: Any, stop: Any) -> tuple[Any, bool, Any]:
        """How far bounds are apart, whether that is the most of it (`t.begin : t.end` has a tile's lanes), and how far
        where the last tile ends early, if a tile's length is in it (`t.begin - 1 : t.begin + t.block_size + 1`).
        """
        (start_values, start_rest), (stop_values, stop_rest) = map(self._linear, (start, stop))
        length = sympy.expand(stop_rest - start_rest)
        self._tracer.env.check_constant([self._tracer.env.size_of(length)])
        whole = length.xreplace({a.clipped_end.node.expr: a.offset.node.expr + a.block.symbol for a in self._around()})
        whole = sympy.expand(whole)
        origins = [self._space.origins.get(symbol) for symbol in whole.free_symbols]
        kinds = (OriginKind.HOST, OriginKind.BLOCK_SIZE, OriginKind.TUNABLE)
        if start_values != stop_values or any(origin is None or origin.kind not in kinds for origin in origins):
            raise exc.SizeNotConstant(
                what="the length of a slice",
                value="bounds known only while the kernel runs",
                fix=(
                    "slice a constant length and mask what is beyond (extra_mask=), or loop over the range: "
                    "`for t in hl.tile(begin, end)`."
                ),
            )
        if whole.is_Integer:
            return max(int(whole), 0), whole != length, None
        of_block = [axis for axis in self._around() if axis.block.symbol == whole]
        # Of several tiles of one block size the slice has the lanes of the one whose place its bounds name.
        named = [axis for axis in of_block if axis.offset.node.expr in start_rest.free_symbols]
        if of_block:
            return (named[0].size if len(named) == 1 else of_block[-1].block.var), whole != length, None
        ends = {}
        for axis in self._around():
            if axis.block.symbol not in ends or axis.offset.node.expr in start_rest.free_symbols:
                ends[axis.block.symbol] = axis.clipped_end.node.expr - axis.offset.node.expr
        own = self._tracer.env.size_of(whole.xreplace(ends)) if ends.keys() & whole.free_symbols else None
        return self._tracer.env.size_of(whole), whole != length, own

    def _linear(self, value: Any) -> tuple[dict[Any, int], sympy.Expr]:
        """An integer as a sum of loaded scalars, each so many times, and a number."""
        if not isinstance(value, torch.Tensor):
            return {}, expr_of(value)
        return self._linear_node(self._tracer.operand(value))

    def _linear_node(self, node: Any) -> tuple[dict[Any, int], sympy.Expr]:
        if not isinstance(node, torch.fx.Node):
            return {}, expr_of(node)
        args: tuple[Any, ...] = node.args
        if node.target is CONVERT and not args[0].meta["val"].dtype.is_floating_point:
            return self._linear_node(args[0])
        if (full := Full.match(node)) is not None:
            return self._linear_node(full.value)
        if node.target in (_aten.add.Tensor, _aten.sub.Tensor):
            (values, rest), (other_values, other_rest) = map(self._linear_node, args[:2])
            alpha: Any = node.kwargs.get("alpha", 1)
            sign = alpha if node.target is _aten.add.Tensor else -alpha
            total = {n: values.get(n, 0) + sign * other_values.get(n, 0) for n in {**values, **other_values}}
            return {n: count for n, count in total.items() if count}, rest + sign * other_rest
        if node.target is _aten.mul.Tensor:
            numbers = [arg for arg in args if type(arg) is int]
            if len(numbers) == 1:
                (factor,), (other,) = numbers, (arg for arg in args if type(arg) is not int)
                values, rest = self._linear_node(other)
                return {n: count * factor for n, count in values.items()}, rest * factor
        return {node: 1}, sympy.Integer(0)


def note_on_pairs(tracer: Tracer) -> str | None:
    """What to mind about the loads so far, where shapes do not fit: vectors of one tile, and one beside its tile."""
    space, builder = tracer.env.space, tracer.builder
    while builder is not None:
        for node in builder.graph.nodes:
            access = Load.match(node)
            if access is None:
                continue
            vectors = [e.meta["val"].shape[0] for e in access.index if _is_vector(e)]
            axes = [axis for axis in map(space.axis_of, vectors) if axis is not None]
            beside = [e.axis for e in access.index if isinstance(e, TracedTile) and e.axis in axes]
            if beside:
                return vector_beside_its_tile(beside[0].name)
            if len(set(map(id, axes))) < len(axes):
                t = axes[0].name
                return (
                    f"`x[i[{t}], j[{t}]]` pairs; `x[i[{t}][:, None], j[{t}][None, :]]` is every row with every column."
                )
        builder = builder.parent
    return None


def _is_vector(element: Any) -> bool:
    return (
        isinstance(element, torch.fx.Node) and isinstance(v := element.meta.get("val"), torch.Tensor) and v.dim() == 1
    )


def arranged(value: torch.Tensor, dims: Sequence[int | None]) -> torch.Tensor:
    """A view with the dimensions of `value` in this order, and new ones."""
    kept = [d for d in dims if d is not None]
    if kept != sorted(kept):
        value = torch.permute(value, kept)
    for place, dim in enumerate(dims):
        if dim is None:
            value = torch.unsqueeze(value, place)
    return value
