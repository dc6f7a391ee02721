"""Loops whose loads Triton must not begin before the iteration that they are of, whatever stages the Config says.

Here is what Triton gets wrong; how many stages a loop has otherwise is the Config's (`schedule`).
"""

from __future__ import annotations

from collections import defaultdict

import torch
import torch.fx

from ...ir.device_ir import DeviceIR
from ...ir.nodes import Load
from ...ir.nodes import Product
from ...ir.nodes import operand
from ...ir.nodes import tensor_of

_aten = torch.ops.aten
_VIEWS = frozenset(
    {
        _aten.permute.default, _aten.unsqueeze.default, _aten.squeeze.dims, _aten.expand.default, _aten.view.default,
        _aten.clone.default,
    }
)  # fmt: skip


def unsafe_to_pipeline(device: DeviceIR) -> list[int]:
    """The graphs of loops with products that share a loaded operand, on tensor cores that read it from shared memory.

    Under more than one stage Triton 3.6 and 3.7 have the next iteration's copy written over a tile while a product
    still reads it, if it is the left operand of one and the right operand of another (as in every backward pass of
    attention); of float32, which is turned around in shared memory, a product may read it before it is there.
    """
    return [info.id for info in device.graphs if _shares_operand(info.graph)]


def _shares_operand(graph: torch.fx.Graph) -> bool:
    sides: dict[str, list[bool]] = defaultdict(list)
    for node in graph.nodes:
        if Product.match(node):
            product = Product.of(node)
            for is_left, given in ((True, product.a), (False, product.b)):
                source = _loaded(given)
                if source is not None:
                    key = f"{source.args[0]} {source.args[1:]}"  # Triton loads once what is loaded twice
                    if sides[key] and (is_left not in sides[key] or tensor_of(source).dtype is torch.float32):
                        return True
                    sides[key].append(is_left)
    return False


def _loaded(node: torch.fx.Node) -> torch.fx.Node | None:
    while node.target in _VIEWS:
        node = operand(node)
    return node if Load.match(node) else None
