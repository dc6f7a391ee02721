"""Choices between values by which of two positions comes first, as causal attention makes them, in loops with products.

Only tiles that the diagonal goes through have to choose: for the others the comparison is the same everywhere.  On an
H100 causal attention that chooses in every tile takes 1.12 to 1.24 times as long.  Here: where there is such a choice.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.fx

from ...ir.device_ir import Axis
from ...ir.device_ir import AxisKind
from ...ir.device_ir import GraphKind
from ...ir.device_ir import TracedTile
from ...ir.nodes import TileIndex
from ...ir.nodes import operand
from ...ir.nodes import tensor_of
from ...ir.symbols import shape_exprs
from ..text import Text
from .emitter import KernelEmitter
from .schedule import multiplies

_aten = torch.ops.aten
_SPREAD = frozenset({_aten.unsqueeze.default, _aten.expand.default})
#: Comparison -> which operand is the lower one, and whether it may be as high as the other.
_ORDERED: dict[Any, tuple[int, bool]] = {
    _aten.lt.Tensor: (0, False),
    _aten.le.Tensor: (0, True),
    _aten.gt.Tensor: (1, False),
    _aten.ge.Tensor: (1, True),
}


def kept_off_diagonal(k: KernelEmitter, node: torch.fx.Node) -> tuple[torch.fx.Node, Text] | None:
    """What `torch.where` leaves as it is in tiles that the diagonal does not touch.

    Returns:
        The operand that it is equal to there, and a test of whether the current tile is another one; None where `node`
        compares no positions of a loop with products and one around it.
    """
    info = next((info for info in k.ir.device.graphs if info.graph is node.graph), None)
    compared = operand(node)
    if (
        info is None
        or info.kind is not GraphKind.LOOP
        or compared.target not in _ORDERED
        or k.extents.flat
        or node in k.updates
    ):
        return None
    axes = [_axis_of(argument) for argument in compared.args]
    if sum(axis in info.axes for axis in axes) != 1 or not multiplies(k.ir.device, info):
        return None
    low_at, may_equal = _ORDERED[compared.target]
    for place in (1, 2):  # where it is true everywhere, and nowhere
        value = node.args[place]
        if isinstance(value, torch.fx.Node) and _is_alike(value, node):
            low, high = axes[low_at], axes[1 - low_at]
            if place == 2:
                low, high, may_equal = high, low, not may_equal
            if low is None or high is None:
                return None
            last = k.axes.start(high) + 1 if may_equal else k.axes.start(high)
            return value, k.axes.start(low) + k.axes.block(low) > last
    return None


def _is_alike(value: torch.fx.Node, node: torch.fx.Node) -> bool:
    a, b = tensor_of(value), tensor_of(node)
    return a.dtype is b.dtype and shape_exprs(a.shape) == shape_exprs(b.shape)


def _axis_of(value: Any) -> Axis | None:
    """The axis whose indices a value is."""
    while isinstance(value, torch.fx.Node) and value.target in _SPREAD:
        value = operand(value)
    index = TileIndex.match(value) if isinstance(value, torch.fx.Node) else None
    tile = None if index is None else index.tile
    return tile.axis if isinstance(tile, TracedTile) and tile.axis.kind is not AxisKind.GRID else None
