"""Calls that something else is watching: torch.compile, export, fake tensors, ``torch.func`` transforms.

Under Dynamo and the tracing modes a call must end up in the graph as ``triton_kernel_wrapper_mutation``: the generated host
function is run as ordinary PyTorch code with a launcher that PyTorch knows how to record. Transforms cannot see into a
kernel, so they are refused with a message that names what can be done.
"""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING
from typing import Any
from typing import Callable
from typing import Sequence

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from .. import _compat_torch
from .. import _compat_triton
from .. import exc
from .default_launcher import default_launcher

if TYPE_CHECKING:
    from .dispatch import PythonPath
    from .dispatch import Runner

__all__ = ["call_in_dynamo", "recording_launcher", "refuse_wrappers", "runner_under_modes"]


def recording_launcher(
    triton_kernel: Any, grid: tuple[int, ...], *args: Any, num_warps: int, num_stages: int, **options: Any
) -> None:
    """A launcher for tracing modes other than Dynamo: PyTorch records the launch, and nothing runs."""
    constants = _compat_triton.constexpr_defaults(triton_kernel)
    torch.library.wrap_triton(triton_kernel)[grid](
        *args, num_warps=num_warps, num_stages=num_stages, **constants, **options
    )


def _tensors(args: Sequence[Any]) -> list[torch.Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(list(args)) if isinstance(leaf, torch.Tensor)]


def refuse_wrappers(kernel: str, args: Sequence[Any]) -> None:
    """Raise for tensors that have no memory of their own to give to a kernel."""
    for tensor in _tensors(args):
        if type(tensor) is not torch.Tensor and is_traceable_wrapper_subclass(tensor):
            raise exc.InvalidAPIUsage(
                f"kernel {kernel!r} was called with a {type(tensor).__name__}, which holds other tensors and has no memory "
                "of its own",
                fix="pass the tensors it holds (`x.to_local()` for a DTensor), or wrap the kernel in a torch.library.custom_op.",
            )


def runner_under_modes(dispatcher: PythonPath, args: tuple[Any, ...]) -> Runner | None:
    """The function for a call under a dispatch mode or inside a ``torch.func`` transform.

    Returns:
        The function, or None if the call is to be run as any other: nothing about it is special.

    Raises:
        exc.InvalidAPIUsage: an argument is wrapped by a ``torch.func`` transform.
    """
    kernel = dispatcher.specializer.kernel_name
    tensors = _tensors(args)
    for tensor in tensors:
        if _compat_torch.is_functorch_wrapped(tensor):
            raise exc.InvalidAPIUsage(
                f"kernel {kernel!r} was called inside torch.func ({_compat_torch.transform_name(tensor)}), which cannot see "
                "into a kernel",
                fix="wrap the kernel in a torch.autograd.Function with a backward (for grad, jacrev) and a vmap "
                "staticmethod (for vmap), or call it outside of the transform.",
            )
    if not _is_traced(tensors):
        return None
    if torch.is_grad_enabled() and any([tensor.requires_grad for tensor in tensors]):
        dispatcher._on_requires_grad()
    run = dispatcher._traced_host_function(args)
    dispatcher.stats.counter("traced").hit()
    if run is None:
        raise exc.InvalidAPIUsage(
            f"kernel {kernel!r} was called with fake tensors where its calls are not kernel launches (CPU tensors or ref mode)",
            fix="call it with real tensors, or wrap it in a torch.library.custom_op with a fake implementation.",
        )
    return functools.partial(run, _launcher=recording_launcher)


def _is_traced(tensors: list[torch.Tensor]) -> bool:
    """Whether the call is being recorded: a fake tensor is among the arguments, or a tracing mode is active."""
    if any(isinstance(tensor, FakeTensor) for tensor in tensors):
        return True
    return any(
        isinstance(mode, FakeTensorMode) or _compat_torch.is_tracing_mode(mode)
        for mode in _compat_torch.active_dispatch_modes()
    )


# -- Dynamo ---------------------------------------------------------------------------------------------------------------


def call_in_dynamo(dispatcher: PythonPath, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call that Dynamo is tracing. Dynamo runs this function, and the host function it finds, symbolically."""
    if kwargs or len(args) != dispatcher._arity:
        args = _normalize(dispatcher, args, kwargs)
    if torch.is_grad_enabled():
        for arg in args:
            if isinstance(arg, torch.Tensor) and arg.requires_grad:
                _note_requires_grad(dispatcher)
    constexpr = _constexpr_positions(dispatcher)
    name = _host_function_name(dispatcher, tuple([_describe(arg, i in constexpr) for i, arg in enumerate(args)]))
    if name is None:
        return _run_outside_of_the_graph(dispatcher, args)
    launcher = getattr(_host_functions, name + "_launcher")
    return getattr(_host_functions, name)(*args, _launcher=launcher)


def _normalize(dispatcher: PythonPath, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    # Written out: Dynamo does not trace inspect.Signature.bind.
    names = _parameter_names(dispatcher)
    defaults = _parameter_defaults(dispatcher)
    filled = list(args)
    for i in range(len(args), len(names)):
        if names[i] in kwargs:
            filled.append(kwargs[names[i]])
        else:
            filled.append(defaults[names[i]])
    return tuple(filled)


@torch._dynamo.assume_constant_result
def _parameter_names(dispatcher: PythonPath) -> tuple[str, ...]:
    return tuple(dispatcher.specializer.signature.parameters)


@torch._dynamo.assume_constant_result
def _parameter_defaults(dispatcher: PythonPath) -> dict[str, Any]:
    return {
        name: parameter.default
        for name, parameter in dispatcher.specializer.signature.parameters.items()
        if parameter.default is not parameter.empty
    }


@torch._dynamo.assume_constant_result
def _note_requires_grad(dispatcher: PythonPath) -> None:
    dispatcher._on_requires_grad()


@torch._dynamo.assume_constant_result
def _constexpr_positions(dispatcher: PythonPath) -> tuple[int, ...]:
    return tuple(sorted(dispatcher.specializer.constexpr))


def _describe(value: Any, constexpr: bool) -> Any:
    """An argument as constants that Dynamo can hand to ``_host_function_name``."""
    if isinstance(value, torch.Tensor):
        # A symbolic size becomes a number, with a guard, where Python needs one: `range` does, `int` does not.
        sizes = tuple([len(range(n)) for n in value.shape])
        strides = tuple([len(range(n)) for n in value.stride()])
        return ("tensor", value.dtype, sizes, strides, value.device)
    if isinstance(value, float) and not constexpr:
        return ("value", 1.0)  # counts by its type, and Dynamo may not know its value
    return ("value", value)


#: Host functions that compiled code refers to. A module, as Dynamo reads a module's attributes when it meets them and a
#: function that it can guard on must be reachable by name.
_host_functions = types.ModuleType("helion.runtime.tracing._host_functions")


@torch._dynamo.assume_constant_result
def _host_function_name(dispatcher: PythonPath, described: tuple[Any, ...]) -> str | None:
    """Binds for arguments like those described: runs for real, on fake tensors, while Dynamo traces its caller.

    Returns:
        Name of the host function in ``_host_functions``; None if such calls are not launches.
    """
    with FakeTensorMode():
        args = [
            torch.empty_strided(one[2], one[3], dtype=one[1], device=one[4]) if one[0] == "tensor" else one[1]
            for one in described
        ]
    run = dispatcher._traced_host_function(args)
    if run is None:
        return None
    dispatcher.stats.counter("traced").hit()
    name = f"{run.__name__}_{id(run)}"
    setattr(_host_functions, name, run)  # keeps it alive, so the id stays its own
    setattr(_host_functions, name + "_launcher", _launcher_for_dynamo(run))
    return name


def _launcher_for_dynamo(run: Runner) -> Callable[..., Any]:
    """``default_launcher``, with the kernel's constexprs passed by name.

    PyTorch finds out which arguments a kernel writes by compiling it, and wants every parameter for that; without, it takes
    all of them as written. With more than one kernel in the host function there is nothing to tell them apart by.
    """
    kernels = [value for name in run.__code__.co_names if _compat_triton.is_jit_function(value := run.__globals__.get(name))]
    constants = _compat_triton.constexpr_defaults(kernels[0]) if len(kernels) == 1 else {}

    def launch(
        triton_kernel: Any, grid: tuple[int, ...], *args: Any, num_warps: int, num_stages: int, **options: Any
    ) -> Any:
        return default_launcher(
            triton_kernel, grid, *args, num_warps=num_warps, num_stages=num_stages, **constants, **options
        )

    return launch


@torch._dynamo.disable
def _run_outside_of_the_graph(dispatcher: PythonPath, args: tuple[Any, ...]) -> Any:
    """A graph break: the tile executor and ref mode run kernels in ways that Dynamo should not look into."""
    return dispatcher._call_python(*args)
