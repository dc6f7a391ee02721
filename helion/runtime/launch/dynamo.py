"""Calls that Dynamo is tracing (torch.compile): the generated host function becomes part of the graph.

A file of its own because its decorators load torch._dynamo, which takes seconds: it is imported when Dynamo is there
already.  Other tracing modes are in `tracing`.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ... import _compat_triton_abi as _abi
from ... import exc
from .default_launcher import default_launcher
from .dispatch import by_token

if TYPE_CHECKING:
    from .dispatch import PythonPath
    from .dispatch import Runner

__all__ = ["call_in_dynamo"]


def call_in_dynamo(dispatcher: PythonPath, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call that Dynamo is tracing. Dynamo runs this function, and the host function it finds, symbolically."""
    _refuse_fusion(dispatcher.token + "")
    if kwargs or len(args) != dispatcher._arity:
        args = _normalize(dispatcher, args, kwargs)
    if torch.is_grad_enabled():
        for arg in args:
            if isinstance(arg, torch.Tensor) and arg.requires_grad:
                _note_requires_grad(dispatcher.token + "")
    token = dispatcher.token + ""  # read lazily without the addition, which functions run at trace time cannot be given
    constexpr = _constexpr_positions(token)
    name = _host_function_name(token, tuple([_describe(arg, i in constexpr) for i, arg in enumerate(args)]))
    if name is None:
        return _run_outside_of_the_graph(dispatcher, args)
    launcher = getattr(_host_functions, name + "_launcher")
    return getattr(_host_functions, name)(*args, _launcher=launcher)


def _normalize(dispatcher: PythonPath, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    # Written out: Dynamo does not trace inspect.Signature.bind.
    names = _parameter_names(dispatcher.token + "")
    defaults = _parameter_defaults(dispatcher.token + "")
    filled = list(args)
    for i in range(len(args), len(names)):
        if names[i] in kwargs:
            filled.append(kwargs[names[i]])
        else:
            filled.append(defaults[names[i]])
    return tuple(filled)


@torch._dynamo.assume_constant_result
def _refuse_fusion(token: str) -> None:
    dispatcher = by_token[token]
    if dispatcher.specializer.settings.torch_compile_fusion:
        raise exc.TorchCompileFusionUnavailable(kernel=dispatcher.specializer.kernel_name, version=torch.__version__)


@torch._dynamo.assume_constant_result
def _parameter_names(token: str) -> tuple[str, ...]:
    return tuple(by_token[token].specializer.signature.parameters)


@torch._dynamo.assume_constant_result
def _parameter_defaults(token: str) -> dict[str, Any]:
    return {
        name: parameter.default
        for name, parameter in by_token[token].specializer.signature.parameters.items()
        if parameter.default is not parameter.empty
    }


@torch._dynamo.assume_constant_result
def _note_requires_grad(token: str) -> None:
    by_token[token]._on_requires_grad()


@torch._dynamo.assume_constant_result
def _constexpr_positions(token: str) -> tuple[int, ...]:
    return tuple(sorted(by_token[token].specializer.constexpr))


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
_host_functions = types.ModuleType("helion.runtime.launch.dynamo._host_functions")


@torch._dynamo.assume_constant_result
def _host_function_name(token: str, described: tuple[Any, ...]) -> str | None:
    """Binds for arguments like those described: runs for real, on fake tensors, while Dynamo traces its caller.

    Returns:
        Name of the host function in ``_host_functions``; None if such calls are not launches, or not ones that PyTorch
        can hold in a graph.
    """
    with FakeTensorMode():
        args = [
            torch.empty_strided(one[2], one[3], dtype=one[1], device=one[4]) if one[0] == "tensor" else one[1]
            for one in described
        ]
    dispatcher = by_token[token]
    run = dispatcher._traced_host_function(args)
    if run is None or _options_of_launches(run) & _UNKNOWN_TO_PYTORCH:
        return None
    dispatcher.stats.counter("traced").hit()
    name = f"{run.__name__}_{id(run)}"
    setattr(_host_functions, name, run)  # keeps it alive, so the id stays its own
    setattr(_host_functions, name + "_launcher", _launcher_for_dynamo(run))
    return name


#: Launch options that PyTorch would take for arguments of the kernel (torch/_higher_order_ops/triton_kernel_wrap.py
#: knows others).
_UNKNOWN_TO_PYTORCH = frozenset({"launch_cooperative_grid", "maxnreg"})


def _options_of_launches(run: Runner) -> set[str]:
    """Names of the keywords in the calls that a host function makes."""
    return {
        name for const in run.__code__.co_consts if isinstance(const, tuple) for name in const if isinstance(name, str)
    }


def _launcher_for_dynamo(run: Runner) -> Callable[..., Any]:
    """``default_launcher``, with the kernel's constexprs passed by name.

    PyTorch finds out which arguments a kernel writes by compiling it, and wants every parameter for that; without, it
    takes all of them as written. With more than one kernel in the host function there is nothing to tell them apart by.
    """
    kernels = [value for name in run.__code__.co_names if _abi.is_jit_function(value := run.__globals__.get(name))]
    constants = _abi.constexpr_defaults(kernels[0]) if len(kernels) == 1 else {}

    def launch(
        triton_kernel: Any, grid: tuple[int, ...], *args: Any, num_warps: int, num_stages: int, **options: Any
    ) -> Any:
        return default_launcher(
            triton_kernel, grid, *args, num_warps=num_warps, num_stages=num_stages, **constants, **options
        )

    return launch


@torch._dynamo.disable
def _run_outside_of_the_graph(dispatcher: PythonPath, args: tuple[Any, ...]) -> Any:
    """A graph break: the tile executor and ref mode run kernels in ways that Dynamo should not look into, and some
    launches
    have options that a graph cannot hold."""
    return dispatcher._call_python(*args)
