"""Calls: language functions record, torch functions run abstractly, the user's own helper functions are interpreted in
place.
"""

from __future__ import annotations

import ast
import functools
import math
import os
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_leaves
from torch.utils._pytree import tree_map

from .. import exc
from .. import language as hl
from .._annotations import signature_of
from ..ir.symbols import OriginKind
from ..ir.symbols import as_key
from ..ir.symbols import is_symbolic
from ..ir.symbols import plain
from ..ir.symbols import symbols_of
from ..language.shapes import constant_fix
from .decisions import ConfigDecision
from .environment import Environment
from .expressions import CONFIG_FIX
from .expressions import CONFIG_NUMBER
from .expressions import Expressions
from .frames import Frame
from .lengths import asks_for_sizes
from .op_calls import sizes_of_tiles
from .source import function_globals
from .source import is_interpretable
from .source import source_of
from .tracer import Tracer
from .translated import is_data_dependent
from .truths import as_number
from .varying import BY_METHODS
from .varying import asks_for_class
from .varying import asks_for_types
from .varying import draws
from .varying import undrawn
from .varying import varies

# Called as they are: their Python source is not the user's device code.
_NATIVE_PACKAGES = ("torch", "helion", "triton", "math", "operator", "functools", "itertools", "numpy", "sympy")


class Calls(Expressions):
    """Evaluates calls.

    Attributes:
        prelude: host statements before the loops.
        rewrites: host calls whose text is rewritten in the generated host function: call node -> kind and value.
        numbers_read: expressions of host code that read a number from a tensor -> the number of the trace.
    """

    def __init__(self, env: Environment, tracer: Tracer) -> None:
        super().__init__(env, tracer)
        self.rewrites: dict[ast.AST, tuple[str, Any]] = {}
        self.numbers_read: dict[ast.AST, Any] = {}
        self.prelude: list[ast.stmt] = []

    def expr_Call(self, node: ast.Call) -> Any:
        fn = self.expr(node.func)
        args = self.elements(node.args)
        kwargs: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                kwargs.update(self.expr(keyword.value))
            else:
                kwargs[keyword.arg] = self.expr(keyword.value)
        return self.call(fn, args, kwargs, node)

    def call(self, fn: Any, args: list[Any], kwargs: dict[str, Any], node: ast.Call) -> Any:
        """Call anything: language functions record, torch functions run abstractly, user functions are inlined."""
        if isinstance(getattr(fn, "__self__", None), torch.Tensor) and fn.__name__ in BY_METHODS:
            return self.of_call(BY_METHODS[fn.__name__], node)
        if (kind := asks_for_class(fn, args)) is not None:
            return self.of_call(kind if kind is bool else None, node)
        if any(fn is text for text in (str, repr, ascii, format)) or isinstance(getattr(fn, "__self__", None), str):
            args, kwargs = list(map(as_key, args)), {name: as_key(arg) for name, arg in kwargs.items()}
        if not self.tracer.on_device:
            return self.host_call(fn, args, kwargs, node)
        replacement = _DEVICE_BUILTINS.get(fn) if _hashable(fn) else None
        if getattr(fn, "__name__", "") == "associative_scan" and (fn.__module__ or "").startswith("torch."):
            replacement = _device_scan
        if replacement is not None:
            return replacement(self, *args, **kwargs)
        if fn is hl.triton_kernel and args and isinstance(args[0], str) and args[0].isidentifier():
            args = [self.lookup(args[0]), *args[1:]]  # the name of a function of the kernel's module
        number = self.number_call(fn, args, node)
        if number is not None:
            return number
        sizes = asks_for_sizes(fn)
        if sizes is not None:
            return sizes(self.tracer, *args, **kwargs)
        module = (getattr(fn, "__module__", None) or type(fn).__module__ or "").split(".")
        if type(fn).__module__ == "helion.kernel":
            raise exc.NestedKernelCallsNotSupported(
                name=f"a call of the kernel {fn.name!r}",
                fix="call a plain function: device code takes it in. A kernel launches its own grid.",
            )
        if (module[0] == "numpy" or type(fn).__module__ == "numpy") and any(isinstance(a, torch.Tensor) for a in args):
            raise exc.NotAllowedOnDevice(name=f"numpy.{fn.__name__}() of a tensor", fix="use torch's function.")
        if isinstance(fn, types.FunctionType) and not self.is_native(fn):
            return self.inline(fn, args, kwargs)
        if varies(fn):
            raise exc.NotAllowedOnDevice(
                name=f"{ast.unparse(node.func)}(), which may give another number each time",
                fix="call it before the loops; random numbers for each element are hl.rand and hl.randint.",
            )
        if self.takes_sizes(fn):
            args = [sizes_of_tiles(a) for a in args]
            kwargs = {k: sizes_of_tiles(v) for k, v in kwargs.items()}
        if getattr(fn, "__module__", None) == "helion.numbers" and any(map(self.env.is_configured, args)):
            return self._call_natively(fn, args, kwargs)
        return fn(*args, **kwargs)

    def _call_natively(self, fn: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """A call of a function that is not interpreted, where numbers of the Config's are about."""
        if (getattr(fn, "__module__", None) or "").startswith("helion.language"):
            with self.env.deciding():
                return fn(*args, **kwargs)
        try:
            with self.env.undecided():
                return self.env.sized(fn(*args, **kwargs))
        except ConfigDecision as decision:
            if self.env.is_read(*decision.args) and not self.env.is_of_config(*decision.args):
                self._check_numbers(fn, [*args, *kwargs.values()])
            return self.config_call(fn, args, kwargs)
        except (TypeError, AttributeError, ZeroDivisionError, ValueError, RuntimeError) as error:
            # Python's own int has more methods than PyTorch's symbols, and can be hashed; what is computed with the
            # stand-in of a trace may be 0.
            if not isinstance(error, RuntimeError) and any(map(self.env.is_configured, [*args, *kwargs.values()])):
                return self.config_call(fn, args, kwargs)
            if any(text in str(error) for text in _ONLY_NUMBERS):
                args, kwargs = tree_map(as_key, (args, kwargs))
                return self.env.sized(fn(*args, **kwargs))
            raise

    def host_call(self, fn: Any, args: list[Any], kwargs: dict[str, Any], node: ast.Call) -> Any:
        """A call in host code; those that the generated host function must not repeat as they are get noted."""
        if fn is breakpoint:
            return None  # calls stop there, tracing does not
        if isinstance(fn, functools._lru_cache_wrapper):
            fn = fn.__wrapped__  # what a trace works on must not be kept for calls
        read = self._read(fn, args, node)
        if read is not None:
            return read
        if fn is len and len(args) == 1 and isinstance(args[0], torch.Tensor) and args[0].dim():
            return args[0].size(0)  # Python's is an int: the number of this trace
        if fn in (hl.tile, hl.grid) and not self.env.ir.roots:
            args = [self._bound(arg, part) for arg, part in zip(args, node.args)] + args[len(node.args) :]
        if fn is F.pad or fn is torch.constant_pad_nd:  # which takes no symbols
            args, kwargs = tree_map(as_key, (args, kwargs))
        symbols = {symbol for arg in args for symbol in symbols_of(arg)}
        of_config = getattr(fn, "__module__", None) == "math" and self.env.is_of_config(symbols)
        value = None if of_config else self.number_call(fn, args, node)
        told = value is None and self._is_told_types(fn, args, kwargs)
        if told and is_interpretable(fn):
            # Run as it is, it would be told the types of a trace's stand-ins.
            owner = [fn.__self__] if isinstance(fn, types.MethodType) else []
            value = self.inline(getattr(fn, "__func__", fn), [*owner, *args], kwargs)
        elif value is None:
            if told:
                args, kwargs = tree_map(as_key, (args, kwargs))
            with undrawn(fn):
                value = self.env.with_decided_sizes(self._call_natively(fn, args, kwargs))
            value = self._varying(fn, value, node)
        value = self.measured(value, node)
        if not self.env.ir.roots and any(map(self.env.is_read_from_tensor, tree_leaves(value))):
            raise exc.HostTensorRead(text=ast.unparse(node))
        kind = _HOST_REWRITES.get(fn) if _hashable(fn) else None
        if kind is not None:
            self.rewrites[node] = (kind, value)
        elif fn is torch.broadcast_tensors:
            self.rewrites[node] = ("broadcast", [a.shape for a in args])
        if isinstance(value, torch.Tensor) and computes(fn, args, value):
            own = isinstance(fn, types.FunctionType) and not fn.__module__.startswith("torch")
            warning = exc.TensorOperationsInHostCall if own else exc.TensorOperationInWrapper
            self.env.note_host_operation(warning, ast.unparse(node), self.frame.source.name)
        return value

    def _is_told_types(self, fn: Any, args: list[Any], kwargs: dict[str, Any]) -> bool:
        """Whether a function of the program asks of what types things are, and has numbers that a trace has symbols
        for.
        """
        owner = fn.__self__ if isinstance(fn, types.MethodType) else None
        given = [args, kwargs, list(getattr(owner, "__dict__", {}).values())]
        return any(map(is_symbolic, tree_leaves(given))) and asks_for_types(fn)

    def _varying(self, fn: Any, value: Any, node: ast.Call) -> Any:
        """What a host call gives; a number that may be another in the next call is read at each."""
        of_numpy = type(value).__module__ == "numpy" and getattr(value, "shape", None) == ()
        number = value.item() if of_numpy else value
        if type(number) in (int, float, bool):
            return self.of_call(type(number), node) if varies(fn) else value
        return self.of_call(None, node) if draws(fn) else value

    def of_call(self, kind: type | None, node: ast.expr) -> Any:
        """What an expression gives that may be another in the next call of this specialization: a number is read at
        each.

        Args:
            kind: int, float or bool; None if it is no number.
            node: the expression.

        Raises:
            exc.NotAllowedOnDevice: it stands in device code.
            exc.HostTensorRead: it is no number, or in a loop, a helper function, or after the device loops.
        """
        text = ast.unparse(node)
        if self.tracer.on_device:
            fix = "ask before the loops, and give the answer a name."
            raise exc.NotAllowedOnDevice(name=f"{text}, which may differ from call to call,", fix=fix)
        if kind is None:
            fix = "do it outside of the kernel function, and pass the result as an argument."
            raise exc.HostTensorRead(f"{text} may be another in the next call", fix=fix)
        if not self.frame.is_kernel or self.env.ir.roots or self.is_repeated():
            raise exc.HostTensorRead(
                f"{text} may give another number in the next call, and is in a loop, in a helper function or after the "
                "device loops",
                fix="call it in the kernel function itself, before its loops, or pass the number as an argument.",
            )
        return self.read_at_each_call(node, kind)

    def read_at_each_call(self, node: ast.expr, kind: type) -> Any:
        """The int, float or bool that the host function has where an expression of the user's stands, and checks to be
        one."""
        name = f"_read_{len(self.rewrites)}"
        self.rewrites[node] = ("read", (name, kind.__name__))
        number = self.env.read_number(float if kind is float else int, name)
        self.numbers_read[node] = number != 0 if kind is bool else number
        return self.numbers_read[node]

    def _read(self, fn: Any, args: list[Any], node: ast.Call) -> Any:
        """The number that `x.item()`, `int(x)`, `float(x)` or `bool(x)` of a tensor gives, read at each call; else
        None."""
        owner = getattr(fn, "__self__", None)
        if fn in (int, float, bool) and len(args) == 1 and isinstance(args[0], torch.Tensor):
            kind, tensor = fn, args[0]
        elif isinstance(owner, torch.Tensor) and getattr(fn, "__name__", "") == "item" and not args:
            of_bool, of_float = owner.dtype is torch.bool, owner.dtype.is_floating_point
            kind, tensor = (bool if of_bool else float if of_float else int), owner
        else:
            return None
        # In a loop, a helper or after the launch a statement may read several values, or none that the launch needs.
        in_place = self.frame.is_kernel and not self.env.ir.roots and not self.is_repeated()
        if not in_place or tensor.dtype.is_complex or tensor.numel() != 1:
            return None
        return self.read_at_each_call(node, kind)

    def measured(self, value: Any, node: ast.expr) -> Any:
        """What a host call or `x[mask]` gives, with a number that is read at each call for each size that only the call
        can tell.

        Raises:
            exc.HostTensorRead: it is in a loop or a helper function, or there is no saying how large it is.
        """
        several = isinstance(value, (tuple, list))
        parts = list(value) if several else [value]
        if self.env.ir.roots or not any(map(self.env.is_of_unknown_size, parts)):
            return value
        name = f"_made_{len(self.rewrites)}"
        texts = [f"{name}[{i}]" if several else name for i in range(len(parts))]
        measured = self.env.measured(parts, texts) if self.frame.is_kernel and not self.is_repeated() else None
        if measured is None:
            fix = "its size is read once: make it in the kernel function itself, outside of Python loops, or pass it."
            raise exc.HostTensorRead(text=ast.unparse(node), fix=fix)
        self.rewrites[node] = ("made", name)
        return type(value)(measured) if several else measured[0]

    def _bound(self, value: Any, node: ast.expr) -> Any:
        """A bound of a top-level loop; one that is in a tensor is read by the host function at each call."""
        if isinstance(value, (list, tuple)) and isinstance(node, (ast.List, ast.Tuple)):
            return type(value)(map(self._bound, value, node.elts))
        if not isinstance(value, torch.Tensor) or value.dtype.is_floating_point:
            return value
        call = ast.Call(ast.Name("int", ast.Load()), [node], [])
        read = self._read(int, [value], call)
        if read is None:
            return value
        self.prelude.append(ast.copy_location(ast.Expr(call), node))
        return read

    def is_repeated(self) -> bool:
        """Whether the statement being interpreted stands in a loop."""
        raise NotImplementedError  # in statements

    def _check_numbers(self, fn: Any, args: list[Any]) -> None:
        """Check arguments of a call that asks for a number which is read from a tensor.

        Raises:
            exc.HostTensorRead: there are others than numbers.
        """
        if not all(isinstance(arg, (int, float, list, tuple, *_SYMBOLIC)) for arg in args):
            raise exc.HostTensorRead(
                f"{getattr(fn, '__name__', fn)}() asks for a number that follows from what a tensor holds",
                fix="do it outside of the kernel function, and pass the result.",
            )

    def config_call(self, fn: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """A call that cannot go on without a number of the Config's: it is made again for every Config.

        Raises:
            exc.SizeNotConstant: more than numbers is given.
        """
        name = getattr(fn, "__name__", type(fn).__name__)
        given, keys = [*args, *kwargs.values()], tuple(kwargs)
        if not all(isinstance(value, (int, torch.SymInt, torch.SymBool)) for value in given):
            raise exc.SizeNotConstant(what=f"what {name}() decides on", value=CONFIG_NUMBER, fix=CONFIG_FIX)
        text = ", ".join(["{}"] * len(args) + [f"{key}={{}}" for key in keys])

        def positional(*values: Any) -> Any:
            return fn(*values[: len(args)], **dict(zip(keys, values[len(args) :])))

        return self.env.config_call(positional if keys else fn, given, f"{name}({text})", name)

    def number_call(self, fn: Any, args: list[Any], node: ast.Call) -> Any:
        """A call of Python's own function on numbers of which some are symbolic: the result stays symbolic.  Else
        None.
        """
        if not any(map(is_symbolic, args)) or not isinstance(fn, (type, types.BuiltinFunctionType)):
            return None
        if fn in _NUMBER_BUILTINS:
            return _NUMBER_BUILTINS[fn](*args)
        if getattr(fn, "__module__", None) != "math":
            return None
        if self._needs_device(args) and fn not in _MATH_OF_ANY_NUMBER:
            raise exc.NotAllowedOnDevice(
                f"math.{fn.__name__} of a number that is known only while the kernel runs",
                fix=_of_tensors(fn, node),
            )
        return self.env.host_call(fn, args, f"math.{fn.__name__}({', '.join('{}' for _ in args)})", fn.__name__)

    def _needs_device(self, args: list[Any]) -> bool:
        """Whether some number is known in the kernel only, or with the Config."""
        symbols = {symbol for arg in args for symbol in symbols_of(arg)}
        if self.env.is_of_config(symbols) or not self.env.is_read(symbols):
            return any(is_symbolic(a) and self.env.space.depends_on_device(a) for a in args)
        origins = (self.env.space.origins.get(symbol) for symbol in symbols)
        return any(origin is not None and origin.kind is not OriginKind.HOST for origin in origins)

    def is_native(self, fn: types.FunctionType) -> bool:
        """Functions of libraries: called, not interpreted."""
        module = getattr(fn, "__module__", None) or ""
        return module.split(".")[0] in _NATIVE_PACKAGES

    def takes_sizes(self, fn: Any) -> bool:
        """Whether tiles among the arguments of `fn` stand for their sizes: torch's functions and tensor methods."""
        owner = getattr(fn, "__self__", None)
        if isinstance(owner, torch.Tensor):
            return True
        module = getattr(fn, "__module__", None) or ""
        return module.split(".")[0] in ("torch", "torch._C") or isinstance(fn, types.BuiltinFunctionType)

    def inline(self, fn: types.FunctionType, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Interpret a helper function's body in place of a call."""
        try:
            source = source_of(fn)
        except exc.SourceUnavailable:
            return self._natively(fn, args, kwargs)
        bound = signature_of(fn).bind(*args, **kwargs)
        bound.apply_defaults()
        if len(self.frames) > 64:
            raise exc.InvalidAPIUsage(f"helper function {fn.__name__!r} recurses", fix="write it as a loop.")
        source = source.on_device if self.tracer.on_device else source
        frame = Frame(source, function_globals(fn), {}, dict(bound.arguments), is_kernel=False)
        with self.enter(frame):
            return self.run_function(source.node)

    def _natively(self, fn: types.FunctionType, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """A call of the user's function as it is, under the tracer's modes: a lambda passed in, or code of `exec`."""
        outer, self.tracer.is_native = self.tracer.is_native, True
        blocks, decided = {block.symbol for block in self.env.space.blocks}, self.env.shape_env.replacements
        try:
            result = fn(*args, **kwargs)
        except Exception as error:
            if not is_data_dependent(error):
                raise
        else:
            if blocks.isdisjoint(decided):
                return result
        finally:
            self.tracer.is_native = outer
        raise exc.NotAllowedOnDevice(
            f"{fn.__name__}(), which is called as it is, needs to know a tile's size or place, which a trace does not",
            fix="write it as a function with `def`, whose source is read: `if`, float() and min() work there.",
        )


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def computes(fn: Any, args: list[Any], result: torch.Tensor) -> bool:
    """Whether a call of host code made its result of tensors' elements: it is no view, and no new tensor to fill."""
    name = getattr(fn, "__name__", "")
    if name.startswith(("empty", "new_", "zeros", "ones", "full")) or name.endswith("_like"):
        return False
    given = [value for value in (getattr(fn, "__self__", None), *args) if isinstance(value, torch.Tensor)]
    memory = result.untyped_storage()._cdata
    return result.dim() > 0 and bool(given) and all(memory != value.untyped_storage()._cdata for value in given)


# -- Python builtins whose meaning on device values is an op
# ------------------------------------------------------------


def _device_print(interpreter: Calls, *args: Any, **kwargs: Any) -> None:
    """`print`: a print of the kernel for each text and the values after it; what is known while compiling is text."""
    words: list[str] = []
    values: list[Any] = []
    for value in tree_leaves([list(a) if isinstance(a, torch.Size) else a for a in args]):
        known = isinstance(value, (str, torch.dtype, torch.device)) or value is None
        if known and values:
            hl.device_print(" ".join(words), *values)
            words, values = [], []
        (words if known else values).append(str(value) if known else value)
    hl.device_print(" ".join(words), *values)


def _device_min_max(pick: Callable[..., Any], tensor_op: Callable[..., Any]) -> Callable[..., Any]:
    def call(interpreter: Calls, *args: Any, **kwargs: Any) -> Any:
        values = [as_number(interpreter.env, v) for v in (args[0] if len(args) == 1 else args)]
        if any(isinstance(v, torch.Tensor) for v in values):
            return functools.reduce(tensor_op, interpreter.as_tensors(values))
        if any(is_symbolic(v) for v in values):
            result = values[0]
            for v in values[1:]:
                result = (torch.sym_min if pick is min else torch.sym_max)(result, v)
            return result
        return pick(*args, **kwargs)

    return call


def _device_cast(python_type: type, dtype: torch.dtype) -> Callable[..., Any]:
    def call(interpreter: Calls, value: Any = 0, *base: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to(dtype)
        if isinstance(value, str):
            return python_type(value, *base)
        value = as_number(interpreter.env, value)
        return _NUMBER_BUILTINS[python_type](value) if is_symbolic(value) else python_type(value)

    return call


def _of_tensors(fn: Any, node: ast.Call) -> str:
    """What to write instead of one of math's functions of numbers of the kernel's."""
    texts = list(map(ast.unparse, node.args))
    if hasattr(torch, fn.__name__):
        make = "torch.tensor({})" if fn in (math.gcd, math.lcm) else "hl.full([], {})"  # integers stay integers
        tensors = ", ".join(map(make.format, texts))
        return f"use torch's function on a tensor: torch.{fn.__name__}({tensors})."
    return f"make a tensor of its values before the loops, one for each {texts[0]}, and load from it."


def _device_bool(interpreter: Calls, value: Any = False) -> Any:
    numbers = (torch.SymInt, torch.SymFloat)
    return value != 0 if isinstance(value, numbers) else value if isinstance(value, torch.SymBool) else bool(value)


def _int(value: Any) -> Any:
    return torch.sym_int(value) if isinstance(value, torch.SymFloat) else value


def _float(value: Any) -> Any:
    return torch.sym_float(value) if isinstance(value, torch.SymInt) else value


def _getattr(value: Any, name: str, *default: Any) -> Any:
    held = hasattr(plain(value), name)
    return getattr(value, name) if held else getattr(plain(value), name, *default)


#: Python's functions of numbers that PyTorch would evaluate, so that the trace held for one value alone.
_NUMBER_BUILTINS: dict[Any, Callable[..., Any]] = {
    int: _int,
    float: _float,
    type: lambda value: type(plain(value)),
    isinstance: lambda value, classes: isinstance(plain(value), classes),
    hasattr: lambda value, name: hasattr(plain(value), name),
    getattr: _getattr,
    divmod: lambda a, b: (a // b, a % b),
}
_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
#: What is said where a function takes no symbol for a number.
_ONLY_NUMBERS = ("unhashable type: non-nested Sym", "SymIntArrayRef expected to contain only concrete integers")
#: Functions that PyTorch's symbolic numbers have themselves.
_MATH_OF_ANY_NUMBER = frozenset([math.floor, math.ceil, math.trunc])


def _device_linspace(interpreter: Calls, start: Any, end: Any, steps: Any, **kwargs: Any) -> Any:
    if is_symbolic(steps):
        raise exc.NotAllowedOnDevice(
            "torch.linspace() of as many steps as a tile is long",
            fix="write `start + (end - start) * hl.arange(n) / (n - 1)`, with the size of a value for n.",
        )
    return torch.linspace(start, end, steps, **kwargs)


def _device_range(interpreter: Calls, *args: Any) -> Any:
    for bound in args:
        if not isinstance(bound, int):
            raise exc.SizeNotConstant(
                what="a bound of range() in device code",
                value=bound,
                fix="for a loop of the kernel write `for i in hl.grid(n)`; one that is unrolled has constant bounds: "
                + constant_fix(bound, "use hl.static_range with numbers."),
            )
    return range(*args)


def _device_breakpoint(interpreter: Calls, *args: Any) -> None:
    if not any(os.environ.get(name) == "1" for name in ("HELION_INTERPRET", "TRITON_INTERPRET")):
        raise exc.BreakpointInDeviceLoopRequiresInterpret()
    hl.breakpoint()


def _device_tensor(interpreter: Calls, data: Any, *, dtype: torch.dtype | None = None, device: Any = None) -> Any:
    """`torch.tensor(5)` in device code is a constant, `torch.tensor(tile.begin)` a number of the kernel's."""
    if not isinstance(data, (int, float, *_SYMBOLIC)):
        return torch.tensor(data, dtype=dtype, device=device)
    integral = torch.bool if isinstance(data, (bool, torch.SymBool)) else torch.int64
    kind = torch.get_default_dtype() if isinstance(data, (float, torch.SymFloat)) else integral
    return hl.full([], data, dtype=dtype or kind)


def _device_as_tensor(interpreter: Calls, data: Any, dtype: torch.dtype | None = None, device: Any = None) -> Any:
    if isinstance(data, torch.Tensor):
        return torch.as_tensor(data, dtype=dtype, device=device)
    return _device_tensor(interpreter, data, dtype=dtype, device=device)


def _device_scan(interpreter: Calls, combine_fn: Any, xs: Any, dim: int, reverse: bool = False, **_: Any) -> Any:
    """PyTorch's higher-order scan; how it combines is for its own compiler."""
    return hl.associative_scan(combine_fn, xs, dim, reverse)


_DEVICE_BUILTINS: dict[Any, Callable[..., Any]] = {
    print: _device_print,
    breakpoint: _device_breakpoint,
    hl.breakpoint: _device_breakpoint,
    torch.tensor: _device_tensor,
    torch.as_tensor: _device_as_tensor,
    min: _device_min_max(min, torch.minimum),
    max: _device_min_max(max, torch.maximum),
    bool: _device_bool,
    float: _device_cast(float, torch.float32),
    int: _device_cast(int, torch.int64),
    range: _device_range,
    torch.linspace: _device_linspace,
}


# Host calls whose text in the generated host function is another -> kind of the rewriting.
_HOST_REWRITES: dict[Any, str] = {
    hl.register_block_size: "number",
    hl.register_tunable: "number",
    hl.specialize: "specialize",
}
