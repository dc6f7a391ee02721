"""Factory functions of torch in device code (`torch.zeros([tile, 8])`, `torch.full_like(x, 1)`): all become `hl.full`
or `hl.arange`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import torch

from ..language import arange
from ..language import full
from .constants import dtype_of_number

if TYPE_CHECKING:
    from .tracer import Tracer

_aten = torch.ops.aten


def _full(tracer: Tracer, size: Any, value: Any, dtype: Any = None, **_: Any) -> Any:
    if dtype is None and isinstance(value, (float, torch.SymFloat)):
        dtype = torch.get_default_dtype()
    return full(list(size), value, dtype=dtype or dtype_of_number(value))


def _constant(value: Any) -> Any:
    def make(tracer: Tracer, size: Any, dtype: Any = None, **_: Any) -> Any:
        return _full(tracer, size, value, dtype or torch.get_default_dtype())

    return make


def _constant_like(value: Any) -> Any:
    def make(tracer: Tracer, like: Any, dtype: Any = None, **_: Any) -> Any:
        return _full(tracer, like.shape, value, dtype or like.dtype)

    return make


def _full_like(tracer: Tracer, like: Any, value: Any, dtype: Any = None, **_: Any) -> Any:
    return _full(tracer, like.shape, value, dtype or like.dtype)


def _new_full(tracer: Tracer, like: Any, size: Any, value: Any, dtype: Any = None, **_: Any) -> Any:
    return _full(tracer, size, value, dtype or like.dtype)


def _new_constant(value: Any) -> Any:
    def make(tracer: Tracer, like: Any, size: Any, dtype: Any = None, **_: Any) -> Any:
        return _full(tracer, size, value, dtype or like.dtype)

    return make


def _scalar_tensor(tracer: Tracer, value: Any, dtype: Any = None, **_: Any) -> Any:
    return _full(tracer, [], value, dtype)


def _arange(tracer: Tracer, start: Any, end: Any, step: Any = 1, dtype: Any = None, **_: Any) -> Any:
    dtype = dtype or torch.int64
    # The cast is the tracer's: here, below PyTorch's dispatch, `.to` would not be recorded.
    made = None if dtype.is_floating_point else dtype if dtype.is_signed else torch.int64
    return tracer.cast(arange(start, end, step, dtype=made), dtype)


def _arange_end(tracer: Tracer, end: Any, dtype: Any = None, **_: Any) -> Any:
    return _arange(tracer, 0, end, 1, dtype)


FACTORIES: dict[Any, Any] = {
    _aten.full.default: _full,
    _aten.zeros.default: _constant(0),
    _aten.ones.default: _constant(1),
    _aten.empty.memory_format: _constant(0),
    _aten.zeros_like.default: _constant_like(0),
    _aten.ones_like.default: _constant_like(1),
    _aten.empty_like.default: _constant_like(0),
    _aten.full_like.default: _full_like,
    _aten.new_full.default: _new_full,
    _aten.new_zeros.default: _new_constant(0),
    _aten.new_ones.default: _new_constant(1),
    _aten.new_empty.default: _new_constant(0),
    _aten.scalar_tensor.default: _scalar_tensor,
    _aten.arange.default: _arange_end,
    _aten.arange.start: _arange,
    _aten.arange.start_step: _arange,
}
