"""Calls that Dynamo is tracing (torch.compile): the generated host function becomes part of the graph.

A file of its own because its decorators load torch._dynamo, which takes seconds: it is imported when Dynamo is there
already.  Other tracing modes are in `tracing`.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import has_static_value
from torch.fx.experimental.symbolic_shapes import statically_known_true

from ... import _compat_torch
from ... import _compat_triton_abi as _abi
from ... import exc
from ..code_cache import make_importable
from ..device import get_num_sm
from ..host_function import triton_kernels
from .bases import Dispatcher
from .default_launcher import default_launcher
from .dispatch import by_token
from .graph_launch import graph_launcher
from .graph_launch import needs_graph_launch
from .outside import read_part

if TYPE_CHECKING:
    from .dispatch import PythonPath

__all__ = ["call_in_dynamo"]

log = logging.getLogger(__name__)

# Where a graph ends before a call, Dynamo looks at the functions that the call runs. This one makes plans: what it does
# is no part of any graph.
if hasattr(Dispatcher, "_record_call"):
    _compat_torch.keep_from_dynamo(Dispatcher._record_call)

# The number of multiprocessors is a constant of a graph. It is kept in an `lru_cache`, which Dynamo would trace past.
torch._dynamo.assume_constant_result(get_num_sm)


def call_in_dynamo(dispatcher: PythonPath, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call that Dynamo is tracing. Dynamo runs this function, and the host function it finds, symbolically."""
    token = dispatcher.token + ""  # read lazily without the addition, which functions run at trace time cannot be given
    _refuse_fusion(token)
    reads_outside = _reads_outside(token)
    _guard_called(dispatcher._function)  # its code, of which a program may assign another
    if kwargs or len(args) != dispatcher._arity:
        # Read by Dynamo itself, which guards what it reads.
        args = _normalize(token, dispatcher._function.__defaults__ or (), args, kwargs)
    if reads_outside:
        # What is read here is guarded: tensors are inputs of the graph, constants are compiled in.
        for place in dispatcher.specializer.filled:
            args = (*args, place.read())
        for place in dispatcher.specializer.watched:
            if not place.called:
                # Described, as a number that has changed before is a symbol.
                _compile_in(_describe(place.read(), True, None, True))
            elif isinstance(place.holder, (dict, types.CellType)) or getattr(place.holder, "func", None) is read_part:
                _guard_called(place.read())
    if torch.is_grad_enabled():
        for arg in args:
            if isinstance(arg, torch.Tensor) and arg.requires_grad:
                _note_requires_grad(token)
    name = _host_function(token, args)
    if not name:
        return _outside_of_graph(dispatcher, args[: dispatcher._arity])
    launcher = getattr(_host_functions, name + "_launcher")
    return getattr(_host_functions, name)(*args, _launcher=launcher)


def _guard_called(called: Any) -> None:
    """Compiles in what is called; objects and methods are guarded by being read."""
    if isinstance(called, types.FunctionType):
        _compile_in(called)
    elif isinstance(called, functools.partial):
        _guard_called(called.func)
        for part in (*called.args, *called.keywords.values()):
            if isinstance(part, (bool, int, float, str)):
                _compile_in(_describe(part, True, None, True))
            else:
                _guard_called(part)


def _host_function(token: str, args: tuple[Any, ...]) -> str:
    """The name in ``_host_functions`` of the function for these arguments.

    What belongs to the key of a specialization is made constant in the graph: sizes under static shapes, and all that
    counts by its value. Other sizes and numbers stay symbols where the specialization's guards hold for them; those are
    asked here, so that the graph has them too.
    """
    constexpr = _constexpr_positions(token)
    if not _static_shapes(token) or _has_numbers(args, constexpr):
        symbols: list[int] | None = None if _static_shapes(token) else []
        described = tuple([_describe(arg, i in constexpr, symbols, False) for i, arg in enumerate(args)])
        name = _found(token, described)
        if name is not None and getattr(_host_functions, name + "_accepts")(*args):
            return name
    return _made(token, tuple([_describe(arg, i in constexpr, None, True) for i, arg in enumerate(args)]))


def _has_numbers(args: tuple[Any, ...], constexpr: tuple[int, ...]) -> bool:
    for i, arg in enumerate(args):
        if i not in constexpr and not isinstance(arg, (torch.Tensor, str, bool, type(None))):
            return True
    return False


def _normalize(token: str, defaults: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    # Written out: Dynamo does not trace inspect.Signature.bind.
    names = _parameter_names(token)
    required = len(names) - len(defaults)
    filled = list(args)
    taken = 0
    for i in range(len(args), len(names)):
        if names[i] in kwargs:
            filled.append(kwargs[names[i]])
            taken += 1
        elif i < required:
            raise TypeError(f"{_kernel_name(token)}() missing 1 required positional argument: {names[i]!r}")
        else:
            filled.append(defaults[i - required])
    if len(args) > len(names):
        raise TypeError(f"{_kernel_name(token)}() takes {len(names)} positional arguments but {len(args)} were given")
    if taken < len(kwargs):
        for name in kwargs:
            if name not in names:
                raise TypeError(f"{_kernel_name(token)}() got an unexpected keyword argument {name!r}")
        raise TypeError(f"{_kernel_name(token)}() got multiple values for an argument")
    return tuple(filled)


@torch._dynamo.assume_constant_result
def _reads_outside(token: str) -> bool:
    dispatcher = by_token[token]
    dispatcher._look()  # now: the bind would do it when Dynamo has taken its guards of the places of before
    return bool(dispatcher.specializer.filled or dispatcher.specializer.watched)


@torch._dynamo.assume_constant_result
def _compile_in(value: Any) -> None:
    """A function that Dynamo cannot look into gets constants only."""


@torch._dynamo.assume_constant_result
def _kernel_name(token: str) -> str:
    return by_token[token].specializer.kernel_name


@torch._dynamo.assume_constant_result
def _static_shapes(token: str) -> bool:
    return bool(by_token[token].specializer.settings.static_shapes)


@torch._dynamo.assume_constant_result
def _refuse_fusion(token: str) -> None:
    dispatcher = by_token[token]
    if dispatcher.specializer.settings.torch_compile_fusion:
        raise exc.TorchCompileFusionUnavailable(kernel=dispatcher.specializer.kernel_name, version=torch.__version__)


@torch._dynamo.assume_constant_result
def _parameter_names(token: str) -> tuple[str, ...]:
    return tuple(by_token[token].specializer.given.parameters)


@torch._dynamo.assume_constant_result
def _note_requires_grad(token: str) -> None:
    by_token[token]._on_requires_grad()


@torch._dynamo.assume_constant_result
def _constexpr_positions(token: str) -> tuple[int, ...]:
    return tuple(sorted(by_token[token].specializer.constexpr))


def _describe(value: Any, constexpr: bool, symbols: list[int] | None, numbers: bool) -> Any:
    """An argument as constants that Dynamo can hand to functions that it runs while it traces.

    Args:
        value: the argument.
        constexpr: its parameter is a compile-time constant.
        symbols: None if sizes and strides are to be given as numbers; else symbolic ones that were met so far.
        numbers: ints and floats are to be given by value, else by their type.
    """
    if isinstance(value, torch.Tensor):
        # A symbolic size becomes a number, with a guard, where Python needs one: `range` does, `int` does not.
        shape: Any = value.shape
        strides: Any = value.stride()
        if symbols is None:
            shape = tuple([len(range(n)) for n in shape])
            strides = tuple([len(range(n)) for n in strides])
        else:
            steps = [_step(shape, strides, i) for i in range(len(shape))]
            shape = tuple([_size(n, symbols) for n in shape])
            strides = tuple([_size(n, symbols) if step is None else step for n, step in zip(strides, steps)])
        return ("tensor", value.dtype, shape, strides, value.device)
    if isinstance(value, (bool, str)) or value is None:
        return ("value", value)
    if isinstance(value, int):
        # As the key of a dict a symbol becomes its value.
        return ("value", next(iter({value: None}))) if constexpr or numbers else ("number", 3)
    if isinstance(value, float):
        return ("float", value.hex()) if constexpr or numbers else ("number", 1.5)
    if isinstance(value, (list, tuple)):
        return ("sequence", type(value), tuple([_describe(item, constexpr, symbols, numbers) for item in value]))
    if isinstance(value, dict):
        items = [(key, _describe(item, constexpr, symbols, numbers)) for key, item in value.items()]
        return ("dict", type(value), tuple(items))
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        fields = [(f.name, _describe(getattr(value, f.name), constexpr, symbols, numbers)) for f in _fields(value)]
        return ("dataclass", type(value), tuple(fields))
    return ("value", value)


def _size(n: int, symbols: list[int]) -> Any:
    """A size as a number; a symbolic one as ("symbol", i), equal for those that are known to be equal."""
    if has_static_value(n):
        return len(range(n))
    for i, known in enumerate(symbols):
        if statically_known_true(n == known):
            return ("symbol", i)
    symbols.append(n)
    return ("symbol", len(symbols) - 1)


def _step(shape: Any, strides: Any, i: int) -> Any:
    """("after", j) where dimension i goes on where j ends, as in contiguous tensors; None else."""
    if not has_static_value(strides[i]):
        for j in range(len(shape)):
            if j != i and statically_known_true(strides[i] == strides[j] * shape[j]):
                return ("after", j)
    return None


def _fields(value: Any) -> Any:
    return dataclasses.fields(value)


def _numbered(given: Any) -> int:
    """A size that was described; symbols get numbers of their own, so that no two are taken for the same."""
    return given if isinstance(given, int) else 67 + 2 * int(given[1])


def _strides(sizes: tuple[int, ...], given: tuple[Any, ...]) -> tuple[int, ...]:
    def stride(i: int, seen: frozenset[int]) -> int:
        if isinstance(given[i], int) or given[i][0] == "symbol":
            return _numbered(given[i])
        j = given[i][1]
        return 1 if j in seen else stride(j, seen | {i}) * sizes[j]

    return tuple(stride(i, frozenset()) for i in range(len(given)))


def _rebuilt(described: Any) -> Any:
    """The argument that was described, its tensors fake ones."""
    kind, *rest = described
    if kind == "tensor":
        dtype, shape, strides, device = rest
        sizes = tuple(map(_numbered, shape))
        return torch.empty_strided(sizes, _strides(sizes, strides), dtype=dtype, device=device)
    if kind == "float":
        return float.fromhex(rest[0])
    if kind == "sequence":
        cls, items = rest[0], [_rebuilt(item) for item in rest[1]]
        return cls(*items) if hasattr(cls, "_fields") else cls(items)
    if kind == "dict":
        return rest[0]((key, _rebuilt(item)) for key, item in rest[1])
    if kind == "dataclass":
        made = object.__new__(rest[0])
        for name, item in rest[1]:
            object.__setattr__(made, name, _rebuilt(item))
        return made
    return rest[0]


#: Host functions that compiled code refers to. A module, as Dynamo reads a module's attributes when it meets them and a
#: function that it can guard on must be reachable by name.
_host_functions: Any = types.ModuleType("helion.runtime.launch.dynamo._host_functions")
_host_functions.math = math
_host_functions.torch = torch
sys.modules[_host_functions.__name__] = _host_functions


@torch._dynamo.assume_constant_result
def _found(token: str, described: tuple[Any, ...]) -> str | None:
    """As `_made`, for arguments of which not all is known; None where they cannot be bound like that."""
    try:
        return _bind(by_token[token], described)
    except Exception:  # host code may ask anything of a number that is made up
        return None


@torch._dynamo.assume_constant_result
def _made(token: str, described: tuple[Any, ...]) -> str:
    """Binds for arguments like those described: runs for real, on fake tensors, while Dynamo traces its caller.

    Returns:
        Name of the host function in ``_host_functions``. There are also its launcher, and a function of the arguments
        that says whether it is right for them. "" if there is none, as host code decides on what a tensor holds: the
        call is left out of the graph.
    """
    try:
        return _bind(by_token[token], described)
    except exc.HostTensorRead as error:
        log.debug("%s", error)
        return ""


def _call(dispatcher: PythonPath, args: tuple[Any, ...]) -> Any:
    return dispatcher._call_python(*args)


#: A call that cannot be in a graph; Dynamo breaks it there, or says why if it may not.
_outside_of_graph = torch._dynamo.disable(
    _call,
    reason="the kernel's host code decides on what a tensor holds: decide outside of the kernel function, or leave the "
    "call out of the graph with torch.compiler.disable(kernel)(...)",
)


def _bind(dispatcher: PythonPath, described: tuple[Any, ...]) -> str:
    with FakeTensorMode():
        args = [_rebuilt(one) for one in described]
    run = dispatcher._traced_host_function(args)
    if not isinstance(run, types.FunctionType):
        raise exc.InternalError(reason=f"kernel {dispatcher.specializer.kernel_name!r} has no host function")
    dispatcher.stats.counter("traced").hit()
    guard = dispatcher._guard_text(args) or "True"
    name = _names.get((run, guard))
    if name is None:
        name = _names[run, guard] = f"{run.__name__}_{len(_names)}"
        parameters = ", ".join(dispatcher.specializer.signature.parameters)
        exec(f"def {name}_accepts({parameters}):\n    return {guard}\n", vars(_host_functions))
        setattr(_host_functions, name, run)
        make_importable(run.__globals__)
        setattr(_host_functions, name + "_launcher", _launcher_for_dynamo(run))
    return name


#: (host function, guard) -> its name in `_host_functions`.
_names: dict[tuple[types.FunctionType, str], str] = {}


def _launcher_for_dynamo(run: types.FunctionType) -> Callable[..., Any]:
    """What launches in a graph: ``default_launcher`` where PyTorch has a node for such launches.

    It gets the kernel's constexprs by name. PyTorch finds out which arguments a kernel writes by compiling it, and
    wants every parameter for that; without, it takes all of them as written. With more than one kernel in the host
    function there is nothing to tell them apart by.
    """
    if needs_graph_launch(run):
        return graph_launcher(run)
    kernels = triton_kernels(run)
    constants = _abi.constexpr_defaults(kernels[0]) if len(kernels) == 1 else {}

    def launch(
        triton_kernel: Any, grid: tuple[int, ...], *args: Any, num_warps: int, num_stages: int, **options: Any
    ) -> Any:
        return default_launcher(
            triton_kernel, grid, *args, num_warps=num_warps, num_stages=num_stages, **constants, **options
        )

    return launch
