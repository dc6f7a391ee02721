"""torch functions in ref mode: what the user's own statements mean between host and device code.

`DeviceTorchMode` sees every torch call of the user's function.  In device code it routes `x[tile]` to
`hl.load`, applies `TORCH_OVERRIDES`, turns tiles and block sizes in shapes into extents, and reports host
tensors used directly.  Values made in device code are marked (`axes`).
"""

from __future__ import annotations

import dis
import os
import sys
import types
from collections.abc import Callable
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils._pytree import tree_map

from ... import _compat_torch
from ... import exc
from ...ir.reduction_ops import check_has_elements
from ...language.augmented import OPERATORS
from ...language.augmented import keep_type
from ...language.containers import tensors_of_call
from ...language.containers import walk_values
from ...language.eager_tile import EagerInt
from ...language.eager_tile import EagerTile
from ...language.eager_tile import extent_of
from ...language.eager_tile import is_length_of_tile
from ...language.indexing import index_list
from ...language.memory import load
from ...language.memory import store
from ...language.op import active_handler
from ...language.refusals import check_difference
from ...language.refusals import refused_in_place
from ...language.subscripts import subscript
from ...language.torch_overrides import TORCH_OVERRIDES
from ...language.truth import scalar
from ...language.views import check_width
from ...language.windows import unwrapped
from .alignment import MARK as _MARK
from .alignment import JaggedAxis as JaggedAxis
from .alignment import Stretched
from .alignment import aligned
from .alignment import check_one_tile
from .alignment import is_pointwise
from .axes import PRODUCTS
from .axes import axes_of
from .axes import axes_of_call
from .axes import is_device_value
from .axes import mark
from .lanes import decided
from .lanes import has_other_lanes
from .lanes import per_lane
from .selections import note_selections
from .sizes import axes_of_expanded
from .sizes import axes_of_shape
from .sizes import sizes_with_tiles
from .sizes import squeezed
from .unsigned import called

if TYPE_CHECKING:
    from .ref_mode import RefHandler

#: For each dimension the loop axis it runs over (`EagerTile.axis`), or None.

_PACKAGE = os.path.dirname(os.path.abspath(exc.__file__)) + os.sep

#: Tensor properties and functions that read no element, so a host tensor may be passed to them.
_METADATA = frozenset(
    [
        "shape",
        "dtype",
        "device",
        "ndim",
        "layout",
        "is_cuda",
        "is_cpu",
        "requires_grad",
        "is_leaf",
        "itemsize",
        "nbytes",
        "size",
        "stride",
        "dim",
        "numel",
        "element_size",
        "is_contiguous",
        "is_floating_point",
        "is_complex",
        "is_signed",
        "get_device",
        "storage_offset",
        "__len__",
        "data_ptr",
        "__repr__",
        "__str__",
        "__format__",
        "__hash__",
        "ndimension",
        "nelement",
        "is_nonzero",
    ]
)
#: Functions whose integers are sizes: tiles and block sizes among their arguments mean extents.
_SIZE_FUNCTIONS = frozenset(
    [
        "zeros",
        "ones",
        "empty",
        "full",
        "rand",
        "randn",
        "randint",
        "new_zeros",
        "new_ones",
        "new_empty",
        "new_full",
        "view",
        "reshape",
        "expand",
        "broadcast_to",
        "unflatten",
        "repeat",
        "tile",
        "arange",
        "eye",
        "empty_strided",
    ]
)
#: Functions that make a tensor of nothing: by default on the kernel's device.
_CREATION_FUNCTIONS = frozenset(
    ["zeros", "ones", "empty", "full", "arange", "tensor", "eye", "linspace", "as_tensor", "scalar_tensor"]
)
#: The same as methods of a tensor, of which they take dtype and device: it may be one of the host's.
_CREATION_METHODS = frozenset(["new_zeros", "new_ones", "new_empty", "new_full"])


#: Functions that keep the shape but not the meaning of each dimension.
class EagerLanes:
    """Whose lanes index vectors have, and the lanes of slices (see `language.outer_index`).

    Args:
        device: where the kernel's tensors live.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def same(self, left: torch.Tensor, right: torch.Tensor) -> bool:
        known = [tensor.__dict__.get(_MARK) for tensor in (left, right)]
        return left.shape == right.shape if None in known else known[0] == known[1]

    def is_single(self, vector: torch.Tensor) -> bool:
        return vector.shape[0] == 1 and axes_of(vector) == (None,)

    def lanes(self, start: Any, stop: Any, step: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices `start`, `start + step`, ... below `stop`, and which of them a dimension of `size` has."""
        length = unwrapped(extent_of(stop) - extent_of(start), start, stop)
        with _compat_torch.without_torch_functions():
            index = int(start) + step * torch.arange(-(-length // step), device=self._device)
            inside = (index >= 0) & (index < size)
        axes = [Stretched()] if is_length_of_tile(start) or is_length_of_tile(stop) else None
        return mark(index, axes), mark(inside, axes)

    def on_host(self, bounds: Sequence[Any]) -> bool:
        return False  # a window has a number of the kernel's

    def both(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        with _compat_torch.without_torch_functions():
            both = left & right
        marked: torch.Tensor = mark(both)
        return marked


def arranged(value: torch.Tensor, dims: Sequence[int | None]) -> torch.Tensor:
    """A view with the dimensions of a device value in this order, and new ones."""
    axes = axes_of(value)
    with _compat_torch.without_torch_functions():
        kept = value.permute([d for d in dims if d is not None])
        result = kept[tuple(None if d is None else slice(None) for d in dims)]
    marked: torch.Tensor = mark(result, [None if d is None else axes[d] for d in dims])
    return marked


# -- names for messages --------------------------------------------------------------------------------------


def name_of(value: Any, unknown: str = "a tensor") -> str:
    """What the user's code calls a tensor or tile.

    An argument has the name that it has when the kernel is compiled, `xs[1]`: the variable of a loop over a tuple is
    another tensor the next time.
    """
    for frame in reversed(_user_frames()):
        arguments = frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount
        variables = list(frame.f_locals.items())
        for group in (variables[:arguments], variables[arguments:]):
            for name, held in group:
                if held is value:
                    return name
            for name, held in group:
                for path, part in walk_values(held, name):
                    if part is value:
                        return path
    return unknown


def user_frame() -> types.FrameType | None:
    """The innermost frame that is neither helion's nor torch's."""
    frame: types.FrameType | None = sys._getframe(1)
    torch_files = os.path.dirname(torch.__file__) + os.sep
    while frame is not None and frame.f_code.co_filename.startswith((_PACKAGE, torch_files)):
        frame = frame.f_back
    return frame


def call_sites() -> tuple[Any, ...]:
    """The place in the user's code that is being run, with the calls that led there."""
    return tuple((frame.f_code, frame.f_lasti) for frame in _user_frames())


def _user_frames() -> list[types.FrameType]:
    """The frames that are neither helion's nor torch's, innermost first; the last one is the kernel function's."""
    torch_files = os.path.dirname(torch.__file__) + os.sep
    frame, found = user_frame(), []
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith((_PACKAGE, torch_files)):
            found.append(frame)
        elif code.co_name == "run_ref":
            break
        frame = frame.f_back
    return found


# -- the mode ------------------------------------------------------------------------------------------------


class DeviceTorchMode(TorchFunctionMode):
    """Gives torch functions their meaning in device code; host code keeps torch's.

    Args:
        ref: the handler that knows whether device code is running.
    """

    def __init__(self, ref: RefHandler) -> None:
        super().__init__()
        self._ref = ref

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if active_handler() is not self._ref:  # inside another kernel that this one's host code calls
            return func(*args, **kwargs)
        name = _function_name(func)
        if not self._ref.on_device:
            self._check_host_call(name, args, kwargs)
            made = func(*args, **kwargs)
            note_selections(self._ref.selected, name, args, kwargs, made)
            return made
        if func is torch.Tensor.__getitem__:
            return self._getitem(*args)
        if func is torch.Tensor.__setitem__:
            return self._setitem(*args)
        if func is torch.Tensor.__bool__:
            scalar(args[0], "a condition")
            self._ref.asked_for_truth()
        if name not in _METADATA:
            self._check_device_call(args[1:] if name in _CREATION_METHODS else args, kwargs)
        if name in ("shape", "size") and is_device_value(args[0]):
            dim = (*args[1:], *kwargs.values())
            return sizes_with_tiles(func(*args, **kwargs), args[0], dim, axes_of(args[0]), self._ref.active_tiles())
        if name == "view" and isinstance(dtype := kwargs.get("dtype", args[-1]), torch.dtype):
            check_width(args[0].dtype, dtype)
        if name == "squeeze" and is_device_value(args[0]):
            return mark(*squeezed(args, kwargs, axes_of(args[0])))
        override = TORCH_OVERRIDES.get(func)
        if override is not None:
            with self:  # inside __torch_function__ the mode is off, but what the override makes are device values
                return override(*args, **kwargs)
        if name in OPERATORS and _is_augmented_assignment():
            with self:
                return keep_type(args[0], OPERATORS[name](*args))
        if name.endswith("_") and not name.startswith("__") and args and isinstance(args[0], torch.Tensor):
            raise refused_in_place(f"torch.Tensor.{name}")
        active = self._ref.active_tiles()
        if is_pointwise(name):
            args, kwargs = decided(args, kwargs, active, axes_of)
        args, kwargs = aligned(name, args, kwargs, active, axes_of, arranged)
        if len(active) > 1 and is_pointwise(name):
            operands = [axes_of(tensor) for tensor in tensors_of_call(args, kwargs)]
            check_one_tile(operands, active, name_of)
        axes = None
        if name in _SIZE_FUNCTIONS:
            if name in ("expand", "broadcast_to"):
                axes = axes_of_expanded(args, kwargs, axes_of)
            elif name in _CREATION_FUNCTIONS:
                axes = axes_of_shape(args[0] if args else kwargs.get("size"))
            elif name in _CREATION_METHODS and len(args) > 1:
                axes = axes_of_shape(args[1] if isinstance(args[1], (list, tuple)) else args[1:])
            args, kwargs = tree_map(_extent, args), tree_map(_extent, kwargs)
        if name in _CREATION_FUNCTIONS and kwargs.get("device") is None:
            kwargs["device"] = self._ref.device
        combined: Any = NotImplemented
        try:
            check_has_elements(name, args, kwargs)
            check_difference(name, args)
            if is_pointwise(name) and has_other_lanes(args, kwargs, active, axes_of):
                return per_lane(func, args, kwargs, active, axes_of)
            combined = self._ref.reduced(name, func, args, kwargs)
            result = called(func, args, kwargs) if combined is NotImplemented else combined
        except exc.Base:
            raise
        except RuntimeError:
            lanes = per_lane(func, args, kwargs, active, axes_of)
            if lanes is None:
                raise
            return lanes
        if combined is NotImplemented and name not in PRODUCTS and self._broadcasts(result, args, kwargs):
            one_lane = per_lane(func, args, kwargs, active, axes_of)
            if one_lane is not None and one_lane.shape == result.shape:
                return one_lane
        axes = axes or self._ref.axes_of_reduction(name, args, kwargs)
        marked = mark(result, axes or axes_of_call(func, name, (args, kwargs), result))
        if combined is NotImplemented and name not in _METADATA:
            self._ref.check_keeps_rows(name, args, kwargs, marked)
        return marked

    def _broadcasts(self, result: Any, args: Any, kwargs: Any) -> bool:
        """Whether a result is of operands that broadcast while a partial tile has one element: to PyTorch that one goes
        with all lanes, to a kernel with the first."""
        if not isinstance(result, torch.Tensor) or result.dim() == 0:
            return False
        if not any(tile.extent == 1 < int(tile.block_size) for tile in self._ref.active_tiles()):
            return False
        shapes = [tensor.shape for tensor in tensors_of_call(args, kwargs)]
        if len(shapes) < 2 or all(shape == result.shape for shape in shapes):
            return False
        try:
            return torch.broadcast_shapes(*shapes) == result.shape
        except RuntimeError:
            return False

    def _getitem(self, tensor: torch.Tensor, index: Any) -> Any:
        if is_device_value(tensor):
            return self._ref.call_op(subscript, (tensor, index if isinstance(index, tuple) else (index,)))
        return self._ref.call_op(load, (tensor, index_list(index), None, None))

    def _setitem(self, tensor: torch.Tensor, index: Any, value: Any) -> None:
        if is_device_value(tensor):
            raise exc.DeviceTensorSubscriptAssignmentNotAllowed(
                "a device value cannot be written in part",
                fix="use torch.where to change some elements, or store into a host tensor.",
            )
        self._ref.call_op(store, (tensor, index_list(index), value, None))

    def _check_device_call(self, args: Any, kwargs: Any) -> None:
        for tensor in tensors_of_call(args, kwargs):
            if not is_device_value(tensor):
                raise exc.HostTensorDirectUsage(name=name_of(tensor))
            self._ref.check_rows_are_known(tensor)

    def _check_host_call(self, name: str, args: Any, kwargs: Any) -> None:
        if name in _METADATA:
            return
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Tensor) and is_device_value(leaf):
                raise exc.CannotReadDeviceVariableOnHost(name=name_of(leaf))
            if isinstance(leaf, EagerTile):
                raise exc.DeviceAPIOnHost(name="a tile")


def _is_augmented_assignment() -> bool:
    """Whether the user's code is at `x += y` rather than `x.add_(y)`, which function modes see as the same call."""
    frame = user_frame()
    if frame is None:
        return False
    operation = dis.opname[frame.f_code.co_code[frame.f_lasti]]
    return operation.startswith(("INPLACE_", "BINARY_OP"))


def _function_name(func: Callable[..., Any]) -> str:
    """`sum` for a function or method, `shape` for the getter of a property."""
    name: str = getattr(func, "__name__", "")
    if name == "__get__":
        return str(getattr(getattr(func, "__self__", None), "__name__", name))
    return name


def _extent(item: Any) -> Any:
    return extent_of(item) if isinstance(item, (EagerInt, EagerTile)) else item
