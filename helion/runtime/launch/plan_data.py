"""What a ``LaunchPlan`` is made of: the description that ``plan.py`` records and ``csrc/plan_build.cpp`` reads.

The extension knows these types by their names in this module, and their fields by name.

Not here: how a call is recorded (``plan.py``), how a plan is run (``csrc/plan.cpp``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import NamedTuple
from typing import TypeAlias

import torch

if TYPE_CHECKING:
    from ..._C import LaunchSpec

__all__ = [
    "Address",
    "Allocation",
    "Constant",
    "Container",
    "Fill",
    "Launch",
    "Made",
    "Number",
    "Object",
    "Op",
    "PlanData",
    "Structure",
    "TensorRef",
    "View",
]


class TensorRef(NamedTuple):
    """A tensor of a plan.

    Attributes:
        is_input: whether it is among the call's arguments.
        number: which leaf of the arguments, or which of the plan's allocations.
    """

    is_input: bool
    number: int


class Allocation(NamedTuple):
    """Uninitialised memory, allocated at the beginning of the call. ``pooled``: it may come from the output pool."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    pooled: bool


# -- steps
# --------------------------------------------------------------------------------------------------------------


class Fill(NamedTuple):
    """``tensor.fill_(value)``. ``fresh``: as part of making it (``torch.zeros``), which no version counter shows."""

    tensor: TensorRef
    value: int | float | bool
    fresh: bool = False


class Address(NamedTuple):
    """A pointer: ``offset`` bytes after the first element of ``tensor``."""

    tensor: TensorRef
    offset: int


class Number(NamedTuple):
    """A number among the arguments, passed on as it is."""

    leaf: int


class Constant(NamedTuple):
    """A number that is the same in every call."""

    value: int | float | bool


class Launch(NamedTuple):
    """A kernel launch. ``sources``: where each parameter of the binary comes from, in its order."""

    spec: LaunchSpec
    grid: tuple[int, ...]
    sources: tuple[Address | Number | Constant, ...]


class Made(NamedTuple):
    """In place of an allocation: a tensor that an ``Op`` returns, with what it is known to be."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


class Op(NamedTuple):
    """An operation of PyTorch's.

    Attributes:
        function: the ``OpOverload``.
        arguments: a ``Container`` of all arguments, those by name last.
        names: of the last arguments.
        outputs: the numbers of what it returns among the plan's allocations.
        changes: whether it writes to one of its arguments.
    """

    function: object
    arguments: Container
    names: tuple[str, ...]
    outputs: tuple[int, ...]
    changes: bool


# -- what the call returns, and what an operation is given
# ------------------------------------------------------------------------------------------------


class Object(NamedTuple):
    """The same object in every call."""

    value: object


class View(NamedTuple):
    """``tensor.as_strided(sizes, strides)``, ``offset`` elements after the first one of ``tensor``."""

    tensor: TensorRef
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


class Container(NamedTuple):
    """A new tuple or list."""

    is_tuple: bool
    items: tuple[Result, ...]


class Structure(NamedTuple):
    """A new dict, NamedTuple or dataclass.

    Attributes:
        of: the keys of a dict, or the class.
        items: the values, or what the class is called with.
    """

    of: tuple[object, ...] | type
    items: tuple[Result, ...]


#: A ``TensorRef`` stands for the tensor itself.
Result: TypeAlias = "TensorRef | View | Object | Container | Structure"
Step: TypeAlias = "Fill | Launch | Op"


class PlanData(NamedTuple):
    """The arguments of `helion._C.LaunchPlan`, but for the device.

    Attributes:
        leaf_count: leaves among the arguments.
        buffers: what is allocated.
        steps: what is done; the `spec` of a `Launch` is the number of a binary.
        result: what is returned.
        written: tensors whose version counters advance.
        distinct: whether no two tensors among the arguments may be the same object.
    """

    leaf_count: int
    buffers: tuple[Allocation | Made, ...]
    steps: tuple[Step, ...]
    result: Result
    written: tuple[TensorRef, ...]
    distinct: bool
