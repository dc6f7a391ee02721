"""Building one torch.fx graph: which node computes which FakeTensor, and what a subgraph takes from its parent."""

from __future__ import annotations

from typing import Any

import torch
import torch.fx

from .. import _compat_torch
from ..ir.device_ir import GraphInfo


class GraphBuilder:
    """One graph under construction, inside another one unless it is a root."""

    def __init__(self, info: GraphInfo, parent: GraphBuilder | None) -> None:
        self.info = info
        self.graph = info.graph
        self.parent = parent
        self.inputs: list[torch.fx.Node] = []  # what the parent passes for each placeholder
        self._nodes: dict[int, torch.fx.Node] = {}
        self._kept: list[torch.Tensor] = []  # ids in `_nodes` stay valid
        self._shared: set[int] = set()
        self._last_placeholder: torch.fx.Node | None = None

    def own(self, value: torch.Tensor, node: torch.fx.Node) -> None:
        """Remember that `node` computes `value`."""
        self._nodes[id(value)] = node
        self._kept.append(value)

    def renamed(self, old: torch.fx.Node, new: torch.fx.Node) -> None:
        """Values of one node are another one's from here on."""
        self._nodes.update((key, new) for key, node in list(self._nodes.items()) if node is old)

    def share(self, value: torch.Tensor) -> None:
        """Remember that `value` shares its memory with another value, so that it is not private."""
        self._shared.add(id(value))
        self._kept.append(value)

    def is_private(self, value: torch.Tensor) -> bool:
        """Whether `value` was computed in this very graph and shares its memory with no other value."""
        node = self._nodes.get(id(value))
        if node is None or node.op == "placeholder" or id(value) in self._shared:
            return False
        memory = _compat_torch.storage_identity(value)
        return not any(v is not value and _compat_torch.storage_identity(v) == memory for v in self._kept)

    def node_of(self, value: torch.Tensor) -> torch.fx.Node | None:
        """The node that holds `value` in this graph; a value of an enclosing graph becomes a placeholder."""
        node = self._nodes.get(id(value))
        if node is not None or self.parent is None:
            return node
        outer = self.parent.node_of(value)
        if outer is None:
            return None
        return self.add_placeholder(outer, value)

    def add_placeholder(self, outer: torch.fx.Node, value: torch.Tensor, name: str | None = None) -> torch.fx.Node:
        """A placeholder for `value`, which is `outer` in the parent graph."""
        anchor = self._last_placeholder
        with self.graph.inserting_after(anchor) if anchor is not None else self.graph.inserting_before(self._first()):
            node = self.graph.placeholder(name or outer.name)
        self._last_placeholder = node
        node.meta.update(val=value, location=outer.meta.get("location"), user_name=outer.meta.get("user_name"))
        self.inputs.append(outer)
        self.own(value, node)
        return node

    def _first(self) -> torch.fx.Node:
        return next(iter(self.graph.nodes), self.graph._root)


def new_node(graph: torch.fx.Graph, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.fx.Node:
    """A call_function node.  Symbolic numbers stay as they are in its arguments: our symbols are defined by the
    graph's loops (`DeviceIR.origins`), so fx's advice to make nodes of them does not apply."""
    node = graph.call_function(target, ())
    node.args, node.kwargs = args, kwargs
    return node
