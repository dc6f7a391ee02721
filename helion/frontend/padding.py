"""Values with a dimension of `helion.next_power_of_2(n)` elements beside ones of n: the first n of them count.

Kernels for GPUs make accumulators so.  It is taken where the longer value was made of constants (`hl.zeros`, `hl.full`,
`hl.arange`): of one that was loaded the sizes more likely are a mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import torch
import torch.fx

from ..ir.nodes import Full
from ..ir.nodes import Memory
from ..ir.nodes import op_of
from ..ir.pointwise import CONVERT
from ..ir.pointwise import POINTWISE
from ..language.creation import iota
from ..language.views import lanes_of
from ..numbers import next_power_of_2

if TYPE_CHECKING:
    from .graph_builder import GraphBuilder
    from .tracer import Tracer

_aten = torch.ops.aten
_MADE = frozenset({_aten.unsqueeze.default, _aten.expand.default, _aten.permute.default, CONVERT, *POINTWISE})


def shorter(tracer: Tracer, value: torch.Tensor, sizes: Sequence[Any]) -> tuple[list[Any], bool]:
    """The sizes of a value, those of `sizes`, from the right, in place of what they are padded to; whether there are
    any."""
    found, changed = list(value.shape), False
    for place, wanted in zip(range(value.dim() - 1, -1, -1), reversed(sizes)):
        if not isinstance(found[place], int) or found[place] < 2 or found[place] is wanted:
            continue
        n = tracer.env.space.hint(wanted)
        if n is None or n < 2 or not n < found[place] == next_power_of_2(n):
            continue
        builder = tracer.builder
        node = None if builder is None else builder.node_of(value)
        if builder is not None and node is not None and _is_made(builder, node, found[place]):
            found[place], changed = wanted, True
    return found, changed


def _is_made(builder: GraphBuilder, node: torch.fx.Node, size: int) -> bool:
    """Whether the elements along dimensions of a size come from no memory."""
    if node.op == "placeholder":
        if builder.parent is None:
            return False
        outer = builder.inputs[builder.info.placeholders.index(node)]
        return _is_made(builder.parent, outer, size)
    if Memory.match(node):
        return False
    if Full.match(node) or node.target is iota:
        return True
    long = [source for source in node.all_input_nodes if _has(source, size)]
    known = node.target in _MADE or ((op := op_of(node)) is not None and op.elementwise)
    return known and all(_is_made(builder, source, size) for source in long)


def _has(node: torch.fx.Node, size: int) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and any(isinstance(s, int) and s == size for s in value.shape)


def narrow_placeholder(
    tracer: Tracer,
    placeholder: torch.fx.Node,
    value: torch.Tensor,
    sizes: Sequence[Any],
    kept: Sequence[torch.fx.Node | None],
) -> bool:
    """Give a carried value fewer elements from the start: those that everything made of it takes.

    Args:
        tracer: inside the loop.
        placeholder: of the carried value in the loop's graph.
        value: the one outside.
        sizes: what the body makes of it.
        kept: what the loop carries to its next iteration.

    Returns:
        False where the other elements are used as well, or the sizes are no padding.
    """
    builder = tracer.current()
    assert builder.parent is not None
    if len(sizes) != value.dim() or not placeholder.users:
        return False
    whole = _whole_until_cut(placeholder, sizes)
    if whole is None or any(node in whole for node in kept):
        return False
    tracer.builder = builder.parent
    try:
        narrowed = lanes_of(value, list(sizes))
        outer = builder.parent.node_of(narrowed)
    finally:
        tracer.builder = builder
    assert outer is not None
    builder.inputs[builder.info.placeholders.index(placeholder)] = outer
    for node in whole:
        with tracer.paused():
            old = node.meta["val"]
            node.meta["val"] = torch.empty(narrowed.shape, dtype=old.dtype, device=old.device)
        builder.own(node.meta["val"], node)  # what a jagged loop keeps of it is read once more
        for user in [user for user in node.users if user.target is lanes_of]:
            user.replace_all_uses_with(node)
            builder.renamed(user, node)
            builder.graph.erase_node(user)
    return True


def _whole_until_cut(placeholder: torch.fx.Node, sizes: Sequence[Any]) -> list[torch.fx.Node] | None:
    """The values of a placeholder's shape that are computed from it element by element until `lanes_of` cuts them to
    `sizes`; None if one of them goes elsewhere."""
    shape, wanted = (list(map(str, given)) for given in (placeholder.meta["val"].shape, sizes))
    long = {size for size, short in zip(placeholder.meta["val"].shape, wanted) if str(size) != short}
    found = [placeholder]
    for node in found:  # which grows
        for user in node.users:
            val = user.meta.get("val")
            given = list(map(str, val.shape)) if isinstance(val, torch.Tensor) else None
            if user in found or (user.target is lanes_of and given == wanted):
                continue
            same = given == shape
            if not same or not (user.target in POINTWISE or user.target is CONVERT):
                return None
            found.append(user)
    operands = [source for node in found if node is not placeholder for source in node.all_input_nodes]
    others = [source for source in operands if source not in found]
    return None if any(_has(source, size) for source in others for size in long) else found
