"""Dimensions that reshapes make of a tile's and others, and whether the elements of a partial tile come first in them.

Not here: which loop a dimension of a tile's own size runs over (`axes`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from collections.abc import Sequence

import sympy
import torch
import torch.fx

from .device_ir import DeviceIR
from .nodes import Full
from .symbols import shape_exprs

_aten = torch.ops.aten


@dataclasses.dataclass(frozen=True)
class Merged:
    """What a size such as `8 * t` is made of.

    Attributes:
        block: the tile's size.
        each: elements for each of the tile's.
        in_order: all of a tile's first element come before those of its second, so that a tile which ends early has
            the first lanes of the dimension.
    """

    block: sympy.Symbol
    each: int
    in_order: bool


def find_merged(ir: DeviceIR) -> Mapping[sympy.Expr, Merged]:
    """The sizes that reshapes alone make of a tile's. Where another op makes it too (`hl.arange(2 * t.block_size)`) a
    dimension may be as long as a full tile, whatever its range, so the size is not among them.
    """
    blocks = {block.symbol for block in ir.space.blocks}
    found: dict[sympy.Expr, Merged] = {}
    others: set[sympy.Expr] = set()
    for _, node in ir.nodes():
        value = node.meta.get("val")
        if node.op != "call_function" or not isinstance(value, torch.Tensor) or Full.match(node):
            continue  # what is the same everywhere has the lanes of what it meets: a mean counts ones
        sources = [
            shape_exprs(v.shape) for n in node.all_input_nodes if isinstance(v := n.meta.get("val"), torch.Tensor)
        ]
        for size in shape_exprs(value.shape):
            block = next(iter(size.free_symbols), None)
            each = None if block is None else size / block
            if block not in blocks or not isinstance(each, sympy.Integer) or any(size in shape for shape in sources):
                continue
            if node.target is not _aten.view.default:
                others.add(size)
                continue
            merged = Merged(block, int(each), _begins_group(sources[0], block, size))
            before = found.setdefault(size, merged)
            found[size] = dataclasses.replace(merged, in_order=merged.in_order and before.in_order)
    return {size: merged for size, merged in found.items() if size not in others and merged.each > 1}


def _begins_group(shape: Sequence[sympy.Expr], block: sympy.Symbol, size: sympy.Expr) -> bool:
    """Whether the dimensions that are merged begin with the tile's."""
    first = next((i for i, expr in enumerate(shape) if block in expr.free_symbols), len(shape))
    ends = range(first + 1, len(shape) + 1)
    return any(sympy.expand(math.prod(shape[first:end])) == size for end in ends)
