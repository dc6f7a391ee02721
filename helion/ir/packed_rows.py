"""Rows that stay in registers as they were loaded, in 16 bits, and are made float32 anew each time they are gone over.

Softmax goes over a row three times, for its maximum, its sum and its result.  As float32 from the first to the last, a
row of 65,536 elements takes all registers of a multiprocessor and more; as it was loaded it takes half of them.  So
what was computed of a loaded row before a reduction, and is used after it, is computed again, from the row as something
that the compiler does not recognise: it would keep the first result otherwise.

Not here: rows that are not in registers (`reductions`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import sympy
import torch
import torch.fx

from .device_ir import DeviceIR
from .device_ir import GraphInfo
from .nodes import Load
from .nodes import Reduction
from .nodes import copy_of
from .pointwise import AGAIN
from .pointwise import POINTWISE
from .symbols import shape_exprs

_aten = torch.ops.aten
_PACKED = frozenset({torch.bfloat16, torch.float16})
_VIEWS = frozenset({_aten.unsqueeze.default, _aten.permute.default, _aten.expand.default})
#: What takes longer than reading a register that was spilled.
_DEAR = frozenset(getattr(_aten, name).default for name in ("erf", "erfc", "tanh", "sin", "cos", "log1p", "lgamma"))

#: Whether values of a shape fill the registers.
IsLong = Callable[[Sequence[sympy.Expr]], bool]


def pack_rows(ir: DeviceIR, is_long: IsLong) -> DeviceIR:
    """An IR whose long rows are held as they were loaded.

    Args:
        ir: the device IR.
        is_long: whether float32 values of a shape are too much to be held.

    Returns:
        `ir` itself if it holds none, else a copy; each node's `meta["origin"]` is the node it was made from.
    """
    graphs = [_Packer(info, is_long).run() for info in ir.graphs]
    same = all(new is old for new, old in zip(graphs, ir.graphs, strict=True))
    return ir if same else dataclasses.replace(ir, graphs=graphs)


def packable(ir: DeviceIR) -> list[tuple[sympy.Expr, ...]]:
    """Shapes of what a kernel loads in 16 bits, if it reduces anything."""
    loads = [load.result for load in ir.views(Load)] if ir.views(Reduction) else []
    return list(dict.fromkeys(shape_exprs(value.shape) for value in loads if value.dtype in _PACKED))


class _Packer:
    def __init__(self, info: GraphInfo, is_long: IsLong) -> None:
        self.info = info
        self.long = {node for node in info.graph.nodes if _has_shape(node, is_long)}
        #: How many reductions of rows, one after the other, a value needs.
        self.stage: dict[torch.fx.Node, int] = {}
        self.renewable: dict[torch.fx.Node, None] = {}
        for node in info.graph.nodes if self.long else ():
            later = (self.stage[source] + self._reduces(source) for source in node.all_input_nodes)
            self.stage[node] = max(later, default=0)
            if node in self.long and self._is_renewable(node):
                self.renewable[node] = None
        for node in reversed(self.renewable):
            # A weight may be loaded with the row and be used at the end only.
            users = (self.stage[user] for user in node.users)
            self.stage[node] = max(self.stage[node], min(users, default=0))
        self.graph = torch.fx.Graph()
        self.table: dict[torch.fx.Node, torch.fx.Node] = {}
        self.renewed: dict[tuple[torch.fx.Node, int], torch.fx.Node] = {}

    def run(self) -> GraphInfo:
        if not any(self._is_late(node, source) for node in self.stage for source in node.all_input_nodes):
            return self.info
        for node in self.info.graph.nodes:
            if node.op == "output":
                self.graph.output(torch.fx.node.map_arg(node.args[0], lambda n: self.table[n]))
            else:
                self.table[node] = self._copy(node, node)
        return dataclasses.replace(self.info, graph=self.graph)

    def _reduces(self, node: torch.fx.Node) -> bool:
        reduction = Reduction.match(node)
        return reduction is not None and reduction.source in self.long and node not in self.long

    def _is_renewable(self, node: torch.fx.Node) -> bool:
        """Whether a row is computed from packed rows, and numbers of the row, alone."""
        if load := Load.match(node):
            return load.node.meta["val"].dtype in _PACKED
        rows = [source for source in node.all_input_nodes if source in self.long]
        cheap = (node.target in POINTWISE and node.target not in _DEAR) or node.target in _VIEWS
        return cheap and bool(rows) and all(row in self.renewable for row in rows)

    def _is_late(self, node: torch.fx.Node, source: torch.fx.Node) -> bool:
        """Whether a node uses a row when a later reduction than the row's own has been done."""
        return node.op != "output" and source in self.renewable and self.stage[source] < self.stage[node]

    def _copy(self, node: torch.fx.Node, user: torch.fx.Node) -> torch.fx.Node:
        """What computes a node for a user, which may be of a later stage."""
        stage = self.stage[user]

        def source(n: torch.fx.Node) -> torch.fx.Node:
            return self._renew(n, user) if n in self.renewable and self.stage[n] < stage else self.table[n]

        args = torch.fx.node.map_arg(node.args, source)
        return copy_of(self.graph, node, args)

    def _renew(self, node: torch.fx.Node, user: torch.fx.Node) -> torch.fx.Node:
        """A row as the users of a stage have it."""
        key = node, self.stage[user]
        if key not in self.renewed:
            if Load.match(node):
                name = f"{node.name}_again"
                again = self.graph.create_node("call_function", AGAIN, (self.table[node],), {}, name=name)
                again.meta.update(val=node.meta["val"], location=user.meta.get("location"))
                self.renewed[key] = again
            else:
                self.renewed[key] = self._copy(node, user)
        return self.renewed[key]


def _has_shape(node: torch.fx.Node, is_long: IsLong) -> bool:
    value: Any = node.meta.get("val")
    return node.op == "call_function" and isinstance(value, torch.Tensor) and is_long(shape_exprs(value.shape))
