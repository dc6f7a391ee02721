"""Making device values: `hl.zeros`, `hl.full`, `hl.arange`.  Random ones are in `random`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import exc
from .eager_tile import extent_of
from .held import check_held
from .op import current_handler
from .op import device_op
from .shapes import resolve_shape


def zeros(shape: Sequence[Any], dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> torch.Tensor:
    """A device value of zeros.

    Args:
        shape: sizes; tiles stand for their size.
        dtype: element type.
        device: for compatibility with torch.zeros; must be the kernel's device or None.

    Returns:
        A tensor of `shape` and `dtype`.
    """
    _check(shape, dtype, device, "hl.zeros")
    result: torch.Tensor = full(shape, False if dtype is torch.bool else 0, dtype, device)
    return result


@device_op(
    shape_args=["shape"],
    elementwise=True,
    padding=lambda shape, value, *args: value if isinstance(value, (bool, int, float)) else None,
)
def full(
    shape: Sequence[Any],
    value: float | torch.Tensor,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> torch.Tensor:
    """A device value with every element equal.

    Args:
        shape: sizes; tiles stand for their size.
        value: number, or 0-d tensor (a scalar loaded from memory).
        dtype: element type; `value` is converted to it.
        device: for compatibility with torch.full; must be the kernel's device or None.

    Returns:
        A tensor of `shape` and `dtype`.
    """
    raise NotImplementedError


@full.set_shape_rule
def _(shape: Any, value: Any, dtype: torch.dtype, device: Any) -> torch.Tensor:
    sizes = _check(shape, dtype, device, "hl.full")
    if isinstance(value, torch.Tensor) and value.dim() != 0:
        raise exc.ShapeMismatch(f"hl.full needs a number or a 0-d tensor, got one of {value.dim()} dimensions")
    return torch.empty(sizes, dtype=dtype, device=current_handler().device)


def _check(shape: Any, dtype: Any, device: Any, what: str) -> list[Any]:
    """The sizes of a new value, after checking what it is made with."""
    check_device(device, what)
    if not isinstance(dtype, torch.dtype):
        raise exc.InvalidAPIUsage(f"{what}: {dtype!r} is not a dtype", fix="pass one of torch's: dtype=torch.float32.")
    return resolve_shape(shape, what)


@full.set_eager_rule
def _(shape: Any, value: Any, dtype: torch.dtype, device: Any) -> torch.Tensor:
    sizes = current_handler().extents(resolve_shape(shape, "hl.full"))
    on = current_handler().device
    if isinstance(value, torch.Tensor):
        if value.dim() != 0:
            raise exc.ShapeMismatch(f"hl.full needs a number or a 0-d tensor, got one of {value.dim()} dimensions")
        return value.to(device=on, dtype=dtype).expand(sizes).clone()
    check_held(value, dtype, "hl.full", alone=not sizes)
    return torch.full(sizes, value, dtype=dtype, device=on)


@device_op(shape_args=["length"])
def iota(start: Any, length: Any, step: int, dtype: torch.dtype) -> torch.Tensor:
    """`start + step * [0, 1, ..., length - 1]`: what `hl.arange` records.

    Args:
        start: int, SymInt or 0-d integer tensor.
        length: size of the result; int or SymInt.
        step: constant integer.
        dtype: integer dtype.
    """
    raise NotImplementedError


@iota.set_shape_rule
def _(start: Any, length: Any, step: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty([length], dtype=dtype, device=current_handler().device)


@iota.set_eager_rule
def _(start: Any, length: Any, step: int, dtype: torch.dtype) -> torch.Tensor:
    h = current_handler()
    steps = torch.arange(extent_of(length), dtype=torch.int64, device=h.device) * step
    return (steps + (start if isinstance(start, torch.Tensor) else int(start))).to(dtype)


def arange(
    *bounds: Any, step: int = 1, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> torch.Tensor:
    """Consecutive integers: `hl.arange(end)`, `hl.arange(start, end)`, `hl.arange(start, end, step)`.

    Args:
        bounds: ints, SymInts, or a tile for its size.  `start` may be any scalar as long as `end - start`
            is a size (for example `hl.arange(tile.begin, tile.begin + tile.block_size)`); on a GPU other
            bounds must be constants.
        step: from one to the next, a constant; below 0 they count down.
        dtype: integer or float dtype; the kernel's index dtype (int32, or int64 for large tensors) if left out.
        device: for compatibility with torch.arange; must be the kernel's device or None.

    Returns:
        1-d tensor of `(end - start) / step` elements, rounded up.

    Raises:
        exc.InvalidAPIUsage: a step that is 0 or no constant, bounds that are not integers, or `end` on the wrong side.
    """
    h = current_handler("hl.arange")
    check_device(device, "hl.arange")
    if not 1 <= len(bounds) <= 3:
        raise exc.InvalidAPIUsage(f"hl.arange takes 1 to 3 bounds, got {len(bounds)}")
    if len(bounds) == 3:
        step = bounds[2]
    if not isinstance(step, int) or isinstance(step, bool) or step == 0:
        raise exc.InvalidAPIUsage(
            f"arange: the step must be a constant other than 0, got {step!r}",
            fix="count by ones and multiply: `start + step * hl.arange(n)`.",
        )
    start, end = (0, bounds[0]) if len(bounds) == 1 else bounds[:2]
    if isinstance(start, (float, torch.SymFloat)) or isinstance(end, (float, torch.SymFloat)):
        raise exc.InvalidAPIUsage("hl.arange takes integer bounds", fix="scale the result: `hl.arange(n) * 0.5`.")
    end = resolve_shape(end, "hl.arange")[0]
    dtype = h.index_dtype if dtype is None else dtype
    length = end if isinstance(start, int) and start == 0 else end - start
    if step < 0:
        length = (-length - step - 1) // -step
    elif step != 1:
        length = (length + (step - 1)) // step
    if isinstance(length, int) and length < 0:
        raise exc.InvalidAPIUsage(
            f"arange: {end} cannot be reached from {start} in steps of {step}", fix="swap the bounds, or turn the step."
        )
    integer = dtype if not dtype.is_floating_point else h.index_dtype
    if step < 0 and not dtype.is_signed:
        integer = torch.int64
    result: torch.Tensor = iota(start, length, step, integer)
    return result if integer is dtype else result.to(dtype)


def check_device(device: Any, what: str) -> None:
    """Raise unless `device` is None or the kernel's."""
    if device is None:
        return
    wanted = current_handler(what).device
    given = torch.device(device)
    if given.type != wanted.type or given.index not in (None, wanted.index):
        raise exc.InvalidAPIUsage(
            f"{what}: device {given} is not the kernel's device {wanted}", fix="leave device out."
        )
