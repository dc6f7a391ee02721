"""Looking into a running kernel: `hl.device_print`, `hl.breakpoint`."""

from __future__ import annotations

import builtins
from typing import Any

import torch

from .. import exc
from .op import device_op
from .tile import Tile


@device_op(has_side_effect=True, takes_tiles=True)
def device_print(prefix: str, *values: Any) -> None:
    """Print values from device code: one line per element on a GPU, whole tensors in eager modes.

    Python's `print` in device code does the same.

    Args:
        prefix: constant text printed first.
        values: tensors, scalars, or tiles: `tile[0:16]`, on a GPU the two bounds.
    """
    raise NotImplementedError


@device_print.set_shape_rule
def _(prefix: str, values: tuple[Any, ...]) -> None:
    if not isinstance(prefix, str):
        raise exc.InvalidAPIUsage("hl.device_print: the first argument must be a constant string")
    for value in values:
        if not isinstance(value, (Tile, torch.Tensor, int, float, bool, torch.SymInt, torch.SymFloat, torch.SymBool)):
            raise exc.InvalidAPIUsage(
                f"hl.device_print cannot print a {type(value).__name__}",
                fix="print tensors, numbers and tiles; the rest is text, `hl.device_print(str(x.dtype), x)`.",
            )


@device_print.set_eager_rule
def _(prefix: str, values: tuple[Any, ...]) -> None:
    print(*([prefix] if prefix else []), *values)


@device_op(has_side_effect=True)
def breakpoint() -> None:
    """Stop in the debugger; only where the user's own function runs (HELION_INTERPRET=1).

    Compiled kernels cannot stop: backends raise an error that says so.
    """
    raise NotImplementedError


@breakpoint.set_shape_rule
def _() -> None:
    return None


@breakpoint.set_eager_rule
def _() -> None:
    builtins.breakpoint()
