"""What happens to a language op's arguments before the call is recorded: casts of stored values, views instead of
loads, ...
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import torch

from .. import exc
from ..ir.device_ir import TracedTile
from ..ir.pointwise import short_name
from ..language.alignment import places_of_tiles
from ..language.creation import full
from ..language.held import check_held
from ..language.indexing import indexed_shape
from ..language.indexing import surplus_dims
from ..language.matmul import dot
from ..language.memory import load
from ..language.op import Op
from ..language.subscripts import check_no_mask
from ..language.subscripts import part_of
from ..language.subscripts import subscript
from .alignment import to_shape
from .alignment import with_lanes
from .subscripts import TracedMoves

if TYPE_CHECKING:
    from .tracer import Tracer


class Answer:
    """A preparation's final result: nothing more is recorded."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _prepare_load(tracer: Tracer, tensor: Any, index: Any, extra_mask: Any, eviction_policy: Any) -> Any:
    if tracer.is_device_value(tensor):
        check_no_mask(extra_mask)
        return Answer(subscript(tensor, index))
    return tensor, index, extra_mask, eviction_policy


def _prepare_subscript(tracer: Tracer, tensor: Any, index: Any) -> Any:
    if isinstance(tensor, torch.Tensor):
        tracer.operand(tensor)
    return Answer(part_of(tensor, index, TracedMoves(tracer)))


def prepare_store(tracer: Tracer, op: Op, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of an op that stores, with what it stores in the tensor's dtype."""
    tensor, access = args[0], op.access
    assert access is not None
    if tracer.is_device_value(tensor):
        raise exc.DeviceTensorSubscriptAssignmentNotAllowed(
            f"hl.{op.name} into a device value",
            fix="device values are immutable: use torch.where to change part of one.",
        )
    if access.addresses_at is None:
        tracer.env.check_constant(indexed_shape(tensor, args[access.index_at], "store"))
    cast = list(args)
    for at in access.values_at:
        if isinstance(args[at], torch.Tensor):
            if not tracer.is_device_value(args[at]) and tracer.name_of_host_tensor(args[at]) is not None:
                cast[at] = load(args[at], [slice(None)] * args[at].dim())  # `dst[i] = value` of the host's
            else:
                tracer.operand(args[at])
            cast[at] = tracer.cast(cast[at], tensor.dtype)
            continue
        check_held(args[at], tensor.dtype, f"hl.{op.name}", alone=True)
        if tensor.dtype is torch.float64 and type(args[at]) is float:  # Triton's numbers are of float32
            cast[at] = full([], args[at], dtype=torch.float64)
    return tuple(cast)


def placed(tracer: Tracer, op: Op, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of a memory op, its values and its mask with their dimensions where the access has them."""
    access = op.access
    assert access is not None
    at = [at for at in (*access.values_at, access.mask_at) if isinstance(args[at], torch.Tensor) and args[at].dim()]
    if access.addresses_at is not None or not at or tracer.is_device_value(args[0]):
        return args
    shape = indexed_shape(args[0], args[access.index_at], op.name)
    return tuple(
        _placed(tracer, value, shape) if i in at and tracer.is_device_value(value) else value
        for i, value in enumerate(args)
    )


def _placed(tracer: Tracer, value: torch.Tensor, shape: Sequence[Any]) -> torch.Tensor:
    """A value with its dimensions where `shape` has them, and without those of size 1 that it has not."""
    value = with_lanes(tracer, to_shape(tracer, value, shape, places_of_tiles), shape)
    surplus = surplus_dims(value.shape, shape)
    return torch.squeeze(value, tuple(range(surplus))) if surplus else to_shape(tracer, value, shape)


def _prepare_full(tracer: Tracer, shape: Any, value: Any, dtype: Any, device: Any) -> Any:
    """A constant as one of the dtype: -2 is 254 in uint8, as in PyTorch, where Triton knows no such number."""
    if isinstance(dtype, torch.dtype):
        check_held(value, dtype, "hl.full", alone=not shape)
        integer = not dtype.is_floating_point and not dtype.is_complex and dtype is not torch.bool
        if integer and type(value) in (int, float):
            info, value = torch.iinfo(dtype), int(value)
            value = value if info.min <= value else value + info.max + 1
    return shape, value, dtype, device


def _prepare_dot(tracer: Tracer, a: Any, b: Any, acc: Any, out_dtype: Any) -> Any:
    if isinstance(acc, torch.Tensor) and all(isinstance(t, torch.Tensor) and t.dim() > 1 for t in (a, b)):
        acc = with_lanes(tracer, acc, [*a.shape[:-1], b.shape[-1]])
    return a, b, acc, out_dtype


#: Ops with a preparation of their own.
OP_PREPARATION: dict[Op, Callable[..., Any]] = {
    load: _prepare_load,
    subscript: _prepare_subscript,
    full: _prepare_full,
    dot: _prepare_dot,
}


def pointers(tracer: Tracer, value: Any) -> Any:
    """The arguments of an op that does as it likes with host tensors, as node arguments."""
    if isinstance(value, (list, tuple)):
        return [pointers(tracer, v) for v in value]
    if isinstance(value, dict):
        return {key: pointers(tracer, v) for key, v in value.items()}
    if isinstance(value, torch.Tensor) and not tracer.is_device_value(value) and tracer.name_of_host_tensor(value):
        return tracer.host_operand(value)
    return tracer.operand(value)


def sizes_of_tiles(value: Any) -> Any:
    """Tiles in shape positions stand for their size."""
    if isinstance(value, TracedTile):
        return value.block_size
    if isinstance(value, (list, tuple)):
        return type(value)(sizes_of_tiles(v) for v in value) if type(value) in (list, tuple) else value
    return value


#: Dtypes that hold scales and packed numbers, and have no arithmetic.
_ONLY_STORAGE = frozenset({torch.float8_e8m0fnu, getattr(torch, "float4_e2m1fn_x2", None)})


def check_can_be_held(tracer: Tracer, target: Any, values: list[torch.Tensor]) -> None:
    """Refuse values that device code cannot hold, by their dtype or by their size.

    Raises:
        exc.UnsupportedDtype: says how to pass what it stands for.
        exc.SizeNotConstant: see `HostReads.check_constant`.
    """
    for value in values:
        tracer.env.check_constant(value.shape)
        if value.dtype.is_complex:
            fix = "load pairs of floats: pass torch.view_as_real(x)."
        elif value.dtype in _ONLY_STORAGE:
            fix = "load its bytes: pass x.view(torch.uint8), which hl.dot_scaled takes."
        else:
            continue
        name = f"hl.{target.name}" if isinstance(target, Op) else short_name(target)
        raise exc.UnsupportedDtype(op=name, dtype=value.dtype, fix=fix)
