"""What each node does to host memory: reads, writes, updates, of which tensor, at which index.

Everyone who may move, repeat or reorder an access, or has to order two of them, goes by these: the dependency check
(tiles that run at the same time), looped reductions (loads that are repeated), epilogues in parts (loads that move),
barriers inside one program (`conflict` of an earlier and a later touch).  Memory is told apart by storage, so that
two views of one tensor meet.

Not here: whether a conflict matters, which depends on who runs when.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch.fx

from .. import _compat_torch
from ..language.op import Effect
from .device_ir import DeviceIR
from .device_ir import GraphInfo
from .nodes import HostTensorNode
from .nodes import Memory
from .nodes import op_of
from .nodes import tensor_of


@dataclasses.dataclass(frozen=True, eq=False)
class Touch:
    """One use of a host tensor by a node.

    Attributes:
        node: who uses it.
        host: the tensor; where the node accesses `addresses`, the one that they are like.
        effect: how.  An op of the user's own (`hl.inline_triton`, ...) that is handed a tensor counts as writing it.
        memory: the access, None for an op that does as it likes with the tensor.
    """

    node: torch.fx.Node
    host: HostTensorNode
    effect: Effect
    memory: Memory | None

    @property
    def name(self) -> str:
        """The host tensor's name."""
        return self.host.name

    @property
    def storage(self) -> int:
        """Equal for tensors that share memory."""
        return _compat_torch.storage_identity(tensor_of(self.host.node))

    @property
    def writes(self) -> bool:
        return self.effect is not Effect.READ


def conflict(earlier: Touch, later: Touch) -> bool:
    """Whether the order of two touches matters if they name a common element: same memory, and one of them stores.
    Updates do not mind each other."""
    harmless = earlier.effect is later.effect is not Effect.WRITE
    return not harmless and earlier.storage == later.storage


def touches_of(node: torch.fx.Node) -> list[Touch]:
    """The uses of host tensors by one node, those inside its subgraphs left out."""
    memory, op = Memory.match(node), op_of(node)
    if memory is not None:
        return [Touch(node, memory.host, memory.effect, memory)]
    effect = Effect.WRITE if op is not None and op.has_side_effect else Effect.READ
    hosts = map(HostTensorNode.match, node.all_input_nodes)
    return [Touch(node, host, effect, None) for host in hosts if host is not None]


def touches(ir: DeviceIR, info: GraphInfo) -> Iterator[Touch]:
    """The uses of host tensors in a graph and its subgraphs, in order."""
    for node in info.graph.nodes:
        yield from touches_of(node)
        for sub in ir.subgraphs_of(node):
            yield from touches(ir, sub)


def written_storages(ir: DeviceIR) -> frozenset[int]:
    """Memory that device code writes: reading it may not move behind a write."""
    return frozenset(
        touch.storage for info in ir.graphs for n in info.graph.nodes for touch in touches_of(n) if touch.writes
    )
