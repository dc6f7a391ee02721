"""The emitter with its rules: which function prints a node, by the node's target.

The rules are next to what they have in common: `memory`, `loops`, `reductions`, `reshapes`, `ops` (pointwise ones),
`device_ops` and `language_ops`.  A new op is a row in one of their tables.
"""

from __future__ import annotations

import torch.fx

from ... import exc
from ...ir.device_ir import GraphInfo
from ...ir.device_ir import host_tensor
from ...ir.nodes import HostTensorNode
from ..text import Text
from . import device_ops
from . import language_ops
from . import loops
from . import memory
from . import ops
from . import reductions
from . import reshapes
from . import special
from .emitter import KernelEmitter
from .emitter import Rules
from .epilogue import SMALLEST_PART
from .epilogue import SplitEpilogue
from .epilogue import emit_epilogue
from .epilogue import epilogues
from .numbers import is_double

_TABLES = (ops, special, reshapes, reductions, loops, memory, device_ops, language_ops)
RULES: Rules = {target: rule for table in _TABLES for target, rule in table.RULES.items()}


class Lowering(KernelEmitter):
    """Prints graphs by `RULES`."""

    def graph(self, info: GraphInfo) -> None:
        parts = self.schedule.epilogue_parts
        in_parts = {e.store: e for e in epilogues(self.ir.device, self.facts, info)} if parts > 1 else {}
        later = {step for epilogue in in_parts.values() for step in epilogue.steps}
        for node in info.graph.nodes:
            if node.target is host_tensor:
                self.set_text(node, Text(HostTensorNode.of(node).name))
            if node.op != "call_function" or node.target is host_tensor or node in later:
                continue
            if node in self.barriers.before:
                self.scope.add("tl.debug_barrier()")
            if node in in_parts:
                emit_epilogue(self, in_parts[node], self._parts_of(in_parts[node], parts))
            else:
                self.node(node)

    def _parts_of(self, epilogue: SplitEpilogue, parts: int) -> int:
        """In how many parts an epilogue is done: fewer where they would be too narrow."""
        width = self.schedule.block_size(epilogue.axis)
        while parts > 1 and width < parts * SMALLEST_PART:
            parts //= 2
        return parts

    def node(self, node: torch.fx.Node) -> None:
        self.numbers.in_double = is_double(node) or any(map(is_double, node.all_input_nodes))
        try:
            rule = RULES.get(node.target)
            if rule is None:
                raise exc.BackendUnsupported(
                    backend="triton",
                    reason=f"there is no Triton form of {node.target}",
                    fix="compute it in host code, or from other ops.",
                )
            rule(self, node)
        except exc.BaseError as error:
            if error.location is None:
                error.location = node.meta.get("location")
            raise
