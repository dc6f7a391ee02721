"""Which loads of a kernel without a Config the L2 cache may drop first: those of what is read once and then not needed.

A kernel that mostly reads is as fast as memory only if what it reads goes through the cache and out again; otherwise
it pushes out what others have written there, which must go to memory first: sums of rows took 10% longer on an H100.
Where as much is written as is read it makes no difference, and a tensor that the cache can hold may be wanted again, by
the next kernel.

Not here: rows that one program reads several times, in chunks (`memory` keeps those until they are read last).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence

import sympy
import torch
import torch.fx

from ...ir.device_ir import Axis
from ...ir.device_ir import DeviceIR
from ...ir.device_ir import TracedTile
from ...ir.nodes import Load
from ...ir.nodes import Memory
from ...ir.symbols import shape_exprs
from ...ir.symbols import symbols_of

#: So many times as many elements are loaded as are stored, or loaded otherwise.
_MANY = 8
#: What there is to gain is the time in which the cache is written to memory: little beside a tensor that is so many
#: times larger (two losses over several of these took 1 and 4% longer).
_MUCH = 4

#: Shape of a value -> its elements under the Config.
Elements = Callable[[Sequence[sympy.Expr]], int]


def dropped_first(device: DeviceIR, elements: Elements, l2_bytes: int) -> list[str]:
    """`load_eviction_policies`: "first" for what is read once by a kernel that stores little.

    Args:
        device: the device IR.
        elements: of a value, by its shape.
        l2_bytes: size of the L2 cache.
    """

    def once(load: Load) -> bool:
        if load.eviction_policy is not None or not l2_bytes // 2 < _bytes(load.tensor) < _MUCH * l2_bytes:
            return False
        others = (
            _moved(access, elements)
            for access in device.views(Memory)
            if access.node is not load.node and (access.name == load.name or not Load.match(access.node))
        )
        return _moved(load, elements) >= _MANY * max(1, *others) and _is_read_once(device, load)

    return ["first" if once(load) else "" for load in device.views(Load)]


def _moved(access: Memory, elements: Elements) -> int:
    """Elements that a tile loads, stores or updates."""
    values = [access.node] if Load.match(access.node) else access.values
    held = [value.meta["val"] for value in values if isinstance(value, torch.fx.Node)]
    return max((elements(shape_exprs(value.shape)) for value in held if isinstance(value, torch.Tensor)), default=1)


def _bytes(tensor: torch.Tensor) -> int:
    """Of a host tensor, by the sizes of the call that was traced; 0 where they are not known."""
    total = tensor.dtype.itemsize
    for size in tensor.shape:
        hint = size if isinstance(size, int) else size.node.hint
        total *= int(hint) if hint is not None else 0
    return total


def _is_read_once(device: DeviceIR, load: Load) -> bool:
    """Whether no two tiles of the loops around a load read the same elements."""
    covered: set[int] = set()
    symbols: set[sympy.Symbol] = set()
    for element in load.index:
        if isinstance(element, TracedTile):
            covered.add(element.axis.id)
        elif isinstance(element, torch.fx.Node):
            return False  # places that were computed, perhaps the same ones again
        else:
            symbols |= symbols_of(element)
    own = load.node.graph
    around = [info for info in device.graphs if info.axes and own in (held.graph for held in device.inside(info))]
    axes = {axis.id: axis for info in around for axis in info.axes if axis.static_extent != 1}
    inner = [axis for axis in axes.values() if axis.id in covered]
    return all(
        axis.id in covered or _begins(axis, inner) or symbols_of(axis.offset) <= symbols for axis in axes.values()
    )


def _begins(axis: Axis, inner: list[Axis]) -> bool:
    """Whether one of the other loops goes over the elements of a tile of this one."""
    own = symbols_of(axis.offset)
    return any(own & symbols_of(other.begin) for other in inner)
