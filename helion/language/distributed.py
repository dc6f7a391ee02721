"""Programs that wait for each other: `hl.signal` and `hl.wait` on flags in memory, of this GPU or a peer.

What a program wrote before it signals is seen by those that have waited for the signal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import exc
from .eager_access import EagerAccess
from .indexing import check_mask
from .indexing import check_value
from .indexing import indexed_shape
from .op import Effect
from .op import Op
from .op import current_handler
from .op import device_op

#: Dtypes of flags.
FLAG_DTYPES = frozenset({torch.int32, torch.int64, torch.uint32, torch.uint64})


@device_op(effect=Effect.UPDATE)
def signal(
    flags: torch.Tensor,
    index: Sequence[Any],
    value: torch.Tensor | int = 1,
    extra_mask: torch.Tensor | None = None,
) -> None:
    """Set `flags[index]` to `value`, after everything that this program has written so far.

    Args:
        flags: host tensor of a 32- or 64-bit integer dtype.
        index: one element per dimension (see `helion.language.indexing`).
        value: number, or tensor that broadcasts to the index's shape; converted to `flags`' dtype.
        extra_mask: bool tensor; flags where it is False are left alone.

    Raises:
        exc.UnsupportedDtype: another dtype of flags.
    """
    raise NotImplementedError


@device_op(effect=Effect.UPDATE)
def wait(
    flags: torch.Tensor,
    index: Sequence[Any],
    value: torch.Tensor | int = 1,
    extra_mask: torch.Tensor | None = None,
) -> None:
    """Wait until `flags[index]` equals `value`; then what was written before the signal is there to be read.

    A program may only wait for one that runs: one with a lower number, whose signal does not depend on this one, or one
    of another launch.  In a loop that waits, the order of loads and stores of different tiles is the kernel's concern.

    Args:
        flags: host tensor of a 32- or 64-bit integer dtype.
        index: one element per dimension (see `helion.language.indexing`).
        value: number, or tensor that broadcasts to the index's shape.
        extra_mask: bool tensor; flags where it is False are not waited for.

    Raises:
        exc.UnsupportedDtype: another dtype of flags.
        exc.BackendUnsupported: without a GPU, where tiles run one after the other: the signal has not come yet.
    """
    raise NotImplementedError


def _check_flags(op: Op, flags: Any) -> None:
    what = f"hl.{op.name}"
    if not isinstance(flags, torch.Tensor):
        raise exc.InvalidAPIUsage(f"{what} needs a tensor of flags, got {type(flags).__name__}")
    if current_handler(what).is_device_value(flags):
        raise exc.AtomicOnDeviceTensor(name=what)
    if flags.dtype not in FLAG_DTYPES:
        raise exc.UnsupportedDtype(op=what, dtype=flags.dtype, fix="use flags of dtype torch.int32.")


def _declare_shape(op: Op) -> None:
    @op.set_shape_rule
    def _(flags: Any, index: Any, value: Any, extra_mask: Any) -> None:
        _check_flags(op, flags)
        shape = indexed_shape(flags, index, op.name)
        check_value(value, shape, f"hl.{op.name}")
        check_mask(extra_mask, shape, f"hl.{op.name}")


_declare_shape(signal)
_declare_shape(wait)


@signal.set_eager_rule
def _(flags: torch.Tensor, index: Any, value: Any, extra_mask: Any) -> None:
    _check_flags(signal, flags)
    EagerAccess(flags, index, extra_mask, "signal").write(value)


@wait.set_eager_rule
def _(flags: torch.Tensor, index: Any, value: Any, extra_mask: Any) -> None:
    _check_flags(wait, flags)
    access = EagerAccess(flags, index, extra_mask, "wait")
    wanted = access.converted(value)
    missing = access.read().view(wanted.dtype) != wanted
    if bool((missing if access.valid is None else missing & access.valid).any()):
        raise exc.BackendUnsupported(
            backend="tile executor",
            reason="hl.wait: tiles run one after the other here, and none that has run has given the signal",
            fix="signal in a tile before those that wait for it, or run the kernel on a GPU.",
        )
