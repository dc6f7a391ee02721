"""The source of a Python function: its syntax tree, places in it, and which names its statements use.

Scope analysis (`assigned_names`, `Liveness`) decides which variables a device loop carries.  Nothing is
evaluated here.
"""

from __future__ import annotations

import ast
import copy
import inspect
import io
import linecache
import tokenize
import types
from collections.abc import Iterable
from typing import Any

from .. import exc
from .._locks import cached_property
from .._parsing import parse_definition
from .._parsing import unindented
from ..exc import SourceLocation
from .jumps import with_one_return
from .jumps import without_jumps
from .matching import without_match


class FunctionSource:
    """A parsed function.

    Attributes:
        name: of the Python function, which is not kept: its closure may hold tensors.
        node: its `ast.FunctionDef`; line numbers are those of the file.
        file: path of the file.
        liveness: which names its statements need.
        structured: loops with jumps -> the same without (`jumps`), for device code.
    """

    def __init__(self, fn: types.FunctionType) -> None:
        self.name = fn.__name__
        self.file = inspect.getsourcefile(fn) or fn.__code__.co_filename
        try:
            lines, first = _lines_of(fn)
        except (OSError, TypeError):
            raise exc.SourceUnavailable(name=fn.__name__) from None
        text = "".join(lines)
        try:
            tree = parse_definition(text)
        except SyntaxError:
            raise exc.SourceUnavailable(name=fn.__name__) from None
        ast.increment_lineno(tree, first - 1)
        node = tree.body[0]
        # The lines of a lambda among a function's decorators are that function's.
        if not isinstance(node, ast.FunctionDef) or node.name != fn.__code__.co_name:
            raise exc.SourceUnavailable(name=fn.__name__)
        self.text = unindented(text)
        without_match(node)
        self._take(node)

    def _take(self, node: ast.FunctionDef) -> None:
        self.node = node
        copied, self.structured = without_jumps(node)
        self.liveness = Liveness(node, copied) if self.structured else Liveness(node)

    @cached_property
    def on_device(self) -> FunctionSource:
        """The same function as device code calls it: it returns at its end."""
        node = with_one_return(self.node)
        return self if node is self.node else self.nested(node)

    def nested(self, node: ast.FunctionDef) -> FunctionSource:
        """The source of a function defined in this one."""
        inner = copy.copy(self)
        vars(inner).pop("on_device", None)
        inner._take(node)
        return inner

    def location(self, node: ast.AST) -> SourceLocation:
        """Where a node of this function's tree stands in the file."""
        line = getattr(node, "lineno", self.node.lineno)
        column = getattr(node, "col_offset", 0)
        same_line = getattr(node, "end_lineno", line) == line
        lines = _remembered(self.file) or linecache.getlines(self.file)
        text = lines[line - 1].rstrip("\n") if 0 < line <= len(lines) else ""
        end = getattr(node, "end_col_offset", 0) if same_line else len(text)
        return SourceLocation(self.file, line, column, end, self.name, text)


_SOURCES: dict[types.CodeType, FunctionSource] = {}
#: File -> its bytes, or lines, when a kernel in it was last defined.
_FILES: dict[str, bytes | list[str]] = {}


def remember_file(fn: types.FunctionType) -> None:
    """Keep the text of a function's file as it is now: what is compiled later is what was imported, though the file is
    edited in between.
    """
    file = fn.__code__.co_filename
    linecache.checkcache(file)
    try:
        with open(file, "rb") as content:
            _FILES[file] = content.read()  # made lines of when somebody asks: a call from a bundle needs none
    except OSError:  # a cell of a notebook, a module in an archive
        if lines := linecache.getlines(file, fn.__globals__):
            _FILES[file] = lines


def _remembered(file: str) -> list[str]:
    """The lines of a file as they were, with their ends; none if it was not remembered, or is no text."""
    found = _FILES.get(file, [])
    if isinstance(found, list):
        return found
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(found).readline)
        lines = io.TextIOWrapper(io.BytesIO(found), encoding).readlines()
    except (SyntaxError, UnicodeDecodeError):
        lines = []
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    _FILES[file] = lines
    return lines


def _lines_of(fn: types.FunctionType) -> tuple[list[str], int]:
    """A function's lines, and the number of the first one."""
    lines, first = _remembered(fn.__code__.co_filename), fn.__code__.co_firstlineno
    if hasattr(fn, "__wrapped__") or not 0 < first <= len(lines):
        return inspect.getsourcelines(fn)
    return inspect.getblock(lines[first - 1 :]), first


def text_of(fn: types.FunctionType) -> str:
    """The text of a function as `source_of` parses it, without parsing it.

    Raises:
        OSError: there is none.
        TypeError: likewise.
    """
    return unindented("".join(_lines_of(fn)[0]))


def source_of(fn: types.FunctionType) -> FunctionSource:
    """The parsed source of a function, from a cache keyed by its code object."""
    found = _SOURCES.get(fn.__code__)
    if found is None:
        found = _SOURCES[fn.__code__] = FunctionSource(fn)
    return found


#: What is not interpreted in host code.
_NATIVE = (
    ast.Try, ast.With, ast.AsyncWith, ast.AsyncFor, ast.AsyncFunctionDef, ast.Await, ast.Global, ast.Nonlocal,
    ast.ClassDef, ast.Delete, ast.Import, ast.ImportFrom, ast.Yield, ast.YieldFrom, ast.Match,
)  # fmt: skip


def is_interpretable(fn: types.FunctionType | types.MethodType) -> bool:
    """Whether a function's source is there, and has no statement that only Python can run."""
    function = fn.__func__ if isinstance(fn, types.MethodType) else fn
    if not isinstance(function, types.FunctionType):
        return False
    try:
        node = source_of(function).node
    except exc.SourceUnavailable:
        return False
    return not any(isinstance(inner, _NATIVE) for inner in ast.walk(node))


def function_globals(fn: types.FunctionType) -> dict[str, Any]:
    """The names a function sees outside itself: its module's globals under its closure."""
    return {**fn.__globals__, **captured(fn)}


def captured(fn: types.FunctionType) -> dict[str, Any]:
    """The variables of enclosing functions that a function uses."""
    found: dict[str, Any] = {}
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or ()):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found


def check_decorators(fn: types.FunctionType) -> None:
    """Refuse a function that another decorator has replaced or marked before @helion.kernel saw it.

    Raises:
        exc.DecoratorAfterHelionKernelDecorator: one stands between `@helion.kernel` and the function.
    """
    inner: Any = fn
    while hasattr(inner, "__wrapped__"):
        inner = inner.__wrapped__
    try:
        node = source_of(inner).node
    except exc.SourceUnavailable:
        return  # said where the source is needed
    ours = [i for i, decorator in enumerate(node.decorator_list) if _is_ours(decorator, fn.__globals__, inner)]
    if ours and ours[-1] + 1 < len(node.decorator_list):
        other = ast.unparse(node.decorator_list[ours[-1] + 1])
        raise exc.DecoratorAfterHelionKernelDecorator(kernel=node.name, decorator=other)


def _is_ours(decorator: ast.expr, *spaces: Any) -> bool:
    callee = decorator.func if isinstance(decorator, ast.Call) else decorator
    parts = ast.unparse(callee).split(".")
    for space in spaces:
        value = (space if isinstance(space, dict) else getattr(space, "__globals__", {})).get(parts[0])
        for part in parts[1:]:
            value = getattr(value, part, None)
        if (getattr(value, "__module__", None) or "").split(".")[0] == "helion":
            return True
    return False


def definition(fn: types.FunctionType) -> SourceLocation | None:
    """The `def` line of a function, for errors of a call; None where there is no source."""
    try:
        source = source_of(fn)
    except exc.SourceUnavailable:
        return None
    return source.location(source.node)


# -- names ---------------------------------------------------------------------------------------------------


def target_names(target: ast.AST) -> set[str]:
    """Names an assignment target binds (not the base of `x[i] = ...`)."""
    if isinstance(target, ast.Name):
        return {target.id}
    if isinstance(target, (ast.Tuple, ast.List)):
        return set().union(*(target_names(t) for t in target.elts))
    if isinstance(target, ast.Starred):
        return target_names(target.value)
    return set()


def assigned_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Names that statements bind, in nested statements too; function and lambda bodies have their own scope."""
    names: set[str] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Name, ast.Constant)):  # as most nodes are
            continue
        if isinstance(node, (ast.FunctionDef, ast.Lambda, ast.ListComp, ast.GeneratorExp, ast.DictComp, ast.SetComp)):
            if isinstance(node, ast.FunctionDef):
                names.add(node.name)
            continue
        if isinstance(node, ast.Assign):
            for target in node.targets:
                names |= target_names(target)
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign, ast.For, ast.NamedExpr)):
            names |= target_names(node.target)
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            names |= target_names(node.optional_vars)
        waiting.extend(ast.iter_child_nodes(node))
    return names


def item_assigned_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Names of what statements assign items of: `x` in `x[i] = ...`, `x[i][j] = ...` and `x[i] += ...`."""
    items = (
        target
        for statement in nodes
        for node in ast.walk(statement)
        if isinstance(node, (ast.Assign, ast.AugAssign))
        for part in (node.targets if isinstance(node, ast.Assign) else [node.target])
        for target in ast.walk(part)
    )
    stored = (_subscripted(t) for t in items if isinstance(t, ast.Subscript) and isinstance(t.ctx, ast.Store))
    return {base.id for base in stored if isinstance(base, ast.Name)}


def _subscripted(node: ast.expr) -> ast.expr:
    """What `x[i][j]` takes items of: `x`."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return node


def read_names(node: ast.AST) -> set[str]:
    """Names an expression (or a whole statement) reads."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


class Liveness:
    """Which names are read after each statement, before being assigned again.

    `after[stmt]` and `live_in[stmt]` are sets of names; for a loop the first counts the enclosing loops'
    next iterations too.  Standard backward analysis over structured code.
    """

    def __init__(self, *functions: ast.FunctionDef) -> None:
        self.after: dict[ast.stmt, set[str]] = {}
        self.live_in: dict[ast.stmt, set[str]] = {}
        self.body_live_in: dict[ast.stmt, set[str]] = {}
        for function in functions:
            self._block(function.body, set())

    def _block(self, body: list[ast.stmt], live: set[str]) -> set[str]:
        for stmt in reversed(body):
            live = self._statement(stmt, live)
        return live

    def _statement(self, stmt: ast.stmt, after: set[str]) -> set[str]:
        self.after[stmt] = self.after.get(stmt, set()) | after
        if isinstance(stmt, ast.Return):
            live = read_names(stmt)
        elif isinstance(stmt, ast.If):
            live = read_names(stmt.test) | self._block(stmt.body, after) | self._block(stmt.orelse, after)
        elif isinstance(stmt, (ast.For, ast.While)):
            head = stmt.iter if isinstance(stmt, ast.For) else stmt.test
            bound = target_names(stmt.target) if isinstance(stmt, ast.For) else set()
            top: set[str] = set()
            while True:  # to a fixed point: the end of the body flows back to its start
                body_in = self._block(stmt.body, after | top | read_names(head)) - bound
                if body_in <= top:
                    break
                top |= body_in
            self.body_live_in[stmt] = body_in
            live = read_names(head) | body_in | self._block(stmt.orelse, after) | after
        elif isinstance(stmt, ast.With):
            live = self._block(stmt.body, after)
            for item in stmt.items:
                live = live | read_names(item.context_expr)
        elif isinstance(stmt, ast.Assign):
            live = (after - set().union(*(target_names(t) for t in stmt.targets))) | read_names(stmt)
        elif isinstance(stmt, ast.AugAssign):
            live = after | read_names(stmt) | target_names(stmt.target)
        elif isinstance(stmt, ast.AnnAssign):
            live = (after - target_names(stmt.target)) | read_names(stmt)
        elif isinstance(stmt, ast.Delete):
            live = after - {t.id for t in stmt.targets if isinstance(t, ast.Name)}
        else:
            live = after | read_names(stmt)
        self.live_in[stmt] = self.live_in.get(stmt, set()) | live
        return live
