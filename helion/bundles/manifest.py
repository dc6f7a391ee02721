"""Plans as JSON, and back. What is read is checked before `helion._C` gets it, which believes what a plan says.

Devices are "here" (that of the call's tensors) or "cpu"; dtypes and other objects of torch are their names; operations
are names of ATen's. Nothing else can be named, so nothing of a bundle is looked up by a path or executed as Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from typing import cast

import torch

from ..runtime.launch import plan_data as data
from ..runtime.launch.plan_data import PlanData

__all__ = ["Malformed", "decode_plan", "encode_plan"]

_DEEPEST = 16
_MOST_BYTES = 1 << 46


class Malformed(Exception):
    """What is wrong with a description."""


# -- writing -----------------------------------------------------------------------------------------------------------


class _Encoder:
    def __init__(self, here: torch.device) -> None:
        self.here = here

    def device(self, value: torch.device) -> str:
        if value == self.here:
            return "here"
        if value.type == "cpu":
            return "cpu"
        raise Malformed(f"host code names the device {value}")

    def scalar(self, value: Any) -> Any:
        return ["float", value.hex()] if type(value) is float else value

    def object(self, value: Any) -> Any:
        if value is None or type(value) in (bool, int, str):
            return ["plain", value]
        if type(value) is float:
            return ["float", value.hex()]
        if type(value) in (torch.dtype, torch.layout, torch.memory_format):
            return ["torch", str(value)[6:]]
        if type(value) is torch.device:
            return ["device", self.device(value)]
        if type(value) is torch.Size:
            return ["size", list(value)]
        raise Malformed(f"host code has a {type(value).__name__}, which a bundle cannot hold")

    def result(self, value: data.Result) -> Any:
        if isinstance(value, data.TensorRef):
            return ["tensor", *value]
        if isinstance(value, data.View):
            return ["view", list(value.tensor), list(value.sizes), list(value.strides), value.offset]
        if isinstance(value, data.Object):
            return ["object", self.object(value.value)]
        if isinstance(value, data.Structure):
            if isinstance(value.of, type):
                raise Malformed(f"host code returns a {value.of.__name__}, which a bundle cannot hold")
            return ["dict", [self.object(key) for key in value.of], [self.result(item) for item in value.items]]
        return ["container", value.is_tuple, [self.result(item) for item in value.items]]

    def source(self, value: Any) -> Any:
        if isinstance(value, data.Address):
            return ["address", list(value.tensor), value.offset]
        if isinstance(value, data.Number):
            return ["number", value.leaf]
        return ["constant", self.scalar(value.value)]

    def step(self, value: data.Step) -> Any:
        if isinstance(value, data.Launch):
            return ["launch", value.spec, list(value.grid), [self.source(source) for source in value.sources]]
        if isinstance(value, data.Fill):
            return ["fill", list(value.tensor), self.scalar(value.value), value.fresh]
        function = cast(Any, value.function)  # an OpOverload
        namespace, name, overload = function.namespace, function._opname, function._overloadname
        if namespace != "aten":
            raise Malformed(f"host code runs {value.function}, which is not an operation of PyTorch's own")
        arguments = self.result(value.arguments)
        return ["op", name, overload, arguments, list(value.names), list(value.outputs), value.changes]

    def buffer(self, value: data.Allocation | data.Made) -> Any:
        pooled = value.pooled if isinstance(value, data.Allocation) else None
        dtype = str(value.dtype)[6:]
        return [list(value.sizes), list(value.strides), dtype, self.device(value.device), pooled]


def encode_plan(plan: PlanData, here: torch.device) -> dict[str, Any]:
    """A plan as JSON.

    Args:
        plan: what was recorded.
        here: the device of the example's tensors.

    Raises:
        Malformed: it holds what a bundle cannot.
    """
    encoder = _Encoder(here)
    return {
        "leaves": plan.leaf_count,
        "buffers": [encoder.buffer(buffer) for buffer in plan.buffers],
        "steps": [encoder.step(step) for step in plan.steps],
        "result": encoder.result(plan.result),
        "written": [list(ref) for ref in plan.written],
        "distinct": plan.distinct,
    }


# -- reading -----------------------------------------------------------------------------------------------------------


def _list(value: Any, length: int | None = None) -> list[Any]:
    if type(value) is not list or (length is not None and len(value) != length):
        raise Malformed("a list is missing, or of another length")
    return value


def _int(value: Any, high: int) -> int:
    if type(value) is not int or not 0 <= value <= high:
        raise Malformed(f"a number is not from 0 to {high}")
    return value


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise Malformed("a truth value is missing")
    return value


def _str(value: Any) -> str:
    if type(value) is not str:
        raise Malformed("a text is missing")
    return value


def _dims(value: Any) -> tuple[int, ...]:
    sizes = tuple([_int(size, _MOST_BYTES) for size in _list(value)])
    if len(sizes) > 64:
        raise Malformed("a tensor has too many dimensions")
    return sizes


def _scalar(value: Any) -> int | float | bool:
    if type(value) in (int, bool):
        if not -(2**63) <= value < 2**63:
            raise Malformed("an int has more than 64 bits")
        number: int | bool = value
        return number
    tag, text = _list(value, 2)
    if tag != "float":
        raise Malformed("a number is missing")
    try:
        return float.fromhex(_str(text))
    except (ValueError, OverflowError) as error:
        raise Malformed(str(error)) from None


def _torch(value: Any, *kinds: type) -> Any:
    found = getattr(torch, _str(value), None)
    if type(found) not in kinds:
        raise Malformed(f"torch.{value} is not what it should be")
    return found


def _extent(sizes: tuple[int, ...], strides: tuple[int, ...], item: int) -> int:
    """Bytes from the first to the last element of a tensor, both included."""
    return 0 if math.prod(sizes) == 0 else item * (1 + sum((n - 1) * step for n, step in zip(sizes, strides)))


class _Decoder:
    """Reads one plan; tensors must be there, made before they are used, and addresses inside of them."""

    def __init__(
        self, leaves: list[tuple[Any, ...]], params: Callable[[int], tuple[str, ...]], here: torch.device
    ) -> None:
        self.leaves = leaves
        self.params = params
        self.here = here
        self.buffers: list[data.Allocation | data.Made] = []
        self.made: set[int] = set()

    def device(self, value: Any) -> torch.device:
        if value not in ("here", "cpu"):
            raise Malformed("a device is neither here nor the CPU")
        return self.here if value == "here" else torch.device("cpu")

    def buffer(self, value: Any) -> data.Allocation | data.Made:
        sizes, strides, dtype, device, pooled = _list(value, 5)
        shape = (_dims(sizes), _dims(strides), _torch(dtype, torch.dtype), self.device(device))
        if len(shape[0]) != len(shape[1]) or _extent(shape[0], shape[1], shape[2].itemsize) > _MOST_BYTES:
            raise Malformed("a tensor's sizes and strides do not fit")
        return data.Made(*shape) if pooled is None else data.Allocation(*shape, _bool(pooled))

    def ref(self, value: Any) -> data.TensorRef:
        is_input, number = _list(value, 2)
        ref = data.TensorRef(_bool(is_input), _int(number, (len(self.leaves) if is_input else len(self.buffers)) - 1))
        if ref.is_input and self.leaves[ref.number][0] != "tensor":
            raise Malformed("an argument is taken for a tensor")
        if not ref.is_input and isinstance(self.buffers[ref.number], data.Made) and ref.number not in self.made:
            raise Malformed("a tensor is used before an operation has made it")
        return ref

    def extent(self, ref: data.TensorRef) -> tuple[int, int]:
        """Bytes of a tensor, and of one element."""
        if ref.is_input:
            _, dtype, sizes, strides, _ = self.leaves[ref.number]
            item = getattr(torch, dtype).itemsize
            return _extent(sizes, strides, item), item
        buffer = self.buffers[ref.number]
        return _extent(buffer.sizes, buffer.strides, buffer.dtype.itemsize), buffer.dtype.itemsize

    def object(self, value: Any) -> Any:
        tag, held = _list(value, 2)
        if tag == "plain" and (held is None or type(held) in (bool, int, str)):
            return held
        if tag == "float":
            return _scalar(value)
        if tag == "torch":
            return _torch(held, torch.dtype, torch.layout, torch.memory_format)
        if tag == "device":
            return self.device(held)
        if tag == "size":
            return torch.Size(_dims(held))
        raise Malformed("an object is of an unknown kind")

    def result(self, value: Any, depth: int = 0) -> data.Result:
        tag, *rest = _list(value) or [None]
        if tag == "tensor":
            return self.ref(rest)
        if tag == "view":
            tensor, sizes, strides, offset = _list(rest, 4)
            view = data.View(self.ref(tensor), _dims(sizes), _dims(strides), _int(offset, _MOST_BYTES))
            extent, item = self.extent(view.tensor)
            inside = item * view.offset + _extent(view.sizes, view.strides, item) <= extent
            if len(view.sizes) != len(view.strides) or not inside:
                raise Malformed("a view lies outside of its tensor")
            return view
        if tag == "object":
            return data.Object(self.object(*_list(rest, 1)))
        if tag == "container" and depth < _DEEPEST:
            is_tuple, items = _list(rest, 2)
            return data.Container(_bool(is_tuple), tuple([self.result(item, depth + 1) for item in _list(items)]))
        if tag == "dict" and depth < _DEEPEST:
            keys, items = map(_list, _list(rest, 2))
            if len(keys) != len(items):
                raise Malformed("a dict has not as many keys as values")
            made = tuple([self.object(key) for key in keys])
            return data.Structure(made, tuple([self.result(item, depth + 1) for item in items]))
        raise Malformed("a result is of an unknown kind")

    def source(self, value: Any, kind: str) -> data.Address | data.Number | data.Constant:
        tag, *rest = _list(value) or [None]
        if (tag == "address") != kind.startswith("*"):
            raise Malformed("a number is passed for a pointer, or a pointer for a number")
        if tag == "address":
            tensor, offset = _list(rest, 2)
            ref = self.ref(tensor)
            return data.Address(ref, _int(offset, self.extent(ref)[0]))
        if tag == "number":
            leaf = _int(_list(rest, 1)[0], len(self.leaves) - 1)
            if self.leaves[leaf][0] not in ("int", "float", "bool"):
                raise Malformed("an argument is taken for a number")
            return data.Number(leaf)
        if tag == "constant":
            return data.Constant(_scalar(_list(rest, 1)[0]))
        raise Malformed("a parameter is of an unknown kind")

    def step(self, value: Any) -> data.Step:
        tag, *rest = _list(value) or [None]
        if tag == "launch":
            number, grid, sources = _list(rest, 3)
            kinds = self.params(_int(number, 1 << 31))
            sizes = tuple([_int(size, 2**31 - 1) for size in _list(grid)])
            if not 1 <= len(sizes) <= 3:
                raise Malformed("a grid has one to three dimensions")
            parts = tuple([self.source(part, kind) for part, kind in zip(_list(sources, len(kinds)), kinds)])
            # The number stands for the LaunchSpec that it becomes where the plan is used.
            return data.Launch(number, sizes, parts)
        if tag == "fill":
            tensor, scalar, fresh = _list(rest, 3)
            return data.Fill(self.ref(tensor), _scalar(scalar), _bool(fresh))
        if tag == "op":
            return self.operation(*_list(rest, 6))
        raise Malformed("a step is of an unknown kind")

    def operation(self, name: Any, overload: Any, arguments: Any, names: Any, outputs: Any, changes: Any) -> data.Op:
        packet = getattr(torch.ops.aten, _str(name), None)
        function = getattr(packet, _str(overload), None)
        if not isinstance(function, torch._ops.OpOverload):
            raise Malformed(f"there is no operation {name}.{overload} in this PyTorch")
        schema = function._schema
        texts = [argument.name for argument in schema.arguments if "str" in str(argument.type)]
        if "filename" in texts or not any("Tensor" in str(argument.type) for argument in schema.arguments):
            raise Malformed(f"{name} is no operation on tensors")
        given = self.result(arguments)
        if not isinstance(given, data.Container) or not given.is_tuple or len(_list(names)) > len(given.items):
            raise Malformed("an operation takes a tuple of arguments")
        numbers = tuple([_int(number, len(self.buffers) - 1) for number in _list(outputs)])
        if any(not isinstance(self.buffers[number], data.Made) or number in self.made for number in numbers):
            raise Malformed("an operation makes a tensor that is there already")
        self.made.update(numbers)
        return data.Op(function, given, tuple([_str(name) for name in names]), numbers, _bool(changes))


def decode_plan(
    value: Any, leaves: list[tuple[Any, ...]], params: Callable[[int], tuple[str, ...]], here: torch.device
) -> PlanData:
    """What `encode_plan` wrote.

    Args:
        value: JSON.
        leaves: of the signature of the calls that the plan is for.
        params: number of a binary -> Triton's names of its parameters' types; raises Malformed if there is none.
        here: the device of the call's tensors.

    Raises:
        Malformed: it is not what `encode_plan` writes, or does not fit the signature.
    """
    if type(value) is not dict or value.keys() != {"leaves", "buffers", "steps", "result", "written", "distinct"}:
        raise Malformed("a plan is malformed")
    decoder = _Decoder(leaves, params, here)
    if value["leaves"] != len(leaves):
        raise Malformed("a plan is for another number of arguments")
    decoder.buffers = [decoder.buffer(buffer) for buffer in _list(value["buffers"])]
    steps = tuple([decoder.step(step) for step in _list(value["steps"])])
    result = decoder.result(value["result"])
    written = tuple([decoder.ref(ref) for ref in _list(value["written"])])
    return PlanData(len(leaves), tuple(decoder.buffers), steps, result, written, _bool(value["distinct"]))
