"""The statement part of the abstract interpreter, and the walk over a kernel function's top level."""

from __future__ import annotations

import ast
import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import torch

from .. import exc
from .. import language as hl
from ..ir.effects import storage_of
from ..ir.symbols import is_symbolic
from ..ir.symbols import symbols_of
from ..language import barrier
from ..language import store
from ..language.augmented import keep_type
from ..language.containers import tensors_in
from ..language.stack import StackTensor
from .control_flow import ControlFlow
from .decisions import ConfigDecision
from .expressions import LambdaValue
from .host_decisions import Decisions
from .jumps import End
from .jumps import is_stopped
from .source import assigned_names
from .source import read_names
from .tracer import TracedLoop
from .translated import is_data_dependent
from .unrolled import LIMIT
from .unrolled import before_launch
from .unrolled import check_names_only
from .unrolled import check_rounds
from .unrolled import named_by
from .unrolled import refused


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Return(Exception):
    def __init__(self, value: Any) -> None:
        self.value = value


class Statements(ControlFlow):
    """Executes statements; `run_kernel` is the entry for a kernel function."""

    def __init__(self, env: Any, tracer: Any, decisions: Decisions) -> None:
        super().__init__(env, tracer)
        self.decisions = decisions
        self.epilogue: list[ast.stmt] = []
        self.device_names: set[str] = set()
        self._unrolled_names: set[str] = set()
        self._failed: set[ast.expr] = set()  # of expressions that are tried again as ones of each call: not those
        self._read_a_tensor = False  # host code has, after the kernel: what follows is not known while tracing
        # What encloses the current statement, innermost last: "function", "python loop", "device loop", "branch".
        self._inside: list[str] = []

    # -- the kernel function ----------------------------------------------------------------------------------------

    def run_kernel(self, body: list[ast.stmt]) -> None:
        """Interpret the top level of a kernel function: host statements, device loops, host statements."""
        with self.env.undecided():
            for stmt in body:
                self.at(stmt)
                try:
                    if self._read_a_tensor:
                        self._unknown(stmt)
                    elif not self._top_level(stmt):
                        break
                except exc.BaseError as error:
                    raise self.error(stmt, error)

    def _top_level(self, stmt: ast.stmt) -> bool:
        """One top-level statement; False once the function returns."""
        if isinstance(stmt, ast.Expr) and isinstance(stmt.value, ast.Constant):
            return True  # docstring
        if isinstance(stmt, ast.For):
            loop = self.expr(stmt.iter)
            if isinstance(loop, TracedLoop):
                self._root(stmt, loop)
                return True
            if self._has_device_loop(stmt):
                self._unroll(stmt, loop)
                return True
        if isinstance(stmt, ast.If) and self._has_device_loop(stmt):
            body = stmt.body if self.host_truth(stmt.test) else stmt.orelse
            if stmt.test in self.decisions.tests:
                self.prelude.append(ast.copy_location(ast.Expr(stmt.test), stmt))
            return all(self._top_level(inner) for inner in body)
        if self._is_barrier(stmt):
            self._check_nothing_between()
            self.env.ir.end_phase()
            return True
        (self.epilogue if self.env.ir.roots else self.prelude).append(stmt)
        try:
            self.statement(stmt)
        except _Return:
            return False
        except exc.HostTensorRead:
            if not self.env.ir.roots:
                raise
            self._read_a_tensor = True
        return True

    def _root(self, stmt: ast.For, loop: TracedLoop) -> None:
        self._check_nothing_between()
        frame = self.frame
        frame.device.clear()
        self.root_loop(self._structured_root(stmt), loop)
        self.device_names |= set(frame.device) | assigned_names([stmt])
        frame.device.clear()

    def _unroll(self, loop: ast.For, items: Any) -> None:
        """A host loop around device loops, of which nothing is left in the host function."""
        self._check_iterable(items)
        made = self.frame.source.structured.get(loop, [loop])
        given = len(self.rewrites), self.decisions.tests
        outer = self.env.host_variables
        self.env.host_variables = host = dict(self.frame.host) if outer is None else outer
        if outer is None and not self.env.ir.roots and isinstance(loop.iter, (ast.List, ast.ListComp, ast.Tuple)):
            name = f"_items_{len(self.prelude)}"  # host code like any other before the loops
            self.prelude.append(ast.copy_location(ast.Assign([ast.Name(name, ast.Store())], loop.iter), loop))
            host[name] = items
        else:
            check_names_only(loop.iter, self._try_callee)
        self._unrolled(made[:-1])
        stmt = made[-1]
        assert isinstance(stmt, ast.For)
        with self._within("python loop"):
            for item in items:
                if len(self.env.ir.roots) >= LIMIT:
                    raise exc.NestedGridLoop(f"a host loop around device loops makes more than {LIMIT} of them")
                self.assign(stmt.target, item)
                try:
                    self._unrolled(stmt.body)
                except _Continue:
                    continue
                except _Break:
                    break
            else:
                self._unrolled(stmt.orelse)
        if given != (len(self.rewrites), self.decisions.tests):
            raise refused(stmt)  # the host function would have to work something out, or to check a condition
        self.env.host_variables = outer
        names = assigned_names(made)
        for name in names:
            self.frame.host.pop(name, None)
        self._unrolled_names |= names

    def _unrolled(self, body: list[ast.stmt]) -> None:
        for stmt in body:
            self.at(stmt)
            try:
                if isinstance(stmt, ast.For) and self._has_device_loop(stmt):
                    loop = self.expr(stmt.iter)
                    if not isinstance(loop, TracedLoop):
                        self._unroll(stmt, loop)
                        continue
                    with self._within("block"):
                        if is_stopped(stmt):
                            self._no_jump("break")
                        self._root(stmt, loop)
                elif isinstance(stmt, ast.If):
                    check_names_only(stmt.test, self._try_callee)
                    test, unknown = self._host_test(stmt.test)
                    if unknown is not None or self.is_dynamic(test):
                        raise refused(stmt.test)
                    self._unrolled(stmt.body if test else stmt.orelse)
                elif self._is_barrier(stmt):
                    self.env.ir.end_phase()
                elif not (isinstance(stmt, ast.Expr) and isinstance(stmt.value, ast.Constant)):
                    check_names_only(stmt, self._try_callee)
                    self._give_names(stmt)
            except exc.BaseError as error:
                raise self.error(stmt, error)

    def _give_names(self, stmt: ast.stmt) -> None:
        """A statement of an unrolled loop's body.  The host function makes the views in it before the launch."""
        host = self.env.host_variables
        assert host is not None
        held = {name: self.frame.host.get(name) for name in read_names(stmt)}
        known = {storage_of(tensor) for tensor in tensors_in(list(host.values()))}
        self.statement(stmt)
        text_of = self.tracer.name_of_host_tensor
        for target, value in named_by(stmt):
            made = self.frame.host.get(target.id)
            if isinstance(made, torch.Tensor) and text_of(made) is None and storage_of(made) in known:
                view = before_launch(value, lambda name: held.get(name), host, text_of)
                name = f"_{target.id}_{len(self.prelude)}"
                self.prelude.append(ast.copy_location(ast.Assign([ast.Name(name, ast.Store())], view), stmt))
                host[name] = made
        values = [self.frame.host.get(name) for name in assigned_names([stmt])]
        if any(text_of(tensor) is None for tensor in tensors_in(values)):
            raise refused(stmt)  # generated code cannot read it

    def _structured_root(self, loop: ast.For) -> ast.For:
        """A top-level loop without jumps.  Its tiles run at the same time, so that a `break` of its own stays one: an
        error."""
        made = self.frame.source.structured.get(loop, [loop])
        return made[0] if len(made) == 1 and isinstance(made[0], ast.For) else loop

    def _unknown(self, stmt: ast.stmt) -> None:
        """A statement after one that has read a result of the kernel: it runs as it stands, but device variables are
        not there.
        """
        if self._has_device_loop(stmt) or self._is_barrier(stmt):
            raise self.error(stmt, self.read_between_loops(self.epilogue[-1]))
        for name in sorted(read_names(stmt) & (self.device_names | self._unrolled_names)):
            self.lookup(name)
        self.frame.host.update(dict.fromkeys(assigned_names([stmt])))
        self.epilogue.append(stmt)

    def _check_nothing_between(self) -> None:
        if self.epilogue:
            error = exc.TopLevelStatementBetweenLoops()
            raise self.error(self.epilogue[0], error)

    def _is_barrier(self, stmt: ast.stmt) -> bool:
        if not (isinstance(stmt, ast.Expr) and isinstance(stmt.value, ast.Call)):
            return False
        return self._try_callee(stmt.value.func) is barrier

    def has_device_loop(self, body: list[ast.stmt]) -> bool:
        """Whether there is one, be it behind a `return`."""
        return any(map(self._has_device_loop, body))

    def _has_device_loop(self, stmt: ast.stmt) -> bool:
        loops = (hl.tile, hl.grid, hl.jagged_tile)
        return any(
            isinstance(n, ast.For) and isinstance(n.iter, ast.Call) and self._try_callee(n.iter.func) in loops
            for n in ast.walk(stmt)
        )

    def _try_callee(self, node: ast.expr) -> Any:
        """The object a call's function expression names, None when it is anything but a (dotted) name."""
        if isinstance(node, ast.Name):
            try:
                return self.lookup(node.id)
            except exc.UndefinedVariable:
                return None
        if isinstance(node, ast.Attribute):
            return getattr(self._try_callee(node.value), node.attr, None)
        return None

    def lookup(self, name: str) -> Any:
        if not self.tracer.on_device and name not in self.frame.host:
            if name in self._unrolled_names:
                raise exc.CannotReadDeviceVariableOnHost(
                    f"variable {name!r} of a host loop around device loops is read behind it",
                    fix="that loop is unrolled while compiling: name what you need before it.",
                )
            if name in self.device_names:
                raise exc.CannotReadDeviceVariableOnHost(name=name)
        return super().lookup(name)

    # -- statements ---------------------------------------------------------------------------------------------------

    def block(self, body: list[ast.stmt]) -> None:
        for stmt in body:
            self.statement(stmt)

    def statement(self, stmt: ast.stmt) -> None:
        """Execute one statement; errors leave with a place."""
        structured = self.frame.source.structured.get(stmt) if self.tracer.on_device else None
        if structured is not None:
            self.block(structured)
            return
        method = getattr(self, f"stmt_{type(stmt).__name__}", None)
        outer = self.tracer.location
        self.at(stmt)
        try:
            if method is None and isinstance(stmt, ast.With) and self.tracer.on_device:
                raise exc.NotAllowedOnDevice(name="`with`", fix="enter the context around the call of the kernel.")
            if method is None:
                raise exc.StatementNotSupported(
                    statement=f"`{_KEYWORDS.get(type(stmt).__name__, type(stmt).__name__.lower())}`",
                    where=self.where(),
                    fix="enter the context around the call of the kernel."
                    if isinstance(stmt, ast.With)
                    else "rewrite it with assignments, `if`, and `for` loops.",
                )
            method(stmt)
        except exc.BaseError as error:
            raise self.error(stmt, error)
        except ConfigDecision as decision:
            raise self.error(stmt, self.undecidable(stmt, *decision.args)) from None
        except (ValueError, TypeError, AttributeError, RuntimeError, IndexError, KeyError) as error:
            if self.tracer.on_device or is_data_dependent(error):
                raise self.error(
                    stmt, self.translate(error, stmt.test if isinstance(stmt, ast.If) else stmt)
                ) from error
            raise
        finally:
            self.tracer.location = outer

    def stmt_Pass(self, stmt: ast.Pass) -> None:
        return

    def stmt_Expr(self, stmt: ast.Expr) -> None:
        if not isinstance(stmt.value, ast.Constant):
            self.expr(stmt.value)

    def stmt_Assign(self, stmt: ast.Assign) -> None:
        value = self.expr(stmt.value)
        for target in stmt.targets:
            self.assign(target, value)

    def stmt_AnnAssign(self, stmt: ast.AnnAssign) -> None:
        if stmt.value is not None:
            self.assign(stmt.target, self.expr(stmt.value))

    def stmt_AugAssign(self, stmt: ast.AugAssign) -> None:
        target = stmt.target
        if isinstance(target, ast.Name):
            value = self.lookup(target.id)
            if not self.tracer.on_device and isinstance(value, torch.Tensor):
                raise exc.StatementNotSupported(
                    statement="an in-place operator on a tensor", where="host code", fix="write `x = x + y`."
                )
            if isinstance(value, torch.Tensor) and target.id in self.frame.host and target.id not in self.frame.device:
                raise self.read_only(target.id)
            added = self.expr(stmt.value)
            narrow = getattr(added, "dtype", None) in (torch.float16, torch.bfloat16)  # hl.dot gives float32
            if isinstance(stmt.op, ast.Add) and self.tracer.on_device and narrow and self._is_product(stmt.value):
                exc.warn(exc.TiledKMatmulAccumulationWarning(), self.env.settings.ignore_warnings)
            result = self.binary(stmt.op, value, added)
            if isinstance(value, torch.Tensor) and isinstance(result, torch.Tensor):
                result = keep_type(value, result)
            self.bind(target.id, result)
        elif isinstance(target, ast.Subscript):
            base, index = self.expr(target.value), self.expr(target.slice)
            value = self.binary(stmt.op, self.subscript(base, index), self.expr(stmt.value))
            self.store_item(base, index, value, target.value)
        else:
            raise exc.StatementNotSupported(statement=f"assignment to {ast.unparse(target)}", where=self.where())

    def _is_product(self, node: ast.expr) -> bool:
        """Whether an expression is `a @ b`, or a call of a product without an accumulator."""
        if isinstance(node, ast.BinOp):
            return isinstance(node.op, ast.MatMult)
        if not isinstance(node, ast.Call):
            return False
        if any(keyword.arg == "acc" for keyword in node.keywords):
            return False
        return self.expr(node.func) in (torch.mm, torch.bmm, torch.matmul, hl.dot) and len(node.args) < 3

    def assign(self, target: ast.expr, value: Any) -> None:
        """Assign to a name, a tuple of targets, or an item."""
        if isinstance(value, TracedLoop):
            raise exc.LoopFunctionNotInFor(name=value.ranges.name)
        if isinstance(target, ast.Subscript):
            self.store_item(self.expr(target.value), self.expr(target.slice), value, target.value)
        elif isinstance(target, ast.Attribute):
            raise exc.StatementNotSupported(
                statement=f"assignment to attribute {ast.unparse(target)!r}",
                where=self.where(),
                fix="use a local variable.",
            )
        elif isinstance(target, (ast.Tuple, ast.List)):
            for t, v in self.unpacked(target.elts, list(value)):
                self.assign(t, v)
        else:
            self.assign_pattern(target, value)

    def store_item(self, base: Any, index: Any, value: Any, node: ast.expr) -> None:
        """`base[index] = value`; `node` is the base's expression."""
        if self.tracer.on_device and isinstance(base, (torch.Tensor, StackTensor)):
            store(base, index, value)
        elif self.tracer.on_device:
            self._replace_item(base, index, value, node)
        else:
            try:
                with self.env.undecided():
                    base[index] = value
            except (RuntimeError, IndexError, TypeError, ValueError) as error:
                raise self.error(node, self.translate(error, node)) from error

    def _replace_item(self, base: Any, index: Any, value: Any, node: ast.expr) -> None:
        """A list or dict of device code with another item.  It becomes another object, so that loops and branches see a
        variable
        change; a second name for the old one would not."""
        names = [name for frame in self.frames for name, other in frame.device.items() if other is base]
        if not isinstance(base, (list, dict)) or not isinstance(node, ast.Name) or is_symbolic(index):
            flat = "keep all values in one list or dict: `a[n * i + j] = v` or `a[i, j] = v`."
            raise exc.StatementNotSupported(
                statement=f"assignment into a {type(base).__name__}",
                where="device code",
                fix=flat if isinstance(node, ast.Subscript) and not is_symbolic(index) else "use separate variables.",
            )
        if len(names) > 1:
            raise exc.StatementNotSupported(
                statement=f"assignment into a {type(base).__name__} that has several names",
                where="device code",
                fix="give the list another value instead: `v = list(v)` in a helper, which returns it, and "
                "`v = swap(v)` where that is called.",
            )
        changed = base.copy()
        changed[index] = value
        self.bind(node.id, changed)

    def stmt_If(self, stmt: ast.If) -> None:
        test = self.host_truth(stmt.test) if self.decides else self.expr(stmt.test)
        if self.is_dynamic(test):
            if not self.tracer.on_device:
                raise self.undecidable(stmt.test, symbols_of(test))
            with self._within("branch"):
                self.device_branch(stmt, test)
        else:
            self.block(stmt.body if test else stmt.orelse)

    def stmt_For(self, stmt: ast.For) -> None:
        iterable = self.expr(stmt.iter)
        if isinstance(iterable, TracedLoop):
            if not self.tracer.on_device:
                raise exc.NestedGridLoop(statement="loop" if self._inside else "block")
            with self._within("device loop"):
                self.device_loop(stmt, iterable)
            return
        self._check_iterable(iterable)
        with self._within("python loop"):
            for count, item in enumerate(iterable):
                check_rounds(count)
                self.assign(stmt.target, item)
                try:
                    self.block(stmt.body)
                except _Continue:
                    continue
                except _Break:
                    break
            else:
                self.block(stmt.orelse)

    def _check_iterable(self, iterable: Any) -> None:
        if isinstance(iterable, torch.Tensor) or is_symbolic(iterable):
            raise exc.InvalidDeviceForLoop(
                statement="iterating over a tensor",
                where=self.where(),
                fix="loop over its indices with hl.tile or hl.grid.",
            )

    def stmt_While(self, stmt: ast.While) -> None:
        with self._within("python loop"):
            for count in itertools.count():
                check_rounds(count, of_device_while=self.tracer.on_device)
                test = self.host_truth(stmt.test) if self.decides else self.expr(stmt.test)
                if self.is_dynamic(test):
                    break
                if not test:
                    self.block(stmt.orelse)
                    return
                try:
                    self.block(stmt.body)
                except _Continue:
                    continue
                except _Break:
                    return
        if not self.tracer.on_device or (is_symbolic(test) and self.env.is_configured(test)):
            raise self.undecidable(stmt.test, symbols_of(test))
        with self._within("device loop"):
            self.device_while(stmt, test, goes_on=count > 0)

    def stmt_End(self, stmt: End) -> None:
        if self._inside[-1] != "branch":
            raise _Break

    def stmt_Break(self, stmt: ast.Break) -> None:
        self._no_jump("break")
        raise _Break

    def stmt_Continue(self, stmt: ast.Continue) -> None:
        self._no_jump("continue")
        raise _Continue

    def _no_jump(self, statement: str) -> None:
        # The body of a device loop is interpreted once: a jump out of it would drop the rest of the body.
        if not self._inside or self._inside[-1] != "python loop":
            raise exc.StatementNotSupported(
                statement=f"`{statement}`",
                where="a top-level loop, whose tiles run at the same time",
                fix="put what a tile is not to do under an `if`.",
            )

    def is_repeated(self) -> bool:
        return bool(self._inside)

    @contextlib.contextmanager
    def _within(self, what: str) -> Iterator[None]:
        self._inside.append(what)
        try:
            yield
        finally:
            self._inside.pop()

    def stmt_Return(self, stmt: ast.Return) -> None:
        if self.tracer.on_device and self.frame.is_kernel:
            raise exc.NotAllowedOnDevice(
                name="`return`", fix="store results into tensors and return those after the loop."
            )
        body = (
            self._inside[len(self._inside) - self._inside[::-1].index("function") :]
            if "function" in self._inside
            else []
        )
        if "branch" in body or "device loop" in body:  # in loops: others are the last statement (`with_one_return`)
            raise exc.StatementNotSupported(
                statement="`return`",
                where="a loop, under a condition of the device",
                fix="assign it to a variable that has a value before the loop, `break`, and return after the loop.",
            )
        raise _Return(None if stmt.value is None else self.expr(stmt.value))

    def stmt_Assert(self, stmt: ast.Assert) -> None:
        if self.tracer.on_device:
            test = self.expr(stmt.test)
            if self.is_dynamic(test):
                raise exc.StatementNotSupported(
                    statement="`assert` on a device value",
                    where="device code",
                    fix="check it in host code, or use hl.device_print.",
                )
            if not test:
                raise exc.InvalidAPIUsage(f"assertion failed: {ast.unparse(stmt.test)}")
            return
        if not (self.host_truth(stmt.test) if self.decides else self.expr(stmt.test)):
            message = self.expr(stmt.msg) if stmt.msg is not None else ast.unparse(stmt.test)
            raise AssertionError(message)

    def stmt_Raise(self, stmt: ast.Raise) -> None:
        if self.tracer.on_device:
            raise exc.StatementNotSupported(
                statement="`raise`", where="device code", fix="check arguments in host code."
            )
        error = self.expr(stmt.exc) if stmt.exc is not None else RuntimeError("raise")
        raise error

    def stmt_Delete(self, stmt: ast.Delete) -> None:
        for target in stmt.targets:
            if not isinstance(target, ast.Name):
                raise exc.StatementNotSupported(statement=f"del {ast.unparse(target)}", where=self.where())
            (self.frame.device if self.tracer.on_device else self.frame.host).pop(target.id, None)

    def stmt_FunctionDef(self, stmt: ast.FunctionDef) -> None:
        if stmt.decorator_list:
            raise exc.StatementNotSupported(
                statement=f"the decorated function {stmt.name!r}", where=self.where(), fix="define it at module level."
            )
        self.bind(stmt.name, LambdaValue(self, stmt, self.frame))

    def stmt_Import(self, stmt: ast.Import) -> None:
        self._import(stmt)

    def stmt_ImportFrom(self, stmt: ast.ImportFrom) -> None:
        self._import(stmt)

    def _import(self, stmt: ast.stmt) -> None:
        if self.tracer.on_device:
            raise exc.StatementNotSupported(
                statement="`import`", where="device code", fix="import at the top of the file."
            )
        names: dict[str, Any] = {}
        exec(compile(ast.Module([stmt], []), self.frame.source.file, "exec"), self.frame.globals, names)
        self.frame.host.update(names)

    # -- helpers
    # ------------------------------------------------------------------------------------------------------------

    def run_function(self, node: ast.FunctionDef) -> Any:
        """Interpret an inlined helper's body."""
        with self._within("function"):
            try:
                self.block(node.body)
            except _Return as returned:
                return returned.value
        return None


_KEYWORDS = {
    "Try": "try",
    "TryStar": "try",
    "With": "with",
    "Global": "global",
    "Nonlocal": "nonlocal",
    "ClassDef": "class",
    "Match": "match",
    "AsyncFor": "async for",
    "AsyncWith": "async with",
    "AsyncFunctionDef": "async def",
}
