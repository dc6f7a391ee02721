"""The two modes under which device code runs: torch functions before PyTorch sees them, and ATen ops after.

Both hand what they see to the tracer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.overrides import resolve_name
from torch.utils._python_dispatch import TorchDispatchMode

from .. import exc
from ..ir.pointwise import short_name
from ..ir.reduction_ops import REDUCTIONS
from ..ir.reduction_ops import check_has_elements
from ..language import load
from ..language import store
from ..language.refusals import check_difference
from ..language.refusals import refused
from ..language.refusals import refused_in_place
from ..language.torch_overrides import TORCH_OVERRIDES
from . import distances  # noqa: F401  adds rules to those of decompositions, as do all that are not used here
from . import in_place
from . import ordering  # noqa: F401
from . import pooling  # noqa: F401
from . import rearranging  # noqa: F401
from . import scattering  # noqa: F401
from . import special  # noqa: F401
from .alignment import aligned
from .composites import COMPOSITES
from .constants import check_numbers
from .decompositions import decomposition
from .lengths import given_symbols
from .lengths import symbolic_numbers
from .lengths import told
from .lengths import with_lengths
from .lengths import with_sizes
from .ragged import ragged_axes
from .ragged import with_rows_of_reduction
from .tiles_of_one import with_ones

if TYPE_CHECKING:
    from .tracer import Tracer

_FACTORY_NAMES = frozenset({"full", "zeros", "ones", "empty", "arange", "scalar_tensor", "tensor"})


def _positions(index: Any) -> tuple[Any, ...]:
    """A subscript as one item a dimension: a list is one item, as in PyTorch, and not several as in `hl.load`."""
    return index if isinstance(index, tuple) else (index,)


def _getitem(tensor: torch.Tensor, index: Any) -> Any:
    return load(tensor, _positions(index))


def _setitem(tensor: torch.Tensor, index: Any, value: Any) -> None:
    store(tensor, _positions(index), value)


_INDEXING = {torch.Tensor.__getitem__: _getitem, torch.Tensor.__setitem__: _setitem}


class DeviceFunctionMode(TorchFunctionMode):
    """Torch functions whose meaning in device code differs from eager PyTorch's, before PyTorch sees them."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # Here, since who asks is the frame around.
        if self.tracer.is_native and (sizes := told(self.tracer, func, args, kwargs)) is not NotImplemented:
            return sizes
        try:
            return self._call(func, args, kwargs)
        except (RuntimeError, exc.ShapeMismatch, exc.TorchOpTracingError):
            with self:
                changed = None if func in _INDEXING else with_ones(args, kwargs)
                if changed is None:
                    raise
                try:
                    return func(*changed[0], **changed[1])
                except (RuntimeError, exc.BaseError):
                    pass
            raise

    def _call(self, func: Any, args: Any, kwargs: Any) -> Any:
        numbers = symbolic_numbers(args, kwargs)  # of most calls there are none
        if any(isinstance(number, torch.SymInt) for number in numbers):
            args, kwargs = with_sizes(self.tracer, func, args, kwargs)
        rule = TORCH_OVERRIDES.get(func) or _INDEXING.get(func)
        if rule is not None:
            return rule(*args, **kwargs)  # type: ignore[operator]
        composite = COMPOSITES.get(func)
        if composite is not None:
            result = composite(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if "device" not in kwargs and getattr(func, "__name__", "") in _FACTORY_NAMES:
            kwargs = {**kwargs, "device": self.tracer.device}
        name = getattr(func, "__name__", "")
        if name.endswith("_") and not name.startswith("_") and args and self.tracer.is_device_value(args[0]):
            raise refused_in_place(f"torch.Tensor.{name}")
        outer, self.tracer.given = self.tracer.given, given_symbols(args, kwargs) if numbers else frozenset()
        try:
            return func(*args, **kwargs)
        except exc.TorchOpTracingError as error:
            if not error.message.startswith("torch.size "):
                raise
            # PyTorch's own way of writing the function asks for sizes as numbers, which tiles have none of.
            raise refused((resolve_name(func) or name).removeprefix("torch.")) from None
        finally:
            self.tracer.given = outer


# How often an op may turn up in its own decomposition before that is taken for a circle.
_DEEPEST = 3


class DeviceDispatchMode(TorchDispatchMode):
    """ATen ops: recorded when the IR has them, decomposed otherwise."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.tracer = tracer
        self._decomposing: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.tracer._paused or func.namespace == "prim":  # prim: questions about metadata, such as tensor.device
            return func(*args, **kwargs)
        with self:
            if self.tracer.given is not None:
                func, args = with_lengths(self.tracer, func, tuple(args), self.tracer.given)
            args, kwargs = aligned(self.tracer, func, tuple(args), kwargs)
        if func in REDUCTIONS and (jagged := ragged_axes(self.tracer.axes_around())):
            with self:
                args = with_rows_of_reduction(self.tracer, func, tuple(args), kwargs, jagged)
        if not self._decomposing:
            check_numbers(func, args, kwargs)
            if func._overloadname != "other":
                check_has_elements(func.overloadpacket.__name__, args, kwargs)
                check_difference(func.overloadpacket.__name__, args)
        result = self.tracer.aten(func, tuple(args), kwargs)
        if result is not NotImplemented:
            return result
        # Some of PyTorch's decompositions end where they began (an ATen op and a prim of the same name).
        simpler = decomposition(func) if self._decomposing.count(func) < _DEEPEST else None
        if simpler is not None:
            self._decomposing.append(func)
            try:
                with self:
                    result = simpler(*args, **kwargs)
            finally:
                self._decomposing.pop()
            if _is_view(func) and not any(result is arg for arg in args):
                # The rule made a value of its own where PyTorch makes a view: neither may be changed in place.
                self.tracer.share((args, kwargs, result))
            if result is not NotImplemented:
                return result
        if func.overloadpacket in in_place.RESHAPING:
            with self:
                result = in_place.reshape(self.tracer, func, *args, **kwargs)
            if result is not NotImplemented:
                return result
        for arg in torch.utils._pytree.tree_leaves((args, kwargs)):
            if isinstance(arg, torch.Tensor):
                self.tracer.operand(arg)
        name = short_name(func)
        if func._schema.is_mutable:
            raise refused_in_place(name)
        raise refused(name.removeprefix("torch."))


def _is_view(op: torch._ops.OpOverload) -> bool:
    """Whether the result shares memory with an argument, which it does not change."""
    return any(r.alias_info is not None and not r.alias_info.is_write for r in op._schema.returns)
