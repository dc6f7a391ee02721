"""What each node does to host memory: reads, writes, updates, of which tensor, at which index.

Everyone who may move, repeat or reorder an access, or has to order two of them, goes by these: the dependency check
(tiles that run at the same time), looped reductions (loads that are repeated), epilogues in parts (loads that move),
barriers inside one program (`conflict` of an earlier and a later touch).  Memory is told apart by storage, never by
name, so that two views of one tensor meet (`same_storage`); whether equal indices into two views mean equal elements
is for `matched` to say.  Arguments have a storage each, unless the call has been told that they overlap:
`assumed_apart` says between which of them that matters.

Not here: whether a conflict matters, which depends on who runs when.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping

import torch
import torch.fx

from .. import _compat_torch
from .._locks import cached_property
from ..language.indexing import IndexItem
from ..language.op import Effect
from .axes import index_items
from .device_ir import DeviceIR
from .device_ir import GraphInfo
from .nodes import HostTensorNode
from .nodes import Memory
from .nodes import op_of
from .nodes import tensor_of
from .symbols import expr_of


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

    @cached_property
    def storage(self) -> int:
        """Equal for tensors that share memory."""
        return storage_of(tensor_of(self.host.node))

    @property
    def writes(self) -> bool:
        return self.effect is not Effect.READ


def storage_of(tensor: torch.Tensor) -> int:
    """What memory a host tensor is in."""
    return _compat_torch.storage_identity(tensor)


def same_storage(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two host tensors may have elements in common."""
    return storage_of(a) == storage_of(b)


def matched(a: Memory, b: Memory) -> list[tuple[IndexItem, IndexItem]] | None:
    """The index elements of two accesses, dimension by dimension, where equal indices mean equal elements.

    Returns:
        None where they do not, as far as is known: other memory, or other views of it.
    """
    first, second = ([item for item in index_items(memory) if item.kind != "new"] for memory in (a, b))
    if a.name == b.name:
        return list(zip(first, second))
    x, y = a.tensor, b.tensor
    if not same_storage(x, y) or x.dtype is not y.dtype or expr_of(x.storage_offset()) != expr_of(y.storage_offset()):
        return None
    # By stride, so that a transposed view is the same, and one with a dimension of 1 more.
    by_stride = [_dims_by_stride(tensor, items) for tensor, items in ((x, first), (y, second))]
    if list(by_stride[0]) != list(by_stride[1]) or not all(by_stride):
        return None
    return list(zip(by_stride[0].values(), by_stride[1].values()))


def _dims_by_stride(tensor: torch.Tensor, items: list[IndexItem]) -> dict[tuple[str, str], IndexItem]:
    """(stride, size) of each dimension and its index element, in an order of theirs; empty if two are alike."""
    dims = [(str(tensor.stride(i.dim)), str(tensor.shape[i.dim]), i.dim, i) for i in items if tensor.shape[i.dim] != 1]
    found = {(stride, size): item for stride, size, _, item in sorted(dims, key=lambda dim: dim[:3])}
    return found if len(found) == len(dims) else {}


def conflict(earlier: Touch, later: Touch) -> bool:
    """Whether the order of two touches matters if they name a common element: same memory, and one of them stores.
    Updates do not mind each other."""
    return ordered(earlier.effect, later.effect) and earlier.storage == later.storage


def ordered(earlier: Effect, later: Effect) -> bool:
    """Whether the order of two uses of one element matters."""
    return not earlier is later is not Effect.WRITE


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


def assumed_apart(ir: DeviceIR, owners: Mapping[int, Collection[int]]) -> frozenset[tuple[int, int]]:
    """Pairs of arguments that the code takes to be apart: if they overlapped, it could be wrong.

    Args:
        ir: all graphs.
        owners: storage -> the arguments that lie in it.
    """
    uses: dict[int, set[Effect]] = {}
    for _, node in ir.nodes():
        for touch in touches_of(node):
            for argument in owners.get(touch.storage, ()):
                uses.setdefault(argument, set()).add(touch.effect)
    # Parts of one argument (a list of tensors) are not apart by themselves either.
    several = {argument for argument in uses if sum(argument in held for held in owners.values()) > 1}
    return frozenset(
        (a, b)
        for a in uses
        for b in uses
        if (a < b or (a == b and a in several)) and any(ordered(x, y) for x in uses[a] for y in uses[b])
    )
