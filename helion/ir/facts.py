"""What the analyses say about one device IR, as a value.

Graphs are shared, by the IR of a kernel and those in which some of its reductions are loops, and by threads that
generate code at the same time; so nothing that is found out about a node is written on it.
"""

from __future__ import annotations

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


class Facts:
    """What is known of an IR's nodes; each analysis runs when it is first asked for, as many kernels need none of one.

    Two threads that ask at once may both run it: the answers are alike, and no lock is held meanwhile.

    Args:
        ir: the device IR, closed.
    """

    def __init__(self, ir: DeviceIR) -> None:
        self._ir = ir
        self._axes: Mapping[torch.fx.Node, Axes] | None = None
        self._padding: Mapping[torch.fx.Node, Fills] | None = None
        self._merged: Mapping[sympy.Expr, Merged] | None = None

    @property
    def axes(self) -> Mapping[torch.fx.Node, Axes]:
        """The loop axis of each dimension of each value."""
        if self._axes is None:
            self._axes = find_axes(self._ir)
        return self._axes

    @property
    def padding(self) -> Mapping[torch.fx.Node, Fills]:
        """What each value holds past the end of each dimension."""
        if self._padding is None:
            self._padding = find_padding(self._ir)
        return self._padding

    @property
    def merged(self) -> Mapping[sympy.Expr, Merged]:
        """What sizes that reshapes make of a tile's and others are made of."""
        if self._merged is None:
            self._merged = find_merged(self._ir)
        return self._merged

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
