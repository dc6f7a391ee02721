"""The statement part of the abstract interpreter.  Not here: the walk over a kernel function's body (`kernel_body`)."""

from __future__ import annotations

import ast
import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import torch

from .. import exc
from .. import language as hl
from ..ir.symbols import is_symbolic
from ..ir.symbols import symbols_of
from ..language import store
from ..language.augmented import keep_type
from ..language.stack import StackTensor
from .control_flow import ControlFlow
from .decisions import ConfigDecision
from .expressions import LambdaValue
from .jumps import End
from .jumps import Take
from .jumps import taking
from .tracer import TracedLoop
from .translated import is_data_dependent
from .unrolled import check_rounds


class Break(Exception):
    pass


class Continue(Exception):
    pass


class Return(Exception):
    def __init__(self, value: Any) -> None:
        self.value = value


class Statements(ControlFlow):
    """Executes statements."""

    def __init__(self, env: Any, tracer: Any) -> None:
        super().__init__(env, tracer)
        self.left_out: list[ast.stmt] = []  # of device code, by decisions while tracing
        self._items: dict[Take, Any] = {}  # of iterations that are beginning
        # What encloses the current statement, innermost last: "function", "python loop", "device loop", "branch".
        self._inside: list[str] = []

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
                    fix=_INSTEAD.get(type(stmt), "rewrite it with assignments, `if`, and `for` loops."),
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
        nested = isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice)
        if not isinstance(base, (list, dict)) or not (nested or isinstance(node, ast.Name)) or is_symbolic(index):
            raise exc.StatementNotSupported(
                statement=f"assignment into a {type(base).__name__}",
                where="device code",
                fix="use separate variables.",
            )
        if sum(_times_held(base, value) for frame in self.frames for value in frame.device.values()) > 1:
            raise exc.StatementNotSupported(
                statement=f"assignment into a {type(base).__name__} that has several names",
                where="device code",
                fix="give the list another value instead: `v = list(v)` in a helper, which returns it, and "
                "`v = swap(v)` where that is called.",
            )
        changed = base.copy()
        changed[index] = value
        if isinstance(node, ast.Subscript):
            self._replace_item(self.expr(node.value), self.expr(node.slice), changed, node.value)
        elif isinstance(node, ast.Name):
            self.bind(node.id, changed)

    def stmt_If(self, stmt: ast.If) -> None:
        test = self.host_truth(stmt.test) if self.decides else self.expr(stmt.test)
        if self.is_dynamic(test):
            if not self.tracer.on_device:
                raise self.undecidable(stmt.test, symbols_of(test))
            with self._within("branch"):
                self.device_branch(stmt, test)
        else:
            self._leave_out(stmt.orelse if test else stmt.body)
            self.block(stmt.body if test else stmt.orelse)

    def _leave_out(self, body: list[ast.stmt]) -> None:
        if self.tracer.on_device:
            self.left_out += body

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
            rounds = 0
            for rounds, item in enumerate(iterable, 1):
                check_rounds(rounds - 1)
                self.begin_round(stmt, item)
                try:
                    self.block(stmt.body)
                except Continue:
                    continue
                except Break:
                    break
            else:
                self.block(stmt.orelse)
        if not rounds:
            self._leave_out(stmt.body)

    def begin_round(self, loop: ast.For, item: Any) -> None:
        """Give the variable of an unrolled loop the item of an iteration."""
        take = taking(loop)
        if take is None:
            self.assign(loop.target, item)
        else:
            self._items[take] = item

    def stmt_Take(self, stmt: Take) -> None:
        if stmt in self._items:
            self.assign(stmt.targets[0], self._items.pop(stmt))

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
                    if not count:
                        self._leave_out(stmt.body)
                    self.block(stmt.orelse)
                    return
                try:
                    self.block(stmt.body)
                except Continue:
                    continue
                except Break:
                    return
        if not self.tracer.on_device or (is_symbolic(test) and self.env.is_configured(test)):
            raise self.undecidable(stmt.test, symbols_of(test))
        with self._within("device loop"):
            self.device_while(stmt, test, goes_on=count > 0)

    def stmt_End(self, stmt: End) -> None:
        if self._inside[-1] != "branch":
            raise Break

    def stmt_Break(self, stmt: ast.Break) -> None:
        self._no_jump("break")
        raise Break

    def stmt_Continue(self, stmt: ast.Continue) -> None:
        self._no_jump("continue")
        raise Continue

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
        raise Return(None if stmt.value is None else self.expr(stmt.value))

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
            except Return as returned:
                return returned.value
        return None


def _times_held(item: Any, value: Any) -> int:
    """In how many places of a value a list or dict is."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return (value is item) + sum(_times_held(item, part) for part in inside)


_INSTEAD = {
    ast.With: "enter the context around the call of the kernel.",
    ast.Match: "write `if` and `elif`: patterns compare with constants, names with a dot, and types.",
}
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
