"""Static analysis of a generated host function: is what it does a function of the call's signature alone?

Half of the decision whether a host function becomes a ``LaunchPlan``; the other half is the recorded run (``plan.py``).
The recording sees every tensor operation, but not what Python does between them; this analysis sees exactly that. It
accepts what it knows, statement by statement and name by name, and gives a reason for the first thing that it does not.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import linecache
import math
import types
import weakref
from collections.abc import Iterator
from typing import Any

import torch

import helion.runtime as runtime

from ... import _compat_triton_abi as _abi
from ... import numbers
from ..._parsing import parse_definition
from .leaves import containers_in
from .outside import is_foreign
from .outside import is_table
from .records import is_record

__all__ = ["HostAnalysis", "LaunchCall", "analyze"]


@dataclasses.dataclass(frozen=True)
class LaunchCall:
    """One ``_launcher(...)`` call in the source.

    Attributes:
        first_line, last_line: where it stands, as in the file.
        names: per positional argument after kernel and grid, the name that is passed as it is, or None.
    """

    first_line: int
    last_line: int
    names: tuple[str | None, ...]


@dataclasses.dataclass(frozen=True)
class HostAnalysis:
    """What is known about a host function without running it.

    Attributes:
        reason: why it cannot be a plan; None if nothing speaks against it.
        launches: its ``_launcher(...)`` calls.
        by_value: parameters whose value (and not only type) the function may depend on, if they are numbers.
        identity: whether it may depend on which tensors are the same object (``x is y``, ``x in (y, z)``).
        tables: containers of constants that it reads from its module, as the module's dict and the name.
    """

    reason: str | None
    launches: tuple[LaunchCall, ...] = ()
    by_value: frozenset[str] = frozenset()
    identity: bool = False
    tables: tuple[tuple[dict[str, Any], str], ...] = ()

    def tables_now(self) -> Iterator[Any]:
        """The tables, and the containers in them."""
        for namespace, name in self.tables:
            yield from containers_in(namespace.get(name))

    def launch_at(self, line: int) -> LaunchCall | None:
        """The launch that stands at ``line``; None if it cannot be told."""
        found = [one for one in self.launches if one.first_line <= line <= one.last_line]
        return found[0] if len(found) == 1 else None


#: Attributes that are functions of what a signature holds: shape, dtype, device and the like.
_ATTRIBUTES = frozenset({
    "shape", "dtype", "device", "ndim", "T", "mT", "H", "mH", "layout", "itemsize", "is_cuda", "is_cpu", "is_meta",
    "type", "index", "real", "imag", "is_sparse",
    # of a dtype
    "is_floating_point", "is_complex", "is_signed",
    # of torch.finfo and torch.iinfo
    "min", "max", "eps", "tiny", "bits", "resolution", "smallest_normal",
})  # fmt: skip

#: Operations that the plan repeats, as methods and as functions of torch.
_OPERATIONS = frozenset({
    "abs", "neg", "exp", "log", "sqrt", "rsqrt", "square", "pow", "reciprocal", "sigmoid", "tanh", "relu", "add", "sub",
    "mul", "div", "clamp", "sum", "mean", "amax", "amin", "cumsum", "matmul", "mm", "bmm", "addmm", "tril", "triu",
    "maximum", "minimum", "softmax", "where", "clone", "roll", "flip",
})  # fmt: skip

#: Methods of tensors, sizes, lists, strings and dtypes, as above. Tensor operations among them are seen by the
#: recording.
_METHODS = frozenset({
    "size", "stride", "dim", "ndimension", "numel", "nelement", "element_size", "is_contiguous", "is_floating_point",
    "is_complex", "get_device", "new_empty", "new_empty_strided", "new_zeros", "new_ones", "new_full", "zero_",
    "fill_", "view", "reshape", "flatten", "unflatten", "transpose", "permute", "movedim", "t", "squeeze",
    "unsqueeze", "expand", "expand_as", "view_as", "reshape_as", "select", "narrow", "split", "chunk", "unbind",
    "detach", "contiguous", "unfold", "diagonal", "swapaxes", "swapdims", "adjoint", "append", "extend", "count",
    "index", "copy", "insert", "to", "type_as", "float", "half", "bfloat16", "double", "int", "long", "cpu", "cuda",
    "copy_", "add_", "sub_", "mul_", "div_", "clamp_", "clamp_min", "clamp_max", "masked_fill", "masked_fill_",
    "repeat", "type", "get", "keys", "values", "items",
}) | _OPERATIONS  # fmt: skip

#: Those of containers that only look something up.
_LOOKUPS = frozenset({"get", "keys", "values", "items", "index", "count"})

#: Modules whose attributes may be read and called: the ones that generated code imports.
_TORCH_CALLS = frozenset({
    "empty", "empty_like", "empty_strided", "zeros", "zeros_like", "ones", "ones_like", "full", "full_like",
    "broadcast_tensors", "broadcast_shapes", "promote_types", "result_type", "can_cast", "Size", "device", "dtype",
    "finfo", "iinfo", "numel", "is_tensor", "is_floating_point", "is_complex", "reshape", "flatten", "transpose",
    "permute", "movedim", "t", "squeeze", "unsqueeze", "select", "narrow", "split", "chunk", "unbind",
    "cat", "stack", "arange", "eye", "linspace", "rand", "randn", "rand_like", "randn_like",
    "get_default_dtype",
}) | _OPERATIONS  # fmt: skip
_BUILTINS = frozenset({
    "len", "min", "max", "int", "float", "bool", "abs", "sum", "range", "tuple", "list", "isinstance", "round",
    "divmod", "zip", "enumerate", "sorted", "reversed", "all", "any", "str", "repr", "dict",
})  # fmt: skip
_TRITON_CALLS = frozenset({"cdiv", "next_power_of_2"})
#: Like an assertion; what it raises is not recorded, so that nothing matters but the condition.
_TORCH_CHECKS = frozenset({"_check", "_check_type", "_check_value", "_check_index", "_check_not_implemented"})


def _runtime_calls() -> frozenset[Any]:
    return frozenset(
        [
            runtime.empty, runtime.empty_like, runtime.new_empty, runtime.broadcast_tensors, runtime.get_num_sm,
            runtime.increment_version, runtime.set_triton_allocator, numbers.cdiv, numbers.next_power_of_2,
        ]
    )  # fmt: skip


class _Refused(Exception):
    """The message is the reason."""


_STATEMENTS = (
    ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.Return, ast.If, ast.For, ast.Assert, ast.Pass, ast.Raise,
    ast.Break, ast.Continue,
)  # fmt: skip
_EXPRESSIONS = (
    ast.Constant, ast.Name, ast.Attribute, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Tuple,
    ast.List, ast.Set, ast.Dict, ast.Subscript, ast.Slice, ast.Starred, ast.Call, ast.JoinedStr, ast.FormattedValue,
    ast.ListComp, ast.GeneratorExp, ast.NamedExpr,
)  # fmt: skip
_OTHERS = (
    ast.comprehension, ast.keyword, ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.alias,
)  # fmt: skip

#: Types of module globals that cannot change under the function.
_CONSTANT_TYPES = (int, float, bool, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)


#: Attributes that are tensors again.
_TENSOR_ATTRIBUTES = frozenset({"T", "mT", "H", "mH", "real", "imag"})


def _has_identity(node: ast.expr) -> bool:
    """Whether an expression may be a tensor that is there already, or hold one; ``x.dtype`` and ``len(x)`` are not."""
    if isinstance(node, ast.Attribute):
        return node.attr in _TENSOR_ATTRIBUTES
    if isinstance(node, ast.Subscript):
        return _has_identity(node.value)
    if isinstance(node, (ast.Tuple, ast.List)):
        return any(_has_identity(item) for item in node.elts)
    return isinstance(node, (ast.Name, ast.Starred, ast.IfExp, ast.BoolOp, ast.ListComp, ast.GeneratorExp))


def _asks_identity(node: ast.AST) -> bool:
    """Whether an expression may tell one tensor from another: comparing them, also in lists, or looking for one."""
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        asking = any(isinstance(op, (ast.Is, ast.IsNot, ast.In, ast.NotIn, ast.Eq, ast.NotEq)) for op in node.ops)
        return asking and sum(_has_identity(side) for side in sides) > 1
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("count", "index"):
        return any(_has_identity(argument) for argument in node.args)
    if isinstance(node, (ast.Dict, ast.Set)):
        keys = node.keys if isinstance(node, ast.Dict) else node.elts
        return any(key is not None and _has_identity(key) for key in keys)
    return False


def _root(node: ast.expr) -> ast.expr:
    """What attributes are read of, one of the other."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node


class _Checker:
    """
    Args:
        helpers: the functions that host code calls which were checked, or are being checked.
    """

    def __init__(
        self, function: types.FunctionType, tree: ast.FunctionDef, line_offset: int, helpers: set[types.FunctionType]
    ) -> None:
        self.helpers = helpers
        self.asks_identity = False
        self.globals = function.__globals__
        self.closure = set(function.__code__.co_freevars)
        self.tree = tree
        self.line_offset = line_offset
        args = tree.args
        self.parameters = [arg.arg for arg in (*args.posonlyargs, *args.args)]
        self.keyword_only = {arg.arg for arg in args.kwonlyargs}
        self.locals = set(self.parameters) | self.keyword_only
        self.launches: list[LaunchCall] = []
        self.passed: list[ast.Name] = []
        self.tables: list[tuple[dict[str, Any], str]] = []

    def run(self) -> HostAnalysis:
        if self.tree.args.vararg or self.tree.args.kwarg:
            raise _Refused("host code takes *args or **kwargs")
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self.locals.add(node.id)
        for statement in self.tree.body:
            self.check(statement)
        passed = {id(name) for name in self.passed}
        by_value = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name) and node.id in self.parameters and id(node) not in passed:
                by_value.add(node.id)
        rebound = {
            node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        by_value |= rebound & set(self.parameters)
        identity = self.asks_identity or any(_asks_identity(node) for node in ast.walk(self.tree))
        return HostAnalysis(None, tuple(self.launches), frozenset(by_value), identity, tuple(self.tables))

    def check(self, node: ast.AST) -> None:
        """Raises _Refused for the first thing in ``node`` that is not known to be harmless."""
        if isinstance(node, ast.stmt) and not isinstance(node, _STATEMENTS):
            raise _Refused(f"host code has a {type(node).__name__.lower()} statement")
        if isinstance(node, ast.expr) and not isinstance(node, _EXPRESSIONS):
            raise _Refused(f"host code has a {type(node).__name__} expression")
        if not isinstance(node, (ast.stmt, ast.expr, *_OTHERS)):
            raise _Refused(f"host code has a {type(node).__name__}")
        if isinstance(node, ast.Raise):
            return  # a call that raises is not recorded, and which calls get here is decided by what was checked
        if isinstance(node, ast.Assert):
            self.check(node.test)
            return
        if isinstance(node, ast.Call):
            self.check_call(node)
            return
        if isinstance(node, ast.Attribute):
            self.check_attribute(node)
            return
        if isinstance(node, ast.Name):
            self.check_name(node)
            return
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                self.check_target(target)
            if node.value is not None:
                self.check(node.value)
            return
        for child in ast.iter_child_nodes(node):
            self.check(child)

    def check_target(self, target: ast.expr) -> None:
        if isinstance(target, (ast.Tuple, ast.List)):
            for item in target.elts:
                self.check_target(item)
        elif isinstance(target, ast.Starred):
            self.check_target(target.value)
        elif not isinstance(target, ast.Name):
            raise _Refused("host code assigns to something other than a local variable")

    def check_name(self, node: ast.Name) -> None:
        if node.id in self.locals:
            return
        if node.id in self.closure:
            raise _Refused(f"host code uses {node.id!r} from an enclosing function")
        value = self.resolve(node)
        if node.id in self.globals and is_table(value):  # asked at every call (``outside.py``)
            self.tables.append((self.globals, node.id))
        elif not isinstance(value, _CONSTANT_TYPES) and not _is_device_kernel(value):
            raise _Refused(f"host code uses the global {node.id!r}")

    def check_attribute(self, node: ast.Attribute) -> None:
        root = _root(node)
        if isinstance(root, ast.Name) and root.id not in self.locals:
            value = self.resolve(node)
            if isinstance(value, (*_CONSTANT_TYPES, torch.memory_format, torch.layout, type)):
                module = self.resolve(root)
                if module is torch or module is math or _abi.is_triton(module):
                    return
            raise _Refused(f"host code reads {ast.unparse(node)}")
        if node.attr not in _ATTRIBUTES:
            raise _Refused(f"host code reads .{node.attr}")
        self.check(node.value)

    def check_call(self, node: ast.Call) -> None:
        callee = node.func
        if isinstance(callee, ast.Name) and callee.id == "_launcher":
            self.check_launch(node)
            return
        if self.is_torch_check(callee) and node.args:
            self.check(node.args[0])
            return
        self.check_callee(callee)
        for argument in node.args:
            self.check(argument)
        for keyword in node.keywords:
            self.check(keyword.value)

    def is_torch_check(self, callee: ast.expr) -> bool:
        if not isinstance(callee, ast.Attribute) or not isinstance(callee.value, ast.Name):
            return False
        is_local = callee.value.id in self.locals
        return not is_local and callee.attr in _TORCH_CHECKS and self.resolve(callee.value) is torch

    def check_helper(self, function: types.FunctionType) -> None:
        """A function of the program's own, which is as good as its code.

        The constants that it reads from its module are asked at every call (``outside.py``).
        """
        if function in self.helpers:
            return
        self.helpers.add(function)
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        if not all(isinstance(default, _CONSTANT_TYPES) for default in defaults):
            raise _Refused("a default of it can change")
        definition, offset = _own_definition(function)
        analysis = _Checker(function, definition, offset, self.helpers).run()
        self.asks_identity = self.asks_identity or analysis.identity
        self.tables += analysis.tables

    def check_callee(self, callee: ast.expr) -> None:
        name = ast.unparse(callee)
        root = _root(callee)
        if isinstance(root, ast.Name) and root.id not in self.locals:
            value = self.resolve(callee)
            module = self.resolve(root)
            if isinstance(callee, ast.Name):
                builtin = self.globals.get("__builtins__", {})
                known = callee.id in _BUILTINS and value is (
                    builtin.get(callee.id) if isinstance(builtin, dict) else getattr(builtin, callee.id, None)
                )
                if known:
                    return
            if (
                module is torch
                and isinstance(callee, ast.Attribute)
                and callee.value is root
                and callee.attr in _TORCH_CALLS
            ):
                return
            if _abi.is_triton(module) and isinstance(callee, ast.Attribute) and callee.attr in _TRITON_CALLS:
                return
            if module is math:
                return
            if isinstance(value, types.FunctionType) and value in _runtime_calls():
                return
            if is_record(value):
                return
            if isinstance(callee, ast.Attribute) and is_table(module) and callee.attr in _LOOKUPS:
                self.check(callee.value)
                return
            if isinstance(value, types.FunctionType) and not is_foreign(value.__module__):
                try:
                    self.check_helper(value)
                except _Refused as why:
                    raise _Refused(f"host code calls {name}(): {why}") from None
                return
            raise _Refused(f"host code calls {name}()")
        if isinstance(callee, ast.Attribute):
            if callee.attr not in _METHODS:
                raise _Refused(f"host code calls .{callee.attr}()")
            self.check(callee.value)
            return
        raise _Refused(f"host code calls {name}")

    def check_launch(self, node: ast.Call) -> None:
        if len(node.args) < 2 or any(isinstance(argument, ast.Starred) for argument in node.args):
            raise _Refused("host code launches with a variable number of arguments")
        for argument in node.args:
            self.check(argument)
        for keyword in node.keywords:
            self.check(keyword.value)
        names: list[str | None] = []
        for argument in node.args[2:]:
            if isinstance(argument, ast.Name) and argument.id in self.parameters:
                names.append(argument.id)
                self.passed.append(argument)
            else:
                names.append(None)
        last = node.end_lineno or node.lineno
        self.launches.append(LaunchCall(node.lineno + self.line_offset, last + self.line_offset, tuple(names)))

    def resolve(self, node: ast.expr) -> Any:
        """The object that a global name or dotted name stands for."""
        if isinstance(node, ast.Name):
            if node.id in self.globals:
                return self.globals[node.id]
            builtin = self.globals.get("__builtins__", {})
            namespace = builtin if isinstance(builtin, dict) else vars(builtin)
            if node.id in namespace:
                return namespace[node.id]
            raise _Refused(f"host code uses the unknown name {node.id!r}")
        assert isinstance(node, ast.Attribute)
        value = self.resolve(node.value)
        try:
            return getattr(value, node.attr)
        except AttributeError:
            raise _Refused(f"host code reads {ast.unparse(node)}, which is not there") from None


def _is_device_kernel(value: Any) -> bool:
    """Whether a global is something to launch: Triton's, or a kernel object of another backend, which says so
    itself.
    """
    return _abi.is_jit_function(value) or getattr(type(value), "is_device_kernel", False)


def _own_definition(function: types.FunctionType) -> tuple[ast.FunctionDef, int]:
    """The definition of a function of the program's own, and the line before it.

    Raises:
        _Refused: its file has no such function any more. (What runs is what was imported; a file may be edited since.)
    """
    code = function.__code__
    try:
        lines, first = inspect.getsourcelines(function)
        tree = parse_definition("".join(lines))
        # All of the file: how a call of `torch.empty` is compiled depends on whether the file imports torch.
        module = compile("".join(linecache.getlines(code.co_filename)), code.co_filename, "exec", dont_inherit=True)
    except (OSError, SyntaxError, TypeError, ValueError):
        raise _Refused("its source is not available") from None
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef) or not any(_same_code(one, code) for one in _codes_in(module)):
        raise _Refused("its source is not what runs")
    return definition, first - 1


def _codes_in(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _codes_in(constant)


def _same_code(one: types.CodeType, other: types.CodeType) -> bool:
    """Whether two code objects do the same, at the same line."""
    names = (
        "co_name",
        "co_firstlineno",
        "co_argcount",
        "co_posonlyargcount",
        "co_kwonlyargcount",
        "co_flags",
        "co_names",
        "co_varnames",
    )
    if any(getattr(one, name) != getattr(other, name) for name in (*names, "co_freevars", "co_cellvars", "co_code")):
        return False
    if len(one.co_consts) != len(other.co_consts):
        return False
    return all(
        _same_code(a, b) if isinstance(a, types.CodeType) and isinstance(b, types.CodeType)
        else type(a) is type(b) and repr(a) == repr(b)
        for a, b in zip(one.co_consts, other.co_consts)
    )  # fmt: skip


#: By function and not by code: the same code with other globals is another function.
_known: weakref.WeakKeyDictionary[types.FunctionType, HostAnalysis] = weakref.WeakKeyDictionary()


def analyze(function: types.FunctionType) -> HostAnalysis:
    """Analyze a generated host function; remembered as long as the function lives.

    Args:
        function: the host function; its source must be in a file or in ``linecache``.
    """
    analysis = _known.get(function)
    if analysis is None:
        analysis = _known[function] = _analyze(function)
    return analysis


def _analyze(function: types.FunctionType) -> HostAnalysis:
    try:
        lines, first = inspect.getsourcelines(function)
        tree = parse_definition("".join(lines))
    except (OSError, SyntaxError, TypeError):
        return HostAnalysis("the source of the host code is not available")
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        return HostAnalysis("the host code is not a plain function")
    try:
        return _Checker(function, definition, first - 1, {function}).run()
    except _Refused as refused:
        return HostAnalysis(str(refused))
