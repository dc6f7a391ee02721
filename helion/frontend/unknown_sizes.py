"""Arguments whose size is not known while another tracer runs: what `nonzero` gave there, and the like."""

from __future__ import annotations

import sympy
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.fake_tensor import FakeTensorMode

from .._compat_tracing import unset_fake_temporarily
from ..ir.symbols import expr_of


def _is_unknown(size: int | torch.SymInt) -> bool:
    return isinstance(size, torch.SymInt) and not size.node.has_hint()


def has_unknown_size(tensor: torch.Tensor) -> bool:
    """Whether it is a fake tensor of another tracer's, with a size that nobody knows (torch's unbacked symbols)."""
    return isinstance(tensor, FakeTensor) and any(map(_is_unknown, (*tensor.shape, *tensor.stride())))


def of_likely_size(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous fake tensor like one with such a size: dynamic shapes and guards see to it that what is traced holds
    for others."""
    numbers: dict[sympy.Expr, int] = {}
    shape = [numbers.setdefault(expr_of(n), 67 + 2 * len(numbers)) if _is_unknown(n) else int(n) for n in tensor.shape]
    with unset_fake_temporarily(), FakeTensorMode():
        return torch.empty(shape, dtype=tensor.dtype, device=tensor.device)
