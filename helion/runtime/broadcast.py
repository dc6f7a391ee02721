"""``torch.broadcast_tensors`` of host code, skipped where there is nothing to broadcast."""

from __future__ import annotations

import torch

from .. import _extension

__all__ = ["broadcast_tensors"]


def broadcast_tensors(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """``torch.broadcast_tensors``, which makes a new view of every argument even where shapes are equal.

    Generated host code calls this under dynamic shapes; under static shapes, where equality is known, the call is
    dropped when the code is generated.

    Args:
        *tensors: tensors whose shapes broadcast.

    Returns:
        The arguments themselves if their shapes are equal, else views of the common shape.
    """
    if tensors:
        shape = tensors[0].shape
        if all([tensor.shape == shape for tensor in tensors]):
            return tensors
    return tuple(torch.broadcast_tensors(*tensors))


if _extension.C is not None:
    broadcast_tensors = _extension.C.broadcast_tensors
