"""Kinds of nodes: the control targets, and typed views that give a node's arguments by name.

`Load.of(node).extra_mask` instead of `node.args[2]`, `Load.match(node)` instead of a look at the target's name.  A view
is a thin wrapper made on the spot; it holds nothing but the node.  Attributes are called like the parameters of the
op or control target.

Views by what an op *does* (`Memory`, `Product`, `Combining`) are of every op that declares it: analyses go by these, so
that they know new ops.

Not here: what analyses find out about a node.
"""

from __future__ import annotations

import functools
import inspect
import operator
from typing import TYPE_CHECKING
from typing import Any
from typing import ClassVar

import torch
import torch.fx

from ..language.creation import full
from ..language.matmul import dot
from ..language.matmul import dot_scaled
from ..language.memory import load
from ..language.memory import store
from ..language.op import Access
from ..language.op import Effect
from ..language.op import Op
from ..language.op import Product as ProductFact
from ..language.tile import Tile
from ..language.tile import tile_index
from .reduction_ops import REDUCTIONS
from .reduction_ops import Reduction as ReductionKind
from .reduction_ops import reduced_dim

if TYPE_CHECKING:
    from typing_extensions import Self

# -- control targets ---------------------------------------------------------------------------------------


def host_tensor(name: str) -> torch.Tensor:
    """The host tensor called `name` (a key of `DeviceIR.host_tensors`), as an operand of load/store/atomics."""
    raise AssertionError("IR target, not callable")


def for_loop(graph_id: int, begins: list[Any], ends: list[Any], inputs: list[Any]) -> tuple[Any, ...]:
    """A loop over the axes of graph `graph_id`, or, without axes, one that runs while its first input is true.

    Args:
        graph_id: index into `DeviceIR.graphs`; a graph of kind LOOP or WHILE.
        begins, ends: one bound per axis: a number or a node holding a 0-d integer tensor.
        inputs: initial values of the graph's placeholders.  Placeholder i with `graph.carried[i] = j` takes the
            graph's output j in the next iteration, the others are the same in every iteration.

    Returns:
        The carried values after the last iteration, in the order of the graph's outputs.
    """
    raise AssertionError("IR target, not callable")


def if_else(test: Any, then_id: int, else_id: int, then_inputs: list[Any], else_inputs: list[Any]) -> tuple[Any, ...]:
    """A branch on a scalar (a 0-d bool tensor or a symbolic bool).

    Runs graph `then_id` on `then_inputs` or graph `else_id` on `else_inputs`; both return alike.
    """
    raise AssertionError("IR target, not callable")


GETITEM = operator.getitem


# -- reading nodes -----------------------------------------------------------------------------------------


def tensor_of(node: Any) -> torch.Tensor:
    """The FakeTensor that a node computes."""
    value = node.meta["val"]
    assert isinstance(value, torch.Tensor), f"{node} holds no tensor"
    return value


def operand(node: torch.fx.Node, position: int = 0) -> torch.fx.Node:
    """An argument that is a node."""
    found = node.args[position]
    assert isinstance(found, torch.fx.Node), f"argument {position} of {node} is no node"
    return found


def number(node: torch.fx.Node, position: int) -> int:
    """An argument that is an integer known while compiling: a dimension, a flag."""
    found = node.args[position]
    assert isinstance(found, int), f"argument {position} of {node} is no integer"
    return found


def numbers(node: torch.fx.Node, position: int) -> list[int]:
    """An argument that is a list of such integers."""
    found: Any = node.args[position]
    return list(found)


def copy_of(graph: torch.fx.Graph, node: torch.fx.Node, args: tuple[Any, ...], target: Any = None) -> torch.fx.Node:
    """A node of another graph that computes what `node` does, or calls `target`; `meta["origin"]` is the node that the
    first of several copies was made from."""
    copy = graph.create_node(node.op, target or node.target, (), {}, name=node.name)
    copy.args = args  # given to create_node, a symbolic number is warned of
    if node.kwargs:
        copy.kwargs = dict(node.kwargs)
    copy.meta.update(node.meta, origin=node.meta.get("origin", node))
    return copy


def op_of(node: Any) -> Op | None:
    """The language op that a node calls."""
    target = getattr(node, "target", None)
    return target if isinstance(target, Op) else None


class _Argument:
    """The argument of the parameter that the attribute is called like."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, view: View, owner: type) -> Any:
        return view.node.args[_positions(view.node.target)[self.name]]


def _argument() -> Any:
    return _Argument()


def _positions(target: Any) -> dict[str, int]:
    return target.positions if isinstance(target, Op) else _CONTROL[target]


_CONTROL = {
    target: {name: i for i, name in enumerate(inspect.signature(target).parameters)}
    for target in (host_tensor, for_loop, if_else)
}


class _Known(dict[Any, bool]):
    """What `View.knows` says of each target."""

    def __init__(self, view: type[View]) -> None:
        self._view = view

    def __missing__(self, target: Any) -> bool:
        self[target] = known = self._view.knows(target)
        return known


class View:
    """A node of a known kind.

    Attributes:
        node: the node.
    """

    #: What the nodes call that the class is a view of.
    targets: ClassVar[tuple[Any, ...]] = ()
    #: Target -> whether nodes that call it are of this kind: asked of every node, many times over.
    _known: ClassVar[_Known]

    def __init_subclass__(cls) -> None:
        cls._known = _Known(cls)

    def __init__(self, node: torch.fx.Node) -> None:
        self.node = node

    @classmethod
    def knows(cls, target: Any) -> bool:
        """Whether nodes that call `target` are of this kind."""
        return target in cls.targets

    @classmethod
    def match(cls, node: object) -> Self | None:
        """The view of a node; None if it is of another kind, or no node."""
        if isinstance(node, torch.fx.Node) and node.op == "call_function" and cls._known[node.target]:
            return cls(node)
        return None

    @classmethod
    def of(cls, node: object) -> Self:
        """The view of a node that is known to be of this kind."""
        view = cls.match(node)
        assert view is not None, f"{node} is no {cls.__name__}"
        return view

    @property
    def result(self) -> torch.Tensor:
        """The FakeTensor that the node computes."""
        return tensor_of(self.node)


class HostTensorNode(View):
    """A host tensor, which is a name to device code."""

    targets = (host_tensor,)
    name: str = _argument()


class ForLoop(View):
    targets = (for_loop,)
    graph_id: int = _argument()
    begins: list[Any] = _argument()
    ends: list[Any] = _argument()
    inputs: list[Any] = _argument()


class IfElse(View):
    targets = (if_else,)
    test: Any = _argument()
    then_id: int = _argument()
    else_id: int = _argument()
    then_inputs: list[Any] = _argument()
    else_inputs: list[Any] = _argument()


class Item(View):
    """One result of a node that has several."""

    targets = (GETITEM,)

    @property
    def source(self) -> torch.fx.Node:
        return operand(self.node)

    @property
    def index(self) -> int:
        return number(self.node, 1)


# -- language ops ------------------------------------------------------------------------------------------


class OpView(View):
    """A call of a language op: of `targets`, or of any that declares what `declares` asks for."""

    @classmethod
    def knows(cls, target: Any) -> bool:
        return target in cls.targets if cls.targets else isinstance(target, Op) and cls.declares(target)

    @classmethod
    def declares(cls, op: Op) -> bool:
        """Whether calls of `op` are of this kind."""
        return False

    @property
    def op(self) -> Op:
        op = op_of(self.node)
        assert op is not None
        return op


class Memory(OpView):
    """An access to memory, of any op that declares one.

    Attributes:
        index: one element per dimension of the host tensor: nodes, tiles, numbers, slices, None.
        extra_mask: a node, or None.
    """

    index: list[Any] = _argument()
    extra_mask: torch.fx.Node | None = _argument()

    @classmethod
    def declares(cls, op: Op) -> bool:
        return op.access is not None

    @property
    def access(self) -> Access:
        """Where the op's arguments stand."""
        access = self.op.access
        assert access is not None
        return access

    @property
    def effect(self) -> Effect:
        return self.access.effect

    @property
    def host(self) -> HostTensorNode:
        """The host tensor; where there are `addresses`, one that is like those which are accessed."""
        return HostTensorNode.of(self.node.args[0])

    @property
    def name(self) -> str:
        """Name of the host tensor."""
        return self.host.name

    @property
    def tensor(self) -> torch.Tensor:
        """FakeTensor of the host tensor."""
        return tensor_of(self.node.args[0])

    @property
    def values(self) -> list[Any]:
        """What is written or takes part in an update: nodes or numbers."""
        return [self.node.args[i] for i in self.access.values_at]

    @property
    def addresses(self) -> torch.fx.Node | None:
        """Addresses of what is accessed instead of the host tensor."""
        at = self.access.addresses_at
        return None if at is None else operand(self.node, at)

    def set_index(self, index: list[Any]) -> None:
        """Give the node another index."""
        at = self.access.index_at
        self.node.args = (*self.node.args[:at], index, *self.node.args[at + 1 :])


class Load(Memory):
    targets = (load,)
    eviction_policy: str | None = _argument()


class Store(Memory):
    targets = (store,)
    value: Any = _argument()


class Atomic(Memory):
    """A read-modify-write; a CAS has two `values`."""

    sem: str = _argument()

    @classmethod
    def declares(cls, op: Op) -> bool:
        return op.access is not None and op.access.effect is Effect.UPDATE


class Product(OpView):
    """A matrix product, of any op that declares one."""

    acc: torch.fx.Node | None = _argument()

    @classmethod
    def declares(cls, op: Op) -> bool:
        return op.product is not None

    @property
    def fact(self) -> ProductFact:
        fact = self.op.product
        assert fact is not None
        return fact

    @property
    def a(self) -> torch.fx.Node:
        return operand(self.node, self.fact.a_at)

    @property
    def b(self) -> torch.fx.Node:
        return operand(self.node, self.fact.b_at)


class Dot(Product):
    targets = (dot,)


class DotScaled(Product):
    targets = (dot_scaled,)
    a_scale: torch.fx.Node | None = _argument()
    fmt_a: str = _argument()
    b_scale: torch.fx.Node | None = _argument()
    fmt_b: str = _argument()


class Combining(OpView):
    """A reduction or scan with a combine function, which is a graph."""

    @classmethod
    def declares(cls, op: Op) -> bool:
        return op.combine_at is not None

    @property
    def at(self) -> int:
        """Position of the combine function."""
        at = self.op.combine_at
        assert at is not None
        return at

    @property
    def graph_id(self) -> int:
        return number(self.node, self.at)


class Full(OpView):
    targets = (full,)
    shape: list[Any] = _argument()
    value: Any = _argument()
    dtype: torch.dtype = _argument()


class TileIndex(OpView):
    targets = (tile_index,)
    tile: Tile = _argument()


@functools.cache
def graph_arguments(target: Any) -> tuple[int, ...]:
    """The positions of a target's arguments that are ids of graphs."""
    if target is if_else:
        return _CONTROL[if_else]["then_id"], _CONTROL[if_else]["else_id"]
    if target is for_loop:
        return (_CONTROL[for_loop]["graph_id"],)
    at = target.combine_at if isinstance(target, Op) else None
    return () if at is None else (at,)


# -- ATen ops ----------------------------------------------------------------------------------------------


class Reduction(View):
    """A reduction over one dimension."""

    targets = tuple(REDUCTIONS)

    @property
    def kind(self) -> ReductionKind:
        target: Any = self.node.target
        return REDUCTIONS[target]

    @property
    def source(self) -> torch.fx.Node:
        return operand(self.node)

    @property
    def dim(self) -> int:
        return reduced_dim(self.node)

    @property
    def keepdim(self) -> bool:
        return bool(self.node.args[2])
