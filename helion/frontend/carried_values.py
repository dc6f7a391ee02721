"""What a device loop carries from iteration to iteration."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from .. import exc
from ..ir.symbols import is_symbolic
from ..language.shapes import same_shape
from .frames import Poison
from .graph_builder import GraphBuilder
from .padding import narrow_placeholder


def is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) or is_symbolic(value)


def blank_like(value: torch.Tensor) -> torch.Tensor:
    """A FakeTensor of the same shape, dtype and device; empty_like would work out a layout, which tiles do not have."""
    return torch.empty(value.shape, dtype=value.dtype, device=value.device)


def describe(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype}{[str(s) for s in value.shape]}".replace("torch.", "").replace("'", "")
    return type(value).__name__


@dataclasses.dataclass(eq=False)
class Carried:
    """One name a loop carries: a tensor, or a tuple/list of them."""

    name: str
    spec: Any
    outer: list[torch.Tensor]
    inner: list[torch.Tensor] = dataclasses.field(default_factory=list)
    placeholders: list[torch.fx.Node] = dataclasses.field(default_factory=list)

    def enter(self, flow: Any, builder: GraphBuilder) -> None:
        """Bind the name to placeholders of the loop's graph."""
        assert builder.parent is not None
        for value in self.outer:
            node = builder.parent.node_of(value)
            if node is None:
                raise exc.HostTensorDirectUsage(name=flow.tracer.name_of_host_tensor(value) or self.name)
            with flow.tracer.paused():
                fresh = blank_like(value)
            if id(value) in flow.begun:
                flow.begun[id(fresh)] = fresh, flow.begun[id(value)][1]
            self.inner.append(fresh)
            self.placeholders.append(builder.add_placeholder(node, fresh, self.name))
        flow.frame.device[self.name] = pytree.tree_unflatten(self.inner, self.spec)

    @staticmethod
    def tensors(value: Any) -> list[torch.Tensor]:
        """The tensors that a value of the variable holds."""
        return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]

    def new_leaf(self, flow: Any, leaf: int, value: Any, kept: Sequence[torch.fx.Node | None]) -> torch.Tensor:
        """The value of one leaf at the end of the body, checked against the one at its start; `kept`: the nodes of all
        that the loop carries on."""
        if isinstance(value, Poison):
            raise exc.UndefinedVariable(name=self.name, hint=value.why)
        leaves, spec = pytree.tree_flatten(value)
        old = self.inner[leaf]
        if spec != self.spec:
            raise exc.CantCombineTypesInControlFlow(
                name=self.name, left=describe(pytree.tree_unflatten(self.inner, self.spec)), right=describe(value)
            )
        new = leaves[leaf]
        if is_number(new):
            new = flow.tracer.scalar_tensor(new, old.dtype)
        if not isinstance(new, torch.Tensor):
            raise exc.CantCombineTypesInControlFlow(name=self.name, left=describe(old), right=describe(new))
        if new.dtype is old.dtype and not same_shape(new.shape, old.shape):
            placeholder, outer = self.placeholders[leaf], self.outer[leaf]
            if narrow_placeholder(flow.tracer, placeholder, outer, new.shape, kept):
                old = self.inner[leaf] = placeholder.meta["val"]
        if new.dtype is not old.dtype or not same_shape(new.shape, old.shape):
            raise exc.ControlFlowTensorMismatch(
                name=self.name,
                where="from one iteration of the loop to the next",
                before=describe(old),
                after=describe(new),
                dtype=old.dtype,
                fix=flow.begin_with(self.name, old, new),
            )
        return new

    def rebuilt(self) -> Any:
        return pytree.tree_unflatten(self.outer, self.spec)
