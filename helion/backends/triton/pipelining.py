"""What Triton's software pipelining gets wrong on tensor cores, and what generated code does about it.

On an H100 products of matrices (wgmma) read a tile out of shared memory while the program goes on; Triton leaves one
whose result is only added up pending over the end of its iteration.  The next copy into that memory must wait for it:
Triton (3.6 and 3.7) gives the tile a buffer more for that, but only where the product is its one use.  Of a tile that a
sum, or a product too small for wgmma, reads too, the copy was written over what the product still read: on an H100 up
to half of the elements were wrong, in every call.  Here such a product is waited for in its own iteration; the loads
ahead stay.  On later GPUs Triton waits by barriers; there a fence is missing (`unsafe_to_pipeline`), or a wait where a
loop has stages of its own (`loads_beside_products`).

Not here: how many stages a loop has otherwise, which is the Config's (`schedule`).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import torch
import torch.fx

from ...ir.device_ir import DeviceIR
from ...ir.device_ir import GraphInfo
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
#: Rows and warps of the least product that a warp group takes.
GROUP_ROWS, GROUP_WARPS = 64, 4


def unsafe_to_pipeline(device: DeviceIR, *, narrow: bool) -> list[int]:
    """The graphs of loops that must load nothing ahead: their products share a tile.

    Triton leaves out the fence between what is copied ahead into shared memory and a product that reads it there.

    Args:
        device: the device IR.
        narrow: whether that is so of any dtype (from compute capability 10.0 on), and not only of float32.
    """
    if not device.views(Product):
        return []
    return [
        info.id
        for info in device.graphs
        for load, users in _tiles(device, info)
        if (narrow or tensor_of(load).dtype is torch.float32) and sum(Product.match(u) is not None for u in users) > 1
    ]


def loads_beside_products(device: DeviceIR) -> list[int]:
    """The graphs of loops with products that load more than those take.

    From compute capability 10.0 on Triton begins the next iteration's product while this one's is still read, if the
    loop itself says how many stages it has, for then all of its loads are ahead; the kernel's stages are right there.
    """
    return [
        info.id
        for info in device.graphs
        if any(map(Product.match, info.graph.nodes))
        and any(not all(map(Product.match, users)) for _, users in _tiles(device, info))
    ]


def waited_products(
    device: DeviceIR, by_groups: Callable[[torch.fx.Node], bool], is_masked: Callable[[torch.fx.Node, int], bool]
) -> set[torch.fx.Node]:
    """The products that the next iteration's copies must wait for.

    Args:
        device: the device IR.
        by_groups: whether warp groups may do a product.
        is_masked: whether a product may take a loaded operand with another padding along a dimension.
    """
    waited = set()
    for info in device.graphs:
        for load, users in _tiles(device, info):
            products = {user for user in users if Product.match(user) and by_groups(user)}
            # The buffer more is there for several products too, if one layout suits them all.
            alike = products == users and tensor_of(load).dtype.itemsize == 2
            if len(users) > 1 and not (alike and not any(is_masked(*operand) for operand in _loaded(products))):
                waited |= {product for product in products if not _is_used(product)}
    return waited


def _loaded(products: set[torch.fx.Node]) -> Iterator[tuple[torch.fx.Node, int]]:
    """The operands of products that are loaded, and along which dimension they are summed."""
    for product in map(Product.of, products):
        for given, from_end in ((product.a, 1), (product.b, 2)):
            source = given
            while source.target in _VIEWS:
                source = operand(source)
            if Load.match(source):
                yield given, tensor_of(given).dim() - from_end


def _is_used(product: torch.fx.Node) -> bool:
    """Whether something in the iteration surely needs a product, so that Triton waits for it. Sums it may take over."""
    overload = torch._ops.OpOverload
    return any(isinstance(user.target, overload) and user.target is not _aten.add.Tensor for user in _users(product))


def _tiles(device: DeviceIR, info: GraphInfo) -> Iterator[tuple[torch.fx.Node, set[torch.fx.Node]]]:
    """The tiles that a graph loads, and what takes them as they were loaded."""
    of_tensors: dict[Any, list[torch.fx.Node]] = {}
    for load in device.views(Load):
        if load.node.graph is info.graph:
            of_tensors.setdefault(load.node.args[0], []).append(load.node)
    for loads in of_tensors.values():
        alike: dict[str, list[torch.fx.Node]] = {}
        for node in loads:  # Triton loads once what is loaded twice
            alike.setdefault(str(node.args[1:]) if len(loads) > 1 else "", []).append(node)
        for same in alike.values():
            yield same[0], set().union(*map(_users, same))


def _users(node: torch.fx.Node) -> set[torch.fx.Node]:
    found: set[torch.fx.Node] = set()
    for user in node.users:
        found |= _users(user) if user.target in _VIEWS else {user}
    return found
