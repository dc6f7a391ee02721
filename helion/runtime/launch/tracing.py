"""Calls that something else is watching: export, fake tensors, ``torch.func`` transforms.

Under Dynamo and the tracing modes a call must end up in the graph as ``triton_kernel_wrapper_mutation``, or as
``helion::launch`` (`graph_launch`): the generated host function is run as ordinary PyTorch code with a launcher that
PyTorch knows how to record. Transforms cannot see
into a kernel, so they are refused with a message that names what can be done.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ... import _compat_torch
from ... import _compat_triton_abi as _abi
from ... import exc
from ...language.op import active_handler
from .nested import runner_in_trace

if TYPE_CHECKING:
    from .dispatch import PythonPath
    from .dispatch import Runner

__all__ = ["holds_fake_tensors", "recording_launcher", "runner_under_modes", "tensors_in"]


def recording_launcher(
    triton_kernel: Any, grid: tuple[int, ...], *args: Any, num_warps: int, num_stages: int, **options: Any
) -> None:
    """A launcher for tracing modes other than Dynamo: PyTorch records the launch of a Triton kernel, and nothing
    runs."""
    constants = _abi.constexpr_defaults(triton_kernel)
    torch.library.wrap_triton(triton_kernel)[grid](
        *args, num_warps=num_warps, num_stages=num_stages, **constants, **options
    )


def tensors_in(args: Sequence[Any]) -> list[torch.Tensor]:
    """The tensors among the arguments, those in containers included."""
    return [leaf for leaf in torch.utils._pytree.tree_leaves(list(args)) if isinstance(leaf, torch.Tensor)]


def holds_fake_tensors(args: Sequence[Any]) -> bool:
    """Whether one of the arguments is a fake tensor, which may come without its mode."""
    return FakeTensor in map(type, args)


def runner_under_modes(dispatcher: PythonPath, args: tuple[Any, ...]) -> Runner | None:
    """The function for a call under a dispatch mode or inside a ``torch.func`` transform.

    Returns:
        The function, or None if the call is to be run as any other: nothing about it is special.

    Raises:
        exc.InvalidAPIUsage: an argument is wrapped by a ``torch.func`` transform.
    """
    kernel = dispatcher.specializer.kernel_name
    tensors = tensors_in(args)
    for tensor in tensors:
        if _compat_torch.is_functorch_wrapped(tensor):
            raise exc.InvalidAPIUsage(
                f"kernel {kernel!r} was called inside torch.func "
                f"({_compat_torch.transform_name(tensor)}), which cannot see "
                "into a kernel",
                fix="wrap the kernel in a torch.autograd.Function with a backward (for grad, jacrev) and a vmap "
                "staticmethod (for vmap), or call it outside of the transform.",
            )
    if _compat_torch.is_jit_tracing():
        raise exc.InvalidAPIUsage(
            f"kernel {kernel!r} was called inside torch.jit.trace, which would record it without its launches",
            fix="use torch.compile or torch.export, or wrap the kernel in a torch.library.custom_op.",
        )
    if not _is_traced(tensors):
        return None
    if active_handler() is not None:
        return runner_in_trace(dispatcher, args)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        dispatcher._on_requires_grad()
    with _compat_torch.without_dispatch_modes():  # binding traces on fake tensors of its own
        run = dispatcher._traced_host_function(args)
    dispatcher.stats.counter("traced").hit()
    if not isinstance(run, types.FunctionType):
        raise exc.InternalError(reason=f"kernel {kernel!r} has no host function")
    from . import graph_launch  # loads the tile executor

    own = graph_launch.needs_graph_launch(run)
    launcher = graph_launch.graph_launcher(run) if own else recording_launcher
    return _in_mode_of(tensors, functools.partial(run, _launcher=launcher))


def _in_mode_of(tensors: list[torch.Tensor], run: Runner) -> Runner:
    """`run` in the mode of the fake tensors among the arguments, where none is active: PyTorch 2.11 records a launch
    of a Triton kernel in its mode only."""
    if any(isinstance(mode, FakeTensorMode) for mode in _compat_torch.active_dispatch_modes()):
        return run
    fake = next((tensor for tensor in tensors if isinstance(tensor, FakeTensor)), None)
    if fake is None:
        return run

    def inside(*args: Any) -> Any:
        with fake.fake_mode:
            return run(*args)

    return inside


def _is_traced(tensors: list[torch.Tensor]) -> bool:
    """Whether the call is being recorded: a fake tensor is among the arguments, or a tracing mode is active."""
    if any(isinstance(tensor, FakeTensor) for tensor in tensors):
        return True
    return any(
        isinstance(mode, FakeTensorMode) or _compat_torch.is_tracing_mode(mode)
        for mode in _compat_torch.active_dispatch_modes()
    )
