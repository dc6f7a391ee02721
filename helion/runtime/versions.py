"""Version counters of tensors that a kernel has written: how autograd notices that a tensor it saved has changed."""

from __future__ import annotations

import torch
from torch.compiler import is_dynamo_compiling

from .. import _compat_torch

__all__ = ["increment_version"]


def increment_version(*tensors: torch.Tensor) -> None:
    """Tell autograd that ``tensors`` were written in place, as PyTorch's own in-place operations do.

    Generated host code calls this after launches that write to arguments or views of them. A later ``backward()`` that
    needs what was there before then raises instead of giving wrong gradients. Nothing happens to inference tensors,
    which have no counter; under Dynamo the graph already says which tensors the launch writes.
    """
    if not is_dynamo_compiling():
        _compat_torch.increment_version(tensors)
