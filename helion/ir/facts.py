"""What the analyses say about one device IR, as a value.

Graphs are shared, by the IR of a kernel and those in which some of its reductions are loops, and by threads that
generate code at the same time; so nothing that is found out about a node is written on it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import sympy
import torch.fx

from .axes import Axes
from .axes import find_axes
from .device_ir import DeviceIR
from .masking import UNKNOWN
from .masking import Fill
from .masking import Fills
from .masking import find_padding
from .masking import is_fill
from .merged import Merged
from .merged import find_merged


@dataclasses.dataclass(frozen=True, eq=False)
class Facts:
    """Made by `analyse`.

    Attributes:
        axes: the loop axis of each dimension of each value.
        padding: what each value holds past the end of each dimension.
        merged: what sizes that reshapes make of a tile's and others are made of.
    """

    axes: Mapping[torch.fx.Node, Axes]
    padding: Mapping[torch.fx.Node, Fills]
    merged: Mapping[sympy.Expr, Merged]

    def axes_of(self, node: Any) -> Axes:
        """The axes of a node's dimensions; empty for numbers."""
        return self.axes.get(node, ()) if isinstance(node, torch.fx.Node) else ()

    def padding_of(self, node: torch.fx.Node, dim: int) -> Fill:
        """What a node holds past the end of a dimension."""
        fills = self.padding.get(node)
        return fills[dim] if fills else UNKNOWN

    def padding_is(self, node: torch.fx.Node, dim: int, wanted: Any) -> bool:
        """Whether the padding along `dim` is known to be `wanted`."""
        return is_fill(self.padding_of(node, dim), wanted)


def analyse(ir: DeviceIR) -> Facts:
    """All facts about an IR."""
    return Facts(find_axes(ir), find_padding(ir), find_merged(ir))
