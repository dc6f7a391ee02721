"""How wide offsets into tensors are: 32 bits, or 64 where a tensor of the kernel reaches further.

The call's own tensors are looked at before tracing, tensors that host code makes (an output larger than any input) when
the first device loop begins: by then host code has made all that device code can use.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import sympy
import torch

from .. import exc
from ..ir.symbols import expr_of
from ..language.containers import walk_values
from ..settings import Settings
from .source import captured

# 32-bit offsets reach this many elements.
_INT32_ELEMENTS = 2**31


class IndexWidth:
    """Decides the dtype of offsets for one specialization.

    Args:
        settings: the kernel's; `index_dtype` "auto" takes 64 bits only where they are needed.
        largest: a span as it is at most, whatever the Config; None where there is no saying.
    """

    def __init__(self, settings: Settings, largest: Callable[[Any], Any] = lambda span: span) -> None:
        self.setting = settings.index_dtype
        self.largest = largest

    def of_arguments(self, arguments: Mapping[str, Any]) -> torch.dtype:
        """The dtype that the call's tensors need, those in closures of functions included.

        Raises:
            exc.InputTensorNumelExceedsIndexType: int32 was asked for and a tensor is too large for it.
        """
        found = [(path, _span(tensor)) for path, tensor in _tensors(arguments, ())]
        path, span = max(found, key=lambda entry: entry[1], default=("", 0))
        try:
            return self._decide(path, span, wide=span > _INT32_ELEMENTS)
        except exc.IndexOffsetOutOfRangeForInt32 as error:
            raise exc.InputTensorNumelExceedsIndexType(error.message) from None

    def of_host_tensors(self, host: Mapping[str, Any], arguments: list[torch.Tensor]) -> torch.dtype:
        """The dtype that tensors made by host code need.  Under dynamic shapes that is a condition on their sizes (a
        guard).

        Args:
            host: host variables.
            arguments: FakeTensors of the call's tensors, which `of_arguments` has looked at; their views reach no
                further.
        """
        known = {id(tensor) for tensor in arguments}
        spans = {sympy.expand(expr_of(_span(tensor))) for tensor in arguments}
        for path, tensor in _tensors(host, ()):
            if id(tensor) in known or id(tensor._base) in known:
                continue
            span = self.largest(_span(tensor))
            if span is None or (sympy.expand(expr_of(span)) not in spans and bool(span > _INT32_ELEMENTS)):
                return self._decide(path, span, wide=True)
        return self._decide("", 0, wide=False)

    def _decide(self, path: str, span: Any, *, wide: bool) -> torch.dtype:
        if self.setting == "auto":
            return torch.int64 if wide else torch.int32
        if self.setting is torch.int32 and wide:
            raise exc.IndexOffsetOutOfRangeForInt32(name=path, elements=span)
        return self.setting


def _span(tensor: torch.Tensor) -> Any:
    """Elements from a tensor's first to its last in memory, both counted."""
    if any(isinstance(size, int) and size == 0 for size in tensor.shape):
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))


def _tensors(values: Mapping[str, Any], inside: tuple[Any, ...]) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors in host values with the expressions that reach them; `inside`: the functions whose closures hold the
    values.
    """
    for name, value in values.items():
        for path, part in walk_values(value, name):
            if isinstance(part, torch.Tensor):
                yield path, part
            elif isinstance(part, types.FunctionType) and not any(part is other for other in inside):
                yield from _tensors(captured(part), (*inside, part))
