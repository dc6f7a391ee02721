"""Dimensions that reshapes make of a tile's and others, and which of their elements are of which of the tile's.

Not here: which loop a dimension of a tile's own size runs over (`axes`).
"""

from __future__ import annotations

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


#: What a size such as `8 * t` is made of: for each tile's size in it, how many elements follow each other that are of
#: one of the tile's; its element is then `(lane // those) % block`. None where that is not known.
Merged = Mapping[sympy.Symbol, sympy.Expr] | None


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
        shape = shape_exprs(value.shape)
        for place, size in enumerate(shape):
            made = bool(size.free_symbols) and size.free_symbols <= blocks and size not in blocks
            if not made or any(size in source for source in sources):
                continue
            if node.target is not _aten.view.default:
                others.add(size)
                continue
            merged = _parts(sources[0], shape, place)
            found[size] = merged if found.get(size, merged) == merged else None
    return {size: merged for size, merged in found.items() if size not in others}


def _parts(source: Sequence[sympy.Expr], shape: Sequence[sympy.Expr], place: int) -> Merged:
    """What a reshape makes a dimension of: the tiles' whose elements are apart by steps along it alone."""
    step, parts = math.prod(shape[place + 1 :]), {}
    for dim, size in enumerate(source):
        if not size.free_symbols & shape[place].free_symbols:
            continue
        inner = math.prod(source[dim + 1 :])
        after, before = sympy.sympify(inner) / step, shape[place] * step / (inner * size)
        if size in parts or not size.is_Symbol or any(sympy.fraction(rest)[1] != 1 for rest in (after, before)):
            return None
        parts[size] = after
    return parts  # without the tiles that are one
