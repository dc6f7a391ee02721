"""Operands that a dtype decides about: 8-bit floats, and Python numbers beside tensors, what PyTorch makes of one that
the dtype does not hold exactly, or at all.

In arithmetic it is rounded, to infinity if need be; where it is written (`masked_fill`, `clamp`) that is an error.
Triton would compute in float64 with a number beyond float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import torch

from .. import exc
from .._compat_tracing import ELEMENTWISE_TYPE_PROMOTION_KIND
from .._compat_tracing import elementwise_dtypes
from ..ir.pointwise import COMPARISONS
from ..ir.pointwise import FLOATS8
from ..ir.pointwise import OF_FLOATS8
from ..ir.pointwise import OF_ONE_DTYPE
from ..ir.pointwise import short_name
from ..language.held import check_held
from ..language.held import is_held

if TYPE_CHECKING:
    from .tracer import Tracer

_aten = torch.ops.aten
_WIDEST = {int: torch.int64, float: torch.float64}
#: Ops whose numbers meet the tensor's elements as numbers of its dtype, on whatever device.
_WRITTEN = frozenset(
    {
        _aten.masked_fill.Scalar,
        _aten.clamp.default,
        _aten.clamp_min.default,
        _aten.clamp_max.default,
        _aten.hardtanh.default,
        _aten.threshold.default,
        _aten.fill.Scalar,
        _aten.constant_pad_nd.default,
    }
)
#: Ops that compute with their numbers in float32 where the tensor is narrower.
_COMPUTED = frozenset(
    {
        _aten.addcmul.default,
        _aten.addcdiv.default,
        _aten.lerp.Scalar,
        _aten.leaky_relu.default,
        _aten.elu.default,
        _aten.celu.default,
    }
)


_TWO_BYTES = (torch.float16, torch.bfloat16)
_NUMBERS = (int, float, torch.SymInt, torch.SymFloat)
#: Ops whose first operand is of the other's dtype, if it is a number. By a number, PyTorch multiplies with a reciprocal
#: of its own on a GPU.
_DIVIDED_NUMBER = frozenset({_aten.floor_divide.default, _aten.div.Tensor_mode})


def dtype_of_number(value: Any) -> torch.dtype:
    """The dtype that PyTorch gives a number alone."""
    if isinstance(value, (bool, torch.SymBool)):
        return torch.bool
    return torch.int64 if isinstance(value, (int, torch.SymInt)) else torch.float32


def of_one_dtype(
    op: torch._ops.OpOverload, operands: tuple[Any, ...], aten: Callable[..., Any]
) -> tuple[torch._ops.OpOverload, tuple[Any, ...]]:
    """An op, and its operands where PyTorch gives them one dtype first.

    A number beside a tensor has the tensor's, so that 0.1 is what float16 has for it, and in a comparison -1 the 255 of
    uint8. One that only a call knows becomes a tensor where it could be rounded.
    """
    numbers = [isinstance(operand, _NUMBERS) for operand in operands]
    if op in _DIVIDED_NUMBER:
        numbers[1] = False
    elif op not in OF_ONE_DTYPE:
        return op, operands
    if not any(numbers):
        return op, operands
    dtype = torch.result_type(*operands[:2])
    if op not in COMPARISONS and dtype not in _TWO_BYTES:
        return op, operands

    def converted(number: Any) -> Any:
        if type(number) in _WIDEST:
            return torch.tensor(number, dtype=_WIDEST[type(number)]).to(dtype).item()
        return aten(_aten.full.default, ([], number), {"dtype": dtype}) if dtype in _TWO_BYTES else number

    operands = tuple(converted(operand) if number else operand for operand, number in zip(operands, numbers))
    if op._overloadname == "Scalar" and isinstance(operands[1], torch.Tensor):
        op = op.overloadpacket.Tensor
    return op, operands


def rounded(value: Any, dtype: torch.dtype) -> Any:
    """A number in arithmetic of a dtype: infinity where it is beyond."""
    if type(value) not in _WIDEST or not dtype.is_floating_point or is_held(value, dtype):
        return value
    return math.copysign(math.inf, value)


def of_floats8(
    op: torch._ops.OpOverload, args: tuple[Any, ...], cast: Callable[[torch.Tensor, torch.dtype], Any]
) -> tuple[Any, ...]:
    """Operands of 8-bit floats as float32, for what PyTorch does with them.

    Raises:
        exc.UnsupportedDtype: it does nothing else with them, nor promotes them: x * y was rounded to 8 bits.
    """
    dtypes = {arg.dtype for arg in args if isinstance(arg, torch.Tensor)}
    for dtype in dtypes & FLOATS8:
        if op not in OF_FLOATS8 or len(dtypes) > 1:
            raise exc.UnsupportedDtype(op=short_name(op), dtype=dtype)
        return tuple(cast(arg, torch.float32) if isinstance(arg, torch.Tensor) else arg for arg in args)
    return args


def check_numbers(op: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Check the numbers that an op of the user's writes or computes with.

    Raises:
        exc.InvalidAPIUsage: one that its dtype does not hold.
    """
    checked = [*args[1:], *kwargs.values()] if op in _WRITTEN or op in _COMPUTED else [kwargs.get("alpha")]
    if not args or not isinstance(args[0], torch.Tensor):
        return
    dtype = args[0].dtype
    if op in _COMPUTED and dtype in (torch.float16, torch.bfloat16):
        dtype = torch.float32
    if not dtype.is_floating_point and op is not _aten.masked_fill.Scalar:
        return  # a float promotes
    for value in checked:
        check_held(value, dtype, f"torch.{op.name().split('::')[1].split('.')[0]}")


def in_common_dtype(tracer: Tracer, args: tuple[Any, ...], values: list[Any]) -> tuple[Any, ...]:
    """Operands with other tensors beside 16-bit floats as such floats, which PyTorch makes them first: integers, and
    wider floats without dimensions."""
    tensors = [a for a in values if isinstance(a, torch.Tensor)]
    if len({a.dtype for a in tensors}) < 2:
        return args
    common = elementwise_dtypes(*values, type_promotion_kind=ELEMENTWISE_TYPE_PROMOTION_KIND.NO_OPMATH)[1]
    others = [a for a in tensors if a.dtype is not common] if common in _TWO_BYTES else []
    return tuple(tracer.cast(a, common) if any(a is other for other in others) else a for a in args)
