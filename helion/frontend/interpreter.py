"""The expression part of the abstract interpreter.

Walks the syntax tree of the user's function and evaluates expressions on abstract values: FakeTensors,
symbolic numbers, tiles, and ordinary Python objects.  The same evaluator serves host code and device code;
what differs is who records (`Tracer.on_device`).  Statements are in `statements`, device loops and branches in
`control_flow`.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import operator
import types
from collections.abc import Callable
from typing import Any

import torch

from .. import exc
from ..ir.device_ir import TracedTile
from ..ir.symbols import is_symbolic
from .environment import Environment
from .source import FunctionSource
from .source import source_of
from .tracer import Tracer

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.BitAnd: operator.and_,
    ast.MatMult: operator.matmul,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_MISSING = object()

# Called as they are: their Python source is not the user's device code.
_NATIVE_PACKAGES = ("torch", "helion", "triton", "math", "operator", "functools", "itertools", "numpy", "sympy")


class Poison:
    """What a name is bound to when only one path through a branch or loop assigns it."""

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        self.why = why


@dataclasses.dataclass
class Frame:
    """One function being interpreted: its names and where it stands.

    Attributes:
        source: the function's source, for locations.
        globals: the function's global and closure names.
        host: names of the kernel function's host code (shared by all frames of a trace).
        device: names assigned in device code, or all local names of an inlined helper.
        is_kernel: the kernel function itself, as opposed to a helper.
    """

    source: FunctionSource
    globals: dict[str, Any]
    host: dict[str, Any]
    device: dict[str, Any]
    is_kernel: bool


class LambdaValue:
    """A lambda written inside interpreted code: runs in the frame it was made in."""

    def __init__(self, interpreter: Expressions, node: ast.Lambda, frame: Frame) -> None:
        self.interpreter = interpreter
        self.node = node
        self.frame = frame
        self.__name__ = "<lambda>"
        arguments = [*node.args.posonlyargs, *node.args.args]
        import inspect

        self.__signature__ = inspect.Signature(
            [inspect.Parameter(a.arg, inspect.Parameter.POSITIONAL_OR_KEYWORD) for a in arguments]
        )
        self.names = [a.arg for a in arguments]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = self.__signature__.bind(*args, **kwargs)
        scope = {**self.frame.device, **bound.arguments}
        inner = dataclasses.replace(self.frame, device=scope)
        with self.interpreter.enter(inner):
            return self.interpreter.expr(self.node.body)


class Expressions:
    """Evaluates expressions in the current frame.

    Args:
        env: the specialization's environment.
        tracer: who records device code.
    """

    def __init__(self, env: Environment, tracer: Tracer) -> None:
        self.env = env
        self.tracer = tracer
        self.frames: list[Frame] = []
        # Host calls whose text is rewritten in the generated host function: call node -> kind and value.
        self.rewrites: dict[ast.AST, tuple[str, Any]] = {}

    # -- frames and places ---------------------------------------------------------------------------------------

    @property
    def frame(self) -> Frame:
        return self.frames[-1]

    def enter(self, frame: Frame) -> _FrameScope:
        """Make `frame` the current one for the length of a `with` block."""
        return _FrameScope(self.frames, frame)

    def at(self, node: ast.AST) -> None:
        """Remember where in the user's code we are, for nodes and errors."""
        if hasattr(node, "lineno"):
            self.tracer.location = self.frame.source.location(node)

    def expr(self, node: ast.expr) -> Any:
        """Value of an expression; errors leave with the place of the innermost expression they concern."""
        method = getattr(self, f"expr_{type(node).__name__}", None)
        if method is None:
            raise self.error(
                node, exc.StatementNotSupported(statement=f"a {type(node).__name__} expression", where=self.where())
            )
        outer = self.tracer.location
        self.at(node)
        try:
            return method(node)
        except exc.BaseError as error:
            raise self.error(node, error)
        except (ValueError, TypeError, AttributeError, RuntimeError, IndexError, KeyError, ZeroDivisionError) as error:
            raise self.error(node, self.translate(error, node)) from error
        finally:
            self.tracer.location = outer

    def error(self, node: ast.AST, error: exc.BaseError) -> exc.BaseError:
        """The error with a place, unless it has one."""
        if error.location is None:
            error.location = self.frame.source.location(node)
            error.message = self.env.ir.readable(error.message)
        return error

    def where(self) -> str:
        return "device code" if self.tracer.on_device else "host code"

    def translate(self, error: Exception, node: ast.AST) -> exc.BaseError:
        """An error of PyTorch or Python met while interpreting, as one of ours."""
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "must match the size of tensor" in text or "cannot be broadcast" in text or "Shape mismatch" in text:
            return exc.ShapeMismatch(f"operands do not broadcast: {text}", fix=exc.ShapeMismatch.fix)
        if "data-dependent" in text or "GuardOnDataDependent" in type(error).__name__:
            return exc.NotAllowedOnDevice(
                f"{ast.unparse(node)!r} needs a value that is known only while the kernel runs",
                fix="branch with `if` on it directly, or make it a compile-time value (hl.specialize, hl.constexpr).",
            )
        what = "device code" if self.tracer.on_device else "host code"
        return exc.TorchOpTracingError(
            f"evaluating {ast.unparse(node)!r} in {what} failed: {type(error).__name__}: {text}",
            fix="check the operands' shapes and dtypes.",
        )

    # -- names -------------------------------------------------------------------------------------------------------

    def lookup(self, name: str) -> Any:
        frame = self.frame
        for scope in (frame.device, frame.host if frame.is_kernel else {}, frame.globals):
            value = scope.get(name, _MISSING)
            if value is not _MISSING:
                if isinstance(value, Poison):
                    raise exc.UndefinedVariable(name=name, hint=value.why)
                return self.outside(value, name) if scope is frame.globals else value
        value = getattr(builtins, name, _MISSING)
        if value is _MISSING:
            raise exc.UndefinedVariable(name=name, hint="assign it before it is read.")
        return value

    def outside(self, value: Any, name: str) -> Any:
        """A global or closure value: real tensors become fake ones."""
        if isinstance(value, torch.Tensor) and not self.is_fake(value):
            if self.frame.is_kernel:
                return self.env.fake_tensor(value, name, name)
            return self.tracer.captured(value, name)
        return value

    def is_fake(self, value: torch.Tensor) -> bool:
        from torch._subclasses.fake_tensor import FakeTensor

        return isinstance(value, FakeTensor)

    def bind(self, name: str, value: Any) -> None:
        """Assign a name in the current scope."""
        frame = self.frame
        if not frame.is_kernel:
            frame.device[name] = value
        elif not self.tracer.on_device:
            frame.host[name] = value
        else:
            if name in frame.host and name not in frame.device:
                raise exc.CannotModifyHostVariableOnDevice(name=name)
            frame.device[name] = value
        if self.tracer.on_device:
            self.tracer.name_value(value, name)

    # -- simple expressions --------------------------------------------------------------------------------------------

    def expr_Constant(self, node: ast.Constant) -> Any:
        return node.value

    def expr_Name(self, node: ast.Name) -> Any:
        return self.lookup(node.id)

    def expr_Attribute(self, node: ast.Attribute) -> Any:
        base = self.expr(node.value)
        value = getattr(base, node.attr)
        if isinstance(base, types.ModuleType):
            return self.outside(value, ast.unparse(node))
        return value

    def expr_Tuple(self, node: ast.Tuple) -> Any:
        return tuple(self._elements(node.elts))

    def expr_List(self, node: ast.List) -> Any:
        return self._elements(node.elts)

    def expr_Set(self, node: ast.Set) -> Any:
        return set(self._elements(node.elts))

    def expr_Dict(self, node: ast.Dict) -> Any:
        result: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values):
            if key is None:
                result.update(self.expr(value))
            else:
                result[self.expr(key)] = self.expr(value)
        return result

    def _elements(self, nodes: list[ast.expr]) -> list[Any]:
        values: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                values.extend(self.expr(node.value))
            else:
                values.append(self.expr(node))
        return values

    def expr_Slice(self, node: ast.Slice) -> Any:
        return slice(*(None if part is None else self.expr(part) for part in (node.lower, node.upper, node.step)))

    def expr_JoinedStr(self, node: ast.JoinedStr) -> Any:
        if self.tracer.on_device:
            raise exc.NotAllowedOnDevice(name="an f-string", fix="use hl.device_print(prefix, value).")
        return "".join(str(self.expr(v)) for v in node.values)

    def expr_FormattedValue(self, node: ast.FormattedValue) -> Any:
        spec = self.expr(node.format_spec) if node.format_spec is not None else ""
        return format(self.expr(node.value), spec)

    def expr_NamedExpr(self, node: ast.NamedExpr) -> Any:
        value = self.expr(node.value)
        self.bind(node.target.id, value)
        return value

    def expr_Lambda(self, node: ast.Lambda) -> Any:
        return LambdaValue(self, node, dataclasses.replace(self.frame, device=dict(self.frame.device)))

    def expr_ListComp(self, node: ast.ListComp) -> Any:
        return self._comprehension(node.generators, lambda: self.expr(node.elt))

    def expr_GeneratorExp(self, node: ast.GeneratorExp) -> Any:
        return self._comprehension(node.generators, lambda: self.expr(node.elt))

    def _comprehension(self, generators: list[ast.comprehension], element: Callable[[], Any]) -> list[Any]:
        results: list[Any] = []
        frame = dataclasses.replace(self.frame, device=dict(self.frame.device), is_kernel=False)
        frame.device = {**(self.frame.host if self.frame.is_kernel else {}), **self.frame.device}

        def level(depth: int) -> None:
            if depth == len(generators):
                results.append(element())
                return
            generator = generators[depth]
            for item in self.expr(generator.iter):
                self.assign_pattern(generator.target, item)
                if all(self.truth(condition) for condition in generator.ifs):
                    level(depth + 1)

        with self.enter(frame):
            level(0)
        return results

    def assign_pattern(self, target: ast.expr, value: Any) -> None:
        """Assign to a name or a (nested) tuple of names."""
        if isinstance(target, ast.Name):
            self.bind(target.id, value)
        elif isinstance(target, (ast.Tuple, ast.List)):
            values = list(value)
            if len(values) != len(target.elts):
                raise exc.InvalidAPIUsage(f"cannot unpack {len(values)} values into {len(target.elts)} names")
            for t, v in zip(target.elts, values):
                self.assign_pattern(t, v)
        else:
            raise exc.StatementNotSupported(statement=f"assignment to {ast.unparse(target)}", where=self.where())

    # -- operators ---------------------------------------------------------------------------------------------------

    def expr_BinOp(self, node: ast.BinOp) -> Any:
        return self.binary(node.op, self.expr(node.left), self.expr(node.right))

    def binary(self, op: ast.operator, left: Any, right: Any) -> Any:
        if isinstance(op, ast.MatMult):
            return torch.matmul(left, right)
        if isinstance(op, ast.Add) and isinstance(left, TracedTile) and isinstance(right, torch.Tensor) and right.dim():
            return left.index + right
        return _BINARY[type(op)](left, right)

    def expr_UnaryOp(self, node: ast.UnaryOp) -> Any:
        value = self.expr(node.operand)
        if isinstance(node.op, ast.Not):
            if isinstance(value, torch.Tensor):
                return torch.logical_not(value)
            if is_symbolic(value) and self.env.depends_on_device(value):
                return torch.sym_not(value)
            return not value
        return _UNARY[type(node.op)](value)

    def expr_Compare(self, node: ast.Compare) -> Any:
        left = self.expr(node.left)
        result: Any = True
        for op, right_node in zip(node.ops, node.comparators):
            right = self.expr(right_node)
            step = _COMPARE[type(op)](left, right)
            result = step if result is True else self._and(result, step)
            if result is False:
                return False
            left = right
        return result

    def expr_BoolOp(self, node: ast.BoolOp) -> Any:
        value = self.expr(node.values[0])
        for other in node.values[1:]:
            if isinstance(value, torch.Tensor) or (is_symbolic(value) and self.env.depends_on_device(value)):
                right = self.expr(other)
                value = self._and(value, right) if isinstance(node.op, ast.And) else self._or(value, right)
            elif bool(value) is isinstance(node.op, ast.Or):
                return value
            else:
                value = self.expr(other)
        return value

    def _and(self, a: Any, b: Any) -> Any:
        if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
            return torch.logical_and(self.as_tensor(a), self.as_tensor(b))
        return a & b if is_symbolic(a) or is_symbolic(b) else (a and b)

    def _or(self, a: Any, b: Any) -> Any:
        if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
            return torch.logical_or(self.as_tensor(a), self.as_tensor(b))
        return a | b if is_symbolic(a) or is_symbolic(b) else (a or b)

    def as_tensor(self, value: Any) -> torch.Tensor:
        return value if isinstance(value, torch.Tensor) else self.tracer.scalar_tensor(value)

    def expr_IfExp(self, node: ast.IfExp) -> Any:
        test = self.expr(node.test)
        if self.is_dynamic(test):
            # Both sides are values, so this is a select; each must be free of side effects like any expression.
            return torch.where(self.as_tensor(test), self.as_tensor(self.expr(node.body)), self.as_tensor(self.expr(node.orelse)))
        return self.expr(node.body if test else node.orelse)

    def is_dynamic(self, test: Any) -> bool:
        """Whether a condition is known only while the kernel runs."""
        if isinstance(test, torch.Tensor):
            return self.tracer.on_device
        return is_symbolic(test) and self.env.depends_on_device(test)

    def truth(self, node: ast.expr) -> bool:
        """A condition that must be known at compile time."""
        value = self.expr(node)
        if self.is_dynamic(value):
            raise self.error(node, exc.SizeNotConstant(what="this condition", value=ast.unparse(node)))
        return bool(value)

    # -- subscripts and calls ---------------------------------------------------------------------------------------------

    def expr_Subscript(self, node: ast.Subscript) -> Any:
        base = self.expr(node.value)
        return self.subscript(base, self.expr(node.slice))

    def subscript(self, base: Any, index: Any) -> Any:
        if self.tracer.on_device and isinstance(base, torch.Tensor):
            from ..language import load

            return load(base, index)
        return base[index]

    def expr_Call(self, node: ast.Call) -> Any:
        fn = self.expr(node.func)
        args = self._elements(node.args)
        kwargs: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                kwargs.update(self.expr(keyword.value))
            else:
                kwargs[keyword.arg] = self.expr(keyword.value)
        return self.call(fn, args, kwargs, node)

    def call(self, fn: Any, args: list[Any], kwargs: dict[str, Any], node: ast.Call) -> Any:
        """Call anything: language functions record, torch functions run abstractly, user functions are inlined."""
        if not self.tracer.on_device:
            return self.host_call(fn, args, kwargs, node)
        replacement = _DEVICE_BUILTINS.get(fn) if _hashable(fn) else None
        if replacement is not None:
            return replacement(self, *args, **kwargs)
        if isinstance(fn, types.FunctionType) and not self.is_native(fn):
            return self.inline(fn, args, kwargs)
        if self.takes_sizes(fn):
            args = [_sizes(a) for a in args]
            kwargs = {k: _sizes(v) for k, v in kwargs.items()}
        return fn(*args, **kwargs)

    def host_call(self, fn: Any, args: list[Any], kwargs: dict[str, Any], node: ast.Call) -> Any:
        """A call in host code; those that the generated host function must not repeat as they are get noted."""
        from .. import language as hl

        value = fn(*args, **kwargs)
        kind = _HOST_REWRITES.get(fn) if _hashable(fn) else None
        if kind is not None:
            self.rewrites[node] = (kind, value)
        elif fn is torch.broadcast_tensors:
            self.rewrites[node] = ("broadcast", [a.shape for a in args])
        assert hl is not None
        return value

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
        import inspect

        try:
            source = source_of(fn)
        except exc.SourceUnavailable:
            return fn(*args, **kwargs)  # a lambda passed in, or exec'd code: runs natively under the tracer's modes
        bound = inspect.signature(fn).bind(*args, **kwargs)
        bound.apply_defaults()
        if len(self.frames) > 64:
            raise exc.InvalidAPIUsage(f"helper function {fn.__name__!r} recurses", fix="write it as a loop.")
        frame = Frame(source, function_globals(fn), {}, dict(bound.arguments), is_kernel=False)
        with self.enter(frame):
            return self.run_function(source.node)

    def run_function(self, node: ast.FunctionDef) -> Any:
        raise NotImplementedError  # in statements


class _FrameScope:
    def __init__(self, frames: list[Frame], frame: Frame) -> None:
        self.frames, self.frame = frames, frame

    def __enter__(self) -> None:
        self.frames.append(self.frame)

    def __exit__(self, *exc_info: object) -> None:
        self.frames.pop()


def function_globals(fn: types.FunctionType) -> dict[str, Any]:
    """The names a function sees outside itself: its module's globals under its closure."""
    names = dict(fn.__globals__)
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or ()):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # a variable of the enclosing function that is not assigned yet
            continue
    return names


def _sizes(value: Any) -> Any:
    if isinstance(value, TracedTile):
        return value.block_size
    if type(value) in (list, tuple):
        return type(value)(_sizes(v) for v in value)
    return value


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


# -- Python builtins whose meaning on device values is an op ------------------------------------------------------------


def _device_print(interpreter: Expressions, *args: Any, **kwargs: Any) -> None:
    from ..language import device_print

    prefix = args[0] if args and isinstance(args[0], str) else ""
    device_print(prefix, *args[1 if prefix else 0 :])


def _device_min_max(pick: Callable[..., Any], tensor_op: Callable[..., Any]) -> Callable[..., Any]:
    def call(interpreter: Expressions, *args: Any, **kwargs: Any) -> Any:
        values = list(args[0]) if len(args) == 1 else list(args)
        if any(isinstance(v, torch.Tensor) for v in values):
            result = interpreter.as_tensor(values[0])
            for v in values[1:]:
                result = tensor_op(result, interpreter.as_tensor(v))
            return result
        if any(is_symbolic(v) for v in values):
            result = values[0]
            for v in values[1:]:
                result = (torch.sym_min if pick is min else torch.sym_max)(result, v)
            return result
        return pick(*args, **kwargs)

    return call


def _device_cast(python_type: type, dtype: torch.dtype) -> Callable[..., Any]:
    def call(interpreter: Expressions, value: Any = 0) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to(dtype)
        return value if is_symbolic(value) else python_type(value)

    return call


def _device_range(interpreter: Expressions, *args: Any) -> Any:
    for bound in args:
        if not isinstance(bound, int):
            raise exc.SizeNotConstant(
                what="a bound of range() in device code", value=bound, fix="use hl.tile() or hl.grid() for a loop that runs on the device."
            )
    return range(*args)


def _device_breakpoint(interpreter: Expressions, *args: Any) -> None:
    from ..language import breakpoint as device_breakpoint

    device_breakpoint()


_DEVICE_BUILTINS: dict[Any, Callable[..., Any]] = {
    print: _device_print,
    breakpoint: _device_breakpoint,
    min: _device_min_max(min, torch.minimum),
    max: _device_min_max(max, torch.maximum),
    float: _device_cast(float, torch.float32),
    int: _device_cast(int, torch.int64),
    range: _device_range,
}


def _host_rewrites() -> dict[Any, str]:
    from .. import language as hl

    return {
        hl.register_block_size: "number",
        hl.register_tunable: "number",
        hl.specialize: "specialize",
    }


_HOST_REWRITES: dict[Any, str] = _host_rewrites()
