"""Sizes of tiles' values that are calculated with: the lengths of tiles, not those of the blocks that hold them.

`v.sum() / v.size(0)` divides by the number of elements; a block's size is that number only where no tile is partial.
So what user code is told of a value's size is the length of its tile, `tile.end - tile.begin`, a number known while
the kernel runs.  Where such a number stands in a shape it is the tile's size again: `hl.zeros([v.size(0)])` has the
lanes of `v`.

The same for PyTorch's own functions: `F.kl_div(x, y, reduction="batchmean")` asks for `x.size(0)` and gets a block's
size; what it divides by becomes the number of elements, counted on the device.  `tile.block_size`, which user code
passes as a number, stays what it is.
"""

from __future__ import annotations

import functools
import operator
import re
import sys
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import sympy
import torch

from .. import exc
from ..ir.device_ir import Axis
from ..ir.device_ir import AxisKind
from ..ir.symbols import OriginKind
from ..ir.symbols import is_symbolic
from ..ir.symbols import symbols_of
from ..language.op import Op

if TYPE_CHECKING:
    from .tracer import Tracer

_aten = torch.ops.aten

#: ATen ops that take a number beside a tensor.
_ARITHMETIC = frozenset(
    overload
    for packet in (_aten.add, _aten.sub, _aten.rsub, _aten.mul, _aten.div, _aten.true_divide)
    for overload in (getattr(packet, name) for name in packet.overloads() if name in ("Tensor", "Scalar"))
)

#: Functions whose numbers are sizes although ATen calls them scalars.
_COUNTS = frozenset(["arange"])

#: What ATen calls arguments that are sizes of the result.
_SIZES = frozenset(["size", "sizes", "shape", "normalized_shape", "output_size"])


# -- what user code is told --------------------------------------------------------------------------------------


def lengths_of(tracer: Tracer, value: torch.Tensor) -> torch.Size:
    """The sizes of a tensor as numbers to calculate with: of a device value the lengths of its tiles.

    Raises:
        exc.InvalidAPIUsage: two tiles of loops around have the block size, and it is unknown which is meant.
    """
    sizes = value.shape
    if not tracer.on_device or all(isinstance(size, int) for size in sizes) or not tracer.is_device_value(value):
        return sizes
    return torch.Size([_length_of(tracer, value, size) for size in sizes])


def _length_of(tracer: Tracer, value: torch.Tensor, size: Any) -> Any:
    space = tracer.env.space
    origins = {symbol: space.origins.get(symbol) for symbol in symbols_of(size)}
    blocks = [s for s, o in origins.items() if o is not None and o.kind is OriginKind.BLOCK_SIZE]
    if not blocks:
        return size
    around = [axis for axis in tracer.axes_around() if axis.kind is not AxisKind.GRID]
    named = space.axis_of(size)
    if named is not None:
        return _length(named) if named in around else named.block.var  # after its loop: a lane for each element
    created, carried = _creation(tracer, value)
    lengths = {}
    for block in blocks:
        axes = [axis for axis in created if axis.block.symbol == block]
        if len(axes) > 1 or (axes and carried):
            raise exc.InvalidAPIUsage(
                "the size of a value is that of a tile which is partial or of one that is not, and it is unknown which",
                fix="for the number of elements of a tile write `tile.end - tile.begin`, for a shape the tile itself.",
            )
        if axes:
            lengths[block] = _length(axes[0]).node.expr
    return tracer.env.size_of(size.node.expr.xreplace(lengths)) if lengths else size


def _length(axis: Axis) -> Any:
    return axis.clipped_end - axis.offset


def _creation(tracer: Tracer, value: torch.Tensor) -> tuple[list[Axis], bool]:
    """The axes of the loops in which a value was made, and whether a loop carries it.

    What is made before a loop has one lane for each element of a full tile.
    """
    owner, builder = None, tracer.builder
    while builder is not None:
        owner = builder if id(value) in builder._nodes else owner
        builder = builder.parent
    assert owner is not None
    carried = owner._nodes[id(value)].op == "placeholder"
    axes: list[Axis] = []
    builder = owner
    while builder is not None:
        axes += [axis for axis in builder.info.axes if axis.kind is not AxisKind.GRID]
        builder = builder.parent
    return axes, carried


def _size(lengths_of_: Any, value: torch.Tensor, dim: int | None = None) -> Any:
    sizes = lengths_of_(value)
    return sizes if dim is None else value.size(dim) if isinstance(value.size(dim), int) else sizes[dim]


def _numel(lengths_of_: Any, value: torch.Tensor) -> Any:
    return functools.reduce(operator.mul, lengths_of_(value), 1)


def _len(lengths_of_: Any, value: torch.Tensor) -> Any:
    return lengths_of_(value)[0] if value.dim() else len(value)


_SHAPE: Any = torch.Tensor.shape
#: Functions that tell sizes, and what they tell: from `lengths_of` and their arguments.
_QUESTIONS: Mapping[Any, Callable[..., Any]] = {
    torch.Tensor.size: _size,
    torch.Tensor.numel: _numel,
    torch.Tensor.nelement: _numel,
    torch.Tensor.__len__: _len,
    _SHAPE.__get__: lambda lengths_of_, value, *_: lengths_of_(value),
    torch.numel: _numel,
}
_QUESTIONS_OF_METHODS = {name: _QUESTIONS[getattr(torch.Tensor, name)] for name in ("size", "numel", "nelement")}


def asks_for_sizes(fn: Any) -> Callable[..., Any] | None:
    """What user code gets by calling a function that tells a tensor's sizes, given a tracer; None for any other."""
    owner = getattr(fn, "__self__", None)
    if isinstance(owner, torch.Tensor):
        method = _QUESTIONS_OF_METHODS.get(fn.__name__)
        return None if method is None else lambda tracer, *args, **kwargs: _tell(tracer, method, owner, *args, **kwargs)
    if fn is torch.numel:
        return lambda tracer, value: _tell(tracer, _numel, value)
    if fn is len:
        return lambda tracer, value: _tell(tracer, _len, value) if isinstance(value, torch.Tensor) else len(value)
    return None


def _tell(tracer: Tracer, question: Callable[..., Any], value: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    return question(functools.partial(lengths_of, tracer), value, *args, **kwargs)


def told(tracer: Tracer, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a function that runs natively (a lambda whose source is not known) is told of a tensor's sizes.

    NotImplemented for other questions, and where it is PyTorch or we who ask.
    """
    question = _QUESTIONS.get(fn)
    if question is None:
        return NotImplemented
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("torch."):
        frame = frame.f_back
    if frame.f_globals.get("__name__", "").split(".")[0] == "helion":
        return NotImplemented
    return _tell(tracer, question, *args, **kwargs)


# -- numbers as sizes --------------------------------------------------------------------------------------------------


def as_size(tracer: Tracer, value: Any) -> Any:
    """Numbers where sizes are wanted, in lists too: the length of a tile is the size of the tile."""
    if isinstance(value, (list, tuple)):
        return type(value)([as_size(tracer, v) for v in value]) if type(value) in (list, tuple, torch.Size) else value
    if not isinstance(value, torch.SymInt):
        return value
    space = tracer.env.space
    origins = {symbol: space.origins.get(symbol) for symbol in symbols_of(value)}
    ends = {s: space.axes[o.index] for s, o in origins.items() if o is not None and o.kind is OriginKind.TILE_END}
    if not ends:
        return value
    expr = value.node.expr.xreplace({s: a.offset.node.expr + a.block.symbol for s, a in ends.items()})
    if expr.free_symbols & {axis.offset.node.expr for axis in ends.values()}:
        return value  # a place, not a length
    return next((a.size for a in ends.values() if expr == a.block.symbol), None) or tracer.env.size_of(expr)


def with_shape(tracer: Tracer, op: Op, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of a language op, with tiles' sizes for lengths in its shape."""
    return tuple(as_size(tracer, arg) if i in op.shape_args else arg for i, arg in enumerate(args))


def with_sizes(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The arguments of a torch function that user code calls, with tiles' sizes for lengths that stand in shapes."""
    name = getattr(func, "__name__", "")
    if name.startswith(("__", "sym_")):
        return args, kwargs  # an operator, or a function of numbers
    kinds = _kinds(name)
    if kinds is None:
        return as_size(tracer, args), {key: as_size(tracer, value) for key, value in kwargs.items()}
    places, names = kinds
    first = min(places, default=len(args))
    sized = tuple(
        as_size(tracer, arg) if places.get(i, i >= first and isinstance(args[first], (int, torch.SymInt))) else arg
        for i, arg in enumerate(args)
    )
    return sized, {key: as_size(tracer, value) if key in names else value for key, value in kwargs.items()}


@functools.cache
def _kinds(name: str) -> tuple[dict[int, bool], frozenset[str]] | None:
    """Of an ATen function: the places of arguments, from the first size on, and whether they are sizes; the names of
    those that are.  None for what is no such function.
    """
    packet = getattr(_aten, name, None)
    if not isinstance(packet, torch._ops.OpOverloadPacket):
        return None
    places: dict[int, bool] = {}
    names: set[str] = set()
    for overload in packet.overloads():
        for i, argument in enumerate(getattr(packet, overload)._schema.arguments):
            if argument.name in _SIZES or name in _COUNTS:
                places[i] = True
                names.add(argument.name)
            elif places and not argument.kwarg_only and str(argument.type) == "number":
                places.setdefault(i, False)
    return places, frozenset(names)


# -- what PyTorch's own functions calculate -------------------------------------------------------------------------


def given_symbols(*arguments: Any) -> frozenset[sympy.Symbol]:
    """The symbols of the numbers that the user's code passed to a function."""
    return frozenset(symbol for number in symbolic_numbers(*arguments) for symbol in symbols_of(number))


def symbolic_numbers(*arguments: Any) -> list[Any]:
    """The symbolic numbers that tuples, lists and dicts hold; without recursion, at each of thousands of calls."""
    found: list[Any] = []
    waiting: list[Sequence[Any]] = [arguments]
    while waiting:
        for value in waiting.pop():
            if isinstance(value, (tuple, list)):
                waiting.append(value)
            elif isinstance(value, dict):
                waiting.append(tuple(value.values()))
            elif is_symbolic(value):
                found.append(value)
    return found


def with_lengths(tracer: Tracer, func: Any, args: tuple[Any, ...], given: frozenset[sympy.Symbol]) -> tuple[Any, Any]:
    """An ATen op that a function of PyTorch called, and its arguments, with block sizes as lengths.

    Args:
        given: symbols that the user's code passed to that function.

    Raises:
        exc.TorchOpTracingError: a number that is computed from block sizes in another way than by products.
    """
    if func not in _ARITHMETIC:
        return func, args
    lengths = tuple(_counted(tracer, func, arg, given) for arg in args)
    return (func, args) if all(map(operator.is_, lengths, args)) else (func.overloadpacket.Tensor, lengths)


def _counted(tracer: Tracer, func: Any, number: Any, given: frozenset[sympy.Symbol]) -> Any:
    if not isinstance(number, (torch.SymInt, torch.SymFloat)):
        return number
    space = tracer.env.space
    origins = {symbol: space.origins.get(symbol) for symbol in symbols_of(number) - given}
    blocks = {s: o.index for s, o in origins.items() if o is not None and o.kind is OriginKind.BLOCK_SIZE}
    if not blocks:
        return number
    result: Any = 1
    for base, power in number.node.expr.as_powers_dict().items():
        if base in blocks:
            base = _count(tracer, func, blocks[base])
        elif base.free_symbols or not power.is_Integer:
            raise _refusal(func)
        else:
            base = float(base)
        result = result * base ** int(power)
    return result


def _count(tracer: Tracer, func: Any, block: int) -> torch.Tensor:
    axes = [axis for axis in tracer.axes_around() if axis.block.id == block]
    if len(axes) != 1:
        raise _refusal(func)
    return _aten.sum.default(torch.ones([axes[0].size], dtype=torch.float32, device=tracer.device))


def _refusal(func: Any) -> exc.TorchOpTracingError:
    return exc.TorchOpTracingError(
        op=str(func),
        reason="a function of PyTorch calculates with the size of a tile in a way that is not known for partial tiles",
        fix="write the formula out, with `tile.end - tile.begin` for the tile's length.",
    )


def note_on_constants(tracer: Tracer, message: str) -> str | None:
    """What to mind where shapes do not fit, and one has in numbers what is the length of a tile of constant block size.

    Args:
        tracer: in the loop of the tile.
        message: what was said, with the tile's name for its size.
    """
    numbers = sorted({int(n) for n in re.findall(r"(?<![\w*.])\d+(?![\w*.])", message)})
    for axis in reversed(tracer.axes_around()):
        fixed, name = axis.block.fixed, axis.name
        if isinstance(fixed, int) and fixed > 1 and re.search(rf"\b{name}\b", message):
            n = next((n for n in numbers if n and n % fixed == 0), None)
            if n is not None:
                length = f"{name}.block_size" + (f" * {n // fixed}" if n > fixed else "")
                return f"Where {n} is the length of the tile {name!r}, write `{length}`: a last tile is shorter."
            if re.search(rf"\b{name} [+-] \d", message):
                return (
                    f"Where a length is to be constant, write {fixed} for `{name}.block_size`: a last tile is shorter."
                )
    return None
