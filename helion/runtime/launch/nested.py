"""A kernel that the host code of another one calls, while that is traced.

The call stays a call in the other's generated host function. A trace only needs what it returns: the inner kernel is
bound for arguments like these, with sizes and numbers of their own instead of the outer trace's symbols, and its host
function runs on the outer trace's values with nothing launched. Not here: calls under PyTorch's own tracing
(`tracing`), and calls in device code, which the front end refuses.
"""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map

from ... import _compat_torch
from ... import exc

if TYPE_CHECKING:
    from collections.abc import Callable

    from .dispatch import PythonPath

__all__ = ["runner_in_trace"]


def runner_in_trace(dispatcher: PythonPath, args: tuple[Any, ...]) -> Callable[..., Any]:
    """What a call in traced host code runs: the inner kernel's host function, which launches nothing.

    Args:
        dispatcher: the inner kernel.
        args: values of the outer trace, by position. Their sizes and integers are constants of that trace from here
            on: the inner kernel may be one for these alone.

    Raises:
        exc.NestedKernelCallsNotSupported: sizes in the inner kernel's host code depend on its Config, which may be
            another one by the time of a call.
    """
    kernel = dispatcher.specializer.kernel_name
    with FakeTensorMode():
        example = tuple(tree_map(_constant, args))
    with _compat_torch.without_dispatch_modes():
        run = dispatcher._traced_host_function(example)
        if dispatcher._host_asks_config(example):
            raise exc.NestedKernelCallsNotSupported(
                f"kernel {kernel!r} is called in the host code of another one, and computes with numbers of its Config "
                "in its own: what it returns is not known before that is chosen",
                fix="call it outside of this kernel and pass its result as an argument.",
            )
        guard = dispatcher._guard_text(example)
    if not isinstance(run, types.FunctionType):
        raise exc.InternalError(reason=f"kernel {kernel!r} has no host function")
    if guard is not None:
        # What the inner trace assumes of numbers, asked of the outer trace's, is a guard of that.
        given = dict(zip(dispatcher.specializer.signature.parameters, args))
        if not eval(guard, {**run.__globals__, **given}):
            raise exc.InternalError(reason=f"kernel {kernel!r} is bound for other numbers than those it is called with")
    return functools.partial(run, _launcher=_launch_nothing)


def _constant(value: Any) -> Any:
    """A value like the one of a trace, without symbols; asking for a size makes it a constant of the trace."""
    if isinstance(value, torch.Tensor):
        sizes, strides = tuple(map(int, value.shape)), tuple(map(int, value.stride()))
        return torch.empty_strided(sizes, strides, dtype=value.dtype, device=value.device)
    if isinstance(value, torch.SymInt):
        return int(value)
    # Asking for a float would trace the outer kernel for each one again; shapes hardly depend on any.
    return float(value.node.hint) if isinstance(value, torch.SymFloat) else value


def _launch_nothing(*args: Any, **options: Any) -> None:
    pass
